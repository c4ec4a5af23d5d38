"""Finished slices on their way into a segment."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from MedSAMSlicerLib.mrml.segments import SegmentWriter
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.box_track import bounds
from MedSAMSlicerLib.volume.geometry import plane_axes, slice_of
from MedSAMSlicerLib.volume.slice_masks import SliceMask
from MedSAMSlicerLib.volume.slice_stack import SliceStack


class PendingSlices:
    """Finished slices that are not in the segment yet.

    Writing a slice makes Slicer update the 3-D surface, and then draw all views, which can take longer than the slice
    itself: slices are written together, so that writing takes a small share of the time, and drawing as well.

    :param replaces: the first slices that are written take the place of all that the segment holds.
    :param at_once: write only when told to, all slices together.
    """

    _SHARE = 0.1
    # In seconds, as how long Slicer will draw can't be known here.
    _PAUSE = 1.0

    def __init__(self, stack: SliceStack, writer: SegmentWriter, *, replaces: bool, at_once: bool) -> None:
        self._stack = stack
        self._writer = writer
        self._replaces = replaces
        self._at_once = at_once
        self._pending: dict[int, np.ndarray] = {}
        self._written: dict[int, np.ndarray] = {}
        self._next_write = 0.0

    def add(self, result: SliceMask) -> None:
        """Take a slice; one that came before is replaced."""
        self._pending[result.index] = result.mask
        if not self._at_once and time.monotonic() >= self._next_write:
            self.write()

    def write(self) -> None:
        """Write all pending slices, each run of neighbors at once."""
        start = time.monotonic()
        if not self._pending:
            return
        if self._replaces or self._pending.keys() & self._written.keys():
            self._pending = self._written | self._pending
            self._writer.replace(self._blocks())
            self._replaces = False
        else:
            for block, first in self._blocks():
                self._writer.add(block, first)
        self._written |= self._pending
        self._pending = {}
        end = time.monotonic()
        self._next_write = end + max((end - start) / self._SHARE, self._PAUSE)

    def _blocks(self) -> Iterator[tuple[np.ndarray, tuple[int, int, int]]]:
        """Put neighboring slices together: blocks (K, J, I) and the voxel of the volume, IJK, that each begins at."""
        indices = sorted(self._pending)
        while indices:
            run = [index for count, index in enumerate(indices) if index == indices[0] + count]
            # Only the rows and columns that hold something.
            edges = bounds(np.logical_or.reduce([self._pending[index] for index in run])) or Box(0, 0, 0, 0)
            x, y = plane_axes(self._stack.axis)
            first, shape = [0, 0, 0], [0, 0, 0]
            first[x], first[y], first[self._stack.axis] = int(edges.x0), int(edges.y0), run[0]
            shape[x], shape[y], shape[self._stack.axis] = int(edges.x1 - edges.x0), int(edges.y1 - edges.y0), len(run)
            block = np.zeros(shape[::-1], dtype=bool)
            place = np.s_[int(edges.y0) : int(edges.y1), int(edges.x0) : int(edges.x1)]
            for count, index in enumerate(run):
                slice_of(block, self._stack.axis, count)[:] = self._pending[index][place]
            yield block, (first[0], first[1], first[2])
            indices = indices[len(run) :]
