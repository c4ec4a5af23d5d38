"""What values a volume holds, counted slice by slice: nothing of the volume's size is made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Values are counted by so many of their bits at a time.
_DIGIT = 16


def finite_range(voxels: np.ndarray) -> tuple[float, float]:
    """Find the smallest and the largest value that is finite.

    :param voxels: (K, J, I) or (K, J, I, channels), as in all functions here.
    :raises ValueError: if there is none.
    """
    low, high = float(voxels.min()), float(voxels.max())
    if not np.isfinite([low, high]).all():
        finite = [part[np.isfinite(part)] for part in voxels if np.isfinite(part).any()]
        if not finite:
            raise ValueError("No voxel of the volume has a finite value (all are NaN or infinite).")
        low, high = float(min(part.min() for part in finite)), float(max(part.max() for part in finite))
    return low, high


def is_integral(voxels: np.ndarray) -> bool:
    """Tell whether all values are whole numbers."""
    return voxels.dtype.kind in "iu" or all(bool(np.all(part == np.floor(part))) for part in voxels)


def positive_percentiles(voxels: np.ndarray, percentiles: Sequence[float]) -> list[float]:
    """Compute percentiles of the finite values above 0, as `numpy.percentile` does, to the last bit.

    Numbers above 0 are ordered as their bits are, integers and floating-point ones alike. So values of 16 bits are
    counted in one pass; of longer ones first the upper bits, then the next ones of those with the right upper bits.

    :param percentiles: from 0 to 100.
    :return: as many values; none if no value is above 0.
    """
    native = voxels.dtype.newbyteorder("=")
    pattern = np.dtype(f"u{native.itemsize}")
    search = _RankSearch(voxels.view(pattern.newbyteorder(voxels.dtype.byteorder)), _end(native))
    if not search.total:
        return []
    found = []
    for percentile in percentiles:
        # In numpy's order of arithmetic: linear between the two nearest ranks.
        position = (search.total - 1) * (percentile / 100)
        rank = int(position)
        bits = [search.value(rank), search.value(min(rank + 1, search.total - 1))]
        a, b = np.array(bits, dtype=pattern).view(native)
        part = position - rank
        found.append(float(b - (b - a) * np.float64(1 - part) if part >= 0.5 else a + (b - a) * np.float64(part)))
    return found


def _end(values: np.dtype) -> int:
    """Return the bits of what follows the largest finite number of a type, as an unsigned integer."""
    if values.kind == "f":
        return int(np.array(np.inf, dtype=values).view(f"u{values.itemsize}"))
    return 1 << (8 * values.itemsize - (values.kind == "i"))


class _RankSearch:
    """Finds values by their rank among those from 1 to below an end, digit by digit (a radix search).

    :param patterns: unsigned integers, a volume.
    """

    def __init__(self, patterns: np.ndarray, end: int) -> None:
        self._patterns = patterns
        self._shift = max(8 * patterns.itemsize - _DIGIT, 0)
        self._counts: dict[tuple[int, int], np.ndarray] = {}
        self._count(0, self._shift)[end >> self._shift :] = 0
        self.total = int(self._count(0, self._shift).sum())

    def value(self, rank: int) -> int:
        """Find the value that has so many smaller or equal ones before it in ascending order."""
        upper, shift = 0, self._shift
        while True:
            reached = np.cumsum(self._count(upper, shift))
            digit = int(np.searchsorted(reached, rank, side="right"))
            rank -= int(reached[digit - 1]) if digit else 0
            upper = upper << _DIGIT | digit
            if not shift:
                return upper
            shift -= _DIGIT

    def _count(self, upper: int, shift: int) -> np.ndarray:
        """Count the digit that is ``shift`` bits from the right where all bits left of it are ``upper``: (65536,)."""
        if (upper, shift) not in self._counts:
            counts = np.zeros(1 << _DIGIT, dtype=np.int64)
            for part in self._patterns:
                held = part if shift == self._shift else part[part >> (shift + _DIGIT) == upper]
                digits = (held >> shift) & ((1 << _DIGIT) - 1) if shift or self._shift else held
                counts += np.bincount(digits.ravel().astype(np.intp), minlength=1 << _DIGIT)
                if not upper:
                    counts[0] -= held.size - np.count_nonzero(held)
            self._counts[upper, shift] = counts
        return self._counts[upper, shift]
