"""Ends: a box that is too long, and the slices in which there is nothing of the structure any more."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest

from box_predictor import Scripted, numbered_stack
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.candidates import CandidateDecoder
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.ends import without_ends
from MedSAMSlicerLib.volume.slice_masks import SliceMask

SLICES, ROWS, COLUMNS = 12, 36, 40
ROI = Box(4, 4, 35, 31)
ORGAN = np.s_[10:22, 12:26]
# The structure, and what the model segments in its place beyond the ends.
FIRST, LAST = 3, 8


def a_decoder(bright: Collection[int] = range(FIRST, LAST + 1)) -> CandidateDecoder:
    """Slices of which some have a bright organ."""
    voxels = np.random.default_rng(4).normal(60, 10, (SLICES, ROWS, COLUMNS))
    for index in bright:
        voxels[(index, *ORGAN)] += 120
    stack = numbered_stack(voxels.clip(0, 254))
    return CandidateDecoder(stack, dict.fromkeys(range(SLICES), ROI), Scripted(lambda *_: None), EmbeddingCache())


def likenesses_of(decoder: CandidateDecoder, alike: Collection[int] = range(FIRST, LAST + 1)) -> dict[int, np.ndarray]:
    """Tell that the organ of some slices looks like it, and nothing in the others does."""
    whole = np.zeros((ROWS, COLUMNS), dtype=np.float32)
    whole[ORGAN] = 0.9
    return {index: whole[decoder.frame] * np.float32(index in alike) for index in range(SLICES)}


def results_of(empty: Collection[int] = ()) -> list[SliceMask]:
    """Give the masks of a model that segments the same in every slice, whatever it is."""
    mask = np.zeros((ROWS, COLUMNS), dtype=bool)
    mask[ORGAN] = True
    return [SliceMask(index, mask & (index not in empty), ROI, 0.9, 0.8) for index in range(SLICES)]


def filled(results: list[SliceMask]) -> list[int]:
    assert [each.index for each in results] == list(range(SLICES))
    for each in results:
        assert each.mask.sum() in (0, 12 * 14)
    return [each.index for each in results if each.mask.any()]


def test_slices_beyond_the_ends_become_empty_and_the_others_stay():
    decoder = a_decoder()
    before = results_of()
    assert filled(without_ends(decoder, before, likenesses_of(decoder), ())) == list(range(FIRST, LAST + 1))
    assert filled(before) == list(range(SLICES))


def test_what_has_the_intensities_of_the_structure_is_no_end():
    decoder = a_decoder(bright=range(2, SLICES))
    assert filled(without_ends(decoder, results_of(), likenesses_of(decoder), ())) == list(range(2, SLICES))


def test_an_end_that_has_jumped_to_something_else_becomes_empty_whatever_it_looks_like():
    decoder = a_decoder(bright=range(SLICES))
    results = results_of()
    elsewhere = np.roll(results[-1].mask, 11, axis=0)
    assert 0 < (elsewhere & results[-1].mask).sum() < 0.2 * elsewhere.sum()
    results[-1] = SliceMask(SLICES - 1, elsewhere, ROI, 0.9, 0.8)
    likenesses = likenesses_of(decoder, alike=range(SLICES))
    assert filled(without_ends(decoder, results, likenesses, ())) == list(range(SLICES - 1))
    assert filled(without_ends(decoder, results, likenesses, {SLICES - 1})) == list(range(SLICES))


def test_what_looks_like_the_structure_is_no_end():
    decoder = a_decoder()
    likenesses = likenesses_of(decoder, alike=range(1, SLICES))
    assert filled(without_ends(decoder, results_of(), likenesses, ())) == list(range(1, SLICES))


def test_what_looks_alike_elsewhere_in_the_slice_does_not_keep_its_mask():
    decoder = a_decoder()
    likenesses = likenesses_of(decoder)
    likenesses[1] = np.roll(likenesses[5], 14, axis=1)
    assert filled(without_ends(decoder, results_of(), likenesses, ())) == list(range(FIRST, LAST + 1))


def test_a_slice_between_others_of_the_structure_is_no_end_whatever_it_looks_like():
    decoder = a_decoder(bright=(3, 4, 7, 8))
    likenesses = likenesses_of(decoder, alike=(3, 4, 7, 8))
    assert filled(without_ends(decoder, results_of(), likenesses, ())) == [3, 4, 5, 6, 7, 8]


def test_ends_are_found_behind_empty_slices():
    decoder = a_decoder()
    results = without_ends(decoder, results_of(empty=(0, 2, 9)), likenesses_of(decoder), ())
    assert filled(results) == list(range(FIRST, LAST + 1))


@pytest.mark.parametrize(("keys", "first", "last"), [((1,), 1, 8), ((10,), 3, 10), ((0, 11), 0, 11), ((5,), 3, 8)])
def test_key_slices_and_all_between_them_stay(keys, first, last):
    decoder = a_decoder()
    results = without_ends(decoder, results_of(), likenesses_of(decoder), keys)
    assert filled(results) == list(range(first, last + 1))


def test_without_likenesses_nothing_is_known_of_the_ends():
    assert filled(without_ends(a_decoder(), results_of(), {}, ())) == list(range(SLICES))


def test_something_of_the_structure_is_left_though_all_looks_like_an_end():
    decoder = a_decoder(bright=())
    results = without_ends(decoder, results_of(), likenesses_of(decoder, alike=()), ())
    assert len(filled(results)) == 1


def test_empty_masks_have_no_ends():
    decoder = a_decoder()
    assert filled(without_ends(decoder, results_of(empty=range(SLICES)), likenesses_of(decoder), ())) == []
