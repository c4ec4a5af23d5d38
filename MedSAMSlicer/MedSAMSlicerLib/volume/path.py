"""The best path through the slices: several candidates in every slice, and the choice that holds together.

The box of a 3-D ROI fits the structure in some slices and is too large in the others, where the model then segments
whatever fills it. A mask carried from slice to slice carries its errors along. So every slice is decoded from its
box and from smaller ones inside of it, in one batch on one embedding, and the masks are chosen for the whole stack at
once (Viterbi's algorithm): each should be stable, and neighbors should overlap.
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

# Every side of a box stays, or moves inward by this part of the box's size.
_INSET = 0.25
# A mask is stable if it hardly changes between these two thresholds (SAM's stability score).
_LOW, _HIGH = 0.3, 0.7
# What overlap counts beside stability, and the overlap below which all are equally bad. On the bench the result hardly
# depends on them: see Testing/Benchmarks/README.md.
_OVERLAP_WEIGHT = 0.25
_LEAST_OVERLAP = 0.02


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

    def result(index: int) -> SliceMask:
        candidates, choice = found[index], chosen[index]
        mask = np.zeros(stack.shape, dtype=bool)
        mask[frame] = candidates.masks[choice]
        return SliceMask(index, mask, candidates.boxes[choice], float(candidates.iou[choice]))

    for index, neighbor in middle_out(boxes):
        candidates = _decode(stack, index, boxes[index], frame, predictor, cache)
        score = candidates.score
        if neighbor is not None:
            near = found[neighbor].masks[chosen[neighbor]]
            score = score + _agreement(candidates.masks, near[None])[:, 0]
        found[index], chosen[index] = candidates, int(score.argmax())
        yield result(index)
    for index, choice in _best_path([found[index] for index in sorted(found)]).items():
        if choice != chosen[index]:
            chosen[index] = choice
            yield result(index)


def _frame(boxes: Boxes) -> tuple[slice, slice]:
    """Find the rows and columns that hold all boxes."""
    rows = slice(int(min(box.y0 for box in boxes.values())), int(max(box.y1 for box in boxes.values())) + 1)
    columns = slice(int(min(box.x0 for box in boxes.values())), int(max(box.x1 for box in boxes.values())) + 1)
    return rows, columns


def _decode(
    stack: SliceStack, index: int, box: Box, frame: tuple[slice, slice], predictor: Predictor, cache: EmbeddingCache
) -> _Candidates:
    boxes = smaller_boxes(box)
    prediction = predictor.decode(cache.embedding(predictor, stack.image(index)), boxes)
    inside = np.zeros(stack.shape, dtype=bool)
    inside[int(box.y0) : int(box.y1) + 1, int(box.x0) : int(box.x1) + 1] = True
    probabilities = prediction.probabilities[(slice(None), *frame)] * inside[frame]
    certain, possible = ((probabilities > level).sum(axis=(1, 2)) for level in (_HIGH, _LOW))
    return _Candidates(index, boxes, probabilities > 0.5, prediction.iou, np.log((certain + 1) / (possible + 1)))


def smaller_boxes(box: Box) -> list[Box]:
    """List a box and the 15 boxes inside of it that have some of its sides moved inward."""
    width, height = (box.x1 - box.x0) * _INSET, (box.y1 - box.y0) * _INSET
    return [
        Box(box.x0 + left * width, box.y0 + top * height, box.x1 - right * width, box.y1 - bottom * height)
        for left, top, right, bottom in itertools.product((0, 1), repeat=4)
    ]


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
