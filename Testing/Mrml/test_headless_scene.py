"""Volumes, ROIs and segmentations in a scene without the application, and in files that Slicer reads."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import slicer.util
import vtk

from MedSAMSlicerLib.headless.scene import HeadlessScene, save_segmentation
from MedSAMSlicerLib.mrml.markups import world_corners
from MedSAMSlicerLib.mrml.segments import SegmentWriter, add_segment, segment_mask
from MedSAMSlicerLib.mrml.volumes import ijk_to_world
from MedSAMSlicerLib.volume.files import FileError, Volume, read_volume, write_labelmap
from MedSAMSlicerLib.volume.geometry import transform_points, voxel_box_corners
from MedSAMSlicerLib.volume.labels import read_labels

FIRST, LAST = (5, 6, 2), (20, 15, 7)
MASKS = {
    "liver": np.s_[2:8, 6:16, 5:21],
    "right kidney": np.s_[0:2, 0:4, 0:5],
    "lesion in the liver": np.s_[4:6, 8:12, 10:15],
}


def mask_of(name: str) -> np.ndarray:
    mask = np.zeros((10, 24, 30), dtype=bool)
    mask[MASKS[name]] = True
    return mask


def in_order(points: np.ndarray) -> np.ndarray:
    """Sort points, so that they can be compared as sets."""
    return points[np.lexsort(points.round(3).T)]


def save(node: slicer.vtkMRMLStorableNode, storage: slicer.vtkMRMLStorageNode, path: Path) -> Path:
    """Write a node as Slicer's Save dialog does."""
    node.GetScene().AddNode(storage)
    storage.SetFileName(str(path))
    assert storage.WriteData(node)
    return path


@pytest.fixture
def segmentation(headless: HeadlessScene, volume_node) -> slicer.vtkMRMLSegmentationNode:
    """Three segments, one of them within another."""
    node = headless.add_segmentation("organs", volume_node)
    for name in MASKS:
        SegmentWriter(node, add_segment(node, name), volume_node).add(mask_of(name), (0, 0, 0))
    return node


def test_a_volume_in_the_scene_has_the_voxels_and_the_geometry_of_its_file(headless, a_ct, ijk_to_ras):
    node = headless.add_volume(Volume(a_ct, ijk_to_ras, "CT of the abdomen"))
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), a_ct)
    assert slicer.util.arrayFromVolume(node).dtype == a_ct.dtype
    np.testing.assert_allclose(ijk_to_world(node), ijk_to_ras)
    assert node.GetName() == "CT of the abdomen"
    assert node.GetDisplayNode() is not None


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_every_type_of_voxels_is_kept(headless, a_ct, dtype):
    voxels = np.abs(a_ct).astype(dtype)
    node = headless.add_volume(Volume(voxels, np.eye(4), "v"))
    assert slicer.util.arrayFromVolume(node).dtype == dtype
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), voxels)


def test_the_scene_does_not_share_its_voxels_with_the_caller(headless, a_ct):
    node = headless.add_volume(Volume(a_ct, np.eye(4), "CT"))
    before = slicer.util.arrayFromVolume(node).copy()
    a_ct[:] = 0
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), before)


def test_a_color_volume_keeps_its_channels(headless):
    pixels = np.random.default_rng(1).integers(0, 256, (1, 24, 30, 3), dtype=np.uint8)
    node = headless.add_volume(Volume(pixels, np.eye(4), "photo"))
    assert node.IsA("vtkMRMLVectorVolumeNode")
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), pixels)


def test_an_roi_around_voxels_lies_around_them_in_the_world(headless, ijk_to_ras):
    roi = headless.add_roi("R", ijk_to_ras, voxel_box_corners(FIRST, LAST))
    expected = transform_points(ijk_to_ras, voxel_box_corners(FIRST, LAST))
    # Slicer turns the axes of a left-handed ROI, so its corners come in another order.
    np.testing.assert_allclose(in_order(world_corners(roi)), in_order(expected), atol=1e-6)
    # By Slicer's own reckoning too.
    bounds = np.zeros(6)
    roi.GetRASBounds(bounds)
    np.testing.assert_allclose(bounds[::2], expected.min(axis=0), atol=1e-6)
    np.testing.assert_allclose(bounds[1::2], expected.max(axis=0), atol=1e-6)


