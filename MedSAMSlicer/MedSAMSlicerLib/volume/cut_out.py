"""A cut-out: the part of a slice that a model sees enlarged, where the slice has more pixels than the model takes."""

from __future__ import annotations

from collections.abc import Iterable

from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.embedding_cache import Window

# How much wider than the structure: what is around tells it apart. Testing/Benchmarks/README.md has other widths.
_WIDTH = 2.5
# Pixels are enlarged to no more than two of the model's; a cut-out hardly smaller than the slice tells nothing new.
_MOST_ENLARGED = 2.0
_MOST_OF_SLICE = 0.7


def cut_out(boxes: Iterable[Box], shape: tuple[int, int], side: int) -> Window | None:
    """Find the square around all boxes that is worth to be looked at on its own.

    :param shape: of the slices, (rows, columns).
    :param side: of the model's input, in pixels.
    :return: rows and columns of the slices; None where the model sees all that there is, or the structure is large.
    """
    if max(shape) <= 1.5 * side:
        return None
    sides = [(box.x0, box.y0, box.x1 + 1, box.y1 + 1) for box in boxes]
    x0, y0 = (min(each[n] for each in sides) for n in (0, 1))
    x1, y1 = (max(each[n] for each in sides) for n in (2, 3))
    size = round(max(_WIDTH * max(x1 - x0, y1 - y0), side / _MOST_ENLARGED))
    if size > min(_MOST_OF_SLICE * max(shape), *shape):
        return None
    top, left = (
        min(max(round((low + high - size) / 2), 0), length - size)
        for low, high, length in ((y0, y1, shape[0]), (x0, x1, shape[1]))
    )
    return slice(top, top + size), slice(left, left + size)
