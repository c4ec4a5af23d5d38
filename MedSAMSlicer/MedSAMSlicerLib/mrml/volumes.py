"""A volume node as numpy sees it, and one made of voxels."""

from __future__ import annotations

import numpy as np
import slicer
import slicer.util
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from MedSAMSlicerLib.mrml.transforms import matrix_from_numpy, node_to_world, numpy_from_matrix
from MedSAMSlicerLib.volume.files import Volume


def is_image(node: slicer.vtkMRMLNode) -> bool:
    """Return whether a node is an image that a user may want to segment: no labels, and nothing hidden."""
    image = node.IsA("vtkMRMLScalarVolumeNode") and not node.IsA("vtkMRMLLabelMapVolumeNode")
    return bool(image and not node.GetHideFromEditors())


def add_volume(scene: slicer.vtkMRMLScene, volume: Volume) -> slicer.vtkMRMLVolumeNode:
    """Add a volume with its voxels, geometry and a display node; color becomes a vector volume.

    Voxels that can't be written to, as they come from files, are not copied.
    """
    color = volume.voxels.ndim == 4 and volume.voxels.shape[3] > 1
    node = scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode" if color else "vtkMRMLScalarVolumeNode", volume.name)
    image = vtk.vtkImageData()
    image.SetDimensions(*volume.dimensions)
    flat = np.ascontiguousarray(volume.voxels).reshape((-1, volume.voxels.shape[3]) if color else -1)
    scalars = numpy_to_vtk(flat, deep=flat.flags.writeable)
    # The voxels have to live as long as VTK's own array of them, which would keep them longer by its Python part.
    scalars.AddObserver("DeleteEvent", lambda *_, kept=flat: None)
    vars(scalars).pop("_numpy_reference", None)
    image.GetPointData().SetScalars(scalars)
    node.SetIJKToRASMatrix(matrix_from_numpy(volume.ijk_to_ras))
    node.SetAndObserveImageData(image)
    node.CreateDefaultDisplayNodes()
    return node


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
