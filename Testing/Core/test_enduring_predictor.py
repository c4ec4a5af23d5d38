"""A graphics card whose memory is full ends no computation."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from MedSAMSlicerLib.inference import device
from MedSAMSlicerLib.inference.enduring_predictor import EnduringPredictor

FULL = "CUDA out of memory. Tried to allocate 20.00 MiB."


class Workspace:
    """What a failed call has allocated."""


@dataclass
class Card:
    """A predictor on a device that is full for a number of calls."""

    device: str
    full: int = 0
    error: Exception = field(default_factory=lambda: torch.OutOfMemoryError(FULL))
    calls: list[Any] = field(default_factory=list)
    held: list[weakref.ref] = field(default_factory=list)
    key = "weights"

    def encode(self, image: Any) -> str:
        workspace = Workspace()
        self.held.append(weakref.ref(workspace))
        self.calls.append(image)
        if len(self.calls) <= self.full:
            raise type(self.error)(*self.error.args)
        return f"{image} on {self.device}"


@dataclass
class User:
    """Loads predictors, and notes what happens in which order."""

    card: Card
    events: list[Any] = field(default_factory=list)
    full_when_loading: int = 0

    def load(self, instead: str | None) -> Card:
        self.events.append(f"load {instead}")
        if instead is None and self.events.count("load None") <= self.full_when_loading:
            raise torch.OutOfMemoryError(FULL)
        return self.card if instead is None else Card(instead)

    def predictor(self) -> EnduringPredictor:
        return EnduringPredictor(self.load, lambda: self.events.append("forget"), self.events.append)


@pytest.fixture(autouse=True)
def given_back(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count how often PyTorch was told to give memory back, and see that the failed call holds none then."""
    times: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: times.append(1))
    return times


def test_a_device_with_enough_memory_does_all_and_says_nothing(given_back):
    user = User(Card("cuda:0"))
    assert user.predictor().encode("a slice") == "a slice on cuda:0"
    assert user.predictor().key == "weights"
    assert user.events == ["load None", "load None"]
    assert not given_back


def test_a_full_card_is_emptied_and_tried_once_more(given_back):
    user = User(Card("cuda:0", full=1))
    assert user.predictor().encode("a slice") == "a slice on cuda:0"
    assert user.events == ["load None", "forget"]
    assert given_back


def test_a_card_that_stays_full_leaves_this_and_all_further_calls_to_the_processor():
    user = User(Card("cuda:0", full=9))
    predictor = user.predictor()
    assert predictor.encode("a slice") == "a slice on cpu"
    assert predictor.encode("another") == "another on cpu"
    assert predictor.device == "cpu"
    assert user.card.calls == ["a slice", "a slice"]
    *before, told, loaded = user.events
    assert before == ["load None", "forget", "forget"]
    assert "not enough memory left: the computation goes on with the processor" in told
    assert loaded == "load cpu"


def test_nothing_of_a_failed_call_is_held_when_memory_is_given_back(monkeypatch):
    user = User(Card("cuda:0", full=9))
    alive: list[int] = []

    def look() -> None:
        alive.append(sum(each() is not None for each in user.card.held))

    monkeypatch.setattr(torch.cuda, "empty_cache", look)
    gc.disable()
    try:
        user.predictor().encode("a slice")
    finally:
        gc.enable()
    assert alive == [0, 0, 0]


def test_a_model_that_does_not_fit_is_loaded_on_the_processor():
    assert User(Card("cuda:0"), full_when_loading=1).predictor().device == "cuda:0"
    assert User(Card("cuda:0"), full_when_loading=9).predictor().device == "cpu"


def test_the_model_on_the_card_is_let_go_of_before_the_other_one_is_loaded():
    user = User(Card("cuda:0", full=9))
    predictor = user.predictor()
    gone = weakref.ref(user.card)
    load = user.load

    def loading(instead: str | None) -> Card:
        assert instead == "cpu"
        user.card = Card("none")
        assert gone() is None
        return load(instead)

    predictor._load = loading
    predictor.encode("a slice")
    assert predictor.device == "cpu"


@pytest.mark.parametrize("error", [ValueError("a bad slice"), RuntimeError("device-side assert triggered")])
def test_other_errors_are_told_at_once(error):
    user = User(Card("cuda:0", full=9, error=error))
    predictor = user.predictor()
    with pytest.raises(type(error), match=str(error)):
        predictor.encode("a slice")
    assert user.events == ["load None"]


def test_a_processor_without_memory_has_nowhere_to_go():
    user = User(Card("cpu", full=9))
    predictor = user.predictor()
    with pytest.raises(RuntimeError, match="out of memory"):
        predictor.encode("a slice")
    assert user.events == ["load None"]


def test_what_a_predictor_lacks_is_lacking():
    predictor = User(Card("cuda:0")).predictor()
    assert not hasattr(predictor, "follow")
    assert device.out_of_memory(torch.OutOfMemoryError(FULL))
