"""ROI nodes as prompts."""

from __future__ import annotations

import numpy as np
import slicer

from MedSAMSlicerLib.mrml.transforms import node_to_world, numpy_from_matrix
from MedSAMSlicerLib.mrml.volumes import dimensions, ijk_to_world
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.geometry import box_corners, roi_boxes, transform_points


def world_corners(roi: slicer.vtkMRMLMarkupsROINode) -> np.ndarray:
    """Compute an ROI's eight corners in RAS world coordinates: (8, 3).

    They are ObjectToWorld x (+-GetSize() / 2) and nothing else: under a scaling parent transform ``GetPlanesWorld`` and
    ``GetSizeWorld`` are off, as ObjectToWorld contains the scale already.

    :raises ValueError: if there is no ROI, it is not placed yet, or it is under a non-linear transform.
    """
    if roi is None or not roi.IsA("vtkMRMLMarkupsROINode"):
        raise ValueError("No ROI is given: place a box (Markups ROI) around the structure to segment.")
    size = np.array(roi.GetSize(), dtype=float)
    if roi.GetNumberOfDefinedControlPoints() == 0 or not size.any():
        raise ValueError(f"The ROI {roi.GetName()!r} has no size yet: place it around the structure to segment.")
    node_to_world(roi)  # refuses a non-linear transform, under which the box would be none
    object_to_world = numpy_from_matrix(roi.GetObjectToWorldMatrix())
    return transform_points(object_to_world, box_corners(-size / 2, size / 2))


def slice_boxes(roi: slicer.vtkMRMLMarkupsROINode, volume: slicer.vtkMRMLVolumeNode, axis: int) -> dict[int, Box]:
    """Cut an ROI with every slice plane of a volume (see `volume.geometry.roi_boxes`).

    :param axis: 0 = I, 1 = J, 2 = K.
    :return: slice index -> box in slice pixels.
    :raises ValueError: if the ROI lies outside of the volume.
    """
    world_to_ijk = np.linalg.inv(ijk_to_world(volume))
    boxes = roi_boxes(transform_points(world_to_ijk, world_corners(roi)), dimensions(volume), axis)
    if not boxes:
        raise ValueError(
            f"The ROI {roi.GetName()!r} lies outside of the volume {volume.GetName()!r}: "
            "move it over the structure to segment."
        )
    return boxes
