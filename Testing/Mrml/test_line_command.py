"""The command `segment --line`: a lesion is followed from its measured diameter until it ends."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import slicer

from box_predictor import BoxPredictor
from MedSAMSlicerLib import loading
from MedSAMSlicerLib.cli.main import main
from MedSAMSlicerLib.headless.scene import HeadlessScene
from MedSAMSlicerLib.volume.files import write_labelmap
from MedSAMSlicerLib.volume.labels import read_labels

LESION = np.s_[2:8, 6:16, 5:21]


@pytest.fixture
def ct_file(a_ct: np.ndarray, ijk_to_ras: np.ndarray, tmp_path: Path) -> Path:
    """A CT with a bright lesion, so that it can be seen where it ends."""
    a_ct[LESION] += 500
    path = tmp_path / "CT.nrrd"
    write_labelmap(path, a_ct, ijk_to_ras)
    return path


@pytest.fixture
def segment(ct_file: Path, a_box_predictor: BoxPredictor, monkeypatch: pytest.MonkeyPatch, out: Path):
    """Run the command on the CT, with exact masks in place of every model."""
    a_box_predictor.device = "cpu"
    monkeypatch.setattr(loading, "load_predictor", lambda model, device: a_box_predictor)
    target = ("--volume", ct_file, "--output", out / "out.seg.nrrd")
    return lambda *arguments: main(["segment", *map(str, (*target, *arguments))])


@pytest.fixture
def save_line(ijk_to_ras: np.ndarray, tmp_path: Path):
    """Save a line between two voxels (IJK) as Slicer does."""

    def save(name: str, *ends: tuple[float, float, float]) -> Path:
        scene, path = HeadlessScene().scene, tmp_path / f"{name}.mrk.json"
        line = scene.AddNewNodeByClass("vtkMRMLMarkupsLineNode")
        for ijk in ends:
            line.AddControlPointWorld(*(ijk_to_ras @ [*ijk, 1.0])[:3])
        storage = slicer.vtkMRMLMarkupsJsonStorageNode()
        scene.AddNode(storage)
        storage.SetFileName(str(path))
        assert storage.WriteData(line)
        return path

    return save


def test_two_lines_that_cross_are_one_lesion_named_after_the_long_one(segment, save_line, out):
    lines = save_line("across", (12, 6, 4), (12, 15, 4)), save_line("segment 4", (5, 10.5, 4), (20, 10.5, 4))
    assert segment("--line", *lines, "--axis", "k") == 0
    labels = read_labels(out / "out.seg.nrrd")
    (name,) = labels.names.values()
    assert name in ("segment 4", "across")
    lesion = labels.mask(1)
    assert np.flatnonzero(lesion.any(axis=(1, 2))).tolist() == list(range(2, 8))
    expected = np.zeros((24, 30), dtype=bool)
    expected[LESION[1:]] = True
    np.testing.assert_array_equal(lesion[4], expected)


def test_names_and_a_limit_hold_for_lines(segment, save_line, out):
    lines = save_line("one", (5, 10, 4), (20, 10, 4)), save_line("two", (22, 18, 5), (28, 18, 5))
    assert segment("--line", *lines, "--name", "liver lesion", "--limit", "0.1") == 0
    labels = read_labels(out / "out.seg.nrrd")
    assert list(labels.names.values()) == ["liver lesion", "two"]
    assert np.flatnonzero(labels.mask(1).any(axis=(1, 2))).tolist() == [4]


def test_a_table_has_a_column_for_lines_and_a_row_is_made_again_when_a_line_was_moved(
    ct_file, segment, save_line, out, capsys
):
    save_line("a", (5, 10.5, 4), (20, 10.5, 4))
    save_line("b", (22, 18, 5), (28, 18, 5))
    table = ct_file.parent / "table.csv"
    table.write_text(
        "volume,line,name,limit,output\n"
        f"CT.nrrd,a.mrk.json; b.mrk.json,one; two,0.1,{out}/1.seg.nrrd\n"
        f"CT.nrrd,none.mrk.json,,,{out}/2.seg.nrrd\n"
    )

    def states() -> list[str]:
        capsys.readouterr()
        main(["segment", "--batch", str(table)])
        return [json.loads(line)["state"] for line in capsys.readouterr().out.splitlines()]

    assert states() == ["done", "failed"]
    labels = read_labels(out / "1.seg.nrrd")
    assert list(labels.names.values()) == ["one", "two"]
    assert np.flatnonzero(labels.mask(1).any(axis=(1, 2))).tolist() == [4]
    assert states() == ["skipped", "failed"]
    save_line("a", (5, 10.5, 6), (20, 10.5, 6))
    assert states() == ["done", "failed"]
    assert np.flatnonzero(read_labels(out / "1.seg.nrrd").mask(1).any(axis=(1, 2))).tolist() == [6]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "L.mrk.json does not exist"),
        ("<html>", "L.mrk.json is not a markups file of Slicer: save the Line as .mrk.json"),
        ('{"markups": [{"type": "ROI"}]}', "L.mrk.json holds ROI, not one Line"),
        ('{"markups": [{"type": "Line"}]}', "can't read the Line in"),
    ],
)
def test_what_is_no_line_is_refused_by_its_file(segment, tmp_path, out, capfd, content, told):
    path = tmp_path / "L.mrk.json"
    if content is not None:
        path.write_text(content)
    assert segment("--line", path) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert told in line
    assert not (out / "out.seg.nrrd").exists()


def test_more_names_than_lesions_are_refused(segment, save_line, capsys):
    lines = save_line("a", (5, 10.5, 4), (20, 10.5, 4)), save_line("b", (12, 6, 4), (12, 15, 4))
    assert segment("--line", *lines, "--name", "one", "two") == 1
    assert "There are 2 names for 1 lesions" in capsys.readouterr().err
