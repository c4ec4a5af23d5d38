"""Positions as sines and cosines of many wavelengths, in two dimensions and in one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_LONGEST = 10000


def sine_positions(side: int, channels: int) -> Tensor:
    """Encode the pixels of a square map (facebookresearch/sam2, position_encoding.py, ``PositionEmbeddingSine``).

    :return: (1, side * side, channels): those of the row, then those of the column, sines and cosines in turns.
    """
    position = torch.arange(1, side + 1) / (side + 1e-6) * 2 * math.pi
    phases = position[:, None] / _wavelengths(channels // 2)
    axis = torch.stack([phases[:, 0::2].sin(), phases[:, 1::2].cos()], dim=2).flatten(1)
    rows, columns = axis[:, None].expand(-1, side, -1), axis.expand(side, -1, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)[None]


def sine_distances(distances: Tensor, channels: int) -> Tensor:
    """Encode distances (N,) as (N, channels): all sines, then all cosines (sam2_utils.py, ``get_1d_sine_pe``)."""
    phases = distances[:, None] / _wavelengths(channels // 2).to(distances.device)
    return torch.cat([phases.sin(), phases.cos()], dim=1)


def _wavelengths(number: int) -> Tensor:
    """Return wavelengths in pairs, from 1 up: (number,)."""
    return _LONGEST ** (2 * (torch.arange(number) // 2) / number)
