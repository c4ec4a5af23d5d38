"""A mask of a volume that takes memory only where it holds something."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from MedSAMSlicerLib.volume.geometry import bounding_box, plane_axes, slice_of

Voxel = tuple[int, int, int]


class SparseMask:
    """A bool volume of which only a box is kept; the box grows with what is put into the mask.

    :param dimensions: of the volume, IJK order.
    """

    def __init__(self, dimensions: Voxel) -> None:
        self._dimensions = dimensions
        self._first: Voxel = (0, 0, 0)
        self._part: np.ndarray = np.zeros((0, 0, 0), dtype=bool)

    def span(self, axis: int) -> range:
        """Return the slices from the first to the last that holds something; none for an empty mask."""
        if not self._part.any():
            return range(0)
        low, high = bounding_box(self._part)
        return range(self._first[axis] + low[axis], self._first[axis] + high[axis] + 1)

    def cut(self, axis: int, index: int) -> np.ndarray:
        """Copy a slice: bool (rows, columns)."""
        x, y = plane_axes(axis)
        whole = np.zeros((self._dimensions[y], self._dimensions[x]), dtype=bool)
        within = index - self._first[axis]
        if 0 <= within < self._part.shape[2 - axis]:
            part = slice_of(self._part, axis, within)
            whole[self._plane(axis, part.shape)] = part
        return whole

    def put(self, axis: int, index: int, mask: np.ndarray) -> None:
        """Replace a slice.

        :param mask: bool (rows, columns).
        """
        x, y = plane_axes(axis)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if rows.size:
            first, last = [index] * 3, [index] * 3
            first[x], last[x], first[y], last[y] = columns[0], columns[-1], rows[0], rows[-1]
            self._grow(first, last)
        within = index - self._first[axis]
        if 0 <= within < self._part.shape[2 - axis]:
            part = slice_of(self._part, axis, within)
            part[:] = mask[self._plane(axis, part.shape)]

    def along(self, axis: int, indices: range) -> Mapping[int, np.ndarray]:
        """View slices of one direction, each of which is cut when it is asked for."""
        return _Slices(self, axis, indices)

    def _plane(self, axis: int, shape: tuple[int, ...]) -> tuple[slice, slice]:
        """Return the rows and columns of the box in a slice."""
        x, y = plane_axes(axis)
        top, left = self._first[y], self._first[x]
        return slice(top, top + shape[0]), slice(left, left + shape[1])

    def _grow(self, first: list[int], last: list[int]) -> None:
        """Make the box hold the voxels from a first to a last one (IJK, inclusive)."""
        size = self._part.shape[::-1]
        if self._part.size:
            first = [min(pair) for pair in zip(first, self._first, strict=True)]
            ends = (old + length - 1 for old, length in zip(self._first, size, strict=True))
            last = [max(pair) for pair in zip(last, ends, strict=True)]
        shape = tuple(int(high - low + 1) for low, high in zip(first, last, strict=True))
        if shape == size:
            return
        larger = np.zeros(shape[::-1], dtype=bool)
        if self._part.size:
            place = (
                slice(old - low, old - low + length) for old, low, length in zip(self._first, first, size, strict=True)
            )
            larger[tuple(place)[::-1]] = self._part
        self._part, self._first = larger, (int(first[0]), int(first[1]), int(first[2]))


class _Slices(Mapping[int, np.ndarray]):
    def __init__(self, mask: SparseMask, axis: int, indices: range) -> None:
        self._mask, self._axis, self._indices = mask, axis, indices

    def __getitem__(self, index: int) -> np.ndarray:
        if index not in self._indices:
            raise KeyError(index)
        return self._mask.cut(self._axis, index)

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices)

    def __len__(self) -> int:
        return len(self._indices)
