"""Undo takes back what a run wrote, and nothing that was done by others since."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
from vtk.util.numpy_support import vtk_to_numpy

from geometries import FIRST, GEOMETRIES, LAST, affine, rotation
from MedSAMSlicerLib.mrml import task as task_module
from MedSAMSlicerLib.mrml.boxes import bind, segment_of
from MedSAMSlicerLib.mrml.history import History
from MedSAMSlicerLib.mrml.segments import SegmentWriter, add_segment, labelmap_of, segment_mask
from MedSAMSlicerLib.mrml.structure import Structure
from MedSAMSlicerLib.mrml.task import SceneChangedError
from MedSAMSlicerLib.mrml.transforms import matrix_from_numpy

SECOND = ((22, 17, 0), (28, 22, 9))


@pytest.fixture
def ijk_to_ras() -> np.ndarray:
    return GEOMETRIES["oblique anisotropic"]


class Scene:
    """What these tests do with one segmentation, and see of it."""

    def __init__(self, session, volume_node, segmentation) -> None:
        self.session, self.volume, self.segmentation = session, volume_node, segmentation

    @property
    def content(self) -> slicer.vtkSegmentation:
        return self.segmentation.GetSegmentation()

    @property
    def names(self) -> list[str]:
        return [self.content.GetSegment(segment_id).GetName() for segment_id in self.content.GetSegmentIDs()]

    def begin(self, *structures, **options):
        return self.session.begin(self.volume, self.segmentation, structures, **options)

    def run(self, first=FIRST, last=LAST, name="lesion", segment_id=None, **options) -> str:
        task = self.begin(self.structure(first, last, name, segment_id), **options)
        list(self.session.run(task))
        return task.segment_ids[0]

    def structure(self, first=FIRST, last=LAST, name="lesion", segment_id=None) -> Structure:
        return Structure.of_voxels(self.volume, first, last, name, segment_id)

    def paint(self, segment_id, first, last) -> None:
        """Add voxels by hand, as any tool of Slicer does."""
        mask = np.ones([high - low + 1 for low, high in zip(first, last, strict=True)][::-1], dtype=bool)
        SegmentWriter(self.segmentation, segment_id, self.volume).add(mask, first)

    def draw(self, name, first=(2, 18, 1), last=(6, 21, 4)) -> str:
        segment_id = add_segment(self.segmentation, name)
        self.paint(segment_id, first, last)
        return segment_id

    def mask(self, segment_id) -> np.ndarray:
        return segment_mask(self.segmentation, segment_id, self.volume)

    def box(self, first=FIRST, last=LAST) -> np.ndarray:
        mask = np.zeros(slicer.util.arrayFromVolume(self.volume).shape, dtype=bool)
        mask[tuple(slice(low, high + 1) for low, high in zip(first[::-1], last[::-1], strict=True))] = True
        return mask


@pytest.fixture
def scene(session, volume_node, segmentation) -> Scene:
    return Scene(session, volume_node, segmentation)


def test_a_segment_drawn_by_hand_after_the_run_stays(scene):
    scene.run()
    hand = scene.draw("hand")
    before = scene.mask(hand)
    undone = scene.session.undo(scene.segmentation)
    assert undone.names == ("lesion",)
    assert scene.names == ["hand"]
    np.testing.assert_array_equal(scene.mask(hand), before)
    assert scene.session.redo(scene.segmentation)
    assert scene.names == ["hand", "lesion"]
    np.testing.assert_array_equal(scene.mask(hand), before)


def test_a_segment_that_was_painted_since_stays_and_the_reason_is_told(scene):
    segment_id = scene.run()
    scene.run(*SECOND, name="other")
    scene.content.GetSegment(segment_id).SetName("tumor")
    scene.paint(segment_id, (2, 18, 1), (6, 21, 4))
    assert scene.session.undo(scene.segmentation).names == ("other",)
    np.testing.assert_array_equal(scene.mask(segment_id), scene.box() | scene.box((2, 18, 1), (6, 21, 4)))
    assert scene.names == ["tumor"]
    outlook = scene.session.undoable(scene.segmentation)
    assert not outlook
    assert outlook.left == "The last segmentation can't be undone: the segment 'tumor' was edited since."
    with pytest.raises(ValueError, match="'tumor' was edited since"):
        scene.session.undo(scene.segmentation)
    assert scene.names == ["tumor"]
    assert scene.session.redo(scene.segmentation).names == ("other",)


def test_once_the_edit_is_taken_back_elsewhere_the_run_can_be_too(headless, scene):
    segment_id = scene.run()
    logic = slicer.vtkSlicerSegmentEditorLogic()
    logic.SetMRMLScene(headless.scene)
    node = headless.scene.AddNode(slicer.vtkMRMLSegmentEditorNode())
    node.SetAndObserveSegmentationNode(scene.segmentation)
    logic.SetSegmentEditorNode(node)
    logic.SaveStateForUndo()
    scene.paint(segment_id, (2, 18, 1), (6, 21, 4))
    assert not scene.session.undoable(scene.segmentation)
    logic.Undo()
    assert scene.session.undo(scene.segmentation)
    assert scene.names == []


def test_voxels_written_by_a_script_without_a_word_count_as_edited(scene):
    segment_id = scene.run()
    assert scene.session.undoable(scene.segmentation)
    vtk_to_numpy(labelmap_of(scene.segmentation, segment_id).GetPointData().GetScalars())[0] ^= 1
    with pytest.raises(ValueError, match="edited since"):
        scene.session.undo(scene.segmentation)
    assert scene.names == ["lesion"]


def test_a_renamed_new_segment_stays_and_a_renamed_old_one_gets_its_voxels_back(scene):
    segment_id = scene.run()
    scene.run((5, 6, 2), (9, 9, 4), segment_id=segment_id)
    scene.content.GetSegment(segment_id).SetName("tumor")
    assert scene.session.undo(scene.segmentation)
    np.testing.assert_array_equal(scene.mask(segment_id), scene.box())
    with pytest.raises(ValueError, match="'tumor' was renamed since"):
        scene.session.undo(scene.segmentation)
    assert scene.names == ["tumor"]


def test_a_deleted_segment_does_not_come_back_and_is_in_nobodys_way(scene):
    first = scene.run()
    second = scene.run(*SECOND, name="other")
    scene.content.RemoveSegment(first)
    assert scene.session.undo(scene.segmentation).names == ("other",)
    assert scene.names == []
    assert scene.session.redo(scene.segmentation)
    scene.content.RemoveSegment(second)
    assert not scene.session.undo(scene.segmentation)
    assert scene.names == []


def test_of_a_run_on_two_structures_the_one_that_was_edited_stays(scene):
    task = scene.begin(scene.structure(), scene.structure(*SECOND, name="other"))
    list(scene.session.run(task))
    scene.paint(task.segment_ids[1], (2, 18, 1), (6, 21, 4))
    held = scene.mask(task.segment_ids[1])
    undone = scene.session.undo(scene.segmentation)
    assert undone.names == ("lesion",)
    assert undone.left == "Left as it is: the segment 'other' was edited since."
    assert scene.names == ["other"]
    np.testing.assert_array_equal(scene.mask(task.segment_ids[1]), held)
    assert scene.session.redo(scene.segmentation).names == ("lesion",)
    np.testing.assert_array_equal(scene.mask(task.segment_ids[1]), held)


def test_with_the_segment_its_review_comes_back(scene):
    def told(segment_id: str) -> list[tuple[int, float]]:
        return [(each.index, each.confidence) for each in scene.session.review(scene.segmentation, segment_id)]

    segment_id = scene.run()
    first = told(segment_id)
    scene.run((5, 6, 2), (9, 9, 4), segment_id=segment_id)
    second = told(segment_id)
    assert len(second) < len(first)
    scene.session.undo(scene.segmentation)
    assert told(segment_id) == first
    scene.session.undo(scene.segmentation)
    assert told(segment_id) == []
    scene.session.redo(scene.segmentation)
    assert told(segment_id) == first
    scene.session.redo(scene.segmentation)
    assert told(segment_id) == second


def test_a_failed_run_leaves_no_step_and_the_redo(scene, a_box_predictor, monkeypatch):
    segment_id = scene.run()
    scene.run((5, 6, 2), (9, 9, 4), segment_id=segment_id)
    scene.session.undo(scene.segmentation)
    scene.session.cache.clear()
    with monkeypatch.context() as broken:
        broken.setattr(a_box_predictor, "decode", lambda *args: 1 / 0)
        for again in (None, segment_id):
            with pytest.raises(ZeroDivisionError):
                scene.run(*SECOND, name="broken", segment_id=again)
    assert scene.session.redo(scene.segmentation)
    np.testing.assert_array_equal(scene.mask(segment_id), scene.box((5, 6, 2), (9, 9, 4)))
    assert [bool(scene.session.undo(scene.segmentation)) for _ in range(3)] == [True, True, False]
    assert scene.names == []


def test_a_segment_that_comes_back_is_the_same_one_for_its_box_and_for_slicer(headless, scene, roi):
    hand = scene.draw("hand", (8, 7, 3), (11, 9, 5))
    segment_id = scene.session.segment(scene.volume, roi, scene.segmentation)
    bind(roi, scene.segmentation, segment_id)
    scene.content.GetSegment(segment_id).SetColor(0.1, 0.2, 0.3)
    scene.content.GetSegment(segment_id).SetTag("Site", "liver")
    scene.segmentation.CreateClosedSurfaceRepresentation()
    points = [scene.segmentation.GetClosedSurfaceInternalRepresentation(hand).GetNumberOfPoints()]
    points.append(scene.segmentation.GetClosedSurfaceInternalRepresentation(segment_id).GetNumberOfPoints())
    held = scene.mask(hand)
    assert scene.session.undo(scene.segmentation)
    assert segment_of(roi, scene.segmentation) is None
    assert scene.segmentation.GetClosedSurfaceInternalRepresentation(hand).GetNumberOfPoints() == points[0]
    assert scene.session.redo(scene.segmentation)
    assert segment_of(roi, scene.segmentation) == segment_id
    np.testing.assert_array_equal(scene.mask(segment_id), scene.box())
    np.testing.assert_array_equal(scene.mask(hand), held)
    segment = scene.content.GetSegment(segment_id)
    assert segment.GetColor() == (0.1, 0.2, 0.3)
    assert segment.HasTag("Site")
    surfaces = [scene.segmentation.GetClosedSurfaceInternalRepresentation(each) for each in (hand, segment_id)]
    assert [surface.GetNumberOfPoints() for surface in surfaces] == points


@pytest.mark.parametrize("painted", [False, True])
def test_segments_that_gave_way_get_their_voxels_back_unless_they_were_edited_since(headless, scene, painted):
    other = scene.draw("other", (2, 4, 3), (12, 11, 5))
    node = headless.scene.AddNode(slicer.vtkMRMLSegmentEditorNode())
    node.SetOverwriteMode(node.OverwriteAllSegments)
    scene.run(editor_node=node)
    given = scene.box((2, 4, 3), (12, 11, 5))
    np.testing.assert_array_equal(scene.mask(other), given & ~scene.box())
    if painted:
        scene.paint(other, (24, 18, 7), (26, 20, 8))
    held = scene.mask(other)
    undone = scene.session.undo(scene.segmentation)
    assert scene.names == ["other"]
    np.testing.assert_array_equal(scene.mask(other), held if painted else given)
    assert ("'other' was edited since" in undone.left) == painted


def test_an_error_while_others_give_way_gives_them_their_voxels_back(headless, scene, monkeypatch):
    other = scene.draw("other", (2, 4, 3), (12, 11, 5))
    node = headless.scene.AddNode(slicer.vtkMRMLSegmentEditorNode())
    node.SetOverwriteMode(node.OverwriteAllSegments)
    apply = task_module.apply_editing_rules

    def fail_afterwards(*args):
        apply(*args)
        raise RuntimeError("Slicer could not write")

    monkeypatch.setattr(task_module, "apply_editing_rules", fail_afterwards)
    with pytest.raises(RuntimeError, match="could not write"):
        scene.run(editor_node=node)
    assert scene.names == ["other"]
    np.testing.assert_array_equal(scene.mask(other), scene.box((2, 4, 3), (12, 11, 5)))
    assert not scene.session.undoable(scene.segmentation)


def test_as_many_runs_can_be_undone_as_the_segment_editor_keeps(scene):
    segment_id = scene.run()
    for corner in range(12):
        scene.run((5, 6, 2), (10 + corner, 9, 4), segment_id=segment_id)
    taken = 0
    while scene.session.undo(scene.segmentation):
        taken += 1
    assert taken == History.LENGTH == 10
    np.testing.assert_array_equal(scene.mask(segment_id), scene.box((5, 6, 2), (11, 9, 4)))


def test_undo_needs_neither_the_volume_nor_the_segmentation_at_its_old_place(headless, scene):
    segment_id = scene.run()
    hand = scene.draw("hand")
    scene.run((5, 6, 2), (9, 9, 4), segment_id=segment_id)
    held, kept = scene.box(), scene.mask(hand)
    transform = headless.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(matrix_from_numpy(affine(rotation(5, 10, -15), (1, 1, 1), (10, -20, 30))))
    scene.segmentation.SetAndObserveTransformNodeID(transform.GetID())
    other = headless.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "the same place")
    other.CopyContent(scene.volume)
    other.SetAndObserveTransformNodeID(transform.GetID())
    headless.scene.RemoveNode(scene.volume)
    assert scene.session.undo(scene.segmentation)
    scene.volume = other
    np.testing.assert_array_equal(scene.mask(segment_id), held)
    np.testing.assert_array_equal(scene.mask(hand), kept)


@pytest.mark.parametrize("ending", ["take", "finish", "keep", "roll_back"])
def test_voxels_painted_into_a_new_segment_while_it_is_made_are_not_lost(scene, ending):
    task = scene.begin(scene.structure())
    results = task.compute(scene.session.predictor, scene.session.cache)
    task.take(*next(results))
    (segment_id,) = task.segment_ids
    scene.paint(segment_id, (2, 18, 1), (6, 21, 4))
    held = scene.mask(segment_id)
    if ending != "roll_back":
        with pytest.raises(SceneChangedError, match="'lesion' was edited while it was being made"):
            task.take(*next(results)) if ending == "take" else getattr(task, ending)()
    task.roll_back()
    np.testing.assert_array_equal(scene.mask(segment_id), held)
    assert not scene.session.undo(scene.segmentation)


def test_an_old_segment_that_was_painted_while_it_is_made_again_keeps_the_way_back(scene):
    segment_id = scene.run()
    task = scene.begin(scene.structure((5, 6, 2), (9, 9, 4), segment_id=segment_id))
    task.take(*next(task.compute(scene.session.predictor, scene.session.cache)))
    scene.paint(segment_id, (2, 18, 1), (6, 21, 4))
    held = scene.mask(segment_id)
    task.roll_back()
    np.testing.assert_array_equal(scene.mask(segment_id), held)
    assert scene.session.undo(scene.segmentation)
    np.testing.assert_array_equal(scene.mask(segment_id), scene.box())
    assert scene.session.redo(scene.segmentation)
    np.testing.assert_array_equal(scene.mask(segment_id), held)


def test_painting_elsewhere_while_a_segment_is_made_does_not_end_the_run(scene):
    hand = scene.draw("hand")
    task = scene.begin(scene.structure())
    for number, result in task.compute(scene.session.predictor, scene.session.cache):
        task.take(number, result)
        scene.paint(hand, (2, 18, result.index), (3, 19, result.index))
    task.finish()
    np.testing.assert_array_equal(scene.mask(task.segment_ids[0]), scene.box())
    assert scene.session.undo(scene.segmentation)
    assert scene.names == ["hand"]


def test_a_segmentation_that_became_surfaces_is_not_written_to(scene):
    scene.run()
    scene.segmentation.CreateClosedSurfaceRepresentation()
    scene.segmentation.SetSourceRepresentationToClosedSurface()
    assert "stores 'Closed surface'" in scene.session.undoable(scene.segmentation).left
    with pytest.raises(ValueError, match="stores 'Closed surface'"):
        scene.session.undo(scene.segmentation)
    assert scene.names == ["lesion"]


def test_two_structures_for_one_segment_are_refused(scene):
    segment_id = scene.run()
    with pytest.raises(ValueError, match="Two structures are to replace the segment"):
        scene.begin(scene.structure(segment_id=segment_id), scene.structure(*SECOND, segment_id=segment_id))


def test_without_a_segmentation_there_is_a_clear_word(session):
    with pytest.raises(ValueError, match="No segmentation is given"):
        session.undo(None)


def test_others_who_keep_a_history_are_told_before_each_change(scene):
    told = []
    scene.session._save_state = lambda segmentation: told.append((segmentation, scene.names))
    scene.run()
    scene.session.undo(scene.segmentation)
    scene.session.redo(scene.segmentation)
    assert not scene.session.redo(scene.segmentation)
    assert told == [(scene.segmentation, names) for names in ([], ["lesion"], [])]
