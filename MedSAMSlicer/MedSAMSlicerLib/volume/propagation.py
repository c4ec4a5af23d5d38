"""From boxes to a 3-D mask, slice by slice.

Every method is a generator that yields a slice as soon as it is done, so that a caller can show it, count it, or stop.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache, Slice
from MedSAMSlicerLib.volume.memory_propagation import propagate_memory, remembers
from MedSAMSlicerLib.volume.path_propagation import propagate_path
from MedSAMSlicerLib.volume.slice_masks import Boxes, Predictor, SliceMask, middle_out, soft_dice
from MedSAMSlicerLib.volume.slice_stack import SliceStack

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
    masks: dict[int | None, np.ndarray] = {}
    for index, neighbor, slices in _walk(stack, boxes, predictor):
        around = predictor.box_around(masks[neighbor]) if neighbor in masks else None
        result = _segment(slices, index, around or boxes[index], predictor, cache)
        masks[index] = result.mask
        yield result


def segment_each_slice(
    stack: SliceStack, boxes: Boxes, predictor: Predictor, cache: EmbeddingCache
) -> Iterator[SliceMask]:
    """Segment every slice from its own box alone, the middle one first."""
    for index, _, slices in _walk(stack, boxes, predictor):
        yield _segment(slices, index, boxes[index], predictor, cache)


PROPAGATIONS: dict[str, Propagation] = {
    "path": propagate_path,
    "reference": propagate_reference,
    "per-slice": segment_each_slice,
    "memory": propagate_memory,
}
# The one that suits the model.
AUTO = "auto"
# Those that follow a structure from one slice until it ends, and take key slices.
FOLLOWING = (AUTO, "path", "memory")


def propagation_for(name: str, predictor: Predictor) -> str:
    """Return the name of a propagation, of "auto" that which suits a model: "memory" if it remembers slices, else
    "path".
    """
    if name != AUTO:
        return name
    return "memory" if remembers(predictor) else "path"


def check_propagation(name: str, *, follows: bool) -> None:
    """Refuse a propagation before anything is computed.

    :param follows: whether it is asked to follow a structure from one slice.
    :raises ValueError: if there is none of this name, or it can't.
    """
    if name != AUTO:
        propagation_named(name)
    if follows and name not in FOLLOWING:
        raise ValueError(f"The propagation {name!r} can't follow a box on one slice: use 'auto', or give a 3-D box.")


def propagation_named(name: str) -> Propagation:
    """Look up a propagation.

    :raises ValueError: if there is none of this name.
    """
    if name not in PROPAGATIONS:
        raise ValueError(f"The propagation {name!r} is unknown: give one of {AUTO}, {', '.join(PROPAGATIONS)}.")
    return PROPAGATIONS[name]


def _walk(stack: SliceStack, boxes: Boxes, predictor: Predictor) -> Iterator[tuple[int, int | None, list[Slice]]]:
    """Go from the middle slice outward: a slice, the neighbor before it, and its pixels with those that come next.

    Nothing comes after the first one, as somebody waits for its mask.
    """
    order = list(middle_out(boxes))
    slices = [Slice(predictor, functools.partial(stack.image, index)) for index, _ in order]
    for place, (index, neighbor) in enumerate(order):
        yield index, neighbor, slices[place:] if place else slices[:1]


def _segment(slices: Sequence[Slice], index: int, box: Box, predictor: Predictor, cache: EmbeddingCache) -> SliceMask:
    embedding = cache.embedding(predictor, slices[0])
    prediction = predictor.decode(embedding, [box])
    cache.encode_ahead(predictor, slices[1:], embedding.nbytes)
    mask = prediction.probabilities[0] > 0.5
    confidence = soft_dice(prediction.probabilities[0], mask)
    return SliceMask(index, mask, box, float(prediction.iou[0]), confidence)
