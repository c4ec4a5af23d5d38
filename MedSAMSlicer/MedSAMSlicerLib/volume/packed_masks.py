"""Masks whose pixels are bits: what two of them share is counted in little time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def packed(masks: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Turn N masks, bool (h, w), into bits, of which it takes little time to count what two share: uint64 (N, n)."""
    numbers = np.zeros((len(masks), -(-masks[0].size // 64)), dtype=np.uint64)
    for row, mask in zip(numbers.view(np.uint8), masks, strict=True):
        row[: -(-mask.size // 8)] = np.packbits(mask)
    return numbers


def dice(masks: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Compute the Dice similarity coefficient of N masks with M others, all `packed`: (N, M)."""
    shared = np.array([bits(mask & others) for mask in masks])
    return 2 * shared / np.maximum(bits(masks)[:, None] + bits(others), 1)


def bits(numbers: np.ndarray) -> np.ndarray:
    """Count the bits of each row of whole numbers, uint64 (N, n): (N,)."""
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(numbers).sum(axis=1, dtype=np.int64)
    # NumPy before 2.0 can't count them, but Python does.
    return np.array([int.from_bytes(row.tobytes(), "little").bit_count() for row in numbers], dtype=np.int64)
