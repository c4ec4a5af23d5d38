"""A model that remembers slices in the module and in the effect: chosen in the list, and used as any other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from effect_editor import EffectEditor, block_volume
from geometries import FIRST, LAST
from panel_user import MODULE_FILE, User
from tiny_tracker import tiny_file, tiny_tracker


@pytest.fixture
def tracking_user(gui, volume_node, disk_cache, tmp_path: Path, monkeypatch) -> User:
    """A user whose model, in the store's folder, is a network that remembers slices."""
    monkeypatch.setenv("MEDSAM_SLICER_HOME", str(tmp_path / "store"))
    models = tmp_path / "store" / "models"
    models.mkdir(parents=True)
    path = tiny_file(models / "tracker.pth")
    gui.load_module(MODULE_FILE)
    user = User(gui, volume_node)
    box = user.ui.modelComboBox
    box.setCurrentIndex(box.findData(str(path)))
    box.activated.emit(box.currentIndex)
    gui.pump()
    return user


@pytest.fixture
def calls(monkeypatch) -> list[int]:
    """How many boxes and slices were seen with memory."""
    from MedSAMSlicerLib.inference.tracking_predictor import TrackingPredictor

    made: list[int] = []
    for name in ("see_box", "follow"):
        real = getattr(TrackingPredictor, name)
        monkeypatch.setattr(TrackingPredictor, name, lambda self, *args, real=real: made.append(1) or real(self, *args))
    return made


def test_segment_correct_and_undo(gui, tracking_user, calls):
    user = tracking_user
    user.add_box()
    user.segment()
    assert user.ui.statusLabel.text.startswith("Done"), user.ui.statusLabel.text
    assert len(calls) == LAST[2] - FIRST[2] + 1, "each slice once, with memory"
    before = user.mask()
    user.look_at("Red", (12, 10, 6))
    user.press("drawKeySliceButton")
    user.click_voxels("Red", (6, 7, 6), (12, 14, 6))
    user.wait()
    assert len(calls) == LAST[2] - FIRST[2] + 1 + 3, "the slice itself and its neighbors up to the middle and the end"
    assert user.mask()[6].any()
    assert not user.mask()[6, :, 13:].any()
    user.press("undoButton")
    np.testing.assert_array_equal(user.mask(), before)
    user.press("undoButton")
    assert user.segments == []


@pytest.fixture
def tracking_editor(gui, monkeypatch) -> Iterator[EffectEditor]:
    """A Segment Editor with the effect MedSAM and a network that remembers slices."""
    editor = EffectEditor(gui, monkeypatch, tiny_tracker(), block_volume())
    yield editor
    editor.close()


def test_the_effect_previews_a_slice_and_writes_the_range(tracking_editor):
    editor = tracking_editor
    editor.set(threeDCheckBox=False)
    editor.draw(2, 9, (8, 6), (31, 29))
    editor.settle()
    assert "Slice 9: confidence" in editor.status
    preview = editor.proposed()
    assert preview[9].any()
    assert not np.delete(preview, 9, axis=0).any()
    editor.accept()
    np.testing.assert_array_equal(editor.held(), preview)
    editor.widget.undo()
    assert not editor.held().any()
    editor.set(threeDCheckBox=True)
    editor.draw(2, 9, (8, 6), (31, 29))
    editor.settle()
    proposed = editor.proposed()
    assert np.count_nonzero(proposed.any(axis=(1, 2))) > 10
    np.testing.assert_array_equal(proposed[9], preview[9])
    editor.accept()
    np.testing.assert_array_equal(editor.held(), proposed)
    editor.widget.undo()
    assert not editor.held().any()
