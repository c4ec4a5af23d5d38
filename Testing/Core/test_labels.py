"""Label maps and Slicer's segmentation files as masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from MedSAMSlicerLib.volume.files import FileError
from MedSAMSlicerLib.volume.labels import read_labels

SHAPE = (6, 7, 8)


def block(*where: slice, value: int = 1) -> np.ndarray:
    array = np.zeros(SHAPE, dtype=np.uint8)
    array[where] = value
    return array


def write(path: Path, array: np.ndarray, segments: tuple[dict[str, str], ...] = ()) -> Path:
    """Write a label map, with segments as Slicer describes them in a .seg.nrrd."""
    image = sitk.GetImageFromArray(array, isVector=array.ndim == 4)
    image.SetSpacing((0.5, 0.75, 3.0))
    for number, segment in enumerate(segments):
        for key, value in segment.items():
            image.SetMetaData(f"Segment{number}_{key}", value)
    sitk.WriteImage(image, str(path), useCompression=True)
    return path


LOW, HIGH = np.s_[0:3, 2:5, 2:6], np.s_[2:6, 3:7, 4:8]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_every_value_of_a_label_map_is_a_label(tmp_path, dtype, ending):
    array = (block(*LOW, value=4) | block(5, 6, 7, value=200)).astype(dtype)
    if np.iinfo(np.int16).max >= 200 and dtype != np.uint8:
        array[5, 0, 0] = 1200
    labels = read_labels(write(tmp_path / f"labels{ending}", array))
    assert labels.values() == [int(value) for value in np.unique(array) if value]
    for value in labels.values():
        np.testing.assert_array_equal(labels.mask(value), array == value)
    assert labels.names == {}
    assert labels.spacing == pytest.approx((0.5, 0.75, 3.0))


def test_a_label_that_is_not_there_is_an_empty_mask(tmp_path):
    labels = read_labels(write(tmp_path / "labels.nrrd", block(*LOW, value=4)))
    for value in (0, 1, 5):
        assert labels.mask(value).shape == SHAPE
        assert not labels.mask(value).any()


def test_a_label_map_without_labels_has_none(tmp_path):
    assert read_labels(write(tmp_path / "labels.nrrd", np.zeros(SHAPE, np.uint8))).values() == []


def test_segments_of_one_layer_are_numbered_in_their_order_whatever_values_they_have(tmp_path):
    array = block(*LOW, value=7)
    array[5] = 3
    path = write(
        tmp_path / "organs.seg.nrrd",
        array,
        (
            {"ID": "Segment_b", "Name": "liver", "LabelValue": "7", "Layer": "0"},
            {"ID": "Segment_a", "Name": "right kidney", "LabelValue": "3", "Layer": "0"},
            {"ID": "Segment_c", "Name": "not drawn", "LabelValue": "4", "Layer": "0"},
        ),
    )
    labels = read_labels(path)
    assert labels.names == {1: "liver", 2: "right kidney", 3: "not drawn"}
    assert labels.values() == [1, 2, 3]
    np.testing.assert_array_equal(labels.mask(1), array == 7)
    np.testing.assert_array_equal(labels.mask(2), array == 3)
    assert not labels.mask(3).any()


def test_segments_that_overlap_keep_their_whole_masks(tmp_path):
    layers = np.stack([block(*LOW, value=1), block(*HIGH, value=1)], axis=-1)
    layers[5, 0, 0, 0] = 2
    path = write(
        tmp_path / "overlap.seg.nrrd",
        layers,
        (
            {"ID": "a", "Name": "low", "LabelValue": "1", "Layer": "0"},
            {"ID": "b", "Name": "high", "LabelValue": "1", "Layer": "1"},
            {"ID": "c", "Name": "dot", "LabelValue": "2", "Layer": "0"},
        ),
    )
    labels = read_labels(path)
    np.testing.assert_array_equal(labels.mask(1), block(*LOW).astype(bool))
    np.testing.assert_array_equal(labels.mask(2), block(*HIGH).astype(bool))
    np.testing.assert_array_equal(labels.mask(3), layers[..., 0] == 2)
    assert (labels.mask(1) & labels.mask(2)).any()
    assert labels.names == {1: "low", 2: "high", 3: "dot"}


@pytest.mark.parametrize("value", [0.5, np.nan])
def test_an_image_instead_of_a_label_map_is_refused(tmp_path, value):
    array = block(*LOW).astype(np.float32)
    array[0, 0, 0] = value
    with pytest.raises(FileError, match=r"CT\.nrrd has values that are no whole numbers: is it an image"):
        read_labels(write(tmp_path / "CT.nrrd", array))


def test_colors_slices_and_missing_files_are_refused_by_name(tmp_path):
    with pytest.raises(FileError, match=r"photo\.nrrd has 3 values per voxel: a label map has one"):
        read_labels(write(tmp_path / "photo.nrrd", np.zeros((*SHAPE, 3), np.uint8)))
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5), np.uint8)), str(tmp_path / "slice.png"))
    with pytest.raises(FileError, match=r"slice\.png has 2 dimensions: a label map has 3"):
        read_labels(tmp_path / "slice.png")
    with pytest.raises(FileError, match=r"none\.nrrd does not exist"):
        read_labels(tmp_path / "none.nrrd")
    with pytest.raises(FileError, match="is a folder: give a label map"):
        read_labels(tmp_path)


def test_grids_are_the_same_only_with_the_same_size_place_spacing_and_directions(tmp_path):
    labels = read_labels(write(tmp_path / "labels.nrrd", block(*LOW)))
    image = labels.layers[0]
    changes = {
        "size": lambda other: other[1:],
        "place": lambda other: other.SetOrigin((0, 0, 0.01)),
        "spacing": lambda other: other.SetSpacing((0.5, 0.75, 3.01)),
        "directions": lambda other: other.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1)),
        "nothing": lambda other: other.SetOrigin((0, 0, 1e-5)),
    }
    same = {}
    for name, change in changes.items():
        other = sitk.Image(image)
        other = change(other) or other
        sitk.WriteImage(other, str(tmp_path / "other.nrrd"))
        same[name] = labels.same_grid(read_labels(tmp_path / "other.nrrd"))
    assert same == {"size": False, "place": False, "spacing": False, "directions": False, "nothing": True}


def test_labels_move_to_another_grid_by_place_and_keep_their_values(tmp_path):
    fine = np.zeros((6, 8, 8), np.uint8)
    fine[2:4, 2:6, 0:4] = 5
    fine[4:6, 0:2, 4:8] = 9
    labels = read_labels(write(tmp_path / "fine.nrrd", fine))
    coarse = sitk.GetImageFromArray(np.ones((4, 4, 4), np.uint8))
    coarse.SetSpacing((1.0, 1.5, 6.0))
    # Every coarse voxel lies around 2 x 2 x 2 fine ones, but its center is nearer to one of them; one row is outside.
    coarse.SetOrigin((0.25 - 1.0 + 0.4, 0.375 + 0.6, 1.5))
    sitk.WriteImage(coarse, str(tmp_path / "coarse.nrrd"))
    moved = labels.resampled_to(read_labels(tmp_path / "coarse.nrrd"))
    expected = np.zeros((4, 4, 4), np.uint8)
    expected[1, 1:3, 1:3] = 5
    expected[2, 0, 3] = 9
    assert moved.values() == [5, 9]
    for value in (5, 9):
        np.testing.assert_array_equal(moved.mask(value), expected == value)


@pytest.mark.parametrize(
    ("segment", "text"),
    [
        ({"ID": "a", "LabelValue": "x"}, "has 'x' for Segment0_LabelValue, which is no whole number"),
        ({"ID": "a"}, "has 'nothing' for Segment0_LabelValue"),
        ({"ID": "a", "LabelValue": "1", "Layer": ""}, "has '' for Segment0_Layer"),
        ({"ID": "a", "LabelValue": "1", "Layer": "9"}, r"has its segment 0 in layer 9 of 1 \(from 0\)"),
        ({"ID": "a", "LabelValue": "1", "Layer": "-1"}, "has its segment 0 in layer -1 of 1"),
    ],
)
def test_a_segment_that_is_described_wrongly_is_told(tmp_path, segment, text):
    path = write(tmp_path / "organs.seg.nrrd", block(*LOW), (segment,))
    with pytest.raises(FileError, match=text) as refused:
        read_labels(path)
    assert str(path) in str(refused.value)


def test_a_segment_without_a_name_is_called_by_its_id(tmp_path):
    labels = read_labels(write(tmp_path / "organs.seg.nrrd", block(*LOW), ({"ID": "Segment_3", "LabelValue": "1"},)))
    assert labels.names == {1: "Segment_3"}


def test_a_folder_is_no_label_map_and_nothing_else_is_printed(tmp_path, capfd):
    with pytest.raises(FileError, match="is a folder: give a label map"):
        read_labels(tmp_path)
    assert capfd.readouterr() == ("", "")
