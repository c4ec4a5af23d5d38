"""The command `segment`: one line about all that can go wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from MedSAMSlicerLib.volume.files import write_labelmap

LIVER = ("5", "6", "2", "20", "15", "7")


def refusal(error_of: Callable[..., str], volume: Path, out: Path, *more: str | Path) -> str:
    targets = ("--output", out / "o.seg.nrrd", "--snapshot", out / "o.png", "--json", out / "o.json")
    return error_of(["segment", "--volume", volume, *targets, *more])


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("none.nrrd", None, "does not exist"),
        ("empty.nii.gz", b"", "is empty"),
        ("page.nrrd", b"<!DOCTYPE html><html></html>", "can't be read as an image"),
        ("notes.txt", b"liver", "can't be read as an image"),
    ],
)
def test_a_file_that_is_no_volume_is_named(error_of, out, tmp_path, name, content, text):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    line = refusal(error_of, tmp_path / name, out, "--box", *LIVER)
    assert name in line
    assert text in line


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd"])
def test_a_truncated_volume_is_named(error_of, a_ct, out, tmp_path, ending):
    path = tmp_path / f"cut{ending}"
    write_labelmap(path, a_ct, np.eye(4))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert f"cut{ending}" in refusal(error_of, path, out, "--box", *LIVER)


def test_a_folder_without_dicom_is_named(error_of, out, tmp_path):
    assert "holds no DICOM series" in refusal(error_of, tmp_path, out, "--box", *LIVER)


def test_four_dimensions_are_refused(error_of, a_ct, out, tmp_path):
    volume = sitk.GetImageFromArray(a_ct)
    sitk.WriteImage(sitk.JoinSeries([volume, volume, volume]), str(tmp_path / "fmri.nii.gz"))
    assert "30 x 24 x 10 x 3" in refusal(error_of, tmp_path / "fmri.nii.gz", out, "--box", *LIVER)


def test_a_constant_volume_is_refused(error_of, out, tmp_path):
    write_labelmap(tmp_path / "CT.nrrd", np.full((10, 24, 30), -1000, np.int16), np.eye(4))
    line = refusal(error_of, tmp_path / "CT.nrrd", out, "--box", *LIVER)
    assert "All voxels of the volume have the same value, -1000" in line


@pytest.mark.parametrize(
    ("box", "text"),
    [
        (("30", "6", "2", "35", "15", "7"), "lies outside of the volume, which has 30 x 24 x 10 voxels"),
        (("-9", "6", "2", "-1", "15", "7"), "lies outside of the volume"),
        (("5", "6", "10", "20", "15", "12"), "lies outside of the volume"),
        (("20", "6", "2", "5", "15", "7"), "is inverted: give the first voxel, then the last one"),
        (("5", "6", "7", "20", "15", "2"), "is inverted"),
        (("5", "6", "2", "20", "15"), "takes six numbers for every box, I0 J0 K0 I1 J1 K1, but 5 were given"),
        ((*LIVER, "1"), "but 7 were given"),
    ],
)
def test_a_box_that_can_not_be_is_told_with_its_numbers(error_of, simple_ct_file, out, tiny_file, box, text):
    line = refusal(error_of, simple_ct_file, out, "--box", *box, "--model", tiny_file)
    assert text in line
    if len(box) == 6:
        assert " ".join(box) in line


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, "does not exist"), ("<html>", "is not a markups file"), ('{"markups": []}', "holds nothing")],
)
def test_an_roi_file_that_holds_none_is_named(error_of, simple_ct_file, out, tmp_path, content, text):
    path = tmp_path / "R.mrk.json"
    if content is not None:
        path.write_text(content)
    assert text in refusal(error_of, simple_ct_file, out, "--roi", path)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--window", "liver"), "The window 'liver' is unknown"),
        (("--window", "2000/10"), "all look the same in the window 2000/10"),
        (("--name", "a", "b"), "There are 2 names for 1 boxes"),
        (("--model", "litemedsam"), "The model 'litemedsam' is unknown: give one of lite"),
        (("--model", "none.pth"), "The model 'none.pth' is unknown"),
        (("--output", "o.stl"), "must end with .seg.nrrd or .nii.gz or"),
        (("--snapshot", "o.jpg"), "must end with .png"),
    ],
)
def test_an_option_that_can_not_be_is_told_with_the_choices(error_of, simple_ct_file, out, options, text):
    assert text in refusal(error_of, simple_ct_file, out, "--box", *LIVER, *options)


def test_weights_of_another_network_and_a_web_page_are_told(error_of, simple_ct_file, out, tmp_path):
    other, page = tmp_path / "resnet.pth", tmp_path / "medsam_vit_b.pth"
    torch.save(torch.nn.Linear(3, 4).state_dict(), other)
    page.write_text("<!DOCTYPE html><html>Google Drive can't scan this file</html>")
    assert "resnet.pth is a state dict of another model" in refusal(
        error_of, simple_ct_file, out, "--box", *LIVER, "--model", other
    )
    assert "is an HTML page" in refusal(error_of, simple_ct_file, out, "--box", *LIVER, "--model", page)


def test_without_weights_and_network_the_way_to_get_them_is_told(error_of, home, simple_ct_file, out):
    line = refusal(error_of, simple_ct_file, out, "--box", *LIVER)
    assert "'lite' (LiteMedSAM) are absent" in line
    assert "medsam-slicer models fetch lite" in line


def test_damaged_weights_are_refused(error_of, home, simple_ct_file, out, lite_weights):
    damaged = home / "weights" / lite_weights.name
    damaged.parent.mkdir(parents=True)
    with damaged.open("wb") as file:
        file.truncate(lite_weights.stat().st_size)
    line = refusal(error_of, simple_ct_file, out, "--box", *LIVER)
    assert "'lite' (LiteMedSAM) are damaged" in line
    assert "medsam-slicer models fetch lite" in line
