"""Measured diameters in the module, and segments that keep out of the others."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util

from geometries import FIRST, LAST
from MedSAMSlicerLib.mrml.boxes import structure_boxes
from MedSAMSlicerLib.mrml.segments import segment_mask
from panel_user import GEOMETRY, box_mask, is_in_sight

pytestmark = pytest.mark.usefixtures("bright_structure")
MIDDLE = (FIRST[1] + LAST[1]) / 2


def measure(user, name: str, *ends: tuple[float, float, float]) -> slicer.vtkMRMLMarkupsLineNode:
    """Draw a line between two voxels (IJK)."""
    line = user.gui.scene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", name)
    user.gui.pump()
    for ijk in ends:
        line.AddControlPointWorld(*(GEOMETRY @ [*ijk, 1])[:3])
    user.gui.pump()
    return line


def rows(user) -> list[tuple[str, str, str]]:
    table = user.ui.boxesTable
    return [tuple(table.item(row, column).text() for column in range(3)) for row in range(table.rowCount)]


def test_measured_lines_become_boxes_by_one_click_and_their_lesions_segments(gui, user, volume_node):
    assert not user.ui.boxesOfLinesButton.enabled
    long = measure(user, "lesion", (FIRST[0], MIDDLE, 4), (LAST[0], MIDDLE, 4))
    measure(user, "across", (12, FIRST[1], 4), (12, LAST[1], 4))
    measure(user, "askew", (3, 5, 0), (15, 14, 9))
    user.press("boxesOfLinesButton")
    assert "'askew' runs through" in user.ui.statusLabel.text
    assert rows(user) == [("lesion", "one slice", "new")]
    (box,) = structure_boxes(gui.scene)
    assert all(is_in_sight(gui, view, box) for view in ("Red", "Green", "Yellow", "3D"))

    user.segment()
    np.testing.assert_array_equal(user.mask(), box_mask(volume_node))
    assert rows(user) == [("lesion", "one slice", "lesion")]
    user.press("boxesOfLinesButton")
    assert len(rows(user)) == 1, "a line that has its box is not taken again"

    user.press("undoButton")
    assert user.segments == []
    assert long.GetNumberOfDefinedControlPoints() == 2
    gui.scene.RemoveNode(box)
    gui.pump()
    user.press("boxesOfLinesButton")
    assert rows(user) == [("lesion", "one slice", "new")]


def test_without_a_measured_line_the_button_says_so(gui, user):
    measure(user, "half", (5, 5, 4))
    user.press("boxesOfLinesButton")
    assert "measure a diameter with a line" in user.ui.statusLabel.text
    assert rows(user) == []


def test_a_ticked_result_keeps_out_of_the_other_segments_until_editing_rules_say_where_it_may_go(
    gui, user, volume_node
):
    user.add_box("left", FIRST, (12, *LAST[1:]))
    user.segment()
    left = user.mask()
    user.ui.boxesTable.item(0, 0).setCheckState(gui.qt.Qt.Unchecked)
    user.ui.keepOutCheckBox.click()
    user.add_box("whole")
    user.segment()
    np.testing.assert_array_equal(user.mask(0), left)
    np.testing.assert_array_equal(user.mask(1), box_mask(volume_node) & ~left)
    user.press("undoButton")
    assert user.segments == ["left"]
    user.ui.keepOutCheckBox.click()
    user.segment()
    np.testing.assert_array_equal(user.mask(1), box_mask(volume_node))
    user.ui.editingRulesCheckBox.click()
    gui.pump()
    assert not user.ui.keepOutCheckBox.enabled
    np.testing.assert_array_equal(
        segment_mask(user.segmentation, user.segmentation.GetSegmentation().GetNthSegmentID(0), volume_node), left
    )
