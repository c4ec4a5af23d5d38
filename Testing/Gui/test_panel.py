"""The module's panel, as a user works with it: real widgets, real nodes, real mouse events, known masks."""

from __future__ import annotations

import numpy as np
import pytest
import slicer.util

from MedSAMSlicerLib.mrml.segments import SegmentWriter, add_segment, segment_mask
from panel_user import box_mask


def test_the_button_says_what_is_missing_until_it_can_be_pressed(gui, user, volume_node):
    button = user.ui.segmentButton
    assert not button.enabled
    assert "Place a box" in button.toolTip
    user.add_box(ticked=False)
    assert not button.enabled, "an ROI that serves something else is not segmented"
    user.ui.boxesTable.item(0, 0).setCheckState(gui.qt.Qt.Checked)
    gui.pump()
    assert button.enabled
    user.panel.parameters.inputVolume = None
    gui.pump()
    assert not button.enabled
    assert "Choose a volume" in button.toolTip


def test_ticked_boxes_become_segments_of_their_names_in_one_step_of_undo(gui, user, volume_node):
    ui = user.ui
    user.add_box()
    user.add_box("other", (22, 17, 0), (28, 22, 9))
    user.add_box("crop", (0, 0, 0), (29, 23, 9), ticked=False)
    user.segment()
    assert user.segments == ["lesion", "other"]
    np.testing.assert_array_equal(user.mask(), box_mask(volume_node))
    assert ui.progressBar.value == ui.progressBar.maximum
    assert ui.statusLabel.text.startswith("Done")
    ui.undoButton.click()
    gui.pump()
    assert user.segments == []
    assert not ui.undoButton.enabled
    ui.redoButton.click()
    gui.pump()
    assert user.segments == ["lesion", "other"]
    # Again: the same segments, no further ones.
    user.segment()
    assert user.segments == ["lesion", "other"]


def test_a_box_placed_by_two_clicks_is_listed_ticked_and_auto_update_segments_it(gui, user, volume_node):
    ui = user.ui
    ui.autoUpdateCheckBox.click()
    ui.placeROIButton.click()
    gui.pump()
    assert ui.placeROIButton.checked
    user.click_voxels("Red", (6, 6, 4), (20, 16, 4))
    gui.pump(until=lambda: not ui.placeROIButton.checked)
    assert ui.boxesTable.rowCount == 1
    user.wait()
    assert len(user.segments) == 1
    assert user.mask().any()


def test_leaving_a_placement_leaves_no_empty_node(gui, user):
    ui = user.ui
    for _again in range(2):
        ui.placeROIButton.click()
        gui.pump()
        assert ui.placeROIButton.checked
        ui.placeROIButton.click()
        gui.pump()
        assert not ui.placeROIButton.checked
    ui.placeROIButton.click()
    gui.leave_module("MedSAMSlicer")
    assert gui.scene.GetNumberOfNodesByClass("vtkMRMLMarkupsROINode") == 0


@pytest.mark.parametrize("view", ["Red", "3D"])
def test_the_segment_follows_a_dragged_handle_when_the_button_is_released(gui, user, volume_node, view):
    ui = user.ui
    roi = user.add_box()
    ui.autoUpdateCheckBox.click()
    user.segment()
    before = user.mask()
    if view == "Red":
        gui.layout_manager.sliceWidget("Red").mrmlSliceNode().JumpSlice(*roi.GetCenterWorld())
    else:
        gui.layout_manager.resetThreeDViews()
    mouse = gui.mouse(view)
    center, size = np.array(roi.GetCenterWorld()), np.array(roi.GetSize())
    # The handle of the box's own +x face.
    direction = np.array([roi.GetObjectToWorldMatrix().GetElement(row, 0) for row in range(3)])
    handle = center + direction * (size[0] / 2 - 0.25)
    mouse.drag(mouse.ras_to_xy(handle), mouse.ras_to_xy(handle - direction * 5))
    user.wait()
    assert roi.GetSize()[0] < size[0] - 2
    after = user.mask()
    assert 0 < after.sum() < before.sum()
    assert len(user.segments) == 1


def test_other_segments_are_not_touched_and_the_volume_is_not_changed(gui, user, volume_node):
    segmentation = gui.headless.add_segmentation("S", volume_node)
    painted = add_segment(segmentation, "painted")
    SegmentWriter(segmentation, painted, volume_node).add(box_mask(volume_node, (3, 3, 1), (22, 17, 8)), (0, 0, 0))
    user.panel.parameters.segmentation = segmentation
    voxels = slicer.util.arrayFromVolume(volume_node).copy()
    before = segment_mask(segmentation, painted, volume_node)
    user.add_box()
    user.segment()
    assert user.segments == ["painted", "lesion"]
    np.testing.assert_array_equal(segment_mask(segmentation, painted, volume_node), before)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume_node), voxels)


def test_the_preview_shows_what_the_model_sees_and_gives_the_display_back(gui, user, volume_node):
    ui, display = user.ui, volume_node.GetScalarVolumeDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(777, 33)
    voxels = slicer.util.arrayFromVolume(volume_node).copy()
    ui.previewWindowCheckBox.click()
    gui.pump()
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (-160, min(240, voxels.max()))
    ui.windowComboBox.setCurrentIndex(ui.windowComboBox.findData("brain"))
    ui.windowComboBox.activated.emit(ui.windowComboBox.currentIndex)
    gui.pump()
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (0, 80)
    gui.leave_module("MedSAMSlicer")
    assert (display.GetWindow(), display.GetLevel()) == (777, 33)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume_node), voxels)


def test_a_window_that_shows_nothing_is_told(gui, user, volume_node):
    user.add_box()
    user.panel.parameters.window = "9000/10"
    user.segment()
    assert "choose another window" in user.ui.statusLabel.text
    assert user.segments == []
