"""What an epoch is judged by: held-out cases as users segment them, old strengths, the response to the box."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from MedSAMSlicerLib.dataset.case import LoadedCase
from MedSAMSlicerLib.evaluation.bootstrap import paired_difference
from MedSAMSlicerLib.evaluation.response import BoxResponse, box_response
from MedSAMSlicerLib.evaluation.scores import FOUND_FROM, ONE_SLICE, PER_SLICE, TIGHT, Score, score_case, stack_of
from MedSAMSlicerLib.inference.predictor import Predictor
from MedSAMSlicerLib.loading import predictor_of
from MedSAMSlicerLib.model import Network
from MedSAMSlicerLib.training.distributed import Team
from MedSAMSlicerLib.training.embeddings import StoredEmbeddings
from MedSAMSlicerLib.training.recipe import Recipe
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache

# What the Dice from a kind of box is called in the log.
DICE_OF = {TIGHT: "dice", ONE_SLICE: "one_slice_dice", PER_SLICE: "per_slice_dice"}


@dataclass(frozen=True)
class Standing:
    """What must not get lost, of one model.

    :param strengths: Dice on the sample cases, by what it was found from; empty without them.
    :param response: to the box; None where no structure is large enough to measure it.
    """

    strengths: dict[str, float]
    response: BoxResponse | None


class Validation:
    """Judge models on structures of patients they were not trained on, taken from as many cases and labels as possible.

    :param folds: of each the held-out cases; its model is judged by these.
    :param base: the model that others must not fall behind.
    :param known: the sample cases; none to do without this guard.
    :param embeddings: of the base model's image encoder, where it stays as it is; None where it is trained.
    :param between: called before every structure; may raise to give up.
    ``before`` holds what `figures` said of the base model, once somebody has put it there.
    """

    def __init__(
        self,
        folds: Sequence[Sequence[LoadedCase]],
        base: Network,
        recipe: Recipe,
        team: Team,
        known: Sequence[LoadedCase],
        embeddings: StoredEmbeddings | None,
        between: Callable[[], object] = lambda: None,
    ) -> None:
        self.folds = [
            [thinned(structure, recipe.validated_slices) for structure in spread(cases, _share(cases, folds, recipe))]
            for cases in folds
        ]
        guarded = spread(known, recipe.guarded_structures)
        self._known = [thinned(structure, recipe.validated_slices) for structure in guarded]
        self._recipe, self._team = recipe, team
        self._embeddings, self._between = embeddings, between
        self._base = base
        self.before: dict[str, Any] = {}

    @property
    def guarded(self) -> bool:
        """Whether there are sample cases to see what a model has forgotten."""
        return bool(self._known)

    @cached_property
    def _standing_of_base(self) -> Standing:
        return self._standing(copy.deepcopy(self._base))

    def figures(self, model_of: Callable[[int], Network]) -> dict[str, Any]:
        """Measure the mean Dice from every kind of box, and the surface Dice (2 mm) from one 3-D box.

        The score is the mean of all Dices: of few structures, the propagation from one box alone says too little. Each
        patient counts the same; ``patients`` has their scores, ``patients_dice`` their Dice by kind of box.

        :param model_of: gives the model of a fold, prepared for inference by this.
        """
        patient_of: dict[str, str] = {}
        scores: list[Score] = []
        for fold, structures in enumerate(self.folds):
            patient_of |= {structure.case.id: structure.case.patient for structure in structures}
            scores += self._scores(model_of(fold), structures)
        patients = {
            patient: _means([score for score in scores if patient_of[score.case_id] == patient])
            for patient in sorted(set(patient_of.values()))
        }
        figures = {
            f"validation_{name}": float(np.mean([means[name] for means in patients.values()]))
            for name in (*DICE_OF.values(), "surface_dice")
        }
        by_box = {box: {patient: means[name] for patient, means in patients.items()} for box, name in DICE_OF.items()}
        each = {patient: float(np.mean([by_box[box][patient] for box in DICE_OF])) for patient in patients}
        score = float(np.mean(list(each.values())))
        return {**figures, "validation_score": score, "patients": each, "patients_dice": by_box}

    def scored(self, model: Network, structures: Sequence[LoadedCase]) -> dict[str, float]:
        """Segment structures: the mean figures, named as in the log; the processes share the work."""
        return _means(self._scores(model, structures))

    def _scores(self, model: Network, structures: Sequence[LoadedCase]) -> list[Score]:
        predictor, cache = self._predictor(model), self._cache()
        mine: list[Score] = []
        for structure in self._team.share(structures):
            self._between()
            mine += score_case(structure, predictor, cache)
        # In the order of one process, so that the same numbers are added in the same order.
        everybody = itertools.chain.from_iterable(self._team.gather(mine))
        return sorted(everybody, key=lambda score: (score.case_id, score.label, score.box))

    def objection(self, figures: dict[str, Any], model: Network) -> str:
        """Say why a model can't be the best, whatever its score; empty if it can.

        From a kind of box, a patient who was held out loses more than the recipe's tolerance, or all of them lose on
        average: what is gained from one kind of box is no use to whoever draws the other. Or the
        gain may be chance: the 95 % interval of the mean score over the patients reaches below 0, so that of few
        patients nobody may lose. Or it has forgotten what the base model could: its Dice on the sample cases fell by
        more than the recipe's tolerance. Or it is deaf to its box: the response is less than the recipe's share of the
        base model's.

        :param figures: of the folds' models, see `figures`; ``model`` the one that is made of them.
        """
        recipe, scores = self._recipe, self.before["patients"]
        for box, known in self.before["patients_dice"].items():
            found = figures["patients_dice"][box]
            worst = min(known, key=lambda patient: found[patient] - known[patient])
            if found[worst] < known[worst] - recipe.patient_tolerance:
                return (
                    f"loses on {worst}: Dice from {FOUND_FROM[box]} {found[worst]:.3f}, base model {known[worst]:.3f}"
                )
            mean, mean_before = (float(np.mean(list(each.values()))) for each in (found, known))
            if mean < mean_before:
                return f"loses: mean Dice from {FOUND_FROM[box]} {mean:.3f}, base model {mean_before:.3f}"
        if paired_difference(*([each[name] for name in scores] for each in (scores, figures["patients"]))).lower < 0:
            return "the gain may be chance"
        now, before = self._standing(model), self._standing_of_base
        for box, dice in before.strengths.items():
            if now.strengths[box] < dice - recipe.guard_tolerance:
                fallen = f"{now.strengths[box]:.3f}, base model {dice:.3f}"
                return f"forgets: Dice on the sample cases from {FOUND_FROM[box]} {fallen}"
        if now.response is not None and before.response is not None:
            if 0 < before.response.follows * recipe.least_response > now.response.follows:
                return f"deaf to its box: response {now.response.follows:.3f}, base model {before.response.follows:.3f}"
            if now.response.finds < min(before.response.finds, 0.0):
                return f"fills its box: {now.response.finds:.3f}, base model {before.response.finds:.3f}"
        return ""

    def _standing(self, model: Network) -> Standing:
        predictor, cache = self._predictor(model), self._cache()
        known = self.scored(model, self._known) if self._known else {}
        strengths = {box: known[name] for box, name in DICE_OF.items() if known}
        try:
            return Standing(strengths, box_response(itertools.chain(*self.folds), predictor, cache))
        except ValueError:
            return Standing(strengths, None)

    def _predictor(self, model: Network) -> Predictor:
        return predictor_of(model, str(self._team.device))

    def _cache(self) -> EmbeddingCache:
        return EmbeddingCache(found_budget=0) if self._embeddings is None else self._embeddings


def spread(cases: Sequence[LoadedCase], most: int) -> list[LoadedCase]:
    """Choose structures, one label each: of every patient one, then of every patient the next one, and so on."""
    turns: Counter[str] = Counter()
    ranked: list[tuple[int, int, LoadedCase]] = []
    rounds = max((len(loaded.labels) for loaded in cases), default=0)
    for turn in range(rounds):
        for number, loaded in enumerate(cases):
            names = sorted(loaded.labels)
            if turn < len(names):
                name = names[(turn + number) % len(names)]
                patient = loaded.case.patient
                ranked.append((turns[patient], len(ranked), replace(loaded, labels={name: loaded.labels[name]})))
                turns[patient] += 1
    return [structure for _, _, structure in sorted(ranked, key=lambda each: each[:2])][:most]


def thinned(loaded: LoadedCase, most: int) -> LoadedCase:
    """Leave out slices of a case, every other one or more, until no label is in more than so many of them.

    What is left is the case as a scanner with a larger spacing gives it, with the window of the whole volume.
    """
    stack = stack_of(loaded)
    across = tuple(axis for axis in range(3) if axis != 2 - stack.axis)
    count = max(int(mask.any(axis=across).sum()) for mask in loaded.labels.values())
    step = -(-count // most)
    if step == 1:
        return loaded
    kept = tuple(slice(None, None, step if axis == 2 - stack.axis else 1) for axis in range(3))
    matrix = loaded.volume.ijk_to_ras.copy()
    matrix[:, stack.axis] *= step
    volume = replace(loaded.volume, voxels=loaded.volume.voxels[kept].copy(), ijk_to_ras=matrix)
    labels = {name: mask[kept].copy() for name, mask in loaded.labels.items()}
    return replace(loaded, volume=volume, labels=labels, window=stack.range)


def _share(cases: Sequence[LoadedCase], folds: Sequence[Sequence[LoadedCase]], recipe: Recipe) -> int:
    """Compute how many structures of a fold are segmented: its share of all, at least one of every patient."""
    return max(recipe.validated_structures // len(folds), len({loaded.case.patient for loaded in cases}))


def _means(scores: Sequence[Score]) -> dict[str, float]:
    dice = {name: float(np.mean([score.dice for score in scores if score.box == box])) for box, name in DICE_OF.items()}
    return {**dice, "surface_dice": float(np.mean([score.surface_dice for score in scores if score.box == TIGHT]))}
