"""Boxes on one slice: placed by two clicks in a slice view, followed until the structure ends, and dragged."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
import vtk

from geometries import FIRST, LAST
from MedSAMSlicerLib.mrml.boxes import slice_in_view, structure_boxes
from MedSAMSlicerLib.mrml.markups import ijk_corners
from MedSAMSlicerLib.mrml.slice_boxes import has_depth, is_on_slice, slice_of
from MedSAMSlicerLib.volume.slice_masks import Outcome
from panel_user import GEOMETRY, box_mask, is_in_sight

pytestmark = pytest.mark.usefixtures("bright_structure")
MIDDLE = (12, 10, 4)
# Two opposite corners around the structure in the slice of its middle.
CORNERS = [(3, 4, 4), (23, 18, 4)]


def place(user, view: str = "Red", corners=None) -> slicer.vtkMRMLMarkupsROINode:
    """Place an ROI by two clicks, and return it."""
    if view != "3D":
        user.look_at(view, MIDDLE)
    user.press("placeROIButton")
    if view == "3D":
        user.gui.layout_manager.resetThreeDViews()
        for position in ((120, 120), (180, 170)):
            user.gui.mouse("3D").click(position)
            user.gui.pump()
    else:
        user.click_voxels(view, *(corners or CORNERS))
    user.gui.pump(until=lambda: not user.ui.placeROIButton.checked)
    return structure_boxes(slicer.mrmlScene)[-1]


def kind(user, row: int = 0) -> str:
    """What the table says of a box."""
    return user.ui.boxesTable.item(row, 1).text()


def choose_kind(user, text: str) -> None:
    check = user.gui.qt.Qt.Checked if text == "one slice" else user.gui.qt.Qt.Unchecked
    user.ui.boxesTable.item(0, 1).setCheckState(check)
    user.gui.pump()


def depth(user, roi: slicer.vtkMRMLMarkupsROINode) -> tuple[float, float]:
    """From where to where an ROI reaches, in slices."""
    slices = ijk_corners(roi, user.volume_node)[:, 2]
    return round(float(slices.min()), 3), round(float(slices.max()), 3)


def drag_face(user, roi, axis: int, view: str, slices: float, side: int = 1) -> None:
    """Drag the handle of an ROI's face along one of the volume's axes, by voxels."""
    user.look_at(view, (np.linalg.inv(GEOMETRY) @ [*roi.GetCenterWorld(), 1])[:3])
    to_ijk = np.linalg.inv(GEOMETRY)
    center = (to_ijk @ [*roi.GetCenterWorld(), 1])[:3]
    corners = ijk_corners(roi, user.volume_node)
    start, step = center.copy(), np.zeros(3)
    start[axis] = corners[:, axis].max() if side > 0 else corners[:, axis].min()
    step[axis] = slices
    mouse = user.gui.mouse(view)
    mouse.drag(*(mouse.ras_to_xy((GEOMETRY @ [*ijk, 1])[:3]) for ijk in (start, start + step)))
    user.gui.pump()


def view_along(user, axis: int) -> str:
    """The view that shows slices along an axis."""
    manager = user.gui.layout_manager
    return next(
        name
        for name in manager.sliceViewNames()
        if slice_in_view(manager.sliceWidget(name).mrmlSliceNode(), user.volume_node)[0] == axis
    )


def test_two_clicks_run_depth_drag_of_the_depth_run_undo(gui, user, volume_node):
    roi = place(user)
    assert is_on_slice(roi)
    assert slice_of(roi, volume_node) == (2, 4)
    assert kind(user) == "one slice"
    assert depth(user, roi) == (3.75, 4.25), "in its slice only, whatever depth Slicer gave it"
    across = gui.layout_manager.sliceWidget(view_along(user, 1)).mrmlSliceNode()
    assert slice_in_view(across, volume_node) == (1, (CORNERS[0][1] + CORNERS[1][1]) // 2), "the others show it"

    user.segment()
    np.testing.assert_array_equal(user.mask(), box_mask(volume_node))
    assert depth(user, roi) == (FIRST[2] - 0.5, LAST[2] + 0.5), "the depth that was found is shown"
    assert kind(user) == "one slice"
    assert user.ui.statusLabel.text.startswith("Done")

    drag_face(user, roi, 2, view_along(user, 1), -2.0)
    low, high = depth(user, roi)
    assert low == pytest.approx(FIRST[2] - 0.5, abs=0.01)
    assert 4.6 < high < LAST[2] - 0.5
    assert kind(user) == "3-D box"
    user.segment()
    ends = box_mask(volume_node, FIRST, (LAST[0], LAST[1], int(high)))
    np.testing.assert_array_equal(user.mask(), ends)
    assert depth(user, roi) == (low, high), "its ends hold"

    user.press("undoButton")
    np.testing.assert_array_equal(user.mask(), box_mask(volume_node))
    assert depth(user, roi) == (low, high)
    user.press("undoButton")
    assert user.segments == []


def test_a_box_that_was_placed_or_chosen_is_in_sight_in_all_views(gui, user):
    names = ("Red", "Green", "Yellow", "3D")
    camera = slicer.modules.cameras.logic().GetViewActiveCameraNode(gui.layout_manager.threeDWidget(0).mrmlViewNode())

    def look_away(*but: str) -> None:
        camera.SetPosition(3000.0, 3000.0, 3000.0)
        camera.SetFocalPoint(3000.0, 2000.0, 3000.0)
        for name in {"Red", "Green", "Yellow"}.difference(but):
            gui.layout_manager.sliceWidget(name).mrmlSliceNode().JumpSliceByCentering(500.0, 500.0, 500.0)

    view = view_along(user, 2)
    look_away(view)
    roi = place(user, view)
    assert [name for name in names if is_in_sight(gui, name, roi)] == list(names)
    look_away()
    assert not any(is_in_sight(gui, name, roi) for name in names)
    user.ui.boxesTable.cellClicked.emit(0, 0)
    assert [name for name in names if is_in_sight(gui, name, roi)] == list(names)
    # What is in sight is not moved.
    node = gui.layout_manager.sliceWidget(view).mrmlSliceNode()
    before = slicer.util.arrayFromVTKMatrix(node.GetXYToRAS())
    node.SetXYZOrigin(10, 5, 0)
    moved = slicer.util.arrayFromVTKMatrix(node.GetXYToRAS())
    assert not np.allclose(before, moved)
    user.ui.boxesTable.cellClicked.emit(0, 0)
    np.testing.assert_allclose(slicer.util.arrayFromVTKMatrix(node.GetXYToRAS()), moved)


def test_the_name_of_a_box_does_not_cover_what_it_holds(gui, user):
    view = view_along(user, 2)
    roi = place(user, view)
    roi.SetName("a rather long name")
    user.segment()
    user.look_at(view, MIDDLE)
    user.gui.mouse(view).move((1, 1))
    mouse = gui.mouse(view)
    (x0, y0), (x1, y1) = (mouse.ras_to_xy((GEOMETRY @ [*ijk, 1])[:3]) for ijk in CORNERS)
    picture = gui.picture(view)[::-1]
    roi.GetDisplayNode().SetVisibility(False)
    without = gui.picture(view)[::-1]
    # Between edges, handles and the one in the middle.
    (low, middle, high), (center, right) = np.sort([y0, (y0 + y1) / 2, y1]), ((x0 + x1) / 2, max(x0, x1))
    for bottom, top in ((low, middle), (middle, high)):
        part = np.s_[int(bottom) + 12 : int(top) - 12, int(center) + 12 : int(right) - 12]
        assert picture[part].size > 300
        np.testing.assert_array_equal(picture[part], without[part])


def test_after_a_drag_within_the_slice_the_depth_is_found_again_and_undo_shows_the_one_before(gui, user, volume_node):
    user.ui.autoUpdateCheckBox.click()
    roi = place(user)
    user.wait()
    whole = box_mask(volume_node)
    np.testing.assert_array_equal(user.mask(), whole)
    drag_face(user, roi, 0, view_along(user, 2), -8.0)
    user.wait()
    assert kind(user) == "one slice"
    assert depth(user, roi) == (FIRST[2] - 0.5, LAST[2] + 0.5)
    assert 0 < user.mask().sum() < whole.sum()
    assert user.mask().any(axis=(1, 2)).sum() == LAST[2] - FIRST[2] + 1
    assert len(user.segments) == 1
    # As if less had been found.
    voxels = slicer.util.arrayFromVolume(volume_node)
    voxels[6:] = 0
    slicer.util.arrayFromVolumeModified(volume_node)
    user.segment()
    assert depth(user, roi) == (FIRST[2] - 0.5, 5.5)
    user.press("undoButton")
    assert depth(user, roi) == (FIRST[2] - 0.5, LAST[2] + 0.5)
    user.press("undoButton")
    user.press("undoButton")
    assert user.segments == []
    assert depth(user, roi) == (3.75, 4.25)
    assert kind(user) == "one slice"
    user.press("redoButton")
    assert depth(user, roi) == (FIRST[2] - 0.5, LAST[2] + 0.5)


def test_a_box_placed_in_the_3d_view_or_made_by_code_is_a_3d_box(gui, user):
    roi = place(user, "3D")
    assert kind(user) == "3-D box"
    assert not is_on_slice(roi)
    user.add_box()
    assert kind(user, 1) == "3-D box"


def test_corners_in_different_slices_make_a_3d_box(gui, user):
    user.look_at("Red", MIDDLE)
    user.press("placeROIButton")
    user.click_voxels("Red", (3, 4, 4))
    user.look_at("Red", (12, 10, 7))
    user.click_voxels("Red", (23, 18, 7))
    (roi,) = structure_boxes(slicer.mrmlScene)
    assert kind(user) == "3-D box"
    assert depth(user, roi) == (4, 7)
    assert "different slices" in user.ui.statusLabel.text


def test_a_box_in_an_oblique_view_is_a_3d_box_and_the_user_is_told(gui, user):
    node = gui.layout_manager.sliceWidget("Red").mrmlSliceNode()
    turned = vtk.vtkTransform()
    turned.SetMatrix(node.GetSliceToRAS())
    turned.RotateX(40)
    node.GetSliceToRAS().DeepCopy(turned.GetMatrix())
    node.UpdateMatrices()
    user.look_at("Red", MIDDLE)
    user.press("placeROIButton")
    for position in ((120, 120), (180, 170)):
        gui.mouse("Red").click(position)
        gui.pump()
    assert kind(user) == "3-D box"
    assert "turned by 40 degrees" in user.ui.statusLabel.text
    assert "The box is a 3-D box." in user.ui.statusLabel.text


def test_the_kind_is_switched_in_the_table(gui, user, volume_node):
    roi = user.add_box(last=(LAST[0], LAST[1], 5))
    before = roi.GetSize()
    choose_kind(user, "one slice")
    assert slice_of(roi, volume_node) == (2, 4)
    assert depth(user, roi) == (3.75, 4.25)
    user.segment()
    np.testing.assert_array_equal(user.mask(), box_mask(volume_node))
    choose_kind(user, "3-D box")
    assert not is_on_slice(roi)
    assert depth(user, roi) == (FIRST[2] - 0.5, LAST[2] + 0.5), "it keeps the depth that was found"
    assert roi.GetSize()[:2] == before[:2]
    user.ui.boxesTable.item(0, 0).setText("right kidney of the patient")
    gui.pump()
    table = user.ui.boxesTable
    assert table.columnWidth(0) >= table.sizeHintForColumn(0), "the name can be read"


def test_a_box_that_is_on_no_slice_stays_a_3d_box_and_the_user_is_told(gui, user):
    roi = user.add_box()
    turned = vtk.vtkTransform()
    turned.SetMatrix(roi.GetObjectToNodeMatrix())
    turned.RotateX(35)
    roi.SetAndObserveObjectToNodeMatrix(turned.GetMatrix())
    gui.pump()
    before = roi.GetSize()
    choose_kind(user, "one slice")
    assert kind(user) == "3-D box"
    assert "on none of them" in user.ui.statusLabel.text
    assert roi.GetSize() == before


def test_corrections_work_together_with_a_box_on_one_slice(gui, user, volume_node):
    roi = place(user)
    user.segment()
    user.look_at("Red", (12, 10, 6))
    user.press("drawKeySliceButton")
    user.click_voxels("Red", (3, 4, 6), (12, 18, 6))
    user.wait()
    corrected = user.mask()
    assert not corrected[6, :, 13:].any()
    np.testing.assert_array_equal(corrected[4], box_mask(volume_node)[4])
    assert depth(user, roi) == (FIRST[2] - 0.5, LAST[2] + 0.5)
    user.ui.keySlicesTable.selectRow(0)
    user.press("deleteKeySliceButton")
    user.wait()
    np.testing.assert_array_equal(user.mask(), box_mask(volume_node))


def test_a_structure_that_leaves_the_volume_is_told_and_a_limit_ends_it(gui, user, volume_node):
    voxels = slicer.util.arrayFromVolume(volume_node)
    voxels[:, FIRST[1] : LAST[1] + 1, FIRST[0] : LAST[0] + 1] = 350
    slicer.util.arrayFromVolumeModified(volume_node)
    roi = place(user)
    user.segment()
    assert "followed to the first and the last slice of the volume: set a limit" in user.ui.statusLabel.text
    assert depth(user, roi) == (-0.5, 9.5)
    user.ui.limitSpinBox.setValue(2 * 2.5)
    gui.pump()
    assert user.panel.parameters.limit == 5.0
    user.segment()
    assert "followed" not in user.ui.statusLabel.text
    assert depth(user, roi) == (1.5, 6.5)


def test_dropped_fragments_are_told(gui, user, monkeypatch):
    monkeypatch.setattr("MedSAMSlicerLib.volume.segmentation.Outcome", lambda _dropped, ends: Outcome(3, ends))
    place(user)
    user.segment()
    assert "3 fragments were dropped." in user.ui.statusLabel.text


def test_a_slice_without_the_structure_changes_nothing(gui, user):
    roi = place(user, corners=[(22, 17, 4), (28, 22, 4)])
    user.segment()
    assert "Nothing was found" in user.ui.statusLabel.text
    assert user.segments == []
    assert kind(user) == "one slice"
    assert depth(user, roi) == (3.75, 4.25)


def test_a_saved_scene_keeps_the_kind(gui, user, tmp_path):
    place(user)
    user.segment()
    user.add_box("other")
    (tmp_path / "saved").mkdir()
    gui.app.applicationLogic().SaveSceneToSlicerDataBundleDirectory(str(tmp_path / "saved"), None)
    gui.scene.Clear(0)
    gui.pump()
    gui.scene.SetURL(str(next((tmp_path / "saved").glob("*.mrml"))))
    assert gui.scene.Connect()
    gui.pump()
    assert [kind(user, row) for row in range(2)] == ["one slice", "3-D box"]
    first, _other = structure_boxes(gui.scene)
    assert has_depth(first)
    user.volume_node = user.ui.inputVolumeSelector.currentNode()
    user.segment()
    assert depth(user, first) == (FIRST[2] - 0.5, LAST[2] + 0.5)
