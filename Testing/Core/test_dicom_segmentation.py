"""DICOM segmentations of a real MRI, written with pydicom as other programs do, and read into the voxels of the MRI."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from Core.dicom_writer import PATIENT, write_segmentation, write_series
from geometries import GEOMETRIES
from MedSAMSlicerLib.cli.main import main
from MedSAMSlicerLib.dataset.site import SiteDataset
from MedSAMSlicerLib.volume.dicom_segmentation import read_dicom_segmentation
from MedSAMSlicerLib.volume.files import FileError, Volume, read_volume
from MedSAMSlicerLib.volume.labels import read_labels

ORGANS = {"liver": 5, "spleen": 1, "left kidney": 3}


@pytest.fixture
def mri(samples: dict[str, Path]) -> Volume:
    return read_volume(samples["example_mr_sm.nii.gz"])


@pytest.fixture
def masks(samples: dict[str, Path]) -> dict[str, np.ndarray]:
    """The organs that experts have drawn in the MRI, and a segment that overlaps two of them."""
    labels = read_labels(samples["example_seg_mr.nii.gz"])
    masks = {name: labels.mask(value) for name, value in ORGANS.items()}
    assert all(mask.any() for mask in masks.values())
    masks["abdomen"] = np.zeros_like(masks["liver"])
    masks["abdomen"][4:9, 20:70, 30:90] = True
    assert (masks["abdomen"] & masks["liver"]).any()
    return masks


def assert_read(path: Path, volume: Volume, masks: dict[str, np.ndarray]) -> None:
    """Check that a file holds exactly these masks, in this order."""
    segments = read_dicom_segmentation(path, volume)
    assert [(segment.number, segment.name) for segment in segments] == list(enumerate(masks, start=1))
    for segment in segments:
        np.testing.assert_array_equal(segment.mask, masks[segment.name])


def turned(
    mask: np.ndarray, ijk_to_ras: np.ndarray, axes: tuple[int, int, int], flips: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Store the same voxels in another order: axes (of K, J, I) in another one, then some of them reversed."""
    matrix = ijk_to_ras.copy()
    matrix[:, :3] = ijk_to_ras[:, [2 - axis for axis in axes[::-1]]]
    mask = mask.transpose(axes)
    for axis in flips:
        matrix[:, 3] += matrix[:, 2 - axis] * (mask.shape[axis] - 1)
        matrix[:, 2 - axis] *= -1
    return np.flip(mask, flips), matrix


@pytest.mark.parametrize("geometry", ["its own", "oblique anisotropic", "sagittal acquisition"])
def test_what_experts_have_drawn_comes_back_on_the_series(mri, masks, tmp_path, geometry):
    ijk_to_ras = GEOMETRIES.get(geometry, mri.ijk_to_ras)
    write_series(tmp_path / "mri", mri.voxels, ijk_to_ras)
    series = read_volume(tmp_path / "mri")
    np.testing.assert_array_equal(series.voxels, mri.voxels)
    assert_read(write_segmentation(tmp_path / "expert.dcm", masks, ijk_to_ras), series, masks)


@pytest.mark.parametrize(
    ("axes", "flips"),
    [((0, 1, 2), (0,)), ((0, 1, 2), (1, 2)), ((0, 2, 1), (2,)), ((1, 0, 2), (0, 1)), ((2, 1, 0), ())],
    ids=["upwards", "rotated", "columns and rows exchanged", "coronal frames", "sagittal frames"],
)
def test_frames_may_be_turned_against_the_image(mri, masks, tmp_path, axes, flips):
    volume = Volume(mri.voxels, GEOMETRIES["oblique anisotropic"], "MRI")
    stored = {name: turned(mask, volume.ijk_to_ras, axes, flips) for name, mask in masks.items()}
    ijk_to_ras = stored["liver"][1]
    path = write_segmentation(tmp_path / "expert.dcm", {name: mask for name, (mask, _) in stored.items()}, ijk_to_ras)
    assert_read(path, volume, masks)


@pytest.mark.parametrize("shared", [(), ("PixelMeasuresSequence",)], ids=["nothing", "pixel measures"])
def test_slices_without_a_frame_are_empty_whatever_all_frames_share(mri, masks, tmp_path, shared):
    kept = {name: mask.copy() for name, mask in masks.items()}
    for mask in kept.values():
        mask[[5, 6, 11]] = False
    path = write_segmentation(tmp_path / "expert.dcm", kept, mri.ijk_to_ras, shared=shared)
    assert_read(path, mri, kept)


def test_one_frame_whose_place_is_told_for_all_frames_is_read(mri, masks, tmp_path):
    kept = {"liver": np.zeros_like(masks["liver"])}
    kept["liver"][0] = masks["liver"].any(axis=0)
    names = ("PixelMeasuresSequence", "PlaneOrientationSequence", "PlanePositionSequence")
    assert_read(write_segmentation(tmp_path / "one.dcm", kept, mri.ijk_to_ras, shared=names), mri, kept)


