"""The ends of a structure inside of a box that reaches beyond them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from MedSAMSlicerLib.volume.candidates import CandidateDecoder, grown
from MedSAMSlicerLib.volume.intensity_model import intensity_odds
from MedSAMSlicerLib.volume.slice_masks import SliceMask, soft_dice
from MedSAMSlicerLib.volume.solution import Likenesses

# The structure has ended where the mask agrees less with what looks alike (soft Dice) and its intensities are no more
# the structure's than those around it (mean log odds): both, as a tight box has no slices to lose.
# Testing/Benchmarks/README.md tells how flat the choice is.
_LEAST_LIKENESS, _LEAST_ODDS = 0.4, 0.3
# Or where the mask has jumped to something else (Dice with its neighbor).
_LEAST_OVERLAP = 0.2
# Width of the surroundings to compare with, in pixels.
_SURROUNDINGS = 6


def without_ends(
    decoder: CandidateDecoder, results: Sequence[SliceMask], likenesses: Likenesses, keys: Collection[int]
) -> list[SliceMask]:
    """Empty the first and the last slices in which there is nothing of the structure any more.

    :param results: neighbors, in order; at least one keeps what it has.
    :param likenesses: of all slices; without them nothing is known of the ends.
    :param keys: slices that stay as they are, as all that lies between them.
    """
    results = list(results)
    if not likenesses:
        return results
    masks = {each.index: each.mask[decoder.frame] for each in results}
    inside = np.concatenate([decoder.images[index][mask] for index, mask in masks.items()])
    around = np.concatenate(
        [decoder.images[index][grown(mask, _SURROUNDINGS) & ~mask] for index, mask in masks.items()]
    )
    if not inside.size or not around.size:
        return results
    odds = intensity_odds(inside, around)

    def ended(each: SliceMask, neighbor: SliceMask) -> bool:
        mask, next_mask = masks[each.index], masks[neighbor.index]
        if each.index in keys:
            return False
        shared, held = np.count_nonzero(mask & next_mask), np.count_nonzero(mask) + np.count_nonzero(next_mask)
        if next_mask.any() and 2 * shared < _LEAST_OVERLAP * held:
            return True
        likeness = likenesses[each.index] * decoder.inside[each.index]
        return not mask.any() or (
            soft_dice(likeness, mask) < _LEAST_LIKENESS
            and float(odds(decoder.images[each.index][mask]).mean()) < _LEAST_ODDS
        )

    first, last = 0, len(results)
    while first < last - 1 and ended(results[first], results[first + 1]):
        first += 1
    while last - 1 > first and ended(results[last - 1], results[last - 2]):
        last -= 1
    return [
        each if first <= place < last else replace(each, mask=np.zeros_like(each.mask))
        for place, each in enumerate(results)
    ]
