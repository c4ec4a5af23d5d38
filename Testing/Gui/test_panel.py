"""The module's panel, as a user works with it: real widgets, real nodes, real mouse events, known masks."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import slicer

from box_predictor import BoxPredictor
from geometries import FIRST, GEOMETRIES, LAST
from MedSAMSlicerLib.mrml.segments import add_segment, segment_mask
from MedSAMSlicerLib.volume.files import Volume
from MedSAMSlicerLib.volume.geometry import voxel_box_corners

MODULE = Path(__file__).parents[2] / "MedSAMSlicer" / "MedSAMSlicer.py"
GEOMETRY = GEOMETRIES["left-handed"]


class SlowPredictor(BoxPredictor):
    """Takes its time for a slice, in the thread in which it is asked.

    :ivar release: as long as it is set, a slice takes no time.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def encode(self, image):
        if threading.current_thread() is threading.main_thread():
            raise RuntimeError("A slice was encoded in the main thread.")
        time.sleep(self.seconds)
        return super().encode(image)


@pytest.fixture
def predictor() -> BoxPredictor:
    return BoxPredictor()


@pytest.fixture
def volume_node(gui, a_ct):
    return gui.headless.add_volume(Volume(a_ct, GEOMETRY, "CT"))


@pytest.fixture
def widget(gui, volume_node, predictor, lite_weights, monkeypatch):
    """The open module, with a predictor whose masks are known in the place of a model."""
    module = gui.load_module(MODULE)
    monkeypatch.setattr(module.MedSAMSlicerLogic, "loadPredictor", lambda self, model=None, device=None: predictor)
    widget = gui.open_module("MedSAMSlicer")
    for name in gui.layout_manager.sliceViewNames():
        view = gui.layout_manager.sliceWidget(name)
        view.mrmlSliceCompositeNode().SetBackgroundVolumeID(volume_node.GetID())
        view.mrmlSliceNode().RotateToVolumePlane(volume_node)
        view.fitSliceToBackground()
    gui.pump()
    return widget


def add_box(gui, name="lesion", first=FIRST, last=LAST):
    roi = gui.headless.add_roi(name, GEOMETRY, voxel_box_corners(first, last))
    gui.pump()
    return roi


def tick(gui, widget, name):
    table = widget.panel.ui.boxesTable
    (row,) = (row for row in range(table.rowCount) if table.item(row, 0).text() == name)
    table.item(row, 0).setCheckState(gui.qt.Qt.Checked)
    gui.pump()


def finish(gui, widget):
    gui.pump(until=lambda: not widget.panel.result.running)
    gui.pump()


def box(volume_node, first=FIRST, last=LAST) -> np.ndarray:
    mask = np.zeros(slicer.util.arrayFromVolume(volume_node).shape, dtype=bool)
    mask[tuple(slice(low, high + 1) for low, high in zip(first[::-1], last[::-1], strict=True))] = True
    return mask


def segments(widget) -> list[str]:
    content = widget.logic.getParameterNode().segmentation.GetSegmentation()
    return [content.GetSegment(segment_id).GetName() for segment_id in content.GetSegmentIDs()]


def mask_of(widget, volume_node, number=0) -> np.ndarray:
    segmentation = widget.logic.getParameterNode().segmentation
    return segment_mask(segmentation, segmentation.GetSegmentation().GetSegmentIDs()[number], volume_node)


def test_the_button_says_what_is_missing_until_it_can_be_pressed(gui, widget, volume_node):
    button = widget.panel.ui.segmentButton
    assert not button.enabled
    assert "Place a box" in button.toolTip
    add_box(gui)
    assert not button.enabled, "an ROI that serves something else is not segmented"
    tick(gui, widget, "lesion")
    assert button.enabled
    widget.panel.parameters.inputVolume = None
    gui.pump()
    assert not button.enabled
    assert "Choose a volume" in button.toolTip


