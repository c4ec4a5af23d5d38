"""The best path: candidates in every slice, chosen for the whole stack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from box_predictor import BoxPredictor, FilledBoxes
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.path import propagate_path, smaller_boxes
from MedSAMSlicerLib.volume.stack import SliceStack
from MedSAMSlicerLib.volume.steps import collect

ROWS, COLUMNS, SLICES = 32, 32, 9
ROI = Box(4, 4, 27, 27)
ORGAN, NEIGHBOR = np.s_[10:22, 10:22], np.s_[4:28, 4:9]


@dataclass(frozen=True)
class Slice:
    """The embedding of `Scripted`: it remembers which slice it is."""

    index: int
    nbytes: int = 1000


class Scripted:
    """Answers a box in a slice with probabilities that a test wrote."""

    key = "script"

    def __init__(self, answer: Callable[[int, Box, np.ndarray], None]) -> None:
        self.answer = answer
        self.requests: list[tuple[int, int]] = []

    def encode(self, image: np.ndarray) -> Slice:
        # The gray value tells the slice, see `a_stack`.
        return Slice(round(float(image[0, 0]) / 255 * (SLICES - 1)))

    def decode(self, embedding: Slice, boxes: Sequence[Box]) -> FilledBoxes:
        self.requests.append((embedding.index, len(boxes)))
        probabilities = np.zeros((len(boxes), ROWS, COLUMNS), dtype=np.float32)
        for box, probability in zip(boxes, probabilities, strict=True):
            self.answer(embedding.index, box, probability)
        return FilledBoxes(probabilities, np.full(len(boxes), 0.5, dtype=np.float32))

    def box_around(self, mask: np.ndarray) -> Box | None:
        y, x = np.nonzero(mask)
        return Box(x.min() + 0.25, y.min() + 0.25, x.max() + 0.5, y.max() + 0.5) if y.size else None


@pytest.fixture
def a_stack() -> SliceStack:
    ramp = np.linspace(0, 255, SLICES).round().astype(np.uint8)
    return SliceStack(np.tile(ramp[:, None, None], (1, ROWS, COLUMNS)), (1.0, 1.0, 3.0), window="full")


def roi_of(first: int, last: int) -> dict[int, Box]:
    return dict.fromkeys(range(first, last + 1), ROI)


def mask_of(*places: tuple[slice, ...]) -> np.ndarray:
    mask = np.zeros((ROWS, COLUMNS), dtype=bool)
    for place in places:
        mask[place] = True
    return mask


def test_a_slice_in_which_the_box_holds_another_organ_follows_its_neighbors(a_stack):
    def answer(index: int, box: Box, probability: np.ndarray) -> None:
        whole = box == ROI
        probability[NEIGHBOR if index in (2, 6) and whole else ORGAN] = 1

    mask = collect(propagate_path(a_stack, roi_of(1, 7), Scripted(answer), EmbeddingCache()), a_stack)
    for index in range(1, 8):
        np.testing.assert_array_equal(mask[index], mask_of(ORGAN), err_msg=str(index))


def test_a_wrong_first_mask_is_taken_back_when_the_other_slices_disagree(a_stack):
    def answer(index: int, box: Box, probability: np.ndarray) -> None:
        if index == 4 and box == ROI:
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
    assert [result.index for result in results] == [4, 5, 6, 7, 3, 2, 1, 4]
    np.testing.assert_array_equal(collect(results, a_stack)[4], mask_of(ORGAN))


def test_the_stabler_of_two_masks_is_taken_where_there_is_no_neighbor(a_stack):
    def answer(_index: int, box: Box, probability: np.ndarray) -> None:
        if box == ROI:
            probability[NEIGHBOR] = 0.6
        else:
            probability[ORGAN] = 0.9

    (result,) = propagate_path(a_stack, roi_of(4, 4), Scripted(answer), EmbeddingCache())
    np.testing.assert_array_equal(result.mask, mask_of(ORGAN))
    assert result.box != ROI


def test_masks_stay_inside_of_the_slices_own_box(a_stack):
    boxes = {index: Box(index, 5, index + 8, 20) for index in range(2, 7)}

    def answer(_index: int, _box: Box, probability: np.ndarray) -> None:
        probability[:] = 1

    for result in propagate_path(a_stack, boxes, Scripted(answer), EmbeddingCache()):
        expected = mask_of(np.s_[5:21, result.index : result.index + 9])
        np.testing.assert_array_equal(result.mask, expected, err_msg=str(result.index))


def test_the_first_slice_is_there_after_one_encoding_and_all_its_boxes_are_decoded_at_once(a_stack):
    predictor = Scripted(lambda _index, _box, probability: probability.fill(1))
    results = propagate_path(a_stack, roi_of(1, 8), predictor, EmbeddingCache())
    assert next(results).index == 4
    assert predictor.requests == [(4, 6)]
    # The next slice also takes the box around this mask.
    assert next(results).index == 5
    assert predictor.requests == [(4, 6), (5, 7)]
    results.close()
    assert len(predictor.requests) == 2


def test_a_structure_that_fills_its_box_is_taken_whole(a_stack):
    results = list(propagate_path(a_stack, roi_of(2, 6), BoxPredictor(), EmbeddingCache()))
    assert [result.index for result in results] == [4, 5, 6, 3, 2]
    assert all(np.array_equal(result.mask, mask_of(np.s_[4:28, 4:28])) for result in results)


def test_nothing_is_found_where_the_model_finds_nothing_and_nothing_is_done_without_boxes(a_stack):
    empty = Scripted(lambda _index, _box, _probability: None)
    assert not any(result.mask.any() for result in propagate_path(a_stack, roi_of(0, 8), empty, EmbeddingCache()))
    assert list(propagate_path(a_stack, {}, empty, EmbeddingCache())) == []


def test_a_mask_that_follows_from_its_neighbor_is_a_candidate(a_stack):
    def answer(index: int, box: Box, probability: np.ndarray) -> None:
        # Only the box around the neighbor's mask finds the organ outside of the middle slice.
        probability[ORGAN if index == 4 or box.x0 == 10.25 else NEIGHBOR] = 1

    mask = collect(propagate_path(a_stack, roi_of(3, 5), Scripted(answer), EmbeddingCache()), a_stack)
    for index in (3, 4, 5):
        np.testing.assert_array_equal(mask[index], mask_of(ORGAN), err_msg=str(index))


def test_the_smaller_boxes_are_the_corners_and_the_center():
    assert smaller_boxes(Box(10, 20, 30, 60)) == [
        Box(10, 20, 30, 60),
        Box(10, 20, 25, 50),
        Box(15, 20, 30, 50),
        Box(10, 30, 25, 60),
        Box(15, 30, 30, 60),
        Box(15, 30, 25, 50),
    ]


def test_a_box_of_one_pixel_works(a_stack):
    results = list(propagate_path(a_stack, {3: Box(7, 8, 7, 8)}, BoxPredictor(), EmbeddingCache()))
    np.testing.assert_array_equal(results[0].mask, mask_of(np.s_[8:9, 7:8]))
