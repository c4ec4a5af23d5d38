"""The list of slices leads the user to where a correction promises most."""

import numpy as np

from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.review import review
from MedSAMSlicerLib.volume.slice_masks import SliceMask


def slice_mask(index: int, pixels: int, confidence: float) -> SliceMask:
    mask = np.zeros((10, 10), dtype=bool)
    mask.flat[:pixels] = True
    return SliceMask(index, mask, Box(0, 0, 9, 9), 1.0, confidence)


def order(*slices: SliceMask) -> list[int]:
    return [each.index for each in review(2, slices)]


def test_a_large_doubtful_slice_comes_before_a_small_one_and_a_sure_one():
    assert order(slice_mask(0, 90, 0.9), slice_mask(10, 90, 0.5), slice_mask(20, 5, 0.5)) == [10, 0, 20]


def test_a_slice_among_doubtful_neighbors_comes_before_a_lone_one():
    lone, run = [slice_mask(0, 50, 0.5)], [slice_mask(index, 48, 0.5) for index in (10, 11, 12)]
    assert order(*lone, *run)[0] == 11


def test_a_key_slice_comes_last_even_among_doubtful_neighbors():
    slices = [slice_mask(0, 90, 0.1), slice_mask(1, 90, 1.0), slice_mask(2, 90, 0.1), slice_mask(9, 1, 0.9)]
    assert order(*slices)[-1] == 1


def test_a_slice_where_nothing_was_found_is_doubtful_too():
    (only,) = review(2, [slice_mask(4, 0, 0.3)])
    assert (only.axis, only.index, only.confidence, only.doubtful) == (2, 4, 0.3, 0.7)
