"""How sure a difference between two models is: the bootstrap over patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_DRAWS = 10_000


@dataclass(frozen=True)
class Difference:
    """A mean difference, the ends of its 95 % interval, and the number of patients that it was found in."""

    mean: float
    lower: float
    upper: float
    count: int

    def __str__(self) -> str:
        if self.count == 1:
            return f"{signed(self.mean)} (one patient, from whom nothing follows for others)"
        return f"{signed(self.mean)} (95 % interval {signed(self.lower)} to {signed(self.upper)})"


def paired_difference(before: Sequence[float], after: Sequence[float], *, seed: int = 0) -> Difference:
    """Compare two figures of the same patients.

    The interval is that of the percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
    chapter 13): the patients are drawn with replacement, each with both figures, 10 000 times.

    :param before: a figure of each patient; ``after`` the other one, in the same order.
    :param seed: the same seed draws the same patients.
    :raises ValueError: if there is no patient, or one lacks a figure.
    """
    if len(before) != len(after) or not len(before):
        raise ValueError(f"{len(before)} and {len(after)} figures can't be compared: give both for every patient.")
    differences = np.subtract(after, before)
    drawn = np.random.default_rng(seed).integers(0, len(differences), (_DRAWS, len(differences)))
    lower, upper = np.percentile(differences[drawn].mean(axis=1), (2.5, 97.5))
    return Difference(float(differences.mean()), float(lower), float(upper), len(differences))


def patients_to_show(gain: float, before: Sequence[float], after: Sequence[float]) -> int:
    """Estimate how many patients it takes until a mean gain is told from chance (2.5 % on its wrong side).

    :param gain: in the figures' unit; ``before`` and ``after``, of at least two patients, tell how much gains spread.
    """
    spread = np.subtract(after, before).std(ddof=1)
    return int(np.ceil((1.96 * spread / gain) ** 2))


def signed(value: float) -> str:
    """Write a difference with its sign, and none where it rounds to 0."""
    text = f"{abs(value):.3f}"
    return text if float(text) == 0 else f"{'−' if value < 0 else '+'}{text}"