def test_an_roi_that_slicer_saved_comes_back_named_after_its_file(headless, ijk_to_ras, tmp_path):
    saved = headless.add_roi("R", ijk_to_ras, voxel_box_corners(FIRST, LAST))
    path = save(saved, slicer.vtkMRMLMarkupsROIJsonStorageNode(), tmp_path / "left kidney.mrk.json")
    # A newer Slicer may store the node's name.
    content = json.loads(path.read_text())
    content["markups"][0]["name"] = "R"
    path.write_text(json.dumps(content))
    roi = HeadlessScene().load_roi(path)
    assert roi.GetName() == "left kidney"
    np.testing.assert_allclose(world_corners(roi), world_corners(saved), atol=1e-4)
    lps = sorted(content["markups"][0]["center"])
    assert lps == pytest.approx(sorted(np.array(saved.GetCenter()) * [-1, -1, 1]), abs=1e-4)


def test_a_byte_order_mark_before_the_roi_does_no_harm(headless, ijk_to_ras, tmp_path):
    saved = headless.add_roi("R", ijk_to_ras, voxel_box_corners(FIRST, LAST))
    path = save(saved, slicer.vtkMRMLMarkupsROIJsonStorageNode(), tmp_path / "R.mrk.json")
    content = path.read_bytes()
    path.write_bytes(b"\xef\xbb\xbf" + content)
    np.testing.assert_allclose(world_corners(headless.load_roi(path)), world_corners(saved), atol=1e-4)
    assert path.read_bytes() == b"\xef\xbb\xbf" + content


def markups(*kinds: str) -> str:
    return json.dumps({"markups": [{"type": kind} for kind in kinds]})


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "does not exist: check the path"),
        ("", "is not a markups file of Slicer"),
        ("<html>", "is not a markups file of Slicer"),
        (b"\xff\xfe\x00", "is not a markups file of Slicer"),
        ("[]", "is not a markups file of Slicer"),
        ("{}", "is not a markups file of Slicer"),
        ('{"markups": 3}', "is not a markups file of Slicer"),
        ('{"markups": [{}]}', "is not a markups file of Slicer"),
        (markups(), "holds nothing, not one ROI"),
        (markups("Fiducial"), "holds Fiducial, not one ROI"),
        (markups("ROI", "ROI"), "holds ROI, ROI, not one ROI"),
        (markups("ROI", "Line"), "holds ROI, Line, not one ROI"),
    ],
    ids=[
        "missing", "empty", "HTML", "binary", "a list", "no markups", "a number", "no type", "no markup", "fiducials",
        "two ROIs", "an ROI and a line",
    ],
)  # fmt: skip
def test_a_file_that_is_not_one_roi_is_refused_by_name_and_adds_no_node(headless, tmp_path, content, text):
    path = tmp_path / "R.mrk.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    nodes = headless.scene.GetNumberOfNodes()
    with pytest.raises(FileError, match=text) as refused:
        headless.load_roi(path)
    assert str(refused.value).startswith(str(path))
    assert headless.scene.GetNumberOfNodes() == nodes


@pytest.mark.parametrize(
    ("kind", "text"), [(["ROI"], r"holds \['ROI'\], not one ROI"), (None, "holds None"), ({"a": 1}, "holds {'a': 1}")]
)
def test_a_markup_whose_type_is_no_text_is_refused(headless, tmp_path, kind, text):
    path = tmp_path / "R.mrk.json"
    path.write_text(json.dumps({"markups": [{"type": kind}]}))
    with pytest.raises(FileError, match=text):
        headless.load_roi(path)


