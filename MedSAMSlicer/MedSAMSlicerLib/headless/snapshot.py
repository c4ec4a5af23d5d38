"""A picture of a segmentation: axial, coronal and sagittal slice and the 3-D view."""

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
# Of the field of view, around the segments.
_MARGIN = 1.15
# View name, orientation, and the RAS axes that are its horizontal, its vertical and its normal.
_SLICES = (("Red", "Axial", (0, 1, 2)), ("Green", "Coronal", (0, 2, 1)), ("Yellow", "Sagittal", (1, 2, 0)))


def draw_four_up(
    headless: HeadlessScene,
    volume: slicer.vtkMRMLVolumeNode,
    segmentation: slicer.vtkMRMLSegmentationNode,
    *,
    window: str = "auto",
    size: int = 480,
) -> np.ndarray:
    """Draw axial slice and 3-D view (upper row), coronal and sagittal slice (lower row, as high as the segments need).

    Each slice is the one that shows the most segments; the frames are the ROIs of the scene.

    :param window: the gray values shown, see `volume.intensity.resolve_window`; best those that the model has seen.
    :param size: edge of an upper view in pixels.
    :return: uint8 (rows, columns, 3).
    """
    gray = resolve_window(window, voxels(volume))
    display = volume.GetDisplayNode()
    if display.IsA("vtkMRMLScalarVolumeDisplayNode"):
        display.SetAutoWindowLevel(False)
        display.SetWindowLevelMinMax(gray.lower, gray.upper)
    rois = _color_rois(headless, segmentation)
    segmentation.CreateClosedSurfaceRepresentation()
    segmentation.GetDisplayNode().SetOpacity2DFill(0.35)
    segmentation.GetDisplayNode().SetPreferredDisplayRepresentationName2D("Closed surface")
    bounds = _segment_bounds(segmentation, volume)
    seen = np.concatenate([bounds, *(_bounds_of(roi)[None] for roi in rois)])
    lower, upper = seen[:, :, 0].min(axis=0), seen[:, :, 1].max(axis=0)
    extent = _MARGIN * (upper - lower)
    center = np.array([_most_shared(bounds[:, axis]) for axis in range(3)])
    low_row = int(np.clip(size * max(extent[2] / extent[0], extent[2] / extent[1]), size // 3, size))

    tiles = []
    for name, orientation, (horizontal, vertical, normal) in _SLICES:
        view = SliceView(headless, name, orientation, (size, size if orientation == "Axial" else low_row))
        middle = (lower + upper) / 2
        middle[normal] = center[normal]
        view.show(volume, middle, (extent[horizontal], extent[vertical]))
        tiles.append(view.image())
        view.close()
    view3d = ThreeDView(headless, "1", (size, size))
    view3d.name_segments(segmentation)
    view3d.image()
    view3d.look_from_front(lower, upper)
    tiles.append(view3d.image())
    view3d.close()

    axial, coronal, sagittal, surface = tiles
    picture = np.full((size + _GAP + low_row, 2 * size + _GAP, 3), 40, dtype=np.uint8)
    for tile, top, left in (
        (axial, 0, 0),
        (surface, 0, size + _GAP),
        (coronal, size + _GAP, 0),
        (sagittal, size + _GAP, size + _GAP),
    ):
        picture[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
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
        # VTK only says so: a picture that is cut off must not take the place of an older one.
        if writer.GetErrorCode():
            reason = vtk.vtkErrorCode.GetStringFromErrorCode(writer.GetErrorCode())
            raise OSError(f"{path} could not be written ({reason}): is the disk full?")


def _color_rois(
    headless: HeadlessScene, segmentation: slicer.vtkMRMLSegmentationNode
) -> list[slicer.vtkMRMLMarkupsROINode]:
    """Give every ROI the color of the segment of its name, as a frame that hides nothing, and return the ROIs."""
    content = segmentation.GetSegmentation()
    nodes = headless.scene.GetNodesByClass("vtkMRMLMarkupsROINode")
    rois = [nodes.GetItemAsObject(index) for index in range(nodes.GetNumberOfItems())]
    for roi in rois:
        display = roi.GetDisplayNode()
        segment = content.GetSegment(content.GetSegmentIdBySegmentName(roi.GetName()))
        if segment:
            display.SetSelectedColor(segment.GetColor())
        display.SetFillOpacity(0)
        display.SetHandlesInteractive(False)
        display.SetPropertiesLabelVisibility(False)
        display.SetPointLabelsVisibility(False)
        display.SetVisibility3D(False)
        for point in range(roi.GetNumberOfControlPoints()):
            roi.SetNthControlPointVisibility(point, False)
    return rois


def _segment_bounds(segmentation: slicer.vtkMRMLSegmentationNode, volume: slicer.vtkMRMLVolumeNode) -> np.ndarray:
    """Find the RAS bounds of every segment that is not empty, or those of the volume if all are: (N, 3, 2)."""
    found = []
    to_world = slicer.vtkMRMLTransformNode()
    for segment_id in segmentation.GetSegmentation().GetSegmentIDs():
        surface = segmentation.GetClosedSurfaceInternalRepresentation(segment_id)
        if surface is None or surface.GetNumberOfPoints() == 0:
            continue
        transform = vtk.vtkGeneralTransform()
        to_world.GetTransformBetweenNodes(segmentation.GetParentTransformNode(), None, transform)
        move = vtk.vtkTransformPolyDataFilter()
        move.SetTransform(transform)
        move.SetInputData(surface)
        move.Update()
        found.append(np.reshape(move.GetOutput().GetBounds(), (3, 2)))
    if not found:
        found.append(_bounds_of(volume))
    return np.array(found)


def _bounds_of(node: slicer.vtkMRMLDisplayableNode) -> np.ndarray:
    """Return a node's RAS bounds, (3, 2)."""
    bounds = np.zeros(6)
    node.GetRASBounds(bounds)
    return bounds.reshape(3, 2)


def _most_shared(bounds: np.ndarray) -> float:
    """Find the coordinate that lies deepest within the most intervals, given as (N, 2)."""
    centers, halves = bounds.mean(axis=1), np.maximum(np.diff(bounds, axis=1)[:, 0] / 2, 1e-6)
    candidates = np.linspace(bounds[:, 0].min(), bounds[:, 1].max(), 200)
    depth = 1 - np.abs(candidates[:, None] - centers) / halves
    # An interval counts by its presence first and by its depth second.
    return float(candidates[np.argmax((np.where(depth > 0, 1 + depth, 0)).sum(axis=1))])
