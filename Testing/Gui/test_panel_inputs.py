"""Section Inputs: what image it is, the window that the model sees, its preview, and sequences of images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import slicer
import slicer.util
from PySide6 import QtTest

from MedSAMSlicerLib.volume.files import Volume
from panel_user import GEOMETRY, SlowPredictor, User, box_mask


def displayed(volume: slicer.vtkMRMLVolumeNode) -> tuple[float, float]:
    """The lowest and the highest value that the views tell apart."""
    display = volume.GetScalarVolumeDisplayNode()
    return display.GetWindowLevelMin(), display.GetWindowLevelMax()


def choose(user: User, name: str) -> None:
    """Choose a window from the list."""
    combo = user.ui.windowComboBox
    combo.setCurrentIndex(combo.findData(name))
    combo.activated.emit(combo.currentIndex)
    user.gui.pump()


def type_window(user: User, text: str) -> None:
    """Type a window and press Enter."""
    line = user.ui.windowComboBox.lineEdit()
    line.setFocus()
    line.selectAll()
    QtTest.QTest.keyClicks(line, text)
    QtTest.QTest.keyClick(line, user.gui.qt.Qt.Key_Return)
    user.gui.pump()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda ct: ct, "CT (Hounsfield units)"),
        (lambda ct: (ct + 1000).astype(np.int16), "MRI"),
        (lambda ct: np.clip(ct, 0, 255).astype(np.uint8), "bytes or colors"),
        (lambda ct: np.stack([np.clip(ct, 0, 255).astype(np.uint8)] * 3, axis=-1), "bytes or colors"),
    ],
    ids=["ct", "mr", "bytes", "color"],
)
def test_ct_mri_and_color_are_recognized(gui, user, a_ct, make, told):
    user.panel.parameters.inputVolume = gui.headless.add_volume(Volume(make(a_ct), GEOMETRY, "next"))
    gui.pump()
    assert told in user.ui.modalityLabel.text


def test_a_volume_without_voxels_is_told(gui, user):
    user.panel.parameters.inputVolume = gui.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    user.ui.previewWindowCheckBox.click()
    gui.pump()
    assert "'empty' has no voxels" in user.ui.modalityLabel.text


def test_the_list_has_an_automatic_choice_and_all_presets(gui, user):
    combo = user.ui.windowComboBox
    names = [combo.itemData(row) for row in range(combo.count)]
    assert names == ["auto", "abdomen", "lung", "brain", "mediastinum", "bone", "mr", "full"]
    assert combo.currentText == "Automatic"
    assert combo.itemText(combo.findData("lung")) == "CT lung (level -600, width 1500)"
    choose(user, "lung")
    assert user.panel.parameters.window == "lung"


def test_a_window_of_the_users_own_is_typed(gui, user):
    type_window(user, "50/100")
    assert user.panel.parameters.window == "50/100"
    assert user.ui.windowComboBox.currentText == "50/100"
    user.ui.previewWindowCheckBox.click()
    gui.pump()
    assert displayed(user.volume_node)[0] == 0
    type_window(user, "bone")
    assert user.ui.windowComboBox.currentText == "CT bone (level 400, width 1800)"
    type_window(user, "Automatic")
    assert user.panel.parameters.window == "auto"


@pytest.mark.parametrize("wrong", ["liver", "40/-400", "9000/10"])
def test_a_typed_window_that_cannot_be_is_told_and_not_taken(gui, user, wrong):
    choose(user, "bone")
    type_window(user, wrong)
    assert wrong in user.ui.statusLabel.text
    assert "LEVEL/WIDTH" in user.ui.statusLabel.text
    assert user.panel.parameters.window == "bone"
    assert user.ui.windowComboBox.currentText == "CT bone (level 400, width 1800)"


def test_what_is_being_typed_is_not_overwritten(gui, user):
    user.widget.parent.show()
    line = user.ui.windowComboBox.lineEdit()
    user.widget.parent.activateWindow()
    line.setFocus()
    gui.pump()
    line.selectAll()
    QtTest.QTest.keyClicks(line, "50/")
    user.add_box("another", ticked=False)
    assert line.text == "50/"


def test_another_volume_chosen_while_previewing_gives_the_first_one_its_display_back(gui, user, a_ct):
    first = user.volume_node
    second = gui.headless.add_volume(Volume((a_ct + 1000).astype(np.int16), GEOMETRY, "MRI"))
    displays = {volume: volume.GetScalarVolumeDisplayNode() for volume in (first, second)}
    for display in displays.values():
        display.SetAutoWindowLevel(False)
        display.SetWindowLevelMinMax(3, 33)
    displays[first].SetAutoWindowLevel(True)
    automatic = displayed(first)
    user.ui.previewWindowCheckBox.click()
    gui.pump()
    assert displayed(first)[0] == -160
    user.panel.parameters.inputVolume = second
    gui.pump()
    assert displayed(first) == automatic
    assert displays[first].GetAutoWindowLevel()
    lower, upper = displayed(second)
    assert 900 < lower < 1000
    assert 1050 < upper < 1150
    user.ui.previewWindowCheckBox.click()
    gui.pump()
    assert displayed(second) == (3, 33)
    assert not displays[second].GetAutoWindowLevel()


def test_a_color_volume_can_be_previewed_and_segmented(gui, user, a_ct):
    color = np.stack([np.clip(a_ct + shift, 0, 255).astype(np.uint8) for shift in (0, 20, 40)], axis=-1)
    volume = gui.headless.add_volume(Volume(color, GEOMETRY, "photographs"))
    user.panel.parameters.inputVolume = volume
    user.ui.previewWindowCheckBox.click()
    gui.pump()
    assert displayed(volume) == (color.min(), color.max())
    user.add_box()
    user.segment()
    np.testing.assert_array_equal(user.mask(), box_mask(volume)[..., 0])


def test_a_preview_that_is_not_possible_is_told_once(gui, user):
    user.panel.parameters.window = "9000/10"
    user.ui.previewWindowCheckBox.click()
    gui.pump()
    assert "choose another window" in user.ui.statusLabel.text
    user.panel.tell("What the user does next")
    user.add_box()
    assert user.ui.statusLabel.text == "What the user does next"


def test_deleting_the_previewed_volume_does_no_harm(gui, user):
    user.ui.previewWindowCheckBox.click()
    gui.pump()
    slicer.mrmlScene.RemoveNode(user.volume_node)
    gui.pump()
    assert user.ui.modalityLabel.text == ""
    assert "Choose a volume" in user.ui.segmentButton.toolTip


@pytest.fixture
def browser(gui, user, a_ct) -> Iterator[slicer.vtkMRMLSequenceBrowserNode]:
    """What plays a sequence of three frames, in a volume that takes the place of the user's."""
    logic = slicer.vtkSlicerSequencesLogic()
    logic.SetMRMLScene(gui.scene)
    sequence = gui.scene.AddNewNodeByClass("vtkMRMLSequenceNode", "sequence")
    for number in range(3):
        frame = gui.headless.add_volume(Volume(np.roll(a_ct, number, axis=1), GEOMETRY, "frame"))
        sequence.SetDataNodeAtValue(frame, str(number))
        gui.scene.RemoveNode(frame)
    browser = gui.scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "browser")
    browser.AddSynchronizedSequenceNode(sequence)
    logic.UpdateAllProxyNodes()
    user.volume_node = user.panel.parameters.inputVolume = browser.GetProxyNode(sequence)
    gui.pump()
    yield browser
    logic.SetMRMLScene(None)


