"""Plain models of the two histories of a segmentation: the module's own, and the Segment Editor's."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np


@dataclass
class Held:
    """What a segment must be called and hold: bool (K, J, I), in the segmentation's voxels with a margin around."""

    name: str
    mask: np.ndarray


Segments = dict[str, Held]
# What a step did: by segment, what it held before and what after; None where it was not there.
Step = dict[str, tuple[Held | None, Held | None]]


class EditorHistory:
    """What `vtkSegmentationHistory` keeps: whole segmentations, set back as a whole."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.states: list[Segments] = []
        self.last = 0

    def save(self, now: Segments) -> None:
        if self.last < len(self.states):
            return
        self.states.append(copy.deepcopy(now))
        self.last = len(self.states) - 1
        while len(self.states) > self.length:
            self.states.pop(0)
            self.last -= 1

    def modified(self) -> None:
        del self.states[self.last + 1 :]
        self.last = len(self.states)

    def undo(self, now: Segments) -> Segments | None:
        if self.last < 1:
            return None
        target = self.last - 1
        if len(self.states) == self.last:
            self.save(now)
            target = len(self.states) - 2
        self.last = target
        return copy.deepcopy(self.states[target])

    def redo(self, now: Segments) -> Segments | None:
        if self.last + 1 >= len(self.states):
            return None
        self.last += 1
        return copy.deepcopy(self.states[self.last])


class ModuleHistory:
    """What the module's undo must do: take back what a run wrote where nobody has changed it since."""

    LENGTH = 10

    def __init__(self) -> None:
        self.done: list[Step] = []
        self.undone: list[Step] = []

    def push(self, step: Step) -> None:
        self.done = [*self.done, step][-self.LENGTH :]
        self.undone = []

    def undoable(self, now: Segments) -> list[str] | None:
        """List the segments that an undo must change; None where no step is left."""
        return _free(self.done, now)

    def redoable(self, now: Segments) -> list[str] | None:
        return _free(self.undone, now)

    def undo(self, now: Segments) -> Segments:
        return _revert(self.done, self.undone, now)

    def redo(self, now: Segments) -> Segments:
        return _revert(self.undone, self.done, now)


def _last(steps: list[Step], now: Segments) -> Step | None:
    """Return the last step of which anything is left."""
    return next(
        (step for step in reversed(steps) if any(new is None or each in now for each, (_, new) in step.items())), None
    )


def _free(steps: list[Step], now: Segments) -> list[str] | None:
    step = _last(steps, now)
    return None if step is None else [each for each, (old, new) in step.items() if _is_as_left(now.get(each), old, new)]


def _is_as_left(held: Held | None, old: Held | None, new: Held | None) -> bool:
    if held is None or new is None:
        return held is new is None
    return np.array_equal(held.mask, new.mask) and (old is not None or held.name == new.name)


def _revert(steps: list[Step], inverted: list[Step], now: Segments) -> Segments:
    step, free = _last(steps, now), _free(steps, now)
    assert step is not None
    assert free
    del steps[next(index for index, each in enumerate(steps) if each is step) :]
    then = copy.deepcopy(now)
    for segment_id in free:
        old = step[segment_id][0]
        if old is None:
            del then[segment_id]
        else:
            then[segment_id] = Held(then[segment_id].name if segment_id in then else old.name, old.mask.copy())
    inverted.append({each: (now.get(each), step[each][0]) for each in free})
    return then
