"""Volumes in files: geometry, DICOM series, and what is no volume."""

from __future__ import annotations

import gc
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from geometries import GEOMETRIES
from MedSAMSlicerLib.volume.files import FileError, Volume, read_volume, stem, write_labelmap

LPS_TO_RAS = np.array([-1, -1, 1])
ROOT_UID = "1.2.826.0.1.3680043.2.1125"


@pytest.fixture(params=GEOMETRIES)
def ijk_to_ras(request: pytest.FixtureRequest) -> np.ndarray:
    return GEOMETRIES[request.param]


def itk_image(voxels: np.ndarray, ijk_to_ras: np.ndarray) -> sitk.Image:
    """An image of SimpleITK with the geometry given."""
    image = sitk.GetImageFromArray(voxels)
    spacing = np.linalg.norm(ijk_to_ras[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((LPS_TO_RAS[:, None] * ijk_to_ras[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin((LPS_TO_RAS * ijk_to_ras[:3, 3]).tolist())
    return image


def assert_same_places(volume: Volume, image: sitk.Image) -> None:
    """Compare where voxels lie with what SimpleITK says, in RAS."""
    i, j, k = (size - 1 for size in image.GetSize())
    for index in ((0, 0, 0), (i, 0, 0), (0, j, 0), (0, 0, k), (i, j, k)):
        expected = LPS_TO_RAS * image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose((volume.ijk_to_ras @ [*index, 1])[:3], expected, atol=1e-3)


@pytest.mark.parametrize("ending", [".nrrd", ".nii.gz", ".nii", ".mha"])
def test_a_volume_keeps_its_voxels_and_their_places(a_ct, ijk_to_ras, tmp_path, ending):
    image = itk_image(a_ct, ijk_to_ras)
    path = tmp_path / f"CT{ending}"
    sitk.WriteImage(image, str(path))
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.voxels, a_ct)
    assert volume.voxels.dtype == np.int16
    assert_same_places(volume, image)
    np.testing.assert_allclose(volume.ijk_to_ras, ijk_to_ras, atol=1e-4)
    assert volume.dimensions == (30, 24, 10)
    assert volume.spacing == pytest.approx(image.GetSpacing(), abs=1e-5)
    assert volume.name == "CT"


@pytest.mark.parametrize("ending", [".nrrd", ".nii.gz", ".nii", ".mha"])
def test_a_label_map_is_written_where_its_volume_lies(ijk_to_ras, tmp_path, ending):
    labels = np.random.default_rng(1).integers(0, 300, (10, 24, 30)).astype(np.uint16)
    path = tmp_path / "new folder" / f"labels{ending}"
    write_labelmap(path, labels, ijk_to_ras)
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), labels)
    assert_same_places(Volume(labels, ijk_to_ras, ""), image)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_label_map_of_another_ending_is_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(FileError, match=r"labels\.xyz can't be written"):
        write_labelmap(tmp_path / "labels.xyz", np.zeros((2, 3, 4), np.uint8), np.eye(4))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("channels", [(), (3,)], ids=["gray", "RGB"])
def test_a_picture_becomes_one_slice(tmp_path, channels):
    pixels = np.random.default_rng(2).integers(0, 256, (24, 30, *channels), dtype=np.uint8)
    path = tmp_path / "photo.png"
    sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=bool(channels)), str(path))
    volume = read_volume(path)
    assert volume.voxels.shape == (1, 24, 30, *channels)
    np.testing.assert_array_equal(volume.voxels[0], pixels)
    assert volume.dimensions == (30, 24, 1)


def write_series(
    folder: Path, image: sitk.Image, *, uid: str = f"{ROOT_UID}.1", slope: float = 1, skip: Sequence[int] = ()
) -> list[Path]:
    """Write the slices of an image as a DICOM series, under names in random order; list them by place."""
    folder.mkdir(exist_ok=True)
    direction = image.GetDirection()
    orientation = "\\".join(f"{direction[n]:.8f}" for n in (0, 3, 6, 1, 4, 7))
    names = [f"IM{number:04}" for number in range(100)]
    random.Random(uid).shuffle(names)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    paths = []
    for k in range(image.GetSize()[2]):
        if k in skip:
            continue
        plane = image[:, :, k]
        place = "\\".join(f"{value:.8f}" for value in image.TransformIndexToPhysicalPoint((0, 0, k)))
        for tag, value in {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"{uid}.{k}",
            "0008|0060": "CT",
            "0020|000d": f"{ROOT_UID}.9",
            "0020|000e": uid,
            "0020|0013": str(k),
            "0020|0032": place,
            "0020|0037": orientation,
            "0028|1052": "-1024" if slope != 1 else "0",
            "0028|1053": f"{slope:g}",
        }.items():
            plane.SetMetaData(tag, value)
        paths.append(folder / f"{names[k]}.dcm")
        writer.SetFileName(str(paths[-1]))
        writer.Execute(plane)
    return paths


@pytest.fixture
def an_acquisition(a_ct: np.ndarray, ijk_to_ras: np.ndarray) -> sitk.Image:
    """A CT as DICOM can hold it: slices are sorted along the normal of their planes."""
    image = itk_image(a_ct, ijk_to_ras)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    if np.linalg.det(direction) < 0:
        image = image[:, :, ::-1]
    return image


