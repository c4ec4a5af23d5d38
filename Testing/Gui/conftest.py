"""Fixtures of the tests that need Slicer's GUI layer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from effect_editor import BrightPredictor, EffectEditor, block_volume
from slicer_gui.fixtures import gui

__all__ = ["gui"]


@pytest.fixture
def editor(gui, monkeypatch) -> Iterator[EffectEditor]:
    """A Segment Editor with the effect MedSAM, in 2-D, on a volume with a bright block."""
    effect_editor = EffectEditor(gui, monkeypatch, BrightPredictor(), block_volume())
    effect_editor.set(threeDCheckBox=False)
    yield effect_editor
    effect_editor.close()