@pytest.mark.parametrize(
    "change",
    [
        {"center": [float("nan"), 0, 0]}, {"size": [float("inf"), 1, 1]}, {"size": [0, 0, 0]}, {"size": "large"},
        {"orientation": [float("nan")] * 9}, {"orientation": [1, 0]}, {"center": [1]},
    ],
)  # fmt: skip
def test_an_roi_of_no_place_or_size_is_refused_by_its_file(headless, roi, tmp_path, capfd, change):
    path = save(roi, slicer.vtkMRMLMarkupsROIJsonStorageNode(), tmp_path / "R.mrk.json")
    content = json.loads(path.read_text())
    content["markups"][0] |= change
    path.write_text(json.dumps(content))
    vtk.vtkOutputWindow.SetInstance(None)  # as on the command line, where it prints
    with pytest.raises(
        FileError, match=r"Slicer can't read the ROI in .* \(its center, size and orientation\): save it"
    ):
        headless.load_roi(path)
    assert headless.scene.GetNumberOfNodesByClass("vtkMRMLMarkupsROINode") == 1
    assert capfd.readouterr() == ("", "")


def test_a_file_that_is_nested_too_deep_is_no_roi(headless, tmp_path):
    path = tmp_path / "R.mrk.json"
    path.write_text('{"markups":' + "[" * 100_000)
    with pytest.raises(FileError, match="is not a markups file of Slicer"):
        headless.load_roi(path)


def test_a_folder_is_no_roi(headless, tmp_path):
    with pytest.raises(FileError, match="is not a markups file of Slicer"):
        headless.load_roi(tmp_path)


def test_real_fiducials_are_refused(headless, tmp_path):
    points = headless.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "F")
    points.AddControlPoint(1, 2, 3)
    path = save(points, slicer.vtkMRMLMarkupsJsonStorageNode(), tmp_path / "F.mrk.json")
    with pytest.raises(FileError, match="holds Fiducial, not one ROI"):
        headless.load_roi(path)


def test_slicer_reads_the_segments_back_with_names_colors_and_every_voxel(segmentation, volume_node, a_ct, tmp_path):
    path = tmp_path / "organs.seg.nrrd"
    save_segmentation(segmentation, path)

    other = HeadlessScene()
    volume = other.add_volume(Volume(a_ct, ijk_to_world(volume_node), "CT"))
    loaded = other.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage = slicer.vtkMRMLSegmentationStorageNode()
    other.scene.AddNode(storage)
    storage.SetFileName(str(path))
    assert storage.ReadData(loaded)

    saved, content = segmentation.GetSegmentation(), loaded.GetSegmentation()
    assert content.GetSegmentIDs() == saved.GetSegmentIDs()
    for segment_id, name in zip(content.GetSegmentIDs(), MASKS, strict=True):
        color = saved.GetSegment(segment_id).GetColor()
        assert content.GetSegment(segment_id).GetName() == name
        assert content.GetSegment(segment_id).GetColor() == pytest.approx(color, abs=1e-3)
        np.testing.assert_array_equal(segment_mask(loaded, segment_id, volume), mask_of(name))
    assert len({content.GetSegment(segment_id).GetColor() for segment_id in content.GetSegmentIDs()}) == 3


def test_simple_itk_and_our_own_reader_find_the_same_segments_at_the_same_places(segmentation, ijk_to_ras, tmp_path):
    path = tmp_path / "organs.seg.nrrd"
    save_segmentation(segmentation, path)
    labels = read_labels(path)
    assert list(labels.names.values()) == list(MASKS)
    image = sitk.ReadImage(str(path))
    assert image.GetNumberOfComponentsPerPixel() == 2, "segments that overlap need two layers"
    for label, name in labels.names.items():
        mask = labels.mask(label)
        places = [
            np.array([-1, -1, 1]) * image.TransformIndexToPhysicalPoint(tuple(map(int, index)))
            for index in (np.argwhere(mask)[0][::-1], np.argwhere(mask)[-1][::-1])
        ]
        voxels = np.argwhere(mask_of(name))[[0, -1], ::-1]
        np.testing.assert_allclose(places, transform_points(ijk_to_ras, voxels), atol=1e-4)
        assert mask.sum() == mask_of(name).sum()


