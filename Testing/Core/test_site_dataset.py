"""The folder of a site's cases: what goes in comes out, and nothing that goes wrong leaves half a case."""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from geometries import GEOMETRIES
from MedSAMSlicerLib.dataset import index as index_module
from MedSAMSlicerLib.dataset import site as site_module
from MedSAMSlicerLib.dataset.checks import check
from MedSAMSlicerLib.dataset.site import SiteDataset
from MedSAMSlicerLib.store import lock as lock_module
from MedSAMSlicerLib.store.folder import writing_to
from MedSAMSlicerLib.store.lock import exclusive
from MedSAMSlicerLib.volume.files import FileError, Volume

OBLIQUE = GEOMETRIES["oblique anisotropic"]


def case_of(seed: int = 1, ijk_to_ras: np.ndarray = OBLIQUE) -> tuple[Volume, dict[str, np.ndarray]]:
    """Make a CT with two labels that overlap."""
    voxels = np.random.default_rng(seed).normal(0, 300, (6, 12, 14)).astype(np.int16)
    liver, lesion = np.zeros((2, 6, 12, 14), dtype=bool)
    liver[1:5, 2:9, 3:11] = True
    lesion[2:4, 4:6, 5:8] = True
    return Volume(voxels, ijk_to_ras, "Doe^John 1950-01-01"), {"liver": liver, "lesion": lesion}


@pytest.fixture
def dataset(tmp_path: Path) -> SiteDataset:
    return SiteDataset.create(tmp_path / "site")


def files_of(dataset: SiteDataset) -> dict[str, bytes]:
    return {
        path.relative_to(dataset.folder).as_posix(): path.read_bytes()
        for path in dataset.folder.rglob("*")
        if path.is_file() and not path.name.endswith(".lock")
    }


@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_case_comes_back_as_it_was_added_and_so_from_a_new_object(dataset, name):
    volume, labels = case_of(ijk_to_ras=GEOMETRIES[name])
    case = dataset.add(volume, labels, patient=None, window="40/400", source="NIfTI")
    again = SiteDataset.open(dataset.folder)
    assert again.cases == dataset.cases == (case,)
    assert (case.id, case.patient, case.split, case.labels) == ("case-0001", "P0001", "", ("liver", "lesion"))
    assert (case.modality, case.source, case.dimensions) == ("ct", "NIfTI", (14, 12, 6))
    loaded = again.load(case)
    assert loaded.window == "40/400"
    assert loaded.volume.voxels.dtype == np.int16
    np.testing.assert_array_equal(loaded.volume.voxels, volume.voxels)
    np.testing.assert_allclose(loaded.volume.ijk_to_ras, volume.ijk_to_ras, atol=1e-5)
    assert list(loaded.labels) == ["liver", "lesion"]
    for label, mask in labels.items():
        np.testing.assert_array_equal(loaded.labels[label], mask)


def test_color_and_labels_of_more_than_a_byte_are_kept(dataset):
    volume, _ = case_of()
    color = np.random.default_rng(3).integers(0, 255, (6, 12, 14, 3)).astype(np.uint8)
    labels = {}
    for number in range(300):
        labels[f"voxel {number}"] = np.zeros((6, 12, 14), dtype=bool)
        labels[f"voxel {number}"].flat[number] = True
    loaded = dataset.load(dataset.add(Volume(color, volume.ijk_to_ras, ""), labels, patient=None))
    np.testing.assert_array_equal(loaded.volume.voxels, color)
    assert loaded.case.modality == "color"
    assert list(loaded.labels) == list(labels)
    assert all((loaded.labels[name] == labels[name]).all() for name in labels)


def test_what_is_no_number_is_stored_as_the_model_would_see_it(dataset):
    volume, labels = case_of()
    voxels = volume.voxels.astype(np.float32)
    voxels[0, 0, :3] = np.nan, np.inf, -np.inf
    loaded = dataset.load(dataset.add(Volume(voxels, volume.ijk_to_ras, ""), labels, patient=None))
    finite = voxels[np.isfinite(voxels)]
    assert loaded.volume.voxels[0, 0, :3].tolist() == [finite.min(), finite.max(), finite.min()]


def test_nothing_in_the_folder_tells_who_the_patient_is(dataset):
    volume, labels = case_of()
    dataset.add(volume, labels, patient="Doe^John", source="NIfTI")
    for path, content in files_of(dataset).items():
        assert "Doe" not in path
        assert b"Doe" not in content
        assert b"1950" not in content
    header = dataset.image_path(dataset.cases[0]).read_bytes().split(b"\n\n")[0]
    assert b":=" not in header


