"""The Segment Editor effect in 3-D: a box reaches through a range of slices, and further boxes correct the result."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import slicer
import slicer.util

from effect_editor import FIRST, LAST, SPACING, block, block_slice
from MedSAMSlicerLib.volume.geometry import plane_axes, slice_of, voxel_box_corners
from MedSAMSlicerLib.volume.slice_masks import Outcome


@pytest.fixture
def editor_3d(editor):
    editor.set(threeDCheckBox=True)
    return editor


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_structure_is_followed_until_it_ends_from_a_box_in_any_view(editor_3d, axis):
    editor_3d.draw_around(axis, 12)
    assert np.array_equal(editor_3d.proposed(), block())
    assert not editor_3d.held().any()
    assert "slices; least certain is slice" in editor_3d.status
    editor_3d.accept()
    assert np.array_equal(editor_3d.held(), block())
    editor_3d.widget.undo()
    assert not editor_3d.held().any()


def test_a_distance_limits_the_range_to_both_sides(editor_3d):
    editor_3d.set(rangeComboBox="distance", distanceSpinBox=2 * SPACING[2])
    editor_3d.draw_around(2, 9)
    expected = block()
    expected[:7] = expected[12:] = False
    assert np.array_equal(editor_3d.proposed(), expected)


def test_another_range_is_proposed_as_soon_as_it_is_set(editor_3d):
    editor_3d.draw_around(2, 9)
    editor_3d.set(rangeComboBox="distance", distanceSpinBox=0.0)
    editor_3d.settle()
    assert np.array_equal(editor_3d.proposed(), block_slice(2, 9))
    editor_3d.set(rangeComboBox="end")
    editor_3d.settle()
    assert np.array_equal(editor_3d.proposed(), block())


def test_an_roi_limits_the_range_to_its_slices(editor_3d):
    first, last = (FIRST[0] - 2, FIRST[1] - 2, 7), (LAST[0] + 2, LAST[1] + 2, 10)
    roi = editor_3d.gui.headless.add_roi("range", np.diag([*SPACING, 1.0]), voxel_box_corners(first, last))
    editor_3d.set(rangeComboBox="roi", roiSelector=roi)
    editor_3d.draw_around(2, 9)
    expected = block()
    expected[:7] = expected[11:] = False
    assert np.array_equal(editor_3d.proposed(), expected)


def test_a_missing_roi_is_told_and_the_next_box_works(editor_3d):
    editor_3d.set(rangeComboBox="roi")
    editor_3d.draw_around(2, 9)
    assert editor_3d.proposed() is None
    assert "No ROI is given" in editor_3d.status
    editor_3d.set(rangeComboBox="end")
    editor_3d.draw_around(2, 9)
    assert np.array_equal(editor_3d.proposed(), block())


def test_without_preview_of_all_slices_enter_computes_and_writes_them(editor_3d):
    editor_3d.set(previewCheckBox=False)
    editor_3d.draw_around(2, 9)
    assert np.array_equal(editor_3d.proposed(), block_slice(2, 9))
    editor_3d.accept()
    assert np.array_equal(editor_3d.held(), block())
    assert editor_3d.proposed() is None


def test_slices_appear_one_after_the_other_and_escape_stops_on_the_way(editor_3d):
    predictor = editor_3d.predictor
    predictor.hold(1)
    editor_3d.draw(2, 9, (8, 6), (31, 29))
    editor_3d.gui.pump(until=predictor.held.is_set)
    editor_3d.gui.pump(until=lambda: np.array_equal(editor_3d.proposed(), block_slice(2, 9)))
    predictor.hold(1)
    editor_3d.gui.pump(until=predictor.held.is_set)
    editor_3d.gui.pump(until=lambda: editor_3d.proposed()[10].any())
    editor_3d.gui.mouse("Red").key("Escape")
    predictor.release()
    editor_3d.settle()
    # The slice that it was held at may still be encoded, none after it.
    assert len(predictor.encoded) <= 3
    assert editor_3d.proposed() is None
    assert not editor_3d.held().any()


@pytest.mark.parametrize(("axis", "index"), [(0, 20), (1, 16), (2, 11)])
def test_a_box_in_another_slice_of_any_view_corrects_the_proposal(editor_3d, axis, index):
    # As if the structure ended earlier there, in the direction of the columns.
    editor_3d.draw_around(2, 9)
    edges = plane_axes(axis)
    first, last = [FIRST[edge] - 1 for edge in edges], [LAST[edge] + 1 for edge in edges]
    last[0] = FIRST[edges[0]] + 5
    editor_3d.draw(axis, index, first, last)
    editor_3d.settle()
    wanted = slice_of(block(), axis, index).copy()
    wanted[:, last[0] + 1 :] = False
    if axis != 2:
        # Where both boxes meet, the earlier one holds: its slice is a row of this one.
        wanted[9] = slice_of(block(), axis, index)[9]
    assert np.array_equal(slice_of(editor_3d.proposed(), axis, index), wanted)
    assert np.array_equal(editor_3d.proposed()[9], block()[9])
    editor_3d.accept()
    assert np.array_equal(slice_of(editor_3d.held(), axis, index), wanted)


def test_a_correction_that_fails_leaves_the_proposal(editor_3d, monkeypatch, caplog):
    editor_3d.draw_around(2, 9)
    with monkeypatch.context() as patched:
        patched.setattr("MedSAMSlicerLib.volume.segmentation.propagate_until_end", no_memory)
        editor_3d.draw(2, 11, (8, 6), (20, 20))
        editor_3d.settle()
    assert "The memory of the device is full." in editor_3d.status
    assert "no_memory" in caplog.text
    assert np.array_equal(editor_3d.proposed(), block())
    editor_3d.accept()
    assert np.array_equal(editor_3d.held(), block())


def no_memory(*_arguments):
    raise RuntimeError("The memory of the device is full.")
    yield


def test_a_distance_that_is_still_being_typed_counts_when_enter_applies(editor_3d):
    editor_3d.set(rangeComboBox="distance", distanceSpinBox=5.0)
    editor_3d.draw_around(2, 9)
    field = editor_3d.options.distanceSpinBox.findChild(editor_3d.gui.qt.QLineEdit)
    field.setText("0.0 mm")
    editor_3d.accept()
    assert not editor_3d.held().any(), "nobody has seen it yet"
    assert np.array_equal(editor_3d.proposed(), block_slice(2, 9))
    editor_3d.accept()
    assert np.array_equal(editor_3d.held(), block_slice(2, 9))


def test_a_result_that_was_undone_can_be_taken_up_again_as_it_was(editor_3d):
    editor_3d.draw_around(2, 9)
    editor_3d.accept()
    editor_3d.widget.undo()
    editor_3d.options.correctButton.click()
    editor_3d.settle()
    assert np.array_equal(editor_3d.proposed(), block())
    editor_3d.accept()
    assert np.array_equal(editor_3d.held(), block())


def paint(editor, index):
    """Erase half of the structure in one slice by hand."""
    held = editor.held()
    held[index, :, 20:] = False
    editor.put(editor.segment, held)
    return held[index]


@pytest.mark.parametrize("mode", ["set", "add"])
def test_a_slice_that_was_painted_after_accepting_survives_the_next_correction(editor_3d, mode):
    editor_3d.set(modeComboBox=mode)
    editor_3d.draw_around(2, 9)
    editor_3d.accept()
    editor_3d.widget.setActiveEffectByName("")
    painted = paint(editor_3d, 11)
    editor_3d.widget.setActiveEffectByName("MedSAM")
    editor_3d.options.correctButton.click()
    editor_3d.settle()
    editor_3d.draw(2, 7, (8, 6), (15, 29))
    editor_3d.settle()
    editor_3d.accept()
    assert np.array_equal(editor_3d.held()[11], painted)
    wanted = block()[7].copy()
    wanted[:, 16:] = False
    assert np.array_equal(editor_3d.held()[7], wanted)
    editor_3d.widget.undo()
    assert np.array_equal(editor_3d.held()[7], block()[7])
    assert np.array_equal(editor_3d.held()[11], painted)


def test_correcting_in_mode_add_keeps_what_the_segment_held_before(editor_3d):
    other = np.zeros_like(block())
    other[2:4, 2:5, 2:5] = True
    editor_3d.put(editor_3d.segment, other)
    editor_3d.draw_around(2, 9)
    editor_3d.accept()
    assert np.array_equal(editor_3d.held(), block() | other)
    editor_3d.gui.mouse("Red").key("c")
    editor_3d.settle()
    editor_3d.draw(2, 7, (8, 6), (15, 29))
    editor_3d.settle()
    editor_3d.accept()
    assert editor_3d.held()[other].all()
    assert not editor_3d.held()[7, :, 16:].any()


def test_without_a_result_there_is_nothing_to_correct(editor_3d):
    editor_3d.options.correctButton.click()
    assert "nothing to correct" in editor_3d.status
    assert editor_3d.proposed() is None


def test_set_replaces_the_whole_segment(editor_3d):
    editor_3d.put(editor_3d.segment, np.ones_like(block()))
    editor_3d.set(modeComboBox="set")
    editor_3d.draw_around(2, 9)
    editor_3d.accept()
    assert np.array_equal(editor_3d.held(), block())


def test_subtract_takes_the_structure_away(editor_3d):
    editor_3d.put(editor_3d.segment, np.ones_like(block()))
    editor_3d.set(modeComboBox="subtract")
    editor_3d.draw_around(2, 9)
    editor_3d.accept()
    assert np.array_equal(editor_3d.held(), ~block())


def test_in_3d_only_what_was_seen_is_written(editor_3d):
    """Enter while slices are still on their way: the whole is shown first, and has to be accepted itself."""
    predictor = editor_3d.predictor
    predictor.hold(1)
    editor_3d.draw(2, 9, (8, 6), (31, 29))
    editor_3d.gui.pump(until=predictor.held.is_set)
    editor_3d.gui.pump(until=lambda: np.array_equal(editor_3d.proposed(), block_slice(2, 9)))
    editor_3d.gui.mouse("Red").key("Return")
    assert "if it is what you see" in editor_3d.status
    predictor.release()
    editor_3d.settle()
    assert not editor_3d.held().any()
    assert np.array_equal(editor_3d.proposed(), block())
    assert "Not written: it is not what you saw" in editor_3d.status
    editor_3d.accept()
    assert np.array_equal(editor_3d.held(), block())


def test_enter_during_a_correction_that_changes_nothing_writes_it(editor_3d):
    editor_3d.draw_around(2, 9)
    predictor = editor_3d.predictor
    editor_3d.logic.session.cache.clear()
    predictor.hold()
    editor_3d.draw(2, 9, (10, 8), (29, 25))
    editor_3d.gui.pump(until=predictor.held.is_set)
    editor_3d.gui.mouse("Red").key("Return")
    assert not editor_3d.held().any()
    predictor.release()
    editor_3d.settle()
    assert np.array_equal(editor_3d.held(), block())


def test_an_open_end_and_dropped_fragments_are_told_before_and_after_writing(editor_3d, monkeypatch):
    voxels = slicer.util.arrayFromVolume(editor_3d.volume)
    voxels[:, FIRST[1] : LAST[1] + 1, FIRST[0] : LAST[0] + 1] = 230
    slicer.util.arrayFromVolumeModified(editor_3d.volume)
    monkeypatch.setattr(
        "MedSAMSlicerLib.volume.segmentation.Outcome", lambda _fragments, open_ends: Outcome(3, open_ends)
    )
    editor_3d.draw_around(2, 9)
    for _moment in ("proposed", "written"):
        assert "3 fragments were dropped." in editor_3d.status
        assert "followed to the first and the last slice of the volume: set a limit" in editor_3d.status
        editor_3d.accept()
    assert "Written to the segment." in editor_3d.status


def test_a_distance_ends_what_is_followed_and_not_more(editor_3d):
    """Within a distance larger than the structure it is the structure, not the box in all slices."""
    editor_3d.set(rangeComboBox="distance", distanceSpinBox=100.0)
    voxels = slicer.util.arrayFromVolume(editor_3d.volume)
    voxels[FIRST[2] - 3, FIRST[1] : LAST[1] + 1, FIRST[0] : LAST[0] + 1] = 230
    slicer.util.arrayFromVolumeModified(editor_3d.volume)
    editor_3d.draw_around(2, 9)
    assert np.array_equal(editor_3d.proposed(), block())


def test_a_full_graphics_card_leaves_the_range_to_the_processor(editor_3d, monkeypatch):
    small, asked = editor_3d.logic.predictor, []

    def load(model=None, device=None):
        asked.append(device)
        full = copy.copy(small)
        full.decode = out_of_memory
        return small if device == "cpu" else full

    monkeypatch.setattr(editor_3d.logic, "loadPredictor", load)
    editor_3d.draw_around(2, 9)
    assert asked == [None, "cpu"]
    assert np.array_equal(editor_3d.proposed(), block())


def out_of_memory(*_arguments):
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
