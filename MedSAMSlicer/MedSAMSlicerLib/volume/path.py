"""The best path through the slices: several candidates in every slice, and the choice that holds together.

The box of a 3-D ROI fits the structure in some slices and is too large in the others, where the model then segments
whatever fills it. A mask carried from slice to slice carries its errors along. So every slice is decoded from its
box, from smaller boxes inside of it, and from the box that the official propagation would take, in one batch on one
embedding; and the masks are chosen for the whole stack at once (Viterbi's algorithm): each should be stable, and
neighbors should overlap.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.stack import SliceStack
from MedSAMSlicerLib.volume.steps import Boxes, Predictor, SliceMask, middle_out

# Smaller boxes have this part of the box's width and height.
_PART = 0.75
_CENTRAL_PART = 0.5
# A mask is stable if it hardly changes between these two thresholds (SAM's stability score).
_LOW, _HIGH = 0.3, 0.7
# What overlap counts beside stability, the overlap below which all are equally bad, and what the official mask has in
# advance, as it follows from its neighbor. Testing/Benchmarks/README.md tells how they were chosen.
_OVERLAP_WEIGHT = 0.25
_LEAST_OVERLAP = 0.02
_OFFICIAL_BONUS = 0.05


@dataclass(frozen=True)
class _Candidates:
    """The masks that were decoded in one slice, with their scores (N,).

    :param masks: bool (N, h, w), cut to the frame that holds the ROI in all slices and empty outside of the box.
    """

    index: int
    boxes: list[Box]
    masks: np.ndarray
    iou: np.ndarray
    score: np.ndarray


def propagate_path(stack: SliceStack, boxes: Boxes, predictor: Predictor, cache: EmbeddingCache) -> Iterator[SliceMask]:
    """Segment every slice from several boxes and choose the masks that agree with their neighbors best.

    The candidates of a slice are the masks of its own box, of the four corners and the center of this box, and of the
    box around the neighbor's mask as in `propagation.propagate_reference`.

    Goes from the middle slice outward and yields the mask that agrees best with the neighbor's; at the end it yields
    again the slices in which the best path through all of them takes another mask. Masks stay inside of the boxes. Uses
    no estimate of the model's own, so that it works for models with an untrained IoU head as well.

    :param boxes: slice index -> the ROI's box there, as `geometry.roi_boxes` cuts it.
    """
    if not boxes:
        return
    frame = _frame(boxes)
    found: dict[int, _Candidates] = {}
    chosen: dict[int, int] = {}
    official: dict[int, np.ndarray] = {}

    def result(index: int) -> SliceMask:
        candidates, choice = found[index], chosen[index]
        mask = np.zeros(stack.shape, dtype=bool)
        mask[frame] = candidates.masks[choice]
        return SliceMask(index, mask, candidates.boxes[choice], float(candidates.iou[choice]))

    for index, neighbor in middle_out(boxes):
        prompts = smaller_boxes(boxes[index])
        around = None if neighbor is None else predictor.box_around(official[neighbor])
        prompts += [around] if around else []
        # Where the official propagation takes the slice's own box, this is the first candidate.
        follows = len(prompts) - 1 if around else 0
        prediction = predictor.decode(cache.embedding(predictor, stack.image(index)), prompts)
        official[index] = prediction.probabilities[follows] > 0.5
        inside = np.zeros(stack.shape, dtype=bool)
        inside[_pixels(boxes[index])] = True
        probabilities = prediction.probabilities[(slice(None), *frame)] * inside[frame]
        score = _log_stability(probabilities)
        score[follows] += _OFFICIAL_BONUS
        found[index] = _Candidates(index, prompts, probabilities > 0.5, prediction.iou, score)
        if neighbor is not None:
            near = found[neighbor].masks[chosen[neighbor]]
            score = score + _agreement(found[index].masks, near[None])[:, 0]
        chosen[index] = int(score.argmax())
        yield result(index)
    for index, choice in _best_path([found[index] for index in sorted(found)]).items():
        if choice != chosen[index]:
            chosen[index] = choice
            yield result(index)


def smaller_boxes(box: Box) -> list[Box]:
    """List a box, its four corners of three quarters of its width and height, and its center of half of them."""
    boxes = [box]
    for left, top, part in ((0, 0, _PART), (1, 0, _PART), (0, 1, _PART), (1, 1, _PART), (0.5, 0.5, _CENTRAL_PART)):
        width, height = box.x1 - box.x0, box.y1 - box.y0
        x0, y0 = box.x0 + left * width * (1 - part), box.y0 + top * height * (1 - part)
        boxes.append(Box(x0, y0, x0 + width * part, y0 + height * part))
    return boxes


def _frame(boxes: Boxes) -> tuple[slice, slice]:
    """Find the rows and columns that hold all boxes."""
    x0, y0 = (min(getattr(box, side) for box in boxes.values()) for side in ("x0", "y0"))
    x1, y1 = (max(getattr(box, side) for box in boxes.values()) for side in ("x1", "y1"))
    return _pixels(Box(x0, y0, x1, y1))


def _pixels(box: Box) -> tuple[slice, slice]:
    """Return the rows and columns of a box."""
    return slice(int(box.y0), int(box.y1) + 1), slice(int(box.x0), int(box.x1) + 1)


def _log_stability(probabilities: np.ndarray) -> np.ndarray:
    """Score masks (N, h, w) by the logarithm of the share that is certain of all that is possible, (N,)."""
    certain, possible = ((probabilities > level).sum(axis=(1, 2)) for level in (_HIGH, _LOW))
    return np.log((certain + 1) / (possible + 1))


def _agreement(masks: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Score the overlap of all masks with all others, (N, M): the weighted logarithm of their Dice."""
    a, b = (each.reshape(len(each), -1).astype(np.float32) for each in (masks, others))
    dice = 2 * (a @ b.T) / np.maximum(a.sum(axis=1)[:, None] + b.sum(axis=1), 1)
    return _OVERLAP_WEIGHT * np.log(dice + _LEAST_OVERLAP)


def _best_path(slices: list[_Candidates]) -> dict[int, int]:
    """Choose one candidate per slice so that the sum of scores and agreements is the largest: slice index -> choice."""
    total = slices[0].score
    backward = []
    for before, after in itertools.pairwise(slices):
        step = total[:, None] + _agreement(before.masks, after.masks)
        backward.append(step.argmax(axis=0))
        total = step.max(axis=0) + after.score
    choice = int(total.argmax())
    path = {slices[-1].index: choice}
    for candidates, previous in zip(reversed(slices[:-1]), reversed(backward), strict=True):
        choice = int(previous[choice])
        path[candidates.index] = choice
    return path
