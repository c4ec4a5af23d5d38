"""Predictors whose masks are known: one fills the box, one answers what a test wrote, one fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.embedding_cache import Window
from MedSAMSlicerLib.volume.slice_stack import SliceStack


@dataclass(frozen=True)
class FilledBoxes:
    """What `BoxPredictor` predicts, shaped as a real prediction."""

    probabilities: np.ndarray
    iou: np.ndarray

    def within(self, window: Window | None) -> FilledBoxes:
        """Cut to rows and columns of the slice; None for all."""
        return self if window is None else FilledBoxes(self.probabilities[(slice(None), *window)], self.iou)


@dataclass(frozen=True)
class Shape:
    """The embedding of `BoxPredictor`: it remembers only how large the slice is."""

    rows: int
    columns: int
    nbytes: int = 1000


def no_features(rows: int, columns: int) -> tuple[np.ndarray, tuple[float, float]]:
    """Give the features of an encoder to which every place of a slice looks the same."""
    return np.zeros((1, 8, 8), dtype=np.float32), (8 / rows, 8 / columns)


@dataclass
class BoxPredictor:
    """Stands in for `inference.predictor.Predictor` where a test needs exact masks instead of a model's.

    It is strict: a slice that is not uint8, a box outside of the slice or an empty request is an error here too.
    """

    key: str = "box-predictor"
    side: int = 256
    encoded: list[np.ndarray] = field(default_factory=list)
    prompts: list[Box] = field(default_factory=list)

    def encode(self, image: np.ndarray) -> Shape:
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
            raise TypeError(f"A slice must be uint8 (H, W) or (H, W, 3), not {image.dtype} {image.shape}.")
        self.encoded.append(image.copy())
        return Shape(*image.shape[:2])

    def decode(self, embedding: Shape, boxes: Sequence[Box], window: Window | None = None) -> FilledBoxes:
        if not boxes:
            raise ValueError("At least one box is needed.")
        masks = np.zeros((len(boxes), embedding.rows, embedding.columns), dtype=np.float32)
        for mask, box in zip(masks, boxes, strict=True):
            # An outer edge may be the slice's own.
            if box.x0 < 0 or box.y0 < 0 or box.x1 > embedding.columns or box.y1 > embedding.rows:
                raise ValueError(f"{box} is not inside of the slice.")
            self.prompts.append(box)
            mask[int(box.y0) : int(box.y1) + 1, int(box.x0) : int(box.x1) + 1] = 1
        return FilledBoxes(masks, np.full(len(boxes), 0.9, dtype=np.float32)).within(window)

    def features(self, embedding: Shape) -> tuple[np.ndarray, tuple[float, float]]:
        return no_features(embedding.rows, embedding.columns)

    def box_around(self, mask: np.ndarray) -> Box | None:
        if not mask.any():
            return None
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        return Box(int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1]))


@dataclass(frozen=True)
class NumberedSlice:
    """The embedding of `Scripted`: it remembers which slice it is."""

    index: int
    shape: tuple[int, int]
    nbytes: int = 1000


class Scripted:
    """Answers a box in a slice of a `numbered_stack` with probabilities that a test wrote.

    :param answer: called with the slice's index, the box, and the probabilities to write, all 0.
    """

    key = "script"
    side = 256

    def __init__(self, answer: Callable[[int, Box, np.ndarray], None]) -> None:
        self.answer = answer
        self.requests: list[tuple[int, int]] = []

    def encode(self, image: np.ndarray) -> NumberedSlice:
        return NumberedSlice(int(image.flat[0]), image.shape[:2])

    def decode(self, embedding: NumberedSlice, boxes: Sequence[Box], window: Window | None = None) -> FilledBoxes:
        self.requests.append((embedding.index, len(boxes)))
        probabilities = np.zeros((len(boxes), *embedding.shape), dtype=np.float32)
        for box, probability in zip(boxes, probabilities, strict=True):
            self.answer(embedding.index, box, probability)
        return FilledBoxes(probabilities, np.full(len(boxes), 0.5, dtype=np.float32)).within(window)

    def features(self, embedding: NumberedSlice) -> tuple[np.ndarray, tuple[float, float]]:
        return no_features(*embedding.shape)

    def box_around(self, mask: np.ndarray) -> Box | None:
        y, x = np.nonzero(mask)
        return Box(x.min() + 0.25, y.min() + 0.25, x.max() + 0.5, y.max() + 0.5) if y.size else None


def numbered_stack(voxels: np.ndarray) -> SliceStack:
    """Make a stack of slices (K, rows, columns) whose first pixel is the slice's number; all others stay what they are.

    The second pixel of slice 0 becomes 255, so that the window spans all of uint8.
    """
    voxels = voxels.astype(np.uint8)
    for index, image in enumerate(voxels):
        image[0, 0] = index
    voxels[0, 0, 1] = 255
    return SliceStack(voxels, (1.0, 1.0, 3.0), axis="k", window="full")


class BrokenError(Exception):
    """What a model that fails raises."""


@dataclass
class FailingPredictor(BoxPredictor):
    """A `BoxPredictor` that fails after some answers, if it is told to."""

    answers: int | None = None

    def decode(self, embedding: Any, boxes: Any, window: Any = None) -> Any:
        if self.answers is not None:
            self.answers -= 1
            if self.answers < 0:
                raise BrokenError
        return super().decode(embedding, boxes, window)
