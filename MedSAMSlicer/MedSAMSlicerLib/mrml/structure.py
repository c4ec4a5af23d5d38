"""Structures to segment, as nodes, voxels or slices tell them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np
import slicer

from MedSAMSlicerLib.mrml.key_slices import key_slice_of
from MedSAMSlicerLib.mrml.markups import ijk_corners
from MedSAMSlicerLib.mrml.slice_boxes import checked_key, is_on_slice, key_on_slice
from MedSAMSlicerLib.mrml.volumes import dimensions, voxels
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.geometry import (
    AXES,
    box_corners,
    choose_axis,
    plane_axes,
    roi_boxes,
    voxel_box_corners,
)
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.slice_stack import SliceStack


@dataclass(frozen=True, eq=False)
class Structure:
    """What is to be segmented: by a 3-D box, a box on one slice, boxes in single slices, or key slices alone.

    :param name: of a new segment.
    :param corners: (8, 3) of the 3-D box, in continuous IJK; None without one.
    :param start: the box on one slice, from which the structure is followed until it ends; None without one.
    :param boxes: slice index -> box in slice pixels, along ``axis``.
    :param axis: along which the structure has to be cut, "i", "j" or "k"; "auto" where any will do.
    :param segment_id: the segment whose content is replaced; None for a new one.
    """

    name: str
    corners: np.ndarray | None = None
    start: KeySlice | None = None
    boxes: Mapping[int, Box] | None = None
    axis: str = "auto"
    key_slices: tuple[KeySlice, ...] = ()
    segment_id: str | None = None

    @property
    def is_followed(self) -> bool:
        """Return whether the ends of the structure have to be found."""
        return self.corners is None and not self.boxes

    @classmethod
    def of_roi(
        cls,
        volume: slicer.vtkMRMLVolumeNode,
        roi: slicer.vtkMRMLMarkupsROINode | None,
        segment_id: str | None = None,
        key_slices: Sequence[KeySlice | slicer.vtkMRMLMarkupsROINode] = (),
    ) -> Structure:
        """Read an ROI, and flat ones as key slices; without an ROI the structure is followed from the first of these.

        From an ROI that is a box on one slice (see `mrml.slice_boxes`) the structure is followed as well.

        :raises ValueError: if a node can't be used, or there is neither an ROI nor a key slice.
        """
        voxels(volume)  # refuses a missing or empty volume
        keys = tuple(each if isinstance(each, KeySlice) else key_slice_of(each, volume) for each in key_slices)
        if roi is None and keys:
            first = key_slices[0]
            name = "Segment" if isinstance(first, KeySlice) else first.GetName()
            return cls(name, axis="ijk"[keys[0].axis], key_slices=keys, segment_id=segment_id)
        corners = ijk_corners(roi, volume)
        if is_on_slice(roi):
            start = key_on_slice(roi, volume)
            return cls(roi.GetName(), None, start, axis="ijk"[start.axis], key_slices=keys, segment_id=segment_id)
        return cls(roi.GetName(), corners, key_slices=keys, segment_id=segment_id)

    @classmethod
    def of_voxels(
        cls,
        volume: slicer.vtkMRMLVolumeNode,
        first: Sequence[int],
        last: Sequence[int],
        name: str = "Segment",
        segment_id: str | None = None,
    ) -> Structure:
        """Take the box that wraps the voxels ``first`` to ``last`` (IJK, inclusive).

        :raises ValueError: if these are not three whole numbers each, in ascending order.
        """
        if len(first) != 3 or len(last) != 3 or any(low > high for low, high in zip(first, last, strict=True)):
            raise ValueError(f"The box {first} to {last} is none: give the first and the last voxel as (I, J, K).")
        i0, j0, k0 = (int(index) for index in first)
        i1, j1, k1 = (int(index) for index in last)
        return cls(name, voxel_box_corners((i0, j0, k0), (i1, j1, k1)), segment_id=segment_id)

    @classmethod
    def of_slice(
        cls,
        volume: slicer.vtkMRMLVolumeNode,
        index: int,
        box: Sequence[float],
        axis: str,
        name: str = "Segment",
        segment_id: str | None = None,
    ) -> Structure:
        """Take a box on one slice, from which the structure is followed until it ends.

        :param box: (x0, y0, x1, y1) in slice pixels, inclusive (see `prompts.Box`).
        :param axis: "i", "j" or "k"; "auto" for the one along which the volume is best cut.
        :raises ValueError: if the volume has no such slice, the box lies outside of it or is a single pixel, has not
            four numbers, or the axis is unknown.
        """
        voxels(volume)  # refuses a missing or empty volume
        if axis not in ("auto", *AXES):
            raise ValueError(f"The axis {axis!r} is unknown: give i, j or k, the axis that the slice index counts.")
        if len(box) != 4:
            raise ValueError(f"The box {tuple(box)} has {len(box)} numbers: give (x0, y0, x1, y1).")
        size = dimensions(volume)
        along = choose_axis(volume.GetSpacing(), size) if axis == "auto" else AXES[axis]
        if not 0 <= index < size[along]:
            raise ValueError(
                f"There is no slice {index} along axis {'IJK'[along]}: the volume has {size[along]} slices there."
            )
        corners = _corners_of(Box(*(float(edge) for edge in box)), along, int(index))
        start = checked_key(along, int(index), roi_boxes(corners, size, along), name, volume.GetName())
        return cls(name, None, start, axis="ijk"[along], segment_id=segment_id)

    @classmethod
    def of_slices(
        cls,
        boxes: Mapping[int, Sequence[float]],
        axis: str,
        name: str = "Segment",
        segment_id: str | None = None,
    ) -> Structure:
        """Take a box of its own for each slice.

        :param boxes: slice index -> (x0, y0, x1, y1) in slice pixels, inclusive (see `prompts.Box`).
        :raises ValueError: if there is no box, a box has not four numbers, or the axis is unknown.
        """
        if axis not in AXES:
            raise ValueError(f"The axis {axis!r} is unknown: give i, j or k, the axis that the slice indices count.")
        if not boxes or any(len(box) != 4 for box in boxes.values()):
            raise ValueError("Give at least one slice, and (x0, y0, x1, y1) for each.")
        slices = {int(index): Box(*(float(edge) for edge in box)) for index, box in sorted(boxes.items())}
        return cls(name, boxes=slices, axis=axis, segment_id=segment_id)

    def cut(
        self, stack: SliceStack, volume: slicer.vtkMRMLVolumeNode, *, any_axis: bool = True
    ) -> tuple[SliceStack, Mapping[int, Box], tuple[KeySlice, ...]]:
        """Return the stack of slices along the structure's axis, and its boxes and key slices there.

        Boxes of single slices are key slices; the slices between them get boxes between theirs. A box on one slice is
        the first key slice, and there are no boxes: the ends have to be found.

        :param stack: of the volume, along the axis to take where any will do.
        :param any_axis: whether the structure may choose another axis than the stack's; boxes on slices always do.
        :raises ValueError: if the structure lies outside of the volume.
        """
        if self.axis != "auto" and (any_axis or self.boxes is not None or self.start is not None):
            stack = stack.along(AXES[self.axis])
        keys = self.key_slices if self.start is None else (self.start, *self.key_slices)
        if self.is_followed:
            return stack, {}, keys
        if self.corners is not None:
            boxes = roi_boxes(self.corners, dimensions(volume), stack.axis)
        else:
            given: dict[int, Box] = {}
            for index, box in (self.boxes or {}).items():
                given |= roi_boxes(_corners_of(box, stack.axis, index), dimensions(volume), stack.axis)
            keys += tuple(KeySlice(stack.axis, index, box) for index, box in given.items())
            boxes = _interpolated(given)
        if not boxes:
            raise ValueError(
                f"The ROI {self.name!r} lies outside of the volume {volume.GetName()!r}: "
                "move it over the structure to segment."
            )
        return stack, boxes, keys


def _corners_of(box: Box, axis: int, index: int) -> np.ndarray:
    """Wrap the pixels of a box in one slice: (8, 3), continuous IJK."""
    lower, upper = np.full(3, index - 0.25), np.full(3, index + 0.25)
    for edge, (first, last) in zip(plane_axes(axis), ((box.x0, box.x1), (box.y0, box.y1)), strict=True):
        lower[edge], upper[edge] = first, last
    return box_corners(lower, upper)


def _interpolated(boxes: Mapping[int, Box]) -> dict[int, Box]:
    """Give every slice from the first to the last a box, rounded to pixels."""
    indices = sorted(boxes)
    if not indices:
        return {}
    edges = np.array([astuple(boxes[index]) for index in indices])
    every = np.arange(indices[0], indices[-1] + 1)
    between = np.stack([np.interp(every, indices, edge) for edge in edges.T], axis=1).round()
    return {int(index): Box(*map(float, edge)) for index, edge in zip(every, between, strict=True)}
