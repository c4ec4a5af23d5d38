"""A structure followed by a model that remembers: from the slices that are known to all others."""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any, Protocol, TypeGuard

import numpy as np

from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.bodies import structure_bodies
from MedSAMSlicerLib.volume.box_track import bounds
from MedSAMSlicerLib.volume.candidates import outline
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.path_propagation import Keys, widened_boxes
from MedSAMSlicerLib.volume.slice_masks import Boxes, NothingFound, Predictor, SliceMask, middle_out, soft_dice
from MedSAMSlicerLib.volume.slice_stack import SliceStack

# The structure has ended after so many slices in a row in which nothing was found.
_EMPTY_RUN = 8
# Slices right before one that count in it.
_PAST = 15


class Tracker(Predictor, Protocol):
    """A predictor with a memory: what is needed of `inference.tracking_predictor.TrackingPredictor`.

    What it sees has a ``.probability``, float32 (rows, columns), an ``.iou``, a probability of the structure's
    ``.presence`` in the slice, and a ``.memory`` with ``.nbytes``.
    """

    def see_box(self, embedding: Any, box: Box) -> Any:
        """Find what a box points out."""

    def see_mask(self, embedding: Any, mask: np.ndarray) -> Any:
        """Take a mask, bool (rows, columns), for what is there."""

    def follow(self, embedding: Any, keys: Sequence[tuple[int, Any]], past: Sequence[Any], length: int) -> Any:
        """Find what is remembered of key slices, with their distances, and of the slices before, the nearest first."""


def remembers(predictor: Predictor) -> TypeGuard[Tracker]:
    """Return whether a model remembers slices. (Asked of the object, not of its class: a stoppable one is wrapped.)"""
    return hasattr(predictor, "follow")


def propagate_memory(
    stack: SliceStack,
    boxes: Boxes,
    predictor: Predictor,
    cache: EmbeddingCache,
    keys: Keys | None = None,
    farthest: int | None = None,
) -> Generator[SliceMask, None, int]:
    """Follow a structure from known slices to all others, as MedSAM2's official scripts do from one.

    The middle slice of the ROI is known by its box; so are key slices, by a box or a mask. What is found in the others
    follows from the memory of the known ones and of the slices in between: beyond them it follows from the nearest one,
    between two of them the nearer half from each, remembering both. So a key slice changes no memory beyond the
    next known ones, and what it does not change is not computed again.

    Yields the known slices first and then the others, none of them final; then all again, in order, without the bodies
    that are not the structure's. Which these are is found between key slices and ends on its own, see
    `bodies.structure_bodies`; a key slice keeps its mask.

    The official scripts know one slice and let a run share nothing with that in the other direction; the model itself
    was trained with several (facebookresearch/sam2, sam2_base.py, ``cond_frame_outputs``).

    :param boxes: slice index -> the ROI's box there, which bounds the masks. Without any the structure is followed to
        both sides until it ends; with them, slices beyond its end come with empty masks, without being looked at.
    :param keys: slice index -> key slice along the stack's axis, see `path_propagation.widened_boxes`.
    :param farthest: slices to either side of the first key slice to which a structure without boxes is followed, None
        for no limit.
    :return: how many bodies were dropped.
    :raises NothingFound: if there is no box and no key slice shows anything.
    :raises ValueError: if there is neither a box nor a key slice, or if the model has no memory.
    """
    if not remembers(predictor):
        raise ValueError("This model remembers no slices: choose MedSAM2, or another propagation than 'memory'.")
    known = dict(keys or {})
    room = widened_boxes(boxes, known) if boxes else {}
    if boxes:
        middle = next(middle_out(boxes))[0]
        known = {middle: KeySlice(stack.axis, middle, box=boxes[middle])} | known
    if not known:
        raise ValueError("There is nothing to follow: give an ROI, or a key slice along the axis of the slices.")
    given = {*(keys or {})}
    walk = _Walk(stack, predictor, cache)
    seen = {index: walk.see(key) for index, key in known.items()}
    # Where the ROI's box shows nothing, nothing is known, if a key slice is; a key slice that shows nothing says so.
    steps = {index: step for index, step in seen.items() if step.found or index in given} or seen
    if not boxes and not any(step.found for step in steps.values()):
        named = ", ".join(map(str, sorted(known)))
        raise NothingFound(
            f"Nothing was found in slice {named}: draw the box around the structure, or paint the slice."
        )
    first, last = (min(room), max(room)) if room else (0, len(stack) - 1)
    if farthest is not None and not room:
        start = next(iter(known))
        first, last = max(first, start - farthest), min(last, start + farthest)
    results = itertools.chain(
        (_known(step, known[index], sure=index in given) for index, step in steps.items()),
        _between(walk, steps),
        _beyond(walk, steps, range(first, last + 1), whole=bool(room)),
    )
    found = {}
    for result in results:
        found[result.index] = _inside(result, room)
        yield replace(found[result.index], final=False)
    return (yield from _of_structure(found, given, round(stack.thickness / stack.pixel)))