def test_of_a_sequence_the_current_frame_is_segmented_and_no_embedding_of_another_one_is_used(
    gui, user, browser, predictor
):
    user.add_box()
    user.segment()
    first = [image.copy() for image in predictor.encoded]
    browser.SetSelectedItemNumber(1)
    gui.pump()
    user.segment()
    second = predictor.encoded[len(first) :]
    assert len(second) == len(first)
    assert not any(np.array_equal(one, other) for one in first for other in second)
    browser.SetSelectedItemNumber(0)
    gui.pump()
    user.segment()
    assert len(predictor.encoded) == 2 * len(first), "the first frame's embeddings are still there"


def test_another_frame_meanwhile_ends_the_run_with_a_word(gui, user, browser, predictor, monkeypatch):
    slow = SlowPredictor(0.1)
    monkeypatch.setattr(user.widget.logic, "loadPredictor", lambda model=None, device=None: slow)
    user.add_box()
    user.ui.segmentButton.click()
    gui.pump(until=lambda: user.segmentation is not None and user.segments)
    browser.SetSelectedItemNumber(1)
    user.wait()
    assert "changed or moved while it was being segmented" in user.ui.statusLabel.text
    assert user.segments == []
    user.segment()
    np.testing.assert_array_equal(user.mask(), box_mask(user.volume_node))
