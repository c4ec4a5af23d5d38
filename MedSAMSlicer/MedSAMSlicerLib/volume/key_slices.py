"""Key slices: what a user has said of single slices, which the propagation has to keep to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from MedSAMSlicerLib.prompts import Box


@dataclass(frozen=True, eq=False)
class KeySlice:
    """A slice that a user has fixed, by a box around the structure or by the mask itself.

    :param axis: of the slice, 0 = I, 1 = J, 2 = K.
    :param index: of the slice.
    :param box: in slice pixels; the structure is segmented inside of it.
    :param mask: bool (rows, columns), such as a slice painted by hand; an empty one says that the structure is not
        there.
    :raises ValueError: if neither or both are given, or the mask is not 2-D.
    """

    axis: int
    index: int
    box: Box | None = None
    mask: np.ndarray | None = None

    def __post_init__(self) -> None:
        if (self.box is None) == (self.mask is None):
            raise ValueError(f"The key slice {self.index} needs either a box or a mask: give one of them.")
        if self.mask is not None and self.mask.ndim != 2:
            raise ValueError(
                f"The mask of key slice {self.index} has the shape {self.mask.shape}: give (rows, columns)."
            )
