"""Candidates: several masks of one slice, decoded from several boxes, and how well each holds on its own."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import numpy as np

from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.box_track import bounds, sides_of
from MedSAMSlicerLib.volume.cut_out import cut_out
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache, Slice, Window
from MedSAMSlicerLib.volume.embedding_model import Features
from MedSAMSlicerLib.volume.packed_masks import bits, packed
from MedSAMSlicerLib.volume.slice_masks import Boxes, Predictor
from MedSAMSlicerLib.volume.slice_stack import SliceStack

# Smaller boxes have this part of the box's width and height.
_CORNER_PART = 0.75
_CENTRAL_PART = 0.7
# A mask is stable if it hardly changes between these two thresholds (SAM's stability score).
_LOW, _HIGH = 0.3, 0.7
# The logarithm of the stability of a mask that nothing is certain of.
_UNSTABLE = -3.0
# What the contrast at the outline, and the likeness of what is inside of it, count beside stability;
# Testing/Benchmarks/README.md tells how they were chosen.
_CONTRAST_WEIGHT, _LIKENESS_WEIGHT = 0.2, 1.5
# The likeness of a mask below which all are equally bad.
_LEAST_LIKENESS = 0.05
# MedSAM was trained with boxes that end up to 20 of its 1024 pixels beyond the structure, LiteMedSAM up to 5 of 256, at
# random on each side (``bbox_shift`` in both training scripts): it knows boxes best that are wider by the mean of it.
_TRAINED_MARGIN = 2.5 / 256
# Boxes whose sides differ by less than this part of a slice give the same mask.
_SAME = 4 / 256
# Probabilities are taken to be no surer than this when two are joined.
_SUREST = 0.995
# Inner and outer rim of an outline, in pixels; the frame is as much wider than the boxes.
_RIM = 2
_BOTH = 3


@dataclass(frozen=True)
class Candidates:
    """The masks that were decoded in one slice.

    :param boxes: N prompts.
    :param probabilities: N maps, float32 (h, w) in [0, 1], cut to the frame, 0 outside of the slice's own box.
    :param iou: float32 (N,), the model's own estimate; not used here, as MedSAM ViT-B was not trained to give it.
    :param score: (N,), the larger the better.
    """

    index: int
    boxes: list[Box]
    probabilities: Sequence[np.ndarray] | np.ndarray
    iou: np.ndarray
    score: np.ndarray

    @property
    def nbytes(self) -> int:
        """Return what they take, in bytes."""
        return sum(each.nbytes for each in (*self.probabilities, *self.masks, self.packed))

    @cached_property
    def masks(self) -> list[np.ndarray]:
        """Return the masks, bool (h, w) each."""
        return [each > 0.5 for each in self.probabilities]

    @cached_property
    def packed(self) -> np.ndarray:
        """Return the masks' pixels as bits, see `packed`."""
        return packed(self.masks)

    def better_by(self, bonus: float | np.ndarray) -> Candidates:
        """Return the same with scores that are larger by a bonus."""
        better = replace(self, score=self.score + bonus)
        # The masks are the same as well.
        better.__dict__.update({name: self.__dict__[name] for name in ("masks", "packed") if name in self.__dict__})
        return better

    def like(self, likeness: np.ndarray) -> Candidates:
        """Return the same with scores that count in how well each mask agrees with a likeness, (h, w)."""
        whole, flat = likeness.sum(), likeness.reshape(-1)
        # One after the other, as numbers take four times the room of booleans.
        shared = np.array([flat @ mask.reshape(-1).astype(flat.dtype) for mask in self.masks], dtype=float)
        fits = 2 * shared / np.maximum(whole + bits(self.packed), 1e-6)
        return self.better_by(_LIKENESS_WEIGHT * np.log(fits + _LEAST_LIKENESS))

    def __add__(self, others: Candidates) -> Candidates:
        """Join two sets of one slice. Their maps are not copied, as they are large."""
        joined = Candidates(
            self.index,
            self.boxes + others.boxes,
            [*self.probabilities, *others.probabilities],
            np.concatenate([self.iou, others.iou]),
            np.concatenate([self.score, others.score]),
        )
        joined.__dict__["masks"] = self.masks + others.masks
        joined.__dict__["packed"] = np.concatenate([self.packed, others.packed])
        return joined


