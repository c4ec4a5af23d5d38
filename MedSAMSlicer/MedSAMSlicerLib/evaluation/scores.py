"""How well a model segments a case, with the boxes that users draw, as users run it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from MedSAMSlicerLib.dataset.case import LoadedCase
from MedSAMSlicerLib.evaluation.boxes import box_of, box_on_slice, slice_boxes
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.geometry import roi_boxes, voxel_box_corners
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.metrics import agreement
from MedSAMSlicerLib.volume.segmentation import segment_structure
from MedSAMSlicerLib.volume.slice_masks import NothingFound, Predictor, collect
from MedSAMSlicerLib.volume.slice_stack import SliceStack

TIGHT, ONE_SLICE, PER_SLICE = "tight", "one-slice", "per-slice"
# What a model is judged from, and what that is called.
FOUND_FROM = {TIGHT: "one 3-D box", ONE_SLICE: "a box on one slice", PER_SLICE: "a box per slice"}


@dataclass(frozen=True)
class Score:
    """Agreement of a segmented structure with the expert's label.

    :param box: "tight", "loose" or "shifted" (one 3-D box, see `boxes.box_of`), "one-slice" (drawn on the middle slice,
        see `boxes.box_on_slice`, from where the structure is followed), or "per-slice" (the expert's own box in every
        slice, each slice on its own).
    :param surface_dice: with a tolerance of 2 mm.
    """

    case_id: str
    label: str
    box: str
    dice: float
    surface_dice: float


def stack_of(loaded: LoadedCase) -> SliceStack:
    """Cut a case into the slices that users of its volume get."""
    return SliceStack(loaded.volume.voxels, loaded.volume.spacing, window=loaded.window)


def segment_label(
    stack: SliceStack, expert: np.ndarray, predictor: Predictor, cache: EmbeddingCache, *, box: str, seed: str = ""
) -> np.ndarray:
    """Segment a structure with a box that is made of the expert's label of it: bool (K, J, I).

    :param box: see `Score`.
    :param seed: of a shifted box.
    :return: empty if the model finds nothing to follow.
    :raises ValueError: if the label is empty or the box unknown.
    """
    boxes, keys, propagation = {}, [], "auto"
    if box == PER_SLICE:
        boxes, propagation = slice_boxes(expert, stack.axis), PER_SLICE
    elif box == ONE_SLICE:
        keys = [KeySlice(stack.axis, *box_on_slice(expert, stack.axis))]
    else:
        boxes = roi_boxes(voxel_box_corners(*box_of(expert, box, seed)), stack.dimensions, stack.axis)
    try:
        return collect(segment_structure(stack, boxes, predictor, cache, keys, propagation), stack)
    except NothingFound:
        return np.zeros_like(expert, dtype=bool)


def score_case(
    loaded: LoadedCase,
    predictor: Predictor,
    cache: EmbeddingCache | None = None,
    boxes: Sequence[str] = tuple(FOUND_FROM),
) -> list[Score]:
    """Segment all labels of a case from boxes, through the propagation that users run, and score the results.

    :param cache: where slice embeddings are kept; by default they are forgotten with the case.
    :param boxes: see `Score`.
    """
    cache = EmbeddingCache(found_budget=0) if cache is None else cache
    stack = stack_of(loaded)
    scores = []
    for label, expert in loaded.labels.items():
        for box in boxes:
            seed = f"{loaded.case.id} {label}"
            mask = segment_label(stack, expert, predictor, cache, box=box, seed=seed)
            found = agreement(mask, expert, loaded.volume.spacing)
            scores.append(Score(loaded.case.id, label, box, found.dice, found.surface_dice))
    return scores