def test_cases_of_one_patient_share_a_pseudonym_and_a_split(dataset):
    first = dataset.add(*case_of(1), patient="12345")
    dataset.add(*case_of(2), patient="67890")
    dataset.assign(first.id, "test")
    again = SiteDataset.open(dataset.folder)
    third = again.add(*case_of(3), patient=" 12345 ")
    assert [case.patient for case in again.cases] == ["P0001", "P0002", "P0001"]
    assert third.split == "test"
    assert again.add(*case_of(4), pseudonym="P0002").patient == "P0002"
    assert again.add(*case_of(5), patient=None).patient == "P0003"


def test_an_identifier_that_looks_like_a_pseudonym_is_hashed_like_any_other(dataset):
    site = ["P0001", "P0003", "P0004", "Bad", "P0002"]
    given = {patient: dataset.add(*case_of(seed), patient=patient).patient for seed, patient in enumerate(site)}
    assert len(set(given.values())) == len(site)
    again = {patient: dataset.add(*case_of(9 + seed), patient=patient).patient for seed, patient in enumerate(site)}
    assert again == given
    for wrong in ("P0099", "Bad", ""):
        with pytest.raises(ValueError, match=f"has no patient '{wrong}': give the pseudonym of one who has a case"):
            dataset.add(*case_of(30), pseudonym=wrong)


def test_a_name_is_the_same_however_its_accents_are_spelled(dataset):
    first = dataset.add(*case_of(1), patient="M\u00fcller")
    assert dataset.add(*case_of(2), patient="Mu\u0308ller").patient == first.patient


def test_an_index_from_a_backup_deletes_and_overwrites_no_case(dataset):
    dataset.add(*case_of(1), patient="12345")
    backup = (dataset.folder / "dataset.json").read_bytes()
    lost = [dataset.add(*case_of(seed), patient="67890") for seed in (2, 3)]
    whole = {name: content for name, content in files_of(dataset).items() if name.startswith("cases/case-000")}
    (dataset.folder / "dataset.json").write_bytes(backup)
    again = SiteDataset.open(dataset.folder)
    added = again.add(*case_of(4), patient=None)
    assert (added.id, again.cases[-1].id) == ("case-0004", "case-0004")
    now = files_of(again)
    assert {name: now[name] for name in whole} == whole
    texts = [finding.text for finding in check(again) if "belongs to no case" in finding.text]
    assert len(texts) == len(lost)


def test_what_a_killed_process_has_left_half_written_is_cleaned_and_nothing_else(dataset):
    case = dataset.add(*case_of(1), patient=None)
    cases = dataset.folder / "cases"
    ours = [cases / ".medsam-a" / "case-0002", cases / case.id / ".medsam-b"]
    for folder in ours:
        folder.mkdir(parents=True)
        (folder / "image.nrrd").write_text("half")
    (dataset.folder / "dataset.json.123.new").write_text("{")
    report = dataset.folder / ".medsam-c"
    report.mkdir()
    orphan = cases / "case-0007"
    orphan.mkdir()
    (orphan / "labels.seg.nrrd").write_text("by hand")
    dataset.add(*case_of(2), patient=None)
    left = {
        path.relative_to(dataset.folder).as_posix() for path in dataset.folder.rglob("*") if ".medsam-" in str(path)
    }
    assert left == {".medsam-c"}
    assert not list(dataset.folder.glob("*.new"))
    assert (orphan / "labels.seg.nrrd").read_text() == "by hand"
    assert dataset.cases[-1].id == "case-0008"


@pytest.mark.parametrize(
    ("old", "new"),
    [('"P0001"', '"Doe"'), ('"P0001"', "7"), ('"key": "', '"key": "xy'), ('"given": {', '"given": [7], "x": {')],
)
def test_a_damaged_file_of_pseudonyms_is_told_by_name(dataset, old, new):
    dataset.add(*case_of(1), patient="12345")
    path = dataset.folder / "patients.key"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=r"patients\.key is damaged: restore it from a backup"):
        dataset.add(*case_of(2), patient="12345")


def test_without_the_file_of_pseudonyms_the_dataset_is_complete_and_no_pseudonym_is_given_twice(dataset):
    dataset.add(*case_of(1), patient="12345")
    (dataset.folder / "patients.key").unlink()
    assert SiteDataset.open(dataset.folder).cases == dataset.cases
    assert dataset.add(*case_of(2), patient="12345").patient == "P0002"
    assert (dataset.folder / "patients.key").is_file()