def _between(walk: _Walk, steps: Mapping[int, _Step]) -> Iterator[SliceMask]:
    """Follow the structure between known slices, from each to the middle, or all the way from one that shows it."""
    for first, last in itertools.pairwise(sorted(steps)):
        ends = {first: steps[first], last: steps[last]}
        if not steps[first].found and not steps[last].found:
            yield from (steps[first].result(index) for index in range(first + 1, last))
            continue
        halfway = (first + last) // 2
        if not steps[first].found:
            halfway = first
        elif not steps[last].found:
            halfway = last - 1
        yield from walk.slices(first, range(first + 1, halfway + 1), ends)
        yield from walk.slices(last, range(last - 1, halfway, -1), ends)


def _beyond(walk: _Walk, steps: Mapping[int, _Step], span: range, *, whole: bool) -> Iterator[SliceMask]:
    """Follow the structure beyond the outermost known slices, upward, then downward, until it ends.

    :param span: the slices that it may be in.
    :param whole: whether slices beyond its end come as well, with empty masks.
    """
    upward, downward = range(max(steps) + 1, span.stop), range(min(steps) - 1, span.start - 1, -1)
    for start, indices in ((max(steps), upward), (min(steps), downward)):
        empty: list[SliceMask] = []
        rest = iter(indices)
        if steps[start].found:
            for result in walk.slices(start, rest, {start: steps[start]}):
                empty.append(result)
                if result.mask.any():
                    yield from empty
                    empty = []
                elif len(empty) == _EMPTY_RUN:
                    break
        if whole:
            yield from empty
            end = empty[-1] if empty else steps[start].result(start)
            yield from (replace(end, index=index) for index in rest)


def _of_structure(found: Mapping[int, SliceMask], keys: Collection[int], gap: int) -> Generator[SliceMask, None, int]:
    """Yield neighboring slices in order, without the bodies that are not the structure's; return how many these are.

    :param keys: the key slices among them, which stay as they are and tell which bodies are the structure's.
    :param gap: see `bodies.structure_bodies`.
    """
    stops = sorted({min(found), *keys, max(found)})
    dropped = 0
    for first, last in itertools.pairwise(stops) if len(stops) > 1 else [(stops[0], stops[0])]:
        masks = np.stack([found[index].mask for index in range(first, last + 1)])
        edges = bounds(np.logical_or.reduce(masks)) or Box(0, 0, 0, 0)
        part = np.s_[:, int(edges.y0) : int(edges.y1), int(edges.x0) : int(edges.x1)]
        named = np.zeros_like(masks[part])
        for index in {first, last}.intersection(keys):
            named[index - first] = masks[part][index - first]
        if masks.any():
            masks[part], fragments = structure_bodies(masks[part], named, gap, may_return=True)
            dropped += fragments
        # A key slice ends one section and begins the next.
        for index, mask in zip(range(first, last + (last == stops[-1])), masks, strict=False):
            yield found[index] if index in keys else replace(found[index], mask=mask)
    return dropped


