"""Boxes on one slice: what makes an ROI one, what makes it a 3-D box, and what is segmented from it."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import slicer
import vtk

from box_predictor import BoxPredictor, FilledBoxes, Shape, no_features
from geometries import rotation
from MedSAMSlicerLib.headless.scene import HeadlessScene
from MedSAMSlicerLib.mrml.boxes import flatten
from MedSAMSlicerLib.mrml.markups import ijk_corners
from MedSAMSlicerLib.mrml.outcomes import told
from MedSAMSlicerLib.mrml.segments import segment_mask, segment_span
from MedSAMSlicerLib.mrml.session import SegmentationSession
from MedSAMSlicerLib.mrml.slice_boxes import has_depth, is_on_slice, key_on_slice, lay, make_3d, show_found, slice_of
from MedSAMSlicerLib.mrml.structure import Structure
from MedSAMSlicerLib.mrml.transforms import matrix_from_numpy
from MedSAMSlicerLib.mrml.volumes import ijk_to_world
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.files import Volume
from MedSAMSlicerLib.volume.geometry import transform_points, voxel_box_corners
from MedSAMSlicerLib.volume.slice_masks import Outcome

LOWEST, HIGHEST = (5, 6, 2), (20, 15, 7)
IN_PLANE = {0: Box(6, 2, 15, 7), 1: Box(5, 2, 20, 7), 2: Box(5, 6, 20, 15)}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_roi_becomes_a_box_on_a_slice_and_a_3d_box_again(headless, volume_node, roi, axis):
    assert not is_on_slice(roi)
    lay(roi, volume_node, axis, 4)
    assert is_on_slice(roi)
    assert not has_depth(roi)
    assert np.ptp(ijk_corners(roi, volume_node)[:, axis]) == pytest.approx(0.5, abs=1e-4)
    key = key_on_slice(roi, volume_node)
    assert (key.axis, key.index, key.box) == (axis, 4, IN_PLANE[axis])
    make_3d(roi)
    assert not is_on_slice(roi)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_depth_that_was_found_is_shown_and_the_box_stays_on_its_slice(volume_node, roi, axis):
    lay(roi, volume_node, axis, 4)
    show_found(roi, volume_node, 1, 8)
    depth = ijk_corners(roi, volume_node)[:, axis]
    assert (depth.min(), depth.max()) == (pytest.approx(0.5, abs=1e-4), pytest.approx(8.5, abs=1e-4))
    assert is_on_slice(roi)
    assert has_depth(roi)
    key = key_on_slice(roi, volume_node)
    assert (key.axis, key.index, key.box) == (axis, 4, IN_PLANE[axis])


def moved(roi: slicer.vtkMRMLMarkupsROINode, object_axis: int, millimeters: float) -> None:
    """Move an ROI along one of its own axes, as its handle in the middle does."""
    to_node = roi.GetObjectToNodeMatrix()
    direction = np.array([to_node.GetElement(row, object_axis) for row in range(3)])
    roi.SetCenter(*(np.array(roi.GetCenter()) + millimeters * direction))


def test_a_drag_within_the_slice_keeps_it_and_what_changes_its_depth_makes_a_3d_box(volume_node, roi):
    lay(roi, volume_node, 2, 4)
    show_found(roi, volume_node, 1, 8)
    moved(roi, 0, 3.0)
    moved(roi, 1, -2.0)
    x, y, z = roi.GetSize()
    roi.SetSize(x - 2, y, z)
    assert is_on_slice(roi)
    assert slice_of(roi, volume_node) == (2, 4)
    moved(roi, 2, 1.0)
    assert not is_on_slice(roi), "moved along the axis of its slices"
    moved(roi, 2, -1.0)
    roi.SetSize(x, y, z + 1.0)
    assert not is_on_slice(roi), "its depth was set"


def test_a_flat_box_may_be_moved_to_another_slice_but_not_be_given_a_depth(volume_node, roi):
    lay(roi, volume_node, 2, 4)
    thickness = np.linalg.norm(ijk_to_world(volume_node)[:3, 2])
    moved(roi, 2, 2 * thickness)
    assert slice_of(roi, volume_node) == (2, 6)
    x, y, z = roi.GetSize()
    roi.SetSize(x, y, z + 4 * thickness)
    assert not is_on_slice(roi)


def test_a_box_that_is_turned_is_a_3d_box(volume_node, roi):
    lay(roi, volume_node, 2, 4)
    turned = vtk.vtkTransform()
    turned.SetMatrix(roi.GetObjectToNodeMatrix())
    turned.RotateX(10)
    roi.SetAndObserveObjectToNodeMatrix(turned.GetMatrix())
    assert not is_on_slice(roi)


@pytest.mark.parametrize("degrees", [0, 12, 30])
def test_an_roi_turned_against_all_slices_is_refused(headless, volume_node, roi, degrees):
    turned = vtk.vtkTransform()
    turned.SetMatrix(roi.GetObjectToNodeMatrix())
    turned.RotateX(degrees)
    turned.RotateY(degrees)
    roi.SetAndObserveObjectToNodeMatrix(turned.GetMatrix())
    if degrees < 20:
        lay(roi, volume_node, 2, 4)
        assert slice_of(roi, volume_node) == (2, 4)
        return
    before = roi.GetSize()
    with pytest.raises(ValueError, match=r"'lesion' is turned .* leave it a 3-D box, or place it anew"):
        lay(roi, volume_node, 2, 4)
    assert roi.GetSize() == before
    assert not is_on_slice(roi)


def test_a_transform_moves_the_box_and_it_stays_what_it_is(headless, volume_node, roi):
    lay(roi, volume_node, 2, 4)
    show_found(roi, volume_node, 3, 6)
    transform = headless.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = np.eye(4)
    matrix[:3, 3] = ijk_to_world(volume_node)[:3, 2] * 2
    transform.SetMatrixTransformToParent(matrix_from_numpy(matrix))
    roi.SetAndObserveTransformNodeID(transform.GetID())
    assert slice_of(roi, volume_node) == (2, 6)
    show_found(roi, volume_node, 5, 7)
    depth = ijk_corners(roi, volume_node)[:, 2]
    assert (depth.min(), depth.max()) == (pytest.approx(4.5, abs=1e-4), pytest.approx(7.5, abs=1e-4))
    # Together with the volume nothing moves.
    volume_node.SetAndObserveTransformNodeID(transform.GetID())
    assert slice_of(roi, volume_node) == (2, 4)
    turned = np.eye(4)
    turned[:3, :3] = rotation(30, 40, 0)
    transform.SetMatrixTransformToParent(matrix_from_numpy(turned))
    assert slice_of(roi, volume_node) == (2, 4)
    volume_node.SetAndObserveTransformNodeID(None)
    with pytest.raises(ValueError, match="is turned by"):
        slice_of(roi, volume_node)


@pytest.mark.parametrize("found", [False, True], ids=["flat", "found"])
def test_the_scene_keeps_it(headless, volume_node, roi, tmp_path, found):
    lay(roi, volume_node, 2, 4)
    if found:
        show_found(roi, volume_node, 1, 8)
    assert headless.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    zipfile.ZipFile(tmp_path / "scene.mrb").extractall(tmp_path)
    (description,) = tmp_path.rglob("*.mrml")
    loaded = HeadlessScene()
    loaded.scene.SetURL(str(description))
    assert loaded.scene.Import()
    again = loaded.scene.GetFirstNodeByClass("vtkMRMLMarkupsROINode")
    volume = loaded.scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
    assert is_on_slice(again)
    assert has_depth(again) is found
    # Slicer turns left-handed volumes around when it reads them: the slice is compared in the world.
    axis, index = slice_of(again, volume)
    position = np.zeros((1, 3))
    position[0, axis] = index
    there = transform_points(np.linalg.inv(ijk_to_world(volume_node)) @ ijk_to_world(volume), position)[0]
    assert there[2] == pytest.approx(4, abs=1e-3)


def test_a_box_drawn_in_an_oblique_slice_is_what_was_drawn(headless, volume_node):
    """Slicer lays an ROI along the patient's axes, so that two clicks in an oblique slice give two corners of it."""
    matrix = ijk_to_world(volume_node)
    one, other = transform_points(matrix, np.array([[6.0, 7.0, 4.0], [18.0, 14.0, 4.0]]))
    roi = headless.scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "clicked")
    roi.SetCenter(*((one + other) / 2))
    size = np.abs(other - one)
    size[size < 1e-9] = size[size > 1e-9].min()
    roi.SetSize(*size)
    flatten(roi, volume_node, 2)
    lay(roi, volume_node, 2, 4)
    assert key_on_slice(roi, volume_node).box == Box(6, 7, 18, 14)


