"""Commands on real weights and images: `demo`, run once, and its question before a download; `segment`."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import MedSAMSlicerLib
from MedSAMSlicerLib.cli.main import main
from MedSAMSlicerLib.volume.files import read_volume, write_labelmap
from MedSAMSlicerLib.volume.geometry import bounding_box
from MedSAMSlicerLib.volume.labels import read_labels
from MedSAMSlicerLib.volume.metrics import agreement

STRUCTURES = ["liver", "spleen", "right kidney", "left kidney", "aorta"]
# In the order of the structures.
LABELS = {"ct": [5, 1, 2, 3, 52], "mr": [5, 1, 2, 3, 23]}

WITHOUT_NETWORK = """
import socket, sys
def no_network(*args, **options):
    raise AssertionError("The demo tried to reach the network.")
socket.getaddrinfo = socket.socket.connect = no_network
from MedSAMSlicerLib.cli.main import main
sys.exit(main())
"""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def demo(lite_weights, samples, tmp_path_factory) -> tuple[Path, str]:
    """Its output folder and what it printed, on a computer without network that has weights and samples."""
    folder = tmp_path_factory.mktemp("demo") / "results"
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_NETWORK, "demo", "--output", folder],
        env=os.environ | {"PYTHONPATH": str(Path(MedSAMSlicerLib.__file__).parents[1])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


def test_it_writes_a_segmentation_and_a_picture_of_each_image_and_one_table(demo):
    folder, _ = demo
    files = ["ct.png", "ct.seg.nrrd", "demo.json", "mr.png", "mr.seg.nrrd"]
    assert sorted(each.name for each in folder.iterdir()) == files
    for name in LABELS:
        picture = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{name}.png"))).astype(int)
        assert min(picture.shape[:2]) > 400
        assert (np.ptp(picture[..., :3], axis=2) > 60).mean() > 0.05, "segments are drawn in color"


def test_the_table_has_five_structures_of_each_image_and_the_json_the_same_figures(demo):
    folder, printed = demo
    report = json.loads((folder / "demo.json").read_text())
    structures = {name: [row["structure"] for row in rows] for name, rows in report.items()}
    assert structures == dict.fromkeys(LABELS, STRUCTURES)
    lines = [line for line in printed.splitlines() if line.strip().startswith(tuple(STRUCTURES))]
    rows = [row for rows in report.values() for row in rows]
    assert [line.split()[-3:-1] for line in lines] == [
        [f"{row['dice']:.3f}", f"{row['surface_dice']:.3f}"] for row in rows
    ]
    assert [line.rsplit(maxsplit=3)[0].strip() for line in lines] == 2 * STRUCTURES
    assert all(row["seconds"] > 0 for row in rows)
    assert str(folder) in printed


@pytest.mark.parametrize("name", LABELS)
def test_its_figures_are_those_of_the_segmentations_that_it_wrote(demo, samples, tmp_path, name):
    folder, _ = demo
    experts = read_labels(samples[{"ct": "example_seg.nii.gz", "mr": "example_seg_mr.nii.gz"}[name]])
    found = read_labels(folder / f"{name}.seg.nrrd").resampled_to(experts)
    assert list(found.names.values()) == STRUCTURES
    rows = json.loads((folder / "demo.json").read_text())[name]
    for row, label, value in zip(rows, found.names, LABELS[name], strict=True):
        again = agreement(found.mask(label), experts.mask(value), experts.spacing)
        assert (row["dice"], row["surface_dice"]) == pytest.approx((again.dice, again.surface_dice), abs=1e-4)


def test_one_box_finds_the_large_organs(demo):
    report = json.loads((demo[0] / "demo.json").read_text())
    dice = {name: {row["structure"]: row["dice"] for row in rows} for name, rows in report.items()}
    assert min(dice["ct"][organ] for organ in ("liver", "spleen", "right kidney")) > 0.8
    assert dice["mr"]["liver"] > 0.7


@pytest.mark.parametrize("answer", ["n\n", "\n", "maybe\n"], ids=["n", "enter", "maybe"])
def test_who_does_not_agree_gets_nothing(home, tmp_path, monkeypatch, capsys, answer):
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert main(["demo", "--output", str(tmp_path / "results")]) == 1
    printed = capsys.readouterr().out
    assert printed.endswith("Nothing downloaded.\n")
    for fact in (str(home), "LiteMedSAM weights, 39 MB, Apache-2.0", "sample CT and MRI with labels, 38 MB"):
        assert fact in printed
    assert not home.exists()
    assert not (tmp_path / "results").exists()


def test_where_nobody_can_be_asked_nothing_is_downloaded(home, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert main(["demo", "--output", str(tmp_path / "results")]) == 2
    assert "add --yes to agree" in capsys.readouterr().err
    assert not home.exists()
    assert not (tmp_path / "results").exists()


def test_an_output_that_is_a_file_is_told_in_one_line(lite_weights, samples, tmp_path, capsys):
    (tmp_path / "results").touch()
    assert main(["demo", "--output", str(tmp_path / "results")]) == 1
    told = f"The output folder {tmp_path / 'results'} can't be written to (Not a directory): give another one."
    assert capsys.readouterr().err == f"medsam-slicer: error: {told}\n"


def test_three_slices_of_a_real_kidney_are_found_in_a_real_ct(lite_weights, samples, tmp_path, capfd):
    expert = read_volume(samples["example_seg.nii.gz"])
    slices = np.zeros_like(expert.voxels)
    slices[10:13] = expert.voxels[10:13]
    first, last = bounding_box(slices == 3)
    write_labelmap(tmp_path / "expert.nrrd", slices, expert.ijk_to_ras)
    ct, path = str(samples["example_ct_sm.nii.gz"]), str(tmp_path / "kidney.seg.nrrd")
    box = [str(number) for number in (*first, *last)]
    assert main(["segment", "--volume", ct, "--output", path, "--box", *box, "--window", "abdomen"]) == 0
    evaluate = ["evaluate", "--prediction", path, "--reference", str(tmp_path / "expert.nrrd"), "--json", "-"]
    capfd.readouterr()
    assert main([*evaluate, "--label", "3", "--prediction-label", "1"]) == 0
    (row,) = json.loads(capfd.readouterr().out)["labels"]
    assert row["dice"] > 0.85
    assert row["surface_dice"] > 0.85
