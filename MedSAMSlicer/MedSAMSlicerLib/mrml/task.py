"""Structures that are being segmented: computed in any thread, written to their segments in the main one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import slicer
import slicer.util

from MedSAMSlicerLib.mrml.editing_rules import apply_editing_rules, cut_told, gives_way
from MedSAMSlicerLib.mrml.history import Edit
from MedSAMSlicerLib.mrml.part import Part
from MedSAMSlicerLib.mrml.pending import PendingSlices
from MedSAMSlicerLib.mrml.provenance import VoxelsDigest, source_of, write_fields
from MedSAMSlicerLib.mrml.segment_state import PackedMask, SegmentState
from MedSAMSlicerLib.mrml.segments import SegmentWriter, add_segment, held_by, require_labelmaps
from MedSAMSlicerLib.mrml.structure import Structure
from MedSAMSlicerLib.mrml.volumes import ijk_to_world, voxels
from MedSAMSlicerLib.mrml.windows import window_of
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.propagation import check_propagation, propagation_for
from MedSAMSlicerLib.volume.provenance import Prompts, run_fields, volume_text
from MedSAMSlicerLib.volume.review import SliceReview, review
from MedSAMSlicerLib.volume.segmentation import segment_structure
from MedSAMSlicerLib.volume.slice_masks import Outcome, Predictor, SliceMask, middle_out
from MedSAMSlicerLib.volume.slice_stack import SliceStack


class SceneChangedError(RuntimeError):
    """The volume or the segmentation is not what it was when the segmentation began; the text says what happened."""


@dataclass(frozen=True)
class Step:
    """One slice is done: of which structure and segment, how many of how many slices, and the slice's result."""

    structure: int
    segment_id: str
    done: int
    total: int
    result: SliceMask


