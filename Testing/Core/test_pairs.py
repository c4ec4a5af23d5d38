"""Folders of images and labels, matched by the names of their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from MedSAMSlicerLib.dataset.pairs import add_pairs, find_pairs
from MedSAMSlicerLib.dataset.site import SiteDataset
from MedSAMSlicerLib.volume.files import write_labelmap

GRID = np.array([[0.8, 0, 0, 10], [0, 0.8, 0, -20], [0, 0, 3, 30], [0, 0, 0, 1]])
ORGANS = np.zeros((6, 10, 12), dtype=np.uint8)
ORGANS[1:5, 2:5, 3:9] = 1
ORGANS[2:4, 6:9, 3:9] = 5


def image(path: Path, seed: int = 1) -> Path:
    write_labelmap(path, np.random.default_rng(seed).normal(0, 300, ORGANS.shape).astype(np.int16), GRID)
    return path


def labels(path: Path, array: np.ndarray = ORGANS, grid: np.ndarray = GRID) -> Path:
    write_labelmap(path, array, grid)
    return path


@pytest.fixture
def dataset(tmp_path: Path) -> SiteDataset:
    return SiteDataset.create(tmp_path / "site")


def names(paths: tuple[Path, ...]) -> list[str]:
    return [path.name for path in paths]


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_pairs_of_one_folder_become_cases_whatever_their_format(tmp_path, dataset, ending):
    for seed, name in enumerate(("a", "b_c")):
        image(tmp_path / f"{name}_image{ending}", seed)
        labels(tmp_path / f"{name}_label{ending}")
    found = find_pairs(tmp_path)
    assert [(pair.image.name, names(file for _, file in pair.labels)) for pair in found.pairs] == [
        (f"a_image{ending}", [f"a_label{ending}"]),
        (f"b_c_image{ending}", [f"b_c_label{ending}"]),
    ]
    additions = list(add_pairs(dataset, found.pairs, window="40/400", names={5: "spleen"}))
    assert [addition.text for addition in additions] == ["", ""]
    case = dataset.cases[1]
    assert (case.labels, case.window, case.patient) == (("label 1", "spleen"), "40/400", "P0002")
    assert case.source == {".nii.gz": "NIfTI", ".nrrd": "NRRD", ".mha": "MetaImage"}[ending]
    loaded = dataset.load(case)
    np.testing.assert_array_equal(loaded.labels["spleen"], ORGANS == 5)
    np.testing.assert_allclose(loaded.volume.ijk_to_ras, GRID, atol=1e-5)


def test_images_without_labels_and_labels_without_an_image_are_named(tmp_path):
    image(tmp_path / "a_image.nrrd")
    labels(tmp_path / "a_label.nrrd")
    image(tmp_path / "b_image.nrrd")
    labels(tmp_path / "c_label.nrrd")
    found = find_pairs(tmp_path)
    assert (len(found.pairs), names(found.images_alone), names(found.labels_alone)) == (
        1, ["b_image.nrrd"], ["c_label.nrrd"],
    )  # fmt: skip


def test_two_folders_and_a_patient_in_the_path(tmp_path, dataset):
    for seed, (patient, case) in enumerate((("Doe", "1"), ("Doe", "2"), ("Roe", "1"))):
        image(tmp_path / "ct" / patient / f"{case}.nii.gz", seed)
        labels(tmp_path / "expert" / patient / f"{case}.nii.gz")
    pattern = "{patient}/{case}.nii.gz"
    found = find_pairs(tmp_path / "ct", pattern, pattern, tmp_path / "expert")
    assert all(addition.case for addition in add_pairs(dataset, found.pairs))
    assert [case.patient for case in dataset.cases] == ["P0001", "P0001", "P0002"]


def test_labels_in_files_of_their_own_are_named_after_them_and_empty_ones_left_out(tmp_path, dataset):
    image(tmp_path / "s1" / "ct.nii.gz")
    for name, value in (("liver", 1), ("spleen", 5), ("stomach", 9)):
        labels(tmp_path / "s1" / "segmentations" / f"{name}.nii.gz", (value == ORGANS).astype(np.uint8))
    found = find_pairs(tmp_path, "{case}/ct.nii.gz", "{case}/segmentations/{label}.nii.gz")
    (addition,) = add_pairs(dataset, found.pairs)
    assert addition.text == "left out, as nothing is drawn in it: stomach"
    assert dataset.cases[0].labels == ("liver", "spleen")
    np.testing.assert_array_equal(dataset.load(dataset.cases[0]).labels["spleen"], ORGANS == 5)


def test_a_dicom_series_and_a_cropped_segmentation_of_slicer_become_a_case(tmp_path, dataset):
    folder = tmp_path / "a" / "dicom"
    folder.mkdir(parents=True)
    voxels = np.random.default_rng(1).normal(0, 300, ORGANS.shape).astype(np.int16)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k, plane in enumerate(voxels):
        file = sitk.GetImageFromArray(plane)
        file.SetSpacing((0.8, 0.8))
        for key, value in {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"1.2.3.4.{k}",
            "0008|0060": "CT",
            "0010|0010": "Doe^John",
            "0020|000e": "1.2.3.4",
            "0020|0032": f"-10\\20\\{30 + 3 * k}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }.items():
            file.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{k}.dcm"))
        writer.Execute(file)
    segmentation = sitk.GetImageFromArray((ORGANS[2:4, 6:9, 3:9] == 5).astype(np.uint8) * 7)
    segmentation.SetSpacing((0.8, 0.8, 3.0))
    segmentation.SetOrigin((-10 + 0.8 * 3, 20 + 0.8 * 6, 30 + 3 * 2))
    for key, value in {"ID": "s", "Name": "left kidney", "LabelValue": "7", "Layer": "0"}.items():
        segmentation.SetMetaData(f"Segment0_{key}", value)
    sitk.WriteImage(segmentation, str(tmp_path / "a" / "expert.seg.nrrd"), useCompression=True)
    found = find_pairs(tmp_path, "{case}/dicom", "{case}/*.seg.nrrd")
    (addition,) = add_pairs(dataset, found.pairs)
    assert addition.text == ""
    assert (dataset.cases[0].source, dataset.cases[0].labels) == ("DICOM", ("left kidney",))
    np.testing.assert_array_equal(dataset.load(dataset.cases[0]).labels["left kidney"], ORGANS == 5)
    assert all(b"Doe" not in path.read_bytes() for path in dataset.folder.rglob("*") if path.is_file())


def test_a_pair_that_is_refused_does_not_keep_the_others_out(tmp_path, dataset):
    for seed, name in enumerate("abcdefg"):
        image(tmp_path / f"{name}_image.nii.gz", seed)
        labels(tmp_path / f"{name}_label.nii.gz")
    shifted = GRID.copy()
    shifted[0, 3] += 0.4
    cut = tmp_path / "a_image.nii.gz"
    cut.write_bytes(cut.read_bytes()[:-50])
    labels(tmp_path / "b_label.nii.gz", np.zeros_like(ORGANS))
    labels(tmp_path / "c_label.nii.gz", grid=shifted)
    labels(tmp_path / "d_label.nii.gz", grid=np.eye(4))
    image(tmp_path / "f_image.nii.gz", seed=4)
    # A part of another image that lies at another place.
    outside = GRID.copy()
    outside[0, 3] += 0.8 * 6
    labels(tmp_path / "g_label.nii.gz", ORGANS[:, :, :10], outside)
    additions = {addition.pair.image.name[0]: addition for addition in add_pairs(dataset, find_pairs(tmp_path).pairs)}
    assert [name for name, addition in additions.items() if addition.case] == ["e"]
    for name, text in {
        "a": "cut off or damaged",
        "b": "nothing is drawn in it",
        "c": "drawn on another voxel grid than the image: it has as many voxels as the image",
        "d": "drawn on another voxel grid",
        "f": "in the dataset already",
        "g": "'label 1' reaches out of the image (along I)",
    }.items():
        assert text in additions[name].text


def test_patterns_and_folders_that_can_not_be_used_are_told(tmp_path):
    for images, label, text in [
        ("{case}.nrrd", "{label}.nrrd", r"have no \{case\} or \{patient\} in common"),
        ("{Case}.nrrd", "{case}.nrrd", r"its fields are \{case\}, \{patient\} and \{label\}"),
        ("{case.nrrd", "{case}.nrrd", r"its fields are \{case\}, \{patient\} and \{label\}"),
    ]:
        with pytest.raises(ValueError, match=text):
            find_pairs(tmp_path, images, label)
    with pytest.raises(ValueError, match="is no folder"):
        find_pairs(tmp_path / "nowhere")
    image(tmp_path / "a_image.nrrd")
    image(tmp_path / "a_image.nii.gz")
    with pytest.raises(ValueError, match="are both the image of a: narrow the pattern"):
        find_pairs(tmp_path)
    (tmp_path / "a_image.nrrd").unlink()
    labels(tmp_path / "a_label.nrrd")
    labels(tmp_path / "a_label.nii.gz")
    with pytest.raises(ValueError, match="are both labels of the same case"):
        find_pairs(tmp_path)


def test_a_label_whose_name_could_be_an_images_is_a_label(tmp_path):
    image(tmp_path / "p1_scan.nrrd")
    labels(tmp_path / "p1_scan_label.nrrd")
    found = find_pairs(tmp_path, "{patient}_{case}.nrrd", "{patient}_{case}_label.nrrd")
    assert [(pair.image.name, pair.patient) for pair in found.pairs] == [("p1_scan.nrrd", "p1")]
    assert found.images_alone == found.labels_alone == ()
