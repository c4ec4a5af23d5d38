"""The command `evaluate` on files with known answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from MedSAMSlicerLib.cli.main import main

Files = Callable[..., list[str]]


def labelmap(path: Path, array: np.ndarray, origin: tuple[float, float, float] = (0, 0, 0), **metadata: str) -> str:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.0, 1.0, 2.0))
    image.SetOrigin(origin)
    for key, value in metadata.items():
        image.SetMetaData(key, value)
    sitk.WriteImage(image, str(path), useCompression=True)
    return str(path)


def blocks(shift: int = 0) -> np.ndarray:
    """Label 1, a cube of 4 that moves along I, and label 7, one that does not move."""
    array = np.zeros((10, 12, 20), dtype=np.uint8)
    array[2:6, 2:6, 2 + shift : 6 + shift] = 1
    array[4:8, 7:11, 12:16] = 7
    return array


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Arguments that compare a prediction, whose label 1 is one voxel off, with its reference."""
    return [
        "evaluate",
        "--prediction", labelmap(tmp_path / "prediction.nii.gz", blocks(shift=1)),
        "--reference", labelmap(tmp_path / "reference.nii.gz", blocks()),
    ]  # fmt: skip


def error_of(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """Run a command that must fail as all failures do, with one line, and return the line."""
    capfd.readouterr()
    assert main(arguments) == 1
    out, err = capfd.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("medsam-slicer: error: ")
    return line


def test_the_table_has_a_line_for_every_label_of_the_reference(files, capfd):
    assert main(files) == 0
    out, err = capfd.readouterr()
    header, *rows = out.splitlines()
    assert header.split() == ["label", "Dice", "surface", "Dice", "(2", "mm)", "name"]
    assert [row.split() for row in rows] == [["1", "0.750", "1.000"], ["7", "1.000", "1.000"]]
    assert err == ""


def test_the_tolerance_is_in_millimeters(files, capfd):
    assert main([*files, "--tolerance-mm", "0.5", "--label", "1"]) == 0
    header, row = capfd.readouterr().out.splitlines()
    assert "(0.5 mm)" in header
    # Below a voxel of tolerance only surface voxels of both count.
    shell = np.ones((4, 4, 4), bool)
    shell[1:3, 1:3, 1:3] = False
    a, b = np.zeros((4, 4, 5), bool), np.zeros((4, 4, 5), bool)
    a[:, :, :4], b[:, :, 1:] = shell, shell
    assert row.split() == ["1", "0.750", f"{(a & b).sum() / shell.sum():.3f}"]


def test_json_has_the_figures_of_the_table_in_a_file_or_alone_on_the_standard_output(files, tmp_path, capfd):
    target = tmp_path / "out" / "figures.json"
    assert main([*files, "--json", str(target)]) == 0
    assert "0.750" in capfd.readouterr().out
    report = json.loads(target.read_text())
    assert report == {
        "tolerance_mm": 2.0,
        "labels": [
            {"label": 1, "name": "", "dice": 0.75, "surface_dice": 1.0},
            {"label": 7, "name": "", "dice": 1.0, "surface_dice": 1.0},
        ],
    }
    assert main([*files, "--json", "-"]) == 0
    assert json.loads(capfd.readouterr().out) == report


def test_one_label_can_have_another_number_in_the_prediction(files, capfd):
    assert main([*files, "--label", "7", "--prediction-label", "1"]) == 0
    assert capfd.readouterr().out.splitlines()[1].split() == ["7", "0.000", "0.000"]


def test_a_label_that_the_prediction_lacks_counts_as_zero(files, tmp_path, capfd):
    files[2] = labelmap(tmp_path / "prediction.nii.gz", np.where(blocks() == 7, 7, 0).astype(np.uint8))
    assert main(files) == 0
    assert [row.split() for row in capfd.readouterr().out.splitlines()[1:]] == [
        ["1", "0.000", "0.000"],
        ["7", "1.000", "1.000"],
    ]


def test_the_names_of_a_segmentation_are_shown(files, tmp_path, capfd):
    files[4] = labelmap(
        tmp_path / "reference.seg.nrrd", blocks(),
        Segment0_ID="a", Segment0_Name="left kidney", Segment0_LabelValue="7", Segment0_Layer="0",
    )  # fmt: skip
    assert main([*files, "--label", "1", "--prediction-label", "7"]) == 0
    assert capfd.readouterr().out.splitlines()[1].split() == ["1", "1.000", "1.000", "left", "kidney"]


def test_files_of_different_grids_are_compared_by_place_with_a_word_about_it(files, tmp_path, capfd):
    moved = np.roll(blocks(), -1, axis=2)
    files[2] = labelmap(tmp_path / "prediction.nii.gz", moved, origin=(1.0, 0, 0))
    assert main(files) == 0
    out, err = capfd.readouterr()
    assert [row.split()[1] for row in out.splitlines()[1:]] == ["1.000", "1.000"]
    assert "different voxel grids" in err


def test_wrong_arguments_are_told_in_one_line(files, tmp_path, capfd):
    assert "-1 mm is negative" in error_of([*files, "--tolerance-mm", "-1"], capfd)
    assert "--prediction-label needs --label" in error_of([*files, "--prediction-label", "1"], capfd)
    assert "Neither file has the label 3: the reference has 1, 7" in error_of([*files, "--label", "3"], capfd)
    files[4] = labelmap(tmp_path / "empty.nrrd", np.zeros((10, 12, 20), np.uint8))
    assert "empty.nrrd has no label" in error_of(files, capfd)


@pytest.mark.parametrize("which", [2, 4], ids=["prediction", "reference"])
def test_files_that_can_not_be_compared_are_told_in_one_line_and_leave_nothing(files, tmp_path, capfd, which):
    out = tmp_path / "out"
    out.mkdir()
    bad = {
        "missing.nii.gz": None,
        "empty.nii.gz": b"",
        "cut.nii.gz": Path(files[2]).read_bytes()[:-20],
        "page.nrrd": b"<html>",
    }
    for name, content in bad.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        files[which] = str(path)
        assert name in error_of([*files, "--json", str(out / "figures.json")], capfd)
    ct = np.random.default_rng(1).normal(40, 20, (10, 12, 20)).astype(np.float32)
    files[which] = labelmap(tmp_path / "CT.nrrd", ct)
    assert "is it an image instead of a label map" in error_of([*files, "--json", str(out / "figures.json")], capfd)
    assert list(out.iterdir()) == []


def test_segments_are_compared_with_those_of_their_name_in_whatever_order_they_are(files, tmp_path, capfd):
    def named(path: str, array: np.ndarray, *names: str) -> str:
        tags = {}
        for n, (name, value) in enumerate(zip(names, (1, 7), strict=True)):
            told = {"ID": name, "Name": name, "LabelValue": str(value), "Layer": "0"}
            tags |= {f"Segment{n}_{key}": text for key, text in told.items()}
        return labelmap(tmp_path / path, array, **tags)

    turned = np.array([0, 7, 0, 0, 0, 0, 0, 1], dtype=np.uint8)[blocks()]
    files[2], files[4] = (
        named("p.seg.nrrd", turned, "liver", "spleen"),
        named("r.seg.nrrd", blocks(), "spleen", "liver"),
    )
    assert main(files) == 0
    assert [row.split() for row in capfd.readouterr().out.splitlines()[1:]] == [
        ["1", "1.000", "1.000", "spleen"],
        ["2", "1.000", "1.000", "liver"],
    ]
    # One that the prediction lacks is not another one.
    files[2] = named("p.seg.nrrd", turned, "liver", "aorta")
    assert main(files) == 0
    assert capfd.readouterr().out.splitlines()[1].split() == ["1", "0.000", "0.000", "spleen"]
