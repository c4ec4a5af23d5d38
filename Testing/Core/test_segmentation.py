"""One structure of a volume: what is told of it at the end."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import pytest

from box_predictor import Scripted, numbered_stack
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.segmentation import segment_structure
from MedSAMSlicerLib.volume.slice_masks import Outcome, SliceMask
from MedSAMSlicerLib.volume.slice_stack import SliceStack

SLICES, SIDE = 10, 40
ROI = dict.fromkeys(range(2, 8), Box(4, 4, 35, 35))
ORGAN, FRAGMENT = np.s_[10:22, 10:22], np.s_[27:30, 27:30]
DRAWN = Box(9, 9, 22, 22)


@pytest.fixture
def a_stack() -> SliceStack:
    voxels = np.full((SLICES, SIDE, SIDE), 60)
    voxels[(slice(1, 9), *ORGAN)] = 180
    return numbered_stack(voxels)


@pytest.fixture
def sees_a_fragment() -> Scripted:
    def answer(index: int, _box: Box, probability: np.ndarray) -> None:
        probability[ORGAN] = 1
        if index in (4, 5):
            probability[FRAGMENT] = 1

    return Scripted(answer)


def outcome_of(results: Generator[SliceMask, None, Outcome]) -> tuple[dict[int, np.ndarray], Outcome]:
    masks = {}
    while True:
        try:
            result = next(results)
        except StopIteration as end:
            return masks, end.value
        masks[result.index] = result.mask


def mask_of(*places: tuple[slice, ...]) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    for place in places:
        mask[place] = True
    return mask


def across() -> np.ndarray:
    """The organ in a slice along J: bool (K, I)."""
    mask = np.zeros((SLICES, SIDE), dtype=bool)
    mask[2:8, 10:22] = True
    return mask


@pytest.mark.parametrize(
    ("keys", "fragments"),
    [
        ([], 1),
        ([KeySlice(2, 2, mask=mask_of(ORGAN))], 1),
        # A key slice that shows one slice of it to be none parts it from the rest.
        ([KeySlice(2, 4, box=DRAWN)], 1),
        ([KeySlice(1, 15, mask=across())], 1),
        # A fragment that the user has painted is none.
        ([KeySlice(2, 5, mask=mask_of(ORGAN, FRAGMENT))], 0),
    ],
    ids=["box", "along", "beside", "across", "painted"],
)
def test_fragments_are_dropped_and_told(a_stack, sees_a_fragment, keys, fragments):
    masks, outcome = outcome_of(segment_structure(a_stack, ROI, sees_a_fragment, EmbeddingCache(), keys))
    assert outcome == Outcome(fragments=fragments)
    for index in range(2, 8):
        shown = fragments == 0 and index in (4, 5)
        np.testing.assert_array_equal(masks[index], mask_of(ORGAN, *([FRAGMENT] if shown else [])), err_msg=str(index))


def test_other_propagations_drop_nothing(a_stack, sees_a_fragment):
    masks, outcome = outcome_of(
        segment_structure(a_stack, ROI, sees_a_fragment, EmbeddingCache(), propagation="per-slice")
    )
    assert outcome == Outcome()
    np.testing.assert_array_equal(masks[4], mask_of(ORGAN, FRAGMENT))


def test_fragments_of_a_structure_that_is_followed_are_told():
    # A bowed organ, and something in its bow that is of the same tissue.
    bowed, fragment = mask_of(np.s_[10:22, 10:14], np.s_[18:22, 10:22]), mask_of(np.s_[10:12, 19:22])
    voxels = np.full((SLICES, SIDE, SIDE), 60)
    voxels[1:9, bowed] = 180
    voxels[5:7, fragment] = 180

    def answer(index: int, _box: Box, probability: np.ndarray) -> None:
        probability[bowed] = 1 <= index <= 8
        probability[fragment] = index in (5, 6)

    keys = [KeySlice(2, 4, box=DRAWN)]
    masks, outcome = outcome_of(segment_structure(numbered_stack(voxels), {}, Scripted(answer), EmbeddingCache(), keys))
    assert outcome == Outcome(fragments=1)
    assert sorted(masks) == list(range(1, 9))
    for index, mask in masks.items():
        np.testing.assert_array_equal(mask, bowed, err_msg=str(index))


def test_the_slice_that_somebody_waits_for_comes_first_from_its_box_alone(a_stack, sees_a_fragment):
    results = segment_structure(a_stack, ROI, sees_a_fragment, EmbeddingCache(), first=6)
    glimpse = next(results)
    assert (glimpse.index, glimpse.final) == (6, False)
    np.testing.assert_array_equal(glimpse.mask, mask_of(ORGAN))
    assert sees_a_fragment.requests == [(6, 1)]
    assert next(results).index == 4
