"""ROI nodes as boxes of structures and as key slices of segments: what the scene remembers of them."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from geometries import affine, rotation
from MedSAMSlicerLib.headless.scene import HeadlessScene
from MedSAMSlicerLib.mrml.boxes import (
    bind,
    box_of,
    flatten,
    is_ticked,
    key_slice_axis,
    key_slices_of,
    new_key_slice,
    place_in_slice,
    segment_of,
    slice_in_view,
    structure_boxes,
    structure_of,
    tick,
)
from MedSAMSlicerLib.mrml.key_slices import key_slice_of
from MedSAMSlicerLib.mrml.transforms import matrix_from_numpy
from MedSAMSlicerLib.mrml.volumes import ijk_to_world
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.geometry import plane_axes, voxel_box_corners


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_box_placed_in_a_slice_is_that_key_slice_again(headless, volume_node, axis):
    key = new_key_slice(headless.scene, "key")
    place_in_slice(key, volume_node, axis, 4, Box(3, 5, 9, 8))
    read = key_slice_of(key, volume_node)
    assert (read.axis, read.index, read.box) == (axis, 4, Box(3, 5, 9, 8))
    assert key_slice_axis(key, volume_node) == axis


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_thick_box_is_flattened_to_the_slice_of_its_center(headless, volume_node, axis):
    first, last = (5, 6, 2), (21, 16, 8)
    roi = headless.add_roi("R", ijk_to_world(volume_node), voxel_box_corners(first, last))
    flatten(roi, volume_node, axis)
    key = key_slice_of(roi, volume_node)
    x, y = plane_axes(axis)
    assert (key.axis, key.index) == (axis, (first[axis] + last[axis]) // 2)
    assert key.box == Box(first[x], first[y], last[x], last[y])


def test_the_scene_remembers_which_segment_a_box_made(headless, session, volume_node, segmentation, roi, tmp_path):
    segment_id = session.segment(volume_node, roi, segmentation)
    bind(roi, segmentation, segment_id)
    tick(roi, True)
    key = new_key_slice(headless.scene, "key")
    place_in_slice(key, volume_node, 2, 4, Box(6, 7, 12, 11))
    bind(key, segmentation, segment_id)
    assert headless.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    # Slicer's own reading of the archive needs the application's cache folder.
    zipfile.ZipFile(tmp_path / "scene.mrb").extractall(tmp_path)
    (description,) = tmp_path.rglob("*.mrml")
    loaded = HeadlessScene()
    loaded.scene.SetURL(str(description))
    assert loaded.scene.Import()
    again = loaded.scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    volume = loaded.scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
    box = box_of(again, segment_id)
    assert box.GetName() == "lesion"
    assert is_ticked(box)
    assert [each.GetName() for each in key_slices_of(again, segment_id)] == ["key"]
    structure = structure_of(again, segment_id, volume)
    assert (structure.name, structure.segment_id) == ("lesion", segment_id)
    (slice_again,) = structure.key_slices
    # Slicer turns left-handed volumes around when it reads them: the slice is compared in the world.
    for matrix, index in ((ijk_to_world(volume_node), 4), (ijk_to_world(volume), slice_again.index)):
        normal = matrix[:3, 2] / np.linalg.norm(matrix[:3, 2])
        assert abs(normal @ (key.GetCenterWorld() - (matrix @ [0, 0, index, 1])[:3])) < 1e-3
    assert slice_again.axis == 2


def test_a_key_slice_is_no_box_of_a_structure_and_an_unplaced_one_is_none(
    headless, segmentation, roi, session, volume_node
):
    segment_id = session.segment(volume_node, roi, segmentation)
    key = new_key_slice(headless.scene, "key")
    bind(key, segmentation, segment_id)
    assert structure_boxes(headless.scene) == [roi]
    assert key_slices_of(segmentation, segment_id) == []


def test_a_box_whose_segment_is_gone_belongs_to_none(session, volume_node, segmentation, roi):
    segment_id = session.segment(volume_node, roi, segmentation)
    bind(roi, segmentation, segment_id)
    assert segment_of(roi, segmentation) == segment_id
    segmentation.GetSegmentation().RemoveSegment(segment_id)
    assert segment_of(roi, segmentation) is None
    assert segment_of(roi, None) is None


def test_an_roi_that_serves_something_else_is_not_ticked(roi):
    assert not is_ticked(roi)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_view_of_the_volumes_slices_names_the_slice(headless, volume_node, axis):
    matrix = ijk_to_world(volume_node)
    view = view_of(headless, matrix, axis, 3.2, np.eye(3))
    assert slice_in_view(view, volume_node) == (axis, 3)
    # A view that is turned in its own plane, or a little out of it, shows the same slices.
    assert slice_in_view(view_of(headless, matrix, axis, 3, rotation(0, 0, 33)), volume_node) == (axis, 3)
    assert slice_in_view(view_of(headless, matrix, axis, 3, rotation(15, 0, 0)), volume_node) == (axis, 3)


def test_an_oblique_view_and_one_beside_the_volume_are_refused_with_a_remedy(headless, volume_node):
    matrix = ijk_to_world(volume_node)
    with pytest.raises(ValueError, match=r"turned by 40 degrees .* use another view"):
        slice_in_view(view_of(headless, matrix, 2, 3, rotation(40, 0, 0)), volume_node)
    with pytest.raises(ValueError, match="shows no slice of the volume"):
        slice_in_view(view_of(headless, matrix, 2, 50, np.eye(3)), volume_node)


def view_of(headless, ijk_to_ras: np.ndarray, axis: int, index: float, turned: np.ndarray):
    """A slice view through the middle of the volume's slice, turned against it."""
    directions = ijk_to_ras[:3, :3] / np.linalg.norm(ijk_to_ras[:3, :3], axis=0)
    x, y = plane_axes(axis)
    position = np.array([14.0, 11.0, 4.0])
    position[axis] = index
    frame = np.stack([directions[:, x], directions[:, y], directions[:, axis]], axis=1) @ turned
    node = headless.scene.AddNewNodeByClass("vtkMRMLSliceNode")
    node.SetLayoutName("Red")
    node.GetSliceToRAS().DeepCopy(matrix_from_numpy(affine(frame, (1, 1, 1), tuple((ijk_to_ras @ [*position, 1])[:3]))))
    node.UpdateMatrices()
    return node
