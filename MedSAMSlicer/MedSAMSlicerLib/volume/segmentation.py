"""One structure of a volume, from an ROI's boxes and key slices to the masks of all its slices."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import replace

import numpy as np

from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.candidates import CandidateDecoder, outline
from MedSAMSlicerLib.volume.cross_corrections import correct_across
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.following import propagate_until_end
from MedSAMSlicerLib.volume.geometry import plane_axes
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.memory_propagation import propagate_memory
from MedSAMSlicerLib.volume.path_propagation import propagate_path
from MedSAMSlicerLib.volume.propagation import FOLLOWING, propagation_for, propagation_named
from MedSAMSlicerLib.volume.slice_masks import Boxes, Outcome, Predictor, SliceMask, soft_dice
from MedSAMSlicerLib.volume.slice_stack import SliceStack
from MedSAMSlicerLib.volume.sparse_mask import SparseMask


def segment_structure(
    stack: SliceStack,
    boxes: Boxes,
    predictor: Predictor,
    cache: EmbeddingCache,
    keys: Sequence[KeySlice] = (),
    propagation: str = "auto",
    first: int | None = None,
    reach: float | None = None,
) -> Generator[SliceMask, None, Outcome]:
    """Segment a structure slice by slice; a slice that is yielded again takes the place of what came before.

    :param boxes: slice index -> the ROI's box there; without any, the structure is followed from the first key slice to
        both sides until it ends.
    :param keys: key slices, in any direction; those along the stack's axis take part in the propagation, the others
        correct its result, in their order. Of two of the same slice the later one counts.
    :param propagation: a name in `propagation.PROPAGATIONS`; "auto" for the one that suits the model.
    :param first: a slice that is yielded before all others, decoded from its box alone and not final, as somebody waits
        for it; nothing if it has no box.
    :param reach: how far a structure without boxes is followed to either side, in millimeters; None for no limit.
    :return: at the end, what the user should know of it.
    :raises ValueError: if there is neither a box nor a key slice along the stack's axis, a key slice lies outside of
        the volume, the propagation is unknown, takes no key slices or is not for this model, or nothing is found to
        follow.
    """
    propagation = propagation_for(propagation, predictor)
    propagate = propagation_named(propagation)
    _check(stack, boxes, keys, propagation)
    if first is not None and first in boxes:
        yield _glimpse(stack, first, boxes[first], predictor, cache)
    along = {key.index: key for key in keys if key.axis == stack.axis}
    across = {(key.axis, key.index): key for key in keys if key.axis != stack.axis}
    results: Iterator[SliceMask]
    if propagation == "memory":
        farthest = None if reach is None else int(reach / stack.thickness + 1e-6)
        results = propagate_memory(stack, boxes, predictor, cache, along, farthest)
    elif not boxes:
        start = next(key for key in keys if key.axis == stack.axis)
        results = propagate_until_end(stack, along[start.index], predictor, cache, along, reach)
    elif along:
        results = propagate_path(stack, boxes, predictor, cache, along)
    else:
        results = propagate(stack, boxes, predictor, cache)
    final: dict[int, SliceMask] = {}
    # Until all corrections are made, none of the masks is final.
    fragments = yield from _kept(results, final, provisional=bool(across))
    if across:
        yield from _corrected(stack, final, along, list(across.values()), predictor, cache)
    ends = {0, len(stack) - 1} if not boxes else set()
    return Outcome(fragments, tuple(index for index in sorted(ends & final.keys()) if final[index].mask.any()))


def _check(stack: SliceStack, boxes: Boxes, keys: Sequence[KeySlice], propagation: str) -> None:
    if keys and propagation not in FOLLOWING:
        raise ValueError(f"The propagation {propagation!r} takes no key slices: use 'auto', or leave them out.")
    for key in keys:
        other = stack.along(key.axis)
        if not 0 <= key.index < len(other):
            raise ValueError(f"There is no slice {key.index} along axis {'IJK'[key.axis]}: it has {len(other)} slices.")
        if key.mask is not None and key.mask.shape != other.shape:
            raise ValueError(
                f"The mask of key slice {key.index} has the shape {key.mask.shape}, its slice {other.shape}."
            )
    if not boxes and not any(key.axis == stack.axis for key in keys):
        raise ValueError("There is no box to segment: give an ROI, or a key slice along the axis of the slices.")


def _kept(
    results: Iterator[SliceMask], final: dict[int, SliceMask], *, provisional: bool
) -> Generator[SliceMask, None, int]:
    """Pass results on, keep the last one of every slice, and return how many bodies were dropped."""
    while True:
        try:
            result = next(results)
        except StopIteration as end:
            return end.value or 0
        final[result.index] = result
        yield replace(result, final=False) if provisional else result


def _glimpse(stack: SliceStack, index: int, box: Box, predictor: Predictor, cache: EmbeddingCache) -> SliceMask:
    """Segment one slice from its box, in the time of one decoding."""
    decoder = CandidateDecoder(stack, {index: box}, predictor, cache)
    candidates = decoder.decode(index, [decoder.as_trained(outline(box))])
    mask = candidates.masks[0]
    confidence = soft_dice(candidates.probabilities[0], mask)
    return SliceMask(index, decoder.whole(mask), candidates.boxes[0], float(candidates.iou[0]), confidence, final=False)


def _corrected(
    stack: SliceStack,
    results: dict[int, SliceMask],
    along: Collection[int],
    keys: list[KeySlice],
    predictor: Predictor,
    cache: EmbeddingCache,
) -> Iterator[SliceMask]:
    """Correct the masks by key slices of other directions, and yield all of them."""
    volume = SparseMask(stack.dimensions)
    for result in results.values():
        volume.put(stack.axis, result.index, result.mask)
    # What a user has fixed stays: whole slices of the stack, and every correction that was made before.
    fixed = {(stack.axis, index) for index in along}
    for key in keys:
        other = stack.along(key.axis)
        masks = volume.along(key.axis, volume.span(key.axis))
        stops = {each.index for each in keys if each.axis == key.axis and each is not key}
        for index, mask in correct_across(other, masks, key, stops, predictor, cache):
            stays = _fixed_pixels(other, index, fixed)
            volume.put(key.axis, index, np.where(stays, volume.cut(key.axis, index), mask))
        fixed.add((key.axis, key.index))
    first, last = min(results), max(results)
    for index in volume.span(stack.axis):
        if index not in results and volume.cut(stack.axis, index).any():
            # A correction that reaches beyond the ends: the end tells how sure it is.
            results[index] = replace(results[min(max(index, first), last)], index=index)
    for index in sorted(results):
        yield replace(results[index], mask=volume.cut(stack.axis, index), final=True)


def _fixed_pixels(stack: SliceStack, index: int, fixed: Collection[tuple[int, int]]) -> np.ndarray:
    """Mark the pixels of a slice that lie in fixed slices, (axis, index), of any direction: bool (rows, columns)."""
    pixels = np.zeros(stack.shape, dtype=bool)
    x, y = plane_axes(stack.axis)
    pixels[[other for axis, other in fixed if axis == y], :] = True
    pixels[:, [other for axis, other in fixed if axis == x]] = True
    if (stack.axis, index) in fixed:
        pixels[:] = True
    return pixels
