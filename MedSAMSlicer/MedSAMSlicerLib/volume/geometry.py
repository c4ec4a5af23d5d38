"""Slices of a volume: its three IJK axes, and an ROI cut by the slice planes.

Arrays are indexed KJI, as numpy sees a VTK or ITK image; a color image has a fourth axis of channels. ``axis`` counts
in IJK order: 0 = I, 1 = J, 2 = K. A slice along an axis keeps the two other ones: its columns (x) are the lower
and its rows (y) the higher of them, so an axial slice of a volume (K, J, I) is the image (J, I).
"""

from __future__ import annotations

import numpy as np

from MedSAMSlicerLib.prompts import Box

AXES = {"i": 0, "j": 1, "k": 2}
# A view that is turned farther off a volume's slices, in degrees, shows too much of the neighboring ones.
MOST_OBLIQUE = 20.0

# An ROI face on a voxel's border must not gain or lose this voxel by rounding.
_TOLERANCE = 1e-4

# The 12 edges of a box whose corner n has the coordinate bits (n & 1, n >> 1 & 1, n >> 2 & 1).
_EDGES = np.array([(a, a | bit) for bit in (1, 2, 4) for a in range(8) if not a & bit])


def choose_axis(spacing: tuple[float, float, float], dimensions: tuple[int, int, int]) -> int:
    """Choose the axis along which a volume is best cut into slices.

    A volume that has one slice is cut across its only direction. Else it is the axis of the largest spacing; K, the
    usual axis of acquisition, where no axis is at least 1 % coarser than both others.

    :param spacing: in millimeters, IJK order.
    :param dimensions: number of voxels, IJK order.
    """
    single = [axis for axis in range(3) if dimensions[axis] == 1]
    if len(single) == 1:
        return single[0]
    coarsest = int(np.argmax(spacing))
    others = max(spacing[axis] for axis in range(3) if axis != coarsest)
    return coarsest if spacing[coarsest] > 1.01 * others else AXES["k"]


def slice_of(voxels: np.ndarray, axis: int, index: int) -> np.ndarray:
    """Cut one slice out of an array, as a view: (rows, columns) or (rows, columns, channels).

    Writing to the answer writes to the array: this is how a mask is put back.

    :param voxels: (K, J, I) or (K, J, I, channels).
    :param axis: 0 = I, 1 = J, 2 = K.
    """
    return voxels[(slice(None),) * (2 - axis) + (index,)]


def plane_axes(axis: int) -> tuple[int, int]:
    """Name the IJK axes of a slice's columns (x) and rows (y)."""
    x_axis, y_axis = (other for other in range(3) if other != axis)
    return x_axis, y_axis


def nearest_axis(to_ijk: np.ndarray, normal: np.ndarray) -> tuple[int, float]:
    """Find the axis whose slices a plane is nearest to, and by how many degrees it is turned against them.

    :param to_ijk: (4, 4) or (3, 3), from the plane's coordinates to voxel indices.
    :param normal: (3,) of the plane, of any length.
    :return: the axis, 0 = I, 1 = J, 2 = K, and the angle, from 0 to 90.
    """
    # Each row of the matrix is normal to the slices of its axis, also if the voxels are sheared.
    normals = to_ijk[:3, :3] / np.linalg.norm(to_ijk[:3, :3], axis=1, keepdims=True)
    cosines = np.abs(normals @ normal) / np.linalg.norm(normal)
    axis = int(cosines.argmax())
    return axis, float(np.degrees(np.arccos(min(float(cosines[axis]), 1.0))))


def transform_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Move points by an affine matrix.

    :param matrix: (4, 4).
    :param points: (N, 3).
    """
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def box_corners(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """List the eight corners of an axis-aligned box, the first coordinate running fastest: (8, 3)."""
    return np.array([[(lower, upper)[n >> axis & 1][axis] for axis in range(3)] for n in range(8)], dtype=float)


def voxel_box_corners(first: tuple[int, int, int], last: tuple[int, int, int]) -> np.ndarray:
    """List the corners of the box that wraps the voxels ``first`` to ``last`` (IJK, inclusive): (8, 3)."""
    return box_corners(np.array(first) - 0.5, np.array(last) + 0.5)


def bounding_box(mask: np.ndarray) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Find the first and the last voxel (IJK, inclusive) of a mask's bounding box.

    :param mask: (K, J, I), nonzero inside.
    :raises ValueError: if the mask is empty.
    """
    found = [np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis))) for axis in (2, 1, 0)]
    if not found[0].size:
        raise ValueError("The mask is empty: it has no bounding box.")
    (i0, j0, k0), (i1, j1, k1) = ([int(indices[end]) for indices in found] for end in (0, -1))
    return (i0, j0, k0), (i1, j1, k1)