class CandidateDecoder:
    """Decodes boxes in the slices of a stack, and scores the masks.

    A mask scores by its stability, as in SAM, and by the contrast between the pixels on both sides of its outline,
    measured in standard deviations of the intensities that all boxes hold.

    :param boxes: slice index -> the box outside of which the slice's masks are empty, all of the slices.
    :param room: boxes that may be decoded in later, see `within`; they are not looked at before.
    :param deviation: to measure the contrast with; by default that of the intensities in all boxes.
    :param structure: boxes around a structure that, where it is small in large slices, is also decoded from a cut-out
        of them (see `cut_out`), which has to be encoded as well; the masks are the mean of both, as odds.
    """

    def __init__(
        self,
        stack: SliceStack,
        boxes: Boxes,
        predictor: Predictor,
        cache: EmbeddingCache,
        *,
        room: Boxes | None = None,
        deviation: float | None = None,
        structure: Iterable[Box] | None = None,
    ) -> None:
        self._stack, self._predictor, self._cache = stack, predictor, cache
        room = room or boxes
        self.frame = _frame([*boxes.values(), *room.values()], stack.shape)
        self.inside = {index: self.pixels_of(box) for index, box in boxes.items()}
        images = {index: stack.image(index, self.frame) for index in {*boxes, *room}}
        self.images = {i: image.mean(axis=2) if image.ndim == 3 else image for i, image in images.items()}
        if deviation is None:
            held = np.concatenate([self.images[index][self.inside[index]] for index in boxes])
            deviation = max(float(held.std()), 1.0)
        self._deviation = deviation
        self.shape = stack.shape
        # How many pixels a structure may move from slice to slice if it moves as far as these are apart.
        self.gap = round(stack.thickness / stack.pixel)
        # A pixel of LiteMedSAM's input.
        self._model_pixel = max(stack.shape) / 256
        self._cut = cut_out(structure, stack.shape, predictor.side) if structure is not None else None
        self._slices: dict[tuple[int, bool], Slice] = {}
        self._begun: set[int] = set()

    def within(self, room: Boxes) -> CandidateDecoder:
        """Return a decoder of the same frame and contrast for other boxes, of the room that this one was made with."""
        other = copy.copy(self)
        other.inside = {index: self.pixels_of(box) for index, box in room.items()}
        return other

    def decode(self, index: int, boxes: Sequence[Box]) -> Candidates:
        """Decode boxes in a slice, all in one batch."""
        following = self._following(index)
        now = following if self._cut is None else ()
        probabilities, iou = self._cache.prediction(self._predictor, self._slice(index), boxes, self.frame, now)
        if self._cut is not None:
            probabilities = self._with_cut_out(index, boxes, probabilities, following)
        _clear_around(bounds(self.inside[index]), probabilities)
        candidates = Candidates(index, list(boxes), probabilities, iou, np.zeros(len(boxes)))
        for number, (probability, mask) in enumerate(zip(probabilities, candidates.masks, strict=True)):
            contrast = _contrast(mask, self.images[index]) / self._deviation
            stability = _log_stability(probability) if mask.any() else _UNSTABLE
            candidates.score[number] = stability + _CONTRAST_WEIGHT * contrast
        return candidates

    def _slice(self, index: int, *, cut: bool = False) -> Slice:
        """Return a slice, or its cut-out, as the cache knows it."""
        part = cast(Window, self._cut) if cut else np.s_[:, :]
        return self._slices.setdefault(
            (index, cut), Slice(self._predictor, lambda: np.ascontiguousarray(self._stack.image(index, part)))
        )

    def _following(self, index: int) -> list[Slice]:
        """List what is likely to be decoded after a slice for the first time, in order: onward from its neighbor.

        Nothing after the first slice, as somebody waits for its mask.
        """
        first, upward = not self._begun, index - 1 in self._begun
        self._begun.add(index)
        if first or not getattr(self._predictor, "ahead", 0):
            return []
        rest = [other for other in self.inside if other not in self._begun]
        rest.sort(key=lambda other: ((other > index) != upward, abs(other - index)))
        return [self._slice(other, cut=cut) for other in rest for cut in (False, True)[: 1 + (self._cut is not None)]]

    def _with_cut_out(
        self, index: int, boxes: Sequence[Box], probabilities: np.ndarray, following: Sequence[Slice]
    ) -> np.ndarray:
        """Join the probabilities of boxes, (N, h, w) in the frame, with those from the enlarged part of a slice."""
        assert self._cut is not None
        (top, bottom), (left, right) = ((span.start, span.stop) for span in self._cut)
        moved = {
            number: Box(box.x0 - left, box.y0 - top, box.x1 - left, box.y1 - top)
            for number, box in enumerate(boxes)
            if left <= box.x0 and top <= box.y0 and box.x1 <= right and box.y1 <= bottom
        }
        if not moved:
            return probabilities
        rows, columns = (
            slice(max(span.start, cut.start), min(span.stop, cut.stop))
            for span, cut in zip(self.frame, self._cut, strict=True)
        )
        window = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
        cut = self._slice(index, cut=True)
        enlarged, _ = self._cache.prediction(self._predictor, cut, list(moved.values()), window, following)
        place = np.s_[
            rows.start - self.frame[0].start : rows.stop - self.frame[0].start,
            columns.start - self.frame[1].start : columns.stop - self.frame[1].start,
        ]
        for number, seen in zip(moved, enlarged, strict=True):
            # The mean of their logarithms.
            odds = np.sqrt(_odds_against(probabilities[number][place]) * _odds_against(seen))
            probabilities[number][place] = 1 / (1 + odds)
        return probabilities

    def key(self, index: int) -> bytes:
        """Return what tells a slice, as the model sees it, from all others."""
        seen = self._slice(index)
        key = seen.key()
        seen.forget()
        return key

    def features(self, index: int) -> Features:
        """Return what the image encoder makes of a slice."""
        embedding = self._cache.embedding(self._predictor, self._slice(index))
        return Features(*self._predictor.features(embedding))

    def as_trained(self, box: Box, part: float = 1.0) -> Box:
        """Widen a box around a structure to what the model was trained with, or by a part of that, in the slice."""
        rows, columns = self._stack.shape
        margin = part * _TRAINED_MARGIN * max(rows, columns)
        return Box(
            max(box.x0 - margin, 0),
            max(box.y0 - margin, 0),
            min(box.x1 + margin, columns),
            min(box.y1 + margin, rows),
        )

    def is_new(self, box: Box, candidates: Candidates) -> bool:
        """Return whether a box would give another mask than those that candidates came from."""
        limit = _SAME * max(self._stack.shape)
        return all(np.abs(sides_of(box) - sides_of(other)).max() > limit for other in candidates.boxes)

    def whole(self, mask: np.ndarray) -> np.ndarray:
        """Put a mask of the frame into its slice: bool (rows, columns)."""
        slice_mask = np.zeros(self._stack.shape, dtype=bool)
        slice_mask[self.frame] = mask
        return slice_mask

    def box_around(self, mask: np.ndarray, index: int) -> Box | None:
        """Find the box that prompts a slice with the mask of its neighbor: a little wider, inside of its own box.

        :param mask: bool (h, w), cut to the frame.
        """
        edges, limits = bounds(mask & self.inside[index]), bounds(self.inside[index])
        if edges is None or limits is None:
            return None
        # The neighbor may be a little larger.
        margin = self._model_pixel
        top, left = self.frame[0].start, self.frame[1].start
        return Box(
            max(edges.x0 - margin, limits.x0) + left,
            max(edges.y0 - margin, limits.y0) + top,
            min(edges.x1 + margin, limits.x1) + left,
            min(edges.y1 + margin, limits.y1) + top,
        )

    def official_box_around(self, mask: np.ndarray) -> Box | None:
        """Find the box that prompts a neighbor as in LiteMedSAM's script (``get_bbox256``), wherever it reaches.

        It ends 3 pixels of the model's input beyond a mask's first and last one. `Predictor.box_around` is exact, but
        resizes a whole slice, which takes a quarter of the time of decoding a box.

        :param mask: bool (h, w), cut to the frame.
        """
        edges = bounds(mask)
        if edges is None:
            return None
        rows, columns = self._stack.shape
        top, left = self.frame[0].start, self.frame[1].start
        sides = sides_of(edges) + np.array([left, top, left, top])
        pixels = np.round(sides / self._model_pixel) + np.array([-3, -3, 2, 2])
        # In the middle of a pixel, as the decimals are dropped.
        prompt = (np.clip(pixels, 0, 256) + 0.5) * self._model_pixel
        return Box(*np.minimum(prompt, [columns, rows, columns, rows]).tolist())

    def pixels_of(self, box: Box) -> np.ndarray:
        """Mark the pixels of a box in the frame: bool (h, w)."""
        inside = np.zeros(self._stack.shape, dtype=bool)
        inside[_pixels(box)] = True
        return inside[self.frame]


