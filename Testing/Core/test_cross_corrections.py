"""Corrections from another direction: what is fixed, how far it is carried, and where it stops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from box_predictor import BoxPredictor, FilledBoxes, Shape
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.cross_corrections import correct_across
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache, Window
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.slice_stack import SliceStack

ROWS, COLUMNS, SLICES = 24, 24, 12
GOOD, BAD = np.s_[8:16, 8:16], np.s_[8:16, 8:20]


def mask_of(place: tuple[slice, slice]) -> np.ndarray:
    mask = np.zeros((ROWS, COLUMNS), dtype=bool)
    mask[place] = True
    return mask


class Edges(BoxPredictor):
    """Fills what lies within the outer edges of a box, which the boxes of corrections are."""

    def decode(self, embedding: Shape, boxes: Sequence[Box], window: Window | None = None) -> FilledBoxes:
        filled = super().decode(embedding, boxes)
        filled.probabilities[:] = 0
        for mask, box in zip(filled.probabilities, boxes, strict=True):
            mask[round(box.y0) : round(box.y1), round(box.x0) : round(box.x1)] = 1
        return filled.within(window)


@pytest.fixture
def a_stack() -> SliceStack:
    values = np.random.default_rng(3).integers(0, 255, (SLICES, ROWS, COLUMNS)).astype(np.uint8)
    return SliceStack(values, (1.0, 1.0, 1.0), axis="k", window="full")


def corrected(stack, masks, key, stops=()) -> dict[int, np.ndarray]:
    return dict(correct_across(stack, masks, key, stops, Edges(), EmbeddingCache()))


def test_the_key_slice_is_fixed_by_its_box(a_stack):
    masks = {index: mask_of(BAD) for index in range(2, 10)}
    changed = corrected(a_stack, masks, KeySlice(2, 5, Box(8, 8, 15, 15)))
    np.testing.assert_array_equal(changed[5], mask_of(GOOD))


def test_slices_that_fit_the_corrected_one_already_stay(a_stack):
    masks = {index: mask_of(GOOD) for index in range(2, 10)} | {5: mask_of(BAD)}
    changed = corrected(a_stack, masks, KeySlice(2, 5, Box(8, 8, 15, 15)))
    assert list(changed) == [5]


def test_the_same_error_in_the_neighbors_is_corrected_too_up_to_the_next_key_slice(a_stack):
    masks = {index: mask_of(BAD) for index in range(2, 10)}
    changed = corrected(a_stack, masks, KeySlice(2, 5, Box(8, 8, 15, 15)), stops={7})
    assert {4, 6} <= changed.keys()
    assert changed.keys().isdisjoint({7, 8, 9})
    assert changed[6].sum() < mask_of(BAD).sum()


def test_a_painted_slice_is_taken_as_it_is_and_an_empty_one_changes_no_other(a_stack):
    masks = {index: mask_of(BAD) for index in range(2, 10)}
    painted = np.random.default_rng(1).random((ROWS, COLUMNS)) > 0.5
    np.testing.assert_array_equal(corrected(a_stack, masks, KeySlice(2, 5, mask=painted))[5], painted)
    nothing = np.zeros((ROWS, COLUMNS), dtype=bool)
    changed = corrected(a_stack, masks, KeySlice(2, 5, mask=nothing))
    assert list(changed) == [5]
    assert not changed[5].any()


def test_what_was_there_stays_where_it_fits_the_box_better_than_what_the_model_finds(a_stack):
    class Astray(Edges):
        def decode(self, embedding, boxes, window=None):
            filled = super().decode(embedding, boxes)
            filled.probabilities[:, :, : COLUMNS // 2 + 2] = 0
            return filled.within(window)

    masks = {index: mask_of(GOOD) for index in range(2, 10)}
    changed = dict(correct_across(a_stack, masks, KeySlice(2, 5, Box(8, 8, 15, 15)), (), Astray(), EmbeddingCache()))
    np.testing.assert_array_equal(changed[5], mask_of(GOOD))
