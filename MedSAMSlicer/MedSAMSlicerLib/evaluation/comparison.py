"""A tuned model beside its base model on held-out cases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from MedSAMSlicerLib.dataset.case import LoadedCase
from MedSAMSlicerLib.evaluation.bootstrap import Difference, paired_difference
from MedSAMSlicerLib.evaluation.response import BoxResponse, box_response
from MedSAMSlicerLib.evaluation.scores import FOUND_FROM, TIGHT, segment_label, stack_of
from MedSAMSlicerLib.evaluation.verdict import Verdict, judge
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.geometry import plane_axes, slice_of
from MedSAMSlicerLib.volume.metrics import Agreement, agreement
from MedSAMSlicerLib.volume.slice_masks import Predictor
from MedSAMSlicerLib.volume.slice_stack import SliceStack

_WORST = 6
# Of the structure's size, around it in a picture.
_MARGIN = 0.35


@dataclass(frozen=True)
class Result:
    """How well both models segment a structure of a case, see `scores.Score`."""

    case_id: str
    patient: str
    label: str
    box: str
    before: Agreement
    after: Agreement


@dataclass(frozen=True)
class View:
    """A part of a slice: uint8 (rows, columns) or (rows, columns, 3), masks bool (rows, columns).

    :param steps: (2, 3), from a row to the next one and from a column to the next one, RAS in millimeters.
    """

    result: Result
    image: np.ndarray
    expert: np.ndarray
    before: np.ndarray
    after: np.ndarray
    steps: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """What two models make of held-out cases.

    :param worst: the structures that the tuned model segments worst, the worst one first, in the slice where it is
        wrong most.
    :param responses: of both models to their boxes; None where no structure is large enough.
    """

    results: tuple[Result, ...]
    worst: tuple[View, ...]
    responses: tuple[BoxResponse, BoxResponse] | None

    @property
    def labels(self) -> list[str]:
        """List the names of all labels."""
        return sorted({result.label for result in self.results})

    @property
    def patients(self) -> list[str]:
        """List the pseudonyms of all patients."""
        return sorted({result.patient for result in self.results})

    def verdict(self) -> Verdict:
        """Judge the tuned model by all labels, from one tight box each; from no other kind of box may it be worse."""
        others = [(name, self.difference("dice", box)) for box, name in FOUND_FROM.items() if box != TIGHT]
        return judge(self.difference("dice"), self.difference("surface_dice"), self.responses, others)

    def means(self, figure: str, box: str = TIGHT, label: str | None = None) -> tuple[float, float]:
        """Compute the mean of a figure, "dice" or "surface_dice", over the patients: before and after."""
        before, after = self._by_patient(figure, box, label)
        return float(np.mean(before)), float(np.mean(after))

    def difference(self, figure: str, box: str = TIGHT, label: str | None = None) -> Difference:
        """Compare a figure of both models, by patient.

        :param label: of this label only; by default a patient counts with the mean of all its labels.
        """
        return paired_difference(*self._by_patient(figure, box, label))

    def _by_patient(self, figure: str, box: str, label: str | None) -> tuple[list[float], list[float]]:
        values: dict[str, list[tuple[float, float]]] = {}
        for result in self.results:
            if result.box == box and label in (None, result.label):
                pair = getattr(result.before, figure), getattr(result.after, figure)
                values.setdefault(result.patient, []).append(pair)
        means = [np.mean(pairs, axis=0).tolist() for _, pairs in sorted(values.items())]
        return [before for before, _ in means], [after for _, after in means]


def compare(
    cases: Iterable[LoadedCase], base: Predictor, tuned: Predictor, progress: Callable[[], object] = lambda: None
) -> Comparison:
    """Segment all labels of held-out cases with both models, from every kind of box.

    :param progress: called whenever a structure is done; may raise to give up.
    :raises ValueError: if there is no case.
    """
    results: list[Result] = []
    worst: list[View] = []
    responses: list[tuple[BoxResponse, BoxResponse]] = []
    for loaded in cases:
        stack, spacing = stack_of(loaded), loaded.volume.spacing
        caches = EmbeddingCache(found_budget=0), EmbeddingCache(found_budget=0)
        models = list(zip((base, tuned), caches, strict=True))
        for label, expert in loaded.labels.items():
            for box in FOUND_FROM:
                masks = [segment_label(stack, expert, predictor, cache, box=box) for predictor, cache in models]
                found = [agreement(mask, expert, spacing) for mask in masks]
                results.append(Result(loaded.case.id, loaded.case.patient, label, box, found[0], found[1]))
                if box == TIGHT:
                    worst.append(_view(results[-1], stack, (expert, *masks), loaded.volume.ijk_to_ras))
            worst = sorted(worst, key=lambda view: view.result.after.dice)[:_WORST]
            progress()
        try:
            before, after = (box_response([loaded], predictor, cache) for predictor, cache in models)
        except ValueError:
            # Nothing in this case is large enough.
            continue
        responses.append((before, after))
    if not results:
        raise ValueError("There is no case to compare the models on: assign patients to the test split.")
    return Comparison(tuple(results), tuple(worst), _mean(responses))


def _mean(responses: list[tuple[BoxResponse, BoxResponse]]) -> tuple[BoxResponse, BoxResponse] | None:
    if not responses:
        return None
    before, after = (
        BoxResponse(float(np.mean([each.follows for each in model])), float(np.mean([each.finds for each in model])))
        for model in zip(*responses, strict=True)
    )
    return before, after


def _view(result: Result, stack: SliceStack, masks: Sequence[np.ndarray], ijk_to_ras: np.ndarray) -> View:
    """Cut the slice out where the tuned model is wrong most, around the structure.

    :param masks: of the expert, before and after, bool (K, J, I).
    """
    expert, _, after = masks
    across = tuple(other for other in range(3) if other != 2 - stack.axis)
    wrong = (after ^ expert).sum(axis=across)
    index = int(wrong.argmax() if wrong.any() else expert.sum(axis=across).argmax())
    planes = [slice_of(mask, stack.axis, index) for mask in masks]
    rows, columns = (_span(np.any(planes, axis=(0, 2 - axis))) for axis in (0, 1))
    x_axis, y_axis = plane_axes(stack.axis)
    cut = [plane[rows, columns].copy() for plane in planes]
    image = stack.image(index)[rows, columns]
    return View(result, image, cut[0], cut[1], cut[2], ijk_to_ras[:3, [y_axis, x_axis]].T)


def _span(found: np.ndarray) -> slice:
    """Reach from the first to the last that is found, with a margin."""
    places = np.flatnonzero(found)
    margin = int(_MARGIN * (places[-1] - places[0] + 1)) + 8
    return slice(max(int(places[0]) - margin, 0), int(places[-1]) + 1 + margin)
