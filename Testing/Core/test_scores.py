"""Scores of a model on whole cases, and whether it listens to its box."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from box_predictor import BoxPredictor, FilledBoxes, Shape
from MedSAMSlicerLib.dataset.case import Case, LoadedCase
from MedSAMSlicerLib.evaluation.boxes import box_of, box_on_slice, slice_boxes
from MedSAMSlicerLib.evaluation.response import box_response
from MedSAMSlicerLib.evaluation.scores import score_case
from MedSAMSlicerLib.loading import load_predictor
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache, Window
from MedSAMSlicerLib.volume.files import Volume, read_volume
from MedSAMSlicerLib.volume.metrics import agreement

SHAPE = (7, 40, 50)


def case_of(volume: Volume, labels: dict[str, np.ndarray], window: str) -> LoadedCase:
    case = Case(
        "case-0001", "P0001", "test", tuple(labels), window, "ct", volume.spacing, volume.dimensions, "", "", "", ""
    )
    return LoadedCase(case, volume, labels, window)


def ellipsoid() -> np.ndarray:
    """An organ about (4, 19, 24) of half axes 2.5, 10 and 14 voxels, KJI."""
    k, j, i = np.indices(SHAPE)
    return ((k - 3) / 2.5) ** 2 + ((j - 19) / 10) ** 2 + ((i - 24) / 14) ** 2 <= 1


@pytest.fixture
def organ() -> LoadedCase:
    """A bright organ on dark ground."""
    label = ellipsoid()
    voxels = np.where(label, 200, 50).astype(np.uint8)
    voxels[0, 0, 0], voxels[0, 0, 1] = 0, 255
    return case_of(Volume(voxels, np.diag([1.0, 1, 3, 1]), ""), {"organ": label}, "full")


@dataclass(frozen=True)
class Gray(Shape):
    """An embedding that remembers the image."""

    image: np.ndarray = field(default_factory=lambda: np.zeros((1, 1), np.uint8))


class SeesBright(BoxPredictor):
    """Segments what is bright: all of it, or only what is in the box."""

    def __init__(self, *, deaf: bool) -> None:
        super().__init__(key=f"bright, deaf: {deaf}")
        self.deaf = deaf

    def encode(self, image: np.ndarray) -> Gray:
        shape = super().encode(image)
        return Gray(shape.rows, shape.columns, image=image)

    def decode(self, embedding: Gray, boxes: list[Box], window: Window | None = None) -> FilledBoxes:
        filled = super().decode(embedding, boxes)
        seen = np.ones_like(filled.probabilities) if self.deaf else filled.probabilities
        return FilledBoxes(seen * (embedding.image > 100), filled.iou).within(window)


def test_a_perfect_model_scores_one_and_every_kind_of_box_has_its_score(organ):
    scores = score_case(organ, SeesBright(deaf=False), boxes=("tight", "loose", "one-slice", "per-slice"))
    assert [(score.case_id, score.label, score.box) for score in scores] == [
        ("case-0001", "organ", box) for box in ("tight", "loose", "one-slice", "per-slice")
    ]
    assert all(score.dice == score.surface_dice == 1 for score in scores)


def test_a_model_that_fills_its_box_scores_as_the_box_does(organ):
    tight, per_slice = score_case(organ, BoxPredictor(), boxes=("tight", "per-slice"))
    label = organ.labels["organ"]
    boxes = np.zeros_like(label)
    for index, box in slice_boxes(label, 2).items():
        boxes[index, int(box.y0) : int(box.y1) + 1, int(box.x0) : int(box.x1) + 1] = True
    assert per_slice.dice == pytest.approx(agreement(boxes, label, organ.volume.spacing).dice)
    assert tight.dice < per_slice.dice < 0.95
    assert per_slice.surface_dice < 1


def test_every_label_is_scored_and_slices_are_cut_as_users_get_them(organ):
    label = organ.labels["organ"].transpose(2, 1, 0)
    volume = Volume(organ.volume.voxels.transpose(2, 1, 0), np.diag([3.0, 1, 1, 1]), "")
    loaded = case_of(volume, {"organ": label, "upper part": label & (np.indices(label.shape)[1] < 19)}, "full")
    predictor = SeesBright(deaf=False)
    scores = score_case(loaded, predictor, boxes=("per-slice",))
    assert [(score.label, score.dice) for score in scores] == [("organ", 1), ("upper part", 1)]
    # The coarse direction is I here.
    assert predictor.encoded[0].shape == (50, 40)


def test_embeddings_in_a_cache_of_the_caller_are_computed_once(organ):
    predictor, cache = SeesBright(deaf=True), EmbeddingCache()
    for _ in range(2):
        score_case(organ, predictor, cache, boxes=("tight", "per-slice"))
    # Of the organ's five slices, two and two are alike.
    assert len(predictor.encoded) == len(cache) == 3


def test_boxes_are_tight_loose_or_shifted_the_same_way_every_time_and_stay_within_the_image():
    mask = np.zeros((20, 100, 200), dtype=bool)
    mask[5:15, 40:60, 90:190] = True
    assert box_of(mask, "tight") == ((90, 40, 5), (189, 59, 14))
    assert box_of(mask, "loose") == ((80, 38, 4), (199, 61, 15))
    shifts = {box_of(mask, "shifted", str(seed)) for seed in range(30)}
    assert len(shifts) > 20
    for first, last in shifts:
        assert abs(first[0] - 90) <= 10
        assert abs(first[1] - 40) <= 2
        assert abs(first[2] - 5) <= 1
        assert last[1] - first[1] == 19
    assert box_of(mask, "shifted", "a") == box_of(mask, "shifted", "a")
    with pytest.raises(ValueError, match=r"box 'wide' is unknown: give tight, loose or shifted"):
        box_of(mask, "wide")


def test_the_one_box_is_drawn_five_percent_larger_on_the_middle_slice_that_holds_the_structure():
    mask = np.zeros((20, 100, 200), dtype=bool)
    mask[5:8, 40:60, 90:190] = True
    mask[14:16, 80:100, 0:10] = True
    # Slice 10 is in the middle, but empty.
    assert box_on_slice(mask, 2) == (7, Box(85, 39, 194, 60))
    assert box_on_slice(mask[8:], 2) == (6, Box(0, 79, 10, 99))
    assert box_on_slice(mask.transpose(2, 1, 0), 0) == (7, Box(39, 85, 60, 194))


def test_a_good_model_responds_to_its_box(organ):
    response = box_response([organ], SeesBright(deaf=False))
    assert response.follows == response.finds == response.value == 1


def test_a_model_that_gives_the_same_mask_whatever_the_box_is_deaf_though_its_scores_are_perfect(organ):
    deaf = SeesBright(deaf=True)
    assert all(score.dice == 1 for score in score_case(organ, deaf, boxes=("tight", "loose")))
    response = box_response([organ], deaf)
    assert abs(response.follows) < 0.05
    assert response.finds == 1
    assert response.value == response.follows


def test_a_model_that_fills_its_box_finds_nothing_though_it_follows(organ):
    response = box_response([organ], BoxPredictor())
    assert response.follows > 0.7
    assert response.value == response.finds == 0


def test_a_model_that_finds_nothing_at_all_does_not_respond(organ):
    class Blind(BoxPredictor):
        def decode(self, embedding: Shape, boxes: list[Box], window: Window | None = None) -> FilledBoxes:
            filled = super().decode(embedding, boxes, window)
            return FilledBoxes(np.zeros_like(filled.probabilities), filled.iou)

    response = box_response([organ], Blind())
    assert response.follows == 0
    assert response.value < 0
    assert [score.dice for score in score_case(organ, Blind())] == [0, 0, 0]


def test_structures_too_small_to_halve_tell_nothing(organ):
    small = np.zeros(SHAPE, dtype=bool)
    small[2:4, 10:17, 10:17] = True
    loaded = case_of(organ.volume, {"small": small}, "full")
    with pytest.raises(ValueError, match="No label is 8 pixels wide and high"):
        box_response([loaded], BoxPredictor())
    assert math.isclose(box_response([loaded, organ], SeesBright(deaf=False)).value, 1)


def test_litemedsam_listens_to_its_box_and_segments_the_spleen(lite_weights, samples):
    volume = read_volume(samples["example_ct_sm.nii.gz"])
    spleen = read_volume(samples["example_seg.nii.gz"]).voxels == 1
    middle = int(spleen.sum(axis=(1, 2)).argmax())
    few = np.s_[middle - 1 : middle + 2]
    loaded = case_of(replace(volume, voxels=volume.voxels[few]), {"spleen": spleen[few]}, "abdomen")
    predictor, cache = load_predictor("lite", "cpu"), EmbeddingCache()
    scores = score_case(loaded, predictor, cache)
    assert [score.box for score in scores] == ["tight", "one-slice", "per-slice"]
    assert all(score.dice > 0.85 for score in scores)
    assert box_response([loaded], predictor, cache).value > 0.6
