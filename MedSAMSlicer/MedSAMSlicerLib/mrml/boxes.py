"""ROI nodes and what they are to segments: the box around a structure, or a key slice of its segment.

All of it is kept on the ROI nodes themselves, so that it is saved with the scene and gone with the node.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import slicer

from MedSAMSlicerLib.mrml.markups import ijk_corners, wrap_voxels
from MedSAMSlicerLib.mrml.segments import segment_span
from MedSAMSlicerLib.mrml.slice_boxes import has_depth, is_on_slice, lay, show_found, slice_of
from MedSAMSlicerLib.mrml.structure import Structure
from MedSAMSlicerLib.mrml.transforms import numpy_from_matrix
from MedSAMSlicerLib.mrml.volumes import dimensions, ijk_to_world
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.geometry import MOST_OBLIQUE, box_corners, choose_axis, nearest_axis, plane_axes
from MedSAMSlicerLib.volume.key_slices import KeySlice

_SEGMENT, _KEY_SLICE, _TICKED = "MedSAM.SegmentID", "MedSAM.KeySlice", "MedSAM.Ticked"
_SEGMENTATION, _VOLUME = "MedSAM.Segmentation", "MedSAM.Volume"

# A key slice seen in 3-D: a plate, thinner than the slice, so that it lies in one slice only.
_THICKNESS = 0.5


def is_key_slice(roi: slicer.vtkMRMLMarkupsROINode) -> bool:
    """Return whether an ROI is a key slice, and not the box around a structure."""
    return roi.GetAttribute(_KEY_SLICE) == "1"


def is_placed(roi: slicer.vtkMRMLMarkupsROINode) -> bool:
    """Return whether an ROI has its place and size; while it is being placed it has a preview's."""
    return any(roi.GetSize()) and bool(roi.GetControlPointPlacementComplete())


def structure_boxes(scene: slicer.vtkMRMLScene) -> list[slicer.vtkMRMLMarkupsROINode]:
    """List the placed ROIs of a scene that may be boxes around structures."""
    return [roi for roi in _rois(scene) if is_placed(roi) and not is_key_slice(roi)]


def key_slices_of(segmentation: slicer.vtkMRMLSegmentationNode, segment_id: str) -> list[slicer.vtkMRMLMarkupsROINode]:
    """List the key slices of a segment that have been placed."""
    return [
        roi
        for roi in _rois(segmentation.GetScene())
        if is_key_slice(roi) and segment_of(roi, segmentation) == segment_id and is_placed(roi)
    ]


def box_of(segmentation: slicer.vtkMRMLSegmentationNode, segment_id: str) -> slicer.vtkMRMLMarkupsROINode | None:
    """Return the box that a segment was made from, if it is still there."""
    rois = structure_boxes(segmentation.GetScene())
    return next((roi for roi in rois if segment_of(roi, segmentation) == segment_id), None)


def segment_of(roi: slicer.vtkMRMLMarkupsROINode, segmentation: slicer.vtkMRMLSegmentationNode | None) -> str | None:
    """Return the ID of the segment that an ROI belongs to in a segmentation; None if there is none (any more)."""
    if segmentation is None or roi.GetNodeReferenceID(_SEGMENTATION) != segmentation.GetID():
        return None
    segment_id = roi.GetAttribute(_SEGMENT)
    return segment_id if segment_id and segmentation.GetSegmentation().GetSegment(segment_id) else None


def bind(roi: slicer.vtkMRMLMarkupsROINode, segmentation: slicer.vtkMRMLSegmentationNode, segment_id: str) -> None:
    """Remember which segment was made from an ROI."""
    roi.SetNodeReferenceID(_SEGMENTATION, segmentation.GetID())
    roi.SetAttribute(_SEGMENT, segment_id)


def is_ticked(roi: slicer.vtkMRMLMarkupsROINode) -> bool:
    """Return whether a box is to be segmented; an ROI that serves something else isn't until it is ticked."""
    return roi.GetAttribute(_TICKED) == "1"


def tick(roi: slicer.vtkMRMLMarkupsROINode, ticked: bool) -> None:
    """Say whether a box is to be segmented together with the others."""
    roi.SetAttribute(_TICKED, "1" if ticked else None)


