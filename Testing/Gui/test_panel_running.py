"""While a segmentation runs: Slicer stays responsive, and whatever happens to the scene, nothing breaks."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util

from geometries import FIRST, LAST
from MedSAMSlicerLib.mrml.segments import add_segment
from MedSAMSlicerLib.store import pace
from panel_user import SlowPredictor, User, box_mask

SLICES = LAST[2] - FIRST[2] + 1


@pytest.fixture
def predictor() -> SlowPredictor:
    return SlowPredictor(1.0)


def start(user: User, slices: int = 1) -> None:
    """Press Segment, and wait for the first slices."""
    user.add_box()
    user.ui.segmentButton.click()
    user.gui.pump(until=lambda: user.ui.progressBar.maximum > 0 and user.ui.progressBar.value >= slices)


def test_the_middle_slice_comes_first_and_the_panel_tells_how_far_it_is(gui, user):
    user.add_box()
    user.ui.segmentButton.click()
    assert user.ui.cancelButton.enabled is False, "the panel is updated after the click"
    gui.pump(until=lambda: user.ui.progressBar.maximum > 0 and user.ui.progressBar.value >= 1)
    assert user.mask()[(FIRST[2] + LAST[2]) // 2].any()
    assert user.mask().any(axis=(1, 2)).sum() == 1
    assert user.ui.cancelButton.enabled
    assert not user.ui.segmentButton.enabled
    gui.pump(until=lambda: "left" in user.ui.statusLabel.text)
    user.press("cancelButton")
    user.wait()


def test_cancel_ends_within_a_slice_and_keeps_what_is_done(gui, user, predictor):
    start(user, 2)
    user.press("cancelButton")
    asked = len(predictor.encoded)
    user.wait()
    assert len(predictor.encoded) <= asked + 1
    done = user.mask().any(axis=(1, 2)).sum()
    assert 0 < done < SLICES
    assert user.ui.statusLabel.text == "Stopped."
    user.press("undoButton")
    assert user.segments == []


def test_cancel_can_leave_all_as_it_was(gui, user):
    user.ui.keepOnCancelCheckBox.click()
    start(user)
    assert user.segments == ["lesion"]
    user.press("cancelButton")
    user.wait()
    assert user.segments == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda user: slicer.mrmlScene.RemoveNode(user.volume_node), "volume was deleted"),
        (lambda user: slicer.mrmlScene.RemoveNode(user.segmentation), "segmentation was deleted"),
        (lambda user: user.segmentation.GetSegmentation().RemoveAllSegments(), "segment was deleted"),
        (lambda user: slicer.util.arrayFromVolumeModified(user.volume_node), "changed or moved"),
        (lambda user: user.volume_node.SetSpacing(2, 2, 2), "changed or moved"),
    ],
    ids=["volume", "segmentation", "segment", "voxels", "geometry"],
)
def test_what_is_deleted_or_changed_meanwhile_ends_the_run_with_a_word(gui, user, predictor, change, told):
    predictor.seconds = 0.2
    start(user)
    change(user)
    user.wait()
    assert told in user.ui.statusLabel.text
    left = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    assert left is None or left.GetSegmentation().GetNumberOfSegments() == 0


def test_deleting_the_box_or_choosing_another_volume_meanwhile_does_no_harm(gui, user, predictor):
    predictor.seconds = 0.1
    start(user)
    slicer.mrmlScene.RemoveNode(slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLMarkupsROINode"))
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "other")
    user.panel.parameters.inputVolume = other
    user.wait()
    np.testing.assert_array_equal(user.mask(), box_mask(user.volume_node))


def test_another_segmentation_chosen_meanwhile_gets_nothing(gui, user, predictor):
    predictor.seconds = 0.1
    start(user)
    first = user.segmentation
    other = gui.headless.add_segmentation("other", user.volume_node)
    user.panel.parameters.segmentation = other
    user.wait()
    assert other.GetSegmentation().GetNumberOfSegments() == 0
    assert first.GetSegmentation().GetNumberOfSegments() == 1


def test_closing_the_scene_meanwhile_leaves_a_module_that_works(gui, user, predictor, a_ct):
    predictor.seconds = 0.2
    start(user)
    gui.scene.Clear(0)
    gui.pump(1.0)
    assert not user.panel.result.running
    assert gui.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    from MedSAMSlicerLib.volume.files import Volume
    from panel_user import GEOMETRY

    user.volume_node = gui.headless.add_volume(Volume(a_ct, GEOMETRY, "next patient"))
    user.panel.parameters.inputVolume = user.volume_node
    gui.pump()
    user.add_box()
    user.segment()
    np.testing.assert_array_equal(user.mask(), box_mask(user.volume_node))


def test_leaving_the_module_meanwhile_lets_it_run_on(gui, user, predictor):
    predictor.seconds = 0.1
    start(user)
    gui.leave_module("MedSAMSlicer")
    user.wait()
    np.testing.assert_array_equal(user.mask(), box_mask(user.volume_node))


def test_reloading_the_module_meanwhile_stops_it(gui, user, predictor):
    predictor.seconds = 0.2
    start(user)
    user.widget.onReload()
    gui.pump(1.0)
    again = gui.module_manager.module("MedSAMSlicer").widgetRepresentation().self()
    assert again is not user.widget
    assert not again.panel.result.running


def test_a_box_dragged_meanwhile_starts_anew_for_the_box_as_it_is_now(gui, user, predictor):
    predictor.seconds = 0.1
    start(user)
    user.ui.autoUpdateCheckBox.click()
    roi = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLMarkupsROINode")
    roi.SetSize(8, 8, 15)
    roi.InvokeEvent(roi.PointEndInteractionEvent)
    gui.pump(until=lambda: user.ui.statusLabel.text.startswith("Done"))
    assert user.segments == ["lesion"]
    assert 0 < user.mask().sum() < box_mask(user.volume_node).sum()


def test_an_error_in_the_thread_is_told_and_the_next_run_works(gui, user, predictor, monkeypatch):
    predictor.seconds = 0.0
    user.add_box()
    with monkeypatch.context() as broken:
        broken.setattr(predictor, "decode", lambda *args: 1 / 0)
        user.segment()
    assert "division by zero" in user.ui.statusLabel.text
    assert user.segments == []
    user.segment()
    assert user.segments == ["lesion"]


def test_a_card_without_memory_leaves_the_work_to_the_processor(gui, user, monkeypatch):
    class OutOfMemoryError(RuntimeError):
        """What torch raises."""

    full, small = SlowPredictor(0.0), SlowPredictor(0.0)
    monkeypatch.setattr(full, "decode", lambda *args: (_ for _ in ()).throw(OutOfMemoryError("CUDA out of memory")))
    asked = []

    def load(model=None, device=None):
        asked.append(device)
        return small if device == "cpu" else full

    monkeypatch.setattr(user.widget.logic, "loadPredictor", load)
    user.add_box()
    user.segment()
    assert asked == ["auto", "cpu"]
    assert user.segments == ["lesion"]
    np.testing.assert_array_equal(user.mask(), box_mask(user.volume_node))


def test_segments_painted_meanwhile_stay(gui, user, predictor):
    predictor.seconds = 0.1
    user.ui.keepOnCancelCheckBox.click()
    start(user)
    add_segment(user.segmentation, "painted")
    user.press("cancelButton")
    user.wait()
    assert user.segments == ["painted"]


def test_the_time_of_a_run_is_told_before_it_begins(gui, user):
    told = []
    gui_tell = user.panel.tell
    user.panel.tell = lambda text, **options: (told.append(text), gui_tell(text, **options))
    user.add_box()
    user.segment()
    assert "slices take about" not in told[0]
    user.widget.logic.session.cache.clear()
    told.clear()
    user.segment()
    assert "6 slices take about" in told[0]
    # What was embedded before is faster, and no measure of a new volume.
    before = pace.pace_file().read_text()
    user.segment()
    assert pace.pace_file().read_text() == before
