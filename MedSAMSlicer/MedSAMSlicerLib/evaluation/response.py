"""Whether a model still listens to its box: training for too long makes it deaf."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from MedSAMSlicerLib.dataset.case import LoadedCase
from MedSAMSlicerLib.evaluation.boxes import LOOSE, enlarged, slice_boxes
from MedSAMSlicerLib.evaluation.scores import stack_of
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.geometry import slice_of
from MedSAMSlicerLib.volume.slice_masks import Predictor

# Pixels: in a smaller structure, half of it is no structure.
_LEAST_SIDE = 8


@dataclass(frozen=True)
class BoxResponse:
    """How a model responds to its box, both figures at most 1.

    :param follows: how much better its masks fit the half of a structure that is in their box than the other half: 0
        for a model that gives the same mask whatever the box.
    :param finds: how much better its masks fit the structure in a loose box than the filled box does, as a part of what
        is possible: 0 for a model that fills its box.
    """

    follows: float
    finds: float

    @property
    def value(self) -> float:
        """Return the smaller figure: 0 for a model that does not respond to its box, 1 for a perfect one."""
        return min(self.follows, self.finds)


def box_response(cases: Iterable[LoadedCase], predictor: Predictor, cache: EmbeddingCache | None = None) -> BoxResponse:
    """Measure the response to the box, in the slice of each label where it is the largest.

    The tight box around the label is halved, to the left and right, and up and down: opposite halves share nothing of
    the structure, so a mask that listens to its box fits its own half. And the loose box, 10 % larger on every side,
    asks for the same structure as the tight one, so that a mask must not grow with it. A tight box, or one that is
    moved by as much as users do, would tell nothing: a good model and a deaf one both give the whole structure.

    :raises ValueError: if no label is large enough, 8 pixels in both directions, to measure anything.
    """
    cache = EmbeddingCache() if cache is None else cache
    figures = []
    for loaded in cases:
        stack = stack_of(loaded)
        for expert in loaded.labels.values():
            areas = expert.sum(axis=tuple(other for other in range(3) if other != 2 - stack.axis))
            index = int(areas.argmax())
            label = slice_of(expert, stack.axis, index)
            tight = slice_boxes(expert, stack.axis)[index]
            if min(tight.x1 - tight.x0, tight.y1 - tight.y0) + 1 < _LEAST_SIDE:
                continue
            halves, loose = _halves(tight), enlarged(tight, LOOSE, label.shape)
            probabilities, _ = cache.prediction(predictor, stack.image(index), [*halves, loose])
            masks = probabilities > 0.5
            parts = [label & _filled(half, label.shape) for half in halves]
            own = float(np.mean([_dice(mask, part) for mask, part in zip(masks, parts, strict=False)]))
            opposite = float(np.mean([_dice(mask, parts[number ^ 1]) for number, mask in enumerate(masks[:-1])]))
            figures.append((own - opposite, _dice(masks[-1], label), _dice(_filled(loose, label.shape), label)))
    if not figures:
        raise ValueError(
            f"No label is {_LEAST_SIDE} pixels wide and high: add a case with a larger structure to measure how the "
            "model responds to its box."
        )
    follows, found, filled = np.mean(figures, axis=0).tolist()
    return BoxResponse(follows, (found - filled) / (1 - filled))


def _halves(box: Box) -> list[Box]:
    """Cut a box into left and right, and into upper and lower half."""
    x, y = box.x0 + (box.x1 - box.x0 + 1) // 2, box.y0 + (box.y1 - box.y0 + 1) // 2
    return [
        Box(box.x0, box.y0, x - 1, box.y1),
        Box(x, box.y0, box.x1, box.y1),
        Box(box.x0, box.y0, box.x1, y - 1),
        Box(box.x0, y, box.x1, box.y1),
    ]


def _filled(box: Box, shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[int(box.y0) : int(box.y1) + 1, int(box.x0) : int(box.x1) + 1] = True
    return mask


def _dice(mask: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((mask & other).sum()) / max(int(mask.sum()) + int(other.sum()), 1)
