"""From boxes to a 3-D mask, slice by slice.

Every method is a generator that yields a slice as soon as it is done, so that a caller can show it, count it, or stop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.geometry import slice_of
from MedSAMSlicerLib.volume.stack import SliceStack


class Predictor(Protocol):
    """One slice in, masks out: what a propagation needs of `inference.predictor.Predictor`."""

    @property
    def key(self) -> str:
        """Identify the weights and their preprocessing."""

    def encode(self, image: np.ndarray) -> Any:
        """Embed a slice, uint8 (rows, columns) or (rows, columns, 3)."""

    def decode(self, embedding: Any, boxes: list[Box]) -> Any:
        """Predict one mask per box: ``.probabilities`` (N, rows, columns) in [0, 1] and ``.iou`` (N,)."""

    def box_around(self, mask: np.ndarray) -> Box | None:
        """Find the box with which a mask prompts its neighbor; None for an empty mask."""


@dataclass(frozen=True)
class SliceMask:
    """The mask of one slice, bool (rows, columns), the box that made it and the model's own estimate of its IoU."""

    index: int
    mask: np.ndarray
    box: Box
    iou: float


Boxes = Mapping[int, Box]
Propagation = Callable[[SliceStack, Boxes, Predictor, EmbeddingCache], Iterator[SliceMask]]


def propagate_reference(
    stack: SliceStack, boxes: Boxes, predictor: Predictor, cache: EmbeddingCache
) -> Iterator[SliceMask]:
    """Propagate from the middle slice outward, as LiteMedSAM's official script does.

    The middle slice is prompted with its box; every other slice, first upward, then downward, with the box around its
    neighbor's mask, or with its own box where this mask is empty. The masks are not clipped to the boxes. Follows
    ``MedSAM_infer_npz_3D`` of CVPR24_LiteMedSAM_infer.py (bowang-lab/MedSAM, branch LiteMedSAM).

    :param boxes: slice index -> the ROI's box there, as `geometry.roi_boxes` cuts it.
    """
    if not boxes:
        return
    first, last = min(boxes), max(boxes)
    middle = int((last - first) / 2 + first)
    masks: dict[int, np.ndarray] = {}
    for index, neighbor in [
        *((index, index - 1) for index in range(middle, last + 1)),
        *((index, index + 1) for index in range(middle - 1, first - 1, -1)),
    ]:
        around = predictor.box_around(masks[neighbor]) if neighbor in masks else None
        result = _segment(stack, index, around or boxes[index], predictor, cache)
        masks = {middle: masks.get(middle, result.mask), index: result.mask}
        yield result


def segment_each_slice(
    stack: SliceStack, boxes: Boxes, predictor: Predictor, cache: EmbeddingCache
) -> Iterator[SliceMask]:
    """Segment every slice from its own box alone, the middle one first, then outward on both sides."""
    middle = (min(boxes) + max(boxes)) / 2 if boxes else 0
    for index in sorted(boxes, key=lambda index: abs(index - middle)):
        yield _segment(stack, index, boxes[index], predictor, cache)


PROPAGATIONS: dict[str, Propagation] = {"reference": propagate_reference, "per-slice": segment_each_slice}


def propagation_named(name: str) -> Propagation:
    """Look up a propagation.

    :raises ValueError: if there is none of this name.
    """
    if name not in PROPAGATIONS:
        raise ValueError(f"The propagation {name!r} is unknown: give one of {', '.join(PROPAGATIONS)}.")
    return PROPAGATIONS[name]


def collect(results: Iterable[SliceMask], stack: SliceStack) -> np.ndarray:
    """Put slice masks together to a bool volume (K, J, I)."""
    volume = np.zeros(stack.voxels.shape[:3], dtype=bool)
    for result in results:
        slice_of(volume, stack.axis, result.index)[:] = result.mask
    return volume


def _segment(stack: SliceStack, index: int, box: Box, predictor: Predictor, cache: EmbeddingCache) -> SliceMask:
    embedding = cache.embedding(predictor, stack.image(index))
    prediction = predictor.decode(embedding, [box])
    return SliceMask(index, prediction.probabilities[0] > 0.5, box, float(prediction.iou[0]))