def test_a_segmentation_is_written_small_and_read_in_the_voxels_of_its_volume(segmentation, ijk_to_ras, a_ct, tmp_path):
    path = tmp_path / "organs.seg.nrrd"
    save_segmentation(segmentation, path)
    drawn = np.argwhere(sum(mask_of(name) for name in MASKS))
    assert sitk.ReadImage(str(path)).GetSize() == tuple(int(size) for size in np.ptp(drawn, axis=0)[::-1] + 1)
    write_labelmap(tmp_path / "CT.nrrd", a_ct, ijk_to_ras)
    labels, scan = read_labels(path), sitk.ReadImage(str(tmp_path / "CT.nrrd"))
    (layer, *_) = labels.layers
    assert layer.GetSize() == scan.GetSize()
    for place in ((0, 0, 0), tuple(size - 1 for size in scan.GetSize())):
        found = layer.TransformIndexToPhysicalPoint(place)
        np.testing.assert_allclose(found, scan.TransformIndexToPhysicalPoint(place), atol=1e-4)
    for label, name in labels.names.items():
        np.testing.assert_array_equal(labels.mask(label), mask_of(name))


def test_a_segmentation_of_nothing_is_written_and_read(headless, volume_node, a_ct, tmp_path):
    node = headless.add_segmentation("organs", volume_node)
    add_segment(node, "liver")
    save_segmentation(node, tmp_path / "organs.seg.nrrd")
    labels = read_labels(tmp_path / "organs.seg.nrrd")
    assert labels.names == {1: "liver"}
    assert not labels.mask(1).any()


def test_voxels_from_a_file_are_not_copied_and_live_as_long_as_their_scene(headless, a_ct, tmp_path):
    write_labelmap(tmp_path / "CT.nrrd", a_ct, np.eye(4))
    volume = read_volume(tmp_path / "CT.nrrd")
    voxels = weakref.ref(volume.voxels.base)
    node = headless.add_volume(volume)
    assert np.shares_memory(slicer.util.arrayFromVolume(node), volume.voxels)
    del volume
    gc.collect()
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), a_ct)
    del node
    headless.scene.Clear(False)
    gc.collect()
    assert voxels() is None


def test_voxels_that_may_change_are_copied(headless, a_ct):
    node = headless.add_volume(Volume(a_ct, np.eye(4), "CT"))
    expected = a_ct.copy()
    a_ct[:] = 0
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), expected)


def test_segments_apart_share_one_layer(headless, volume_node, tmp_path):
    node = headless.add_segmentation("organs", volume_node)
    for name in ("liver", "right kidney"):
        SegmentWriter(node, add_segment(node, name), volume_node).add(mask_of(name), (0, 0, 0))
    save_segmentation(node, tmp_path / "organs.seg.nrrd")
    labels = read_labels(tmp_path / "organs.seg.nrrd")
    assert len(labels.layers) == 1
    assert labels.names == {1: "liver", 2: "right kidney"}
    for label, name in labels.names.items():
        assert labels.mask(label).sum() == mask_of(name).sum()


def test_a_segmentation_whose_last_bytes_find_no_room_is_not_written(headless, volume_node, tmp_path):
    node = headless.add_segmentation("organs", volume_node)
    noise = np.random.default_rng(2).random((10, 24, 30)) < 0.5
    SegmentWriter(node, add_segment(node, "noise"), volume_node).add(noise, (0, 0, 0))
    path = tmp_path / "organs.seg.nrrd"
    save_segmentation(node, path)
    size = path.stat().st_size
    path.unlink()
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 50, limits[1]))
    try:
        with pytest.raises(FileError, match=r"organs\.seg\.nrrd could not be written: is the disk full"):
            save_segmentation(node, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_segmentation_that_can_not_be_written_leaves_only_the_older_file(segmentation, tmp_path, monkeypatch):
    class FullDisk(slicer.vtkMRMLSegmentationStorageNode):
        def WriteData(self, node):
            Path(self.GetFileName()).write_bytes(b"NRRD0005 half")
            return 0

    path = tmp_path / "organs.seg.nrrd"
    path.write_text("older")
    nodes = segmentation.GetScene().GetNumberOfNodes()
    monkeypatch.setattr(slicer, "vtkMRMLSegmentationStorageNode", FullDisk)
    with pytest.raises(FileError, match=r"Slicer can't write .*organs\.seg\.nrrd: is the disk full"):
        save_segmentation(segmentation, path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "older"
    assert segmentation.GetScene().GetNumberOfNodes() == nodes
