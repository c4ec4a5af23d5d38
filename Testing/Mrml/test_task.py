"""What happens to nodes while a structure is being segmented: computed apart, written in the end, or taken back."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import slicer
import slicer.util

from box_predictor import BoxPredictor
from geometries import FIRST, LAST
from MedSAMSlicerLib.mrml import pending, segment_state, segments
from MedSAMSlicerLib.mrml.segments import add_segment, segment_mask
from MedSAMSlicerLib.mrml.session import SegmentationSession
from MedSAMSlicerLib.mrml.structure import Structure
from MedSAMSlicerLib.mrml.task import SceneChangedError
from MedSAMSlicerLib.mrml.volumes import ijk_to_world
from MedSAMSlicerLib.volume.geometry import voxel_box_corners

SECOND = ((22, 17, 0), (28, 22, 9))


@pytest.fixture
def structures(headless, volume_node, roi):
    other = headless.add_roi("other", ijk_to_world(volume_node), voxel_box_corners(*SECOND))
    return [Structure.of_roi(volume_node, roi), Structure.of_roi(volume_node, other)]


def mask_of(volume_node, first, last) -> np.ndarray:
    mask = np.zeros(slicer.util.arrayFromVolume(volume_node).shape, dtype=bool)
    mask[tuple(slice(low, high + 1) for low, high in zip(first[::-1], last[::-1], strict=True))] = True
    return mask


def another_frame(volume_node):
    """What a sequence browser gives a volume node at the next time point."""
    image = slicer.vtkOrientedImageData()
    image.DeepCopy(volume_node.GetImageData())
    return image


def names(segmentation) -> list[str]:
    content = segmentation.GetSegmentation()
    return [content.GetSegment(segment_id).GetName() for segment_id in content.GetSegmentIDs()]


def test_several_structures_are_one_step_of_undo(session, volume_node, segmentation, structures):
    task = session.begin(volume_node, segmentation, structures)
    steps = list(session.run(task))
    assert {(step.structure, step.segment_id) for step in steps} == set(enumerate(task.segment_ids))
    assert steps[-1].done == steps[-1].total == task.total
    for segment_id, (first, last) in zip(task.segment_ids, ((FIRST, LAST), SECOND), strict=True):
        np.testing.assert_array_equal(
            segment_mask(segmentation, segment_id, volume_node), mask_of(volume_node, first, last)
        )
    assert session.undo(segmentation)
    assert names(segmentation) == []
    assert not session.undoable(segmentation)
    assert session.redo(segmentation)
    assert names(segmentation) == ["lesion", "other"]


@pytest.fixture
def clock(monkeypatch):
    """What the writer of slices takes for the time; it stands still until a test turns it."""
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(pending, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def test_slices_are_written_together_once_a_second_and_the_first_one_at_once(
    session, volume_node, segmentation, roi, clock
):
    task = session.begin(volume_node, segmentation, [Structure.of_roi(volume_node, roi)], axis="k")
    results = task.compute(session.predictor, session.cache)

    def written() -> int:
        return int(segment_mask(segmentation, task.segment_ids[0], volume_node).any(axis=(1, 2)).sum())

    task.take(*next(results))
    assert written() == 1
    for _ in range(3):
        task.take(*next(results))
    assert written() == 1
    clock.seconds += 1
    task.take(*next(results))
    assert written() > 1


def test_a_structure_is_complete_when_the_next_one_begins_and_no_segment_is_read_for_another(
    session, volume_node, segmentation, structures, clock, monkeypatch
):
    reads = []
    monkeypatch.setattr(segment_state, "held_by", lambda *which: (reads.append(which), segments.held_by(*which))[1])
    task = session.begin(volume_node, segmentation, structures)
    for number, result in task.compute(session.predictor, session.cache):
        task.take(number, result)
        if number == 1:
            mask = segment_mask(segmentation, task.segment_ids[0], volume_node)
            np.testing.assert_array_equal(mask, mask_of(volume_node, FIRST, LAST))
    task.finish()
    assert session.undoable(segmentation).names == ("lesion", "other")
    assert reads == []


def test_the_computation_runs_in_a_thread_and_touches_no_node(session, volume_node, segmentation, structures):
    task = session.begin(volume_node, segmentation, structures)
    results = []
    events = []
    for node in (volume_node, segmentation):
        node.AddObserver("AnyEvent", lambda caller, event: events.append(event))
    thread = threading.Thread(target=lambda: results.extend(task.compute(session.predictor, session.cache)))
    thread.start()
    thread.join()
    assert names(segmentation) == []
    assert events == []
    for number, result in results:
        task.take(number, result)
    task.finish()
    assert names(segmentation) == ["lesion", "other"]


def test_what_is_done_can_be_kept_or_rolled_back(session, volume_node, segmentation, structures):
    for ending, left in (("keep", ["lesion"]), ("roll_back", [])):
        task = session.begin(volume_node, segmentation, structures)
        results = task.compute(session.predictor, session.cache)
        for _ in range(3):
            task.take(*next(results))
        getattr(task, ending)()
        assert names(segmentation) == left
        if left:
            assert segment_mask(segmentation, task.segment_ids[0], volume_node).any()
            session.undo(segmentation)


def test_a_roll_back_gives_a_replaced_segment_its_old_voxels_and_leaves_what_others_did_meanwhile(
    headless, session, volume_node, segmentation, roi
):
    segment_id = session.segment(volume_node, roi, segmentation)
    before = segment_mask(segmentation, segment_id, volume_node)
    larger = headless.add_roi("larger", ijk_to_world(volume_node), voxel_box_corners((2, 4, 1), (25, 20, 8)))
    task = session.begin(volume_node, segmentation, [Structure.of_roi(volume_node, larger, segment_id)])
    results = task.compute(session.predictor, session.cache)
    task.take(*next(results))
    assert not np.array_equal(segment_mask(segmentation, segment_id, volume_node), before)
    add_segment(segmentation, "painted meanwhile")
    task.roll_back()
    np.testing.assert_array_equal(segment_mask(segmentation, segment_id, volume_node), before)
    assert names(segmentation) == ["lesion", "painted meanwhile"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda volume, segmentation: volume.GetScene().RemoveNode(volume), "volume was deleted"),
        (lambda volume, segmentation: segmentation.GetScene().RemoveNode(segmentation), "segmentation was deleted"),
        (
            lambda volume, segmentation: segmentation.GetSegmentation().RemoveAllSegments(),
            "segment was deleted",
        ),
        (lambda volume, segmentation: volume.SetOrigin(1, 2, 3), "changed or moved"),
        (
            lambda volume, segmentation: volume.SetAndObserveImageData(another_frame(volume)),
            "changed or moved",
        ),
    ],
    ids=["volume deleted", "segmentation deleted", "segment deleted", "volume moved", "another frame"],
)
def test_a_scene_that_changes_meanwhile_ends_the_task_and_nothing_is_written(
    session, volume_node, segmentation, structures, change, told
):
    task = session.begin(volume_node, segmentation, structures)
    results = task.compute(session.predictor, session.cache)
    task.take(*next(results))
    change(volume_node, segmentation)
    with pytest.raises(SceneChangedError, match=told):
        task.take(*next(results))
    task.roll_back()
    assert segmentation.GetScene() is None or names(segmentation) == []


def test_a_stopped_correction_leaves_no_empty_step_of_undo(
    headless, session, volume_node, segmentation, roi, ijk_to_ras
):
    segment_id = session.segment(volume_node, roi, segmentation, axis="k")
    session.undo(segmentation)
    session.redo(segmentation)
    key = headless.add_roi("key", ijk_to_ras, voxel_box_corners((6, 7, 4), (12, 11, 4)))
    structure = Structure.of_roi(volume_node, roi, segment_id, [key])
    task = session.begin(volume_node, segmentation, [structure], axis="k")
    task.take(*next(task.compute(session.predictor, session.cache)))
    task.keep()
    assert session.undo(segmentation)
    assert names(segmentation) == []


def test_boxes_of_single_slices_hold_there_and_the_slices_between_follow(session, volume_node, segmentation):
    boxes = {2: (5, 6, 10, 12), 6: (9, 6, 14, 12), 99: (0, 0, 3, 3)}
    task = session.begin(volume_node, segmentation, [Structure.of_slices(boxes, "k", "by hand")])
    list(session.run(task))
    mask = segment_mask(segmentation, task.segment_ids[0], volume_node)
    assert names(segmentation) == ["by hand"]
    assert sorted(set(np.nonzero(mask)[0])) == [2, 3, 4, 5, 6]
    np.testing.assert_array_equal(mask[2], mask_of(volume_node, (5, 6, 2), (10, 12, 2))[2])
    np.testing.assert_array_equal(mask[6], mask_of(volume_node, (9, 6, 6), (14, 12, 6))[6])
    assert mask[4, 6:13, 7:13].all()


def test_a_box_of_voxels_needs_no_node(session, volume_node, segmentation):
    task = session.begin(volume_node, segmentation, [Structure.of_voxels(volume_node, FIRST, LAST, "liver")])
    list(session.run(task))
    assert names(segmentation) == ["liver"]
    np.testing.assert_array_equal(
        segment_mask(segmentation, task.segment_ids[0], volume_node), mask_of(volume_node, FIRST, LAST)
    )


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda volume: Structure.of_voxels(volume, (5, 5, 5), (4, 9, 9)), "first and the last voxel"),
        (lambda volume: Structure.of_voxels(volume, (5, 5), (9, 9)), "first and the last voxel"),
        (lambda volume: Structure.of_slices({}, "k"), "at least one slice"),
        (lambda volume: Structure.of_slices({3: (1, 2, 3)}, "k"), r"\(x0, y0, x1, y1\)"),
        (lambda volume: Structure.of_slices({3: (1, 2, 3, 4)}, "z"), "axis 'z' is unknown"),
    ],
)
def test_what_is_no_structure_is_refused_with_a_remedy(volume_node, make, told):
    with pytest.raises(ValueError, match=told):
        make(volume_node)


def test_a_box_outside_of_the_volume_is_refused_before_anything_is_changed(session, volume_node, segmentation):
    for structure in (
        Structure.of_voxels(volume_node, (100, 0, 0), (110, 5, 5), "far"),
        Structure.of_slices({50: (1, 2, 3, 4)}, "k", "far"),
    ):
        with pytest.raises(ValueError, match="'far' lies outside of the volume 'CT'"):
            session.begin(volume_node, segmentation, [structure])
    assert names(segmentation) == []


@pytest.mark.parametrize("looked_at", [LAST[2], None, FIRST[2] - 1], ids=["a slice of the box", "nothing", "outside"])
def test_the_slice_that_the_user_looks_at_comes_first_from_one_decoding(
    session, a_box_predictor, volume_node, segmentation, looked_at
):
    plain = SegmentationSession(BoxPredictor())
    structure = Structure.of_voxels(volume_node, FIRST, LAST, "liver")
    first = None if looked_at is None else (2, looked_at)
    task = session.begin(volume_node, segmentation, [structure], axis="k", first=first)
    steps = session.run(task)
    step = next(steps)
    assert step.result.index == (looked_at if looked_at == LAST[2] else (FIRST[2] + LAST[2]) // 2)
    assert len(a_box_predictor.prompts) == 1
    assert not step.result.final
    assert segment_mask(segmentation, step.segment_id, volume_node).any()
    list(steps)
    other = plain.begin(volume_node, segmentation, [structure], axis="k")
    list(plain.run(other))
    np.testing.assert_array_equal(
        segment_mask(segmentation, task.segment_ids[0], volume_node),
        segment_mask(segmentation, other.segment_ids[0], volume_node),
    )
