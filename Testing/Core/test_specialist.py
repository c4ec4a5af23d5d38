"""The specialist beside a tuned model: a U-Net that is given no box."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from made_up_site import made_up_site
from MedSAMSlicerLib.training import specialist
from MedSAMSlicerLib.training.specialist import train_specialist


@pytest.fixture
def cases(tmp_path):
    dataset = made_up_site(tmp_path / "site")
    return [dataset.load(case) for case in dataset.cases]


def test_it_learns_a_label_without_a_box_until_the_time_is_over(cases, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(specialist.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(specialist, "_SIDE", 48)
    shares = []
    found = train_specialist(cases[:3], cases[3:], 60.0, device="cpu", progress=shares.append)
    assert set(found.dice) == {("case-0004", "bright"), ("case-0004", "inner")}
    # The block fills most of its slices, but one slice of three is empty: everything marked gives 0.71.
    assert found.dice["case-0004", "bright"] > 0.77
    assert len(shares) == 60
    assert found.seconds == 61


def test_a_label_that_nobody_has_trained_on_is_left_out(cases):
    test = replace(cases[3], labels={"bright": cases[3].labels["bright"], "other": cases[3].labels["inner"]})
    found = train_specialist(cases[:1], [test], 0.0, device="cpu")
    assert set(found.dice) == {("case-0004", "bright")}


def test_without_a_case_to_train_on_it_says_so(cases):
    with pytest.raises(ValueError, match="no case to train the specialist on: assign patients to the training"):
        train_specialist([], cases, 1.0)
