"""Hard volume geometries: what hospitals send, not what tests usually use."""

from __future__ import annotations

import numpy as np


def rotation(x: float, y: float, z: float) -> np.ndarray:
    """Rotate about the three axes, in degrees: (3, 3)."""
    a, b, c = np.deg2rad([x, y, z])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def affine(
    directions: np.ndarray, spacing: tuple[float, float, float], origin: tuple[float, float, float]
) -> np.ndarray:
    """Build a matrix (4, 4) from IJK to RAS."""
    matrix = np.eye(4)
    matrix[:3, :3] = directions @ np.diag(spacing)
    matrix[:3, 3] = origin
    return matrix


GEOMETRIES = {
    "oblique anisotropic": affine(rotation(12, -25, 40), (0.8, 0.7, 3.0), (-31.0, 44.5, 12.25)),
    "left-handed": affine(np.diag([-1.0, -1.0, -1.0]), (1.0, 1.5, 2.5), (80.0, 90.0, -10.0)),
    "sagittal acquisition": affine(np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]]), (0.9, 0.9, 5.0), (5.0, 60.0, 70.0)),
}

# First and last voxel (IJK) of the box that most tests segment, within `a_ct`.
FIRST, LAST = (5, 6, 2), (20, 15, 7)
