"""DICOM series with what scanners, archives and broken copies make of them: read exactly right, or refused by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    RLELossless,
    RTDoseStorage,
    RTStructureSetStorage,
    generate_uid,
)

from Core.dicom_writer import write_enhanced, write_series
from geometries import GEOMETRIES, affine, rotation
from MedSAMSlicerLib.volume.files import FileError, Volume, read_volume

UPRIGHT = affine(np.diag([-1.0, -1.0, 1.0]), (0.8, 0.7, 2.5), (20.0, 30.0, -40.0))
TILT = np.array([[1, 0, 0], [0, 1, np.tan(np.deg2rad(20))], [0, 0, 1]])
TILTED = affine(np.diag([-1.0, -1.0, 1.0]) @ TILT, (0.8, 0.7, 5.0), (20.0, 30.0, -40.0))
TURNED_AND_TILTED = affine(rotation(12, -25, 40) @ TILT, (0.8, 0.7, 5.0), (20.0, 30.0, -40.0))


@pytest.fixture(autouse=True)
def nothing_printed(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """What is wrong is told by the error alone."""
    yield
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def voxels(a_ct: np.ndarray) -> np.ndarray:
    return a_ct[:8]


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[..., str]:
    """Read a series that must be refused, by its folder; return the one sentence or two that say why."""

    def read(path: Path = tmp_path) -> str:
        with pytest.raises(FileError) as refused:
            read_volume(path)
        assert "\n" not in str(refused.value)
        return str(refused.value)

    return read


def assert_volume(volume: Volume, voxels: np.ndarray, ijk_to_ras: np.ndarray) -> None:
    np.testing.assert_array_equal(volume.voxels, voxels)
    np.testing.assert_allclose(volume.ijk_to_ras, ijk_to_ras, atol=1e-4)


# Tilted gantries


@pytest.mark.parametrize("ijk_to_ras", [TILTED, TURNED_AND_TILTED], ids=["tilted", "turned and tilted"])
@pytest.mark.parametrize("form", ["slices", "frames"])
def test_slices_of_a_tilted_gantry_are_a_sheared_volume(voxels, ijk_to_ras, form, tmp_path):
    if form == "slices":
        write_series(tmp_path, voxels, ijk_to_ras)
    else:
        write_enhanced(tmp_path / "ct.dcm", voxels, ijk_to_ras)
    volume = read_volume(tmp_path)
    assert_volume(volume, voxels, ijk_to_ras)
    assert np.linalg.det(volume.ijk_to_ras) == pytest.approx(0.8 * 0.7 * 5.0)


def test_positions_that_are_rounded_do_not_shear_a_volume(voxels, tmp_path):
    def rounded(image: Dataset, k: int) -> None:
        x, y, z = image.ImagePositionPatient
        image.ImagePositionPatient = [x + (0.0005, -0.0005)[k % 2], y, round(z, 2)]

    write_series(tmp_path, voxels, UPRIGHT, change=rounded)
    axes = read_volume(tmp_path).ijk_to_ras[:3, :3]
    np.testing.assert_allclose(axes.T @ axes, np.diag([0.8, 0.7, 2.5]) ** 2, atol=1e-9)


@pytest.mark.parametrize("wrong", [0, 3, 7])
def test_a_slice_that_is_shifted_in_its_plane_is_named(voxels, wrong, refusal, tmp_path):
    def shifted(image: Dataset, k: int) -> None:
        if k == wrong:
            image.ImagePositionPatient[0] += 30

    paths = write_series(tmp_path, voxels, UPRIGHT, change=shifted)
    text = refusal()
    assert f"is no regular stack: {paths[wrong].name} lies 30 mm beside the line through the other slices" in text


def test_slices_along_a_curve_are_refused(voxels, refusal, tmp_path):
    def bent(image: Dataset, k: int) -> None:
        image.ImagePositionPatient[1] += 0.05 * k * k

    write_series(tmp_path, voxels, UPRIGHT, change=bent)
    assert "is no regular stack" in refusal()


# Frames in one file


def test_frames_in_any_order_are_put_where_they_lie(voxels, tmp_path):
    places = [3, 0, 7, 1, 6, 2, 5, 4]
    write_enhanced(tmp_path / "ct.dcm", voxels[places], UPRIGHT, places=places)
    assert_volume(read_volume(tmp_path / "ct.dcm"), voxels, UPRIGHT)


@pytest.mark.parametrize(
    "options",
    [
        {"syntax": ImplicitVRLittleEndian},
        {"shared": ()},
        {"change": lambda file: file.compress(RLELossless, generate_instance_uid=False)},
    ],
    ids=["implicit", "nothing shared", "compressed"],
)
def test_frames_are_read_however_they_are_encoded(voxels, options, tmp_path):
    write_enhanced(tmp_path / "ct.dcm", voxels, GEOMETRIES["oblique anisotropic"], **options)
    assert_volume(read_volume(tmp_path), voxels, GEOMETRIES["oblique anisotropic"])


def test_frames_that_are_not_evenly_spaced_are_refused(voxels, refusal, tmp_path):
    write_enhanced(tmp_path / "ct.dcm", voxels, UPRIGHT, places=[0, 1, 2, 3, 4, 8, 16, 32])
    assert "is not evenly spaced: 10 mm between frame 5 and frame 6, else 2.5 mm" in refusal()


def test_frames_of_two_phases_are_refused(voxels, refusal, tmp_path):
    write_enhanced(tmp_path / "ct.dcm", voxels, UPRIGHT, places=[0, 0, 1, 1, 2, 2, 3, 3])
    assert (
        "has several images at one position (frame 1 and frame 2, and 3 more): it holds copies, or several" in refusal()
    )


@pytest.mark.parametrize("form", ["slices", "frames", "compressed"])
def test_more_frames_than_there_are_pixels_are_refused(voxels, form, refusal, tmp_path):
    if form == "slices":
        path = write_series(tmp_path, voxels[:1], UPRIGHT, change=lambda image, k: setattr(image, "NumberOfFrames", 2))[
            0
        ]
        expected = "should have 2 frames, but its pixels suffice for 1 only"
    else:

        def cut(file: Dataset) -> None:
            file.PixelData = file.PixelData[: len(file.PixelData) * 7 // 8]
            if form == "compressed":
                file.NumberOfFrames = 7
                file.compress(RLELossless, generate_instance_uid=False)
                file.NumberOfFrames = 8

        path = write_enhanced(tmp_path / "ct.dcm", voxels, UPRIGHT, change=cut)
        expected = "should have 8 frames, but its pixels suffice for 7 only"
    text = refusal()
    assert expected in text
    assert text.startswith(str(path))


def test_frames_that_are_a_film_are_no_volume(voxels, refusal, tmp_path):
    def film(file: Dataset) -> None:
        del file.PerFrameFunctionalGroupsSequence, file.SharedFunctionalGroupsSequence
        file.ImagePositionPatient, file.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
        file.PixelSpacing = [1, 1]

    path = write_enhanced(tmp_path / "cine.dcm", voxels, UPRIGHT, change=film)
    assert f"{path} has 8 frames and does not tell where they lie (are they a film?)" in refusal()


def test_frames_of_a_dose_lie_at_their_offsets(voxels, refusal, tmp_path):
    def dose(offsets: list[float]) -> Callable[[Dataset], None]:
        def change(file: Dataset) -> None:
            del file.PerFrameFunctionalGroupsSequence, file.SharedFunctionalGroupsSequence
            file.ImagePositionPatient, file.ImageOrientationPatient = [-20, -30, -40], [1, 0, 0, 0, 1, 0]
            file.PixelSpacing, file.GridFrameOffsetVector = [0.7, 0.8], offsets
            file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID = RTDoseStorage
            file.DoseGridScaling = "1"

        return change

    write_enhanced(tmp_path / "dose.dcm", voxels, UPRIGHT, change=dose([2.5 * n for n in range(8)]))
    assert_volume(read_volume(tmp_path), voxels, UPRIGHT)
    write_enhanced(tmp_path / "dose.dcm", voxels, UPRIGHT, change=dose([0, 2.5, 5, 10, 12.5, 15, 17.5, 20]))
    assert "5 mm between frame 3 and frame 4, else 2.5 mm" in refusal()


def test_frames_of_different_slope_are_refused(voxels, refusal, tmp_path):
    def slopes(file: Dataset) -> None:
        del file.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
        for number, groups in enumerate(file.PerFrameFunctionalGroupsSequence, start=1):
            rescale = Dataset()
            rescale.RescaleSlope, rescale.RescaleIntercept = str(number), "0"
            groups.PixelValueTransformationSequence = [rescale]

    path = write_enhanced(tmp_path / "ct.dcm", voxels, UPRIGHT, change=slopes)
    assert f"{path} has frames of different slope or intercept" in refusal()


def test_a_way_to_encode_frames_that_can_not_be_read_is_named(voxels, refusal, tmp_path):
    path = write_enhanced(tmp_path / "ct.dcm", voxels, UPRIGHT, syntax=DeflatedExplicitVRLittleEndian)
    assert f"{path} can't be read: its encoding is deflated" in refusal()


def test_slices_that_tell_their_place_by_frame_are_a_volume(voxels, tmp_path):
    series = generate_uid()
    for k in range(8):
        change = lambda file: setattr(file, "SeriesInstanceUID", series)  # noqa: E731
        write_enhanced(tmp_path / f"{k}.dcm", voxels[k : k + 1], UPRIGHT, places=[k], change=change)
    assert_volume(read_volume(tmp_path), voxels, UPRIGHT)


# Damaged and missing files


@pytest.mark.parametrize("size", [0, 100, 300, -500], ids=["empty", "no header", "a part of the header", "cut off"])
@pytest.mark.parametrize("wrong", [0, 4, 7])
def test_a_damaged_file_is_named_wherever_it_lies_in_the_series(voxels, size, wrong, refusal, tmp_path):
    paths = write_series(tmp_path, voxels, UPRIGHT)
    content = paths[wrong].read_bytes()
    paths[wrong].write_bytes(content[:size])
    text = refusal()
    assert str(paths[wrong]) in text
    assert "Copy or download it again" in text
    assert str(paths[wrong]) in refusal(paths[2])


def test_an_empty_file_without_ending_is_named_if_it_is_called_as_the_others(voxels, refusal, tmp_path):
    paths = [path.rename(tmp_path / f"IM{k:04}") for k, path in enumerate(write_series(tmp_path, voxels, UPRIGHT))]
    paths[-1].write_bytes(b"")
    assert f"{paths[-1]} is empty" in refusal()


def test_a_damaged_file_of_another_series_does_not_matter(voxels, refusal, tmp_path):
    mine = write_series(tmp_path, voxels, UPRIGHT)
    others = write_series(tmp_path, voxels[:3], UPRIGHT)
    others[0].write_bytes(others[0].read_bytes()[:-500])
    assert_volume(read_volume(mine[0]), voxels, UPRIGHT)
    assert str(others[0]) in refusal(others[1])


@pytest.mark.parametrize("kind", [MediaStorageDirectoryStorage, RTStructureSetStorage, EncapsulatedPDFStorage])
def test_dicom_files_that_are_no_images_do_not_matter(voxels, kind, tmp_path):
    def other(image: Dataset, k: int) -> None:
        image.SOPClassUID = kind
        image.file_meta.MediaStorageSOPClassUID = kind
        del image.PixelData, image.Rows, image.Columns

    write_series(tmp_path, voxels, UPRIGHT)
    write_series(tmp_path, voxels[:1], UPRIGHT, change=other)
    assert_volume(read_volume(tmp_path), voxels, UPRIGHT)


def test_what_a_mac_writes_beside_copied_files_does_not_matter(voxels, tmp_path):
    for path in write_series(tmp_path, voxels, UPRIGHT):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7" + b"Mac OS X        ")
    assert_volume(read_volume(tmp_path), voxels, UPRIGHT)


@pytest.mark.parametrize("count", [4, 8])
def test_the_gap_that_a_missing_slice_leaves_is_told_with_the_usual_one(voxels, count, refusal, tmp_path):
    paths = write_series(tmp_path, voxels[:count], UPRIGHT)
    paths[2].unlink()
    assert f"5 mm between {paths[1].name} and {paths[3].name}, else 2.5 mm. Is a slice missing?" in refusal()


# Several images at one place


@pytest.mark.parametrize("count", [2, 8])
def test_slices_at_one_position_are_refused(voxels, count, refusal, tmp_path):
    write_series(tmp_path, voxels[:count], UPRIGHT @ np.diag([1, 1, 0, 1]) + np.diag([0, 0, 1e-9, 0]))
    text = refusal()
    assert "has several images at one position" in text
    assert f"and {count - 2} more" in text


def test_copies_and_phases_are_told_from_a_missing_slice(voxels, refusal, tmp_path):
    paths = write_series(tmp_path, voxels, UPRIGHT)
    copy = tmp_path / "copy.dcm"
    copy.write_bytes(paths[3].read_bytes())
    text = refusal()
    assert "has several images at one position" in text
    assert copy.name in text
    assert paths[3].name in text
    assert "it holds copies, or several phases or echoes. Move all but one of them to another folder" in text


# Slices that do not belong together


def turned(image: Dataset, k: int) -> None:
    angle = 0.05 * k
    image.ImageOrientationPatient = [np.cos(angle), np.sin(angle), 0, -np.sin(angle), np.cos(angle), 0]


def one(k_changed: int, **values: object) -> Callable[[Dataset, int], None]:
    def change(image: Dataset, k: int) -> None:
        for name, value in values.items():
            if k == k_changed:
                setattr(image, name, value)

    return change


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (one(5, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]), "different orientation"),
        (turned, "different orientation"),
        (one(5, PixelSpacing=["0.9", "0.9"]), "different pixel spacing"),
        (one(0, Rows=12, PixelData=b"\0" * 720), "different size"),
    ],
    ids=["one turned", "a fan", "pixel spacing", "size"],
)
def test_slices_that_are_not_alike_are_named(voxels, change, text, refusal, tmp_path):
    paths = write_series(tmp_path, voxels, UPRIGHT, change=change)
    refused = refusal()
    assert f"has images of {text}: " in refused
    assert sum(path.name in refused for path in paths) == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ImagePositionPatient", "no Image Position (Patient)"),
        ("ImageOrientationPatient", "no Image Orientation (Patient)"),
        ("PixelSpacing", "no Pixel Spacing"),
    ],
)
def test_slices_that_do_not_tell_where_they_lie_are_refused(voxels, name, text, refusal, tmp_path):
    paths = write_series(tmp_path, voxels, UPRIGHT, change=lambda image, k: delattr(image, name))
    refused = refusal()
    assert text in refused
    assert any(str(path) in refused for path in paths)


@pytest.mark.parametrize("value", [["0", "0"], ["-1", "1"]])
def test_a_spacing_that_can_not_be_is_named(voxels, value, refusal, tmp_path):
    paths = write_series(tmp_path, voxels, UPRIGHT, change=one(3, PixelSpacing=value))
    assert str(paths[3]) in refusal() or paths[3].name in refusal()


def test_one_slice_is_as_thick_as_it_says(voxels, tmp_path):
    write_series(tmp_path, voxels[:1], UPRIGHT)
    assert_volume(read_volume(tmp_path), voxels[:1], UPRIGHT)


def test_every_slice_has_its_own_slope_and_intercept(voxels, tmp_path):
    def rescaled(image: Dataset, k: int) -> None:
        image.RescaleSlope, image.RescaleIntercept = (1, 1000)[k > 0], -1024

    paths = write_series(tmp_path, voxels, UPRIGHT, change=rescaled)
    factors = np.array([1] + [1000] * 7)[:, None, None]
    volume = read_volume(tmp_path)
    assert_volume(volume, voxels.astype(np.int64) * factors - 1024, UPRIGHT)
    fractional = dcmread(paths[2])
    fractional.RescaleSlope = "0.25"
    fractional.save_as(paths[2])
    np.testing.assert_array_equal(read_volume(tmp_path).voxels[2], voxels[2] * 0.25 - 1024)
