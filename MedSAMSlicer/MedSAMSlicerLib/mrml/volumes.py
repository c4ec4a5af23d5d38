"""A volume node as numpy sees it."""

from __future__ import annotations

import numpy as np
import slicer
import slicer.util
import vtk

from MedSAMSlicerLib.mrml.transforms import node_to_world, numpy_from_matrix


def is_image(node: slicer.vtkMRMLNode) -> bool:
    """Return whether a node is an image that a user may want to segment: no labels, and nothing hidden."""
    image = node.IsA("vtkMRMLScalarVolumeNode") and not node.IsA("vtkMRMLLabelMapVolumeNode")
    return bool(image and not node.GetHideFromEditors())


def voxels(volume: slicer.vtkMRMLVolumeNode) -> np.ndarray:
    """View a volume's voxels: (K, J, I), in color (K, J, I, channels). They must not be written to.

    :raises ValueError: if there is no volume, or it has no voxels.
    """
    if volume is None or not volume.IsA("vtkMRMLVolumeNode"):
        raise ValueError("No volume is given: choose the CT or MRI volume to segment.")
    image = volume.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None or image.GetNumberOfPoints() == 0:
        raise ValueError(f"The volume {volume.GetName()!r} has no voxels: load it again.")
    view = slicer.util.arrayFromVolume(volume).view()
    view.flags.writeable = False
    return view


def dimensions(volume: slicer.vtkMRMLVolumeNode) -> tuple[int, int, int]:
    """Return the number of voxels, IJK order."""
    i, j, k = volume.GetImageData().GetDimensions()
    return i, j, k


def ijk_to_world(volume: slicer.vtkMRMLVolumeNode) -> np.ndarray:
    """Compute the matrix (4, 4) from voxel indices to RAS world coordinates, parent transforms included.

    :raises ValueError: if a parent transform is not linear, or the matrix is singular.
    """
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    to_world = node_to_world(volume) @ numpy_from_matrix(matrix)
    if not np.isfinite(to_world).all() or abs(np.linalg.det(to_world[:3, :3])) < 1e-12:
        raise ValueError(f"The volume {volume.GetName()!r} has no valid geometry (spacing or directions are zero).")
    return to_world
