"""Key slices from nodes: a flat ROI, or a slice of a segment that was painted by hand."""

from __future__ import annotations

import slicer

from MedSAMSlicerLib.mrml.markups import ijk_corners
from MedSAMSlicerLib.mrml.segments import segment_slice
from MedSAMSlicerLib.mrml.volumes import dimensions
from MedSAMSlicerLib.volume.geometry import roi_boxes
from MedSAMSlicerLib.volume.key_slices import KeySlice

# In voxels: an ROI that is thicker lies in more than one slice.
_THICKEST = 1.5


def key_slice_of(roi: slicer.vtkMRMLMarkupsROINode, volume: slicer.vtkMRMLVolumeNode) -> KeySlice:
    """Make a key slice of a flat ROI: of the axis in which it is thinnest, in the slice that holds its center.

    :raises ValueError: if the ROI has no size, lies outside of the volume, or is thicker than a slice in every axis.
    """
    corners = ijk_corners(roi, volume)
    extent = corners.max(axis=0) - corners.min(axis=0)
    axis = int(extent.argmin())
    if extent[axis] > _THICKEST:
        raise ValueError(
            f"The ROI {roi.GetName()!r} is {extent[axis]:.1f} slices thick: a key slice is a flat box in one slice."
        )
    # Flattened to its middle, it can't lie between two slices.
    corners[:, axis] = corners[:, axis].mean()
    boxes = roi_boxes(corners, dimensions(volume), axis)
    if not boxes:
        raise ValueError(
            f"The ROI {roi.GetName()!r} lies outside of the volume {volume.GetName()!r}: "
            "move it over the structure, or delete it."
        )
    ((index, box),) = boxes.items()
    return KeySlice(axis, index, box)


def painted_slice(
    segmentation: slicer.vtkMRMLSegmentationNode,
    segment_id: str,
    volume: slicer.vtkMRMLVolumeNode,
    axis: int,
    index: int,
) -> KeySlice:
    """Make a key slice of what a segment holds now in one slice of a volume.

    :param axis: 0 = I, 1 = J, 2 = K.
    :raises ValueError: if the volume has no such slice.
    """
    count = dimensions(volume)[axis]
    if not 0 <= index < count:
        raise ValueError(f"There is no slice {index} along axis {'IJK'[axis]}: the volume has {count} slices there.")
    return KeySlice(axis, index, mask=segment_slice(segmentation, segment_id, volume, axis, index))
