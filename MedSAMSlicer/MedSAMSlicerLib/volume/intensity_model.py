"""What intensities tell of a segment: which gray values are common in it, and which around it."""

from __future__ import annotations

from collections.abc import Callable

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


def intensity_odds(segment: np.ndarray, around: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Learn which intensities are a segment's: a function that gives the log odds of intensities of any shape.

    :param segment: intensities inside, from 0 to 255, at least one.
    :param around: intensities of its surroundings.
    """
    ratio = _log_ratio(*(np.bincount(_bins(values), minlength=_BINS) for values in (segment, around)))
    return lambda intensities: ratio[_bins(intensities)]


def refine(probabilities: np.ndarray, images: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Weigh the model's probabilities with the odds of every voxel's intensity.

    The histogram of the segment and the one of all else in the box are found from the segment itself, twice, and their
    log ratio is added to the model's log odds (naive Bayes). So an outline moves to where the intensities change, and
    where they tell nothing it stays. It is the color model of GrabCut (Rother et al. 2004) without its graph cut.

    :param probabilities: float32 (n, h, w) in [0, 1].
    :param images: (n, h, w), intensities from 0 to 255.
    :param inside: bool (n, h, w), the box; nothing outside of it is looked at or added.
    :return: the new probabilities, float32 (n, h, w), 0 outside of the box.
    """
    odds, codes = np.empty(probabilities.shape, np.float32), np.empty(probabilities.shape, np.uint8)
    # Slice by slice, as much as the processor's cache holds, and with as few new arrays as there can be.
    for each, code, probability, image, box in zip(odds, codes, probabilities, images, inside, strict=True):
        np.multiply(probability, box, out=each, casting="same_kind")
        _to_log_odds(each)
        # Bins, those of the box behind the others.
        np.add(_bins(image), box.view(np.uint8) * np.uint8(_BINS), out=code)
    ratio = None
    for _ in range(_ROUNDS):
        counts = np.zeros(3 * _BINS, dtype=np.int64)
        for each, code in zip(odds, codes, strict=True):
            segment = (each > 0 if ratio is None else ratio.take(code, mode="clip") + each > 0).view(np.uint8)
            counts += np.bincount((code + segment * np.uint8(_BINS)).reshape(-1), minlength=3 * _BINS)
        _, around, within = counts.reshape(3, _BINS)
        if within.sum() < _LEAST_VOXELS or around.sum() < _LEAST_VOXELS:
            break
        found = np.clip(_log_ratio(within, around), -_LIMIT, _LIMIT).astype(np.float32)
        ratio = np.concatenate([np.zeros_like(found), found])
    if ratio is None:
        return np.where(inside, probabilities, np.float32(0))
    for each, code, box in zip(odds, codes, inside, strict=True):
        each += ratio.take(code, mode="clip")
        _to_probability(each)
        each *= box
    return odds


def _bins(intensities: np.ndarray) -> np.ndarray:
    if intensities.dtype == np.uint8:
        return intensities // np.uint8(256 // _BINS)
    return np.minimum(intensities * np.float32(_BINS / 256), _BINS - 1).astype(np.uint8)


def _log_ratio(segment: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Compare two histograms: the logarithm of odds of every bin, (32,)."""
    inside, outside = (np.convolve(counts, _SMOOTHING, mode="same") for counts in (segment, around))
    shares = [smoothed / max(smoothed.sum(), 1) + _FLOOR for smoothed in (inside, outside)]
    return np.log(shares[0] / shares[1])


def _to_log_odds(probability: np.ndarray) -> None:
    """Change probabilities to log odds in place."""
    np.clip(probability, _LEAST, 1 - _LEAST, out=probability)
    probability /= 1 - probability
    np.log(probability, out=probability)


def _to_probability(odds: np.ndarray) -> None:
    """Change log odds to probabilities in place."""
    np.negative(odds, out=odds)
    np.exp(odds, out=odds)
    odds += 1
    np.divide(1, odds, out=odds)
