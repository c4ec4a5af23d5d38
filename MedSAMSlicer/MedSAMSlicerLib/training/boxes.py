"""Boxes that the model is asked with: as users draw them, and as the propagation of a 3-D box makes them."""

from __future__ import annotations

import numpy as np

from MedSAMSlicerLib.prompts import Box

# Shares of the kinds of drawn boxes: tight, loose, shifted. Lengths below are shares of the structure's own width or
# height.
_KINDS = (0.5, 0.3, 0.2)
_TREMBLE = 0.05
_LOOSEST = 0.2
_SHIFT = 0.1
# The propagation widens the box around a neighbor's mask by 1 or 3 pixels of LiteMedSAM's input, which is 256 wide.
_WIDER = (1.0, 3.0)

Size = tuple[int, int]


def drawn_box(edges: Box, size: Size, random: np.random.Generator) -> Box:
    """Draw a box around a structure the way users do; in slice pixels, within the slice, at least a pixel wide.

    Half of the boxes are tight, with every side up to 5 % too far out or in, at least half a pixel; three in ten are
    loose, by up to 20 % on every side; the others are shifted by up to 10 %. The second corner lies on the last pixel
    or on its outer edge: users mean the one, scripts give the other.

    :param edges: the structure's outer edges.
    :param size: of the slice, (rows, columns).
    """
    spans = []
    kind = random.choice(3, p=_KINDS)
    looseness = random.uniform(0, _LOOSEST)
    edge = random.uniform(0, 1)
    for low, high, limit in ((edges.x0, edges.x1, size[1]), (edges.y0, edges.y1, size[0])):
        length = high - low
        high += edge - 1
        tremble = random.uniform(-1, 1, 2) * max(_TREMBLE * length, 0.5)
        if kind == 1:
            # A hand that draws loosely does not draw evenly.
            outward = looseness * length * random.uniform(0.5, 1, 2)
            tremble = np.array([-outward[0], outward[1]])
        elif kind == 2:
            tremble = np.full(2, random.uniform(-_SHIFT, _SHIFT) * length)
        low, high = low + tremble[0], high + tremble[1]
        middle = (low + high) / 2
        low, high = min(low, middle - 0.5), max(high, middle + 0.5)
        low, high = max(low, 0.0), min(high, float(limit))
        if high - low < 1:
            low, high = max(0.0, high - 1), min(float(limit), low + 1)
        spans.append((low, high))
    (x0, x1), (y0, y1) = spans
    return Box(x0, y0, x1, y1)


def tight_box(edges: Box) -> Box:
    """Return the box from the first to the last pixel of a structure, as whoever has its mask asks."""
    return Box(edges.x0, edges.y0, edges.x1 - 1, edges.y1 - 1)


def widened_box(edges: Box, size: Size, random: np.random.Generator) -> Box:
    """Widen the edges of the mask in a neighboring slice as the propagation does before it asks in this one.

    :param size: of the slice, (rows, columns).
    """
    margin = random.uniform(*_WIDER) * max(size) / 256
    return Box(
        max(edges.x0 - margin, 0.0),
        max(edges.y0 - margin, 0.0),
        min(edges.x1 + margin, float(size[1])),
        min(edges.y1 + margin, float(size[0])),
    )