def outline(box: Box) -> Box:
    """Return a box of pixels by its outer edges, as a prompt.

    The official boxes end at the beginning of the last pixel (the largest index, scaled). Where a pixel of the slice is
    two of the model's, that cuts off a rim: the mean Dice of masks from experts' boxes rises from 0.85 to 0.89 with it.
    """
    return Box(box.x0, box.y0, box.x1 + 1, box.y1 + 1)


def smaller_boxes(box: Box) -> list[Box]:
    """List a box, its four corners of three quarters of its width and height, and its center of 0.7 of them."""
    boxes = [box]
    parts = ((0, 0, _CORNER_PART), (1, 0, _CORNER_PART), (0, 1, _CORNER_PART), (1, 1, _CORNER_PART))
    for left, top, part in (*parts, (0.5, 0.5, _CENTRAL_PART)):
        width, height = box.x1 - box.x0, box.y1 - box.y0
        x0, y0 = box.x0 + left * width * (1 - part), box.y0 + top * height * (1 - part)
        boxes.append(Box(x0, y0, x0 + width * part, y0 + height * part))
    return boxes


def _frame(boxes: Sequence[Box], shape: tuple[int, int]) -> Window:
    """Find the rows and columns that hold all boxes and the rim around them."""
    y0, y1 = min(box.y0 for box in boxes), max(box.y1 for box in boxes)
    x0, x1 = min(box.x0 for box in boxes), max(box.x1 for box in boxes)
    return _with_rim(_pixels(Box(x0, y0, x1, y1)), shape)


