"""Whose turn it is: which labelled slices an epoch trains on, in which order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

# By about how much an item's turns may exceed the mean, or fall short of it.
_MOST = 4.0


def turns_per_epoch(groups: Sequence[Sequence[Hashable]], per_epoch: int = 0) -> np.ndarray:
    """Balance the turns over groups that differ in size: float (N,), the mean number of turns in an epoch.

    An item's share falls with the square root of the size of each of its groups: a case with four times as many
    slices gets twice as many turns, halfway between counting slices and counting cases.

    :param groups: for every item the groups that it belongs to, such as its case, its label and its size class.
    :param per_epoch: turns of all items together; 0 for as many as there are items.
    """
    counts = Counter((kind, group) for item in groups for kind, group in enumerate(item))
    weights = np.array(
        [np.prod([counts[kind, group] ** -0.5 for kind, group in enumerate(item)]) for item in groups], dtype=float
    )
    weights = np.clip(weights / weights.mean(), 1 / _MOST, _MOST)
    return weights / weights.sum() * (per_epoch or len(groups))


def order_of(epoch: int, turns: np.ndarray, seed: int, multiple: int = 1) -> np.ndarray:
    """List the items whose turn comes in an epoch, shuffled: int (M,), M a multiple of ``multiple``.

    Every item advances by its turns per epoch and is listed whenever it passes a whole number, so that each gets its
    turn at the latest after 1 / turns epochs, without chance. The list is filled up from its own start.
    """
    start = np.random.default_rng(seed).random(len(turns))
    times = np.floor(turns * (epoch + 1) + start) - np.floor(turns * epoch + start)
    order = np.repeat(np.arange(len(turns)), times.astype(int))
    if not order.size:
        order = np.arange(len(turns))
    np.random.default_rng([seed, epoch]).shuffle(order)
    return np.resize(order, -(-order.size // multiple) * multiple)
