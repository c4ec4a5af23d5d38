"""One structure of a task: what is computed of it, and the segment that it goes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from MedSAMSlicerLib.mrml.pending import PendingSlices
from MedSAMSlicerLib.mrml.segment_state import PackedMask, SegmentState, stamp
from MedSAMSlicerLib.mrml.segments import SegmentWriter, union
from MedSAMSlicerLib.mrml.structure import Structure
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.slice_masks import Outcome, SliceMask
from MedSAMSlicerLib.volume.slice_stack import SliceStack


@dataclass
class Part:
    """One structure: what is computed, and once its first slice is there, where it goes."""

    structure: Structure
    stack: SliceStack
    boxes: Mapping[int, Box]
    keys: tuple[KeySlice, ...]
    results: dict[int, SliceMask]
    outcome: Outcome = field(default_factory=Outcome)
    first: int | None = None
    propagation: str = ""
    segment_id: str | None = None
    writer: SegmentWriter | None = None
    pending: PendingSlices | None = None
    before: SegmentState | None = None
    held: PackedMask | None = None
    name: str = ""
    stamp: tuple[object, ...] = ()

    @property
    def corrects(self) -> bool:
        """Return whether a segment that is there is corrected, which is done in whole or not at all."""
        return self.structure.segment_id is not None and bool(self.structure.key_slices)

    def written(self) -> PackedMask:
        """Return what was written to the segment."""
        assert self.writer is not None
        return PackedMask.of(union(self.writer.written or ()))

    def settle(self) -> None:
        """Take the segment for what this task has made of it."""
        assert self.writer is not None
        self.stamp = stamp(self.writer.segmentation, self.writer.segment_id)

    def untouched(self) -> bool:
        """Return whether the segment holds what this task has written, or held before, and nothing else."""
        if self.writer is None or stamp(self.writer.segmentation, self.writer.segment_id) == self.stamp:
            return True
        if self.held is not None:
            expected = self.held
        elif self.writer.written is not None or self.before is None:
            expected = self.written()
        else:
            expected = self.before.mask
        state = SegmentState.of(self.writer.segmentation, self.writer.segment_id)
        if state is None or not state.mask.equals(expected):
            return False
        self.settle()
        return True
