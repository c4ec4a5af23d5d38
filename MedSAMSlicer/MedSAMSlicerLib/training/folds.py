"""Who is trained on and who is held out: for good where there are many patients, in turn where there are few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from MedSAMSlicerLib.dataset.case import Case
from MedSAMSlicerLib.training.recipe import Recipe

# More would take longer without telling more: each is a training of its own.
_MOST = 5


@dataclass(frozen=True)
class Fold:
    """Cases that a model is trained on, and cases of other patients that it is judged by."""

    train: tuple[Case, ...]
    held: tuple[Case, ...]


def folds_of(train: Sequence[Case], held: Sequence[Case], recipe: Recipe) -> list[Fold]:
    """Divide the cases of the splits train and validation into folds.

    With fewer patients than the recipe says, each of them is left out in turn (more than five in five groups), as one
    or two patients held out for good choose the epoch that suits them. The folds share the embeddings of their slices;
    where the image encoder is trained, there are none to share, and the split counts as it is.
    """
    cases = [*train, *held]
    patients = sorted({case.patient for case in cases})
    if recipe.depth != "decoder" or not 1 < len(patients) < recipe.left_out_below:
        return [Fold(tuple(train), tuple(held))]
    groups = [set(patients[first::_MOST]) for first in range(min(_MOST, len(patients)))]
    return [
        Fold(
            tuple(case for case in cases if case.patient not in group),
            tuple(case for case in cases if case.patient in group),
        )
        for group in groups
    ]
