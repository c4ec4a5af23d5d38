"""A session whose every change is reckoned again in a plain model, and compared.

Real are the scene, the session, and Slicer's logic of the Segment Editor with its history; the model is a dict of numpy
masks. What a run finds is taken from its steps (any model's masks would do), everything else is reckoned here again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import slicer
import slicer.util

from box_predictor import BrokenError, FailingPredictor
from geometries import GEOMETRIES
from MedSAMSlicerLib.mrml.editing_rules import gives_way
from MedSAMSlicerLib.mrml.session import SegmentationSession
from MedSAMSlicerLib.mrml.structure import Structure
from MedSAMSlicerLib.mrml.task import SceneChangedError, SegmentationTask
from moved_scene import EDITOR_STATES, SIZE, MovedScene, nothing
from undo_model import EditorHistory, Held, ModuleHistory, Segments, Step


class CheckedSession:
    """Carries out runs, undo and edits in the scene and in the model.

    :param seed: of all that is random.
    """

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.source = self.random.normal(40, 20, SIZE[::-1]).astype(np.int16)
        self.scene = MovedScene(self.source.copy(), GEOMETRIES[self._choose(sorted(GEOMETRIES))])
        self.segmentation, self.content, self.editor = self.scene.segmentation, self.scene.content, self.scene.editor
        self.predictor = FailingPredictor()
        self.session = SegmentationSession(self.predictor, save_state=lambda segmentation: self._save_state())
        self.segments: Segments = {}
        self.history = ModuleHistory()
        self.editor_history = EditorHistory(EDITOR_STATES)
        self.restoring = False
        for event in ("SegmentAdded", "SegmentRemoved", "SegmentModified", "SourceRepresentationModified"):
            self.content.AddObserver(getattr(slicer.vtkSegmentation, event), self._on_modified)
        self.names = 0

    def problems(self) -> list[str]:
        """Compare the scene with what it must be."""
        found = []
        ids = set(self.content.GetSegmentIDs())
        found += [f"The segment {self.segments[each].name!r} is lost." for each in self.segments.keys() - ids]
        found += [f"The segment {self.scene.name(each)!r} must not be there." for each in ids - self.segments.keys()]
        for segment_id in sorted(ids & self.segments.keys()):
            held = self.segments[segment_id]
            if self.scene.name(segment_id) != held.name:
                found.append(f"The segment {held.name!r} is called {self.scene.name(segment_id)!r}.")
            mask = self.scene.read(segment_id)
            if not np.array_equal(mask, held.mask):
                more, less = (mask & ~held.mask).sum(), (held.mask & ~mask).sum()
                found.append(f"The segment {held.name!r} has {more} voxels too many and {less} too few.")
        if not np.array_equal(slicer.util.arrayFromVolume(self.scene.volume), self.source):
            found.append("Voxels of the volume were changed.")
        return found

    def _run(
        self,
        structures: list[Structure],
        *,
        stop_after: int | None = None,
        keep: bool = True,
        paint_after: int | None = None,
        **options: Any,
    ) -> str:
        before = copy.deepcopy(self.segments)
        task = self.session.begin(self.scene.volume, self.segmentation, structures, axis="k", **options)
        found: list[dict[int, np.ndarray]] = [{} for _ in structures]
        painted, seen = None, nothing()
        try:
            for count, (number, result) in enumerate(task.compute(self.predictor, self.session.cache)):
                if count == stop_after:
                    break
                if count == paint_after:
                    painted = self._paint_meanwhile(task, seen)
                    if not task.segment_ids:
                        # The run has not begun to write: it finds what was painted as if it had been there before.
                        painted, before = None, copy.deepcopy(self.segments)
                task.take(number, result)
                seen |= self.scene.whole({result.index: result.mask})
                if result.final or not structures[number].key_slices or structures[number].segment_id is None:
                    found[number][result.index] = result.mask
            else:
                stop_after = None
                task.finish()
            if stop_after is not None and keep:
                task.keep()
            elif stop_after is not None:
                task.roll_back()
                return "stopped and rolled back"
        except BrokenError:
            task.roll_back()
            return "failed"
        except SceneChangedError as error:
            if painted not in task.segment_ids:
                raise AssertionError("A run was ended though nobody touched its segment.") from error
            task.roll_back()
            if painted in before:
                self.history.push({painted: (before[painted], copy.deepcopy(self.segments[painted]))})
            return str(error)
        assert painted is None or painted not in task.segment_ids, "An edit of the run's own segment was not noticed."
        self._written(task, structures, found, before, stopped=stop_after is not None, **options)
        return "stopped" if stop_after is not None else "done"

    def _written(
        self,
        task: SegmentationTask,
        structures: list[Structure],
        found: list[dict[int, np.ndarray]],
        before: Segments,
        *,
        stopped: bool,
        editor_node: Any = None,
        limit: float | None = None,
    ) -> None:
        """Put what a run has found into the model."""
        segment_ids = iter(task.segment_ids)
        step: Step = {}
        for structure, slices in zip(structures, found, strict=True):
            if not slices and stopped:
                continue
            segment_id = next(segment_ids)
            if stopped and structure.key_slices:
                continue
            old = before.get(segment_id)
            mask = self.scene.whole(slices)
            if editor_node is not None and not gives_way(editor_node):
                taken = self._held_by_others(segment_id)
                mask = (mask & ~taken) | (old.mask & taken if old else taken & False)
            self.segments[segment_id] = Held(old.name if old else structure.name, mask)
            step[segment_id] = (old, copy.deepcopy(self.segments[segment_id]))
            for other, held in self.segments.items() if editor_node is not None and gives_way(editor_node) else ():
                if other != segment_id and (held.mask & mask).any():
                    was = copy.deepcopy(held)
                    held.mask = held.mask & ~mask
                    step[other] = (was, copy.deepcopy(held))
        changed = {
            segment_id: (old, new)
            for segment_id, (old, new) in step.items()
            if old is None or not np.array_equal(old.mask, new.mask)
        }
        if changed:
            self.history.push(changed)

    def _held_by_others(self, segment_id: str) -> np.ndarray:
        return np.logical_or.reduce([nothing(), *(h.mask for each, h in self.segments.items() if each != segment_id)])

    def _revert(
        self,
        revert: Callable[[Any], Any],
        can: Callable[[Segments], list[str] | None],
        model: Callable[[Segments], Any],
    ) -> str:
        free = can(self.segments)
        if free is not None and not free:
            try:
                revert(self.segmentation)
            except ValueError as error:
                return str(error)
            raise AssertionError("What can't be undone was not refused.")
        told = revert(self.segmentation)
        assert len(told.names) == len(free or ()), "An undo says that it did what it did not, or the other way around."
        if free is None:
            return "nothing to do"
        self.segments = model(self.segments)
        return f"{', '.join(told.names)} {told.left}"

    def _edit(self, mode: int) -> str:
        segment_id = self._any_segment()
        if segment_id is None:
            return "nothing there"
        self._brush(segment_id, mode, overwrite=bool(self.random.random() < 0.3))
        return self.segments[segment_id].name

    def _brush(self, segment_id: str, mode: int, *, overwrite: bool = False) -> None:
        self._save_state()
        box = self.scene.brush(segment_id, self._box(), mode, overwrite=overwrite)
        held, adds = self.segments[segment_id], mode == self.editor.ModificationModeAdd
        held.mask = held.mask | box if adds else held.mask & ~box
        for other, each in self.segments.items() if overwrite and adds else ():
            if other != segment_id:
                each.mask = each.mask & ~box

    def _paint_meanwhile(self, task: SegmentationTask, seen: np.ndarray) -> str | None:
        """Paint, and return the segment whose voxels that has changed.

        :param seen: all that the run has found so far.
        """
        segment_ids = task.segment_ids
        choice = self._any_segment() if not segment_ids or self.random.random() < 0.5 else segment_ids[0]
        # Slices are written together when there is time: what is there already can't be reckoned.
        for segment_id in segment_ids:
            partial = self.scene.read(segment_id)
            assert not (partial & ~seen).any(), "A run has written what it did not find."
            self.segments[segment_id] = Held(self.scene.name(segment_id), partial)
        if choice is None:
            return None
        was = self.segments[choice].mask.copy()
        self._brush(choice, self.editor.ModificationModeAdd)
        return choice if not np.array_equal(was, self.segments[choice].mask) else None

    def _restore(
        self, can: Callable[[], bool], restore: Callable[[], None], model: Callable[[Segments], Segments | None]
    ) -> str:
        restored = model(self.segments)
        assert can() == (restored is not None), "The Segment Editor's history is not what it must be."
        if restored is None:
            return "nothing to do"
        self.restoring = True
        restore()
        self.restoring = False
        self.segments = restored
        return f"{len(self.segments)} segments"

    def _save_state(self) -> None:
        self.editor.SaveStateForUndo()
        self.editor_history.save(self.segments)

    def _on_modified(self, *_: Any) -> None:
        if not self.restoring:
            self.editor_history.modified()

    # What is drawn

    def _box(self) -> tuple[list[int], list[int]]:
        """Choose the first and the last voxel of a box, IJK."""
        ends = [sorted(self.random.choice(size, 2, replace=False).tolist()) for size in SIZE]
        return [low for low, _ in ends], [high for _, high in ends]

    def _any_segment(self) -> str | None:
        return self._choose(list(self.segments)) if self.segments else None

    def _choose(self, things: list[Any]) -> Any:
        return things[self.random.integers(len(things))]
