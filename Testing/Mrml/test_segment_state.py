"""What a step of undo keeps of a segment."""

from __future__ import annotations

import numpy as np
import pytest
import slicer

from geometries import GEOMETRIES
from MedSAMSlicerLib.mrml.segment_state import PackedMask
from MedSAMSlicerLib.mrml.segments import oriented_image, voxels_of

GRID = GEOMETRIES["oblique anisotropic"]


def mask() -> np.ndarray:
    inside = np.zeros((5, 6, 7), dtype=bool)
    inside[1:4, 2:5, 1:6] = np.random.default_rng(1).random((3, 3, 5)) < 0.5
    inside[1, 2, 1] = inside[3, 4, 5] = True
    return inside


def test_it_comes_out_as_it_was_put_in_cut_to_what_it_holds():
    labelmap = PackedMask.of(oriented_image(mask(), [10, -20, 30], GRID)).labelmap()
    assert labelmap.GetExtent() == (11, 15, -18, -16, 31, 33)
    np.testing.assert_array_equal(voxels_of(labelmap), mask()[1:4, 2:5, 1:6])
    assert PackedMask.of(slicer.vtkOrientedImageData()).labelmap() is None


@pytest.mark.parametrize(("moved", "same"), [((0, 0, 0), True), ((0, 0, 1), False), ((1e-5, 0, 0), True)])
def test_it_equals_what_lies_at_the_same_place_whatever_the_indices_are(moved, same):
    grid = GRID.copy()
    grid[:, 3] = GRID @ [3 + moved[0], 4 + moved[1], 5 + moved[2], 1]
    here, there = oriented_image(mask(), [3, 4, 5], GRID), oriented_image(mask(), [0, 0, 0], grid)
    assert PackedMask.of(here).equals(PackedMask.of(there)) == same


def test_one_voxel_more_is_another_mask_and_empty_ones_are_equal_anywhere():
    more = mask()
    more[2, 3, 3] ^= True
    assert not PackedMask.of(oriented_image(mask(), [0, 0, 0], GRID)).equals(
        PackedMask.of(oriented_image(more, [0, 0, 0], GRID))
    )
    empty = PackedMask.of(oriented_image(np.zeros((2, 2, 2), bool), [5, 5, 5], GRID))
    assert empty.equals(PackedMask.of(slicer.vtkOrientedImageData()))


def test_a_large_segment_takes_little_memory():
    k, j, i = np.ogrid[-1:1:100j, -1:1:200j, -1:1:200j]
    ball = k * k + j * j + i * i < 1
    assert len(PackedMask.of(oriented_image(ball, [0, 0, 0], GRID)).bits) < ball.size / 30
