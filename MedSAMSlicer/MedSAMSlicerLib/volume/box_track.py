"""The track of a structure's box through the slices: smoothed where masks are uncertain, moved where they are wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.slice_masks import SliceMask

# How much sides wander from end to end of the stack, and how far a side of a certain mask, and one of a mask of no
# confidence, are off: variances, of which only the ratio counts.
_WANDERING = 0.5
_CERTAIN, _UNCERTAIN = 0.003, 1.0
# A side that the user gave is off by nothing to speak of.
_GIVEN = 1e-6


def bounds(mask: np.ndarray) -> Box | None:
    """Find the outer edges of a mask, bool (rows, columns), as a prompt; None if it is empty."""
    rows = np.logical_or.reduce(mask, axis=1)
    top = int(rows.argmax())
    if not rows.size or not rows[top]:
        return None
    bottom = len(rows) - int(rows[::-1].argmax())
    columns = np.logical_or.reduce(mask[top:bottom], axis=0)
    return Box(int(columns.argmax()), top, len(columns) - int(columns[::-1].argmax()), bottom)


def smoothed_boxes(results: Sequence[SliceMask], given: Mapping[int, Box] | None = None) -> dict[int, Box]:
    """Smooth the boxes around masks across the slices, so that uncertain ones follow their neighbors.

    Each side is a random walk, seen exactly where a box is given and the worse the less certain a mask is (a Kalman
    smoother). A walk forgets what lies beyond a known point: a given box changes nothing beyond the next one.

    :param results: neighbors, in order.
    :param given: slice index -> box, by its outer edges.
    :return: slice index -> box; none at all if all masks are empty.
    """
    given = given or {}
    boxes = [given.get(result.index) or bounds(result.mask) for result in results]
    if not any(boxes):
        return {}
    sides = np.array([sides_of(box) if box else np.zeros(4) for box in boxes])
    weights = np.zeros(len(results))
    for row, (result, box) in enumerate(zip(results, boxes, strict=True)):
        if box:
            uncertain = _CERTAIN + _UNCERTAIN * (1 - result.confidence) ** 2
            weights[row] = 1 / (_GIVEN if result.index in given else uncertain)
    precision = np.diag(weights)
    for row in range(len(results) - 1):
        precision[row : row + 2, row : row + 2] += len(results) / _WANDERING * np.array([[1, -1], [-1, 1]])
    solved = np.linalg.solve(precision, weights[:, None] * sides)
    return {result.index: _box(row) for result, row in zip(results, solved, strict=True)}


def moved_boxes(results: Sequence[SliceMask], given: Mapping[int, Box]) -> dict[int, Box]:
    """Move the boxes around masks as the given boxes moved theirs.

    Between two given boxes the way that each side has moved is interpolated; outward of them it decays, to about a
    third over the length of the stack. What was wrong in one slice (too wide on one side) mostly is in its neighbors,
    too.

    :param results: neighbors, in order; the masks as they were before the boxes were given.
    :param given: slice index -> box, by its outer edges.
    :return: slice index -> box, of the slices whose mask is not empty; none if no given box has a mask to move.
    """
    before = {result.index: box for result in results if (box := bounds(result.mask))}
    known = sorted(index for index in given if index in before)
    if not known:
        return {}
    limits = results[0].mask.shape[::-1] * 2
    ways = np.array([sides_of(given[index]) - sides_of(before[index]) for index in known])
    moved = {}
    for index, box in before.items():
        way = np.array([np.interp(index, known, side) for side in ways.T])
        beyond = max(known[0] - index, index - known[-1], 0)
        moved[index] = _box(np.minimum(sides_of(box) + way * np.exp(-beyond / len(results)), limits))
    return moved


def sides_of(box: Box) -> np.ndarray:
    """Return x0, y0, x1, y1 as float64 (4,)."""
    return np.array([box.x0, box.y0, box.x1, box.y1], dtype=float)


def _box(sides: np.ndarray) -> Box:
    """Make a box of sides that may have passed each other; rounded, so that nearly the same box is decoded once."""
    x0, y0, x1, y1 = np.maximum(sides, 0).round(1).tolist()
    return Box(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
