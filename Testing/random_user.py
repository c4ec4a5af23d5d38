"""A user who does anything in any order, and a plain model of what each segment must hold after it.

Real are the scene, the session, and Slicer's logic of the Segment Editor with its history; the model is a dict of numpy
masks. What a run finds is taken from its steps (any model's masks would do), everything else is reckoned here again.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk

from box_predictor import BoxPredictor
from geometries import GEOMETRIES, affine, rotation
from MedSAMSlicerLib.headless.scene import HeadlessScene
from MedSAMSlicerLib.mrml.history import History
from MedSAMSlicerLib.mrml.segments import voxels_of
from MedSAMSlicerLib.mrml.session import SegmentationSession
from MedSAMSlicerLib.mrml.structure import Structure
from MedSAMSlicerLib.mrml.task import SceneChangedError, SegmentationTask
from MedSAMSlicerLib.mrml.transforms import matrix_from_numpy, numpy_from_matrix
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.files import Volume
from MedSAMSlicerLib.volume.key_slices import KeySlice

SIZE = (18, 14, 8)  # IJK
MARGIN = 3  # voxels around the volume, for segments that are moved out of it
EDITOR_STATES = 10


class BrokenError(Exception):
    """What a model that fails raises."""


@dataclass
class FailingPredictor(BoxPredictor):
    """A `BoxPredictor` that fails after some answers, if it is told to."""

    answers: int | None = None

    def decode(self, embedding: Any, boxes: Any, window: Any = None) -> Any:
        if self.answers is not None:
            self.answers -= 1
            if self.answers < 0:
                raise BrokenError
        return super().decode(embedding, boxes, window)


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

    def __init__(self) -> None:
        self.states: list[Segments] = []
        self.last = 0

    def save(self, now: Segments) -> None:
        if self.last < len(self.states):
            return
        self.states.append(copy.deepcopy(now))
        self.last = len(self.states) - 1
        while len(self.states) > EDITOR_STATES:
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


class RandomUser:
    """Does one random thing at a time and checks the whole scene after it.

    :param seed: of all that is random.
    """

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.headless = HeadlessScene()
        lattice = GEOMETRIES[self._choose(sorted(GEOMETRIES))]
        voxels = self.random.normal(40, 20, SIZE[::-1]).astype(np.int16)
        self.volume = self.headless.add_volume(Volume(voxels, lattice, "CT"))
        self.source = voxels.copy()
        self.segmentation = self.headless.add_segmentation("Segmentation", self.volume)
        self.content = self.segmentation.GetSegmentation()
        self.lattice = lattice
        self.together, self.apart = (self._transform() for _ in range(2))
        self.apart.SetAndObserveTransformNodeID(self.together.GetID())
        self.volume.SetAndObserveTransformNodeID(self.together.GetID())
        self.segmentation.SetAndObserveTransformNodeID(self.apart.GetID())
        self.shift = np.zeros(3, dtype=int)  # of the volume in the segmentation's voxels
        self.predictor = FailingPredictor()
        self.session = SegmentationSession(self.predictor, save_state=lambda segmentation: self._save_state())
        self._open_editor()
        self.segments: Segments = {}
        self.done: list[Step] = []
        self.undone: list[Step] = []
        self.editor_history = EditorHistory()
        self.restoring = False
        for event in ("SegmentAdded", "SegmentRemoved", "SegmentModified", "SourceRepresentationModified"):
            self.content.AddObserver(getattr(slicer.vtkSegmentation, event), self._on_modified)
        self.names = 0

    @property
    def actions(self) -> dict[Callable[[], str], int]:
        """What can be done, and how often it is."""
        return {
            self.segment: 5,
            self.segment_several: 2,
            self.segment_again: 4,
            self.correct: 4,
            self.segment_over_others: 3,
            self.stop: 3,
            self.fail: 3,
            self.paint_meanwhile: 3,
            self.undo: 12,
            self.redo: 8,
            self.paint: 6,
            self.erase: 3,
            self.undo_in_editor: 4,
            self.redo_in_editor: 3,
            self.rename: 2,
            self.delete: 6,
            self.add: 2,
            self.move_together: 1,
            self.move_segmentation: 1,
            self.show_surfaces: 1,
        }

    def act(self) -> str:
        """Do one thing, check everything, and say what was done.

        :raises AssertionError: if a segment, a name or the volume is not what it must be.
        """
        actions = self.actions
        weights = np.array(list(actions.values()), dtype=float)
        action = list(actions)[self.random.choice(len(weights), p=weights / weights.sum())]
        told = f"{action.__name__}: {action()}"
        problems = self.problems()
        assert not problems, f"{told}\n" + "\n".join(problems)
        return told

    def problems(self) -> list[str]:
        """Compare the scene with what it must be."""
        found = []
        ids = set(self.content.GetSegmentIDs())
        found += [f"The segment {self.segments[each].name!r} is lost." for each in self.segments.keys() - ids]
        found += [f"The segment {self._name(each)!r} must not be there." for each in ids - self.segments.keys()]
        for segment_id in sorted(ids & self.segments.keys()):
            held = self.segments[segment_id]
            if self._name(segment_id) != held.name:
                found.append(f"The segment {held.name!r} is called {self._name(segment_id)!r}.")
            mask = self.read(segment_id)
            if not np.array_equal(mask, held.mask):
                more, less = (mask & ~held.mask).sum(), (held.mask & ~mask).sum()
                found.append(f"The segment {held.name!r} has {more} voxels too many and {less} too few.")
        if not np.array_equal(slicer.util.arrayFromVolume(self.volume), self.source):
            found.append("Voxels of the volume were changed.")
        return found

    def read(self, segment_id: str) -> np.ndarray:
        """Read a segment in its own voxels, as `Held.mask` is."""
        mask = self._nothing()
        image, matrix = slicer.vtkOrientedImageData(), vtk.vtkMatrix4x4()
        if not self.segmentation.GetBinaryLabelmapRepresentation(segment_id, image) or image.IsEmpty():
            return mask
        image.GetImageToWorldMatrix(matrix)
        grid = numpy_from_matrix(matrix)
        start = np.linalg.inv(self.lattice) @ grid @ [*image.GetExtent()[::2], 1]
        first = start[:3].round().astype(int)
        assert np.allclose(start[:3], first, atol=1e-3), "A segment is not in the voxels of the segmentation any more."
        assert np.allclose(grid[:3, :3], self.lattice[:3, :3], atol=1e-4), "A segment has other voxels."
        mask[tuple((np.argwhere(voxels_of(image)) + first[::-1] + MARGIN).T)] = True
        return mask

    # What the module does

    def segment(self) -> str:
        return self._run([self._structure()])

    def segment_several(self) -> str:
        return self._run([self._structure() for _ in range(2)])

    def segment_again(self) -> str:
        segment_id = self._any_segment()
        return "nothing there" if segment_id is None else self._run([self._structure(segment_id)])

    def correct(self) -> str:
        segment_id = self._any_segment()
        if segment_id is None:
            return "nothing there"
        return self._run([self._correction(segment_id)])

    def segment_over_others(self) -> str:
        self.rules.SetOverwriteMode(self.rules.OverwriteAllSegments)
        structure = self._structure(self._any_segment() if self.random.random() < 0.4 else None)
        return self._run([structure], editor_node=self.rules)

    def stop(self) -> str:
        keep = bool(self.random.random() < 0.5)
        return self._run([self._structure(self._maybe()), self._structure()], stop_after=self._few(), keep=keep)

    def fail(self) -> str:
        self.session.cache.clear()
        self.predictor.answers = self._few()
        try:
            structures = [self._structure(self._maybe()), self._structure()]
            if (corrected := self._any_segment()) is not None and self.random.random() < 0.3:
                structures = [self._correction(corrected)]
            return self._run(structures)
        finally:
            self.predictor.answers = None

    def paint_meanwhile(self) -> str:
        """Paint while a run is on its way, into its segment or another one."""
        return self._run([self._structure(self._maybe())], paint_after=self._few())

    def undo(self) -> str:
        return self._revert(self.session.undo, self.done, self.undone)

    def redo(self) -> str:
        return self._revert(self.session.redo, self.undone, self.done)

    # What is done elsewhere

    def paint(self) -> str:
        return self._edit(self.logic.ModificationModeAdd)

    def erase(self) -> str:
        return self._edit(self.logic.ModificationModeRemove)

    def undo_in_editor(self) -> str:
        return self._restore(self.logic.CanUndo, self.logic.Undo, self.editor_history.undo)

    def redo_in_editor(self) -> str:
        return self._restore(self.logic.CanRedo, self.logic.Redo, self.editor_history.redo)

    def rename(self) -> str:
        segment_id = self._any_segment()
        if segment_id is None:
            return "nothing there"
        name = self._new_name("renamed")
        self._save_state()
        self.segments[segment_id].name = name
        self.content.GetSegment(segment_id).SetName(name)
        return name

    def delete(self) -> str:
        segment_id = self._any_segment()
        if segment_id is None:
            return "nothing there"
        self._save_state()
        self.content.RemoveSegment(segment_id)
        return self.segments.pop(segment_id).name

    def add(self) -> str:
        name = self._new_name("hand")
        self._save_state()
        segment_id = self.content.AddEmptySegment("", name, [1.0, 0.0, 0.0])
        self.segments[segment_id] = Held(name, self._nothing())
        return name

    def move_together(self) -> str:
        angles, places = self.random.uniform(-40, 40, 3), self.random.uniform(-90, 90, 3)
        matrix = affine(rotation(*angles), (1, 1, 1), tuple(places))
        self.together.SetMatrixTransformToParent(matrix_from_numpy(matrix))
        return str(angles.round())

    def move_segmentation(self) -> str:
        """Move the segmentation by whole voxels, so that it is known which ones a run must hit."""
        self.shift = self.random.integers(-MARGIN, MARGIN + 1, 3)
        moved = np.eye(4)
        moved[:3, 3] = -self.shift
        matrix = self.lattice @ moved @ np.linalg.inv(self.lattice)
        self.apart.SetMatrixTransformToParent(matrix_from_numpy(matrix))
        return str(self.shift)

    def show_surfaces(self) -> str:
        surface = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
        if self.content.ContainsRepresentation(surface):
            self.segmentation.RemoveClosedSurfaceRepresentation()
        else:
            self.segmentation.CreateClosedSurfaceRepresentation()
        return ""

    # How the model is kept

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
        task = self.session.begin(self.volume, self.segmentation, structures, axis="k", **options)
        found: list[dict[int, np.ndarray]] = [{} for _ in structures]
        painted, seen = None, self._nothing()
        try:
            for count, (number, result) in enumerate(task.compute(self.predictor, self.session.cache)):
                if count == stop_after:
                    break
                if count == paint_after:
                    painted = self._paint_meanwhile(task, seen)
                task.take(number, result)
                seen |= self._whole({result.index: result.mask})
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
                self._push({painted: (before[painted], copy.deepcopy(self.segments[painted]))})
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
            mask = self._whole(slices)
            self.segments[segment_id] = Held(old.name if old else structure.name, mask)
            step[segment_id] = (old, copy.deepcopy(self.segments[segment_id]))
            for other, held in self.segments.items() if editor_node is not None else ():
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
            self._push(changed)

    def _push(self, step: Step) -> None:
        self.done = [*self.done, step][-History.LENGTH :]
        self.undone = []

    def _revert(self, revert: Callable[[Any], Any], steps: list[Step], inverted: list[Step]) -> str:
        live = [
            step
            for step in steps
            if any(new is None or segment_id in self.segments for segment_id, (_, new) in step.items())
        ]
        free = [each for each in live[-1] if self._is_free(each, *live[-1][each])] if live else []
        now = copy.deepcopy(self.segments)
        if not live or free:
            told = revert(self.segmentation)
            assert bool(told) == bool(free), "An undo says that it did what it did not, or the other way around."
        else:
            try:
                revert(self.segmentation)
            except ValueError as error:
                return str(error)
            raise AssertionError("An undo that can't be said nothing.")
        if not live:
            return "nothing to do"
        step = live[-1]
        del steps[next(index for index, each in enumerate(steps) if each is step) :]
        for segment_id in free:
            old = step[segment_id][0]
            if old is None:
                del self.segments[segment_id]
            elif segment_id in self.segments:
                self.segments[segment_id].mask = old.mask.copy()
            else:
                self.segments[segment_id] = copy.deepcopy(old)
        inverted.append({each: (now.get(each), step[each][0]) for each in free})
        return ", ".join(told.names)

    def _is_free(self, segment_id: str, old: Held | None, new: Held | None) -> bool:
        """Return whether nobody has changed a segment since a step left it."""
        held = self.segments.get(segment_id)
        if held is None or new is None:
            return held is new is None
        return np.array_equal(held.mask, new.mask) and (old is not None or held.name == new.name)

    def _edit(self, mode: int) -> str:
        segment_id = self._any_segment()
        if segment_id is None:
            return "nothing there"
        self._brush(segment_id, mode, overwrite=bool(self.random.random() < 0.3))
        return self.segments[segment_id].name

    def _brush(self, segment_id: str, mode: int, *, overwrite: bool = False) -> None:
        """Add or remove a box of voxels by Slicer's own logic of the Segment Editor."""
        first, last = self._box()
        self.settings.SetOverwriteMode(self.settings.OverwriteAllSegments if overwrite else self.settings.OverwriteNone)
        self._save_state()
        box = [slice(low, high + 1) for low, high in zip(first[::-1], last[::-1], strict=True)]
        brushed = self._nothing()
        brushed[tuple(slice(each.start + MARGIN, each.stop + MARGIN) for each in box)] = True
        self.settings.SetSelectedSegmentID(segment_id)
        assert self.logic.ResetModifierLabelmapToDefault()
        labelmap = self.logic.GetModifierLabelmap()
        # (It may reach beyond the volume, where segments do.)
        start = labelmap.GetExtent()[4::-2]
        place = tuple(slice(each.start - low, each.stop - low) for each, low in zip(box, start, strict=True))
        voxels_of(labelmap)[place] = 1
        labelmap.Modified()
        held = self.segments[segment_id]
        adds = mode == self.logic.ModificationModeAdd
        held.mask = held.mask | brushed if adds else held.mask & ~brushed
        for other, each in self.segments.items() if overwrite and adds else ():
            if other != segment_id:
                each.mask = each.mask & ~brushed
        self.logic.ModifySegmentByLabelmap(
            self.segmentation, segment_id, labelmap, mode, list(labelmap.GetExtent()), False, False
        )

    def _paint_meanwhile(self, task: SegmentationTask, seen: np.ndarray) -> str | None:
        """Paint, and return the segment whose voxels that has changed.

        :param seen: all that the run has found so far.
        """
        segment_ids = task.segment_ids
        choice = self._any_segment() if not segment_ids or self.random.random() < 0.5 else segment_ids[0]
        # Slices are written together when there is time: what is there already can't be reckoned.
        for segment_id in segment_ids:
            partial = self.read(segment_id)
            assert not (partial & ~seen).any(), "A run has written what it did not find."
            self.segments[segment_id] = Held(self._name(segment_id), partial)
        if choice is None:
            return None
        was = self.segments[choice].mask.copy()
        self._brush(choice, self.logic.ModificationModeAdd)
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
        self.logic.SaveStateForUndo()
        self.editor_history.save(self.segments)

    def _on_modified(self, *_: Any) -> None:
        if not self.restoring:
            self.editor_history.modified()

    # What it is done with

    def _open_editor(self) -> None:
        scene = self.headless.scene
        self.rules = scene.AddNode(slicer.vtkMRMLSegmentEditorNode())
        self.settings = scene.AddNode(slicer.vtkMRMLSegmentEditorNode())
        self.settings.SetAndObserveSegmentationNode(self.segmentation)
        self.logic = slicer.vtkSlicerSegmentEditorLogic()
        self.logic.SetMRMLScene(scene)
        self.logic.SetSegmentEditorNode(self.settings)
        self.logic.SetSourceVolumeNode(self.volume)
        self.logic.SetMaximumNumberOfUndoStates(EDITOR_STATES)

    def _transform(self) -> Any:
        return self.headless.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")

    def _structure(self, segment_id: str | None = None) -> Structure:
        first, last = self._box()
        return Structure.of_voxels(self.volume, first, last, self._new_name("made"), segment_id)

    def _correction(self, segment_id: str) -> Structure:
        structure = self._structure(segment_id)
        first, last = self._box()
        box = Box(first[0], first[1], last[0], last[1])
        return dataclasses.replace(structure, key_slices=(KeySlice(2, first[2], box),))

    def _box(self) -> tuple[list[int], list[int]]:
        """Choose the first and the last voxel of a box, IJK."""
        ends = [sorted(self.random.choice(size, 2, replace=False).tolist()) for size in SIZE]
        return [low for low, _ in ends], [high for _, high in ends]

    def _whole(self, slices: dict[int, np.ndarray]) -> np.ndarray:
        """Put slices of the volume into the segmentation's voxels."""
        whole = self._nothing()
        start = MARGIN + self.shift
        for index, mask in slices.items():
            j, i = (slice(start[axis], start[axis] + SIZE[axis]) for axis in (1, 0))
            whole[start[2] + index, j, i] = mask
        return whole

    def _nothing(self) -> np.ndarray:
        return np.zeros([size + 2 * MARGIN for size in SIZE[::-1]], dtype=bool)

    def _name(self, segment_id: str) -> str:
        return self.content.GetSegment(segment_id).GetName()

    def _new_name(self, kind: str) -> str:
        self.names += 1
        return f"{kind} {self.names}"

    def _any_segment(self) -> str | None:
        return self._choose(list(self.segments)) if self.segments else None

    def _maybe(self) -> str | None:
        return self._any_segment() if self.random.random() < 0.5 else None

    def _few(self) -> int:
        return int(self.random.integers(0, 12))

    def _choose(self, things: list[Any]) -> Any:
        return things[self.random.integers(len(things))]
