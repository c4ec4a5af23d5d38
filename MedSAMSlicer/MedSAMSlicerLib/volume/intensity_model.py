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
# A segment of fewer voxels has no histogram to speak of.
_LEAST_VOXELS = 20
_ROUNDS = 2


def intensity_odds(segment: np.ndarray, around: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Learn which intensities are a segment's: a function that gives the log odds of intensities of any shape.

    :param segment: intensities inside, from 0 to 255, at least one.
    :param around: intensities of its surroundings.
    """
    inside, outside = (_histogram(_bins(values)) + _FLOOR for values in (segment, around))
    ratio = np.log(inside / outside)
    return lambda intensities: ratio[_bins(intensities)]


def refine(probabilities: np.ndarray, images: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Weigh the model's probabilities with the odds of every voxel's intensity.

    The histogram of the segment and the one of all else in the box are found from the segment itself, twice, and their
    log ratio is added to the model's log odds (naive Bayes). So an outline moves to where the intensities change, and
    where they tell nothing it stays. It is the color model of GrabCut (Rother et al. 2004) without its graph cut.

    :param probabilities: float (n, h, w) in [0, 1].
    :param images: (n, h, w), intensities from 0 to 255.
    :param inside: bool (n, h, w), the box; nothing outside of it is looked at or added.
    :return: the new probabilities, float (n, h, w), 0 outside of the box.
    """
    clipped = np.clip(probabilities, 0.01, 0.99)
    odds = np.log(clipped / (1 - clipped))
    refined = np.where(inside, probabilities, 0)
    for _ in range(_ROUNDS):
        segment = refined > 0.5
        around = inside & ~segment
        if segment.sum() < _LEAST_VOXELS or around.sum() < _LEAST_VOXELS:
            break
        ratio = np.clip(intensity_odds(images[segment], images[around])(images), -_LIMIT, _LIMIT)
        refined = np.where(inside, 1 / (1 + np.exp(-odds - ratio)), 0)
    return refined


def _bins(intensities: np.ndarray) -> np.ndarray:
    return np.minimum(intensities * np.float32(_BINS / 256), _BINS - 1).astype(np.intp)


def _histogram(bins: np.ndarray) -> np.ndarray:
    counts = np.convolve(np.bincount(bins, minlength=_BINS), _SMOOTHING, mode="same")
    return counts / max(counts.sum(), 1)
