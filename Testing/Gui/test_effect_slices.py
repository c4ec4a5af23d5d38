"""The Segment Editor effect in single slices: a box is drawn, its mask is proposed, accepted or dropped."""

from __future__ import annotations

import numpy as np
import pytest
import vtk

from effect_editor import (
    FIRST,
    LAST,
    SPACING,
    BrightPredictor,
    EffectEditor,
    block,
    block_slice,
    block_volume,
)
from geometries import affine, rotation


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_box_proposes_the_mask_of_its_slice_in_any_view_and_writes_nothing(editor, axis):
    editor.draw_around(axis, 12)
    assert np.array_equal(editor.proposed(), block_slice(axis, 12))
    assert not editor.held().any()
    assert "Slice 12: confidence 0.9" in editor.status


def test_the_proposal_is_drawn_in_the_color_of_the_segment_until_it_is_dropped(editor):
    editor.draw_around(2, 9)
    inside, outside = (20, 17, 9), (36, 4, 9)
    red, green, blue = editor.color_at(2, inside)
    assert green > red + 50
    assert green > blue + 50
    assert np.ptp(editor.color_at(2, outside)) == 0
    # The sagittal view cuts the same slice.
    editor.show(0, 20)
    assert np.ptp(editor.color_at(0, inside)) > 50
    editor.show(2, 10)
    assert np.ptp(editor.color_at(2, (20, 17, 10))) == 0
    editor.show(2, 9)
    editor.gui.mouse("Red").key("Escape")
    assert np.ptp(editor.color_at(2, inside)) == 0


def test_the_box_is_drawn_while_the_mouse_moves_and_stays_in_its_slice(editor):
    editor.predictor.hold()
    editor.draw(2, 9, (8, 6), (31, 29))
    corner = (8, 17, 9)
    assert editor.color_at(2, corner)[:2].min() > 150
    assert editor.color_at(2, corner)[2] < 100
    editor.show(2, 10)
    assert np.ptp(editor.color_at(2, (8, 17, 10))) == 0
    editor.predictor.release()
    editor.settle()


def test_enter_writes_the_proposal_and_one_undo_takes_it_back(editor):
    editor.draw_around(2, 9)
    editor.accept()
    assert np.array_equal(editor.held(), block_slice(2, 9))
    assert editor.proposed() is None
    editor.widget.undo()
    assert not editor.held().any()
    editor.widget.redo()
    assert np.array_equal(editor.held(), block_slice(2, 9))


def test_enter_before_the_mask_is_there_writes_it_as_soon_as_it_is(editor):
    editor.predictor.hold()
    editor.draw(2, 9, (8, 6), (31, 29))
    editor.gui.mouse("Red").key("Return")
    assert not editor.held().any()
    editor.predictor.release()
    editor.settle()
    assert np.array_equal(editor.held(), block_slice(2, 9))


@pytest.mark.parametrize("how", ["key", "button"])
def test_escape_and_cancel_drop_the_proposal(editor, how):
    editor.draw_around(2, 9)
    if how == "key":
        editor.gui.mouse("Red").key("Escape")
    else:
        editor.options.cancelButton.click()
    assert editor.proposed() is None
    editor.accept()
    assert not editor.held().any()


def test_escape_while_a_box_is_drawn_leaves_no_box(editor):
    editor.show(2, 9)
    mouse = editor.gui.mouse("Red")
    mouse.press((50, 50))
    mouse.move((200, 200))
    mouse.key("Escape")
    mouse.release((200, 200))
    editor.settle()
    assert editor.proposed() is None
    assert editor.predictor.encoded == []


def test_the_next_box_accepts_the_one_before(editor):
    editor.draw_around(2, 9)
    editor.draw_around(2, 10)
    assert np.array_equal(editor.held(), block_slice(2, 9))
    assert np.array_equal(editor.proposed(), block_slice(2, 10))


def test_set_replaces_the_slice_and_leaves_the_others(editor):
    everything = np.ones_like(block())
    editor.put(editor.segment, everything)
    editor.set(modeComboBox="set")
    editor.draw_around(2, 9)
    editor.accept()
    expected = everything.copy()
    expected[9] = block()[9]
    assert np.array_equal(editor.held(), expected)


def test_a_box_that_is_drawn_before_the_mask_of_the_last_one_is_there_takes_its_place(editor):
    everything = np.ones_like(block())
    editor.put(editor.segment, everything)
    editor.set(modeComboBox="set")
    editor.predictor.hold()
    editor.draw(2, 9, (8, 6), (31, 29))
    editor.draw(2, 10, (8, 6), (31, 29))
    editor.predictor.release()
    editor.settle()
    assert editor.held().all()
    assert np.array_equal(editor.proposed(), block_slice(2, 10))


def test_subtract_takes_the_slice_away(editor):
    editor.put(editor.segment, block())
    editor.set(modeComboBox="subtract")
    editor.draw_around(2, 9)
    editor.accept()
    assert np.array_equal(editor.held(), block() & ~block_slice(2, 9))


