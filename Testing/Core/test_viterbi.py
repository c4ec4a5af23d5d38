"""The best path against all paths, one by one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.candidates import Candidates
from MedSAMSlicerLib.volume.viterbi import best_path


def candidates_of(index: int, masks: np.ndarray, score: np.ndarray) -> Candidates:
    boxes = [Box(0, 0, 1, 1)] * len(masks)
    return Candidates(index, boxes, masks.astype(np.float32), np.ones(len(masks), dtype=np.float32), score)


def random_slices(seed: int, counts: tuple[int, ...]) -> list[Candidates]:
    random = np.random.default_rng(seed)
    return [
        candidates_of(
            index, random.random((count, 5, 6)) < random.uniform(0, 1, (count, 1, 1)), random.normal(0, 1, count)
        )
        for index, count in enumerate(counts)
    ]


def agreement_of(mask: np.ndarray, other: np.ndarray) -> float:
    dice = 2 * int((mask & other).sum()) / max(int(mask.sum()) + int(other.sum()), 1)
    return 0.35 * math.log(dice + 0.02)


def scores_of_all_paths(slices: list[Candidates]) -> dict[tuple[int, ...], float]:
    scores = {}
    for path in itertools.product(*(range(len(each.score)) for each in slices)):
        masks = [each.masks[choice] for each, choice in zip(slices, path, strict=True)]
        own = sum(float(each.score[choice]) for each, choice in zip(slices, path, strict=True))
        scores[path] = own + sum(agreement_of(*pair) for pair in itertools.pairwise(masks))
    return scores


COUNTS = [(3,), (1, 1), (4, 4, 4, 4), (2, 5, 1, 3), (1, 4, 1, 4, 1), (3, 2, 3, 2, 3)]


@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_the_path_is_the_best_of_all(counts):
    for seed in range(20):
        slices = random_slices(seed, counts)
        scores = scores_of_all_paths(slices)
        choices, _ = best_path(slices)
        assert tuple(choices) == max(scores, key=scores.__getitem__), f"seed {seed}"


@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_a_likelihood_is_the_share_of_the_paths_that_take_a_candidate(counts):
    for seed in range(20):
        slices = random_slices(seed, counts)
        shares = {path: math.exp(score / 0.2) for path, score in scores_of_all_paths(slices).items()}
        _, likelihoods = best_path(slices)
        for row, likelihood in enumerate(likelihoods):
            expected = [
                sum(share for path, share in shares.items() if path[row] == choice) / sum(shares.values())
                for choice in range(counts[row])
            ]
            np.testing.assert_allclose(likelihood, expected, rtol=1e-4, atol=1e-9, err_msg=f"seed {seed}, slice {row}")
            assert likelihood.sum() == pytest.approx(1)


def test_neighbors_overrule_a_candidate_that_is_a_little_better_alone_but_not_one_that_is_much_better():
    organ, other = np.zeros((2, 5, 6), dtype=bool)
    organ[1:4, 1:4], other[4:, 4:] = True, True

    def choice_with(advantage: float) -> int:
        slices = [candidates_of(index, np.stack([organ, other]), np.array([0.0, -9.0])) for index in range(5)]
        slices[2] = candidates_of(2, np.stack([organ, other]), np.array([0.0, advantage]))
        return best_path(slices)[0][2]

    assert choice_with(0.5) == 0
    assert choice_with(5) == 1


def test_very_long_stacks_and_hopeless_scores_stay_numbers():
    masks = np.zeros((2, 5, 6), dtype=bool)
    slices = [candidates_of(index, masks, np.array([-1000.0, -1001.0])) for index in range(2000)]
    choices, likelihoods = best_path(slices)
    assert choices == [0] * 2000
    np.testing.assert_allclose(np.sum(likelihoods, axis=1), 1, rtol=1e-6)
