"""The fixture ``gui``; a conftest.py that imports it offers it to its tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from slicer_gui.gui import Gui


@pytest.fixture
def gui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gui]:
    """A Slicer with an empty scene and no settings; at the end it must have nothing to complain about."""
    slicer_gui = Gui(tmp_path / "Slicer.ini", monkeypatch)
    yield slicer_gui
    slicer_gui.close()