def structure_of(
    segmentation: slicer.vtkMRMLSegmentationNode,
    segment_id: str,
    volume: slicer.vtkMRMLVolumeNode,
    painted: Sequence[KeySlice] = (),
) -> Structure:
    """Put a segment's box and key slices together to what is to be segmented (again).

    :param painted: slices that were painted by hand.
    :raises ValueError: if there is neither.
    """
    return Structure.of_roi(
        volume, box_of(segmentation, segment_id), segment_id, [*key_slices_of(segmentation, segment_id), *painted]
    )


def new_box(scene: slicer.vtkMRMLScene, name: str) -> slicer.vtkMRMLMarkupsROINode:
    """Add an ROI, without a place yet, of which edges and handles only are drawn: what it holds can be seen."""
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", name)
    roi.CreateDefaultDisplayNodes()
    roi.GetDisplayNode().SetFillVisibility(False)
    roi.GetDisplayNode().SetPropertiesLabelVisibility(False)
    return roi


def new_key_slice(scene: slicer.vtkMRMLScene, name: str) -> slicer.vtkMRMLMarkupsROINode:
    """Add an ROI that will be a key slice, without a place yet."""
    roi = new_box(scene, name)
    roi.SetAttribute(_KEY_SLICE, "1")
    return roi


def show_depth(
    roi: slicer.vtkMRMLMarkupsROINode,
    volume: slicer.vtkMRMLVolumeNode,
    segmentation: slicer.vtkMRMLSegmentationNode,
    segment_id: str | None,
) -> None:
    """Give a box on one slice the depth of what was found from there; without a segment it lies in its slice only.

    A 3-D box stays as it is.
    """
    if not is_on_slice(roi):
        return
    try:
        axis, index = slice_of(roi, volume)
    except ValueError:
        return
    found = segment_span(segmentation, segment_id, volume, axis) if segment_id is not None else range(0)
    if index in found:
        show_found(roi, volume, found[0], found[-1])
    elif has_depth(roi):
        lay(roi, volume, axis, index)


def belong(
    roi: slicer.vtkMRMLMarkupsROINode,
    volume: slicer.vtkMRMLVolumeNode,
    segmentation: slicer.vtkMRMLSegmentationNode,
    segment_id: str,
) -> None:
    """Let a box belong to the segment that was made from it, with the depth that was found."""
    bind(roi, segmentation, segment_id)
    roi.SetNodeReferenceID(_VOLUME, volume.GetID())
    show_depth(roi, volume, segmentation, segment_id)


def fit_depths(segmentation: slicer.vtkMRMLSegmentationNode) -> None:
    """Give the boxes of all segments the depth of these as they are now; without its segment, a box is flat again."""
    for roi in structure_boxes(segmentation.GetScene()):
        volume = roi.GetNodeReference(_VOLUME)
        if volume is not None and roi.GetNodeReferenceID(_SEGMENTATION) == segmentation.GetID():
            show_depth(roi, volume, segmentation, segment_of(roi, segmentation))


def flatten(roi: slicer.vtkMRMLMarkupsROINode, volume: slicer.vtkMRMLVolumeNode, axis: int) -> None:
    """Make an ROI a box in one slice of a volume: that of its center.

    :param axis: of the slice, 0 = I, 1 = J, 2 = K.
    """
    corners = ijk_corners(roi, volume)
    index = round(float(corners[:, axis].mean()))
    # Slicer lays a new ROI along the axes of the patient. In an oblique slice the corners that were clicked are two of
    # its eight: opposite ones, both in the slice.
    opposite = min(((n, 7 - n) for n in range(4)), key=lambda pair: abs(float(np.ptp(corners[list(pair), axis]))))
    lower, upper = corners[list(opposite)].min(axis=0), corners[list(opposite)].max(axis=0)
    lower[axis], upper[axis] = index - _THICKNESS / 2, index + _THICKNESS / 2
    wrap_voxels(roi, ijk_to_world(volume), box_corners(lower, upper))


