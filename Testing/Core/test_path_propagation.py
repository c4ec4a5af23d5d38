"""The best path: candidates in every slice, chosen for the whole stack."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from box_predictor import BoxPredictor, Scripted, numbered_stack
from MedSAMSlicerLib.loading import load_predictor
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.bodies import structure_bodies
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.files import read_volume
from MedSAMSlicerLib.volume.geometry import bounding_box
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.path_propagation import propagate_path
from MedSAMSlicerLib.volume.slice_masks import SliceMask, collect
from MedSAMSlicerLib.volume.slice_stack import SliceStack

ROWS, COLUMNS, SLICES = 32, 32, 9
ROI = Box(4, 4, 27, 27)
SPLEEN = 1
ORGAN, NEIGHBOR = np.s_[10:22, 10:22], np.s_[4:28, 4:9]


@pytest.fixture
def a_stack() -> SliceStack:
    """Gray slices: neither contrast nor intensities speak for any mask."""
    return numbered_stack(np.full((SLICES, ROWS, COLUMNS), 100))


def roi_of(first: int, last: int) -> dict[int, Box]:
    return dict.fromkeys(range(first, last + 1), ROI)


def is_whole(box: Box) -> bool:
    """Whether a prompt holds all of the ROI; it may be a little wider, as in training."""
    return box.x0 <= ROI.x0 and box.y0 <= ROI.y0 and box.x1 > ROI.x1 and box.y1 > ROI.y1


def final_confidence(results: Iterable[SliceMask]) -> dict[int, float]:
    return {result.index: result.confidence for result in results if result.final}


def mask_of(*places: tuple[slice, ...]) -> np.ndarray:
    mask = np.zeros((ROWS, COLUMNS), dtype=bool)
    for place in places:
        mask[place] = True
    return mask


def test_a_slice_in_which_the_box_holds_another_organ_follows_its_neighbors(a_stack):
    def answer(index: int, box: Box, probability: np.ndarray) -> None:
        probability[NEIGHBOR if index in (2, 6) and is_whole(box) else ORGAN] = 1

    mask = collect(propagate_path(a_stack, roi_of(1, 7), Scripted(answer), EmbeddingCache()), a_stack)
    for index in range(1, 8):
        np.testing.assert_array_equal(mask[index], mask_of(ORGAN), err_msg=str(index))


def test_a_wrong_first_mask_is_taken_back_when_the_other_slices_disagree(a_stack):
    def answer(index: int, box: Box, probability: np.ndarray) -> None:
        if index == 4 and is_whole(box):
            # In the middle slice the whole box shows the neighbor, a little more surely than the organ is seen.
            probability[NEIGHBOR] = 1
        elif box.x1 < 10:
            # Carried on from there, it is seen less and less.
            probability[NEIGHBOR] = 0.6
        else:
            probability[ORGAN] = 1
            probability[10, 10:22] = 0.6 if index == 4 else 1

    results = list(propagate_path(a_stack, roi_of(1, 7), Scripted(answer), EmbeddingCache()))
    np.testing.assert_array_equal(results[0].mask, mask_of(NEIGHBOR))
    np.testing.assert_array_equal(collect(results, a_stack)[4], mask_of(ORGAN))


def test_the_stabler_of_two_masks_is_taken_where_there_is_no_neighbor(a_stack):
    def answer(_index: int, box: Box, probability: np.ndarray) -> None:
        if is_whole(box):
            probability[NEIGHBOR] = 0.6
        else:
            probability[ORGAN] = 0.9

    *_, result = propagate_path(a_stack, roi_of(4, 4), Scripted(answer), EmbeddingCache())
    assert result.final
    np.testing.assert_array_equal(result.mask, mask_of(ORGAN))
    assert not is_whole(result.box)


def test_masks_stay_inside_of_the_slices_own_box(a_stack):
    boxes = {index: Box(index, 5, index + 8, 20) for index in range(2, 7)}

    def answer(_index: int, _box: Box, probability: np.ndarray) -> None:
        probability[:] = 1

    for result in propagate_path(a_stack, boxes, Scripted(answer), EmbeddingCache()):
        expected = mask_of(np.s_[5:21, result.index : result.index + 9])
        np.testing.assert_array_equal(result.mask, expected, err_msg=str(result.index))


def test_the_first_slice_is_there_after_one_encoding_and_one_box(a_stack):
    predictor = Scripted(lambda _index, _box, probability: probability[ORGAN].fill(1))
    results = propagate_path(a_stack, roi_of(1, 8), predictor, EmbeddingCache())
    assert next(results).index == 4
    assert predictor.requests == [(4, 1)]
    # The next slice also takes two boxes around this one's masks, all at once.
    assert next(results).index == 5
    assert predictor.requests == [(4, 1), (5, 3)]
    results.close()
    assert len(predictor.requests) == 2


def test_only_slices_in_doubt_are_decoded_from_parts_of_their_box(a_stack):
    def answer(index: int, _box: Box, probability: np.ndarray) -> None:
        probability[ORGAN] = 0.6 if index == 5 else 1

    predictor = Scripted(answer)
    list(propagate_path(a_stack, roi_of(1, 8), predictor, EmbeddingCache()))
    decoded = {index: sum(count for other, count in predictor.requests if other == index) for index in range(1, 9)}
    assert decoded[5] >= 1 + 2 + 5
    assert max(count for index, count in decoded.items() if index != 5) <= 1 + 2 + 1


def test_a_structure_that_fills_its_box_is_taken_whole(a_stack):
    results = list(propagate_path(a_stack, roi_of(2, 6), BoxPredictor(), EmbeddingCache()))
    assert all(np.array_equal(result.mask, mask_of(np.s_[4:28, 4:28])) for result in results)


def test_nothing_is_found_where_the_model_finds_nothing_and_nothing_is_done_without_boxes(a_stack):
    empty = Scripted(lambda _index, _box, _probability: None)
    assert not any(result.mask.any() for result in propagate_path(a_stack, roi_of(0, 8), empty, EmbeddingCache()))
    assert list(propagate_path(a_stack, {}, empty, EmbeddingCache())) == []


def test_a_mask_that_follows_from_its_neighbor_is_a_candidate(a_stack):
    def answer(index: int, box: Box, probability: np.ndarray) -> None:
        # Only the box around the neighbor's mask finds the organ outside of the middle slice.
        probability[ORGAN if index == 4 or 9 < box.x0 < 10 else NEIGHBOR] = 1

    mask = collect(propagate_path(a_stack, roi_of(3, 5), Scripted(answer), EmbeddingCache()), a_stack)
    for index in (3, 4, 5):
        np.testing.assert_array_equal(mask[index], mask_of(ORGAN), err_msg=str(index))


def test_a_box_of_one_pixel_works(a_stack):
    results = list(propagate_path(a_stack, {3: Box(7, 8, 7, 8)}, BoxPredictor(), EmbeddingCache()))
    np.testing.assert_array_equal(results[-1].mask, mask_of(np.s_[8:9, 7:8]))


def test_slices_come_from_the_middle_outward_and_then_again_in_order_and_final(a_stack):
    results = list(propagate_path(a_stack, roi_of(2, 6), BoxPredictor(), EmbeddingCache()))
    assert [(result.index, result.final) for result in results] == [
        *((index, False) for index in (4, 5, 6, 3, 2)),
        *((index, True) for index in (2, 3, 4, 5, 6)),
    ]


def test_an_roi_that_reaches_to_all_edges_of_the_slices_works(a_stack):
    boxes = dict.fromkeys(range(SLICES), Box(0, 0, COLUMNS - 1, ROWS - 1))
    mask = collect(propagate_path(a_stack, boxes, BoxPredictor(), EmbeddingCache()), a_stack)
    assert mask.all()


def test_confidence_is_high_where_all_masks_agree_and_low_where_they_do_not(a_stack):
    def answer(index: int, box: Box, probability: np.ndarray) -> None:
        if index == 5:
            # Every box shows something else, and all as surely.
            probability[4 + int(box.x0) % 9 : 14 + int(box.x1 + box.y0) % 11, int(box.y1) % 9 + 4 : 20] = 0.99
        elif index == 8:
            # All boxes show the same, but not surely.
            probability[ORGAN] = 0.75
        else:
            probability[ORGAN] = 0.99

    confidence = final_confidence(propagate_path(a_stack, roi_of(2, 8), Scripted(answer), EmbeddingCache()))
    assert all(0 <= each <= 1 for each in confidence.values())
    assert min(confidence[index] for index in (2, 3, 4, 6, 7)) > 0.95
    assert confidence[5] < 0.9
    assert confidence[8] < 0.9


def test_a_slice_without_a_mask_has_no_confidence(a_stack):
    empty = Scripted(lambda _index, _box, _probability: None)
    assert set(final_confidence(propagate_path(a_stack, roi_of(2, 4), empty, EmbeddingCache())).values()) == {0}


def test_the_outline_moves_to_where_the_intensities_change():
    voxels = np.full((SLICES, ROWS, COLUMNS), 60)
    voxels[(slice(None), *ORGAN)] = 180

    def answer(_index: int, _box: Box, probability: np.ndarray) -> None:
        # The model is sure of the core only; left and right it is a little too wide, above and below too narrow.
        probability[12:20, 8:24] = 0.6
        probability[10:12, 10:22] = probability[20:22, 10:22] = 0.4
        probability[12:20, 12:20] = 0.95

    stack = numbered_stack(voxels)
    mask = collect(propagate_path(stack, roi_of(2, 5), Scripted(answer), EmbeddingCache()), stack)
    for index in range(2, 6):
        np.testing.assert_array_equal(mask[index], mask_of(ORGAN), err_msg=str(index))


def test_the_box_that_follows_from_all_slices_is_tried_at_last(a_stack):
    def organ(index: int) -> tuple[slice, slice]:
        return np.s_[10:22, 2 * index : 2 * index + 12]

    def answer(index: int, box: Box, probability: np.ndarray) -> None:
        # The organ moves by two pixels from slice to slice. In one slice no box shows anything but the one between
        # those of its neighbors.
        if index != 6 or (abs(box.x0 - 12) < 1 and abs(box.x1 - 24) < 1 and abs(box.y1 - 22) < 1):
            probability[organ(index)] = 1

    mask = collect(propagate_path(a_stack, roi_of(2, 8), Scripted(answer), EmbeddingCache()), a_stack)
    np.testing.assert_array_equal(mask[6], mask_of(organ(6)))


def test_of_two_masks_the_one_on_an_edge_is_taken():
    voxels = np.full((SLICES, ROWS, COLUMNS), 60)
    voxels[(slice(None), *ORGAN)] = 180

    def answer(_index: int, box: Box, probability: np.ndarray) -> None:
        # Nothing but the contrast speaks for the organ: both are as sure.
        probability[np.s_[6:18, 14:26] if is_whole(box) else ORGAN] = 1

    stack = numbered_stack(voxels)
    mask = collect(propagate_path(stack, roi_of(2, 5), Scripted(answer), EmbeddingCache()), stack)
    for index in range(2, 6):
        np.testing.assert_array_equal(mask[index], mask_of(ORGAN), err_msg=str(index))


def test_the_same_roi_again_decodes_nothing(a_stack):
    predictor, cache = BoxPredictor(), EmbeddingCache()
    first = collect(propagate_path(a_stack, roi_of(2, 6), predictor, cache), a_stack)
    predictor.prompts.clear()
    again = collect(propagate_path(a_stack, roi_of(2, 6), predictor, cache), a_stack)
    assert predictor.prompts == []
    np.testing.assert_array_equal(again, first)


def shown_first(results: list[SliceMask]) -> list[int]:
    return [each.index for each in results if not each.final]


def same(some: list[SliceMask], others: list[SliceMask]) -> bool:
    finals = [[each for each in results if each.final] for results in (some, others)]
    return len(finals[0]) == len(finals[1]) and all(
        a.index == b.index and a.confidence == b.confidence and np.array_equal(a.mask, b.mask)
        for a, b in zip(*finals, strict=True)
    )


def test_a_correction_starts_from_what_was_found_and_gives_the_same_as_from_nothing(a_stack):
    def answer(_index: int, box: Box, probability: np.ndarray) -> None:
        probability[ORGAN] = 1
        probability[NEIGHBOR] = 0.6 if is_whole(box) else 0

    keys = {2: KeySlice(2, 2, Box(8, 8, 18, 18)), 6: KeySlice(2, 6, mask=mask_of(NEIGHBOR))}
    cache, predictor = EmbeddingCache(), Scripted(answer)
    list(propagate_path(a_stack, roi_of(1, 7), predictor, cache))
    corrected = list(propagate_path(a_stack, roi_of(1, 7), predictor, cache, keys))
    assert shown_first(corrected) == [2, 6]
    anew = list(propagate_path(a_stack, roi_of(1, 7), Scripted(answer), EmbeddingCache(), keys))
    assert len(shown_first(anew)) == 7 + 2
    assert same(corrected, anew)
    # Once more, without the first one: what was found before has not been changed by it.
    keys.pop(2)
    corrected = list(propagate_path(a_stack, roi_of(1, 7), predictor, cache, keys))
    assert same(corrected, list(propagate_path(a_stack, roi_of(1, 7), Scripted(answer), EmbeddingCache(), keys)))


@pytest.mark.parametrize("change", ["voxels", "box", "spacing", "start", "start's box"])
def test_a_correction_does_not_start_from_what_was_found_of_something_else(a_stack, change):
    keys = {2: KeySlice(2, 2, Box(8, 8, 18, 18))}
    start = KeySlice(2, 4, Box(8, 8, 20, 20)) if change.startswith("start") else None
    cache, predictor = EmbeddingCache(), Scripted(lambda _index, _box, probability: probability[ORGAN].fill(1))
    list(propagate_path(a_stack, roi_of(1, 7), predictor, cache, start=start))
    stack, boxes = a_stack, roi_of(1, 7)
    if change == "voxels":
        voxels = a_stack.voxels.copy()
        voxels[5, 12, 12] += 1
        stack = SliceStack(voxels, a_stack.spacing, axis="k", window=a_stack.range)
    elif change == "spacing":
        stack = SliceStack(a_stack.voxels, (1.0, 1.0, 7.0), axis="k", window=a_stack.range)
    elif change == "box":
        boxes[7] = Box(4, 4, 27, 26)
    elif change == "start":
        start = None
    else:
        start = KeySlice(2, 4, Box(8, 8, 20, 21))
    results = list(propagate_path(stack, boxes, predictor, cache, keys, start))
    assert set(shown_first(results)) == set(boxes)


def test_what_is_kept_of_structures_stays_in_its_budget(a_stack):
    cache, predictor = EmbeddingCache(found_budget=1000), Scripted(lambda *_: None)
    keys = {2: KeySlice(2, 2, Box(8, 8, 18, 18))}
    for _ in range(2):
        results = list(propagate_path(a_stack, roi_of(1, 7), predictor, cache, keys))
        assert set(shown_first(results)) == set(roi_of(1, 7))


def test_a_fragment_that_no_prompt_is_about_is_dropped_and_counted(a_stack):
    def answer(index: int, _box: Box, probability: np.ndarray) -> None:
        probability[ORGAN] = 1
        if index in (3, 4):
            # As surely as the organ, and never touching it.
            probability[24:27, 24:27] = 1
        if index == 6:
            probability[5:7, 5:7] = 1

    results = propagate_path(a_stack, roi_of(2, 7), Scripted(answer), EmbeddingCache())
    final, dropped = {}, None
    while dropped is None:
        try:
            result = next(results)
            final[result.index] = result.mask
        except StopIteration as end:
            dropped = end.value
    assert dropped == 2
    for index in range(2, 8):
        np.testing.assert_array_equal(final[index], mask_of(ORGAN), err_msg=str(index))


def test_a_slice_that_was_given_is_the_first_and_all_others_follow_from_it(a_stack):
    def answer(_index: int, box: Box, probability: np.ndarray) -> None:
        # Only a box around the organ finds it: the ROI holds something else.
        probability[NEIGHBOR if is_whole(box) else ORGAN] = 1 if 8 < box.x0 < 10.5 or is_whole(box) else 0

    without = collect(propagate_path(a_stack, roi_of(2, 7), Scripted(answer), EmbeddingCache()), a_stack)
    start = KeySlice(2, 6, mask=mask_of(ORGAN))
    # Also if it is among the key slices, it does not part the stack.
    for keys in (None, {6: start}):
        results = list(propagate_path(a_stack, roi_of(2, 7), Scripted(answer), EmbeddingCache(), keys, start=start))
        assert [each.index for each in results] == [6, 7, 5, 4, 3, 2, 2, 3, 4, 5, 6, 7]
        mask = collect(results, a_stack)
        for index in range(2, 8):
            np.testing.assert_array_equal(mask[index], mask_of(ORGAN), err_msg=str(index))
            assert (without[index] != mask[index]).any()
        assert results[-2].confidence == 1


def test_a_real_spleen_is_one_body(lite_weights, samples):
    ct = read_volume(samples["example_ct_sm.nii.gz"])
    expert = read_volume(samples["example_seg.nii.gz"]).voxels == SPLEEN
    (x0, y0, k0), (x1, y1, k1) = bounding_box(expert)
    stack = SliceStack(ct.voxels, ct.spacing, axis="k", window="abdomen")
    boxes = dict.fromkeys(range(k0, k1 + 1), Box(x0, y0, x1, y1))
    found = collect(propagate_path(stack, boxes, load_predictor("lite", "cpu"), EmbeddingCache()), stack)
    assert 2 * (found & expert).sum() / (found.sum() + expert.sum()) > 0.93
    kept, fragments = structure_bodies(found, np.zeros_like(found), 0)
    assert fragments == 0
    np.testing.assert_array_equal(kept, found)