class _Walk:
    """Look at slices of a stack one after the other; what was seen with the same memories is not computed again."""

    def __init__(self, stack: SliceStack, tracker: Tracker, cache: EmbeddingCache) -> None:
        self.stack = stack
        self._tracker = tracker
        self._cache = cache

    def see(self, key: KeySlice) -> _Step:
        """Look at a key slice."""
        index, mask = key.index, key.mask
        if mask is not None:
            given = [b"mask", np.packbits(mask).tobytes()]
            return self._step(index, given, lambda embedding: self._tracker.see_mask(embedding, mask), mask)
        assert key.box is not None
        edges = outline(key.box)
        given = [b"box", str(astuple(edges)).encode()]
        return self._step(index, given, lambda embedding: self._tracker.see_box(embedding, edges))

    def slices(self, start: int, indices: Iterable[int], known: Mapping[int, _Step]) -> Iterator[SliceMask]:
        """Follow the structure from a known slice.

        :param indices: neighbors, the first one next to ``start``.
        :param known: slices whose memory counts, ``start`` among them.
        """
        past: deque[_Step] = deque(maxlen=_PAST)
        for index in indices:
            way = 1 if index > start else -1
            keys = [(way * (index - other), step) for other, step in known.items()]
            step = self._next(index, keys, past)
            past.appendleft(step)
            yield step.result(index)

    def _next(self, index: int, keys: Sequence[tuple[int, _Step]], past: Sequence[_Step]) -> _Step:
        history = [f"{distance} ".encode() + step.digest for distance, step in keys]
        history += [step.digest for step in itertools.islice(past, 1)]
        memories = [(distance, step.memory) for distance, step in keys]

        def look(embedding: Any) -> Any:
            return self._tracker.follow(embedding, memories, [step.memory for step in past], len(self.stack))

        return self._step(index, [f"{len(self.stack)}".encode(), *history], look)

    def _step(self, index: int, history: Sequence[bytes], look: Any, mask: np.ndarray | None = None) -> _Step:
        """Look at a slice, unless that was done with the same history.

        :param look: from an embedding to what is seen.
        :param mask: what is there, if that is known.
        """
        image = self.stack.image(index)
        digest = hashlib.blake2b(self._cache.key(self._tracker, image), digest_size=20)
        for part in history:
            digest.update(len(part).to_bytes(8, "little") + part)
        name = digest.digest()
        step = self._cache.recall(name)
        if step is None:
            step = _Step.of(name, look(self._cache.embedding(self._tracker, image)), mask)
            self._cache.remember(name, step)
        return step


@dataclass(frozen=True)
class _Step:
    """What was found in a slice, kept small.

    :param digest: of all that it depends on.
    :param bits: of the mask, packed, uint8 (rows, columns / 8).
    """

    digest: bytes
    bits: np.ndarray
    columns: int
    iou: float
    confidence: float
    memory: Any

    @classmethod
    def of(cls, digest: bytes, seen: Any, mask: np.ndarray | None) -> _Step:
        """Keep what was seen, with the mask that is known to be there or the one that was found."""
        found = seen.probability > 0.5 if mask is None else mask
        # Of an empty mask, how sure it is that nothing is there.
        sure = seen.presence * soft_dice(seen.probability, found) if found.any() else 1 - seen.presence
        return cls(digest, np.packbits(found, axis=1), found.shape[1], seen.iou, sure, seen.memory)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.bits.nbytes + self.memory.nbytes

    @property
    def found(self) -> bool:
        """Whether the mask holds anything."""
        return bool(self.bits.any())

    def result(self, index: int) -> SliceMask:
        """Return the mask of a slice; the box around it stands for the prompt that it had not."""
        mask = np.unpackbits(self.bits, axis=1, count=self.columns).astype(bool)
        return SliceMask(index, mask, bounds(mask) or Box(0, 0, 0, 0), self.iou, self.confidence)


def _known(step: _Step, key: KeySlice, sure: bool) -> SliceMask:
    """Return the mask of a known slice, inside of its box.

    :param sure: the user has given it.
    """
    result = step.result(key.index)
    if key.box is not None:
        result = replace(result, mask=result.mask & _pixels(key.box, result.mask.shape), box=key.box)
    return replace(result, confidence=1.0) if sure else result


def _inside(result: SliceMask, room: Boxes) -> SliceMask:
    """Confine a mask to the ROI."""
    if not room:
        return result
    return replace(result, mask=result.mask & _pixels(room[result.index], result.mask.shape))


def _pixels(box: Box, shape: tuple[int, ...]) -> np.ndarray:
    """Mark the pixels of a box: bool (rows, columns)."""
    pixels = np.zeros(shape, dtype=bool)
    pixels[int(box.y0) : int(box.y1) + 1, int(box.x0) : int(box.x1) + 1] = True
    return pixels
