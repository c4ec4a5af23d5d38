"""What intensities tell of a segment: which gray values are common in it, and which around it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

_BINS = 32
# Counts of neighboring bins are mixed by these weights (a Gaussian of 1.5 bins), as a histogram of few voxels has gaps.
_SMOOTHING = np.exp(-0.5 * (np.arange(-4, 5) / 1.5) ** 2)
# Part of all voxels below which a bin says nothing, and the most that it may say, as a logarithm of odds.
_FLOOR = 0.003
_LIMIT = 2.0
# The model is taken to be no surer than this: no intensity makes such a place a part of the segment.
_LEAST = 0.01
# A segment of fewer voxels has no histogram to speak of.
_LEAST_VOXELS = 20
_ROUNDS = 2
# Odds that no intensity turns, and a little more.
_DECIDED = 1.001 * math.exp(_LIMIT)


def intensity_odds(segment: np.ndarray, around: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Learn which intensities are a segment's: a function that gives the log odds of intensities of any shape.

    :param segment: intensities inside, from 0 to 255, at least one.
    :param around: intensities of its surroundings.
    """
    ratio = _log_ratio(*(np.bincount(_bins(values), minlength=_BINS) for values in (segment, around)))
    return lambda intensities: ratio[_bins(intensities)]


def refine(
    probabilities: Sequence[np.ndarray] | np.ndarray,
    images: Sequence[np.ndarray] | np.ndarray,
    inside: Sequence[np.ndarray] | np.ndarray,
) -> np.ndarray:
    """Weigh the model's probabilities with the odds of every voxel's intensity.

    The histogram of the segment and the one of all else in the box are found from the segment itself, twice, and their
    log ratio is added to the model's log odds (naive Bayes). So an outline moves to where the intensities change, and
    where they tell nothing it stays. It is the color model of GrabCut (Rother et al. 2004) without its graph cut.

    :param probabilities: of n slices, float32 (h, w) in [0, 1].
    :param images: intensities from 0 to 255, (h, w) each.
    :param inside: bool (h, w) each, the box; nothing outside of it is looked at or added.
    :return: the new probabilities, float32 (n, h, w), 0 outside of the box.
    """
    # Odds against the segment, slice by slice: as much as the processor's cache holds.
    against, codes = np.empty((len(probabilities), *probabilities[0].shape), np.float32), []
    held, sure = np.zeros((2, _BINS), np.int64)
    unsure = []
    for odds, probability, image, box in zip(against, probabilities, images, inside, strict=True):
        np.clip(probability, _LEAST, 1 - _LEAST, out=odds, casting="same_kind")
        np.divide(1 - odds, odds, out=odds)
        code = _bins(image)
        codes.append(code)
        held += _counts(code + box.view(np.uint8) * np.uint8(_BINS))[_BINS:]
        sure += _counts(code[(odds < 1 / _DECIDED) & box])[:_BINS]
        # What intensities can't decide need not be looked at again.
        doubt = np.flatnonzero((odds >= 1 / _DECIDED) & (odds <= _DECIDED) & box)
        unsure.append((odds.take(doubt), code.take(doubt)))
    doubts, bins = (np.concatenate(each) for each in zip(*unsure, strict=True))
    factors = None
    for _ in range(_ROUNDS):
        within = sure + _counts(bins[(doubts if factors is None else doubts * factors.take(bins)) < 1])[:_BINS]
        around = held - within
        if within.sum() < _LEAST_VOXELS or around.sum() < _LEAST_VOXELS:
            break
        factors = np.exp(-np.clip(_log_ratio(within, around), -_LIMIT, _LIMIT)).astype(np.float32)
    if factors is None:
        return np.where(inside, probabilities, np.float32(0))
    for odds, code, box in zip(against, codes, inside, strict=True):
        odds *= factors.take(code, mode="clip")
        odds += 1
        np.divide(1, odds, out=odds)
        odds *= box
    return against


def _bins(intensities: np.ndarray) -> np.ndarray:
    if intensities.dtype == np.uint8:
        return intensities // np.uint8(256 // _BINS)
    return np.minimum(intensities * np.float32(_BINS / 256), _BINS - 1).astype(np.uint8)


def _counts(bins: np.ndarray) -> np.ndarray:
    """Count bins, those of the box behind the others: (64,)."""
    return np.bincount(bins.reshape(-1), minlength=2 * _BINS)


def _log_ratio(segment: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Compare two histograms: the logarithm of odds of every bin, (32,)."""
    inside, outside = (np.convolve(counts, _SMOOTHING, mode="same") for counts in (segment, around))
    shares = [smoothed / max(smoothed.sum(), 1) + _FLOOR for smoothed in (inside, outside)]
    return np.log(shares[0] / shares[1])
