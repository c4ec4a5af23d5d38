"""What a propagation works with and what it gives: a predictor, boxes, and one mask after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.geometry import slice_of
from MedSAMSlicerLib.volume.slice_stack import SliceStack


class NothingFound(ValueError):
    """No mask to follow a structure from; the text names the slice and the remedy."""


class Predictor(Protocol):
    """One slice in, masks out: what a propagation needs of `inference.predictor.Predictor`."""

    @property
    def key(self) -> str:
        """Identify the weights and their preprocessing."""

    @property
    def side(self) -> int:
        """Return the side of the model's square input, in pixels."""

    def encode(self, image: np.ndarray) -> Any:
        """Embed a slice, uint8 (rows, columns) or (rows, columns, 3)."""

    def decode(self, embedding: Any, boxes: list[Box], window: tuple[slice, slice] | None = None) -> Any:
        """Predict one mask per box, whole or in a window: ``.probabilities`` (N, h, w) in [0, 1] and ``.iou`` (N,)."""

    def features(self, embedding: Any) -> tuple[np.ndarray, tuple[float, float]]:
        """Return what the encoder makes of each place of a slice, see `embedding_model.Features`."""

    def box_around(self, mask: np.ndarray) -> Box | None:
        """Find the box with which a mask prompts its neighbor; None for an empty mask."""


@dataclass(frozen=True)
class SliceMask:
    """The mask of one slice.

    :param mask: bool (rows, columns).
    :param box: the prompt that made it.
    :param iou: the model's own estimate of its IoU, which means something for LiteMedSAM only.
    :param confidence: from 0 to 1, an estimate of its Dice that no model has to be trained for; 1 for a key slice.
    :param final: whether the propagation won't yield this slice again.
    """

    index: int
    mask: np.ndarray
    box: Box
    iou: float
    confidence: float
    final: bool = True


@dataclass(frozen=True)
class Outcome:
    """What a user should know of a structure beyond its masks.

    :param fragments: bodies that were dropped, as no prompt is about them.
    :param open_ends: the volume's first or last slice, where a structure that was followed had not ended yet.
    """

    fragments: int = 0
    open_ends: tuple[int, ...] = ()


Boxes = Mapping[int, Box]


def middle_out(boxes: Boxes, start: int | None = None) -> Iterator[tuple[int, int | None]]:
    """Order the slices from the first to the last that has a box: the middle one, upward, then downward.

    :param start: the slice to begin with instead of the middle one.
    :return: pairs of a slice and the neighbor that was done before it, None for the first one.
    """
    if boxes:
        first, last = min(boxes), max(boxes)
        middle = int((last - first) / 2 + first) if start is None else start
        yield middle, None
        yield from ((index, index - 1) for index in range(middle + 1, last + 1))
        yield from ((index, index + 1) for index in range(middle - 1, first - 1, -1))


def soft_dice(probability: np.ndarray, mask: np.ndarray, whole: np.floating | None = None) -> float:
    """Compute the Dice of a mask with the probabilities it was cut from: 1 if all are certain, 0 if it is empty.

    :param whole: sum of the probabilities, where it is known.
    """
    whole = probability.sum() if whole is None else whole
    # NumPy counts booleans faster than it adds them up.
    return float(2 * probability[mask].sum() / max(whole + np.int64(np.count_nonzero(mask)), 1e-6))


def collect(results: Iterable[SliceMask], stack: SliceStack) -> np.ndarray:
    """Put slice masks together to a bool volume (K, J, I)."""
    volume = np.zeros(stack.voxels.shape[:3], dtype=bool)
    for result in results:
        slice_of(volume, stack.axis, result.index)[:] = result.mask
    return volume
