"""Prompts in slice pixels: what the user gives and the model understands."""

from __future__ import annotations

import math
from dataclasses import dataclass


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
        # Thousands are made while a structure is followed: `dataclasses.astuple` would copy each number deeply.
        sides = (self.x0, self.y0, self.x1, self.y1)
        if not all(map(math.isfinite, sides)):
            raise ValueError(f"The box {sides} has a coordinate that is not a finite number.")
        if self.x1 < self.x0 or self.y1 < self.y0:
            raise ValueError(
                f"The box {sides} is inverted: give x0 <= x1 and y0 <= y1 (x0, y0 is the corner at the origin)."
            )
