"""What an epoch is judged by: held-out cases as users segment them, old strengths, the response to the box."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from MedSAMSlicerLib.dataset.case import LoadedCase
from MedSAMSlicerLib.evaluation.response import BoxResponse, box_response
from MedSAMSlicerLib.evaluation.scores import PER_SLICE, Score, score_case
from MedSAMSlicerLib.inference.predictor import Predictor
from MedSAMSlicerLib.loading import predictor_of
from MedSAMSlicerLib.model import Network
from MedSAMSlicerLib.training.distributed import Team
from MedSAMSlicerLib.training.embeddings import StoredEmbeddings
from MedSAMSlicerLib.training.recipe import Recipe
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache

_FOUND_FROM = {"one 3-D box": "dice", "a box per slice": "slice_dice"}


@dataclass(frozen=True)
class Standing:
    """What must not get lost, of one model.

    :param strengths: Dice on the sample cases, by what it was found from; empty without them.
    :param response: to the box; None where no structure is large enough to measure it.
    """

    strengths: dict[str, float]
    response: BoxResponse | None


class Validation:
    """Judge models on a few structures of held-out cases, taken from as many cases and labels as possible.

    :param cases: of the validation split.
    :param base: the model that others must not fall behind.
    :param known: the sample cases; none to do without this guard.
    :param embeddings: of the base model's image encoder, where it stays as it is; None where it is trained.
    :param between: called before every structure; may raise to give up.
    """

    def __init__(
        self,
        cases: Sequence[LoadedCase],
        base: Network,
        recipe: Recipe,
        team: Team,
        known: Sequence[LoadedCase],
        embeddings: StoredEmbeddings | None,
        between: Callable[[], object] = lambda: None,
    ) -> None:
        self.structures = spread(cases, recipe.validated_structures)
        self._known = spread(known, recipe.guarded_structures)
        self._recipe, self._team = recipe, team
        self._embeddings, self._between = embeddings, between
        self._base = base

    @property
    def guarded(self) -> bool:
        """Whether there are sample cases to see what a model has forgotten."""
        return bool(self._known)

    @cached_property
    def _standing_of_base(self) -> Standing:
        return self._standing(copy.deepcopy(self._base))

    def figures(self, model: Network) -> dict[str, float]:
        """Measure the mean Dice and surface Dice (2 mm) from one tight 3-D box, and the Dice from a box per slice.

        The score is the mean of both Dices: of few structures, the propagation of one 3-D box alone says too little.

        :param model: prepared for inference by this.
        """
        figures = {f"validation_{name}": figure for name, figure in self.scored(model, self.structures).items()}
        return {**figures, "validation_score": (figures["validation_dice"] + figures["validation_slice_dice"]) / 2}

    def scored(self, model: Network, structures: Sequence[LoadedCase]) -> dict[str, float]:
        """Segment structures: mean ``dice``, ``surface_dice`` and ``slice_dice``; the processes share the work."""
        predictor, cache = self._predictor(model), self._cache()
        mine: list[Score] = []
        for structure in self._team.share(structures):
            self._between()
            mine += score_case(structure, predictor, cache)
        # In the order of one process, so that the same numbers are added in the same order.
        everybody = itertools.chain.from_iterable(self._team.gather(mine))
        scores = sorted(everybody, key=lambda score: (score.case_id, score.label, score.box))
        whole = [score for score in scores if score.box != PER_SLICE]
        return {
            "dice": float(np.mean([score.dice for score in whole])),
            "surface_dice": float(np.mean([score.surface_dice for score in whole])),
            "slice_dice": float(np.mean([score.dice for score in scores if score.box == PER_SLICE])),
        }

    def objection(self, model: Network) -> str:
        """Say why a model can't be the best, whatever its Dice; empty if it can.

        It has forgotten what the base model could: its Dice on the sample cases, from one 3-D box or from a box per
        slice, fell by more than the recipe's tolerance. Or it is deaf to its box: the response is less than the
        recipe's share of the base model's.
        """
        now, before, recipe = self._standing(model), self._standing_of_base, self._recipe
        for box, dice in before.strengths.items():
            if now.strengths[box] < dice - recipe.guard_tolerance:
                return f"forgets: Dice on the sample cases from {box} {now.strengths[box]:.3f}, base model {dice:.3f}"
        if now.response is not None and before.response is not None:
            if 0 < before.response.follows * recipe.least_response > now.response.follows:
                return f"deaf to its box: response {now.response.follows:.3f}, base model {before.response.follows:.3f}"
            if now.response.finds < min(before.response.finds, 0.0):
                return f"fills its box: {now.response.finds:.3f}, base model {before.response.finds:.3f}"
        return ""

    def _standing(self, model: Network) -> Standing:
        predictor, cache = self._predictor(model), self._cache()
        known = self.scored(model, self._known) if self._known else {}
        strengths = {box: known[figure] for box, figure in _FOUND_FROM.items() if known}
        try:
            return Standing(strengths, box_response(self.structures, predictor, cache))
        except ValueError:
            return Standing(strengths, None)

    def _predictor(self, model: Network) -> Predictor:
        return predictor_of(model, str(self._team.device))

    def _cache(self) -> EmbeddingCache:
        return EmbeddingCache() if self._embeddings is None else self._embeddings


def spread(cases: Sequence[LoadedCase], most: int) -> list[LoadedCase]:
    """Choose structures, one label each: of every case another label, then of every case the next one, and so on."""
    rounds = max((len(loaded.labels) for loaded in cases), default=0)
    chosen = []
    for turn in range(rounds):
        for number, loaded in enumerate(cases):
            names = sorted(loaded.labels)
            if turn < len(names):
                name = names[(turn + number) % len(names)]
                chosen.append(replace(loaded, labels={name: loaded.labels[name]}))
    return chosen[:most]
