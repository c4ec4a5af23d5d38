"""A volume as the model sees it: a stack of windowed slices along one axis."""

from __future__ import annotations

import copy
from functools import cached_property

import numpy as np

from MedSAMSlicerLib.volume.geometry import AXES, choose_axis, plane_axes, slice_of
from MedSAMSlicerLib.volume.intensity import IntensityRange, resolve_window


class SliceStack:
    """The slices of a volume along one axis, windowed to uint8 one by one when they are asked for.

    :param voxels: (K, J, I) or, in color, (K, J, I, channels); it is only read and not copied.
    :param spacing: in millimeters, IJK order.
    :param axis: "i", "j", "k", or "auto" (see `choose_axis`).
    :param window: see `resolve_window`; what it returned for this volume spares a look at all voxels.
    :raises ValueError: if the array is not a volume, or the axis or window is unknown.
    """

    def __init__(
        self,
        voxels: np.ndarray,
        spacing: tuple[float, float, float],
        *,
        axis: str = "auto",
        window: str | IntensityRange = "auto",
    ) -> None:
        voxels = seen_channels(voxels)
        if axis != "auto" and axis not in AXES:
            raise ValueError(f"The axis {axis!r} is unknown: give auto, i, j or k.")
        self.voxels = voxels
        self.spacing = spacing
        self.dimensions = (voxels.shape[2], voxels.shape[1], voxels.shape[0])
        self.axis = choose_axis(spacing, self.dimensions) if axis == "auto" else AXES[axis]
        self.range = resolve_window(window, voxels) if isinstance(window, str) else window

    def along(self, axis: int) -> SliceStack:
        """Return the same volume, windowed the same way, cut along another axis (0 = I, 1 = J, 2 = K)."""
        other = copy.copy(self)
        other.axis = axis
        return other

    def __len__(self) -> int:
        return self.dimensions[self.axis]

    @property
    def thickness(self) -> float:
        """Return the distance of neighboring slices in millimeters."""
        return self.spacing[self.axis]

    @property
    def pixel(self) -> float:
        """Return the smaller side of a slice's pixels in millimeters."""
        return min(self.spacing[axis] for axis in plane_axes(self.axis))

    @property
    def shape(self) -> tuple[int, int]:
        """Return a slice's (rows, columns)."""
        x_axis, y_axis = plane_axes(self.axis)
        return self.dimensions[y_axis], self.dimensions[x_axis]

    def image(self, index: int, part: tuple[slice, slice] = np.s_[:, :]) -> np.ndarray:
        """Window one slice, or a part of it, to a new array: uint8 (rows, columns) or (rows, columns, 3)."""
        values = slice_of(self.voxels, self.axis, index)[part]
        if self._table is None:
            return self.range.apply(values)
        # Faster than an index, and no value is out of bounds.
        return self._table.take(values.view(f"u{values.itemsize}"), mode="clip")

    @cached_property
    def _table(self) -> np.ndarray | None:
        """Window all values of a short integer type, by their bits: to look a slice up is faster than arithmetic."""
        kind = self.voxels.dtype
        if kind.kind not in "iu" or kind.itemsize > 2 or not kind.isnative:
            return None
        return self.range.apply(np.arange(1 << 8 * kind.itemsize, dtype=f"u{kind.itemsize}").view(kind))


def seen_channels(voxels: np.ndarray) -> np.ndarray:
    """View what the model sees of a volume: gray (K, J, I) or red, green and blue (K, J, I, 3), without alpha.

    :raises ValueError: if the array is not a volume.
    """
    if voxels.ndim not in (3, 4) or 0 in voxels.shape:
        raise ValueError(f"A volume has 3 axes (and 3 or 4 color channels), but this array has shape {voxels.shape}.")
    if voxels.ndim == 4:
        if voxels.shape[3] not in (1, 3, 4):
            raise ValueError(
                f"The volume has {voxels.shape[3]} values per voxel; 1, 3 (RGB) or 4 (RGBA) can be segmented: "
                "extract one component or one time point first."
            )
        return voxels[..., 0] if voxels.shape[3] == 1 else voxels[..., :3]
    return voxels
