"""The runs on a segmentation that can be taken back, and nothing that others did to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import slicer

from MedSAMSlicerLib.mrml.segment_state import PackedMask, SegmentState, stamp
from MedSAMSlicerLib.mrml.segments import require_labelmaps


@dataclass(frozen=True, eq=False)
class Edit:
    """What one run did: what each of its segments held before (None: it was not there), and what it holds since."""

    before: Mapping[str, SegmentState | None]
    after: Mapping[str, SegmentState | None]


@dataclass(frozen=True)
class Undone:
    """What an undo or a redo did; false if there was nothing to do.

    :param names: of the segments that it changed.
    :param left: why other segments of the run stay as they are; empty if there are none.
    :param segment_ids: of the segments that it changed.
    """

    names: tuple[str, ...] = ()
    left: str = ""
    segment_ids: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.names)


class History:
    """Takes the runs on one segmentation back, the last one first, and brings them again.

    A segment is touched only while it holds exactly what the run has left there: one that was edited, renamed or
    deleted since stays so. (`vtkSegmentationHistory`, which the Segment Editor uses, sets the whole segmentation back,
    with everything that was done elsewhere.)
    """

    # As many as the module Segment Editor keeps states.
    LENGTH = 10

    def __init__(self, segmentation: slicer.vtkMRMLSegmentationNode) -> None:
        self._segmentation = segmentation
        self._done: list[Edit] = []
        self._undone: list[Edit] = []
        # By segment: at which stamp it was compared with which mask, and whether it held that.
        self._compared: dict[str, tuple[tuple[object, ...], PackedMask, bool]] = {}

    def add(self, edit: Edit) -> None:
        """Remember a run that is complete; what was undone can't be brought back any more."""
        self._done = [*self._done, edit][-self.LENGTH :]
        self._undone = []
        for segment_id, state in edit.after.items():
            if state is not None:
                self._compared[segment_id] = (stamp(self._segmentation, segment_id), state.mask, True)

    def left(self, segment_id: str) -> SegmentState | None:
        """Return what the last run has left in a segment; None if it has not changed it."""
        return self._done[-1].after.get(segment_id) if self._done else None

    def undoable(self) -> Undone:
        """Tell what `undo` would do; without names, ``left`` says why it can do nothing."""
        return self._outlook(self._done, "The last segmentation can't be undone")

    def redoable(self) -> Undone:
        """Tell what `redo` would do, see `undoable`."""
        return self._outlook(self._undone, "What was undone can't be brought back")

    def undo(self) -> Undone:
        """Take the last run back, see `SegmentationSession.undo`."""
        return self._revert(self._done, self._undone, self.undoable)

    def redo(self) -> Undone:
        """Bring back what was undone last, see `SegmentationSession.redo`."""
        return self._revert(self._undone, self._done, self.redoable)

    def _outlook(self, edits: list[Edit], refusal: str) -> Undone:
        edit = self._last(edits)
        if edit is None:
            return Undone()
        try:
            require_labelmaps(self._segmentation)
        except ValueError as error:
            return Undone(left=str(error))
        names, ids, told = [], [], []
        for segment_id in edit.after:
            obstacle = self._obstacle(edit, segment_id)
            if obstacle is None:
                names.append(self._name(edit, segment_id))
                ids.append(segment_id)
            else:
                told.append(f"the segment {self._name(edit, segment_id)!r} was {obstacle}")
        if not told:
            return Undone(tuple(names), segment_ids=tuple(ids))
        since = f"{', '.join(told)} since"
        return Undone(tuple(names), f"Left as it is: {since}." if names else f"{refusal}: {since}.", tuple(ids))

    def _revert(self, edits: list[Edit], inverted: list[Edit], outlook: Callable[[], Undone]) -> Undone:
        # Asked of the voxels: a script may have written to them without a word.
        self._compared.clear()
        told, edit = outlook(), self._last(edits)
        if told.left and not told:
            raise ValueError(told.left)
        if edit is None:
            return told
        del edits[edits.index(edit) :]
        free = [segment_id for segment_id in edit.after if self._obstacle(edit, segment_id) is None]
        was = {segment_id: SegmentState.of(self._segmentation, segment_id) for segment_id in free}
        for segment_id in free:
            target = edit.before[segment_id]
            if target is None:
                self._segmentation.GetSegmentation().RemoveSegment(segment_id)
            else:
                target.put(self._segmentation, segment_id)
        inverted.append(Edit(before=was, after={segment_id: edit.before[segment_id] for segment_id in free}))
        return told

    def _last(self, edits: list[Edit]) -> Edit | None:
        """Return the last edit of which anything is left: not all of its segments were deleted since."""
        content = self._segmentation.GetSegmentation()
        return next(
            (
                edit
                for edit in reversed(edits)
                if any(state is None or content.GetSegment(each) for each, state in edit.after.items())
            ),
            None,
        )

    def _name(self, edit: Edit, segment_id: str) -> str:
        segment = self._segmentation.GetSegmentation().GetSegment(segment_id)
        state = edit.before[segment_id] or edit.after[segment_id]
        return segment.GetName() if segment is not None or state is None else state.name

    def _obstacle(self, edit: Edit, segment_id: str) -> str | None:
        """Say what was done to a segment since an edit; None if it is as the edit has left it."""
        segment = self._segmentation.GetSegmentation().GetSegment(segment_id)
        left, target = edit.after[segment_id], edit.before[segment_id]
        if segment is None:
            return None if left is None else "deleted"
        if left is None:
            return "brought back"
        if not self._holds(segment_id, left.mask):
            return "edited"
        # Only with the segment its name would be lost.
        return "renamed" if target is None and segment.GetName() != left.name else None

    def _holds(self, segment_id: str, mask: PackedMask) -> bool:
        now = stamp(self._segmentation, segment_id)
        known = self._compared.get(segment_id)
        if known is None or known[:2] != (now, mask):
            state = SegmentState.of(self._segmentation, segment_id)
            known = (now, mask, state is not None and state.mask.equals(mask))
            self._compared[segment_id] = known
        return known[2]
