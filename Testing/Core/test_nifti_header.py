"""What the header of a NIfTI file says of its voxels and their place, and headers that can't be believed."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from MedSAMSlicerLib.volume.files import FileError, read_volume, write_labelmap


@pytest.mark.parametrize("endian", ["little", "big"])
def test_nifti_files_of_other_programs_are_whole(tmp_path, a_ct, endian):
    """A header before the voxels that is longer than needed, in either byte order, plain under a compressed name."""
    order = {"little": "<", "big": ">"}[endian]
    header = bytearray(400)
    struct.pack_into(f"{order}i", header, 0, 348)
    struct.pack_into(f"{order}8h", header, 40, 3, 30, 24, 10, 1, 1, 1, 1)
    struct.pack_into(f"{order}2h", header, 70, 4, 16)
    struct.pack_into(f"{order}8f", header, 76, 1, 1, 1, 1, 1, 1, 1, 1)
    struct.pack_into(f"{order}f", header, 108, 400)
    header[344:348] = b"n+1\0"
    path = tmp_path / "CT.nii.gz"
    path.write_bytes(bytes(header) + a_ct.astype(f"{order}i2").tobytes())
    np.testing.assert_array_equal(read_volume(path).voxels, a_ct)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(FileError, match=r"CT\.nii\.gz is cut off: it has 14798 of 14800 bytes"):
        read_volume(path)


def change_nifti(path: Path, at: int, form: str, *values: float) -> None:
    header = bytearray(path.read_bytes())
    struct.pack_into(f"<{form}", header, at, *values)
    path.write_bytes(header)


@pytest.fixture
def nifti(a_ct: np.ndarray, tmp_path: Path) -> Path:
    path = tmp_path / "CT.nii"
    write_labelmap(path, a_ct, np.diag([-0.8, -0.8, 3.0, 1]))
    return path


S_FORM, S_CODE, Q_CODE, Q_FORM, VOX_OFFSET = 280, 254, 252, 256, 108
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ([(S_FORM, "f", NAN)], r"is damaged: its place in space \(sform\) is \[nan, "),
        ([(S_FORM + 12, "f", INF)], r"is damaged: its place in space \(sform\) is "),
        ([(S_FORM, "12f", *[0] * 12)], r"is damaged: its place in space \(sform\) is \[0\.0, "),
        ([(S_CODE, "h", 0), (Q_FORM, "f", NAN)], r"is damaged: its place in space \(qform\) is \[nan, "),
        ([(S_FORM + 24, "f", 0.9)], "has voxels that are sheared, or of another size in its sform than beside it"),
        ([(S_FORM + 24, "f", 0.9), (Q_CODE, "h", 0)], "has voxels that are sheared"),
        ([(S_FORM, "f", -1.6)], "of another size in its sform than beside it"),
        ([(VOX_OFFSET, "f", INF)], r"is damaged: its voxels begin at byte inf of 14752 \(vox_offset\)"),
        ([(VOX_OFFSET, "f", NAN)], r"is damaged: its voxels begin at byte nan of 14752 \(vox_offset\)"),
        ([(VOX_OFFSET, "f", -352)], "is damaged: its voxels begin at byte -352"),
    ],
)
def test_a_nifti_file_without_one_valid_place_is_refused_in_one_line(nifti, capfd, changes, text):
    for change in changes:
        change_nifti(nifti, *change)
    with pytest.raises(FileError, match=text) as refused:
        read_volume(nifti)
    assert str(refused.value).startswith(str(nifti))
    assert "\n" not in str(refused.value)
    assert capfd.readouterr() == ("", "")


def test_a_rounded_sform_and_an_unused_damaged_qform_do_not_matter(nifti, a_ct):
    change_nifti(nifti, S_FORM + 8, "f", 0.0003)
    change_nifti(nifti, Q_FORM, "f", NAN)
    change_nifti(nifti, Q_CODE, "h", 0)
    change_nifti(nifti, S_FORM + 8, "f", 0)
    np.testing.assert_array_equal(read_volume(nifti).voxels, a_ct)
