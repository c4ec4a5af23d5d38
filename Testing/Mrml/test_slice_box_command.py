"""The command `segment --slice-box`: a structure is followed from a box on one slice until it ends."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from MedSAMSlicerLib.cli.main import main
from MedSAMSlicerLib.volume.files import read_volume, write_labelmap
from MedSAMSlicerLib.volume.labels import read_labels

LIVER_VOXELS = np.s_[2:8, 6:16, 5:21]


def segment(volume: Path, output: Path, *more: object) -> int:
    return main(["segment", "--volume", str(volume), "--output", str(output), *map(str, more)])


def refusal(capsys: pytest.CaptureFixture[str], volume: Path, output: Path, *more: object) -> str:
    """Run a command that must fail, and return its one line of error."""
    capsys.readouterr()
    assert segment(volume, output, *more) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert not output.exists()
    return line


@pytest.fixture
def bright_file(a_ct: np.ndarray, ijk_to_ras: np.ndarray, tmp_path: Path) -> Path:
    """A CT in which the liver is bright, so that it can be seen where it ends."""
    a_ct[LIVER_VOXELS] += 500
    path = tmp_path / "bright.nrrd"
    write_labelmap(path, a_ct, ijk_to_ras)
    return path


def test_the_structure_is_followed_until_it_ends(bright_file, predictor, out):
    report = out / "out.json"
    arguments = ("--slice-box", 4, 5, 6, 20, 15, "--name", "liver", "--axis", "k", "--json", report)
    assert segment(bright_file, out / "out.seg.nrrd", *arguments) == 0
    labels = read_labels(out / "out.seg.nrrd")
    assert labels.names == {1: "liver"}
    liver = labels.mask(1)
    assert np.flatnonzero(liver.any(axis=(1, 2))).tolist() == list(range(2, 8))
    expected = np.zeros((24, 30), dtype=bool)
    expected[LIVER_VOXELS[1:]] = True
    np.testing.assert_array_equal(liver[4], expected)
    (figures,) = json.loads(report.read_text())["segments"]
    assert (figures["fragments_dropped"], figures["open_ends"]) == (0, [])


def test_a_limit_ends_it_before_and_an_open_end_is_told(ct_file, predictor, out, capsys):
    boxes = ("--slice-box", 4, 5, 6, 20, 15, 5, 22, 17, 28, 22, "--axis", "k")
    assert segment(ct_file, out / "open.nrrd", *boxes, "--json", out / "open.json") == 0
    error = capsys.readouterr().err
    assert "Segment_2: It was followed to the first and the last slice of the volume" in error
    assert "CT 1 slices" in error, "how many there will be is not known yet"
    assert [each["open_ends"] for each in json.loads((out / "open.json").read_text())["segments"]] == [[0, 9]] * 2
    thickness = read_volume(ct_file).spacing[2]
    assert segment(ct_file, out / "limited.nrrd", *boxes, "--limit", thickness) == 0
    assert "followed" not in capsys.readouterr().err
    labels = read_labels(out / "limited.nrrd")
    assert np.flatnonzero(labels.mask(1).any(axis=(1, 2))).tolist() == [3, 4, 5]
    assert np.flatnonzero(labels.mask(2).any(axis=(1, 2))).tolist() == [4, 5, 6]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--slice-box", 10, 5, 6, 20, 15), "no slice 10 along axis K: the volume has 10 slices"),
        (("--slice-box", 4, 50, 6, 60, 15), "'Segment_1' lies outside of the volume"),
        (("--slice-box", 4, 5, 6, 5, 6), "is a single pixel"),
        (("--slice-box", 4, 20, 6, 5, 15), "is inverted"),
        (("--slice-box", 4, 5, 6, 20), "takes five numbers for every box"),
        (("--slice-box", 4, 5, 6, 20, 15, "--limit", -1), "The limit is -1.0 mm"),
        (("--slice-box", 4, 5, 6, 20, 15, "--propagation", "reference"), "can't follow a box on one slice"),
        (("--slice-box", 4, 5, 6, 20, 15, "--name", "a", "b"), "2 names for 1 boxes"),
    ],
)
def test_what_is_no_box_on_a_slice_is_refused(ct_file, predictor, out, capsys, arguments, told):
    assert told in refusal(capsys, ct_file, out / "out.nrrd", "--axis", "k", *arguments)
    assert predictor.encoded == []


def test_nothing_in_the_slice_is_told_and_nothing_is_written(ct_file, predictor, out, capsys, monkeypatch):
    decode = predictor.decode

    def nothing(*arguments):
        filled = decode(*arguments)
        filled.probabilities[:] = 0
        return filled

    monkeypatch.setattr(predictor, "decode", nothing)
    line = refusal(capsys, ct_file, out / "out.nrrd", "--axis", "k", "--slice-box", 4, 5, 6, 20, 15)
    assert "Nothing was found in the box" in line


def test_a_limit_for_a_box_with_ends_is_wrong_usage(ct_file, out, capsys):
    with pytest.raises(SystemExit, match="2"):
        segment(ct_file, out / "out.nrrd", "--box", 5, 6, 2, 20, 15, 7, "--limit", 20)
    assert "--limit says how far a structure is followed from a --slice-box" in capsys.readouterr().err


def test_a_table_takes_slice_boxes_and_limits(bright_file, predictor, out, capsys):
    row = {"volume": "bright.nrrd", "slice_box": "4 5 6 20 15", "axis": "k", "limit": ""}
    thickness = read_volume(bright_file).spacing[2]
    rows = [
        {**row, "output": "out/whole.nrrd"},
        {**row, "output": "out/part.nrrd", "limit": str(thickness)},
        {**row, "output": "out/wrong.nrrd", "limit": "far"},
        {**row, "output": "out/short.nrrd", "slice_box": "4 5 6"},
        {**row, "output": "out/ends.nrrd", "slice_box": "", "box": "5 6 2 20 15 7", "limit": "20"},
    ]
    table = bright_file.parent / "table.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, sorted(rows[-1]))
        writer.writeheader()
        writer.writerows(rows)
    assert main(["segment", "--batch", str(table)]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["state"] for line in lines] == ["done", "done", "failed", "failed", "failed"]
    assert "The limit 'far' of row 3 must be one number, in millimeters" in lines[2]["error"]
    assert "takes five numbers for every box" in lines[3]["error"]
    assert "Row 5 has a limit, which is for a slice_box" in lines[4]["error"]
    slices = [
        np.flatnonzero(read_labels(out / name).mask(1).any(axis=(1, 2))).tolist()
        for name in ("whole.nrrd", "part.nrrd")
    ]
    assert slices == [[2, 3, 4, 5, 6, 7], [3, 4, 5]]
