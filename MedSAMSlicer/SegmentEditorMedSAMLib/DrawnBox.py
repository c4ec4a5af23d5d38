"""A box drawn in a slice view, as a box in the nearest slice of the volume."""

from __future__ import annotations

import numpy as np
from slicer.i18n import tr as _


def drawnBox(first, second, xyToRas, rasToVoxel, dimensions):
    """Make a key slice of two opposite corners in a slice view.

    :param first: (x, y) in the view's pixels, as `second`.
    :param xyToRas: (4, 4) of the view.
    :param rasToVoxel: (4, 4), to the indices of the volume's array.
    :param dimensions: number of voxels, IJK order.
    :raises ValueError: if the view is too oblique to all axes of the volume, or the box lies outside of it.
    """
    from MedSAMSlicerLib.prompts import Box
    from MedSAMSlicerLib.volume.geometry import MOST_OBLIQUE, nearest_axis, plane_axes, transform_points
    from MedSAMSlicerLib.volume.key_slices import KeySlice

    axis, angle = nearest_axis(rasToVoxel, np.cross(xyToRas[:3, 0], xyToRas[:3, 1]))
    if angle > MOST_OBLIQUE:
        raise ValueError(
            _(
                "This view is turned by {angle:.0f}° against the slices of the volume, too far for a box. "
                "Draw in another view, or choose 'Rotate to volume plane' in the view's menu."
            ).format(angle=angle)
        )
    (x0, y0), (x1, y1) = first, second
    corners = np.array([[x0, y0, 0], [x1, y0, 0], [x1, y1, 0], [x0, y1, 0]], dtype=float)
    voxels = np.floor(transform_points(rasToVoxel @ xyToRas, corners) + 0.5).astype(int)
    index = int(np.floor(transform_points(rasToVoxel @ xyToRas, corners).mean(axis=0)[axis] + 0.5))
    low, high = voxels.min(axis=0), voxels.max(axis=0)
    last = np.array(dimensions) - 1
    edges = plane_axes(axis)
    if not 0 <= index <= last[axis] or any(high[edge] < 0 or low[edge] > last[edge] for edge in edges):
        raise ValueError(_("The box lies outside of the volume: draw it around the structure."))
    (x0, x1), (y0, y1) = ((max(int(low[edge]), 0), min(int(high[edge]), int(last[edge]))) for edge in edges)
    return KeySlice(axis, index, Box(x0, y0, x1, y1))
