"""The verdict in one sentence."""

from __future__ import annotations

import pytest

from MedSAMSlicerLib.evaluation.bootstrap import Difference
from MedSAMSlicerLib.evaluation.response import BoxResponse
from MedSAMSlicerLib.evaluation.verdict import judge

BETTER, UNSURE, WORSE = (
    Difference(0.034, 0.012, 0.06, 8),
    Difference(0.004, -0.01, 0.018, 8),
    Difference(-0.034, -0.06, -0.012, 8),
)


@pytest.mark.parametrize(
    ("dice", "surface_dice", "outcome", "text"),
    [
        (BETTER, BETTER, "better", "Better: Dice changes by +0.034 (95 % interval +0.012 to +0.060) in 8 held-out"),
        (BETTER, UNSURE, "better", "Better: Dice changes by +0.034"),
        (UNSURE, UNSURE, "no difference", "No difference shown: Dice changes by +0.004 (95 % interval −0.010 to"),
        (UNSURE, BETTER, "no difference", "No difference shown"),
        (WORSE, UNSURE, "not better", "Not better: do not use it. Dice changes by −0.034"),
        (BETTER, WORSE, "not better", "Not better: do not use it. Surface Dice changes by −0.034"),
    ],
)
def test_the_verdict_says_what_the_intervals_say(dice, surface_dice, outcome, text):
    verdict = judge(dice, surface_dice)
    assert verdict.outcome == outcome
    assert verdict.text.startswith(text)
    assert verdict.text.endswith(".")


def test_a_model_that_is_worse_from_another_kind_of_box_is_not_to_be_used():
    others = [("a box on one slice", UNSURE), ("a box per slice", BETTER)]
    assert judge(BETTER, BETTER, None, others).outcome == "better"
    verdict = judge(BETTER, BETTER, None, [("a box on one slice", WORSE)])
    assert verdict.outcome == "not better"
    text = "Not better: do not use it. From a box on one slice Dice changes by −0.034 (95 % interval −0.060 to −0.012)"
    assert verdict.text.startswith(text)


def test_too_few_patients_tell_nothing_whatever_the_difference():
    for difference in (BETTER, UNSURE, WORSE):
        few = Difference(difference.mean, difference.lower, difference.upper, 4)
        verdict = judge(few, few)
        assert verdict.outcome == "too few"
        assert verdict.text.startswith("Too few held-out patients to tell: 4, and 5 are needed.")
    five = Difference(0.034, 0.012, 0.06, 5)
    assert judge(five, five).outcome == "better"


def test_a_model_that_became_deaf_to_its_box_is_not_to_be_used_however_good_its_dice_is():
    good, deaf = BoxResponse(0.58, 0.67), BoxResponse(0.05, 0.9)
    verdict = judge(BETTER, BETTER, (good, deaf))
    assert verdict.outcome == "not better"
    assert verdict.text == "Not better: do not use it. It hardly responds to its box any more (0.05, was 0.58)."
    filler = BoxResponse(0.7, 0.0)
    assert judge(BETTER, BETTER, (good, filler)).outcome == "not better"
    assert judge(BETTER, BETTER, (good, BoxResponse(0.45, 0.6))).outcome == "better"
    # A base model that never listened can't be lost to.
    assert judge(BETTER, BETTER, (BoxResponse(-0.1, 0.5), BoxResponse(-0.08, 0.5))).outcome == "better"
