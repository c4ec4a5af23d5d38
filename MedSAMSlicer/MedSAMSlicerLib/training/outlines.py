"""What there is to train on: the expert's outline of every label in every slice of the cases."""

from __future__ import annotations

import copy
from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np

from MedSAMSlicerLib.dataset.case import LoadedCase
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.box_track import bounds
from MedSAMSlicerLib.volume.geometry import slice_of
from MedSAMSlicerLib.volume.intensity import IntensityRange
from MedSAMSlicerLib.volume.slice_stack import SliceStack


@dataclass(frozen=True)
class Outline:
    """One label in one slice of a case, along the axis in which the case's slices lie.

    :param size: the slice's (rows, columns).
    :param place: of the bounding box: first row and column, and its height and width.
    :param bits: the mask within it, packed.
    :param region: the edges of the whole structure, as a 3-D box around it shows them in every slice.
    :param neighbors: its edges in the neighboring slices that it is in.
    """

    case_id: str
    label: str
    index: int
    size: tuple[int, int]
    place: tuple[int, int, int, int]
    bits: bytes
    region: Box
    neighbors: tuple[Box, ...]

    @classmethod
    def of(
        cls, mask: np.ndarray, case_id: str, label: str, index: int, region: Box, neighbors: tuple[Box, ...]
    ) -> Outline:
        """Pack a mask, bool (rows, columns), not empty."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        place = (int(rows[0]), int(columns[0]), *part.shape)
        size, bits = (mask.shape[0], mask.shape[1]), np.packbits(part).tobytes()
        return cls(case_id, label, index, size, place, bits, region, neighbors)

    @property
    def mask(self) -> np.ndarray:
        """Unpack the mask: bool (rows, columns)."""
        row, column, height, width = self.place
        part = np.unpackbits(np.frombuffer(self.bits, dtype=np.uint8), count=height * width)
        mask = np.zeros(self.size, dtype=bool)
        mask[row : row + height, column : column + width] = part.reshape(height, width)
        return mask

    @property
    def groups(self) -> tuple[Hashable, ...]:
        """Name the groups among which turns are balanced: the case, the label, and the size as the model sees it."""
        height, width = self.place[2:]
        # Classes of a factor of 4 in area, relative to the slice: it is the slice that is scaled to the model's input.
        share = height * width / max(self.size) ** 2
        return self.case_id, self.label, int(np.floor(np.log2(share) / 2))

    def __str__(self) -> str:
        return f"{self.case_id}, {self.label!r}, slice {self.index}"


class Outlines:
    """The outlines of cases and the slices that they lie in; other slices are not kept.

    In memory are the slices as they were stored, 0.5 MB each for a CT of 512 x 512, and the packed masks.

    :raises ValueError: if there is not a single outline.
    """

    def __init__(self, cases: Iterable[LoadedCase]) -> None:
        self.all: list[Outline] = []
        self._slices: dict[tuple[str, int], np.ndarray] = {}
        self._windows: dict[str, IntensityRange] = {}
        for loaded in cases:
            self._add(loaded)
        self._check()

    @property
    def slices(self) -> int:
        """Return the number of slices that an outline lies in."""
        return len(self._slices)

    def slice(self, case_id: str, index: int) -> tuple[np.ndarray, IntensityRange]:
        """Return the voxels of a slice, (rows, columns) or (rows, columns, 3), and the window of its case."""
        return self._slices[case_id, index], self._windows[case_id]

    def of_cases(self, ids: Collection[str]) -> Outlines:
        """Return the outlines of some of the cases; the slices are shared.

        :raises ValueError: if there is not a single one.
        """
        some = copy.copy(self)
        some.all = [outline for outline in self.all if outline.case_id in ids]
        some._check()
        return some

    def _check(self) -> None:
        if not self.all:
            raise ValueError("No case of the training split has a label: add labelled cases, or move some to train.")

    def _add(self, loaded: LoadedCase) -> None:
        stack = SliceStack(loaded.volume.voxels, loaded.volume.spacing, window=loaded.window)
        name = loaded.case.id
        self._windows[name] = stack.range
        for label, mask in loaded.labels.items():
            region = bounds(np.any(mask, axis=2 - stack.axis))
            found = {index: bounds(slice_of(mask, stack.axis, index)) for index in range(len(stack))}
            edges = {index: box for index, box in found.items() if box}
            for index in edges:
                neighbors = tuple(edges[other] for other in (index - 1, index + 1) if other in edges)
                plane = slice_of(mask, stack.axis, index)
                self.all.append(Outline.of(plane, name, label, index, cast(Box, region), neighbors))
                if (name, index) not in self._slices:
                    self._slices[name, index] = slice_of(stack.voxels, stack.axis, index).copy()
