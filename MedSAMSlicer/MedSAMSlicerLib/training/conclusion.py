"""What a run has come to, in sentences for the user: what was gained on patients held out, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from MedSAMSlicerLib.evaluation.bootstrap import Difference, paired_difference, patients_to_show
from MedSAMSlicerLib.evaluation.scores import FOUND_FROM
from MedSAMSlicerLib.evaluation.verdict import LEAST_PATIENTS
from MedSAMSlicerLib.training.folds import Fold
from MedSAMSlicerLib.training.validation import DICE_OF, Validation

# The smallest gain of Dice that is worth a model of one's own.
_WORTH = 0.02

Figures = dict[str, Any]


def anonymous(figures: Figures) -> Figures:
    """Return figures without those of single patients."""
    return {name: figure for name, figure in figures.items() if name not in ("patients", "patients_dice")}


def gained(before: Figures, after: Figures) -> Difference:
    """Compare the scores of the patients who were held out; see `Validation.figures` for both."""
    patients = sorted(before["patients"])
    return paired_difference(*([figures["patients"][name] for name in patients] for figures in (before, after)))


def told(history: Sequence[Figures], validation: Validation, folds: Sequence[Fold], *, stopped: bool) -> str:
    """Say how a run has ended.

    :param history: a row per epoch, see `loop.Loop`.
    """
    before = validation.before
    best = next((row for row in reversed(history) if row["best"]), None)
    if best is None:
        if stopped:
            return "Stopped before an epoch was better than the base model: no model was written."
        return _declined(history, before, folds)
    figures = ", ".join(
        f"{before[f'validation_{name}']:.3f} to {best[f'validation_{name}']:.3f} from {FOUND_FROM[box]}"
        for box, name in DICE_OF.items()
    )
    gain = gained(before, best)
    between = "" if best["strength"] == 1 else f", weights {best['strength']:g} of the way from the base model"
    text = f"Dice {_on_whom(gain.count, folds)}: {figures} (epoch {best['epoch']}{between}). "
    if gain.count < 2:
        text += "How much other patients would gain, one patient can't tell."
    else:
        text += f"Expected gain: {gain}."
    if not validation.guarded:
        text += " The sample cases are not on this computer, so nobody has checked what was forgotten."
    return f"Stopped. {text}" if stopped else text


def _declined(history: Sequence[Figures], before: Figures, folds: Sequence[Fold]) -> str:
    """Say why there is no model, and how many patients it would take."""
    top = max(history, key=lambda row: row["validation_score"])
    gain = gained(before, top)
    reason = f"the best epoch changes the Dice by {gain}"
    if top["validation_score"] > before["validation_score"]:
        reason += f", but {top.get('objection', 'another one was no better')}"
    text = f"No model was written, go on with the base model: {_on_whom(gain.count, folds)} {reason}."
    if gain.count > 1:
        scores = [[figures["patients"][name] for name in sorted(before["patients"])] for figures in (before, top)]
        needed = max(patients_to_show(_WORTH, *scores), LEAST_PATIENTS, gain.count + 1)
        text += f" With gains that differ as much, it takes about {needed} patients to tell {_WORTH} from chance."
    return text


def _on_whom(count: int, folds: Sequence[Fold]) -> str:
    if len(folds) == 1:
        return "on the validation patient" if count == 1 else f"on {count} validation patients"
    return f"on {count} patients, each left out of training in turn"