def test_ticked_boxes_become_segments_of_their_names_in_one_step_of_undo(gui, widget, volume_node):
    ui = widget.panel.ui
    add_box(gui)
    add_box(gui, "other", (22, 17, 0), (28, 22, 9))
    add_box(gui, "crop", (0, 0, 0), (29, 23, 9))
    tick(gui, widget, "lesion")
    tick(gui, widget, "other")
    ui.segmentButton.click()
    finish(gui, widget)
    assert segments(widget) == ["lesion", "other"]
    np.testing.assert_array_equal(mask_of(widget, volume_node), box(volume_node))
    assert ui.progressBar.value == ui.progressBar.maximum
    assert ui.statusLabel.text.startswith("Done")
    ui.undoButton.click()
    gui.pump()
    assert segments(widget) == []
    assert not ui.undoButton.enabled
    ui.redoButton.click()
    gui.pump()
    assert segments(widget) == ["lesion", "other"]
    # Again: the same segments, no further ones.
    ui.segmentButton.click()
    finish(gui, widget)
    assert segments(widget) == ["lesion", "other"]


def test_a_box_placed_by_two_clicks_is_listed_ticked_and_auto_update_segments_it(gui, widget, volume_node):
    ui = widget.panel.ui
    ui.autoUpdateCheckBox.click()
    ui.placeROIButton.click()
    gui.pump()
    assert ui.placeROIButton.checked
    mouse = gui.mouse("Red")
    corners = [mouse.ras_to_xy((GEOMETRY @ [*ijk, 1])[:3]) for ijk in ((6, 6, 4), (20, 16, 4))]
    for corner in corners:
        mouse.click(corner)
        gui.pump()
    gui.pump(until=lambda: not ui.placeROIButton.checked)
    assert ui.boxesTable.rowCount == 1
    finish(gui, widget)
    assert len(segments(widget)) == 1
    assert mask_of(widget, volume_node).any()


def test_leaving_a_placement_leaves_no_empty_node(gui, widget):
    ui = widget.panel.ui
    for button in (ui.placeROIButton, ui.followButton):
        button.click()
        gui.pump()
        assert button.checked
        button.click()
        gui.pump()
        assert not button.checked
    ui.placeROIButton.click()
    gui.leave_module("MedSAMSlicer")
    assert gui.scene.GetNumberOfNodesByClass("vtkMRMLMarkupsROINode") == 0


@pytest.mark.parametrize("view", ["Red", "3D"])
def test_the_segment_follows_a_dragged_handle_when_the_button_is_released(gui, widget, volume_node, view):
    ui = widget.panel.ui
    roi = add_box(gui)
    tick(gui, widget, "lesion")
    ui.autoUpdateCheckBox.click()
    ui.segmentButton.click()
    finish(gui, widget)
    before = mask_of(widget, volume_node)
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
    finish(gui, widget)
    assert roi.GetSize()[0] < size[0] - 2
    after = mask_of(widget, volume_node)
    assert 0 < after.sum() < before.sum()
    assert len(segments(widget)) == 1


def test_other_segments_are_not_touched_and_the_volume_is_not_changed(gui, widget, volume_node):
    segmentation = gui.headless.add_segmentation("S", volume_node)
    painted = add_segment(segmentation, "painted")
    from MedSAMSlicerLib.mrml.segments import SegmentWriter

    SegmentWriter(segmentation, painted, volume_node).add(box(volume_node, (3, 3, 1), (22, 17, 8)), (0, 0, 0))
    widget.panel.parameters.segmentation = segmentation
    voxels = slicer.util.arrayFromVolume(volume_node).copy()
    before = segment_mask(segmentation, painted, volume_node)
    add_box(gui)
    tick(gui, widget, "lesion")
    widget.panel.ui.segmentButton.click()
    finish(gui, widget)
    assert segments(widget) == ["painted", "lesion"]
    np.testing.assert_array_equal(segment_mask(segmentation, painted, volume_node), before)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume_node), voxels)


def test_the_preview_shows_what_the_model_sees_and_gives_the_display_back(gui, widget, volume_node):
    ui, display = widget.panel.ui, volume_node.GetScalarVolumeDisplayNode()
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


def test_a_window_that_shows_nothing_is_told(gui, widget, volume_node):
    add_box(gui)
    tick(gui, widget, "lesion")
    widget.panel.parameters.window = "9000/10"
    widget.panel.ui.segmentButton.click()
    finish(gui, widget)
    assert "choose another window" in widget.panel.ui.statusLabel.text
    assert segments(widget) == []
