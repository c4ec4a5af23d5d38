"""Whether a model still listens to its box: training for too long makes it deaf."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from MedSAMSlicerLib.dataset.case import LoadedCase
from MedSAMSlicerLib.evaluation.boxes import slice_boxes
from MedSAMSlicerLib.evaluation.scores import stack_of
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.geometry import slice_of
from MedSAMSlicerLib.volume.steps import Predictor

# Pixels: in a smaller structure, half of it is no structure.
_LEAST_SIDE = 8


@dataclass(frozen=True)
class BoxResponse:
    """How a model responds when its box is moved to another part of a structure, each figure at most 1.

    :param follows: how much better its masks fit what is in their own box than what is in the opposite one: 0 for a
        model that gives the same mask whatever the box.
    :param finds: how much better its masks fit the structure in the box than the filled box does, as a part of what is
        possible: 0 for a model that fills its box, less for one that is worse than that.
    """

    follows: float
    finds: float

    @property
    def value(self) -> float:
        """Return the smaller figure: about 0 for a model that is of no use with boxes, 1 for a perfect one."""
        return min(self.follows, self.finds)


def box_response(cases: Iterable[LoadedCase], predictor: Predictor, cache: EmbeddingCache | None = None) -> BoxResponse:
    """Measure the response to the box, in the slice of each label where it is the largest.

    The tight box around the label is moved by half of its size to the left and right, up and down. Half of the
    structure is in each of these boxes, and opposite ones share nothing of it.

    :raises ValueError: if no label is large enough, 8 pixels in both directions, to measure anything.
    """
    cache = EmbeddingCache() if cache is None else cache
    follows: list[float] = []
    finds: list[float] = []
    for loaded in cases:
        stack = stack_of(loaded)
        for expert in loaded.labels.values():
            areas = expert.sum(axis=tuple(other for other in range(3) if other != 2 - stack.axis))
            index = int(areas.argmax())
            label = slice_of(expert, stack.axis, index)
            boxes = _opposite_boxes(slice_boxes(expert, stack.axis)[index], label.shape)
            if not boxes:
                continue
            probabilities, _ = cache.prediction(predictor, stack.image(index), boxes)
            masks = probabilities > 0.5
            filled = [_filled(box, label.shape) for box in boxes]
            for number, mask in enumerate(masks):
                own, opposite = (_dice(mask, label & filled[which]) for which in (number, number ^ 1))
                fill = _dice(filled[number], label & filled[number])
                follows.append(own - opposite)
                finds.append((own - fill) / (1 - fill) if fill < 1 else own)
    if not follows:
        raise ValueError(
            f"No label is {_LEAST_SIDE} pixels wide and high: add a case with a larger structure to measure how the "
            "model responds to its box."
        )
    return BoxResponse(float(np.mean(follows)), float(np.mean(finds)))


def _opposite_boxes(box: Box, shape: tuple[int, ...]) -> list[Box]:
    """Move a box by half of its size to its four sides, opposite ones in pairs, cut to the slice."""
    rows, columns = shape
    width, height = int(box.x1 - box.x0) + 1, int(box.y1 - box.y0) + 1
    if min(width, height) < _LEAST_SIDE:
        return []
    x, y = box.x0 + width // 2, box.y0 + height // 2
    return [
        Box(max(x - width, 0), box.y0, x - 1, box.y1),
        Box(x, box.y0, min(x + width, columns) - 1, box.y1),
        Box(box.x0, max(y - height, 0), box.x1, y - 1),
        Box(box.x0, y, box.x1, min(y + height, rows) - 1),
    ]


def _filled(box: Box, shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[int(box.y0) : int(box.y1) + 1, int(box.x0) : int(box.x1) + 1] = True
    return mask


def _dice(mask: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((mask & other).sum()) / max(int(mask.sum()) + int(other.sum()), 1)
