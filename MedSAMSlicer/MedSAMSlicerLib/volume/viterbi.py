"""The best path through candidates, and how far the others agree with it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from MedSAMSlicerLib.volume.candidates import Candidates
from MedSAMSlicerLib.volume.packed_masks import dice, packed

# What overlap counts beside the candidates' own scores, and the overlap below which all are equally bad.
# Testing/Benchmarks/README.md tells how they were chosen.
_OVERLAP_WEIGHT = 0.35
_LEAST_OVERLAP = 0.02
# How much better a path must score to be e times as likely.
_TEMPERATURE = 0.2


def agreement(masks: Sequence[np.ndarray] | np.ndarray, others: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Score the overlap of N masks, bool (h, w), with M others by the weighted logarithm of their Dice: (N, M)."""
    return _overlap_score(packed(masks), packed(others))


def _overlap_score(masks: np.ndarray, others: np.ndarray) -> np.ndarray:
    return _OVERLAP_WEIGHT * np.log(dice(masks, others) + _LEAST_OVERLAP)


def best_path(slices: Sequence[Candidates]) -> tuple[list[int], list[np.ndarray]]:
    """Choose one candidate per slice so that the sum of scores and agreements is the largest (Viterbi's algorithm).

    :param slices: neighbors, in order, at least one.
    :return: the choice of every slice, and the likelihood of each of its candidates over all paths (forward-backward
        algorithm), which sums up to 1.
    """
    scores = [each.score for each in slices]
    steps = [_overlap_score(before.packed, after.packed) for before, after in itertools.pairwise(slices)]
    total, backward = scores[0], []
    for step, score in zip(steps, scores[1:], strict=True):
        paths = total[:, None] + step
        backward.append(paths.argmax(axis=0))
        total = paths.max(axis=0) + score
    choices = [int(total.argmax())]
    for previous in reversed(backward):
        choices.append(int(previous[choices[-1]]))
    return choices[::-1], _likelihoods(scores, steps)


def _likelihoods(scores: list[np.ndarray], steps: list[np.ndarray]) -> list[np.ndarray]:
    scores, steps = [score / _TEMPERATURE for score in scores], [step / _TEMPERATURE for step in steps]
    forward, backward = [scores[0]], [np.zeros_like(scores[-1])]
    for step, score in zip(steps, scores[1:], strict=True):
        forward.append(np.logaddexp.reduce(forward[-1][:, None] + step, axis=0) + score)
    for step, score in zip(reversed(steps), reversed(scores[1:]), strict=True):
        backward.append(np.logaddexp.reduce(step + (score + backward[-1]), axis=1))
    sums = [before + after for before, after in zip(forward, reversed(backward), strict=True)]
    return [np.exp(each - np.logaddexp.reduce(each)) for each in sums]
