"""The verdict on a tuned model in one sentence, which may be that it is of no use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from MedSAMSlicerLib.evaluation.bootstrap import Difference
from MedSAMSlicerLib.evaluation.response import BoxResponse

# If a model is no better than another one, all of four patients still seem better with a chance of 1 in 16, of five
# with 1 in 32: with fewer, nothing would be below the usual 5 %.
LEAST_PATIENTS = 5
# A model that responds to its box less than half as well as before does not do what its user says.
_LEAST_RESPONSE = 0.5


@dataclass(frozen=True)
class Verdict:
    """Tell whether a tuned model is to be used.

    :param outcome: "better", "no difference", "not better" or "too few".
    :param text: a sentence for the user.
    """

    outcome: str
    text: str


def judge(
    dice: Difference,
    surface_dice: Difference,
    responses: tuple[BoxResponse, BoxResponse] | None = None,
    others: Sequence[tuple[str, Difference]] = (),
) -> Verdict:
    """Judge a tuned model by held-out patients.

    :param dice: of the tuned model and its base model, from one 3-D box; ``surface_dice`` likewise.
    :param responses: of the base model and the tuned one to their boxes; None where it could not be measured.
    :param others: from other boxes, what they are called and the Dice.
    """
    count = dice.count
    if responses:
        before, after = (response.value for response in responses)
        if before > 0 and after < _LEAST_RESPONSE * before:
            return Verdict(
                "not better",
                f"Not better: do not use it. It hardly responds to its box any more ({after:.2f}, was {before:.2f}).",
            )
    if count < LEAST_PATIENTS:
        return Verdict(
            "too few",
            f"Too few held-out patients to tell: {count}, and {LEAST_PATIENTS} are needed. "
            f"Dice changes by {dice} in them.",
        )
    found = f"{dice} in {count} held-out patients"
    if dice.upper < 0:
        return Verdict("not better", f"Not better: do not use it. Dice changes by {found}.")
    if surface_dice.upper < 0:
        return Verdict(
            "not better", f"Not better: do not use it. Surface Dice changes by {surface_dice}, Dice by {found}."
        )
    for box, other in others:
        if other.upper < 0:
            text = f"Not better: do not use it. From {box} Dice changes by {other}, from one 3-D box by {found}."
            return Verdict("not better", text)
    if dice.lower > 0:
        return Verdict("better", f"Better: Dice changes by {found}.")
    return Verdict("no difference", f"No difference shown: Dice changes by {found}.")
