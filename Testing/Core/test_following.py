"""A structure followed from one slice until it ends, and real organs from their middle slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from box_predictor import BoxPredictor, FilledBoxes, Shape
from MedSAMSlicerLib.inference.predictor import Predictor
from MedSAMSlicerLib.loading import load_predictor
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache, Window
from MedSAMSlicerLib.volume.files import read_volume
from MedSAMSlicerLib.volume.following import follow, propagate_until_end
from MedSAMSlicerLib.volume.geometry import bounding_box
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.slice_masks import collect
from MedSAMSlicerLib.volume.slice_stack import SliceStack

SLICES, SIDE = 20, 48
FIRST, LAST = 6, 13
KIDNEY = 2


@dataclass(frozen=True)
class Pixels(Shape):
    """The embedding of `Threshold`: the slice itself."""

    image: np.ndarray | None = None


class Threshold(BoxPredictor):
    """Segments what is bright in a box; where nothing is, whatever fills the box, as the real model does."""

    def encode(self, image: np.ndarray) -> Pixels:
        super().encode(image)
        return Pixels(*image.shape, image=image)

    def decode(self, embedding: Pixels, boxes: Sequence[Box], window: Window | None = None) -> FilledBoxes:
        filled = super().decode(embedding, boxes)
        bright = filled.probabilities * (embedding.image > 128)
        found = bright.any(axis=(1, 2), keepdims=True)
        return FilledBoxes(np.where(found, bright, filled.probabilities), filled.iou).within(window)


class Leaking(Threshold):
    """Takes a box for the structure where less than a fifth of it is bright."""

    def decode(self, embedding: Pixels, boxes: Sequence[Box], window: Window | None = None) -> FilledBoxes:
        filled, bright = BoxPredictor.decode(self, embedding, boxes), super().decode(embedding, boxes)
        little = bright.probabilities.sum(axis=(1, 2)) < 0.2 * filled.probabilities.sum(axis=(1, 2))
        masks = np.where(little[:, None, None], filled.probabilities, bright.probabilities)
        return FilledBoxes(masks, filled.iou).within(window)


@pytest.fixture
def a_ball() -> np.ndarray:
    """A bright ball in a darker volume: slices 6 to 13."""
    k, j, i = np.mgrid[:SLICES, :SIDE, :SIDE]
    inside = ((k - 9.5) / 4.0) ** 2 + ((j - 24) / 12) ** 2 + ((i - 22) / 12) ** 2 <= 1
    noise = np.random.default_rng(5).integers(0, 20, inside.shape)
    return (np.where(inside, 200, 60) + noise).astype(np.uint8)


def the_key(ball: np.ndarray, index: int = 9) -> KeySlice:
    y, x = np.nonzero(ball[index] > 128)
    return KeySlice(2, index, Box(int(x.min()), int(y.min()), int(x.max()), int(y.max())))


def test_a_structure_is_followed_to_both_ends_and_not_beyond(a_ball):
    stack = SliceStack(a_ball, (1.0, 1.0, 3.0), axis="k", window="full")
    results = list(propagate_until_end(stack, the_key(a_ball), Threshold(), EmbeddingCache()))
    final = [result for result in results if result.final]
    assert [result.index for result in final] == list(range(FIRST, LAST + 1))
    np.testing.assert_array_equal(collect(final, stack), a_ball > 128)
    # The user sees it grow: the key slice first, then upward, then downward.
    followed = [result.index for result in results if not result.final][: LAST - FIRST + 1]
    assert followed == [9, 10, 11, 12, 13, 8, 7, 6]


def test_a_structure_that_runs_out_of_the_volume_is_followed_to_its_border(a_ball):
    stack = SliceStack(a_ball[8:12], (1.0, 1.0, 3.0), axis="k", window="full")
    results = follow(stack, the_key(a_ball[8:12], 1), Threshold(), EmbeddingCache())
    assert sorted(result.index for result in results) == [0, 1, 2, 3]


def test_a_structure_that_narrows_at_once_is_followed_though_the_masks_of_wider_boxes_leak():
    k, j, i = np.mgrid[:SLICES, :SIDE, :SIDE]
    distance, narrow = np.hypot(j - 24, i - 22), (k > 10) & (k < 14)
    # The rim of what leaks stands out as well as that of the structure, and it is as large as its neighbor.
    around = np.where(narrow & (distance > 12), 128, 60)
    inside = np.where(narrow, distance <= 6, (distance <= 12) & (k > 5) & (k < 11))
    volume = np.where(inside, np.where(narrow, 130, 200), around).astype(np.uint8)
    # So that the window leaves all as it is.
    volume[0, 0, :2] = 0, 255
    stack = SliceStack(volume, (1.0, 1.0, 3.0), axis="k", window="full")
    results = {each.index: each.mask for each in follow(stack, the_key(volume), Leaking(), EmbeddingCache())}
    assert sorted(results) == list(range(FIRST, LAST + 1))
    np.testing.assert_array_equal(results[LAST], volume[LAST] > 128)


def test_a_painted_slice_is_followed_as_well(a_ball):
    stack = SliceStack(a_ball, (1.0, 1.0, 3.0), axis="k", window="full")
    key = KeySlice(2, 10, mask=a_ball[10] > 128)
    final = [r for r in propagate_until_end(stack, key, Threshold(), EmbeddingCache()) if r.final]
    assert [result.index for result in final] == list(range(FIRST, LAST + 1))


def test_a_box_in_which_nothing_is_found_is_refused_with_a_remedy(a_ball):
    class Blind(BoxPredictor):
        def decode(self, embedding, boxes, window=None) -> FilledBoxes:
            filled = super().decode(embedding, boxes, window)
            return FilledBoxes(filled.probabilities * 0, filled.iou)

    stack = SliceStack(a_ball, (1.0, 1.0, 3.0), axis="k", window="full")
    with pytest.raises(ValueError, match="Nothing was found in the box"):
        list(propagate_until_end(stack, the_key(a_ball), Blind(), EmbeddingCache()))


def test_a_real_kidney_is_found_from_its_middle_slice(lite_weights, samples):
    ct = read_volume(samples["example_ct_sm.nii.gz"])
    expert = read_volume(samples["example_seg.nii.gz"]).voxels == KIDNEY
    (_, _, k0), (_, _, k1) = bounding_box(expert)
    middle = (k0 + k1) // 2
    (x0, y0, _), (x1, y1, _) = bounding_box(expert[middle : middle + 1])
    predictor: Predictor = load_predictor("lite", "cpu")
    stack = SliceStack(ct.voxels, ct.spacing, axis="k", window="abdomen")
    key = KeySlice(2, middle, Box(x0, y0, x1, y1))
    final = [r for r in propagate_until_end(stack, key, predictor, EmbeddingCache()) if r.final]
    found = collect(final, stack)
    assert abs(final[0].index - k0) <= 2
    assert abs(final[-1].index - k1) <= 2
    assert 2 * (found & expert).sum() / (found.sum() + expert.sum()) > 0.75
