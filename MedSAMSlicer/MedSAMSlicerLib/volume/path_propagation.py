"""The best path through the slices: several candidates in every slice, and the choice that holds together.

The box of a 3-D ROI fits the structure in some slices and is too large in the others, where the model then segments
whatever fills it. A mask carried from slice to slice carries its errors along. So every slice is decoded from its
box, from boxes around its neighbor's masks, and where these leave a doubt from smaller boxes inside of its own; the
masks are chosen for the whole stack at once: each should be stable and well set off, and neighbors should overlap. What
was chosen teaches what the structure looks like in the image encoder's eyes (`embedding_model`), by which all is
judged again, and new boxes are found.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.bodies import largest_part, structure_bodies
from MedSAMSlicerLib.volume.box_track import bounds, moved_boxes, smoothed_boxes
from MedSAMSlicerLib.volume.candidates import CandidateDecoder, Candidates, outline, smaller_boxes
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.embedding_model import ALIKE, CONFIDENCE_POWER, EmbeddingModel
from MedSAMSlicerLib.volume.ends import without_ends
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.slice_masks import Boxes, Predictor, SliceMask, middle_out, soft_dice
from MedSAMSlicerLib.volume.slice_stack import SliceStack
from MedSAMSlicerLib.volume.solution import Keys, Likenesses, fixed, solve
from MedSAMSlicerLib.volume.viterbi import agreement

# What masks have in advance: the official one, as it follows from its neighbor, that of the smoothed box, as it follows
# from all slices, that of the box around what looks alike, and those that follow from key slices.
# Testing/Benchmarks/README.md tells how they were chosen.
_OFFICIAL_BONUS, _TRACK_BONUS, _LIKENESS_BONUS, _CORRECTION_BONUS = 0.05, 0.1, 0.05, 0.1
# A user's box is wider than the structure already, as a rule: of the margin of training it gets this part.
_OWN_MARGIN = 0.5
# Slices that are surer than this are not decoded from smaller boxes; nor, if half of all slices are as sure as
# `_KNOWN`, those that are: what is known of the structure then finds it there for less.
_SURE, _KNOWN = 0.94, 0.85
# A mask that the user gave teaches as much as so many certain ones.
_KEY_WEIGHT = 5.0


def propagate_path(
    stack: SliceStack,
    boxes: Boxes,
    predictor: Predictor,
    cache: EmbeddingCache,
    keys: Keys | None = None,
    start: KeySlice | None = None,
) -> Generator[SliceMask, None, int]:
    """Segment every slice from several boxes and choose the masks that agree with their neighbors best.

    The candidates of a slice are the masks of its own box, of the box around the neighbor's mask as wide as in
    `propagation.propagate_reference`, of a narrower one, of the four corners and the center of its own box where the
    others leave a doubt, and at last of the boxes that were found, smoothed across the slices, and of what looks alike.
    The chosen masks are refined by likeness and intensities (see `solution.solve`) and stay inside of the boxes. The
    model's own estimate of a mask's quality is not used, so that this works for models with an untrained IoU head as
    well. Slices beyond the ends of the structure become empty, and bodies are dropped that are not the structure's
    (`bodies.structure_bodies`).

    Goes from the middle slice outward and yields the mask that agrees best with the neighbor's, which is not final;
    then yields all slices again, in order, with their final masks.

    A key slice keeps its mask. It parts the stack into sections that are solved on their own, so that it changes
    nothing beyond the neighboring key slices. What it changes about the structure's box moves the boxes of its
    sections as well (see `box_track`).

    :param boxes: slice index -> the ROI's box there, as `geometry.roi_boxes` cuts it.
    :param keys: slice index -> key slice along the stack's axis. One outside of the boxes widens them, see
        `widened_boxes`.
    :param start: a key slice that the boxes were found from: unlike `keys`, all slices depend on it.
    :return: how many bodies were dropped.
    """
    keys = {index: key for index, key in (keys or {}).items() if key is not start}
    room = widened_boxes(boxes, keys)
    if not room:
        return 0
    # Without key slices first, whatever they are: what they don't concern must stay as it is.
    boxes = boxes or room
    decoder = CandidateDecoder(stack, boxes, predictor, cache, room=room, structure=boxes.values())
    given = {} if start is None else {start.index: start}
    # Looked for by corrections only: the name takes all slices, and somebody waits for the first mask.
    solution = cache.recall(_name(decoder, boxes, given)) if keys else None
    if solution is None:
        solution = yield from _solved(decoder, boxes, given)
        cache.remember(_name(decoder, boxes, given), solution)
    if not keys and not given:
        yield from solution.results
        return solution.dropped
    return (yield from _corrected(decoder.within(room), room, solution, keys, given))


@dataclass(frozen=True, eq=False)
class _Solution:
    """What was found without corrections, from which each of them starts anew.

    :param found: slice index -> all of its candidates.
    :param model: that has learned the results.
    :param dropped: how many bodies were.
    """

    found: Mapping[int, Candidates]
    results: list[SliceMask]
    model: EmbeddingModel
    dropped: int

    @property
    def nbytes(self) -> int:
        masks = sum(each.mask.nbytes for each in self.results)
        return masks + self.model.nbytes + sum(each.nbytes for each in self.found.values())


def _solved(decoder: CandidateDecoder, boxes: Boxes, given: Keys) -> Generator[SliceMask, None, _Solution]:
    """Solve all slices; yield a mask of each that is not final."""
    found: dict[int, Candidates] = {}
    model = EmbeddingModel(decoder.shape, decoder.frame)
    for index, candidates, choice in _walk(decoder, boxes, given):
        found[index] = candidates
        yield _provisional(decoder, candidates, choice)
        # While the slice's embedding is at hand: a small cache may have to let it go.
        model.see(index, decoder.features(index), boxes[index])
    results = solve(decoder, found, given)
    sure = _SURE if np.median([each.confidence for each in results]) < _KNOWN else _KNOWN
    doubtful = [each.index for each in results if each.confidence < sure and each.index not in given]
    for index in doubtful:
        found[index] += decoder.decode(index, smaller_boxes(outline(boxes[index]))[1:])
    if doubtful:
        results = solve(decoder, found, given)
    for last in (False, True):
        _teach(model, decoder, results, given)
        likenesses = model.likenesses(boxes)
        _add(decoder, found, smoothed_boxes(results), _TRACK_BONUS, given)
        _add(decoder, found, _alike(decoder, likenesses), _LIKENESS_BONUS, given)
        results = solve(decoder, found, given, likenesses, vote=last)
    _teach(model, decoder, results, given)
    results = without_ends(decoder, results, model.likenesses(boxes), given)
    results, dropped = _of_structure(decoder, results, given)
    return _Solution(found, results, model, dropped)


def _name(decoder: CandidateDecoder, boxes: Boxes, given: Keys) -> bytes:
    """Digest all that a solution depends on: slices, model, boxes, what is given, and how far slices are apart."""
    digest = hashlib.blake2b(f"{decoder.frame} {decoder.gap}".encode(), digest_size=20)
    for index, box in sorted(boxes.items()):
        digest.update(decoder.key(index))
        digest.update(f"{index} {box}".encode())
    for index, key in given.items():
        digest.update(f"{index} {key.box}".encode())
        if key.mask is not None:
            digest.update(np.packbits(key.mask).tobytes())
    return digest.digest()


def _corrected(
    decoder: CandidateDecoder,
    room: Boxes,
    solution: _Solution,
    corrections: Keys,
    given: Keys,
) -> Generator[SliceMask, None, int]:
    """Solve every section between key slices and ends anew, with what follows from the key slices."""
    keys, results, model = {**corrections, **given}, solution.results, solution.model
    known = model.likenesses([index for index in keys if index in model])
    certain = {index: fixed(decoder, key, known) for index, key in keys.items()}
    # The user looks at what was just corrected.
    for index in corrections:
        yield _provisional(decoder, certain[index], 0)
    outlines = {index: box for index, key in keys.items() if (box := _edges(key))}
    stops = sorted({min(room), *keys, max(room)})
    before = {each.index: each.mask[decoder.frame] for each in results}
    dropped = 0
    for first, last in itertools.pairwise(stops) if len(stops) > 1 else [(stops[0], stops[0])]:
        section = {
            index: solution.found.get(index) or decoder.decode(index, smaller_boxes(outline(room[index])))
            for index in range(first, last + 1)
        }
        # Only these: also an empty mask, which gives no box, keeps off what lies beyond it.
        ends = {index: outlines[index] for index in (first, last) if index in outlines}
        tracks = (smoothed_boxes(results, ends), moved_boxes(results, ends)) if ends else ()
        for index in section:
            prompts = [track[index] for track in tracks if index in track]
            if index in keys:
                section[index] = certain[index]
            elif prompts:
                section[index] += decoder.decode(index, prompts).better_by(_CORRECTION_BONUS)
        taught = model.taught(
            {index: (decoder.features(index), room[index]) for index in section if index not in model},
            {index: certain[index].masks[0] for index in (first, last) if index in keys},
            _KEY_WEIGHT,
        )
        likenesses = taught.likenesses(section)
        solved = solve(decoder, section, keys, likenesses, vote=True)
        solved = without_ends(decoder, solved, likenesses, keys)
        at_ends = {index: keys[index] for index in (first, last) if index in keys}
        solved, fragments = _of_structure(decoder, solved, at_ends, before)
        dropped += fragments
        # A key slice ends one section and begins the next.
        yield from solved if last == stops[-1] else solved[:-1]
    return dropped


def _teach(model: EmbeddingModel, decoder: CandidateDecoder, results: list[SliceMask], given: Keys) -> None:
    for each in results:
        weight = _KEY_WEIGHT if each.index in given else each.confidence**CONFIDENCE_POWER + 1e-4
        model.learn(each.index, each.mask[decoder.frame], weight)


def _add(decoder: CandidateDecoder, found: dict[int, Candidates], boxes: Boxes, bonus: float, given: Keys) -> None:
    """Decode boxes around the structure that differ from what was decoded already."""
    for index, box in boxes.items():
        prompt = decoder.as_trained(box)
        if index not in given and decoder.is_new(prompt, found[index]):
            found[index] += decoder.decode(index, [prompt]).better_by(bonus)


def _alike(decoder: CandidateDecoder, likenesses: Likenesses) -> dict[int, Box]:
    """Find the box of what looks like the structure in each slice, if anything does."""
    top, left = decoder.frame[0].start, decoder.frame[1].start
    boxes = {}
    for index, likeness in likenesses.items():
        edges = bounds(largest_part((likeness > ALIKE) & decoder.inside[index]))
        if edges is not None:
            boxes[index] = Box(edges.x0 + left, edges.y0 + top, edges.x1 + left, edges.y1 + top)
    return boxes


def _of_structure(
    decoder: CandidateDecoder, results: list[SliceMask], keys: Keys, before: Mapping[int, np.ndarray] | None = None
) -> tuple[list[SliceMask], int]:
    """Drop the bodies that are not the structure's; those that key slices show are.

    :param before: slice index -> what was the structure's before the key slices, bool (h, w).
    """
    masks = np.stack([each.mask[decoder.frame] for each in results])
    named = np.stack([each.mask[decoder.frame] & (each.index in keys) for each in results])
    nothing = np.zeros_like(masks[0])
    known = None if before is None else np.stack([before.get(each.index, nothing) for each in results])
    kept, dropped = structure_bodies(masks, named, decoder.gap, known)
    return [
        replace(each, mask=decoder.whole(mask)) if each.index not in keys else each
        for each, mask in zip(results, kept, strict=True)
    ], dropped


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


def _walk(decoder: CandidateDecoder, boxes: Boxes, given: Keys) -> Iterator[tuple[int, Candidates, int]]:
    """Decode all slices from the middle, or a given one, outward: slice index, candidates, and which agrees best with
    the neighbor."""
    official: dict[int, np.ndarray] = {}
    narrow: dict[int, np.ndarray] = {}
    chosen: dict[int, np.ndarray] = {}
    for index, neighbor in middle_out(boxes, *given):
        if index in given:
            candidates = fixed(decoder, given[index])
            official[index] = narrow[index] = chosen[index] = candidates.masks[0]
            yield index, candidates, 0
            continue
        prompts = [decoder.as_trained(outline(boxes[index]), _OWN_MARGIN)]
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


def _union(a: Box, b: Box) -> Box:
    return Box(min(a.x0, b.x0), min(a.y0, b.y0), max(a.x1, b.x1), max(a.y1, b.y1))
