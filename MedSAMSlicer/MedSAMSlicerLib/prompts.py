"""Prompts in slice pixels: what the user gives and the model understands."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass


@dataclass(frozen=True)
class Box:
    """A rectangle in the pixels of one slice, both ends inclusive.

    An integer coordinate is a pixel center, as in SAM and MedSAM: the box of a mask runs from its smallest to its
    largest pixel index. ``x`` counts columns, ``y`` counts rows.
    """

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in astuple(self)):
            raise ValueError(f"The box {astuple(self)} has a coordinate that is not a finite number.")
        if self.x1 < self.x0 or self.y1 < self.y0:
            raise ValueError(
                f"The box {astuple(self)} is inverted: give x0 <= x1 and y0 <= y1 (x0, y0 is the corner at the origin)."
            )
