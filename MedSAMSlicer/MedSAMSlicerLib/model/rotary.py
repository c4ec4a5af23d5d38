"""Rotary positions: pairs of channels turned by an angle that grows with the row or the column of a token."""

from __future__ import annotations

import torch
from torch import Tensor


def axial_rotations(side: int, channels: int, theta: float = 10000.0) -> Tensor:
    """Return the rotations of the tokens of a square map, complex64 (side * side, channels / 2).

    The first half of the pairs turns with the column, the second with the row (Heo et al., "Rotary position embedding
    for vision transformer", ECCV 2024; facebookresearch/sam2, position_encoding.py, ``compute_axial_cis``).
    """
    speeds = 1.0 / theta ** (torch.arange(0, channels, 4).float() / channels)
    angles = torch.outer(torch.arange(side).float(), speeds)
    turns = torch.polar(torch.ones_like(angles), angles)
    columns, rows = turns.expand(side, -1, -1), turns[:, None].expand(-1, side, -1)
    return torch.cat([columns, rows], dim=2).flatten(0, 1)


def rotate(tokens: Tensor, rotations: Tensor) -> Tensor:
    """Turn pairs of neighboring channels of tokens (N, M * T, C), M maps of T tokens, by rotations (T, C / 2)."""
    maps = tokens.float().unflatten(1, (-1, len(rotations))).unflatten(3, (-1, 2))
    turned = torch.view_as_real(torch.view_as_complex(maps) * rotations)
    return turned.flatten(3).flatten(1, 2).to(tokens.dtype)
