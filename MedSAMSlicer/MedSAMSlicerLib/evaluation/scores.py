"""How well a model segments a case, with the boxes that users draw, as users run it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from MedSAMSlicerLib.dataset.case import LoadedCase
from MedSAMSlicerLib.evaluation.boxes import box_of, slice_boxes
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.geometry import roi_boxes, voxel_box_corners
from MedSAMSlicerLib.volume.metrics import agreement
from MedSAMSlicerLib.volume.segmentation import segment_structure
from MedSAMSlicerLib.volume.slice_masks import Predictor, collect
from MedSAMSlicerLib.volume.slice_stack import SliceStack

PER_SLICE = "per-slice"


@dataclass(frozen=True)
class Score:
    """Agreement of a segmented structure with the expert's label.

    :param box: "tight", "loose" or "shifted" (one 3-D box, see `boxes.box_of`), or "per-slice" (the expert's own box in
        every slice, each slice on its own).
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
    :raises ValueError: if the label is empty or the box unknown.
    """
    if box == PER_SLICE:
        boxes, propagation = slice_boxes(expert, stack.axis), PER_SLICE
    else:
        boxes = roi_boxes(voxel_box_corners(*box_of(expert, box, seed)), stack.dimensions, stack.axis)
        propagation = "auto"
    return collect(segment_structure(stack, boxes, predictor, cache, propagation=propagation), stack)


def score_case(
    loaded: LoadedCase,
    predictor: Predictor,
    cache: EmbeddingCache | None = None,
    *,
    boxes: Sequence[str] = ("tight",),
    per_slice: bool = True,
) -> list[Score]:
    """Segment all labels of a case from boxes, through the propagation that users run, and score the results.

    :param cache: where slice embeddings are kept; by default they are forgotten with the case.
    :param boxes: 3-D boxes, see `Score`.
    :param per_slice: also segment every slice on its own, from the expert's box in it.
    """
    cache = EmbeddingCache(found_budget=0) if cache is None else cache
    stack = stack_of(loaded)
    scores = []
    for label, expert in loaded.labels.items():
        for box in (*boxes, PER_SLICE) if per_slice else boxes:
            seed = f"{loaded.case.id} {label}"
            mask = segment_label(stack, expert, predictor, cache, box=box, seed=seed)
            found = agreement(mask, expert, loaded.volume.spacing)
            scores.append(Score(loaded.case.id, label, box, found.dice, found.surface_dice))
    return scores