@pytest.mark.parametrize("maximum", [1, 100, 255])
def test_fractions_count_from_one_half_of_their_maximum(mri, masks, tmp_path, maximum):
    half = -(-maximum // 2)
    fractions = {name: np.where(mask, half, half - 1) for name, mask in masks.items()}
    fractions["spleen"][masks["spleen"]] = maximum
    assert_read(write_segmentation(tmp_path / "expert.dcm", fractions, mri.ijk_to_ras, maximum=maximum), mri, masks)


def test_fractions_of_nothing_are_refused(mri, masks, tmp_path):
    """Else all pixels of the frames would count as drawn."""

    def change(file):
        file.MaximumFractionalValue = 0

    path = write_segmentation(tmp_path / "expert.dcm", masks, mri.ijk_to_ras, maximum=255, change=change)
    with pytest.raises(FileError, match=r"expert\.dcm is damaged .*its maximum of fractions is 0"):
        read_dicom_segmentation(path, mri)


def test_a_segment_without_frames_is_empty(mri, masks, tmp_path):
    drawn = {"liver": masks["liver"], "stomach": np.zeros_like(masks["liver"])}
    assert_read(write_segmentation(tmp_path / "expert.dcm", drawn, mri.ijk_to_ras), mri, drawn)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (np.diag([0.5, 0.5, 1, 1]), r"117 x 91 pixels of 1.5 x 1.5 mm .* which measure 3 x 3 x 3 mm. Give the series"),
        (np.diag([1.01, 1, 1, 1]), r"117 x 91 pixels of 3.03 x 3 mm and lies up to 1.2 voxels beside"),
        (np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0.5], [0, 0, 0, 1]]), r"lies up to 0.5 voxels beside"),
        (np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 9], [0, 0, 0, 1]]), r"'liver' reaches out .* \(along K, in"),
    ],
    ids=["other pixels", "pixels of another size", "between the slices", "other slices"],
)
def test_a_segmentation_of_another_grid_is_refused_with_the_difference(mri, masks, tmp_path, change, text):
    path = write_segmentation(tmp_path / "expert.dcm", {"liver": masks["liver"]}, mri.ijk_to_ras @ change)
    with pytest.raises(FileError, match=text):
        read_dicom_segmentation(path, mri)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda file: file.pop("PerFrameFunctionalGroupsSequence"), "damaged or incomplete .*PerFrame"),
        (lambda file: file.pop("SharedFunctionalGroupsSequence"), r"incomplete \(a frame has no PixelMeasuresSequence"),
        (lambda file: setattr(file, "NumberOfFrames", 99), "damaged or incomplete"),
        (lambda file: setattr(file, "SegmentSequence", file.SegmentSequence[:1]), "damaged or incomplete"),
        (lambda file: setattr(file, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.481.3"), "'RT Structure Set Storage'"),
    ],
    ids=["no places", "no spacing", "other number of frames", "unknown segment", "another kind"],
)
def test_what_is_missing_in_a_file_is_told(mri, masks, tmp_path, change, text):
    path = write_segmentation(tmp_path / "expert.dcm", masks, mri.ijk_to_ras, change=change)
    with pytest.raises(FileError, match=rf"expert\.dcm .*{text}"):
        read_dicom_segmentation(path, mri)


def test_a_file_that_is_cut_off_is_told(mri, masks, tmp_path):
    path = write_segmentation(tmp_path / "expert.dcm", masks, mri.ijk_to_ras)
    whole = path.read_bytes()
    for size in (200, 3000, len(whole) - 500):
        path.write_bytes(whole[:size])
        with pytest.raises(FileError, match=r"expert\.dcm "):
            read_dicom_segmentation(path, mri)


def test_without_pydicom_it_is_told_what_reads_the_file(mri, masks, tmp_path, monkeypatch, capfd):
    write_series(tmp_path / "files" / "a" / "mri", mri.voxels, mri.ijk_to_ras)
    write_segmentation(tmp_path / "files" / "a" / "expert.dcm", masks, mri.ijk_to_ras)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    add = ["dataset", "add", "--data", str(tmp_path / "site"), "--images", str(tmp_path / "files")]
    assert main([*add, "--image-pattern", "{case}/mri", "--label-pattern", "{case}/expert.dcm"]) == 1
    assert "which pydicom reads: run pip install pydicom (Slicer has it)" in capfd.readouterr().err


def test_series_with_segmentations_become_cases_without_the_patients_name(mri, masks, tmp_path, capfd):
    files = tmp_path / "files"
    for case, geometry in enumerate(("oblique anisotropic", "sagittal acquisition")):
        write_series(files / f"{case}" / "mri", mri.voxels + case, GEOMETRIES[geometry])
        drawn = masks | {"stomach": np.zeros_like(masks["liver"])}
        # As archives give it: a series in a folder of its own.
        write_segmentation(files / f"{case}" / "seg" / "1-1.dcm", drawn, GEOMETRIES[geometry])
    site = tmp_path / "site"
    add = ["dataset", "add", "--data", str(site), "--images", str(files), "--name", "1=Leber"]
    assert main([*add, "--image-pattern", "{case}/mri", "--label-pattern", "{case}/seg"]) == 1
    out, err = capfd.readouterr()
    assert "Added 2 of 2 pairs" in out
    assert err.count("left out, as nothing is drawn in it: stomach") == 2
    dataset = SiteDataset.open(site)
    for case in dataset.cases:
        assert (case.source, case.labels) == ("DICOM", ("Leber", "spleen", "left kidney", "abdomen"))
        loaded = dataset.load(case)
        for name, mask in masks.items():
            np.testing.assert_array_equal(loaded.labels["Leber" if name == "liver" else name], mask)
    written = b"".join(path.read_bytes() for path in site.rglob("*") if path.is_file())
    assert PATIENT.encode() not in written
    assert b"4711" not in written
    shutil.copy(files / "1" / "seg" / "1-1.dcm", files / "1" / "seg" / "1-2.dcm")
    with pytest.raises(FileError, match="holds 2 DICOM files: give the file of the segmentation"):
        read_dicom_segmentation(files / "1" / "seg", mri)
