"""A predictor whose masks are known: it fills the box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from MedSAMSlicerLib.prompts import Box


@dataclass(frozen=True)
class FilledBoxes:
    """What `BoxPredictor` predicts, shaped as a real prediction."""

    probabilities: np.ndarray
    iou: np.ndarray


@dataclass(frozen=True)
class Shape:
    """The embedding of `BoxPredictor`: it remembers only how large the slice is."""

    rows: int
    columns: int
    nbytes: int = 1000


@dataclass
class BoxPredictor:
    """Stands in for `inference.predictor.Predictor` where a test needs exact masks instead of a model's.

    It is strict: a slice that is not uint8, a box outside of the slice or an empty request is an error here too.
    """

    key: str = "box-predictor"
    encoded: list[np.ndarray] = field(default_factory=list)
    prompts: list[Box] = field(default_factory=list)

    def encode(self, image: np.ndarray) -> Shape:
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
            raise TypeError(f"A slice must be uint8 (H, W) or (H, W, 3), not {image.dtype} {image.shape}.")
        self.encoded.append(image.copy())
        return Shape(*image.shape[:2])

    def decode(self, embedding: Shape, boxes: Sequence[Box]) -> FilledBoxes:
        if not boxes:
            raise ValueError("At least one box is needed.")
        masks = np.zeros((len(boxes), embedding.rows, embedding.columns), dtype=np.float32)
        for mask, box in zip(masks, boxes, strict=True):
            if box.x0 < 0 or box.y0 < 0 or box.x1 >= embedding.columns or box.y1 >= embedding.rows:
                raise ValueError(f"{box} is not inside of the slice.")
            self.prompts.append(box)
            mask[int(box.y0) : int(box.y1) + 1, int(box.x0) : int(box.x1) + 1] = 1
        return FilledBoxes(masks, np.full(len(boxes), 0.9, dtype=np.float32))

    def box_around(self, mask: np.ndarray) -> Box | None:
        if not mask.any():
            return None
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        return Box(int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1]))
