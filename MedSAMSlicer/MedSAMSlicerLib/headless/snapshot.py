"""A picture of a segmentation: three slice views and the 3-D view, as in Slicer's four-up layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from MedSAMSlicerLib.headless.scene import HeadlessScene
from MedSAMSlicerLib.headless.views import SliceView, ThreeDView
from MedSAMSlicerLib.mrml.volumes import voxels
from MedSAMSlicerLib.volume.files import atomic_output
from MedSAMSlicerLib.volume.intensity import resolve_window

_GAP = 4
_SLICES = (("Red", "Axial"), ("Green", "Coronal"), ("Yellow", "Sagittal"))


def draw_four_up(
    headless: HeadlessScene,
    volume: slicer.vtkMRMLVolumeNode,
    segmentation: slicer.vtkMRMLSegmentationNode,
    *,
    window: str = "auto",
    size: int = 480,
) -> np.ndarray:
    """Draw axial, 3-D (upper row), coronal and sagittal view (lower row) through the middle of the segments.

    :param window: the gray values shown, see `volume.intensity.resolve_window`; what the model sees.
    :param size: edge of one view in pixels.
    :return: uint8 (rows, columns, 3).
    """
    gray = resolve_window(window, voxels(volume))
    display = volume.GetDisplayNode()
    if display.IsA("vtkMRMLScalarVolumeDisplayNode"):
        display.SetAutoWindowLevel(False)
        display.SetWindowLevelMinMax(gray.lower, gray.upper)
    _color_rois(headless, segmentation)
    segmentation.CreateClosedSurfaceRepresentation()
    center, bounds = _middle(segmentation, volume)
    tiles = []
    for name, orientation in _SLICES:
        view = SliceView(headless, name, orientation, (size, size))
        view.show(volume, center)
        tiles.append(view.image())
        view.close()
    view3d = ThreeDView(headless, "1", (size, size))
    view3d.image()
    view3d.look_from_front(bounds)
    tiles.append(view3d.image())
    view3d.close()
    axial, coronal, sagittal, surface = tiles
    picture = np.full((2 * size + _GAP, 2 * size + _GAP, 3), 40, dtype=np.uint8)
    for tile, (row, column) in zip((axial, surface, coronal, sagittal), ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
        top, left = row * (size + _GAP), column * (size + _GAP)
        picture[top : top + size, left : left + size] = tile
    return picture


def write_png(path: Path, picture: np.ndarray) -> None:
    """Write a picture, uint8 (rows, columns, 3); the file is either whole or not there."""
    image = vtk.vtkImageData()
    rows, columns, _ = picture.shape
    image.SetDimensions(columns, rows, 1)
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(picture[::-1]).reshape(-1, 3), deep=True))
    with atomic_output(path) as temporary:
        writer = vtk.vtkPNGWriter()
        writer.SetFileName(str(temporary))
        writer.SetInputData(image)
        writer.Write()


def _color_rois(headless: HeadlessScene, segmentation: slicer.vtkMRMLSegmentationNode) -> None:
    """Give every ROI the color of the segment of its name, as a thin frame that hides nothing."""
    content = segmentation.GetSegmentation()
    rois = headless.scene.GetNodesByClass("vtkMRMLMarkupsROINode")
    for index in range(rois.GetNumberOfItems()):
        roi = rois.GetItemAsObject(index)
        display = roi.GetDisplayNode()
        segment = content.GetSegment(content.GetSegmentIdBySegmentName(roi.GetName()))
        if segment:
            display.SetSelectedColor(segment.GetColor())
        display.SetFillOpacity(0)
        display.SetHandlesInteractive(False)
        display.SetPropertiesLabelVisibility(False)
        display.SetPointLabelsVisibility(False)
        display.SetGlyphScale(0.4)
        display.SetVisibility3D(False)


def _middle(
    segmentation: slicer.vtkMRMLSegmentationNode, volume: slicer.vtkMRMLVolumeNode
) -> tuple[np.ndarray, tuple[float, ...]]:
    """Find where most is to be seen: the middle of all segments, or of the volume if they are empty."""
    bounds = np.zeros(6)
    segmentation.GetRASBounds(bounds)
    if not np.isfinite(bounds).all() or (bounds[1::2] <= bounds[::2]).any():
        volume.GetRASBounds(bounds)
    return (bounds[::2] + bounds[1::2]) / 2, tuple(bounds)
