"""What Segment Editor's masking section says holds for segments that the model makes."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util

from geometries import FIRST, LAST
from MedSAMSlicerLib.mrml import task as task_module
from MedSAMSlicerLib.mrml.editing_rules import outside_others
from MedSAMSlicerLib.mrml.segments import SegmentWriter, add_segment, segment_mask
from MedSAMSlicerLib.mrml.structure import Structure


@pytest.fixture
def editor_node(headless):
    return headless.scene.AddNode(slicer.vtkMRMLSegmentEditorNode())


@pytest.fixture
def other(volume_node, segmentation):
    """A segment that overlaps the box in part."""
    segment_id = add_segment(segmentation, "other")
    mask = np.zeros(slicer.util.arrayFromVolume(volume_node).shape, dtype=bool)
    mask[3:6, 4:12, 2:13] = True
    SegmentWriter(segmentation, segment_id, volume_node).add(mask, (0, 0, 0))
    return segment_id


def segment(session, volume_node, segmentation, editor_node, segment_id=None):
    structure = Structure.of_voxels(volume_node, FIRST, LAST, "made", segment_id)
    task = session.begin(volume_node, segmentation, [structure], editor_node=editor_node)
    list(session.run(task))
    return segment_mask(segmentation, task.segment_ids[0], volume_node)


def box(volume_node, first=FIRST, last=LAST) -> np.ndarray:
    mask = np.zeros(slicer.util.arrayFromVolume(volume_node).shape, dtype=bool)
    mask[first[2] : last[2] + 1, first[1] : last[1] + 1, first[0] : last[0] + 1] = True
    return mask


def test_inside_of_a_segment_only_its_voxels_are_taken(session, volume_node, segmentation, editor_node, other):
    editor_node.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment)
    editor_node.SetMaskSegmentID(other)
    editor_node.SetOverwriteMode(editor_node.OverwriteNone)
    held = segment_mask(segmentation, other, volume_node)
    made = segment(session, volume_node, segmentation, editor_node)
    np.testing.assert_array_equal(made, box(volume_node) & held)
    np.testing.assert_array_equal(segment_mask(segmentation, other, volume_node), held)


def test_segments_that_may_be_overwritten_give_way(session, volume_node, segmentation, editor_node, other):
    held = segment_mask(segmentation, other, volume_node)
    editor_node.SetOverwriteMode(editor_node.OverwriteAllSegments)
    made = segment(session, volume_node, segmentation, editor_node)
    np.testing.assert_array_equal(made, box(volume_node))
    np.testing.assert_array_equal(segment_mask(segmentation, other, volume_node), held & ~made)
    assert session.undo(segmentation)
    np.testing.assert_array_equal(segment_mask(segmentation, other, volume_node), held)


def test_only_voxels_of_the_intensity_range_are_taken(session, volume_node, segmentation, editor_node):
    editor_node.SetOverwriteMode(editor_node.OverwriteNone)
    editor_node.SetSourceVolumeIntensityMask(True)
    editor_node.SetSourceVolumeIntensityMaskRange(30, 60)
    made = segment(session, volume_node, segmentation, editor_node)
    values = slicer.util.arrayFromVolume(volume_node)
    np.testing.assert_array_equal(made, box(volume_node) & (values >= 30) & (values <= 60))


def test_a_segment_that_is_made_again_keeps_what_lies_outside_of_the_editable_area(
    session, volume_node, segmentation, editor_node, other
):
    segment_id = add_segment(segmentation, "made")
    mask = np.zeros_like(box(volume_node))
    mask[8:10, 20:23, 25:29] = True
    SegmentWriter(segmentation, segment_id, volume_node).add(mask, (0, 0, 0))
    editor_node.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment)
    editor_node.SetMaskSegmentID(other)
    editor_node.SetOverwriteMode(editor_node.OverwriteNone)
    held = segment_mask(segmentation, other, volume_node)
    made = segment(session, volume_node, segmentation, editor_node, segment_id)
    np.testing.assert_array_equal(made, (box(volume_node) & held) | mask)


def test_the_users_own_settings_stay_as_they_are(headless, session, volume_node, segmentation, editor_node):
    count = headless.scene.GetNumberOfNodesByClass("vtkMRMLSegmentEditorNode")
    segment(session, volume_node, segmentation, editor_node)
    assert editor_node.GetSegmentationNode() is None
    assert headless.scene.GetNumberOfNodesByClass("vtkMRMLSegmentEditorNode") == count


def test_of_two_structures_of_a_run_that_keep_out_of_others_the_first_one_keeps_what_they_share(
    session, volume_node, segmentation
):
    shifted = (FIRST[0] + 4, FIRST[1] + 2, FIRST[2]), (LAST[0] + 4, LAST[1] + 2, LAST[2])
    boxes = {"first": (FIRST, LAST), "second": shifted}
    structures = [Structure.of_voxels(volume_node, *corners, name) for name, corners in boxes.items()]
    task = session.begin(volume_node, segmentation, structures, editor_node=outside_others())
    list(session.run(task))
    first, second = (segment_mask(segmentation, each, volume_node) for each in task.segment_ids)
    np.testing.assert_array_equal(first, box(volume_node))
    np.testing.assert_array_equal(second, box(volume_node, *shifted) & ~first)


def test_an_error_of_the_rules_takes_all_structures_of_the_run_back(session, volume_node, segmentation, monkeypatch):
    def fail(editor_node, writer, before, volume):
        writer.replace([])
        raise RuntimeError("Slicer could not write.")

    monkeypatch.setattr(task_module, "apply_editing_rules", fail)
    structures = [Structure.of_voxels(volume_node, FIRST, LAST, name) for name in ("first", "second")]
    task = session.begin(volume_node, segmentation, structures, editor_node=outside_others())
    with pytest.raises(RuntimeError, match="could not write"):
        list(session.run(task))
    assert list(segmentation.GetSegmentation().GetSegmentIDs()) == []
