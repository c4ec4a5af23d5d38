"""Which models are refused as the best, however well they segment the validation cases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from made_up_site import made_up_site
from MedSAMSlicerLib.dataset.case import LoadedCase
from MedSAMSlicerLib.evaluation.response import BoxResponse
from MedSAMSlicerLib.inference.predictor import Predictor
from MedSAMSlicerLib.model import build_model
from MedSAMSlicerLib.training import validation as validation_module
from MedSAMSlicerLib.training.distributed import Team
from MedSAMSlicerLib.training.embeddings import StoredEmbeddings
from MedSAMSlicerLib.training.recipe import Recipe
from MedSAMSlicerLib.training.strengths import sample_cases
from MedSAMSlicerLib.training.validation import Validation, spread

ALONE = Team(0, 1, torch.device("cpu"))


@pytest.fixture
def cases(tmp_path: Path) -> list[LoadedCase]:
    dataset = made_up_site(tmp_path / "site")
    return [dataset.load(case) for case in dataset.cases]


def objection(
    cases: list[LoadedCase],
    monkeypatch: pytest.MonkeyPatch,
    *,
    scores: tuple[float, float] = (0.7, 0.7),
    slice_scores: tuple[float, float] = (0.7, 0.7),
    strengths: tuple[float, float] = (0.8, 0.8),
    one_slice: tuple[float, float] = (0.7, 0.7),
    slice_strengths: tuple[float, float] = (0.8, 0.8),
    one_slice_strengths: tuple[float, float] = (0.8, 0.8),
    responses: tuple[BoxResponse, BoxResponse] = (BoxResponse(0.6, 0.5), BoxResponse(0.6, 0.5)),
) -> str:
    """Judge a model whose figures are written down: the tuned one's first, then the base model's.

    :param scores: of the two patients from one 3-D box, ``slice_scores`` from a box per slice, ``one_slice`` from one
        on one slice; those of the base model are 0.6 and 0.7.
    """
    answers = iter(responses)
    kinds = zip(strengths, one_slice_strengths, slice_strengths, strict=True)
    figures = (dict(zip(("dice", "one_slice_dice", "per_slice_dice"), dice, strict=True)) for dice in kinds)
    monkeypatch.setattr(Validation, "scored", lambda self, model, structures: next(figures))
    monkeypatch.setattr(validation_module, "box_response", lambda *arguments: next(answers))
    recipe = Recipe(guard_tolerance=0.05, least_response=0.5)
    validation = Validation([cases], build_model("tiny"), recipe, ALONE, cases[:1], None)
    validation.before = figures_of((0.6, 0.7), (0.6, 0.7), (0.6, 0.7))
    return validation.objection(figures_of(scores, one_slice, slice_scores), build_model("tiny"))


def figures_of(*dice: tuple[float, float]) -> dict:
    """Write down what two patients have from every kind of box."""
    names = ("P0001", "P0002")
    by_box = dict(zip(("tight", "one-slice", "per-slice"), dice, strict=True))
    return {
        "patients": {name: sum(each) / 3 for name, *each in zip(names, *dice, strict=True)},
        "patients_dice": {box: dict(zip(names, figures, strict=True)) for box, figures in by_box.items()},
    }


def test_a_model_that_is_as_good_as_its_base_is_accepted(cases, monkeypatch):
    assert objection(cases, monkeypatch) == ""
    assert objection(cases, monkeypatch, strengths=(0.76, 0.8)) == ""


def test_a_model_that_loses_on_one_patient_is_refused_however_much_the_others_gain(cases, monkeypatch):
    text = "loses on P0002: Dice from {} 0.675, base model 0.700"
    assert objection(cases, monkeypatch, scores=(0.9, 0.675)) == text.format("one 3-D box")
    assert objection(cases, monkeypatch, slice_scores=(0.9, 0.675)) == text.format("a box per slice")
    assert objection(cases, monkeypatch, one_slice=(0.9, 0.675)) == text.format("a box on one slice")


def test_what_is_gained_from_a_box_per_slice_does_not_outweigh_a_loss_from_one_3d_box(cases, monkeypatch):
    text = objection(cases, monkeypatch, scores=(0.595, 0.695), slice_scores=(0.8, 0.8))
    assert text == "loses: mean Dice from one 3-D box 0.645, base model 0.650"


def test_a_gain_of_few_patients_counts_only_if_none_of_them_loses(cases, monkeypatch):
    assert objection(cases, monkeypatch, scores=(0.65, 0.71)) == ""
    lost = {"scores": (0.9, 0.69), "one_slice": (0.9, 0.7), "slice_scores": (0.9, 0.7)}
    assert objection(cases, monkeypatch, **lost) == "the gain may be chance"


def test_a_model_that_has_forgotten_more_than_the_tolerance_from_any_kind_of_box_is_refused(cases, monkeypatch):
    text = "forgets: Dice on the sample cases from {} 0.740, base model 0.800"
    assert objection(cases, monkeypatch, strengths=(0.74, 0.8)) == text.format("one 3-D box")
    lost = objection(cases, monkeypatch, strengths=(0.9, 0.8), slice_strengths=(0.74, 0.8))
    assert lost == text.format("a box per slice")
    lost = objection(cases, monkeypatch, one_slice_strengths=(0.74, 0.8))
    assert lost == text.format("a box on one slice")


def test_a_model_that_no_longer_follows_its_box_is_refused(cases, monkeypatch):
    responses = (BoxResponse(0.2, 0.5), BoxResponse(0.6, 0.5))
    assert objection(cases, monkeypatch, responses=responses).startswith("deaf to its box: response 0.200")


def test_a_model_that_fills_its_box_is_refused_unless_the_base_was_worse(cases, monkeypatch):
    base_good, base_bad = BoxResponse(0.6, 0.5), BoxResponse(0.6, -2.0)
    filling = BoxResponse(0.6, -0.3)
    assert objection(cases, monkeypatch, responses=(filling, base_good)).startswith("fills its box")
    assert objection(cases, monkeypatch, responses=(filling, base_bad)) == ""


def test_a_base_that_was_deaf_itself_sets_no_mark(cases, monkeypatch):
    assert objection(cases, monkeypatch, responses=(BoxResponse(0.0, 0.0), BoxResponse(0.0, -1.0))) == ""


def test_few_structures_are_taken_from_all_cases_and_different_labels(cases):
    chosen = spread(cases, 3)
    assert [case.case.id for case in chosen] == ["case-0001", "case-0002", "case-0003"]
    assert [next(iter(case.labels)) for case in chosen] == ["bright", "inner", "bright"]
    assert len(spread(cases, 100)) == 8


def test_sample_cases_are_thinned_as_validation_cases_are(cases):
    loaded = cases[0]
    tall = replace(
        loaded,
        volume=replace(loaded.volume, voxels=np.repeat(loaded.volume.voxels, 20, axis=0)),
        labels={"bright": np.repeat(loaded.labels["bright"], 20, axis=0)},
    )
    assert tall.labels["bright"].any(axis=(1, 2)).sum() == 40
    validation = Validation([[tall]], build_model("tiny"), Recipe(validated_slices=10), ALONE, [tall], None)
    for (structure,) in (*validation.folds, validation._known):
        assert structure.labels["bright"].any(axis=(1, 2)).sum() == 10


def test_without_the_sample_cases_nothing_is_known(tmp_path):
    assert sample_cases(tmp_path) == []


def test_the_base_model_is_good_at_the_organs_of_the_sample_cases_from_every_kind_of_box(samples, lite_weights):
    from MedSAMSlicerLib.loading import load_model

    known = sample_cases(next(iter(samples.values())).parent)
    assert [len(case.labels) for case in known] == [6, 6]
    kidney = known[0].labels["left kidney"]
    middle = int(kidney.sum(axis=(1, 2)).argmax())
    two = np.s_[middle : middle + 2]
    volume = replace(known[0].volume, voxels=known[0].volume.voxels[two])
    two_slices = replace(known[0], volume=volume, labels={"left kidney": kidney[two]})
    validation = Validation([[]], load_model("lite"), Recipe(), ALONE, known, None)
    figures = validation.scored(load_model("lite"), [two_slices])
    assert min(figures["dice"], figures["one_slice_dice"], figures["per_slice_dice"]) > 0.85


def test_embeddings_on_disk_serve_every_decoder_of_one_encoder_and_no_other_encoder(tmp_path):
    image = np.random.default_rng(1).integers(0, 255, (30, 40), dtype=np.uint8)
    tuned, other = build_model("tiny"), build_model("tiny")
    with torch.no_grad():
        tuned.mask_decoder.iou_token.weight.add_(1)
        other.image_encoder.pos_embed.add_(1)
    encoder, decoder, stranger = (Predictor(model, device="cpu") for model in (build_model("tiny"), tuned, other))
    ours, theirs = StoredEmbeddings(tmp_path, encoder), StoredEmbeddings(tmp_path, stranger)
    assert StoredEmbeddings(tmp_path, decoder).files.path(image) == ours.files.path(image) != theirs.files.path(image)
    ours.keep(image)
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    kept = ours.embedding(decoder, image)
    assert file.stat().st_mtime_ns == written
    torch.testing.assert_close(kept.tensor, encoder.encode(image).tensor, atol=2e-3, rtol=2e-3)
