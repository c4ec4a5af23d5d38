"""A user who does anything in any order; everything is compared with a plain model, see `checked_session`."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import slicer
import slicer.util
import vtk

from checked_session import CheckedSession
from MedSAMSlicerLib.mrml.boxes import belong, new_box, segment_of, structure_boxes
from MedSAMSlicerLib.mrml.diameters import structures_of_lines
from MedSAMSlicerLib.mrml.editing_rules import outside_others
from MedSAMSlicerLib.mrml.markups import wrap_voxels
from MedSAMSlicerLib.mrml.provenance import read_fields
from MedSAMSlicerLib.mrml.slice_boxes import lay, make_3d
from MedSAMSlicerLib.mrml.structure import Structure
from MedSAMSlicerLib.mrml.volumes import ijk_to_world
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.geometry import voxel_box_corners
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.slice_stack import SliceStack
from moved_scene import MARGIN, SIZE, nothing
from undo_model import Held


class RandomUser(CheckedSession):
    """Does one random thing at a time and checks the whole scene after it."""

    @property
    def actions(self) -> dict[Callable[[], str], int]:
        """What can be done, and how often it is."""
        return {
            self.segment: 5,
            self.segment_several: 2,
            self.segment_again: 4,
            self.correct: 4,
            self.segment_over_others: 3,
            self.keep_out: 3,
            self.follow: 3,
            self.measure: 2,
            self.segment_roi: 3,
            self.stop: 3,
            self.fail: 3,
            self.paint_meanwhile: 3,
            self.undo: 12,
            self.redo: 8,
            self.paint: 6,
            self.erase: 3,
            self.undo_in_editor: 4,
            self.redo_in_editor: 3,
            self.rename: 5,
            self.delete: 6,
            self.add: 2,
            self.move_together: 1,
            self.move_segmentation: 1,
            self.show_surfaces: 1,
            self.save_and_open: 2,
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
        return "nothing there" if segment_id is None else self._run([self._correction(segment_id)])

    def segment_over_others(self) -> str:
        structure = self._structure(self._any_segment() if self.random.random() < 0.4 else None)
        return self._run([structure], editor_node=self.scene.rules)

    def keep_out(self) -> str:
        """Segment so that all other segments keep what they hold."""
        structure = self._structure(self._any_segment() if self.random.random() < 0.4 else None)
        return self._run([structure], editor_node=outside_others())

    def follow(self) -> str:
        """Segment from a box on one slice."""
        first, last = self._box()
        box = (*first[:2], *last[:2])
        structure = Structure.of_slice(self.scene.volume, first[2], box, "k", self._new_name("made"), self._maybe())
        return self._run([structure], limit=self._limit())

    def measure(self) -> str:
        """Segment from a diameter that was measured in a slice."""
        first, last = self._box()
        line = self.scene.scene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", self._new_name("made"))
        for place in (first, [*last[:2], first[2]]):
            line.AddControlPointWorld(vtk.vtkVector3d(*(ijk_to_world(self.scene.volume) @ [*place, 1])[:3]))
        return self._run(structures_of_lines([line], self.scene.volume), limit=self._limit())

    def segment_roi(self) -> str:
        """Segment from an ROI that becomes a box on one slice, or a 3-D box again, and belongs to its segment then."""
        roi, volume = self._choose([*structure_boxes(self.scene.scene), None]), self.scene.volume
        if roi is None:
            roi = new_box(self.scene.scene, self._new_name("made"))
            first, last = self._box()
            wrap_voxels(roi, ijk_to_world(volume), voxel_box_corners(tuple(first), tuple(last)))
        elif self.random.random() < 0.5:
            make_3d(roi)
        try:
            if self.random.random() < 0.6:
                lay(roi, volume, 2, int(self.random.integers(SIZE[2])))
            structure = Structure.of_roi(volume, roi, segment_of(roi, self.segmentation))
            if structure.start is not None and structure.start.axis != 2:
                return "in a slice along another axis"
            if structure.start is None:
                structure.cut(SliceStack(self.source, volume.GetSpacing(), axis="k", window="full"), volume)
        except ValueError as error:
            return str(error)  # the volume was moved away from under the ROI
        told = self._run([structure], limit=self._limit())
        made = [each for each in self.content.GetSegmentIDs() if self.scene.name(each) == roi.GetName()]
        if made:
            belong(roi, volume, self.segmentation, made[-1])
        return told

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
        return self._revert(self.session.undo, self.history.undoable, self.history.undo)

    def redo(self) -> str:
        return self._revert(self.session.redo, self.history.redoable, self.history.redo)

    # What is done elsewhere

    def paint(self) -> str:
        return self._edit(self.editor.ModificationModeAdd)

    def erase(self) -> str:
        return self._edit(self.editor.ModificationModeRemove)

    def undo_in_editor(self) -> str:
        return self._restore(self.editor.CanUndo, self.editor.Undo, self.editor_history.undo)

    def redo_in_editor(self) -> str:
        return self._restore(self.editor.CanRedo, self.editor.Redo, self.editor_history.redo)

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
        self.segments[segment_id] = Held(name, nothing())
        return name

    def move_together(self) -> str:
        angles = self.random.uniform(-40, 40, 3)
        self.scene.move_together(angles, self.random.uniform(-90, 90, 3))
        return str(angles.round())

    def move_segmentation(self) -> str:
        self.scene.move_segmentation(self.random.integers(-MARGIN, MARGIN + 1, 3))
        return str(self.scene.shift)

    def show_surfaces(self) -> str:
        surface = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
        if self.content.ContainsRepresentation(surface):
            self.segmentation.RemoveClosedSurfaceRepresentation()
        else:
            self.segmentation.CreateClosedSurfaceRepresentation()
        return ""

    def save_and_open(self) -> str:
        """Save the segmentation, and compare what another scene reads."""
        if not any(held.mask.any() for held in self.segments.values()):
            return "nothing to save"
        with tempfile.TemporaryDirectory() as folder:
            opened = self.scene.saved_and_opened(Path(folder) / "saved.seg.nrrd")
        for segment_id, held in self.segments.items():
            segment = opened.GetSegmentation().GetSegment(segment_id)
            assert segment is not None, f"The segment {held.name!r} is lost in the file."
            assert segment.GetName() == held.name
            assert read_fields(segment) == read_fields(self.content.GetSegment(segment_id))
            mask = self.scene.read(segment_id, opened)
            assert np.array_equal(mask, held.mask), f"The segment {held.name!r} has other voxels in the file."
        return f"{len(self.segments)} segments"

    # What it is done with

    def _structure(self, segment_id: str | None = None) -> Structure:
        first, last = self._box()
        return Structure.of_voxels(self.scene.volume, first, last, self._new_name("made"), segment_id)

    def _correction(self, segment_id: str) -> Structure:
        structure = self._structure(segment_id)
        first, last = self._box()
        box = Box(first[0], first[1], last[0], last[1])
        return dataclasses.replace(structure, key_slices=(KeySlice(2, first[2], box),))

    def _new_name(self, kind: str) -> str:
        self.names += 1
        return f"{kind} {self.names}"

    def _maybe(self) -> str | None:
        return self._any_segment() if self.random.random() < 0.5 else None

    def _limit(self) -> float | None:
        return self._choose([None, 2.0, 9.0])

    def _few(self) -> int:
        return int(self.random.integers(0, 12))