def test_a_dicom_folder_is_a_volume_whatever_its_files_are_called(an_acquisition, tmp_path):
    write_series(tmp_path / "series", an_acquisition)
    volume = read_volume(tmp_path / "series")
    np.testing.assert_array_equal(volume.voxels, sitk.GetArrayFromImage(an_acquisition))
    assert_same_places(volume, an_acquisition)
    assert volume.name == "series"


def test_one_file_of_a_series_stands_for_all_of_it(an_acquisition, tmp_path):
    one_file = write_series(tmp_path, an_acquisition)[3]
    np.testing.assert_array_equal(read_volume(one_file).voxels, sitk.GetArrayFromImage(an_acquisition))
    without_ending = one_file.rename(tmp_path / "I000001")
    volume = read_volume(without_ending)
    np.testing.assert_array_equal(volume.voxels, sitk.GetArrayFromImage(an_acquisition))
    assert_same_places(volume, an_acquisition)


@pytest.fixture
def a_simple_ct(a_ct: np.ndarray) -> sitk.Image:
    return itk_image(a_ct, np.diag([0.8, 0.8, 3.0, 1]))


def test_stored_values_become_hounsfield_units(a_simple_ct, tmp_path):
    image = sitk.Cast(a_simple_ct * 2, sitk.sitkInt16)
    write_series(tmp_path, image, slope=2)
    np.testing.assert_array_equal(read_volume(tmp_path).voxels, sitk.GetArrayFromImage(image))


def test_other_files_beside_a_series_do_not_matter(a_simple_ct, tmp_path):
    write_series(tmp_path, a_simple_ct)
    (tmp_path / "DICOMDIR.txt").write_text("index")
    (tmp_path / "empty").touch()
    (tmp_path / "thumbs").mkdir()
    sitk.WriteImage(a_simple_ct, str(tmp_path / "CT.nrrd"))
    assert read_volume(tmp_path).voxels.shape == (10, 24, 30)


def test_of_two_series_in_a_folder_one_file_tells_which_is_meant(a_simple_ct, tmp_path):
    write_series(tmp_path, a_simple_ct)
    file_of_second = write_series(tmp_path, a_simple_ct[:, :, :4] + 7, uid=f"{ROOT_UID}.2")[1]
    with pytest.raises(FileError, match=r"holds 2 DICOM series .*4 images.*give one file of the series you want"):
        read_volume(tmp_path)
    np.testing.assert_array_equal(read_volume(file_of_second).voxels, sitk.GetArrayFromImage(a_simple_ct)[:4] + 7)


@pytest.mark.parametrize("missing", [1, 5, 8])
def test_a_series_with_a_missing_slice_is_refused(a_simple_ct, tmp_path, missing):
    paths = write_series(tmp_path, a_simple_ct, skip=[missing])
    with pytest.raises(FileError, match=r"not evenly spaced: 6 mm between .* else 3 mm. Is a slice missing") as refused:
        read_volume(tmp_path)
    assert paths[missing - 1].name in str(refused.value)
    assert paths[missing].name in str(refused.value)
    with pytest.raises(FileError, match="Is a slice missing"):
        read_volume(paths[0])