def test_a_view_that_is_turned_a_little_takes_boxes_and_one_turned_far_says_why_not(editor):
    editor.show(2, 9)
    editor.turn(2, 8)
    mouse = editor.gui.mouse("Red")
    mouse.drag((60, 60), (240, 240))
    editor.settle()
    assert editor.proposed()[9].any()
    mouse.key("Escape")
    editor.turn(2, 20)
    mouse.drag((60, 60), (240, 240))
    editor.settle()
    assert editor.proposed() is None
    assert "turned by 28°" in editor.status


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_volume_that_is_turned_a_little_and_mirrored_is_segmented_in_all_views(gui, monkeypatch, axis):
    matrix = affine(rotation(5, -7, 9) @ np.diag([-1.0, -1.0, 1.0]), SPACING, (12.0, -30.0, 7.0))
    editor = EffectEditor(gui, monkeypatch, BrightPredictor(), block_volume(matrix))
    editor.set(threeDCheckBox=False)
    # In the middle of the volume, where the view and the slice cross.
    index = block().shape[2 - axis] // 2
    editor.draw_around(axis, index, margin=3)
    assert np.array_equal(editor.proposed(), block_slice(axis, index))
    editor.close()


def test_a_segmentation_with_voxels_of_its_own_gets_the_same_mask(editor):
    cropped = editor.gui.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    image = vtk.vtkImageData()
    image.SetDimensions(30, 26, 16)
    image.AllocateScalars(vtk.VTK_SHORT, 1)
    cropped.SetAndObserveImageData(image)
    cropped.SetSpacing(*SPACING)
    cropped.SetOrigin(5 * SPACING[0], 5 * SPACING[1], 2 * SPACING[2])
    editor.segmentation.SetReferenceImageGeometryParameterFromVolumeNode(cropped)
    editor.draw_around(2, 9)
    editor.accept()
    assert np.array_equal(editor.held(), block_slice(2, 9))


def test_a_box_beside_the_volume_says_so(editor):
    editor.draw(2, 9, (-30, -30), (-10, -10))
    assert editor.proposed() is None
    assert "outside of the volume" in editor.status


def test_a_click_is_no_box(editor):
    editor.gui.mouse("Red").click((150, 150))
    editor.settle()
    assert editor.proposed() is None


def test_a_drag_with_shift_is_left_to_slicer(editor):
    mouse = editor.gui.mouse("Red")
    mouse._modifiers = (0, 1)
    mouse.drag((60, 60), (240, 240))
    editor.settle()
    assert editor.proposed() is None


def test_a_box_that_holds_nothing_says_so(editor):
    editor.draw(2, 9, (1, 1), (7, 6))
    editor.settle()
    assert editor.proposed() is None
    assert "Nothing was found" in editor.status


def test_a_missing_model_is_told_with_what_to_do(editor):
    editor.logic.predictor = RuntimeError("The weights of LiteMedSAM are not on this computer.")
    editor.draw_around(2, 9)
    assert editor.proposed() is None
    assert editor.status.startswith("The weights of LiteMedSAM are not on this computer.")
    assert "module MedSAM" in editor.status


def test_a_hidden_segment_is_not_edited_unless_the_user_agrees(editor):
    editor.segmentation.GetDisplayNode().SetSegmentVisibility(editor.segment, False)
    editor.gui.dialogs.answer(editor.gui.qt.QMessageBox.Cancel)
    editor.draw_around(2, 9)
    assert editor.proposed() is None
    assert len(editor.gui.dialogs.take()) == 1


def test_a_segmentation_under_a_transform_is_segmented_where_it_is_shown(editor):
    moved = vtk.vtkMatrix4x4()
    moved.SetElement(0, 3, 5.0)
    transform = editor.gui.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(moved)
    for node in (editor.volume, editor.segmentation):
        node.SetAndObserveTransformNodeID(transform.GetID())
    # The views show the volume 5 mm to the right of where its own matrix puts it.
    editor.draw(2, 9, [FIRST[0] + 3, FIRST[1] - 2], [LAST[0] + 7, LAST[1] + 2])
    editor.settle()
    assert np.array_equal(editor.proposed(), block_slice(2, 9))


def test_enter_and_escape_work_in_the_whole_window_while_something_is_proposed(editor):
    window = editor.gui.main_window
    # As Segment Editor installs it, to leave the effect.
    left = []
    leave = editor.gui.qt.QShortcut(editor.gui.qt.QKeySequence("Esc"), window)
    leave.connect("activated()", lambda: left.append(True))
    field = editor.gui.qt.QLineEdit(window)
    window.show()
    editor.draw_around(2, 9)
    editor.gui.shortcut(field, "Esc")
    assert editor.proposed() is None
    assert not left
    editor.draw_around(2, 9)
    editor.gui.shortcut(field, "Return")
    assert np.array_equal(editor.held(), block_slice(2, 9))
    editor.gui.shortcut(field, "Esc")
    assert left
    window.hide()
