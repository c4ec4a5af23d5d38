"""The report on a tuned model: its figures as JSON; `page` shows the same to a reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from MedSAMSlicerLib.evaluation.comparison import Comparison
from MedSAMSlicerLib.evaluation.scores import FOUND_FROM, ONE_SLICE, PER_SLICE, TIGHT

# Figure of `Agreement`, box, and what it is called.
FIGURES = (
    ("dice", TIGHT, "Dice, one 3-D box"),
    ("surface_dice", TIGHT, "Surface Dice (2 mm), one 3-D box"),
    ("dice", ONE_SLICE, "Dice, a box on one slice"),
    ("dice", PER_SLICE, "Dice, a box in every slice"),
)


@dataclass(frozen=True)
class Specialist:
    """What a network reaches on the same test cases that was trained for their labels alone and is given no box.

    :param dice: (case id, label) -> Dice.
    :param seconds: that it was trained for.
    """

    dice: Mapping[tuple[str, str], float]
    seconds: float


@dataclass(frozen=True)
class Report:
    """All that a report tells.

    :param base: the name of the base model; ``tuned`` that of the tuned one, not a path.
    :param log: of the training run, one object per epoch; empty where it is not known.
    :param card: what was saved with the tuned model.
    :param specialist: None unless somebody has asked for it.
    """

    base: str
    tuned: str
    comparison: Comparison
    log: Sequence[dict[str, Any]] = ()
    card: Mapping[str, Any] = field(default_factory=dict)
    specialist: Specialist | None = None

    def beside(self) -> str:
        """Say what the promptable models are worth beside the specialist, on the structures that it was trained for."""
        if self.specialist is None:
            return ""
        values: dict[str, dict[str, list[float]]] = {}
        for result in self.comparison.results:
            dice = self.specialist.dice.get((result.case_id, result.label))
            if dice is not None:
                patient = values.setdefault(result.patient, {})
                for name, value in (
                    ("specialist", dice),
                    (f"before {result.box}", result.before.dice),
                    (f"after {result.box}", result.after.dice),
                ):
                    patient.setdefault(name, []).append(value)
        trained = f"A small U-Net, trained on the same cases for {self.specialist.seconds / 60:.1f} minutes"
        if not values:
            return f"{trained}, has met none of the labels of the test cases."
        means = {
            name: np.mean([np.mean(patient[name]) for patient in values.values()])
            for name in next(iter(values.values()))
        }
        prompted = ", ".join(
            f"{means[f'after {box}']:.3f} from {name} ({self.base} {means[f'before {box}']:.3f})"
            for box, name in FOUND_FROM.items()
        )
        return (
            f"{trained} and given no box: Dice {means['specialist']:.3f} on the same patients; {self.tuned} {prompted}."
        )

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON can hold it; pictures are left out."""
        comparison = self.comparison
        verdict = comparison.verdict()
        responses = comparison.responses
        return {
            "format": "MedSAMSlicer report",
            "version": 1,
            "verdict": asdict(verdict),
            "base": self.base,
            "tuned": self.tuned,
            "patients": len(comparison.patients),
            "all_labels": self._figures(None),
            "labels": {label: self._figures(label) for label in comparison.labels},
            "box_response": dict(zip(("before", "after"), map(asdict, responses), strict=True)) if responses else None,
            "results": [asdict(result) for result in comparison.results],
            "specialist": self._specialist(),
            "log": list(self.log),
            "card": dict(self.card),
        }

    def _specialist(self) -> dict[str, Any] | None:
        if self.specialist is None:
            return None
        results = [
            {"case_id": case, "label": label, "dice": dice} for (case, label), dice in self.specialist.dice.items()
        ]
        return {"text": self.beside(), "seconds": self.specialist.seconds, "results": results}

    def _figures(self, label: str | None) -> list[dict[str, Any]]:
        rows = []
        for figure, box, _ in FIGURES:
            before, after = self.comparison.means(figure, box, label)
            difference = asdict(self.comparison.difference(figure, box, label))
            rows.append({"figure": figure, "box": box, "before": before, "after": after, "difference": difference})
        return rows
