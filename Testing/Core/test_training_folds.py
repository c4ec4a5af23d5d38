"""Who is left out in turn, what held-out cases are judged by, and what is said of the gain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from made_up_site import made_up_site
from MedSAMSlicerLib.dataset.case import LoadedCase
from MedSAMSlicerLib.evaluation.bootstrap import patients_to_show
from MedSAMSlicerLib.evaluation.scores import stack_of
from MedSAMSlicerLib.training.conclusion import told
from MedSAMSlicerLib.training.folds import Fold, folds_of
from MedSAMSlicerLib.training.recipe import Recipe
from MedSAMSlicerLib.training.validation import spread, thinned


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedCase:
    dataset = made_up_site(tmp_path / "site", ("train",))
    return dataset.load(dataset.cases[0])


def patients(count: int, loaded: LoadedCase, cases_each: int = 1) -> list:
    return [
        replace(loaded.case, id=f"case-{number:04d}", patient=f"P{number // cases_each:04d}")
        for number in range(count * cases_each)
    ]


@pytest.mark.parametrize(("count", "folds"), [(2, 2), (4, 4), (9, 5)])
def test_few_patients_are_each_held_out_once_with_all_their_cases(loaded, count, folds):
    cases = patients(count, loaded, cases_each=2)
    found = folds_of(cases[:-2], cases[-2:], Recipe())
    assert len(found) == folds
    held = [case.id for fold in found for case in fold.held]
    assert sorted(held) == [case.id for case in cases]
    for fold in found:
        assert not {case.patient for case in fold.train} & {case.patient for case in fold.held}
        assert len(fold.train) + len(fold.held) == len(cases)


def test_many_patients_and_a_trained_encoder_are_judged_by_the_split(loaded):
    cases = patients(10, loaded)
    split = [Fold(tuple(cases[:8]), tuple(cases[8:]))]
    assert folds_of(cases[:8], cases[8:], Recipe()) == split
    few = [Fold(tuple(cases[:3]), tuple(cases[3:4]))]
    assert folds_of(cases[:3], cases[3:4], Recipe.of_depth("adapter")) == few
    assert folds_of(cases[:3], cases[3:4], Recipe(left_out_below=0)) == few


def test_structures_are_taken_from_every_patient_before_any_gives_a_second_one(loaded):
    cases = [replace(loaded, case=case) for case in [*patients(1, loaded, cases_each=3), *patients(2, loaded)[1:]]]
    assert [case.case.patient for case in cases] == ["P0000", "P0000", "P0000", "P0001"]
    assert [structure.case.patient for structure in spread(cases, 3)] == ["P0000", "P0001", "P0000"]


@pytest.mark.parametrize("axis", [0, 2])
def test_a_structure_in_many_slices_is_thinned_out_and_stays_in_its_place(loaded, axis):
    voxels = np.moveaxis(np.arange(60 * 8 * 8, dtype=np.int16).reshape(60, 8, 8), 0, 2 - axis)
    mask = np.zeros(voxels.shape, dtype=bool)
    np.moveaxis(mask, 2 - axis, 0)[5:55] = True
    matrix = np.eye(4)
    matrix[axis, axis] = 2.0
    volume = replace(loaded.volume, voxels=voxels, ijk_to_ras=matrix)
    whole = replace(loaded, volume=volume, labels={"bright": mask}, window="full")
    thin = thinned(whole, 24)
    assert stack_of(thin).axis == stack_of(whole).axis == axis
    assert thin.volume.spacing[axis] == 6
    assert np.moveaxis(thin.labels["bright"], 2 - axis, 0).any(axis=(1, 2)).sum() == 17
    np.testing.assert_array_equal(stack_of(thin).image(4), stack_of(whole).image(12))
    assert thinned(whole, 50) is whole


def row(patients: list[float], **more: object) -> dict:
    figures = {"validation_dice": 0.6, "validation_one_slice_dice": 0.5, "validation_per_slice_dice": 0.8}
    figures["validation_score"] = float(np.mean(patients))
    scores = {f"P{number:04d}": score for number, score in enumerate(patients)}
    return {"epoch": 1, "best": False, "strength": 1.0, **figures, "patients": scores, **more}


def conclusion(before: list[float], *epochs: dict, folds: int = 4) -> str:
    validation = SimpleNamespace(before=row(before), guarded=True)
    return told(epochs, validation, [Fold((), ())] * folds, stopped=False)


def test_an_accepted_model_says_what_to_expect_and_how_sure_that_is():
    text = conclusion([0.6, 0.7, 0.7, 0.8], row([0.62, 0.74, 0.73, 0.83], best=True, strength=0.5))
    assert text == (
        "Dice on 4 patients, each left out of training in turn: 0.600 to 0.600 from one 3-D box, 0.500 to 0.500 "
        "from a box on one slice, 0.800 to 0.800 from a box per slice (epoch 1, weights 0.5 of the way from the base "
        "model). Expected gain: +0.030 (95 % interval +0.023 to +0.038)."
    )


def test_without_a_model_it_is_said_why_and_how_many_patients_it_would_take():
    lost = row([0.8, 0.7, 0.8, 0.7], objection="loses on P0003: score 0.700, base model 0.800")
    text = conclusion([0.6, 0.7, 0.7, 0.8], lost, row([0.5, 0.5, 0.5, 0.5]))
    assert text.startswith("No model was written, go on with the base model: on 4 patients, each left out of training")
    assert "changes the Dice by +0.050" in text
    assert ", but loses on P0003: score 0.700, base model 0.800. " in text
    assert text.endswith("it takes about 161 patients to tell 0.02 from chance.")


def test_one_validation_patient_promises_nothing():
    assert "one patient can't tell" in conclusion([0.6], row([0.8], best=True), folds=1)
    assert "patients to tell" not in conclusion([0.6], row([0.5]), folds=1)


def test_the_number_of_patients_grows_with_the_spread_of_their_gains():
    before = [0.5, 0.5, 0.5, 0.5]
    assert patients_to_show(0.02, before, [0.52, 0.52, 0.52, 0.52]) == 0
    # (1.96 * 0.0115 / 0.02) ** 2, and four times as many for twice the spread.
    assert patients_to_show(0.02, before, [0.51, 0.53, 0.51, 0.53]) == 2
    assert patients_to_show(0.02, before, [0.50, 0.54, 0.50, 0.54]) == 6