def roi_boxes(corners: np.ndarray, dimensions: tuple[int, int, int], axis: int) -> dict[int, Box]:
    """Cut a 3-D box with every slice plane of a volume.

    The box may be oblique to the voxels, so every slice gets its own rectangle: the bounding box of the polygon in
    which the plane through the voxel centers cuts it, clipped to the image and rounded inward to pixels. An ROI that
    lies between two planes (a flat one) belongs to the slice nearest to its center; one that is thinner than a pixel
    takes the pixel that holds its middle.

    :param corners: (8, 3) corners in continuous IJK (an integer is a voxel center), ordered as `box_corners` does.
    :param dimensions: number of voxels, IJK order.
    :param axis: 0 = I, 1 = J, 2 = K.
    :return: slice index -> box, ascending; slices that the ROI misses have none.
    :raises ValueError: if a corner is not finite.
    """
    corners = np.asarray(corners, dtype=float)
    if corners.shape != (8, 3) or not np.isfinite(corners).all():
        raise ValueError(f"An ROI needs eight finite corners, but these were given: {corners.tolist()}.")
    depth = corners[:, axis]
    first = max(int(np.ceil(depth.min() - _TOLERANCE)), 0)
    last = min(int(np.floor(depth.max() + _TOLERANCE)), dimensions[axis] - 1)
    planes: dict[int, float] = {index: float(index) for index in range(first, last + 1)}
    if np.ceil(depth.min() - _TOLERANCE) > np.floor(depth.max() + _TOLERANCE):
        # No voxel center lies within the ROI's thickness: cut it in its own middle instead.
        nearest = int(np.floor(depth.mean() + 0.5))
        planes = {nearest: float(depth.mean())} if 0 <= nearest < dimensions[axis] else {}
    boxes = {}
    for index, position in planes.items():
        polygon = _cut(corners, axis, position)
        spans = [_pixels(polygon[:, other], dimensions[other]) for other in plane_axes(axis)]
        if spans[0] and spans[1]:
            (x0, x1), (y0, y1) = spans[0], spans[1]
            boxes[index] = Box(x0, y0, x1, y1)
    return boxes


def _cut(corners: np.ndarray, axis: int, position: float) -> np.ndarray:
    """Find the corners of the polygon in which a plane cuts a box: (N, 3), at least one."""
    start, end = corners[_EDGES[:, 0]], corners[_EDGES[:, 1]]
    run = end[:, axis] - start[:, axis]
    with np.errstate(divide="ignore", invalid="ignore"):
        fraction = (position - start[:, axis]) / run
    crossing = (np.abs(run) > 1e-12) & (fraction >= -_TOLERANCE) & (fraction <= 1 + _TOLERANCE)
    cut = start[crossing] + np.clip(fraction[crossing], 0, 1)[:, None] * (end - start)[crossing]
    inside = corners[np.abs(corners[:, axis] - position) <= _TOLERANCE]
    polygon = np.concatenate([cut, inside])
    # Within the tolerance of a face, or for a flat ROI, no edge may cross: the face nearest to the plane stands in.
    return polygon if len(polygon) else corners[np.argsort(np.abs(corners[:, axis] - position))[:4]]


def _pixels(coordinates: np.ndarray, count: int) -> tuple[int, int] | None:
    """Round a span inward to the pixel centers that it holds, clipped to the image; None if it lies outside."""
    low, high = float(coordinates.min()), float(coordinates.max())
    if high < -0.5 or low > count - 0.5:
        return None
    first, last = int(np.ceil(low - _TOLERANCE)), int(np.floor(high + _TOLERANCE))
    if first > last:
        first = last = int(np.floor((low + high) / 2 + 0.5))
    first, last = max(first, 0), min(last, count - 1)
    return (first, last) if first <= last else None
