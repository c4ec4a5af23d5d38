"""A mask that takes memory only where it holds something behaves as an array of the whole volume does."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from box_predictor import BoxPredictor
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.geometry import bounding_box, slice_of
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.segmentation import segment_structure
from MedSAMSlicerLib.volume.slice_stack import SliceStack
from MedSAMSlicerLib.volume.sparse_mask import SparseMask

DIMENSIONS = (9, 11, 7)


def test_slices_that_are_put_in_any_direction_are_cut_as_from_an_array():
    random = np.random.default_rng(4)
    for _ in range(30):
        sparse, dense = SparseMask(DIMENSIONS), np.zeros(DIMENSIONS[::-1], dtype=bool)
        for _ in range(8):
            axis = int(random.integers(3))
            index = int(random.integers(DIMENSIONS[axis]))
            place = slice_of(dense, axis, index)
            mask = np.zeros_like(place)
            y, x = (int(random.integers(1, size)) for size in mask.shape)
            mask[y - 1 : y + 1, x : x + 3] = random.random() < 0.7
            place[:] = mask
            sparse.put(axis, index, mask)
            for other in range(3):
                for each in range(DIMENSIONS[other]):
                    np.testing.assert_array_equal(sparse.cut(other, each), slice_of(dense, other, each))
                if dense.any():
                    low, high = bounding_box(dense)
                    assert sparse.span(other) == range(low[other], high[other] + 1)
                else:
                    assert not sparse.span(other)


def test_slices_along_a_direction_are_those_that_were_asked_for():
    sparse = SparseMask(DIMENSIONS)
    mask = np.ones((11, 9), dtype=bool)
    sparse.put(2, 3, mask)
    slices = sparse.along(2, sparse.span(2))
    assert list(slices) == [3]
    assert slices.get(4) is None
    np.testing.assert_array_equal(slices[3], mask)


@pytest.mark.parametrize("key", [KeySlice(2, 300, Box(500, 400, 512, 410)), KeySlice(1, 405, Box(498, 297, 512, 303))])
def test_a_correction_in_a_volume_of_600_million_voxels_takes_no_memory_of_its_size(key):
    # Zeros that nobody has written to take no memory.
    voxels = np.zeros((600, 1024, 1024), dtype=np.uint8)
    voxels[298:303, 380:430, 480:540] = 90
    voxels[300, 400, 500] = 255
    stack = SliceStack(voxels, (1.0, 1.0, 1.0), axis="k", window="full")
    boxes = {index: Box(495, 395, 515, 415) for index in range(298, 303)}
    tracemalloc.start()
    try:
        results = list(segment_structure(stack, boxes, BoxPredictor(), EmbeddingCache(), [key]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert {each.index for each in results if each.final} >= set(boxes)
    assert peak < voxels.nbytes / 5
