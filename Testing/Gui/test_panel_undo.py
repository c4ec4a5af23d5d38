"""Undo in the module beside hand work in the Segment Editor: neither takes the other's away."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from panel_user import GEOMETRY, SlowPredictor, box_mask

EFFECT_FILE = Path(__file__).parent / "MadeUp" / "SegmentEditorMadeUpLib" / "SegmentEditorEffect.py"
DRAWN = ((8, 17, 4), (14, 21, 4))


@pytest.fixture
def predictor() -> SlowPredictor:
    return SlowPredictor(0.0)


class Editor:
    """The Segment Editor, open on the module's segmentation, with an effect that fills a dragged box."""

    def __init__(self, gui, user) -> None:
        import qSlicerSegmentationsEditorEffectsPythonQt as effects
        import SegmentEditorMadeUpLib  # noqa: F401 (first, or the effect's file would take its place)

        effect = effects.qSlicerSegmentEditorScriptedEffect(None)
        effect.setPythonSource(EFFECT_FILE.as_posix())
        effect.self().register()
        self.gui, self.user = gui, user
        self.widget = gui.segment_editor(user.segmentation, user.volume_node)
        self.widget.setSourceVolumeNode(user.volume_node)

    def add(self, name: str) -> None:
        """Press Add, and call the new segment by a name."""
        self.widget.saveStateForUndo()
        segment_id = self.user.segmentation.GetSegmentation().AddEmptySegment("", name, [1.0, 0.0, 0.0])
        self.widget.setCurrentSegmentID(segment_id)

    def draw(self, name: str) -> None:
        """Drag a box in the axial view, which is filled in the segment of a name."""
        content = self.user.segmentation.GetSegmentation()
        self.widget.setCurrentSegmentID(content.GetSegmentIdBySegmentName(name))
        self.widget.setActiveEffectByName("MadeUp")
        self.user.look_at("Red", DRAWN[0])
        mouse = self.gui.mouse("Red")
        mouse.drag(*(mouse.ras_to_xy((GEOMETRY @ [*voxel, 1])[:3]) for voxel in DRAWN))
        self.widget.setActiveEffect(None)
        self.gui.pump()


@pytest.fixture
def editor(gui, user, monkeypatch) -> Editor:
    """The Segment Editor after a first segmentation in the module."""
    monkeypatch.syspath_prepend(EFFECT_FILE.parents[1].as_posix())
    user.add_box()
    user.segment()
    return Editor(gui, user)


def test_a_segment_drawn_in_the_segment_editor_after_the_run_stays(gui, user, editor, volume_node):
    gui.leave_module("MedSAMSlicer")
    editor.add("hand")
    editor.draw("hand")
    np.testing.assert_array_equal(user.mask(1), box_mask(volume_node, *DRAWN))
    gui.open_module("MedSAMSlicer")
    tip = user.ui.undoButton.toolTip
    user.press("undoButton")
    assert user.segments == ["hand"]
    np.testing.assert_array_equal(user.mask(), box_mask(volume_node, *DRAWN))
    assert (tip, user.ui.statusLabel.text) == ("Take back: lesion. (Shift+Z)", "Undone: lesion.")
    user.press("redoButton")
    assert user.segments == ["hand", "lesion"]
    assert user.ui.statusLabel.text == "Brought back: lesion."
    np.testing.assert_array_equal(user.mask(1), box_mask(volume_node))


def test_the_button_says_why_a_run_that_was_edited_since_can_not_be_taken_back(gui, user, editor, volume_node):
    editor.draw("lesion")
    edited = box_mask(volume_node) | box_mask(volume_node, *DRAWN)
    assert not user.ui.undoButton.enabled
    assert user.ui.undoButton.toolTip == (
        "The last segmentation can't be undone: the segment 'lesion' was edited since. (Shift+Z)"
    )
    gui.shortcut(gui.main_window, "Shift+Z")
    np.testing.assert_array_equal(user.mask(), edited)
    # Once the Segment Editor has taken its own step back, the module's is next.
    editor.widget.undo()
    gui.pump()
    assert user.ui.undoButton.enabled
    user.press("undoButton")
    assert user.segments == []
    assert user.ui.undoButton.toolTip == "There is no segmentation to take back. (Shift+Z)"


def test_of_two_segments_the_one_that_was_renamed_stays_and_is_named(gui, user, editor, volume_node):
    user.press("undoButton")
    user.add_box("other", (22, 17, 0), (28, 22, 9))
    user.segment()
    content = user.segmentation.GetSegmentation()
    content.GetSegment(content.GetSegmentIdBySegmentName("other")).SetName("tumor")
    gui.pump()
    told = "Take back: lesion. Left as it is: the segment 'tumor' was renamed since. (Shift+Z)"
    assert user.ui.undoButton.toolTip == told
    user.press("undoButton")
    assert user.segments == ["tumor"]
    assert "'tumor' was renamed since" in user.ui.statusLabel.text


def test_the_segment_editors_own_undo_takes_runs_and_strokes_back_in_one_order(gui, user, editor, volume_node):
    editor.add("hand")
    editor.draw("hand")
    user.add_box("other", (22, 17, 0), (28, 22, 9))
    user.segment()
    seen = [user.segments]
    user.press("undoButton")
    seen.append(user.segments)
    for _ in range(4):
        editor.widget.undo()
        gui.pump()
        seen.append([*user.segments, bool(user.mask(1).any())] if len(user.segments) > 1 else user.segments)
    assert seen == [
        ["lesion", "hand", "other"],  # the second run, which has made "lesion" again as it was
        ["lesion", "hand"],
        ["lesion", "hand", "other", True],  # the module's own undo is taken back first,
        ["lesion", "hand", True],  # then the run,
        ["lesion", "hand", False],  # then the stroke,
        ["lesion"],  # then the segment.
    ]


def test_a_run_that_fails_leaves_undo_and_redo_and_its_box_as_they_were(gui, user, editor, predictor, monkeypatch):
    segment_id = user.segmentation.GetSegmentation().GetSegmentIDs()[0]
    user.press("undoButton")
    user.widget.logic.session.cache.clear()
    decode, calls = predictor.decode, []

    def fail_late(*args):
        calls.append(args)
        return decode(*args) if len(calls) < 4 else 1 / 0

    with monkeypatch.context() as broken:
        broken.setattr(predictor, "decode", fail_late)
        user.segment()
    assert "division by zero" in user.ui.statusLabel.text
    assert user.segments == []
    user.press("redoButton")
    assert user.segments == ["lesion"]
    assert user.segmentation.GetSegmentation().GetSegmentIDs() == (segment_id,)
    # The box still belongs to its segment, which is made again.
    user.segment()
    assert user.segments == ["lesion"]


def test_voxels_drawn_into_a_segment_while_it_is_made_stay_and_end_the_run(gui, user, editor, predictor, volume_node):
    user.press("undoButton")
    user.widget.logic.session.cache.clear()
    predictor.seconds = 0.3
    user.ui.segmentButton.click()
    gui.pump(until=lambda: user.ui.progressBar.maximum > 0 and user.ui.progressBar.value >= 1)
    editor.draw("lesion")
    user.wait()
    assert "'lesion' was edited while it was being made" in user.ui.statusLabel.text
    drawn = box_mask(volume_node, *DRAWN)
    assert user.mask()[drawn].all()
    assert not user.ui.undoButton.enabled
