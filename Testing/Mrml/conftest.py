"""Fixtures on real MRML nodes. VTK's errors fail the test that causes them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import slicer
import vtk

from box_predictor import BoxPredictor
from geometries import FIRST, GEOMETRIES, LAST
from MedSAMSlicerLib.headless.scene import HeadlessScene
from MedSAMSlicerLib.mrml.session import SegmentationSession
from MedSAMSlicerLib.volume.files import Volume
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
