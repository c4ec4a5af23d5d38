"""Propagation against the loops of LiteMedSAM's official script, slice by slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from box_predictor import BoxPredictor, FilledBoxes, no_features
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.path_propagation import propagate_path
from MedSAMSlicerLib.volume.propagation import propagate_reference, propagation_named, segment_each_slice
from MedSAMSlicerLib.volume.slice_masks import collect
from MedSAMSlicerLib.volume.slice_stack import SliceStack

ROWS, COLUMNS, SLICES = 24, 30, 10
ROI = Box(3, 4, 12, 9)


@dataclass(frozen=True)
class Slice:
    """The embedding of `ScriptedPredictor`: it remembers which slice it is."""

    index: int
    nbytes: int = 1000


@dataclass
class ScriptedPredictor:
    """Answers every slice with the mask that was written for it, and writes down what it was asked.

    The box around a mask is a shrunk one, so that it can't be confused with the ROI's or with a mask's exact bounds.
    """

    masks: np.ndarray
    key: str = "script"
    side: int = 256
    encoded: list[int] = field(default_factory=list)
    prompts: list[tuple[int, Box]] = field(default_factory=list)

    def encode(self, image: np.ndarray) -> Slice:
        # The gray value tells the slice, see `a_stack`.
        index = round(float(image[0, 0]) / 255 * (SLICES - 1))
        self.encoded.append(index)
        return Slice(index)

    def decode(self, embedding: Slice, boxes: Sequence[Box]) -> FilledBoxes:
        (box,) = boxes
        self.prompts.append((embedding.index, box))
        probabilities = np.where(self.masks[embedding.index], 0.51, 0.5)[None].astype(np.float32)
        return FilledBoxes(probabilities, np.array([embedding.index / 10], dtype=np.float32))

    def features(self, embedding: Slice) -> tuple[np.ndarray, tuple[float, float]]:
        return no_features(ROWS, COLUMNS)

    def box_around(self, mask: np.ndarray) -> Box | None:
        y, x = np.nonzero(mask)
        return Box(x.min() + 0.25, y.min() + 0.25, x.max() + 0.5, y.max() + 0.5) if y.size else None


def official_loops(masks: np.ndarray, z_min: int, z_max: int) -> tuple[list[tuple[int, Box]], np.ndarray]:
    """MedSAM_infer_npz_3D of CVPR24_LiteMedSAM_infer.py with the network's answers given: prompts and volume."""
    predictor = ScriptedPredictor(masks)
    prompts = []
    segs = np.zeros_like(masks)
    z_middle = int((z_max - z_min) / 2 + z_min)
    z_max = min(z_max + 1, masks.shape[0])
    for z in range(z_middle, z_max):
        if z == z_middle:
            box = ROI
        else:
            pre_seg = segs[z - 1]
            box = predictor.box_around(pre_seg) if np.max(pre_seg) > 0 else ROI
        prompts.append((z, box))
        segs[z, masks[z] > 0] = 1
    z_min = max(-1, z_min - 1)
    for z in range(z_middle - 1, z_min, -1):
        pre_seg = segs[z + 1]
        box = predictor.box_around(pre_seg) if np.max(pre_seg) > 0 else ROI
        prompts.append((z, box))
        segs[z, masks[z] > 0] = 1
    return prompts, segs


@pytest.fixture
def a_stack() -> SliceStack:
    voxels = np.broadcast_to(np.arange(SLICES, dtype=np.int16)[:, None, None], (SLICES, ROWS, COLUMNS))
    return SliceStack(voxels, (1, 1, 5), axis="k", window="full")


def scripted_masks(seed: int, empty: Sequence[int] = ()) -> np.ndarray:
    random = np.random.default_rng(seed)
    masks = np.zeros((SLICES, ROWS, COLUMNS), dtype=bool)
    for mask in masks:
        y, x = random.integers(0, ROWS - 4), random.integers(0, COLUMNS - 4)
        mask[y : y + random.integers(1, 5), x : x + random.integers(1, 5)] = True
    masks[list(empty)] = False
    return masks


def roi_of(first: int, last: int) -> dict[int, Box]:
    return dict.fromkeys(range(first, last + 1), ROI)


@pytest.mark.parametrize("empty", [(), (4,), (5, 6), (0, 9), tuple(range(SLICES))], ids=lambda empty: f"empty {empty}")
@pytest.mark.parametrize(("first", "last"), [(0, 9), (2, 7), (2, 8), (4, 5), (0, 1), (8, 9)])
def test_prompts_and_masks_are_those_of_the_official_loops(a_stack, first, last, empty):
    for seed in range(5):
        masks = scripted_masks(seed, empty)
        predictor = ScriptedPredictor(masks)
        results = list(propagate_reference(a_stack, roi_of(first, last), predictor, EmbeddingCache()))
        prompts, volume = official_loops(masks, first, last)
        assert predictor.prompts == prompts
        assert [(result.index, result.box) for result in results] == prompts
        assert predictor.encoded == [index for index, _ in prompts]
        assert [result.iou for result in results] == pytest.approx([index / 10 for index, _ in prompts])
        np.testing.assert_array_equal(collect(results, a_stack), volume)


