"""The command `dataset`: from a folder of files to cases that are checked and split."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import MedSAMSlicerLib
from MedSAMSlicerLib.cli.main import main
from MedSAMSlicerLib.dataset.site import SiteDataset
from MedSAMSlicerLib.volume.files import write_labelmap

LIBRARY = Path(MedSAMSlicerLib.__file__).parents[1]
ORGAN = np.zeros((6, 10, 12), dtype=np.uint8)
ORGAN[1:5, 2:8, 3:9] = 5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images with labels."""
    for seed in range(4):
        voxels = np.random.default_rng(seed).normal(0, 300, ORGAN.shape).astype(np.int16)
        write_labelmap(tmp_path / "files" / f"{seed}_image.nrrd", voxels, np.diag([0.8, 0.8, 3, 1]))
        write_labelmap(tmp_path / "files" / f"{seed}_label.nrrd", ORGAN, np.diag([0.8, 0.8, 3, 1]))
    return tmp_path / "files"


@pytest.fixture
def site(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> str:
    site = str(tmp_path / "site")
    assert main(["dataset", "add", "--data", site, "--images", str(folder), "--name", "5=liver"]) == 0
    capfd.readouterr()
    return site


def error_of(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """Run a command that must fail with one line, and return the line."""
    assert main(arguments) == 1
    out, err = capfd.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("medsam-slicer: error: ")
    return line


def test_adding_makes_a_dataset_and_later_adds_to_it(folder, tmp_path, capfd):
    site = str(tmp_path / "site")
    add = ["dataset", "add", "--data", site, "--images", str(folder), "--window", "40/400"]
    assert main([*add, "--image-pattern", "{case}_image.nrrd", "--name", "5=liver", "--verbose"]) == 0
    *cases, summary = capfd.readouterr().out.splitlines()
    assert cases[0].split() == ["case-0001", "P0001", str(folder / "0_image.nrrd")]
    assert len(cases) == 4
    assert summary.startswith("Added 4 of 4 pairs")
    cases = SiteDataset.open(Path(site)).cases
    assert [(case.labels, case.window, case.source) for case in cases] == [(("liver",), "40/400", "NRRD")] * 4
    (folder / "4_image.nrrd").write_bytes((folder / "3_image.nrrd").read_bytes()[:-40])
    (folder / "4_label.nrrd").write_bytes((folder / "3_label.nrrd").read_bytes())
    (folder / "5_image.nrrd").write_bytes((folder / "3_image.nrrd").read_bytes())
    (folder / "6_label.nrrd").write_bytes((folder / "3_label.nrrd").read_bytes())
    assert main(add) == 1
    out, err = capfd.readouterr()
    assert "Added 0 of 5 pairs to" in out
    assert "which has 4 cases now" in out
    problems = [line for line in err.splitlines() if not line.startswith("Adding")]
    assert len(problems) == 7
    assert problems[0].endswith("5_image.nrrd: no labels match it")
    assert problems[1].endswith("6_label.nrrd: no image matches it")
    assert "0_image.nrrd: The same image is in the dataset already." in problems[2]
    assert "4_image.nrrd can't be read as an image" in problems[6]


def test_no_log_tells_which_file_became_which_case_unless_it_is_asked_for(folder, tmp_path, capfd):
    site = str(tmp_path / "site")
    add = ["dataset", "add", "--data", site, "--images", str(folder)]
    assert main(add) == 0
    first = "".join(capfd.readouterr())
    assert main(add) == 1
    again = "".join(capfd.readouterr())
    assert main([*add, "--verbose"]) == 1
    asked = "".join(capfd.readouterr())
    for line in (first + again).splitlines():
        assert not ("_image" in line and ("case-0" in line or "P0" in line))
    assert "case-0004  P0004" in first
    assert again.count("is in the dataset already.\n") == 4
    assert "2_image.nrrd: The same image is in the dataset already. It is case-0003." in asked


def test_a_name_that_the_terminal_can_not_show_stops_nothing(folder, tmp_path):
    (folder / "0_image.nrrd").rename(folder / "Łódź_image.nrrd")
    (folder / "0_label.nrrd").rename(folder / "Łódź_label.nrrd")
    site = tmp_path / "site"
    arguments = ["dataset", "add", "--data", site, "--images", folder, "--verbose", "--name", "5=wątroba"]
    for command in (arguments, ["dataset", "list", "--data", site]):
        result = subprocess.run(
            [sys.executable, "-m", "MedSAMSlicerLib", *map(str, command)],
            env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(LIBRARY)},
            capture_output=True,
            check=False,
        )
        assert (result.returncode, b"error" in result.stderr) == (0, False)
    assert len(SiteDataset.open(site).cases) == 4


def test_the_list_shows_every_case_and_the_size_of_the_splits(site, capfd):
    assert main(["dataset", "list", "--data", site]) == 0
    header, *rows, _, summary = capfd.readouterr().out.splitlines()
    assert header.split() == ["CASE", "PATIENT", "SPLIT", "IMAGE", "VOXELS", "LABELS"]
    assert rows[0].split() == ["case-0001", "P0001", "-", "ct", "12x10x6", "liver"]
    assert summary == "Cases (patients): no split yet 4 (4)"


def test_patients_are_dealt_and_moved(site, capfd):
    assert main(["dataset", "split", "--data", site]) == 0
    assert "Cases (patients): train 2 (2), validation 1 (1), test 1 (1)" in capfd.readouterr().out
    assert main(["dataset", "split", "--data", site, "--assign", "P0001=test", "case-0002=test"]) == 0
    splits = [case.split for case in SiteDataset.open(Path(site)).cases]
    assert splits[:2] == ["test", "test"]
    assert main(["dataset", "split", "--data", site, "--shares", "1", "0", "0"]) == 0
    assert {case.split for case in SiteDataset.open(Path(site)).cases} == {"train"}
    capfd.readouterr()
    SiteDataset.open(Path(site)).mark_used(["case-0003"], "run 1")
    assert "was used for training" in error_of(["dataset", "split", "--data", site, "--assign", "P0003=test"], capfd)
    assert main(["dataset", "list", "--data", site]) == 0
    assert "train (trained on)" in capfd.readouterr().out


def test_findings_are_printed_and_errors_end_with_1(site, tmp_path, capfd):
    assert main(["dataset", "check", "--data", site]) == 0
    out, _ = capfd.readouterr()
    assert out.splitlines()[0].startswith("warning: There are 4 patients")
    (Path(site) / "cases" / "case-0002" / "image.nrrd").unlink()
    assert main(["dataset", "check", "--data", site, "--json", str(tmp_path / "out.json")]) == 1
    first = capfd.readouterr().out.splitlines()[0]
    assert first.startswith("error: case-0002: ")
    findings = json.loads((tmp_path / "out.json").read_text())["findings"]
    assert (findings[0]["level"], findings[0]["case"]) == ("error", "case-0002")
    assert main(["dataset", "check", "--data", site, "--json", "-"]) == 1
    assert json.loads(capfd.readouterr().out)["findings"] == findings


def test_cases_can_be_removed(site, capfd):
    assert main(["dataset", "remove", "--data", site, "case-0002", "case-0003"]) == 0
    assert [case.id for case in SiteDataset.open(Path(site)).cases] == ["case-0001", "case-0004"]
    capfd.readouterr()
    assert "has no case 'case-0002'" in error_of(["dataset", "remove", "--data", site, "case-0002"], capfd)


def test_wrong_arguments_are_told_in_one_line_and_make_no_dataset(folder, tmp_path, capfd):
    site = str(tmp_path / "site")
    add = ["dataset", "add", "--data", site, "--images", str(folder)]
    assert "5=liver, not 'liver'" in error_of([*add, "--name", "liver"], capfd)
    assert "no {case} or {patient} in common" in error_of([*add, "--label-pattern", "*.nrrd"], capfd)
    assert "4 images match '{case}_image.*', 0 labels match" in error_of([*add, "--label-pattern", "{case}.nii"], capfd)
    assert "is no folder" in error_of([*add[:-1], str(tmp_path / "nowhere")], capfd)
    for command in ("check", "split", "list"):
        assert "is no dataset" in error_of(["dataset", command, "--data", site], capfd)
    assert not Path(site).exists()


def test_where_nothing_could_be_added_no_dataset_is_left(folder, tmp_path, capfd):
    add = ["dataset", "add", "--data", str(tmp_path / "new" / "site"), "--images", str(folder), "--window"]
    assert main([*add, "kidney"]) == 1
    out, err = capfd.readouterr()
    assert out == "Added none of 4 pairs, and made no dataset.\n"
    assert err.count("The window 'kidney' is unknown") == 4
    assert not (tmp_path / "new" / "site").exists()
    assert main([*add, "full"]) == 0


def test_an_image_in_the_place_of_labels_is_no_thousand_structures(folder, tmp_path, capfd):
    image = np.arange(ORGAN.size, dtype=np.uint16).reshape(ORGAN.shape)
    write_labelmap(folder / "0_label.nrrd", image, np.diag([0.8, 0.8, 3, 1]))
    assert main(["dataset", "add", "--data", str(tmp_path / "site"), "--images", str(folder)]) == 1
    out, err = capfd.readouterr()
    assert "0_label.nrrd has 719 different values: is it an image instead of a label map?" in err
    assert "Added 3 of 4 pairs" in out


def test_a_disk_that_is_full_is_told_with_the_place_of_the_case(site, folder, tmp_path, monkeypatch, capfd):
    voxels = np.random.default_rng(9).normal(0, 300, ORGAN.shape).astype(np.int16)
    write_labelmap(folder / "9_image.nrrd", voxels, np.diag([0.8, 0.8, 3, 1]))
    write_labelmap(folder / "9_label.nrrd", ORGAN, np.diag([0.8, 0.8, 3, 1]))

    def full(image: object, path: str, **options: object) -> None:
        raise RuntimeError("[nrrd] _nrrdGzClose: failed to flush pending data")

    monkeypatch.setattr("MedSAMSlicerLib.volume.files.sitk.WriteImage", full)
    assert main(["dataset", "add", "--data", site, "--images", str(folder)]) == 1
    err = capfd.readouterr().err
    assert f"{site}/cases/case-0005/image.nrrd can't be written" in err
    assert "is the disk full?" in err
    assert not (Path(site) / "cases" / "case-0005").exists()
