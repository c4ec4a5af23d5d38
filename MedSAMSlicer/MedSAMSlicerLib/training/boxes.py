"""Boxes as users draw them around what an expert has outlined."""

from __future__ import annotations

import numpy as np

from MedSAMSlicerLib.prompts import Box

# Shares of the kinds of boxes: tight, loose, shifted. Lengths below are shares of the structure's own width or height.
_KINDS = (0.5, 0.3, 0.2)
_TREMBLE = 0.05
_LOOSEST = 0.2
_SHIFT = 0.1


def drawn_box(mask: np.ndarray, random: np.random.Generator) -> Box:
    """Draw a box around a mask the way users do; in slice pixels, within the slice, at least a pixel wide.

    Half of the boxes are tight, with every side up to 5 % too far out or in, at least half a pixel; three in ten are
    loose, by up to 20 % on every side; the others are shifted by up to 10 %. The second corner lies on the last pixel
    or on its outer edge: users mean the one, scripts give the other.

    :param mask: bool (rows, columns), not empty.
    """
    spans = []
    kind = random.choice(3, p=_KINDS)
    looseness = random.uniform(0, _LOOSEST)
    edge = random.uniform(0, 1)
    for axis in (1, 0):
        found = np.flatnonzero(mask.any(axis=1 - axis))
        low, high = float(found[0]), float(found[-1]) + edge
        size = high - low + 1 - edge
        tremble = random.uniform(-1, 1, 2) * max(_TREMBLE * size, 0.5)
        if kind == 1:
            # A hand that draws loosely does not draw evenly.
            outward = looseness * size * random.uniform(0.5, 1, 2)
            tremble = np.array([-outward[0], outward[1]])
        elif kind == 2:
            tremble = np.full(2, random.uniform(-_SHIFT, _SHIFT) * size)
        low, high = low + tremble[0], high + tremble[1]
        middle = (low + high) / 2
        low, high = min(low, middle - 0.5), max(high, middle + 0.5)
        limit = mask.shape[axis]
        low, high = max(low, 0.0), min(high, float(limit))
        if high - low < 1:
            low, high = max(0.0, high - 1), min(float(limit), low + 1)
        spans.append((low, high))
    (x0, x1), (y0, y1) = spans
    return Box(x0, y0, x1, y1)
