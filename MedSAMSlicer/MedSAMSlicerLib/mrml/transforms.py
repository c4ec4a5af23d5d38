"""Matrices between MRML nodes and the world, as numpy arrays."""

from __future__ import annotations

import numpy as np
import slicer
import vtk


def numpy_from_matrix(matrix: vtk.vtkMatrix4x4) -> np.ndarray:
    """Copy a VTK matrix to an array (4, 4)."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def matrix_from_numpy(array: np.ndarray) -> vtk.vtkMatrix4x4:
    """Copy an array (4, 4) to a VTK matrix."""
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(array, dtype=float).ravel().tolist())
    return matrix


def node_to_world(node: slicer.vtkMRMLTransformableNode) -> np.ndarray:
    """Compute the matrix (4, 4) of a node's parent transforms, the identity if it has none.

    :raises ValueError: if one of them is not linear.
    """
    transform = node.GetParentTransformNode()
    if transform is None:
        return np.eye(4)
    if not transform.IsTransformToWorldLinear():
        raise ValueError(
            f"{node.GetName()!r} is under the non-linear transform {transform.GetName()!r}: "
            "harden the transform (right-click the node in the Data module) or take the node out of it."
        )
    matrix = vtk.vtkMatrix4x4()
    transform.GetMatrixTransformToWorld(matrix)
    return numpy_from_matrix(matrix)
