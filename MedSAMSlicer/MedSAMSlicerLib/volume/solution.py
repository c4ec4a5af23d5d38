"""A solution: one mask in every slice, chosen among the candidates of all slices and refined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.box_track import bounds
from MedSAMSlicerLib.volume.candidates import CandidateDecoder, Candidates, outline
from MedSAMSlicerLib.volume.intensity_model import refine
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.packed_masks import dice, packed
from MedSAMSlicerLib.volume.slice_masks import SliceMask, soft_dice
from MedSAMSlicerLib.volume.viterbi import best_path

Keys = Mapping[int, KeySlice]
# Slice index -> likeness of its pixels, float32 (h, w) in the frame, see `embedding_model.EmbeddingModel`.
Likenesses = Mapping[int, np.ndarray]

# What the odds of a likeness count beside the model's; Testing/Benchmarks/README.md tells how flat the choice is.
_LIKENESS_ODDS = 0.5
# What all candidates count beside the chosen one, where they vote.
_VOTE = 0.5
_LEAST_LIKENESS, _LEAST_PROBABILITY = 0.03, 0.01
# What counts less than this is not counted.
_LEAST_WEIGHT = 1e-5


def fixed(decoder: CandidateDecoder, key: KeySlice, likenesses: Likenesses | None = None) -> Candidates:
    """Make the only candidate of a key slice: its mask, or what the model finds in its box."""
    if key.mask is not None:
        probabilities = key.mask[decoder.frame].astype(np.float32)[None]
        box = bounds(key.mask) or Box(0, 0, 0, 0)
        return Candidates(key.index, [box], probabilities, np.ones(1, dtype=np.float32), np.zeros(1))
    assert key.box is not None
    candidates = decoder.decode(key.index, [decoder.as_trained(outline(key.box))])
    inside = decoder.pixels_of(key.box)
    probability = candidates.probabilities[0]
    if likenesses and key.index in likenesses:
        probability = _with_odds(probability, likenesses[key.index])
    refined = refine([probability], [decoder.images[key.index]], [inside])
    return Candidates(key.index, [key.box], refined, candidates.iou, np.zeros(1))


def solve(
    decoder: CandidateDecoder,
    slices: Mapping[int, Candidates],
    keys: Keys,
    likenesses: Likenesses | None = None,
    *,
    vote: bool = False,
) -> list[SliceMask]:
    """Choose and refine the masks of neighboring slices, in order.

    :param keys: slices of one candidate, which stays as it is.
    :param likenesses: count in the choice and in the refinement.
    :param vote: whether a slice's other candidates have a say in its mask as well, each as likely as it is. Not before
        the structure is known well: where they are of something else, what is learned of them would be as well.
    """
    order = sorted(slices)
    likenesses = likenesses or {}
    judged = {
        index: slices[index].like(likenesses[index]) if index in likenesses and index not in keys else slices[index]
        for index in order
    }
    choices, likelihoods = best_path([judged[index] for index in order])
    chosen = []
    for index, choice, likelihood in zip(order, choices, likelihoods, strict=True):
        probability = slices[index].probabilities[choice]
        if vote:
            probability = (1 - _VOTE) * probability + _VOTE * _mean(slices[index].probabilities, likelihood)
        chosen.append(_with_odds(probability, likenesses[index]) if index in likenesses else probability)
    refined = refine(chosen, [decoder.images[index] for index in order], [decoder.inside[index] for index in order])
    results = []
    for index, choice, likelihood, probability in zip(order, choices, likelihoods, refined, strict=True):
        candidates = slices[index]
        if index in keys:
            mask, confidence = candidates.masks[0], 1.0
        else:
            mask = probability > 0.5
            expected = float(likelihood @ dice(candidates.packed, packed(mask[None]))[:, 0])
            confidence = expected * soft_dice(probability, mask)
        iou = float(candidates.iou[choice])
        results.append(SliceMask(index, decoder.whole(mask), candidates.boxes[choice], iou, confidence))
    return results


def _with_odds(probability: np.ndarray, likeness: np.ndarray) -> np.ndarray:
    """Add a part of the log odds of a likeness to those of the model's probabilities, (h, w)."""
    known = np.clip(probability, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
    alike = np.clip(likeness, _LEAST_LIKENESS, 1 - _LEAST_LIKENESS)
    against = (1 - known) / known * ((1 - alike) / alike) ** _LIKENESS_ODDS
    return (1 / (1 + against)).astype(np.float32, copy=False)


def _mean(maps: Sequence[np.ndarray] | np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute the weighted mean of maps, (h, w) each; weights that add up to 1."""
    mean = np.zeros_like(maps[0])
    for each, weight in zip(maps, weights, strict=True):
        if weight > _LEAST_WEIGHT:
            mean += np.float32(weight) * each
    return mean
