"""What is wrong with a dataset is told in words before a model is trained on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from geometries import GEOMETRIES
from MedSAMSlicerLib.dataset.checks import Finding, check
from MedSAMSlicerLib.dataset.masks import write_masks
from MedSAMSlicerLib.dataset.site import SiteDataset
from MedSAMSlicerLib.volume.files import Volume

OBLIQUE = GEOMETRIES["oblique anisotropic"]
ORGAN = np.zeros((8, 10, 12), dtype=bool)
ORGAN[1:7, 2:8, 3:9] = True


def volume(seed: int) -> Volume:
    return Volume(np.random.default_rng(seed).integers(0, 255, ORGAN.shape).astype(np.uint8), OBLIQUE, "")


@pytest.fixture
def dataset(tmp_path: Path) -> SiteDataset:
    """Twelve patients, dealt, with nothing to complain about."""
    dataset = SiteDataset.create(tmp_path / "site")
    for seed in range(12):
        dataset.add(volume(seed), {"organ": ORGAN}, patient=None)
    dataset.split()
    return dataset


def edit(dataset: SiteDataset, case_id: str, **changes: object) -> SiteDataset:
    """Change a case in dataset.json by hand."""
    path = dataset.folder / "dataset.json"
    content = json.loads(path.read_text())
    next(case for case in content["cases"] if case["id"] == case_id).update(changes)
    path.write_text(json.dumps(content))
    return SiteDataset.open(dataset.folder)


def only(findings: list[Finding], level: str, case_id: str | None) -> str:
    """Return the text of the one finding there is."""
    (finding,) = findings
    assert (finding.level, finding.case_id) == (level, case_id)
    return finding.text


def test_a_sound_dataset_has_no_findings_and_tells_how_far_it_is(dataset):
    steps = []
    assert check(dataset, lambda done, total: steps.append((done, total))) == []
    assert steps == [(done, 12) for done in range(13)]


def test_missing_and_damaged_files_are_errors_of_their_case(dataset):
    first, second, third = dataset.cases[:3]
    dataset.image_path(first).unlink()
    dataset.labels_path(second).write_bytes(dataset.labels_path(second).read_bytes()[:-30])
    image = bytearray(dataset.image_path(third).read_bytes())
    image[-100] ^= 1
    dataset.image_path(third).write_bytes(bytes(image))
    findings = {finding.case_id: finding for finding in check(dataset)}
    assert all(finding.level == "error" for finding in findings.values())
    assert list(findings) == [first.id, second.id, third.id]
    assert "does not exist" in findings[first.id].text
    assert "labels.seg.nrrd" in findings[second.id].text
    assert "image.nrrd" in findings[third.id].text


def test_labels_of_another_grid_and_labels_out_of_the_image_are_errors(dataset):
    first, second = dataset.cases[:2]
    moved = OBLIQUE.copy()
    moved[:3, 3] += 5.3
    write_masks(dataset.labels_path(first), {"organ": ORGAN}, moved)
    larger = np.pad(ORGAN, 1)
    larger[0, 5, 5] = True
    outer = OBLIQUE.copy()
    outer[:3, 3] -= OBLIQUE[:3, :3] @ [1, 1, 1]
    write_masks(dataset.labels_path(second), {"organ": larger}, outer)
    findings = {finding.case_id: finding for finding in check(dataset)}
    assert "drawn on another voxel grid than the image" in findings[first.id].text
    assert "'organ' reaches out of the image (along K)" in findings[second.id].text
    assert [finding.level for finding in findings.values()] == ["error", "error"]


def test_labels_that_slicer_saved_cropped_are_read_in_their_place(dataset):
    case = dataset.cases[0]
    part = OBLIQUE.copy()
    part[:3, 3] += OBLIQUE[:3, :3] @ [3, 2, 1]
    write_masks(dataset.labels_path(case), {"organ": np.ones((6, 6, 6), dtype=bool)}, part)
    np.testing.assert_array_equal(dataset.load(case).labels["organ"], ORGAN)
    assert "were changed since it was added" in only(check(dataset), "warning", case.id)


def test_a_label_that_was_erased_is_an_error(dataset):
    case = dataset.cases[0]
    write_masks(dataset.labels_path(case), {"other": ORGAN}, OBLIQUE)
    errors = [finding for finding in check(dataset) if finding.level == "error"]
    assert "'organ': nothing is drawn" in only(errors, "error", case.id)


@pytest.mark.parametrize(
    ("where", "text"),
    [
        (np.s_[2:6, 4:6, 4:6], "'organ' is tiny: 16 voxels, 0.027 mL"),
        (np.s_[1:7:2, 2:8, 2:8], "'organ' is drawn on 3 of the 5 slices between its ends: were some slices left out?"),
        (np.s_[3:4, 2:8, 2:8], "'organ' is drawn on 1 slice only"),
    ],
    ids=["tiny", "gaps", "one slice"],
)
def test_labels_that_teach_little_are_warned_of(dataset, where, text):
    mask = np.zeros_like(ORGAN)
    mask[where] = True
    case = dataset.add(volume(99), {"organ": mask}, pseudonym="P0001")
    assert text in only(check(dataset), "warning", case.id)


def test_the_same_voxels_twice_are_an_error(dataset):
    first, second = dataset.cases[:2]
    dataset.image_path(second).write_bytes(dataset.image_path(first).read_bytes())
    dataset = edit(dataset, second.id, checksum=first.checksum)
    assert "same image as case-0001" in only(check(dataset), "error", second.id)


def test_a_patient_in_two_splits_is_an_error(dataset):
    case = dataset.add(volume(99), {"organ": ORGAN}, pseudonym="P0001")
    dataset = edit(dataset, case.id, split="test" if case.split == "train" else "train")
    assert "P0001 is in more than one split" in only(check(dataset), "error", None)


def test_a_case_in_the_test_that_was_used_for_training_is_an_error(dataset):
    case = next(case for case in dataset.cases if case.split == "train")
    dataset.mark_used([case.id], "run 7")
    dataset = edit(dataset, case.id, split="test")
    assert "used for training (run 7)" in only(check(dataset), "error", case.id)


def test_too_few_patients_are_told(tmp_path):
    dataset = SiteDataset.create(tmp_path / "site")
    for seed in range(3):
        dataset.add(volume(seed), {"organ": ORGAN}, patient="the same")
    dataset.split()
    assert "There is 1 patient: training, validation and test need at least one each" in only(
        check(dataset), "error", None
    )
    for seed in range(3, 7):
        dataset.add(volume(seed), {"organ": ORGAN}, patient=None)
    assert [finding.level for finding in check(dataset)] == ["warning", "warning"]
    assert "There are 5 patients: dozens are usual" in check(dataset)[0].text
    assert "No split yet: 'case-0004', 'case-0005', 'case-0006', 'case-0007'" in check(dataset)[1].text


def test_an_empty_split_and_a_label_that_nobody_is_tested_on_are_told(dataset):
    for case in dataset.cases:
        if case.split == "validation":
            dataset.assign(case.id, "train")
    case = dataset.add(volume(99), {"vessel": ORGAN}, patient=None)
    dataset.assign(case.id, "train")
    error, warning = check(dataset)
    assert "No case is in the validation split" in only([error], "error", None)
    assert "'vessel' is in no case of the test split: the report can't tell" in only([warning], "warning", None)


def test_what_an_interrupted_addition_left_is_told(dataset):
    (dataset.folder / "cases" / "case-0099").mkdir()
    assert "case-0099 belongs to no case" in only(check(dataset), "warning", None)