@pytest.mark.parametrize("propagate", [propagate_reference, segment_each_slice])
def test_a_single_slice_is_prompted_with_its_box(a_stack, propagate):
    predictor = ScriptedPredictor(scripted_masks(0))
    (result,) = propagate(a_stack, roi_of(6, 6), predictor, EmbeddingCache())
    assert predictor.prompts == [(6, ROI)]
    np.testing.assert_array_equal(result.mask, predictor.masks[6])


@pytest.mark.parametrize("propagate", [propagate_reference, segment_each_slice])
def test_an_roi_without_slices_gives_nothing(a_stack, propagate):
    assert list(propagate(a_stack, {}, ScriptedPredictor(scripted_masks(0)), EmbeddingCache())) == []


def test_after_an_empty_mask_a_slice_of_an_oblique_roi_is_prompted_with_its_own_box(a_stack):
    boxes = {index: Box(index, 2, index + 5, 9) for index in range(2, 9)}
    predictor = ScriptedPredictor(scripted_masks(1, empty=(5, 6, 3)))
    list(propagate_reference(a_stack, boxes, predictor, EmbeddingCache()))
    asked = dict(predictor.prompts)
    # The middle is 5: it, the neighbors of empty masks (4, 6, 7) and 2 next to the empty 3 take their own boxes.
    assert {index for index, box in asked.items() if box == boxes[index]} == {2, 4, 5, 6, 7}
    assert asked[8] == predictor.box_around(predictor.masks[7])
    assert asked[3] == predictor.box_around(predictor.masks[4])


def test_per_slice_takes_every_slice_from_its_own_box_the_middle_first(a_stack):
    boxes = {index: Box(index, 2, index + 5, 9) for index in range(2, 9)}
    predictor = ScriptedPredictor(scripted_masks(1))
    results = list(segment_each_slice(a_stack, boxes, predictor, EmbeddingCache()))
    assert sorted(predictor.prompts) == list(boxes.items())
    assert predictor.prompts[0][0] == 5
    expected = predictor.masks.copy()
    expected[[0, 1, 9]] = False
    np.testing.assert_array_equal(collect(results, a_stack), expected)


@pytest.mark.parametrize("propagate", [propagate_reference, segment_each_slice])
def test_the_first_slice_is_there_after_one_encoding_and_a_caller_who_stops_spends_no_more(a_stack, propagate):
    predictor = ScriptedPredictor(scripted_masks(0))
    results = propagate(a_stack, roi_of(1, 8), predictor, EmbeddingCache())
    assert predictor.encoded == []
    assert next(results).index == 4
    assert predictor.encoded == [4]
    next(results)
    results.close()
    assert len(predictor.encoded) == len(predictor.prompts) == 2


@pytest.mark.parametrize("propagate", [propagate_reference, segment_each_slice])
def test_a_second_roi_encodes_only_the_slices_that_are_new(a_stack, propagate):
    predictor, cache = ScriptedPredictor(scripted_masks(0)), EmbeddingCache()
    list(propagate(a_stack, roi_of(3, 6), predictor, cache))
    predictor.encoded.clear()
    list(propagate(a_stack, roi_of(2, 7), predictor, cache))
    assert sorted(predictor.encoded) == [2, 7]


def test_masks_reach_beyond_the_box_where_the_model_says_so(a_stack):
    masks = np.ones((SLICES, ROWS, COLUMNS), dtype=bool)
    for propagate in (propagate_reference, segment_each_slice):
        results = list(propagate(a_stack, roi_of(4, 5), ScriptedPredictor(masks), EmbeddingCache()))
        assert all(result.mask.all() for result in results)


@pytest.mark.parametrize(
    ("axis", "where"), [("i", np.s_[6:9, 3:5, 4:8]), ("j", np.s_[6:9, 4:8, 3:5]), ("k", np.s_[4:8, 6:9, 3:5])]
)
def test_masks_are_put_together_along_every_axis(a_ct, a_box_predictor: BoxPredictor, axis, where):
    stack = SliceStack(a_ct, (1, 1, 1), axis=axis)
    boxes = dict.fromkeys(range(4, 8), Box(3, 6, 4, 8))
    found = collect(propagate_reference(stack, boxes, a_box_predictor, EmbeddingCache()), stack)
    expected = np.zeros(a_ct.shape, dtype=bool)
    expected[where] = True
    np.testing.assert_array_equal(found, expected)


def test_a_propagation_goes_by_its_name():
    assert propagation_named("path") is propagate_path
    assert propagation_named("reference") is propagate_reference
    assert propagation_named("per-slice") is segment_each_slice
    with pytest.raises(ValueError, match="The propagation 'video' is unknown: give one of auto, path, reference"):
        propagation_named("video")
