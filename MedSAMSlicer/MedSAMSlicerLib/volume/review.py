"""Where to look: the slices of a segment, that one first where a correction promises most."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from MedSAMSlicerLib.volume.slice_masks import SliceMask

# A key slice corrects its neighbors too, and less the farther they are: e-fold per this many slices. Chosen on
# Testing/Benchmarks/corrections.py, see its README.
_REACH = 0.5


@dataclass(frozen=True)
class SliceReview:
    """How sure a slice of a segment is.

    :param axis: of the slice, 0 = I, 1 = J, 2 = K.
    :param confidence: from 0 to 1, see `slice_masks.SliceMask`.
    :param doubtful: how many of its pixels are expected to be wrong: its size times what its confidence lacks.
    """

    axis: int
    index: int
    confidence: float
    doubtful: float


def review(axis: int, results: Iterable[SliceMask]) -> list[SliceReview]:
    """List slices, those first where a key slice is expected to mend most pixels, in the slice and in its neighbors.

    Slices without doubt, such as key slices, come last.
    """
    # An empty mask counts as one pixel: that nothing was found is doubtful, too.
    slices = [
        SliceReview(axis, each.index, each.confidence, (1 - each.confidence) * max(int(each.mask.sum()), 1))
        for each in results
    ]
    gains = {
        each.index: sum(other.doubtful * math.exp(-abs(other.index - each.index) / _REACH) for other in slices)
        for each in slices
    }
    return sorted(slices, key=lambda each: (not each.doubtful, -gains[each.index], each.index))
