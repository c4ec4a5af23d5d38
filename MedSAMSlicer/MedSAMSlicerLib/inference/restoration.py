"""The way back: from the decoder's square of logits to the pixels of a slice, or of a part of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from MedSAMSlicerLib.model.layers import linear
from MedSAMSlicerLib.model.mask_decoder import Window

# The decoder makes so many logits of a pixel of the embedding, along each axis.
_LOGITS_PER_PIXEL = 4


@dataclass(frozen=True)
class Restoration:
    """Interpolation, separable and linear, as two matrices.

    :param rows: (rows of the slice, rows of logits): what each row of logits counts in each row of the slice.
    :param columns: the same of the columns.
    :param sigmoid_first: interpolate probabilities instead of logits.
    """

    rows: Tensor
    columns: Tensor
    sigmoid_first: bool = False

    def __call__(self, logits: Tensor) -> Tensor:
        """Turn logits (N, 1, h, w) into probabilities (N, rows, columns)."""
        maps = logits[:, 0].sigmoid() if self.sigmoid_first else logits[:, 0]
        rows, columns = self.rows.to(maps.device), self.columns.to(maps.device)
        maps = linear(linear(maps.float(), columns).transpose(1, 2), rows).transpose(1, 2)
        return maps if self.sigmoid_first else maps.sigmoid()

    def to(self, device: torch.device) -> Restoration:
        """Return the same with its matrices on a device, where they need not be copied to for every batch."""
        return replace(self, rows=self.rows.to(device), columns=self.columns.to(device))

    def within(self, window: Window) -> tuple[Window, Restoration]:
        """Confine to a part of the slice: what of the embedding it needs, and its restoration from the logits of this.

        :param window: rows and columns of the slice, at least one of each.
        """
        (needed_rows, rows), (needed_columns, columns) = (
            _confined(matrix, part) for matrix, part in zip((self.rows, self.columns), window, strict=True)
        )
        return (needed_rows, needed_columns), replace(self, rows=rows, columns=columns)


def _confined(matrix: Tensor, part: slice) -> tuple[slice, Tensor]:
    """Keep a part of the rows of a matrix, and of its columns those of the embedding's pixels that count in them."""
    matrix = matrix[part]
    counting = matrix.any(dim=0).nonzero()
    first, last = int(counting[0]) // _LOGITS_PER_PIXEL, int(counting[-1]) // _LOGITS_PER_PIXEL
    logits = slice(first * _LOGITS_PER_PIXEL, (last + 1) * _LOGITS_PER_PIXEL)
    return slice(first, last + 1), matrix[:, logits].contiguous()


# Matrices are kept, and training can't use what was made under inference mode.
@lru_cache(maxsize=64)
@torch.inference_mode(False)
def interpolation(inside: int, size: int, side: int) -> Tensor:
    """Return the matrix (size, side) that interpolates the first values of ``side`` to ``size`` values.

    As `F.interpolate` does with ``align_corners=False``.
    """
    matrix = F.interpolate(torch.eye(inside)[None], size=size, mode="linear", align_corners=False)[0].t()
    return F.pad(matrix, (0, side - inside)).contiguous()


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def interpolation_by_way_of(middle: int, inside: int, size: int, side: int) -> Tensor:
    """Return the matrix (size, side) that interpolates all values to ``middle``, and the first of those to ``size``."""
    return interpolation(inside, size, middle) @ interpolation(side, middle, side)
