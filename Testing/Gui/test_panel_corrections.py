"""Key slices in the panel: drawn in any view, dragged, deleted, listed, saved; and the way to where they are needed."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
import vtk

from geometries import FIRST, LAST
from MedSAMSlicerLib.mrml.boxes import key_slices_of, slice_in_view, structure_boxes
from MedSAMSlicerLib.mrml.key_slices import key_slice_of
from MedSAMSlicerLib.mrml.segments import SegmentWriter
from panel_user import box_mask

MIDDLE = (12, 10, 4)
# Two opposite corners of a box in a slice along each axis, through voxels (IJK).
CORNERS = {
    "Red": (2, [(8, 8, 4), (16, 13, 4)]),
    "Yellow": (0, [(12, 8, 3), (12, 13, 6)]),
    "Green": (1, [(8, 10, 3), (16, 10, 6)]),
}


@pytest.fixture
def made(user):
    """A segment made from one box, cut along K."""
    user.add_box()
    user.segment()
    np.testing.assert_array_equal(user.mask(), box_mask(user.volume_node))
    return user


def keys(user) -> list[slicer.vtkMRMLMarkupsROINode]:
    return key_slices_of(user.segmentation, user.segmentation.GetSegmentation().GetSegmentIDs()[0])


def view_of_axis(user, axis: int) -> str:
    """The view that shows slices along an axis; which one depends on the volume's geometry."""
    manager = user.gui.layout_manager
    for name in manager.sliceViewNames():
        if slice_in_view(manager.sliceWidget(name).mrmlSliceNode(), user.volume_node)[0] == axis:
            return name
    raise AssertionError(f"No view shows axis {axis}.")


@pytest.mark.parametrize(("axis", "corners"), CORNERS.values(), ids=["K", "I", "J"])
def test_a_box_drawn_in_any_view_corrects_its_slice_and_is_a_node_that_can_be_seen(made, axis, corners):
    view = view_of_axis(made, axis)
    made.look_at(view, MIDDLE)
    made.press("drawKeySliceButton")
    assert made.ui.drawKeySliceButton.checked
    made.click_voxels(view, *corners)
    made.wait()
    (key,) = keys(made)
    read = key_slice_of(key, made.volume_node)
    assert (read.axis, read.index) == (axis, MIDDLE[axis])
    assert key.GetDisplayNode().GetVisibility()
    place = [slice(None)] * 3
    place[2 - axis] = MIDDLE[axis]
    corrected = made.mask()[tuple(place)]
    assert 0 < corrected.sum() < box_mask(made.volume_node)[tuple(place)].sum()
    assert made.ui.keySlicesTable.rowCount == 1
    assert not made.ui.drawKeySliceButton.checked
    assert made.segments == ["lesion"]


def test_a_correction_along_the_slices_changes_nothing_beyond_the_next_corrected_one(made):
    view = view_of_axis(made, 2)
    for index in (3, 6):
        made.look_at(view, (12, 10, index))
        made.press("correctSliceButton")
        made.gui.pump()
    before = made.mask()
    assert len(keys(made)) == 2
    made.look_at(view, (12, 10, 4))
    made.press("drawKeySliceButton")
    made.click_voxels(view, (8, 8, 4), (16, 13, 4))
    made.wait()
    after = made.mask()
    changed = {int(index) for index in np.nonzero((before != after).any(axis=(1, 2)))[0]}
    assert 4 in changed
    assert changed <= {4, 5}


def test_deleting_a_key_slice_restores_the_segment(made):
    before = made.mask()
    view = view_of_axis(made, 2)
    made.look_at(view, MIDDLE)
    made.press("drawKeySliceButton")
    made.click_voxels(view, (8, 8, 4), (16, 13, 4))
    made.wait()
    assert not np.array_equal(made.mask(), before)
    made.ui.keySlicesTable.selectRow(0)
    made.press("deleteKeySliceButton")
    made.wait()
    np.testing.assert_array_equal(made.mask(), before)
    assert made.ui.keySlicesTable.rowCount == 0


def test_correct_this_slice_gives_a_box_around_the_mask_and_dragging_it_corrects(made):
    view = view_of_axis(made, 2)
    made.look_at(view, MIDDLE)
    made.press("correctSliceButton")
    (key,) = keys(made)
    read = key_slice_of(key, made.volume_node)
    assert (read.axis, read.index) == (2, 4)
    assert (read.box.x0, read.box.y0, read.box.x1, read.box.y1) == (FIRST[0], FIRST[1], LAST[0], LAST[1])
    before = made.mask()
    mouse = made.gui.mouse(view)
    center = np.array(key.GetCenterWorld())
    direction = np.array([key.GetObjectToWorldMatrix().GetElement(row, 0) for row in range(3)])
    handle = center + direction * (key.GetSize()[0] / 2 - 0.25)
    mouse.drag(mouse.ras_to_xy(handle), mouse.ras_to_xy(handle - direction * 5))
    made.wait()
    assert made.mask()[4].sum() < before[4].sum()
    # The box of the structure was hidden, as its handles lay over these; a click on it in the list shows it again.
    (display,) = [roi.GetDisplayNode() for roi in structure_boxes(slicer.mrmlScene)]
    assert not display.GetVisibility()
    made.ui.boxesTable.cellClicked.emit(0, 0)
    assert display.GetVisibility()


def test_a_painted_slice_can_be_kept(made):
    painted = np.zeros_like(made.mask())
    painted[4, 18:20, 6:10] = True
    segment_id = made.segmentation.GetSegmentation().GetSegmentIDs()[0]
    SegmentWriter(made.segmentation, segment_id, made.volume_node).add(painted, (0, 0, 0))
    made.look_at(view_of_axis(made, 2), MIDDLE)
    made.press("keepPaintedButton")
    made.wait()
    assert made.mask()[4, 18:20, 6:10].all()
    # And it stays when the box is segmented again.
    made.segment()
    assert made.mask()[4, 18:20, 6:10].all()


def test_the_user_is_led_to_the_most_doubtful_slice(made):
    ui = made.ui
    indices = [int(ui.reviewTable.item(row, 0).text().split()[1]) for row in range(ui.reviewTable.rowCount)]
    assert sorted(indices) == list(range(FIRST[2], LAST[2] + 1))
    first = made.widget.logic.slicesToReview(made.segmentation, made.panel.parameters.segmentID)[0]
    assert indices[0] == first.index
    node = made.gui.layout_manager.sliceWidget(view_of_axis(made, 2)).mrmlSliceNode()
    for row in (2, 0):
        ui.reviewTable.cellClicked.emit(row, 0)
        assert slice_in_view(node, made.volume_node) == (2, indices[row])
    ui.reviewTable.cellClicked.emit(1, 0)
    made.press("nextDoubtfulButton")
    assert slice_in_view(node, made.volume_node) == (2, indices[0])


def test_an_oblique_view_is_refused_in_words_and_leaves_no_node(made):
    view = view_of_axis(made, 2)
    node = made.gui.layout_manager.sliceWidget(view).mrmlSliceNode()
    made.look_at(view, MIDDLE)
    transform = slicer.vtkMRMLSliceNode.GetSliceToRAS(node)
    turned = vtk.vtkTransform()
    turned.SetMatrix(transform)
    turned.RotateX(40)
    node.GetSliceToRAS().DeepCopy(turned.GetMatrix())
    node.UpdateMatrices()
    made.look_at(view, MIDDLE)
    made.press("correctSliceButton")
    assert "turned by 40 degrees" in made.ui.statusLabel.text
    assert keys(made) == []
