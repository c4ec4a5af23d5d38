"""ROI nodes as prompts."""

from __future__ import annotations

import numpy as np
import slicer

from MedSAMSlicerLib.mrml.transforms import matrix_from_numpy, node_to_world, numpy_from_matrix
from MedSAMSlicerLib.mrml.volumes import ijk_to_world
from MedSAMSlicerLib.volume.geometry import box_corners, transform_points


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


def ijk_corners(roi: slicer.vtkMRMLMarkupsROINode, volume: slicer.vtkMRMLVolumeNode) -> np.ndarray:
    """Compute an ROI's eight corners in the voxels of a volume: (8, 3), continuous IJK; see `world_corners`."""
    return transform_points(np.linalg.inv(ijk_to_world(volume)), world_corners(roi))


def wrap_voxels(roi: slicer.vtkMRMLMarkupsROINode, ijk_to_world: np.ndarray, corners: np.ndarray) -> None:
    """Place an ROI that is under no transform around voxels of a volume, along the volume's axes.

    :param ijk_to_world: of the volume, (4, 4).
    :param corners: (8, 3) continuous IJK, as `volume.geometry.voxel_box_corners` makes them.
    """
    lower, upper = corners.min(axis=0), corners.max(axis=0)
    spacing = np.linalg.norm(ijk_to_world[:3, :3], axis=0)
    object_to_node = np.eye(4)
    object_to_node[:3, :3] = ijk_to_world[:3, :3] / spacing
    object_to_node[:3, 3] = ijk_to_world[:3, :3] @ ((lower + upper) / 2) + ijk_to_world[:3, 3]
    roi.SetAndObserveObjectToNodeMatrix(matrix_from_numpy(object_to_node))
    roi.SetSize(*((upper - lower) * spacing))
