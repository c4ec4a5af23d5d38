"""The keys of the module: they work wherever the focus is, while the module is open, and disturb nobody."""

from __future__ import annotations

import pytest
from PySide6 import QtTest

from MedSAMSlicerLib.mrml.boxes import key_slices_of

# Keys of Slicer's own: slice and 3-D views, Segment Editor, main window (from Slicer's sources).
TAKEN = {"V", "Shift+V", "R", "G", "T", "F", "B", "Ctrl+B", "Z", "Y", "I", "Space", "Esc", "Ctrl+Z", "Ctrl+Y"}


@pytest.fixture
def press(gui, user):
    """Press a key while the main window has the focus."""
    gui.main_window.show()
    return lambda keys: gui.shortcut(gui.main_window, keys)


def test_a_box_is_placed_segmented_corrected_undone_and_redone_by_keys(gui, user, press):
    press("Shift+B")
    assert user.ui.placeROIButton.checked
    press("Shift+B")
    assert not user.ui.placeROIButton.checked
    user.add_box()
    press("Shift+S")
    user.wait()
    assert user.segments == ["lesion"]
    press("Shift+Z")
    assert user.segments == []
    press("Shift+A")
    assert user.segments == ["lesion"]
    user.look_at("Red", (12, 10, 4))
    press("Shift+C")
    (segment_id,) = user.segmentation.GetSegmentation().GetSegmentIDs()
    assert len(key_slices_of(user.segmentation, segment_id)) == 1
    press("Shift+D")
    assert user.ui.drawKeySliceButton.checked
    press("Shift+D")
    press("Shift+E")
    press("Shift+F")
    user.wait()
    assert user.segments == ["lesion"]


def test_a_key_does_nothing_where_its_button_is_disabled(gui, user, press):
    for keys in ("Shift+S", "Shift+X", "Shift+D", "Shift+C", "Shift+F", "Shift+E", "Shift+Z", "Shift+A", "Shift+R"):
        press(keys)
    assert user.segmentation is None
    assert user.ui.statusLabel.text == ""


def test_the_keys_belong_to_the_open_module_only(gui, user, press):
    user.add_box()
    gui.leave_module("MedSAMSlicer")
    press("Shift+S")
    press("Shift+B")
    assert not user.panel.result.running
    assert gui.scene.GetNumberOfNodesByClass("vtkMRMLMarkupsROINode") == 1
    gui.open_module("MedSAMSlicer")
    press("Shift+S")
    user.wait()
    assert user.segments == ["lesion"]


def test_the_keys_work_once_after_a_reload_too(gui, user, press):
    user.add_box()
    user.widget.onReload()
    gui.pump()
    press("Shift+B")
    again = gui.module_manager.module("MedSAMSlicer").widgetRepresentation().self()
    assert again.panel.ui.placeROIButton.checked
    gui.leave_module("MedSAMSlicer")


def test_capital_letters_can_be_typed_in_the_panel(gui, user):
    panel, line = user.widget.parent, user.ui.windowComboBox.lineEdit()
    gui.main_window.setCentralWidget(panel)
    gui.main_window.show()
    gui.main_window.activateWindow()
    line.setFocus()
    gui.pump()
    line.selectAll()
    QtTest.QTest.sendKeyEvent(QtTest.QTest.Click, line, gui.qt.Qt.Key_B, "B", gui.qt.Qt.ShiftModifier)
    QtTest.QTest.keyRelease(line, gui.qt.Qt.Key_Shift)
    gui.pump()
    typed, placing = line.text, user.ui.placeROIButton.checked
    gui.main_window.takeCentralWidget()
    assert typed == "B"
    assert not placing


def test_the_panel_lists_the_keys_none_of_which_slicer_has_taken(gui, user):
    keys = [line.partition(":")[0] for line in user.ui.shortcutsLabel.text.splitlines()]
    assert len(keys) == len(set(keys)) == 11
    assert not TAKEN & set(keys)
    assert {key.removeprefix("Shift+") for key in keys} <= set("QWERTASDFGZXCVB"), "under the left hand"


def test_each_button_tells_its_key_once_also_where_its_tooltip_changes(gui, user):
    user.add_box()
    user.segment()
    names = ("placeROI", "segment", "undo", "redo", "correctSlice", "nextDoubtful")
    tips = [getattr(user.ui, f"{name}Button").toolTip for name in names]
    assert [tip[tip.rindex("(") :] for tip in tips] == [f"(Shift+{key})" for key in ("B", "S", "Z", "A", "C", "E")], (
        tips
    )
    assert all(tip.count("(Shift+") == 1 for tip in tips)
