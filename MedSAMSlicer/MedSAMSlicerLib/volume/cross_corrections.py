"""Corrections across the stack: a key slice in another direction than the one in which the segment was made."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np

from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.box_track import bounds, sides_of
from MedSAMSlicerLib.volume.candidates import CandidateDecoder, outline
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.intensity_model import refine
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.slice_masks import Predictor
from MedSAMSlicerLib.volume.slice_stack import SliceStack
from MedSAMSlicerLib.volume.viterbi import agreement


def correct_across(
    stack: SliceStack,
    masks: Mapping[int, np.ndarray],
    key: KeySlice,
    stops: Collection[int],
    predictor: Predictor,
    cache: EmbeddingCache,
) -> Iterator[tuple[int, np.ndarray]]:
    """Fix one slice, and carry on from it to both sides until what is there already holds together better.

    :param stack: the volume along the key slice's axis.
    :param masks: the segment along this axis, slice index -> bool (rows, columns), all slices that may be changed; each
        is asked for before it is yielded.
    :param key: a key slice of this axis.
    :param stops: further key slices of this axis, which are not changed or passed.
    :return: the slices that change, the key slice first: slice index, bool (rows, columns).
    """
    rows, columns = stack.shape
    whole = Box(0, 0, columns - 1, rows - 1)
    before = masks.get(key.index, np.zeros(stack.shape, dtype=bool))
    decoder = CandidateDecoder(stack, {key.index: whole}, predictor, cache)
    if key.mask is not None:
        fixed, given = key.mask, bounds(key.mask)
    else:
        assert key.box is not None
        given = outline(key.box)
        inside = decoder.pixels_of(key.box)
        candidates = decoder.decode(key.index, [given])
        found = refine(candidates.probabilities * inside, decoder.images[key.index][None], inside[None])[0] > 0.5
        # Seen from this side a thin stack is no image that the model was trained on: what was there may fit better.
        fixed = max(found, before & inside, key=lambda mask: _fit(mask, given))
    yield key.index, fixed
    if given is None or (edges := bounds(before)) is None:
        # Nothing to carry on, or nothing that tells how its neighbors are wrong.
        return
    way = np.subtract(sides_of(given), sides_of(edges))
    for step in (1, -1):
        mask, index, change = fixed, key.index + step, int((fixed ^ before).sum())
        while index in masks and index not in stops:
            old = masks[index]
            changed = _changed(stack, old, mask, index, way, predictor, cache)
            # A correction fades; one that grows has gone astray.
            if changed is None or (changed ^ old).sum() > change:
                break
            yield index, changed
            mask, change = changed, int((changed ^ old).sum())
            index += step


def _fit(mask: np.ndarray, given: Box) -> float:
    """Measure how well a mask fills a box: the IoU of its own box with it."""
    edges = bounds(mask)
    if edges is None:
        return 0.0
    shared = max(min(edges.x1, given.x1) - max(edges.x0, given.x0), 0) * max(
        min(edges.y1, given.y1) - max(edges.y0, given.y0), 0
    )
    areas = sum((box.x1 - box.x0) * (box.y1 - box.y0) for box in (edges, given))
    return shared / (areas - shared)


def _changed(
    stack: SliceStack,
    old: np.ndarray,
    neighbor: np.ndarray,
    index: int,
    way: np.ndarray,
    predictor: Predictor,
    cache: EmbeddingCache,
) -> np.ndarray | None:
    """Segment a slice from its corrected neighbor; None if the old mask fits this neighbor at least as well."""
    edges, around = bounds(old), bounds(neighbor)
    if around is None:
        return None
    margin = max(stack.shape) / 256
    prompts = [_moved(sides_of(around), np.array([-margin, -margin, margin, margin]), stack.shape)]
    if edges is not None:
        prompts.append(_moved(sides_of(edges), way, stack.shape))
    rows, columns = stack.shape
    decoder = CandidateDecoder(stack, {index: Box(0, 0, columns - 1, rows - 1)}, predictor, cache)
    candidates = decoder.decode(index, prompts)
    fits = agreement(np.concatenate([candidates.masks, old[None]]), neighbor[None])[:, 0]
    # The old mask was chosen among many already: the new ones must win by their fit, less what they are unsure of.
    new = fits[:-1] + np.minimum(candidates.score, 0)
    choice = int(new.argmax())
    return candidates.masks[choice] if new[choice] > fits[-1] else None


def _moved(sides: np.ndarray, way: np.ndarray, shape: tuple[int, int]) -> Box:
    rows, columns = shape
    x0, y0, x1, y1 = np.clip(sides + way, 0, [columns, rows, columns, rows]).round(1).tolist()
    return Box(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
