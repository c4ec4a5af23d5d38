"""The track of boxes through the slices: smoothed by certainty, moved by corrections."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.box_track import bounds, moved_boxes, smoothed_boxes
from MedSAMSlicerLib.volume.slice_masks import SliceMask

ROWS, COLUMNS = 48, 64
# By its outer edges.
BOX = Box(20, 12, 40, 30)


def shifted(box: Box, x: float = 0, y: float = 0) -> Box:
    return Box(box.x0 + x, box.y0 + y, box.x1 + x, box.y1 + y)


def a_result(index: int, box: Box | None, confidence: float = 0.95) -> SliceMask:
    """A slice whose mask fills a box."""
    mask = np.zeros((ROWS, COLUMNS), dtype=bool)
    if box:
        mask[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)] = True
    return SliceMask(index, mask, Box(0, 0, 1, 1), 0.5, confidence)


def assert_close(box: Box, expected: Box, atol: float) -> None:
    np.testing.assert_allclose(astuple(box), astuple(expected), rtol=0, atol=atol)


def test_bounds_are_the_outer_edges_of_a_mask():
    assert bounds(a_result(0, BOX).mask) == BOX
    assert bounds(np.ones((ROWS, COLUMNS), dtype=bool)) == Box(0, 0, COLUMNS, ROWS)
    assert bounds(a_result(0, Box(3, 4, 4, 5)).mask) == Box(3, 4, 4, 5)
    assert bounds(a_result(0, None).mask) is None


def test_boxes_of_certain_masks_hardly_move():
    random = np.random.default_rng(5)
    boxes = {index: shifted(BOX, *random.integers(-2, 3, 2)) for index in range(10, 20)}
    smoothed = smoothed_boxes([a_result(index, box, 0.98) for index, box in boxes.items()])
    assert smoothed.keys() == boxes.keys()
    for index, box in boxes.items():
        assert_close(smoothed[index], box, atol=0.5)


def test_an_uncertain_outlier_follows_its_neighbors():
    results = [a_result(index, BOX) for index in range(9)]
    results[4] = a_result(4, shifted(BOX, x=12, y=-8), 0.2)
    smoothed = smoothed_boxes(results)
    for index in range(9):
        assert_close(smoothed[index], BOX, atol=1)


def test_a_certain_slice_is_followed_by_its_uncertain_neighbors():
    results = [a_result(index, shifted(BOX, x=10), 0.1) for index in range(9)]
    results[4] = a_result(4, BOX, 1)
    smoothed = smoothed_boxes(results)
    assert_close(smoothed[4], BOX, atol=0.5)
    distances = [smoothed[index].x0 - BOX.x0 for index in range(4, 9)]
    assert distances == sorted(distances)
    assert distances[1] < 5


def test_a_slice_without_a_mask_gets_the_box_between_its_neighbors():
    results = [a_result(0, BOX), a_result(1, None, 0), a_result(2, shifted(BOX, x=4)), a_result(3, None, 0)]
    smoothed = smoothed_boxes(results)
    assert_close(smoothed[1], shifted(BOX, x=2), atol=0.1)
    assert_close(smoothed[3], shifted(BOX, x=4), atol=0.5)


def test_without_any_mask_there_is_no_track():
    assert smoothed_boxes([a_result(index, None, 0) for index in range(3)]) == {}
    assert moved_boxes([a_result(index, None, 0) for index in range(3)], {1: BOX}) == {}


def test_a_single_slice_keeps_its_box():
    assert smoothed_boxes([a_result(7, BOX, 0.3)]) == {7: BOX}


@pytest.mark.parametrize("slices", [9, 300])
def test_a_given_box_is_kept_and_drags_its_neighbors_along_where_they_are_uncertain(slices):
    given = Box(26.3, 8.1, 52.7, 35.9)
    smoothed = smoothed_boxes([a_result(index, BOX, 0.5) for index in range(slices)], {4: given})
    assert_close(smoothed[4], given, atol=0.1)
    for index in (3, 5):
        assert abs(smoothed[index].x1 - given.x1) < abs(smoothed[index].x1 - BOX.x1)


def test_a_given_box_counts_also_where_no_mask_was_found():
    results = [a_result(index, None, 0) for index in range(5)]
    assert smoothed_boxes(results, {2: BOX}) == dict.fromkeys(range(5), BOX)


def test_a_given_box_changes_nothing_beyond_the_next_given_one():
    results = [a_result(index, shifted(BOX, x=index % 3), 0.6) for index in range(12)]
    given = {3: shifted(BOX, x=5), 7: shifted(BOX, x=-5)}
    before, after = smoothed_boxes(results, given), smoothed_boxes(results, {**given, 9: shifted(BOX, x=15)})
    for index in range(8):
        assert before[index] == after[index], index
    assert all(after[index].x0 > before[index].x0 + 1 for index in (8, 9, 10))


def test_between_two_given_boxes_sides_move_as_far_as_both_tell():
    results = [a_result(index, shifted(BOX, y=index)) for index in range(10)]
    # On the right the structure is 4 pixels too wide in slice 2, and 8 in slice 6; all other sides are right.
    given = {2: Box(20, 14, 36, 32), 6: Box(20, 18, 32, 36)}
    moved = moved_boxes(results, given)
    assert [moved[index] for index in range(2, 7)] == [
        Box(20, 12 + index, 40 - (index + 2), 30 + index) for index in range(2, 7)
    ]


def test_outward_of_the_given_boxes_sides_move_less_and_less():
    results = [a_result(index, BOX) for index in range(20)]
    moved = moved_boxes(results, {10: Box(20, 12, 30, 30)})
    assert moved[10] == Box(20, 12, 30, 30)
    ways = [40 - moved[index].x1 for index in range(10, 20)]
    assert ways == sorted(ways, reverse=True)
    assert ways[-1] == pytest.approx(10 * np.exp(-9 / 20), abs=0.06)
    assert [moved[10 - way] for way in range(1, 10)] == [moved[10 + way] for way in range(1, 10)]


def test_empty_slices_are_not_moved_and_a_given_box_without_a_mask_moves_nothing():
    results = [a_result(0, BOX), a_result(1, None, 0), a_result(2, BOX)]
    assert moved_boxes(results, {1: shifted(BOX, x=4)}) == {}
    moved = moved_boxes(results, {0: shifted(BOX, x=4), 1: BOX})
    assert moved.keys() == {0, 2}
    # The box that was given where nothing was found tells of no way.
    assert moved[2] == shifted(BOX, x=round(4 * float(np.exp(-2 / 3)), 1))


def test_moved_boxes_stay_inside_of_the_slices():
    at_the_edges = [Box(0, 0, 10, 10), Box(COLUMNS - 10, ROWS - 10, COLUMNS, ROWS)]
    results = [a_result(0, at_the_edges[0]), a_result(1, BOX), a_result(2, at_the_edges[1])]
    for way in (12, -12):
        for box in moved_boxes(results, {1: shifted(BOX, way, way)}).values():
            assert 0 <= box.x0 <= box.x1 <= COLUMNS
            assert 0 <= box.y0 <= box.y1 <= ROWS


def test_sides_that_would_pass_each_other_still_make_a_box():
    # A thin slice next to a given one that was narrowed by more than the thin one is wide.
    results = [a_result(0, BOX), a_result(1, Box(28, 12, 32, 30))]
    moved = moved_boxes(results, {0: Box(28, 12, 30, 30)})
    assert moved[1].x0 <= moved[1].x1