def test_ids_and_pseudonyms_of_removed_cases_are_never_given_again(dataset):
    dataset.add(*case_of(1), patient=None)
    case = dataset.add(*case_of(2), patient=None)
    dataset.remove(case.id)
    assert [case.id for case in dataset.cases] == ["case-0001"]
    assert not dataset.image_path(case).parent.exists()
    added = SiteDataset.open(dataset.folder).add(*case_of(3), patient=None)
    assert (added.id, added.patient) == ("case-0003", "P0003")
    with pytest.raises(ValueError, match=r"has no case 'case-0002': it has case-0001 to case-0003"):
        dataset.remove("case-0002")


def test_what_can_not_be_right_is_refused_and_leaves_the_dataset_as_it_was(dataset):
    volume, labels = case_of()
    dataset.add(volume, labels, patient=None)
    before = files_of(dataset)
    empty = np.zeros((6, 12, 14), dtype=bool)
    other, _ = case_of(2)
    flat = Volume(np.zeros((6, 12, 14), np.int16), volume.ijk_to_ras, "")
    for arguments, options, text in [
        ((other, {}), {}, "has no label"),
        ((other, {"liver": empty}), {}, "'liver' is empty"),
        ((other, {"liver": labels["liver"][:5]}), {}, "14 x 12 x 5 voxels, the image 14 x 12 x 6"),
        ((other, {"li\nver": labels["liver"]}), {}, "can't be stored"),
        ((other, {"liver": ~empty}), {"window": "kidney"}, "window 'kidney' is unknown"),
        ((other, {"liver": ~empty}), {"patient": " "}, "patient is empty"),
        ((flat, {"liver": ~empty}), {}, "same value"),
        ((volume, {"liver": ~empty}), {}, "already, as case-0001"),
        ((Volume(volume.voxels.astype(float), OBLIQUE, ""), {"liver": ~empty}), {}, "already, as case-0001"),
    ]:
        with pytest.raises(ValueError, match=text):
            dataset.add(*arguments, **{"patient": None, **options})
    assert files_of(dataset) == before


def test_a_folder_that_is_not_empty_is_no_new_dataset_and_one_without_an_index_is_none(dataset, tmp_path):
    with pytest.raises(ValueError, match="is not empty"):
        SiteDataset.create(dataset.folder)
    with pytest.raises(ValueError, match=r"is no dataset: it has no dataset\.json"):
        SiteDataset.open(tmp_path)
    assert list(tmp_path.iterdir()) == [dataset.folder]


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('{\n  "format"', '"format"', "damaged"),
        ("MedSAMSlicer site dataset", "something else", "its format is not"),
        ('"version": 1', '"version": 2', "has the version 2, this program reads 1: update"),
        ('"case-0001"', '"../../precious"', "no id of a case"),
        ('"P0001"', '"Doe"', "no id of a case or patient"),
        ('"split": ""', '"split": "exam"', "unknown split 'exam'"),
        ('      "window": "auto",\n', "", "lacks or has too much of: window"),
        ('"cases": [', '"cases": [7,', "lacks or has too much of: 7"),
        ('"used": []', '"used": [{"run": "a"}]', "damaged"),
        ('"labels": [\n        "liver",', '"labels": [\n        1,', "labels of case-0001"),
        ('"labels": [\n        "liver",', '"labels": [\n        "lesion",', "different names"),
        ('"case-0001"', '"case-\u0660\u0660\u0660\u0661"', "no id of a case"),
        ('"next_case": 2', '"next_case": "x"', "next_case is 'x'"),
        ('"next_case": 2', '"next_case": true', "next_case is True"),
        ('"window": "auto"', '"window": 40', "window of case-0001"),
        ("      14,\n", "      1.5,\n", "dimensions of case-0001"),
        ('"format"', '"deep": ' + "[" * 100000 + "]" * 100000 + ',"format"', "damaged"),
    ],
)
def test_a_damaged_index_is_told_and_not_touched(dataset, old, new, text):
    dataset.add(*case_of(), patient=None)
    path = dataset.folder / "dataset.json"
    content = path.read_text(encoding="utf-8")
    assert old in content
    path.write_text(content.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=text):
        SiteDataset.open(dataset.folder)
    with pytest.raises(ValueError, match=text):
        dataset.add(*case_of(2), patient=None)
    assert path.read_text(encoding="utf-8") == content.replace(old, new, 1)


def test_a_damaged_file_of_a_case_is_told_when_it_is_loaded(dataset):
    case = dataset.add(*case_of(), patient=None)
    image, labels = dataset.image_path(case), dataset.labels_path(case)
    whole = image.read_bytes()
    flipped = bytearray(whole)
    flipped[-200] ^= 1
    for content in (whole[:-100], bytes(flipped), b""):
        image.write_bytes(content)
        with pytest.raises(FileError, match=r"image\.nrrd"):
            dataset.load(case)
    image.write_bytes(whole)
    labels.unlink()
    with pytest.raises(FileError, match=r"labels\.seg\.nrrd does not exist"):
        dataset.load(case)