def key_slice_axis(roi: slicer.vtkMRMLMarkupsROINode, volume: slicer.vtkMRMLVolumeNode) -> int:
    """Return the axis of a key slice's slice (0 = I, 1 = J, 2 = K): that in which it is thinnest."""
    return int(np.ptp(ijk_corners(roi, volume), axis=0).argmin())


def place_in_slice(
    roi: slicer.vtkMRMLMarkupsROINode, volume: slicer.vtkMRMLVolumeNode, axis: int, index: int, box: Box
) -> None:
    """Place an ROI around the pixels of a box in one slice of a volume."""
    lower, upper = np.full(3, index - _THICKNESS / 2), np.full(3, index + _THICKNESS / 2)
    for edge, (first, last) in zip(plane_axes(axis), ((box.x0, box.x1), (box.y0, box.y1)), strict=True):
        lower[edge], upper[edge] = first - 0.5, last + 0.5
    wrap_voxels(roi, ijk_to_world(volume), box_corners(lower, upper))


def slice_in_view(slice_node: slicer.vtkMRMLSliceNode, volume: slicer.vtkMRMLVolumeNode) -> tuple[int, int]:
    """Find the slice of a volume that a slice view shows: its axis (0 = I, 1 = J, 2 = K) and its index.

    :raises ValueError: if the view is turned by more than 20 degrees against every axis of the volume, or shows none
        of its slices.
    """
    to_ijk = np.linalg.inv(ijk_to_world(volume))
    slice_to_world = numpy_from_matrix(slice_node.GetSliceToRAS())
    axis, angle = nearest_axis(to_ijk, slice_to_world[:3, 2])
    if angle > MOST_OBLIQUE:
        raise ValueError(
            f"The view {slice_node.GetName()!r} is turned by {angle:.0f} degrees against the volume's slices: "
            "rotate it to the volume plane (in the view's menu), or use another view."
        )
    index = round(float((to_ijk @ slice_to_world[:, 3])[axis]))
    if not 0 <= index < dimensions(volume)[axis]:
        raise ValueError(f"The view {slice_node.GetName()!r} shows no slice of the volume: scroll to the structure.")
    return axis, index


def slice_clicked(
    roi: slicer.vtkMRMLMarkupsROINode, slice_node: slicer.vtkMRMLSliceNode, volume: slicer.vtkMRMLVolumeNode
) -> tuple[int, int]:
    """Find the slice of a volume that an ROI was placed in by clicks in a slice view: its axis and its index.

    :raises ValueError: if `slice_in_view` does, or the clicks were in different slices or views.
    """
    axis, _index = slice_in_view(slice_node, volume)
    slice_to_world, to_world = numpy_from_matrix(slice_node.GetSliceToRAS()), ijk_to_world(volume)
    center = np.array(roi.GetCenterWorld())
    normal = slice_to_world[:3, 2] / np.linalg.norm(slice_to_world[:3, 2])
    if abs(normal @ (center - slice_to_world[:3, 3])) > 0.25 * np.linalg.norm(to_world[:3, axis]):
        raise ValueError(f"The corners of {roi.GetName()!r} are in different slices.")
    return axis, round(float(ijk_corners(roi, volume)[:, axis].mean()))


def slice_in_middle(roi: slicer.vtkMRMLMarkupsROINode, volume: slicer.vtkMRMLVolumeNode) -> tuple[int, int]:
    """Find the slice of a volume, along the axis that it is best cut along, in which an ROI has its middle.

    :return: the axis (0 = I, 1 = J, 2 = K) and the index.
    """
    axis = choose_axis(volume.GetSpacing(), dimensions(volume))
    return axis, round(float(ijk_corners(roi, volume)[:, axis].mean()))


def _rois(scene: slicer.vtkMRMLScene | None) -> list[slicer.vtkMRMLMarkupsROINode]:
    # (Not by slicer.util.getNodesByClass, which always asks the application's scene.)
    if scene is None:
        return []
    nodes = (
        scene.GetNthNodeByClass(n, "vtkMRMLMarkupsROINode")
        for n in range(scene.GetNumberOfNodesByClass("vtkMRMLMarkupsROINode"))
    )
    return [node for node in nodes if not node.GetHideFromEditors()]
