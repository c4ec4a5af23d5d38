"""The best path through the slices: several candidates in every slice, and the choice that holds together.

The box of a 3-D ROI fits the structure in some slices and is too large in the others, where the model then segments
whatever fills it. A mask carried from slice to slice carries its errors along. So every slice is decoded from its
box, from smaller boxes inside of it, and from boxes around its neighbor's masks, in one batch on one embedding; the
masks are chosen for the whole stack at once: each should be stable and well set off, and neighbors should overlap.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np

from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.box_track import bounds, moved_boxes, smoothed_boxes
from MedSAMSlicerLib.volume.candidates import CandidateDecoder, Candidates, dice, outline, smaller_boxes
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.intensity_model import refine
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.stack import SliceStack
from MedSAMSlicerLib.volume.steps import Boxes, Predictor, SliceMask, middle_out, soft_dice
from MedSAMSlicerLib.volume.viterbi import agreement, best_path

# What masks have in advance: the official one, as it follows from its neighbor, that of the smoothed box, as it follows
# from all slices, and those that follow from key slices. Testing/Benchmarks/README.md tells how they were chosen.
_OFFICIAL_BONUS, _TRACK_BONUS, _CORRECTION_BONUS = 0.05, 0.1, 0.3

Keys = Mapping[int, KeySlice]


def propagate_path(
    stack: SliceStack, boxes: Boxes, predictor: Predictor, cache: EmbeddingCache, keys: Keys | None = None
) -> Iterator[SliceMask]:
    """Segment every slice from several boxes and choose the masks that agree with their neighbors best.

    The candidates of a slice are the masks of its own box, of the four corners and the center of this box, of the box
    around the neighbor's mask as wide as in `propagation.propagate_reference`, of a narrower one, and at last of the
    boxes that were found, smoothed across the slices. The chosen masks are refined by their intensities (see
    `intensity_model.refine`) and stay inside of the boxes. The model's own estimate of a mask's quality is not used, so
    that this works for models with an untrained IoU head as well.

    Goes from the middle slice outward and yields the mask that agrees best with the neighbor's, which is not final;
    then yields all slices again, in order, with their final masks.

    A key slice keeps its mask. It parts the stack into sections that are solved on their own, so that it changes
    nothing beyond the neighboring key slices. What it changes about the structure's box moves the boxes of its
    sections as well (see `box_track`).

    :param boxes: slice index -> the ROI's box there, as `geometry.roi_boxes` cuts it.
    :param keys: slice index -> key slice along the stack's axis. One outside of the boxes widens them, see
        `widened_boxes`.
    """
    keys = keys or {}
    room = widened_boxes(boxes, keys)
    if not room:
        return
    # Without key slices first, whatever they are: what they don't concern must stay as it is.
    boxes = boxes or room
    decoder = CandidateDecoder(stack, boxes, predictor, cache, room=room)
    found: dict[int, Candidates] = {}
    for index, candidates, choice in _walk(decoder, boxes):
        found[index] = candidates
        yield _provisional(decoder, candidates, choice)
    results = _solve(decoder, found, keys={})
    for index, box in smoothed_boxes(results).items():
        found[index] += decoder.decode(index, [box]).better_by(_TRACK_BONUS)
    results = _solve(decoder, found, keys={})
    yield from _corrected(decoder.within(room), room, found, results, keys) if keys else results


def _corrected(
    decoder: CandidateDecoder,
    room: Boxes,
    found: Mapping[int, Candidates],
    results: list[SliceMask],
    keys: Keys,
) -> Iterator[SliceMask]:
    """Solve every section between key slices and ends anew, with the boxes that follow from the key slices."""
    fixed = {index: _fixed(decoder, key) for index, key in keys.items()}
    given = {index: box for index, key in keys.items() if (box := _edges(key))}
    stops = sorted({min(room), *keys, max(room)})
    for first, last in itertools.pairwise(stops) if len(stops) > 1 else [(stops[0], stops[0])]:
        section = {
            index: found.get(index) or decoder.decode(index, smaller_boxes(outline(room[index])))
            for index in range(first, last + 1)
        }
        # Only these: also an empty mask, which gives no box, keeps off what lies beyond it.
        ends = {index: given[index] for index in (first, last) if index in given}
        tracks = (smoothed_boxes(results, ends), moved_boxes(results, ends)) if ends else ()
        for index in section:
            prompts = [track[index] for track in tracks if index in track]
            if index in keys:
                section[index] = fixed[index]
            elif prompts:
                section[index] += decoder.decode(index, prompts).better_by(_CORRECTION_BONUS)
        solved = _solve(decoder, section, keys)
        # A key slice ends one section and begins the next.
        yield from solved if last == stops[-1] else solved[:-1]


def widened_boxes(boxes: Boxes, keys: Keys) -> dict[int, Box]:
    """Widen the boxes of slices so that they hold what the key slices show.

    A key slice that is larger than the ROI says that the structure is, so all slices up to the next key slices and ends
    get room for it; a key slice beyond the ROI's ends moves the end there.
    """
    widened = dict(boxes)
    for index, key in sorted(keys.items()):
        edges = _edges(key)
        box = Box(edges.x0, edges.y0, edges.x1 - 1, edges.y1 - 1) if edges else None
        if box is None:
            continue
        lower = max((other + 1 for other in keys if other < index), default=min([index, *boxes]))
        upper = min((other - 1 for other in keys if other > index), default=max([index, *boxes]))
        for other in range(lower, upper + 1):
            widened[other] = _union(widened[other], box) if other in widened else box
    if not widened:
        return {}
    # An empty mask needs no room, only the slices up to it.
    return {
        index: widened[min(widened, key=lambda other: abs(other - index))]
        for index in range(min([*widened, *keys]), max([*widened, *keys]) + 1)
    }


def _edges(key: KeySlice) -> Box | None:
    """Return the outer edges of what a key slice shows, None if that is nothing."""
    if key.box is not None:
        return outline(key.box)
    assert key.mask is not None
    return bounds(key.mask)


def _walk(decoder: CandidateDecoder, boxes: Boxes) -> Iterator[tuple[int, Candidates, int]]:
    """Decode all slices from the middle outward: slice index, candidates, and which agrees best with the neighbor."""
    official: dict[int, np.ndarray] = {}
    narrow: dict[int, np.ndarray] = {}
    chosen: dict[int, np.ndarray] = {}
    for index, neighbor in middle_out(boxes):
        prompts = smaller_boxes(outline(boxes[index]))
        follows = {"official": 0, "narrow": 0}
        if neighbor is not None:
            around = {
                "official": decoder.official_box_around(official[neighbor]),
                "narrow": decoder.box_around(narrow[neighbor], index),
            }
            for name, box in around.items():
                if box is not None:
                    follows[name] = len(prompts)
                    prompts.append(box)
        candidates = decoder.decode(index, prompts)
        candidates.score[follows["official"]] += _OFFICIAL_BONUS
        official[index], narrow[index] = (candidates.masks[follows[name]] for name in ("official", "narrow"))
        score = candidates.score
        if neighbor is not None:
            score = score + agreement(candidates.masks, chosen[neighbor][None])[:, 0]
        choice = int(score.argmax())
        chosen[index] = candidates.masks[choice]
        yield index, candidates, choice


def _provisional(decoder: CandidateDecoder, candidates: Candidates, choice: int) -> SliceMask:
    mask, iou = candidates.masks[choice], float(candidates.iou[choice])
    confidence = soft_dice(candidates.probabilities[choice], mask)
    return SliceMask(candidates.index, decoder.whole(mask), candidates.boxes[choice], iou, confidence, final=False)


def _fixed(decoder: CandidateDecoder, key: KeySlice) -> Candidates:
    """Make the only candidate of a key slice."""
    if key.mask is not None:
        probabilities = key.mask[decoder.frame].astype(np.float32)[None]
        box = bounds(key.mask) or Box(0, 0, 0, 0)
        return Candidates(key.index, [box], probabilities, np.ones(1, dtype=np.float32), np.zeros(1))
    assert key.box is not None
    candidates = decoder.decode(key.index, [outline(key.box)])
    inside = decoder.pixels_of(key.box)
    refined = refine(candidates.probabilities, decoder.images[key.index][None], inside[None])
    return Candidates(key.index, [key.box], refined, candidates.iou, np.zeros(1))


def _solve(decoder: CandidateDecoder, slices: Mapping[int, Candidates], keys: Keys) -> list[SliceMask]:
    """Choose and refine the masks of neighboring slices, in order; key slices have one candidate, which stays as it
    is."""
    order = sorted(slices)
    choices, likelihoods = best_path([slices[index] for index in order])
    refined = refine(
        np.stack([slices[index].probabilities[choice] for index, choice in zip(order, choices, strict=True)]),
        np.stack([decoder.images[index] for index in order]),
        np.stack([decoder.inside[index] for index in order]),
    )
    results = []
    for index, choice, likelihood, probability in zip(order, choices, likelihoods, refined, strict=True):
        candidates = slices[index]
        if index in keys:
            mask, confidence = candidates.masks[0], 1.0
        else:
            mask = probability > 0.5
            expected = float(likelihood @ dice(candidates.masks, mask[None])[:, 0])
            confidence = expected * soft_dice(probability, mask)
        iou = float(candidates.iou[choice])
        results.append(SliceMask(index, decoder.whole(mask), candidates.boxes[choice], iou, confidence))
    return results


def _union(a: Box, b: Box) -> Box:
    return Box(min(a.x0, b.x0), min(a.y0, b.y0), max(a.x1, b.x1), max(a.y1, b.y1))