def test_another_image_in_the_place_of_a_case_is_told(dataset):
    first, second = (dataset.add(*case_of(seed), patient=None) for seed in (1, 2))
    dataset.image_path(first).write_bytes(dataset.image_path(second).read_bytes())
    with pytest.raises(FileError, match="not the image that was added as case-0001"):
        dataset.load(first)


@pytest.mark.parametrize("place", ["image", "labels", "index"])
def test_a_full_disk_while_a_case_is_written_leaves_the_dataset_as_it_was(dataset, monkeypatch, place):
    dataset.add(*case_of(1), patient="12345")
    before = files_of(dataset)

    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextlib.contextmanager
    def full_disk(path: Path) -> Iterator[None]:
        with writing_to(path):
            full()
            yield

    with monkeypatch.context() as patch:
        if place == "index":
            patch.setattr(index_module, "replacing", full_disk)
        else:
            patch.setattr(site_module, {"image": "write_labelmap", "labels": "write_masks"}[place], full)
        with pytest.raises(OSError, match=r"No room left to write .*site.*: free some disk space"):
            dataset.add(*case_of(2), patient="12345")
    assert files_of(dataset) == before
    assert dataset.add(*case_of(2), patient="12345").id == "case-0002"


def test_a_patient_whose_first_case_could_not_be_written_shares_no_pseudonym_with_the_next_one(dataset, monkeypatch):
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(site_module, "write_masks", full)
        with pytest.raises(OSError, match="No room left"):
            dataset.add(*case_of(1), patient="12345")
    other = dataset.add(*case_of(2), patient="67890")
    assert dataset.add(*case_of(1), patient="12345").patient != other.patient


def die_while_adding(folder: Path, place: str) -> None:
    def die(*args: object, **options: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if place == "index":
        index_module.json.dumps = die
    else:
        site_module.write_masks = die
    SiteDataset.open(folder).add(*case_of(2), patient=None)


@pytest.mark.parametrize("place", ["labels", "index"])
def test_an_addition_that_is_killed_leaves_the_cases_that_were_there_and_the_next_one_succeeds(dataset, place):
    first = dataset.add(*case_of(1), patient=None)
    process = multiprocessing.get_context("fork").Process(target=die_while_adding, args=(dataset.folder, place))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    again = SiteDataset.open(dataset.folder)
    assert again.cases == (first,)
    case = again.add(*case_of(3), patient=None)
    np.testing.assert_array_equal(again.load(case).volume.voxels, case_of(3)[0].voxels)
    assert again.load(first)


def add_some(folder: Path, seeds: range) -> None:
    dataset = SiteDataset.open(folder)
    for seed in seeds:
        dataset.add(*case_of(seed), patient=None)


def test_two_processes_that_add_cases_at_once_lose_none(dataset):
    context = multiprocessing.get_context("spawn" if os.name == "nt" else "fork")
    processes = [context.Process(target=add_some, args=(dataset.folder, range(n, n + 4))) for n in (10, 20)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    cases = SiteDataset.open(dataset.folder).cases
    assert [case.id for case in cases] == [f"case-{n:04d}" for n in range(1, 9)]
    assert len({case.checksum for case in cases}) == len({case.patient for case in cases}) == 8


def test_a_dataset_that_can_not_be_changed_is_named_with_a_remedy_that_fits(dataset, monkeypatch):
    monkeypatch.setattr(lock_module, "PATIENCE_S", 0.0)
    with (
        exclusive(dataset.folder / "dataset.json"),
        pytest.raises(
            TimeoutError, match=r"Another process has held .*site.dataset\.json for .* wait for it or end it"
        ),
    ):
        dataset.split()
    lock = dataset.folder / ".dataset.json.lock"
    lock.unlink()
    lock.mkdir()
    with pytest.raises(OSError, match=r"Cannot write .*dataset\.json .*: make that folder writable, and try again\.$"):
        dataset.split()


def test_the_index_is_plain_json_that_a_person_understands(dataset):
    dataset.add(*case_of(), patient="12345", window="abdomen", source="DICOM")
    content = json.loads((dataset.folder / "dataset.json").read_text())
    assert content["format"] == "MedSAMSlicer site dataset"
    (case,) = content["cases"]
    assert (case["id"], case["patient"], case["window"]) == ("case-0001", "P0001", "abdomen")
    assert (case["labels"], case["spacing"]) == (["liver", "lesion"], pytest.approx([0.8, 0.7, 3.0]))