# First and last voxel (IJK) of a bright block.
FIRST, LAST = (12, 10, 5), (27, 23, 13)


def block() -> np.ndarray:
    mask = np.zeros((20, 36, 40), dtype=bool)
    mask[FIRST[2] : LAST[2] + 1, FIRST[1] : LAST[1] + 1, FIRST[0] : LAST[0] + 1] = True
    return mask


def bright(mask: np.ndarray) -> Volume:
    """A CT of soft tissue in which a mask is bright; the lowest slice is air."""
    voxels = np.random.default_rng(3).normal(0, 10, mask.shape)
    voxels[mask] += 300
    return Volume(voxels.astype(np.int16), np.diag([1.0, 1.0, 2.5, 1.0]), "CT")


class BrightPredictor(BoxPredictor):
    """Segments the bright pixels inside of a box."""

    def encode(self, image: np.ndarray) -> np.ndarray:
        super().encode(image)
        return image > 200

    def decode(self, embedding, boxes, window=None) -> FilledBoxes:
        filled = super().decode(Shape(*embedding.shape), boxes)
        return FilledBoxes(filled.probabilities * embedding * np.float32(0.95), filled.iou).within(window)

    def features(self, embedding: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
        return no_features(*embedding.shape)


class TestSegmenting:
    """The bright block is found from a box on one of its slices."""

    @pytest.fixture
    def session(self) -> SegmentationSession:
        return SegmentationSession(BrightPredictor())

    @pytest.fixture
    def volume(self, headless: HeadlessScene):
        return headless.add_volume(bright(block()))

    @pytest.fixture
    def drawn(self, headless: HeadlessScene, volume):
        """Around the block, with a depth that is not the block's."""
        first, last = (FIRST[0] - 2, FIRST[1] - 2, 7), (LAST[0] + 2, LAST[1] + 2, 15)
        return headless.add_roi("block", ijk_to_world(volume), voxel_box_corners(first, last))

    def test_a_box_on_a_slice_is_followed_and_a_3d_box_is_not(self, session, volume, drawn, segmentation):
        in_box = session.segment(volume, drawn, segmentation)
        assert segment_span(segmentation, in_box, volume, 2) == range(7, LAST[2] + 1)
        lay(drawn, volume, 2, 9)
        task = session.begin(volume, segmentation, [Structure.of_roi(volume, drawn)])
        list(session.run(task))
        (followed,) = task.segment_ids
        np.testing.assert_array_equal(segment_mask(segmentation, followed, volume), block())
        assert segment_span(segmentation, followed, volume, 2) == range(FIRST[2], LAST[2] + 1)
        assert task.outcomes == {followed: Outcome()}

    def test_the_axis_of_the_slices_is_that_of_the_box(self, session, volume, drawn, segmentation):
        lay(drawn, volume, 0, 20)
        x, _y, z = drawn.GetSize()
        drawn.SetSize(x, 25.0, z + 10)
        for axis in ("auto", "k"):
            segment_id = session.segment(volume, drawn, segmentation, axis=axis)
            np.testing.assert_array_equal(segment_mask(segmentation, segment_id, volume), block())

    def test_a_limit_in_millimeters_ends_it_before(self, session, volume, drawn, segmentation):
        lay(drawn, volume, 2, 9)
        segment_id = session.segment(volume, drawn, segmentation, limit=2 * 2.5)
        assert segment_span(segmentation, segment_id, volume, 2) == range(7, 12)
        with pytest.raises(ValueError, match=r"The limit is 0 mm: give a distance above 0"):
            session.segment(volume, drawn, segmentation, limit=0)

    def test_corrections_and_the_box_work_together(self, session, volume, drawn, headless, segmentation):
        lay(drawn, volume, 2, 9)
        segment_id = session.segment(volume, drawn, segmentation)
        corners = voxel_box_corners((FIRST[0], FIRST[1], 11), (FIRST[0] + 5, LAST[1], 11))
        corners[:, 2] = 11
        key = headless.add_roi("correction", ijk_to_world(volume), corners)
        session.segment(volume, drawn, segmentation, segment_id, key_slices=[key])
        mask = segment_mask(segmentation, segment_id, volume)
        assert not mask[11, :, FIRST[0] + 6 :].any()
        np.testing.assert_array_equal(mask[9], block()[9])
        session.segment(volume, drawn, segmentation, segment_id)
        np.testing.assert_array_equal(segment_mask(segmentation, segment_id, volume), block())

    def test_a_volume_that_ends_before_the_structure_is_told(self, session, headless, segmentation):
        mask = block()
        mask[:, 10:24, 12:28] = True
        volume = headless.add_volume(bright(mask))
        structure = Structure.of_slice(volume, 19, (10, 8, 30, 26), "k", "to the end")
        task = session.begin(volume, segmentation, [structure])
        list(session.run(task))
        (outcome,) = task.outcomes.values()
        assert told(outcome) == [
            "It was followed to the first and the last slice of the volume: "
            "set a limit in millimeters, or give it ends (a 3-D box), if it should end before."
        ]
        task = session.begin(volume, segmentation, [structure], limit=10.0)
        list(session.run(task))
        assert [told(outcome) for outcome in task.outcomes.values()] == [
            [
                "It was followed to the last slice of the volume: "
                "set a limit in millimeters, or give it ends (a 3-D box), if it should end before."
            ]
        ]

    def test_an_empty_slice_changes_nothing(self, session, volume, segmentation):
        structure = Structure.of_slice(volume, 2, (10, 8, 30, 26), "k", "air")
        task = session.begin(volume, segmentation, [structure])
        with pytest.raises(ValueError, match=r"Nothing was found in the box .* slice 2: draw it around the structure"):
            list(session.run(task))
        assert segmentation.GetSegmentation().GetNumberOfSegments() == 0
        assert not session.undoable(segmentation)

    def test_another_propagation_is_refused(self, session, volume, drawn, segmentation):
        lay(drawn, volume, 2, 9)
        with pytest.raises(ValueError, match="'reference' can't follow a box on one slice: use 'auto'"):
            session.segment(volume, drawn, segmentation, propagation="reference")


@pytest.mark.parametrize(
    ("index", "box", "axis", "told_instead"),
    [
        (10, (5, 6, 20, 15), "k", "There is no slice 10 along axis K: the volume has 10 slices there"),
        (-1, (5, 6, 20, 15), "k", "There is no slice -1 along axis K"),
        (4, (40, 6, 50, 15), "k", "'lesion' lies outside of the volume 'CT': move it"),
        (4, (5, 6, 5, 6), "k", "'lesion' on slice K 4 is a single pixel: draw it around"),
        (4, (20, 6, 5, 15), "k", "is inverted"),
        (4, (5, 6, 20), "k", r"has 3 numbers: give \(x0, y0, x1, y1\)"),
        (4, (5, 6, 20, float("nan")), "k", "not a finite number"),
        (4, (5, 6, 20, 15), "z", "axis 'z' is unknown"),
    ],
)
def test_a_box_on_a_slice_that_is_none_is_refused_in_words(volume_node, index, box, axis, told_instead):
    with pytest.raises(ValueError, match=told_instead):
        Structure.of_slice(volume_node, index, box, axis, "lesion")


def test_an_roi_on_no_slice_of_the_volume_is_refused_in_words(volume_node, roi):
    lay(roi, volume_node, 2, 4)
    moved(roi, 2, 1000.0)
    with pytest.raises(ValueError, match=r"slice of the ROI 'lesion' lies outside of the volume 'CT': move it"):
        Structure.of_roi(volume_node, roi)
    moved(roi, 2, -1000.0)
    moved(roi, 0, 1000.0)
    with pytest.raises(ValueError, match=r"'lesion' lies outside of the volume 'CT': move it"):
        Structure.of_roi(volume_node, roi)


@pytest.mark.parametrize(
    ("outcome", "sentences"),
    [(Outcome(), []), (Outcome(1), ["1 fragment was dropped."]), (Outcome(3), ["3 fragments were dropped."])],
)
def test_fragments_are_counted(outcome, sentences):
    assert told(outcome) == sentences
