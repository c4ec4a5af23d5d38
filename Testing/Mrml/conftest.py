"""Fixtures on real MRML nodes. VTK's errors fail the test that causes them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import slicer
import vtk

from box_predictor import BoxPredictor
from geometries import FIRST, GEOMETRIES, LAST
from MedSAMSlicerLib import loading
from MedSAMSlicerLib.cli.main import main
from MedSAMSlicerLib.headless.scene import HeadlessScene
from MedSAMSlicerLib.model import build_model, save_checkpoint
from MedSAMSlicerLib.mrml.session import SegmentationSession
from MedSAMSlicerLib.volume.files import Volume, write_labelmap
from MedSAMSlicerLib.volume.geometry import voxel_box_corners


@pytest.fixture(autouse=True)
def vtk_errors() -> Iterator[list[str]]:
    """Collect VTK's errors; a test that expects some empties the list."""
    errors: list[str] = []
    window = vtk.vtkStringOutputWindow()

    @vtk.calldata_type(vtk.VTK_STRING)
    def remember(_window: vtk.vtkObject, _event: str, text: str) -> None:
        errors.append(text)

    window.AddObserver("ErrorEvent", remember)
    previous = vtk.vtkOutputWindow.GetInstance()
    vtk.vtkOutputWindow.SetInstance(window)
    yield errors
    vtk.vtkOutputWindow.SetInstance(previous)
    assert not errors, "".join(errors)


@pytest.fixture
def headless() -> HeadlessScene:
    return HeadlessScene()


@pytest.fixture(params=GEOMETRIES)
def ijk_to_ras(request: pytest.FixtureRequest) -> np.ndarray:
    return GEOMETRIES[request.param]


@pytest.fixture
def volume_node(headless: HeadlessScene, a_ct: np.ndarray, ijk_to_ras: np.ndarray):
    return headless.add_volume(Volume(a_ct, ijk_to_ras, "CT"))


@pytest.fixture
def session(a_box_predictor: BoxPredictor) -> SegmentationSession:
    return SegmentationSession(a_box_predictor)


@pytest.fixture
def roi(headless: HeadlessScene, ijk_to_ras: np.ndarray) -> slicer.vtkMRMLMarkupsROINode:
    return headless.add_roi("lesion", ijk_to_ras, voxel_box_corners(FIRST, LAST))


@pytest.fixture
def segmentation(headless: HeadlessScene) -> slicer.vtkMRMLSegmentationNode:
    return headless.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Segmentation")


@pytest.fixture
def ct_file(a_ct: np.ndarray, ijk_to_ras: np.ndarray, tmp_path: Path) -> Path:
    path = tmp_path / "CT.nrrd"
    write_labelmap(path, a_ct, ijk_to_ras)
    return path


@pytest.fixture
def simple_ct_file(a_ct: np.ndarray, tmp_path: Path) -> Path:
    path = tmp_path / "CT.nrrd"
    write_labelmap(path, a_ct, np.diag([0.8, 0.8, 3.0, 1]))
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The output folder."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new user's empty home; who reaches for the network fails the test."""

    def no_network(*args: object, **options: object) -> None:
        raise AssertionError("The command tried to reach the network.")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setenv("MEDSAM_SLICER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def predictor(a_box_predictor: BoxPredictor, monkeypatch: pytest.MonkeyPatch) -> BoxPredictor:
    """In place of every model: exact masks."""
    a_box_predictor.device = "cpu"
    monkeypatch.setattr(loading, "load_predictor", lambda model, device: a_box_predictor)
    return a_box_predictor


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole network with random weights, small enough to run in no time."""
    path = tmp_path_factory.mktemp("models") / "tiny.pth"
    save_checkpoint(build_model("tiny"), path)
    return path


@pytest.fixture
def error_of(capfd: pytest.CaptureFixture[str], out: Path) -> Callable[[list[str | Path]], str]:
    """Run a command that must fail: exit code 1, one line (returned), no traceback, nothing in the output folder."""

    def run(arguments: list[str | Path]) -> str:
        capfd.readouterr()
        assert main([str(each) for each in arguments]) == 1
        printed, err = capfd.readouterr()
        assert printed == ""
        (line,) = err.splitlines()
        assert line.startswith("medsam-slicer: error: ")
        assert list(out.iterdir()) == []
        return line

    return run