def _odds_against(probability: np.ndarray) -> np.ndarray:
    certain = np.clip(probability, 1 - _SUREST, _SUREST)
    return (1 - certain) / certain


def _with_rim(part: Window, shape: tuple[int, ...]) -> Window:
    """Widen a part of an image of a shape (rows, columns) by a rim, as far as there is one."""
    rows, columns = (
        slice(max(span.start - _RIM, 0), min(span.stop + _RIM, limit)) for span, limit in zip(part, shape, strict=True)
    )
    return rows, columns


def _pixels(box: Box) -> tuple[slice, slice]:
    """Return the rows and columns of a box."""
    return slice(int(box.y0), int(box.y1) + 1), slice(int(box.x0), int(box.x1) + 1)


def _log_stability(probability: np.ndarray) -> float:
    """Score a mask (h, w) by the logarithm of the share that is certain of all that is possible."""
    certain, possible = (np.count_nonzero(probability > level) for level in (_HIGH, _LOW))
    return math.log((certain + 1) / (possible + 1))


def _contrast(mask: np.ndarray, image: np.ndarray) -> float:
    """Measure how the mean intensities inside and outside of the outline of a mask (h, w) differ."""
    edges = bounds(mask)
    if edges is None:
        return 0.0
    # The outline's surroundings are all that counts, and less to work on.
    part = _with_rim((slice(int(edges.y0), int(edges.y1)), slice(int(edges.x0), int(edges.x1))), mask.shape)
    mask, image = mask[part], image[part]
    # The mask and what is around it grow at once, as one bit each: where they meet both are on.
    sides = mask.view(np.uint8) + np.uint8(1)
    rim = np.flatnonzero(grown(sides, _RIM) == _BOTH)
    within, values = mask.take(rim), image.take(rim).astype(np.float64)
    # (Not a product of vectors: BLAS shares it between threads, which wait for each other where others compute, too.)
    count, total = np.count_nonzero(within), (values * within).sum()
    if not 0 < count < rim.size:
        return 0.0
    return abs(total / count - (values.sum() - total) / (rim.size - count))


def _clear_around(box: Box | None, probabilities: np.ndarray) -> None:
    """Set all to 0 outside of a box of whole pixels, given by its outer edges; (N, h, w)."""
    x0, y0, x1, y1 = (int(side) for side in sides_of(box or Box(0, 0, 0, 0)))
    for part in (np.s_[:, :y0], np.s_[:, y1:], np.s_[:, :, :x0], np.s_[:, :, x1:]):
        probabilities[part] = 0


def grown(masks: np.ndarray, steps: int) -> np.ndarray:
    """Grow masks, bool (..., rows, columns), by steps to the four neighbors; or those that are bits of one array."""
    *others, rows, columns = masks.shape
    # One empty column and row behind each mask, and all is one long row, which is several times as fast.
    shape, pitch = (*others, rows + 1, columns + 1), columns + 1
    now, larger = np.zeros(shape, dtype=masks.dtype), np.empty(shape, dtype=masks.dtype)
    now[..., :rows, :columns] = masks
    for _ in range(steps):
        old, new = now.reshape(-1), larger.reshape(-1)
        np.bitwise_or(old[1:], old[:-1], out=new[1:])
        new[0] = old[0]
        new[:-1] |= old[1:]
        new[pitch:] |= old[:-pitch]
        new[:-pitch] |= old[pitch:]
        larger[..., columns] = larger[..., rows, :] = 0
        now, larger = larger, now
    return now[..., :rows, :columns]