def test_a_folder_without_dicom_and_a_damaged_dicom_file_are_named(a_simple_ct, tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(FileError, match="holds no DICOM series: give the folder that has the image files directly"):
        read_volume(tmp_path)
    folder = tmp_path / "series"
    file = write_series(folder, a_simple_ct[:, :, :1])[0]
    file.write_bytes(file.read_bytes()[:400])
    with pytest.raises(FileError, match=file.name):
        read_volume(file)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha", ".nii", ".png"])
@pytest.mark.parametrize("compressed", [True, False], ids=["compressed", "plain"])
def test_a_truncated_file_is_refused_by_name(tmp_path, ending, compressed):
    noise = np.random.default_rng(3).integers(0, 256, (20, 40, 50), dtype=np.uint8)
    image = sitk.GetImageFromArray(noise if ending != ".png" else noise[0])
    path = tmp_path / f"cut{ending}"
    sitk.WriteImage(image, str(path), useCompression=compressed)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(FileError, match=rf"cut{ending} (can't be read as an image \(.*damaged|is cut off)") as refused:
        read_volume(path)
    assert "No such file" not in str(refused.value)


def test_a_compressed_nifti_file_that_lacks_its_last_bytes_or_has_a_wrong_one_is_refused(a_ct, tmp_path):
    path = tmp_path / "CT.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(a_ct), str(path))
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(FileError, match=r"CT\.nii\.gz is cut off or damaged \(.*copy or download it again"):
        read_volume(path)
    path.write_bytes(whole[:-3000] + bytes([whole[-3000] ^ 0x55]) + whole[-2999:])
    with pytest.raises(FileError, match=r"CT\.nii\.gz is cut off or damaged"):
        read_volume(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("page.nrrd", b"<!DOCTYPE html><html>Sign in</html>"),
        ("page.nii.gz", b"<!DOCTYPE html><html>Sign in</html>"),
        ("notes.txt", b"liver"),
        ("zeros.nii.gz", b"\0" * 500),
        ("ending", b"NRRD"),
    ],
)
def test_a_file_that_is_no_image_is_refused_in_one_line(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FileError, match="can't be read as an image") as refused:
        read_volume(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "ERROR" not in str(refused.value)


def test_a_missing_and_an_empty_file_are_told_apart(tmp_path):
    with pytest.raises(FileError, match=r"none\.nrrd does not exist: check the path"):
        read_volume(tmp_path / "none.nrrd")
    (tmp_path / "empty.nii.gz").touch()
    with pytest.raises(FileError, match=r"empty\.nii\.gz is empty"):
        read_volume(tmp_path / "empty.nii.gz")


def test_four_dimensions_are_refused_but_a_single_time_point_is_a_volume(tmp_path, a_ct):
    path = tmp_path / "fmri.nii.gz"
    volume = itk_image(a_ct, GEOMETRIES["oblique anisotropic"])
    sitk.WriteImage(sitk.JoinSeries([volume, volume]), str(path))
    with pytest.raises(FileError, match=r"fmri\.nii\.gz has 4 dimensions, 30 x 24 x 10 x 2 voxels: save one 3-D"):
        read_volume(path)
    one = tmp_path / "one.nrrd"
    sitk.WriteImage(sitk.JoinSeries([volume]), str(one))
    found = read_volume(one)
    np.testing.assert_array_equal(found.voxels, a_ct)
    assert_same_places(found, volume)


def test_complex_values_are_refused(tmp_path):
    path = tmp_path / "kspace.nii"
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((3, 4, 5), dtype=np.complex64)), str(path))
    with pytest.raises(FileError, match=r"kspace\.nii has complex values: save their magnitude"):
        read_volume(path)


SHEARED = GEOMETRIES["oblique anisotropic"] @ np.array([[1, 0, 0, 0], [0, 1, 1.2, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_a_label_map_of_a_sheared_volume_lies_where_the_volume_does(tmp_path, ending):
    labels = np.random.default_rng(1).integers(0, 3, (10, 24, 30)).astype(np.uint8)
    write_labelmap(tmp_path / f"labels{ending}", labels, SHEARED)
    volume = read_volume(tmp_path / f"labels{ending}")
    np.testing.assert_array_equal(volume.voxels, labels)
    np.testing.assert_allclose(volume.ijk_to_ras, SHEARED, atol=1e-4)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".NII.GZ"])
def test_a_label_map_of_a_sheared_volume_is_not_written_as_nifti(tmp_path, ending):
    with pytest.raises(FileError, match=r"can't hold sheared voxels .*: give \.seg\.nrrd, \.nrrd or \.mha"):
        write_labelmap(tmp_path / f"labels{ending}", np.zeros((10, 24, 30), np.uint8), SHEARED)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [np.int64, np.uint64])
def test_values_of_64_bits_become_shorter_ones_or_are_refused(a_ct, tmp_path, capfd, kind):
    values = (a_ct - a_ct.min()).astype(kind)
    path = tmp_path / "CT.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(values), str(path))
    volume = read_volume(path)
    assert volume.voxels.dtype.itemsize == 4
    np.testing.assert_array_equal(volume.voxels, values)
    values[0, 0, 0] = 1 << 40
    sitk.WriteImage(sitk.GetImageFromArray(values), str(path))
    with pytest.raises(FileError, match=r"CT\.nrrd has values from 0 to 1099511627776, of 64 bits: save it with 32"):
        read_volume(path)
    assert capfd.readouterr() == ("", "")


def test_a_header_without_a_geometry_is_refused_in_one_line(a_ct, tmp_path, capfd):
    path = tmp_path / "CT.nrrd"
    sitk.WriteImage(itk_image(a_ct, GEOMETRIES["left-handed"]), str(path))
    path.write_bytes(path.read_bytes().replace(b"space origin: (-80", b"space origin: (nan"))
    with pytest.raises(FileError, match=r"CT\.nrrd (has no valid geometry|can't be read as an image)"):
        read_volume(path)
    assert capfd.readouterr() == ("", "")


def test_the_voxels_outlive_the_image_that_they_were_read_from(a_ct, tmp_path):
    write_labelmap(tmp_path / "CT.nrrd", a_ct, np.eye(4))
    volumes = [read_volume(tmp_path / "CT.nrrd") for _ in range(20)]
    gc.collect()
    for volume in volumes:
        np.testing.assert_array_equal(volume.voxels, a_ct)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("CT.nii.gz", "CT"), ("CT.NII.GZ", "CT"), ("a.b.nrrd", "a.b"), ("liver.seg.nrrd", "liver"), ("R.mrk.json", "R"),
        ("series", "series"), ("v1.2 study.mha", "v1.2 study"),
    ],
)  # fmt: skip
def test_a_volume_is_named_after_its_file_without_the_endings(tmp_path, name, expected):
    assert stem(tmp_path / name) == expected


def test_the_folder_that_one_is_in_has_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert stem(Path()) == tmp_path.name