class SegmentationTask:
    """Everything that one segmentation needs of the scene is read when it is made.

    Then `compute` touches no node and may run in any thread; each of its results goes to `take`, and at the end comes
    `finish`, `keep` (what is done, after a stop) or `roll_back`, all in the main thread. All of it is one step of undo.

    :param save_state: called once, right before the first change of the segmentation.
    :param record: called with what the run has done to the segments, once it is done, if it has done anything.
    :param remember: called with a segment's ID and its slices for review when the segment is complete.
    :param first: the slice that the user looks at, (axis, index), axis 0 = I, 1 = J, 2 = K: a new structure begins
        there. By default it begins with its middle slice.
    :param limit: how far a structure without a 3-D box is followed to either side, in millimeters; None for no limit.
    :param editor_node: a Segment Editor's parameters, whose masking and overwrite rules hold for the result.
    :raises ValueError: if a node is missing or can't be used, a structure lies outside of the volume, or an option is
        unknown; nothing is changed then.
    """

    def __init__(
        self,
        volume: slicer.vtkMRMLVolumeNode,
        segmentation: slicer.vtkMRMLSegmentationNode,
        structures: Sequence[Structure],
        *,
        save_state: Callable[[], object],
        record: Callable[[Edit], object],
        remember: Callable[[str, list[SliceReview]], object],
        axis: str = "auto",
        window: str = "auto",
        propagation: str = "auto",
        first: tuple[int, int] | None = None,
        limit: float | None = None,
        editor_node: slicer.vtkMRMLSegmentEditorNode | None = None,
    ) -> None:
        if limit is not None and not 0 < limit < float("inf"):
            raise ValueError(f"The limit is {limit} mm: give a distance above 0, or none to follow until the end.")
        stack = SliceStack(voxels(volume), volume.GetSpacing(), axis=axis, window=window_of(volume, window))
        require_labelmaps(segmentation)
        for each in structures:
            if each.segment_id is not None and segmentation.GetSegmentation().GetSegment(each.segment_id) is None:
                raise ValueError(
                    f"The segmentation {segmentation.GetName()!r} has no segment {each.segment_id!r}: "
                    "give the ID of one, or none for a new one."
                )
        given = [each.segment_id for each in structures if each.segment_id is not None]
        if len(set(given)) < len(given):
            raise ValueError(f"Two structures are to replace the segment {given[0]!r}: give each a segment of its own.")
        check_propagation(propagation, follows=any(each.start is not None for each in structures))
        self._parts = [Part(each, *each.cut(stack, volume, any_axis=axis == "auto"), results={}) for each in structures]
        self._volume, self._segmentation = volume, segmentation
        self._save_state, self._record, self._remember = save_state, record, remember
        self._propagation, self._first, self._editor_node = propagation, first, editor_node
        self._limit, self._window = limit, window
        self._digest = VoxelsDigest(volume.GetImageData().GetPointData().GetScalars(), voxels(volume))
        self._source: Mapping[str, str] = {}
        self._saved = self._writing = False
        self._others: dict[str, SegmentState] = {}
        self._stamp = _stamp(volume)

    @property
    def segment_ids(self) -> list[str]:
        """List the segments that have received a slice so far, in the order of the structures."""
        return [part.segment_id for part in self._parts if part.segment_id is not None]

    @property
    def _overwrites(self) -> bool:
        """Return whether other segments may lose voxels to those of the task."""
        return self._editor_node is not None and gives_way(self._editor_node)

    @property
    def total(self) -> int:
        """Return how many slices there are to do, as far as that is known: more where an end has to be found."""
        return sum(max(len(each.boxes), len(each.results)) for each in self._parts)

    def compute(self, predictor: Predictor, cache: EmbeddingCache) -> Iterator[tuple[int, SliceMask]]:
        """Segment one structure after the other, slice by slice; touches no node.

        :return: pairs for `take`: which structure, and a slice of it.
        """
        self._source = source_of(predictor)
        for number, part in enumerate(self._parts):
            for result in self._compute(part, predictor, cache):
                yield number, result
                # Here it holds nobody up: the first slice is on show.
                self._digest.sha256()

    def _compute(self, part: Part, predictor: Predictor, cache: EmbeddingCache) -> Generator[SliceMask, None, None]:
        part.propagation = propagation_for(self._propagation, predictor)
        part.first = self._first_of(part, part.propagation)
        part.outcome = yield from segment_structure(
            part.stack, part.boxes, predictor, cache, part.keys, part.propagation, part.first, self._limit
        )

    @property
    def outcomes(self) -> dict[str, Outcome]:
        """Return what the user should know of each segment beyond its mask, by its ID, once it is made."""
        return {part.segment_id: part.outcome for part in self._parts if part.segment_id is not None}

    def take(self, number: int, result: SliceMask) -> Step:
        """Put a slice into its segment, soon: slices are written together.

        :raises SceneChangedError: if the volume or the segmentation has changed; then `roll_back`.
        """
        self.check()
        for each in self._parts[:number]:
            self._complete(each)
        part = self._parts[number]
        if part.pending is None:
            self._open(part)
        assert part.pending is not None
        assert part.segment_id is not None
        if result.final or not part.corrects:
            part.pending.add(result)
        part.results[result.index] = result
        # They share a label map, maybe: a change of one shows on all. What others have changed was found above.
        for each in self._parts:
            if each.writer is not None:
                each.settle()
        done = sum(len(each.results) for each in self._parts)
        return Step(number, part.segment_id, done, self.total, result)

    def check(self) -> None:
        """Make sure that volume and segmentation are those that the task was made for.

        :raises SceneChangedError: if not.
        """
        if self._segmentation.GetScene() is None:
            raise SceneChangedError("The segmentation was deleted while it was being made.")
        if self._volume.GetScene() is None:
            raise SceneChangedError("The volume was deleted while it was being segmented.")
        if _stamp(self._volume) != self._stamp:
            raise SceneChangedError(
                f"The volume {self._volume.GetName()!r} was changed or moved while it was being segmented: start again."
            )
        for part in self._parts:
            if part.segment_id is None:
                continue
            if self._segmentation.GetSegmentation().GetSegment(part.segment_id) is None:
                raise SceneChangedError("The segment was deleted while it was being made.")
            if not part.untouched():
                raise SceneChangedError(
                    f"The segment {part.name!r} was edited while it was being made: it stays as it is now."
                )

    def finish(self) -> None:
        """Write what is left; the segments are complete.

        :raises SceneChangedError: as `take` does.
        """
        self.check()
        self._write(complete=True)
        for part in self._parts:
            assert part.segment_id is not None
            self._remember(part.segment_id, review(part.stack.axis, part.results.values()))

    def keep(self) -> None:
        """Write what is done so far, after a stop; a correction that is not complete leaves its segment as it was."""
        self.check()
        self._write(complete=False)

    def roll_back(self) -> None:
        """Make the segments as they were; one that others have edited or renamed meanwhile is not touched."""
        if self._segmentation.GetScene() is None:
            return
        content = self._segmentation.GetSegmentation()
        edited: dict[str, SegmentState | None] = {}
        for part in self._parts:
            if part.segment_id is None or content.GetSegment(part.segment_id) is None:
                continue
            part.stamp = ()  # asked of the voxels: a script may have written to them without a word
            untouched = self._writing or part.untouched()
            if part.before is None:
                if untouched and content.GetSegment(part.segment_id).GetName() == part.name:
                    content.RemoveSegment(part.segment_id)
            elif part.writer is not None and part.writer.written is not None:
                if untouched:
                    part.before.put(self._segmentation, part.segment_id)
                else:
                    edited[part.segment_id] = part.before
            part.segment_id = part.pending = None
        for segment_id, state in self._others.items():
            state.put(self._segmentation, segment_id)
        self._others = {}
        # What such a segment held before the run can be had again at least.
        self._record_since(edited)

    def _first_of(self, part: Part, propagation: str) -> int | None:
        """Choose the slice of a structure that is shown first; none where the user sees nothing before the end."""
        if part.keys or not part.boxes:
            return None
        if self._first is not None and self._first[0] == part.stack.axis and self._first[1] in part.boxes:
            return self._first[1]
        # All but "path" begin with one decoding in the middle as it is.
        return next(middle_out(part.boxes))[0] if propagation == "path" else None

    def _open(self, part: Part) -> None:
        """Prepare the segment that receives a structure's slices."""
        part.segment_id = part.structure.segment_id
        if not part.corrects:
            self._save()
        if part.segment_id is None:
            part.segment_id = add_segment(self._segmentation, part.structure.name)
        else:
            part.before = SegmentState.of(self._segmentation, part.segment_id)
        if self._segmentation.GetDisplayNode() is None:
            self._segmentation.CreateDefaultDisplayNodes()
        part.name = self._segmentation.GetSegmentation().GetSegment(part.segment_id).GetName()
        part.writer = SegmentWriter(self._segmentation, part.segment_id, self._volume)
        replaces = part.structure.segment_id is not None
        part.pending = PendingSlices(part.stack, part.writer, replaces=replaces, at_once=part.corrects)

    def _complete(self, part: Part) -> None:
        """Write what is left of a structure while others are computed; not what only the end decides on."""
        if part.pending is None or part.corrects or self._overwrites:
            return
        self._writing = True
        self._put(part)
        self._writing = False

    def _put(self, part: Part) -> None:
        """Write what is left of a structure, as the Segment Editor's rules allow."""
        assert part.pending is not None
        assert part.writer is not None
        if part.held is not None:
            return
        part.pending.write()
        if self._editor_node is None:
            part.held = part.written()
            return
        held = part.before.mask.labelmap() if part.before is not None else None
        apply_editing_rules(self._editor_node, part.writer, held, self._volume)
        part.held = PackedMask.of(held_by(self._segmentation, part.writer.segment_id))

    def _write(self, *, complete: bool) -> None:
        parts = [part for part in self._parts if part.pending is not None and (complete or not part.corrects)]
        if not parts:
            return
        self._save()
        self._writing = True
        if self._overwrites:
            self._others = self._read_others()
        before: dict[str, SegmentState | None] = dict(self._others)
        for part in parts:
            assert part.segment_id is not None
            self._put(part)
            before[part.segment_id] = part.before
        # Where others give way, one of the task's may have lost voxels to the next.
        known = {} if self._overwrites else {part.segment_id: part.held for part in parts}
        self._writing, self._others = False, {}
        self._record_since(before, known, complete=complete)

    def _read_others(self) -> dict[str, SegmentState]:
        ids = set(self._segmentation.GetSegmentation().GetSegmentIDs()) - set(self.segment_ids)
        states = {segment_id: SegmentState.of(self._segmentation, segment_id) for segment_id in sorted(ids)}
        return {segment_id: state for segment_id, state in states.items() if state is not None}

    def _record_since(
        self,
        before: Mapping[str, SegmentState | None],
        known: Mapping[str | None, PackedMask | None] = MappingProxyType({}),
        *,
        complete: bool = True,
    ) -> None:
        """Record which segments hold something else than before; those of the task tell of it from now on.

        :param known: what segments hold, where it need not be read.
        """
        after = {each: SegmentState.of(self._segmentation, each, known.get(each)) for each in before}
        changed = {
            segment_id: now
            for segment_id, now in after.items()
            if now is not None and ((was := before[segment_id]) is None or not was.mask.equals(now.mask))
        }
        # (Else each tag is told to all who show the segmentation.)
        with slicer.util.NodeModify(self._segmentation):
            for part in self._parts:
                if part.segment_id in changed:
                    fields = self._fields(part, changed[part.segment_id].mask, complete)
                    for segment in (
                        self._segmentation.GetSegmentation().GetSegment(part.segment_id),
                        changed[part.segment_id].metadata,
                    ):
                        write_fields(segment, fields)
        if changed:
            self._record(Edit({segment_id: before[segment_id] for segment_id in changed}, changed))

    def _fields(self, part: Part, held: PackedMask, complete: bool) -> dict[str, str]:
        """Tell how a structure was segmented."""
        assert part.writer is not None
        reservation = "" if complete else f"It was stopped after {len(part.results)} slices."
        if self._editor_node is not None and not held.equals(part.written()):
            reservation = cut_told(self._editor_node)
        structure, values = part.structure, part.stack.range
        prompts = Prompts(
            axis="ijk"[part.stack.axis],
            corners=structure.corners,
            start=structure.start,
            boxes=structure.boxes,
            key_slices=structure.key_slices,
            limit=self._limit if structure.is_followed else None,
            first=part.first,
        )
        return run_fields(
            self._source,
            prompts,
            volume=volume_text(part.stack.dimensions, self._volume.GetSpacing(), self._digest.sha256()),
            window=f"{self._window} ({values.lower:g} to {values.upper:g})",
            propagation=part.propagation,
            review=review(part.stack.axis, part.results.values()),
            reservation=reservation,
        )

    def _save(self) -> None:
        if not self._saved:
            self._save_state()
            self._saved = True


def _stamp(volume: slicer.vtkMRMLVolumeNode) -> tuple[object, ...]:
    """Tell a volume from itself with other voxels, in another frame of a sequence, or at another place."""
    image = volume.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None:
        return ()
    scalars = image.GetPointData().GetScalars()
    return scalars.GetAddressAsString(""), scalars.GetMTime(), image.GetDimensions(), ijk_to_world(volume).tobytes()
