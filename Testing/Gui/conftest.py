"""Fixtures of the tests that need Slicer's GUI layer."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import slicer
import slicer.util

from box_predictor import BoxPredictor
from effect_editor import BrightPredictor, EffectEditor, block_volume
from geometries import FIRST, LAST
from MedSAMSlicerLib.volume.embedding_store import EmbeddingStore
from MedSAMSlicerLib.volume.files import Volume
from panel_user import GEOMETRY, MODULE_FILE, User
from slicer_gui.fixtures import gui
from slicer_gui.gui import Gui

__all__ = ["gui"]


@pytest.fixture(autouse=True)
def same_library() -> Iterator[None]:
    """The library as all tests have imported it, also after a test that has reloaded it."""
    before = _library()
    yield
    if _library()["MedSAMSlicerLib"] is not before["MedSAMSlicerLib"]:
        for name in _library():
            del sys.modules[name]
        sys.modules.update(before)


def _library() -> dict[str, object]:
    return {name: module for name, module in sys.modules.items() if name.split(".")[0] == "MedSAMSlicerLib"}


@pytest.fixture
def volume_node(gui: Gui, a_ct: np.ndarray) -> slicer.vtkMRMLScalarVolumeNode:
    return gui.headless.add_volume(Volume(a_ct, GEOMETRY, "CT"))


@pytest.fixture
def volume(gui: Gui) -> slicer.vtkMRMLScalarVolumeNode:
    """A volume whose voxel (K, J, I) holds I, with voxels of 1 mm and the RAS axes."""
    voxels = np.broadcast_to(np.arange(40, dtype=np.int16), (20, 30, 40)).copy()
    node = slicer.util.addVolumeFromArray(voxels, name="CT", ijkToRAS=np.eye(4))
    node.CreateDefaultDisplayNodes()
    return node


@pytest.fixture
def bright_structure(a_ct: np.ndarray) -> None:
    """Make the structure bright from FIRST to LAST, for tests in which it has to be found; see `predictor`."""
    a_ct[tuple(slice(low, high + 1) for low, high in zip(FIRST[::-1], LAST[::-1], strict=True))] += 300


@pytest.fixture
def predictor(request: pytest.FixtureRequest) -> BoxPredictor:
    """What takes the place of a model: it fills the box, or finds in it the bright structure where there is one."""
    return BrightPredictor() if "bright_structure" in request.fixturenames else BoxPredictor()


@pytest.fixture
def computer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an installed Slicer, whose Python is this one, and an empty store.

    As some launchers do, it sets the environment variable PYTHONPATH itself.
    """
    python = tmp_path / "Slicer" / "bin" / "PythonSlicer"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nPYTHONPATH= exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("SLICER_HOME", str(tmp_path / "Slicer"))
    monkeypatch.setenv("MEDSAM_SLICER_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def disk_cache(gui: Gui, tmp_path: Path, monkeypatch) -> Path:
    """Where the module keeps embeddings on disk in this test: not where the user who runs the tests has his."""
    from MedSAMSlicerLib.app import model_section

    folder = tmp_path / "slices"
    monkeypatch.setattr(model_section, "_disk_cache", lambda: EmbeddingStore(folder))
    return folder


@pytest.fixture
def user(
    gui: Gui,
    volume_node: slicer.vtkMRMLScalarVolumeNode,
    predictor: BoxPredictor,
    lite_weights: Path,
    disk_cache: Path,
    monkeypatch,
) -> User:
    """A user who has opened the module with a volume in the scene and in the views."""
    module = gui.load_module(MODULE_FILE)
    monkeypatch.setattr(module.MedSAMSlicerLogic, "loadPredictor", lambda self, model=None, device=None: predictor)
    return User(gui, volume_node)


@pytest.fixture
def editor(gui: Gui, monkeypatch) -> Iterator[EffectEditor]:
    """A Segment Editor with the effect MedSAM, in 2-D, on a volume with a bright block."""
    effect_editor = EffectEditor(gui, monkeypatch, BrightPredictor(), block_volume())
    effect_editor.set(threeDCheckBox=False)
    yield effect_editor
    effect_editor.close()
