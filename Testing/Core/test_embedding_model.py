"""What the embeddings of slices tell: made-up features of two tissues, which a model learns to tell apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.embedding_model import EmbeddingModel, Features

SIDE = 64
WHOLE = np.s_[0:SIDE, 0:SIDE]
EVERYWHERE = Box(0, 0, SIDE - 1, SIDE - 1)
CHANNELS = 12
ORGAN, AROUND = np.random.default_rng(1).normal(0, 1, (2, CHANNELS))


def mask_of(top: int, left: int, size: int = 20) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[top : top + size, left : left + size] = True
    return mask


def filled_parts(mask: np.ndarray, places: int) -> np.ndarray:
    """The part of each place that a mask fills: float32 (places, places)."""
    return F.adaptive_avg_pool2d(torch.from_numpy(mask.astype(np.float32))[None, None], places)[0, 0].numpy()


def features_of(mask: np.ndarray, seed: int = 0, places: int = 16) -> Features:
    """Two tissues, mixed where a place holds both, and noise."""
    parts = filled_parts(mask, places)
    values = ORGAN[:, None, None] * parts + AROUND[:, None, None] * (1 - parts)
    noise = np.random.default_rng(seed).normal(0, 0.3, values.shape)
    return Features((values + noise).astype(np.float32), (places / SIDE, places / SIDE))


MASKS = {0: mask_of(20, 16), 1: mask_of(24, 20), 2: mask_of(32, 30)}


def a_model(learned: dict[int, np.ndarray], weights: dict[int, float] | None = None) -> EmbeddingModel:
    model = EmbeddingModel((SIDE, SIDE), WHOLE)
    for index, mask in MASKS.items():
        model.see(index, features_of(mask, index), EVERYWHERE)
    for index, mask in learned.items():
        model.learn(index, mask, (weights or {}).get(index, 1.0))
    return model


def dice(likeness: np.ndarray, mask: np.ndarray) -> float:
    found = likeness > 0.5
    return 2 * (found & mask).sum() / (found.sum() + mask.sum())


def test_a_structure_is_found_in_a_slice_that_nothing_was_learned_of():
    likeness = a_model({0: MASKS[0]}).likenesses([2])[2]
    assert likeness.shape == (SIDE, SIDE)
    assert 0 <= likeness.min() <= likeness.max() <= 1
    assert dice(likeness, MASKS[2]) > 0.9
    assert likeness[MASKS[2]].mean() > 0.75
    assert likeness[~MASKS[2]].mean() < 0.15


def test_it_is_found_as_well_where_there_are_more_places_than_are_learned_from():
    model = EmbeddingModel((SIDE, SIDE), WHOLE)
    for index, mask in MASKS.items():
        model.see(index, features_of(mask, index, places=SIDE), EVERYWHERE)
    model.learn(0, MASKS[0], 1)
    assert dice(model.likenesses([2])[2], MASKS[2]) > 0.95


def test_what_was_learned_of_a_slice_does_not_count_for_itself():
    wrong = ~MASKS[1]
    alone, both = a_model({0: MASKS[0]}), a_model({0: MASKS[0], 1: wrong})
    np.testing.assert_allclose(both.likenesses([1])[1], alone.likenesses([1])[1], atol=1e-4)
    # It does for the others.
    assert np.abs(both.likenesses([2])[2] - alone.likenesses([2])[2]).max() > 0.1


def test_where_nothing_else_was_learned_a_slice_counts_for_itself():
    assert dice(a_model({0: MASKS[0]}).likenesses([0])[0], MASKS[0]) > 0.9


def test_a_slice_that_is_learned_again_is_learned_in_place_of_before():
    model = a_model({0: ~MASKS[0]})
    model.learn(0, MASKS[0], 1.0)
    np.testing.assert_array_equal(model.likenesses([2])[2], a_model({0: MASKS[0]}).likenesses([2])[2])


def test_the_weightier_of_two_lessons_that_contradict_each_other_prevails():
    lessons = {0: MASKS[0], 1: ~MASKS[1]}
    right, wrong = (a_model(lessons, weights).likenesses([2])[2] for weights in ({0: 20.0}, {1: 20.0}))
    assert dice(right, MASKS[2]) > 0.9
    assert dice(wrong, ~MASKS[2]) > 0.9


# Padded behind the slice, with as many places per pixel along rows and columns, and squashed.
GEOMETRIES = {
    "square": ((64, 64), (16, 16)),
    "padded below": ((40, 64), (16, 16)),
    "padded to the right": ((64, 44), (16, 16)),
    "fractions of pixels": ((50, 50), (16, 16)),
    "larger places": ((120, 90), (8, 8)),
    "smaller places": ((24, 24), (48, 48)),
    "squashed": ((40, 64), None),
}


@pytest.mark.parametrize(("shape", "grid"), GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("framed", [False, True])
def test_places_lie_where_the_encoder_saw_them(shape, grid, framed):
    rows, columns = shape
    side = 16 if grid is None else grid[0]
    # The slice with the padding that the encoder sees behind it, in pixels.
    seen = shape if grid is None else (max(shape), max(shape))
    mask = np.zeros(seen, dtype=bool)
    inner = np.s_[rows // 6 : rows - rows // 5, columns // 5 : columns - columns // 6]
    blobs = np.random.default_rng(3).random((rows, columns)) > 0.5
    mask[inner] = np.kron(blobs, np.ones((7, 7), dtype=bool))[inner]
    # An encoder whose only number is the part of a place that the structure fills: each pixel is cut to 240 by 240.
    fine = torch.from_numpy(np.kron(mask, np.ones((side, side), dtype=np.float32)))[None, None]
    parts = F.avg_pool2d(fine, (seen[0], seen[1]))
    features = Features(parts[0].numpy(), (side / seen[0], side / seen[1]))

    frame = inner if framed else np.s_[0:rows, 0:columns]
    box = Box(inner[1].start, inner[0].start, inner[1].stop - 1, inner[0].stop - 1)
    model = EmbeddingModel(shape, frame)
    model.see(0, features, box)
    model.learn(0, mask[:rows, :columns][frame], 1.0)
    likeness = model.likenesses([0])[0]

    # Pixels take linearly from the middles of places, as in every resampling of images.
    expected = F.interpolate(parts, seen, mode="bilinear", align_corners=False)[0, 0].numpy()[inner]
    top, left = (0, 0) if framed else (inner[0].start, inner[1].start)
    found = likeness[top : top + expected.shape[0], left : left + expected.shape[1]]
    slope, offset = np.polyfit(expected.ravel(), found.ravel(), 1)
    np.testing.assert_allclose(found, slope * expected + offset, atol=1e-4)
    # Nothing but the penalty keeps it from 1, as the lesson is the feature itself.
    assert 0.9 < slope <= 1


def test_nothing_is_like_the_structure_far_from_its_box():
    model = EmbeddingModel((SIDE, SIDE), WHOLE)
    everywhere = np.ones((SIDE, SIDE), dtype=bool)
    model.see(0, features_of(everywhere), Box(24, 28, 39, 35))
    model.learn(0, mask_of(24, 24, 16), 1.0)
    likeness = model.likenesses([0])[0]
    assert (likeness[28:36, 24:40] > 0).all()
    assert not likeness[:16].any()
    assert not likeness[48:].any()
    assert not likeness[:, :8].any()
    assert not likeness[:, 56:].any()


def test_places_that_are_all_alike_tell_nothing():
    model = EmbeddingModel((SIDE, SIDE), WHOLE)
    same = Features(np.full((4, 16, 16), 0.7, dtype=np.float32), (0.25, 0.25))
    for index in (0, 1):
        model.see(index, same, EVERYWHERE)
        model.learn(index, MASKS[index], 1.0)
    assert model.likenesses([0, 1]) == {}
    # Where one slice has something to tell, there is a likeness of all.
    model.see(2, Features(features_of(MASKS[2]).values[:4], (0.25, 0.25)), EVERYWHERE)
    assert model.likenesses([0, 1, 2]).keys() == {0, 1, 2}


@pytest.mark.parametrize("box", [Box(0, 0, 0, 0), Box(63, 63, 63, 63), Box(0, 30, 63, 30)])
def test_a_box_of_a_pixel_or_a_line_anywhere_has_places(box):
    model = EmbeddingModel((SIDE, SIDE), WHOLE)
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[int(box.y0), int(box.x0)] = True
    model.see(0, features_of(mask), box)
    model.learn(0, mask, 1.0)
    # One place alone is like itself, of which nothing can be told.
    assert all(np.isfinite(each).all() for each in model.likenesses([0]).values())


def test_a_model_that_is_taught_further_leaves_the_first_as_it_is():
    model = a_model({0: MASKS[0]})
    before = {index: model.likenesses([index])[index] for index in MASKS}
    new = mask_of(8, 30)
    taught = model.taught({7: (features_of(new, 7), EVERYWHERE)}, {7: new, 1: ~MASKS[1]}, 5.0)
    assert 7 in taught
    assert 7 not in model
    assert (
        dice(a_model({0: MASKS[0]}).taught({7: (features_of(new, 7), EVERYWHERE)}, {}, 5.0).likenesses([7])[7], new)
        > 0.9
    )
    assert np.abs(taught.likenesses([2])[2] - before[2]).max() > 0.1
    for index, likeness in before.items():
        np.testing.assert_array_equal(model.likenesses([index])[index], likeness)
