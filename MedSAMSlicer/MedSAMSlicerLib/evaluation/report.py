"""The report on a tuned model: its figures as JSON; `page` shows the same to a reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from MedSAMSlicerLib.evaluation.comparison import TIGHT, Comparison
from MedSAMSlicerLib.evaluation.scores import PER_SLICE

# Figure of `Agreement`, box, and what it is called.
FIGURES = (
    ("dice", TIGHT, "Dice, one 3-D box"),
    ("surface_dice", TIGHT, "Surface Dice (2 mm), one 3-D box"),
    ("dice", PER_SLICE, "Dice, a box in every slice"),
)


@dataclass(frozen=True)
class Report:
    """All that a report tells.

    :param base: the name of the base model; ``tuned`` that of the tuned one, not a path.
    :param log: of the training run, one object per epoch; empty where it is not known.
    :param card: what was saved with the tuned model.
    """

    base: str
    tuned: str
    comparison: Comparison
    log: Sequence[dict[str, Any]] = ()
    card: Mapping[str, Any] = field(default_factory=dict)

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
            "log": list(self.log),
            "card": dict(self.card),
        }

    def _figures(self, label: str | None) -> list[dict[str, Any]]:
        rows = []
        for figure, box, _ in FIGURES:
            before, after = self.comparison.means(figure, box, label)
            difference = asdict(self.comparison.difference(figure, box, label))
            rows.append({"figure": figure, "box": box, "before": before, "after": after, "difference": difference})
        return rows
