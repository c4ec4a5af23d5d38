"""The module as a whole: saved and loaded scenes, leaving, reloading and closing Slicer."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest
import slicer
import slicer.util

from geometries import FIRST, LAST
from MedSAMSlicerLib.mrml.boxes import is_ticked, key_slices_of, structure_boxes
from MedSAMSlicerLib.volume.files import Volume
from MedSAMSlicerLib.volume.geometry import voxel_box_corners
from panel_user import GEOMETRY, MODULE_FILE, SlowPredictor, box_mask


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "MedSAM"]


def observations() -> list[tuple]:
    """What Python code observes in the scene."""
    holders = [each for each in gc.get_objects() if issubclass(type(each), slicer.util.VTKObservationMixin)]
    return [observation for holder in holders for observation in holder.Observations]


def test_a_scene_that_is_saved_and_loaded_shows_all_as_it_was(gui, user, tmp_path):
    user.add_box()
    user.add_box("other", (22, 17, 0), (28, 22, 9), ticked=False)
    user.panel.parameters.window = "60/300"
    user.ui.autoUpdateCheckBox.click()
    user.ui.editingRulesCheckBox.click()
    user.segment()
    user.look_at("Red", (12, 10, 4))
    user.press("correctSliceButton")
    user.wait()
    mask = user.mask()
    (tmp_path / "saved").mkdir()
    gui.app.applicationLogic().SaveSceneToSlicerDataBundleDirectory(str(tmp_path / "saved"), None)
    gui.scene.Clear(0)
    gui.pump()
    assert user.ui.boxesTable.rowCount == 0
    assert not user.ui.autoUpdateCheckBox.checked
    gui.scene.SetURL(str(next((tmp_path / "saved").glob("*.mrml"))))
    assert gui.scene.Connect()
    gui.pump()

    ui = user.ui
    user.volume_node = ui.inputVolumeSelector.currentNode()
    assert user.volume_node.GetName() == "CT"
    assert ui.windowComboBox.currentText == "60/300"
    assert ui.autoUpdateCheckBox.checked
    assert ui.editingRulesCheckBox.checked
    assert [ui.boxesTable.item(row, 0).text() for row in range(2)] == ["lesion", "other"]
    assert [is_ticked(box) for box in structure_boxes(gui.scene)] == [True, False]
    assert [ui.boxesTable.item(row, 2).text() for row in range(2)] == ["lesion", "new"]
    assert ui.segmentComboBox.currentText == "lesion"
    assert ui.keySlicesTable.rowCount == 1
    np.testing.assert_array_equal(user.mask(), mask)
    # And it goes on: the same segment, with its key slice.
    user.segment()
    assert user.segments == ["lesion"]
    assert len(key_slices_of(user.segmentation, user.segmentation.GetSegmentation().GetNthSegmentID(0))) == 1


def test_a_volume_that_somebody_else_chooses_right_after_the_start_is_shown(gui, lite_weights, disk_cache, a_ct):
    """By a parameter node of its own, as the console and Sample Data do."""
    gui.load_module(MODULE_FILE)
    widget = gui.open_module("MedSAMSlicer")
    gui.headless.add_volume(Volume(a_ct, GEOMETRY, "first"))
    gui.pump()
    volume = gui.headless.add_volume(Volume(a_ct, GEOMETRY, "second"))
    slicer.util.getModuleLogic("MedSAMSlicer").getParameterNode().inputVolume = volume
    assert widget.panel.ui.inputVolumeSelector.currentNode() is volume


def test_a_volume_that_is_loaded_while_none_is_chosen_is_chosen(gui, lite_weights, disk_cache, a_ct):
    gui.load_module(MODULE_FILE)
    widget = gui.open_module("MedSAMSlicer")
    labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    gui.pump()
    assert widget.panel.parameters.inputVolume is None, "labels are no image"
    gui.leave_module("MedSAMSlicer")
    gui.open_module("MedSAMSlicer")
    assert widget.panel.parameters.inputVolume is None, "labels are no image"
    volume = gui.headless.add_volume(Volume(a_ct, GEOMETRY, "CT"))
    gui.pump()
    assert widget.panel.parameters.inputVolume is volume
    assert widget.panel.ui.inputVolumeSelector.currentNode() is volume
    assert "CT" in widget.panel.ui.modalityLabel.text
    gui.headless.add_volume(Volume(a_ct, GEOMETRY, "another"))
    gui.pump()
    assert widget.panel.parameters.inputVolume is volume, "what is chosen stays"
    # Nor is what the user did not want forced on him.
    widget.panel.ui.inputVolumeSelector.setCurrentNode(None)
    gui.scene.RemoveNode(labels)
    gui.pump()
    assert widget.panel.parameters.inputVolume is None


def test_after_the_cleanup_nothing_follows_the_scene_any_more(gui, user, monkeypatch):
    roi, panel = user.add_box(), user.panel
    user.ui.previewWindowCheckBox.click()
    user.segment()
    user.press("placeROIButton")
    assert observations()
    user.widget.cleanup()
    user.widget.cleanup()
    gui.pump()
    assert not observations()
    assert not threads()
    monkeypatch.setattr(panel, "update", lambda: pytest.fail("The old panel still follows the scene."))
    gui.headless.add_roi("another", GEOMETRY, voxel_box_corners(FIRST, LAST))
    roi.SetName("renamed")
    gui.scene.Clear(0)
    gui.pump()


def test_reloading_brings_a_module_that_works(gui, user, predictor, monkeypatch):
    user.add_box()
    user.segment()
    old = user.panel
    user.widget.onReload()
    gui.pump()
    user.widget = gui.module_manager.module("MedSAMSlicer").widgetRepresentation().self()
    assert user.panel is not old
    assert type(user.panel) is not type(old), "the library is loaded anew"
    monkeypatch.setattr(user.widget.logic, "loadPredictor", lambda model=None, device=None: predictor)
    gui.pump()
    assert user.ui.boxesTable.item(0, 2).text() == "lesion"
    user.segment()
    assert user.segments == ["lesion"]
    np.testing.assert_array_equal(user.mask(), box_mask(user.volume_node))


def test_leaving_the_module_frees_the_mouse_and_entering_it_again_shows_what_changed(gui, user):
    interaction = gui.app.applicationLogic().GetInteractionNode()
    user.press("placeROIButton")
    assert interaction.GetCurrentInteractionMode() == interaction.Place
    gui.leave_module("MedSAMSlicer")
    assert interaction.GetCurrentInteractionMode() == interaction.ViewTransform
    gui.headless.add_roi("lesion", GEOMETRY, voxel_box_corners(FIRST, LAST))
    gui.open_module("MedSAMSlicer")
    assert user.ui.boxesTable.item(0, 0).text() == "lesion"


def test_the_model_and_the_embeddings_can_be_released_and_come_back(gui, user, predictor):
    user.add_box()
    user.segment()
    session = user.widget.logic.session
    assert len(session.cache) > 0
    user.widget.logic.releaseModel()
    assert user.widget.logic.session is not session
    assert not threads()
    user.segment()
    assert user.segments == ["lesion"]


class TestClosingSlicer:
    """Slicer exits in the middle of a run."""

    @pytest.fixture
    def predictor(self) -> SlowPredictor:
        return SlowPredictor(0.3)

    def test_the_thread_ends_and_nothing_is_written_any_more(self, gui, user, predictor):
        user.add_box()
        user.ui.segmentButton.click()
        gui.pump(until=lambda: user.segmentation is not None and user.segments)
        assert threads()
        gui.module_manager.moduleAboutToBeUnloaded.emit("MedSAMSlicer")
        encoded = len(predictor.encoded)
        assert not threads()
        gui.pump(0.5)
        assert len(predictor.encoded) == encoded
        assert user.widget.panel is None
