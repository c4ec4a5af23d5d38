"""The boxes that a user may draw around a structure, made of the expert's label."""

from __future__ import annotations

import hashlib

import numpy as np

from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.box_track import bounds
from MedSAMSlicerLib.volume.geometry import bounding_box, slice_of

# Of the structure's size: what a loose box adds on every side, and how far a shifted one is moved at most.
LOOSE = 0.1
_SHIFT = 0.1
# What a hand adds on every side of the one box that it draws.
_DRAWN = 0.05

Voxels = tuple[int, int, int]


def box_of(mask: np.ndarray, kind: str, seed: str = "") -> tuple[Voxels, Voxels]:
    """Find the first and the last voxel (IJK, inclusive) of a 3-D box around a structure, within the image.

    :param mask: the expert's label, bool (K, J, I), not empty.
    :param kind: "tight" (the bounds of the label), "loose" (10 % of its size larger on every side) or "shifted" (moved
        at random by up to 10 % of its size in every direction).
    :param seed: shifts the box the same way whenever it is the same.
    :raises ValueError: if the label is empty or the kind is unknown.
    """
    first, last = (np.array(corner) for corner in bounding_box(mask))
    size = last - first + 1
    if kind == "loose":
        margin = np.ceil(LOOSE * size).astype(int)
        first, last = first - margin, last + margin
    elif kind == "shifted":
        random = np.random.default_rng(int.from_bytes(hashlib.blake2b(seed.encode(), digest_size=8).digest(), "big"))
        moved = np.rint(random.uniform(-_SHIFT, _SHIFT, 3) * size).astype(int)
        first, last = first + moved, last + moved
    elif kind != "tight":
        raise ValueError(f"The box {kind!r} is unknown: give tight, loose or shifted.")
    limit = np.array(mask.shape[::-1]) - 1
    low, high = (tuple(np.clip(corner, 0, limit).tolist()) for corner in (first, last))
    return low, high


def slice_boxes(mask: np.ndarray, axis: int) -> dict[int, Box]:
    """Find the box around a label in every slice that it is in.

    :param mask: bool (K, J, I).
    :param axis: of the slices, 0 = I, 1 = J, 2 = K.
    :return: slice index -> box from the smallest to the largest pixel index.
    """
    boxes = {}
    for index in range(mask.shape[2 - axis]):
        edges = bounds(slice_of(mask, axis, index))
        if edges is not None:
            # Bounds are outer edges, a prompt ends on pixel centers.
            boxes[index] = Box(edges.x0, edges.y0, edges.x1 - 1, edges.y1 - 1)
    return boxes


def box_on_slice(mask: np.ndarray, axis: int) -> tuple[int, Box]:
    """Draw a box on the middle slice of those that a structure is in: its bounds, 5 % larger on every side.

    :param mask: the expert's label, bool (K, J, I), not empty.
    :param axis: of the slices, 0 = I, 1 = J, 2 = K.
    :return: the slice's index, and the box within the slice.
    """
    boxes = slice_boxes(mask, axis)
    middle = (min(boxes) + max(boxes)) // 2
    index = min(boxes, key=lambda each: abs(each - middle))
    return index, enlarged(boxes[index], _DRAWN, slice_of(mask, axis, index).shape)


def enlarged(box: Box, part: float, shape: tuple[int, ...]) -> Box:
    """Move every side of a box outward by a part of its size, rounded up to pixels, within a slice (rows, columns)."""
    rows, columns = shape
    x, y = (int(np.ceil(part * (high - low + 1))) for low, high in ((box.x0, box.x1), (box.y0, box.y1)))
    return Box(max(box.x0 - x, 0), max(box.y0 - y, 0), min(box.x1 + x, columns - 1), min(box.y1 + y, rows - 1))
