"""Corrections of a segment by flat ROIs and by painted slices, on real nodes."""

from __future__ import annotations

import numpy as np
import pytest
import slicer

from geometries import FIRST, LAST
from MedSAMSlicerLib.mrml.key_slices import key_slice_of, painted_slice
from MedSAMSlicerLib.mrml.segments import SegmentWriter, segment_mask
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.geometry import plane_axes, slice_of, voxel_box_corners
from MedSAMSlicerLib.volume.key_slices import KeySlice

MIDDLE = tuple((first + last) // 2 for first, last in zip(FIRST, LAST, strict=True))


def flat_corners(axis: int) -> np.ndarray:
    """A box in the middle slice of an axis, two voxels smaller than the ROI on every side."""
    first, last = ([value + way for value in corner] for corner, way in ((FIRST, 2), (LAST, -2)))
    first[axis] = last[axis] = MIDDLE[axis]
    return voxel_box_corners(tuple(first), tuple(last))


@pytest.fixture(params=[0, 1, 2], ids="ijk")
def axis(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
def key_roi(headless, ijk_to_ras, axis) -> slicer.vtkMRMLMarkupsROINode:
    return headless.add_roi("key", ijk_to_ras, flat_corners(axis))


def test_a_flat_roi_is_a_key_slice_of_its_axis_in_pixels(volume_node, key_roi, axis):
    key = key_slice_of(key_roi, volume_node)
    x_axis, y_axis = plane_axes(axis)
    expected = Box(FIRST[x_axis] + 2, FIRST[y_axis] + 2, LAST[x_axis] - 2, LAST[y_axis] - 2)
    assert (key.axis, key.index, key.box) == (axis, MIDDLE[axis], expected)


def test_a_key_slice_in_any_direction_fixes_its_slice_and_taking_it_away_restores(
    session, volume_node, roi, segmentation, key_roi, axis
):
    segment_id = session.segment(volume_node, roi, segmentation, axis="k")
    before = segment_mask(segmentation, segment_id, volume_node)

    assert session.segment(volume_node, roi, segmentation, segment_id, axis="k", key_slices=[key_roi]) == segment_id
    after = segment_mask(segmentation, segment_id, volume_node)
    key = key_slice_of(key_roi, volume_node)
    expected = np.zeros_like(slice_of(after, axis, key.index))
    expected[int(key.box.y0) : int(key.box.y1) + 1, int(key.box.x0) : int(key.box.x1) + 1] = True
    np.testing.assert_array_equal(slice_of(after, axis, key.index), expected)

    session.segment(volume_node, roi, segmentation, segment_id, axis="k")
    np.testing.assert_array_equal(segment_mask(segmentation, segment_id, volume_node), before)
    assert session.undo(segmentation)
    np.testing.assert_array_equal(segment_mask(segmentation, segment_id, volume_node), after)
    assert session.undo(segmentation)
    np.testing.assert_array_equal(segment_mask(segmentation, segment_id, volume_node), before)


def test_a_correction_encodes_no_slice_again_and_decodes_no_box_again(
    headless, session, a_box_predictor, volume_node, roi, segmentation, ijk_to_ras
):
    segment_id = session.segment(volume_node, roi, segmentation, axis="k")
    encoded, prompts = len(a_box_predictor.encoded), list(a_box_predictor.prompts)
    key = headless.add_roi("key", ijk_to_ras, flat_corners(2))
    session.segment(volume_node, roi, segmentation, segment_id, axis="k", key_slices=[key])
    assert len(a_box_predictor.encoded) == encoded
    # Two boxes for each slice that the key slice concerns, and its own.
    assert 0 < len(a_box_predictor.prompts) - len(prompts) <= 2 * (LAST[2] - FIRST[2]) + 1


def test_a_painted_slice_stays_voxel_for_voxel(session, volume_node, roi, segmentation, axis):
    segment_id = session.segment(volume_node, roi, segmentation, axis="k")
    painted = segment_mask(segmentation, segment_id, volume_node)
    here = slice_of(painted, axis, MIDDLE[axis])
    here[:] = False
    here[4:6, 7:10] = True
    SegmentWriter(segmentation, segment_id, volume_node).replace([(painted, (0, 0, 0))])

    key = painted_slice(segmentation, segment_id, volume_node, axis, MIDDLE[axis])
    np.testing.assert_array_equal(key.mask, here)
    session.segment(volume_node, roi, segmentation, segment_id, axis="k", key_slices=[key])
    result = slice_of(segment_mask(segmentation, segment_id, volume_node), axis, MIDDLE[axis])
    np.testing.assert_array_equal(result, here)


def test_the_last_of_several_directions_leaves_what_was_fixed_before(session, volume_node, roi, segmentation):
    segment_id = session.segment(volume_node, roi, segmentation, axis="k")
    shape = segment_mask(segmentation, segment_id, volume_node).shape
    empty = KeySlice(2, MIDDLE[2], mask=np.zeros((shape[1], shape[2]), dtype=bool))
    full = KeySlice(0, MIDDLE[0], mask=np.ones((shape[0], shape[1]), dtype=bool))
    session.segment(volume_node, roi, segmentation, segment_id, axis="k", key_slices=[full, empty])
    mask = segment_mask(segmentation, segment_id, volume_node)
    assert not mask[MIDDLE[2]].any()
    others = [index for index in range(shape[0]) if index != MIDDLE[2]]
    assert mask[others, :, MIDDLE[0]].all()


def test_a_stopped_correction_leaves_the_segment_as_it_was(session, volume_node, roi, segmentation, key_roi):
    segment_id = session.segment(volume_node, roi, segmentation, axis="k")
    before = segment_mask(segmentation, segment_id, volume_node)
    steps = session.segment_by_slice(volume_node, roi, segmentation, segment_id, axis="k", key_slices=[key_roi])
    for _ in range(3):
        next(steps)
    np.testing.assert_array_equal(segment_mask(segmentation, segment_id, volume_node), before)
    steps.close()
    np.testing.assert_array_equal(segment_mask(segmentation, segment_id, volume_node), before)


def test_a_correction_touches_no_other_segment(headless, session, volume_node, roi, segmentation, ijk_to_ras, key_roi):
    other = session.segment(
        volume_node, headless.add_roi("other", ijk_to_ras, voxel_box_corners((3, 3, 1), (22, 17, 8))), segmentation
    )
    segment_id = session.segment(volume_node, roi, segmentation, axis="k")
    before = segment_mask(segmentation, other, volume_node)
    session.segment(volume_node, roi, segmentation, segment_id, axis="k", key_slices=[key_roi])
    np.testing.assert_array_equal(segment_mask(segmentation, other, volume_node), before)


def test_review_names_every_slice_the_doubtful_first_and_key_slices_last(
    headless, session, volume_node, roi, segmentation, ijk_to_ras
):
    segment_id = session.segment(volume_node, roi, segmentation, axis="k")
    slices = session.review(segmentation, segment_id)
    assert sorted(each.index for each in slices) == list(range(FIRST[2], LAST[2] + 1))
    assert all(each.axis == 2 and 0 <= each.confidence <= 1 for each in slices)
    assert slices[0].doubtful >= slices[-1].doubtful
    key = headless.add_roi("key", ijk_to_ras, flat_corners(2))
    session.segment(volume_node, roi, segmentation, segment_id, axis="k", key_slices=[key])
    (fixed,) = (each for each in session.review(segmentation, segment_id) if each.index == MIDDLE[2])
    assert (fixed.confidence, fixed.doubtful) == (1, 0)
    assert session.review(segmentation, "unknown") == []


def test_without_an_roi_the_structure_is_followed_from_the_key_slice(
    headless, session, volume_node, segmentation, ijk_to_ras
):
    key = headless.add_roi("vessel", ijk_to_ras, flat_corners(2))
    segment_id = session.segment(volume_node, None, segmentation, key_slices=[key])
    mask = segment_mask(segmentation, segment_id, volume_node)
    assert segmentation.GetSegmentation().GetSegment(segment_id).GetName() == "vessel"
    expected = np.zeros_like(mask[0])
    expected[FIRST[1] + 2 : LAST[1] - 1, FIRST[0] + 2 : LAST[0] - 1] = True
    np.testing.assert_array_equal(mask[MIDDLE[2]], expected)


def test_what_is_no_key_slice_is_refused_with_a_remedy_and_nothing_is_changed(
    headless, session, volume_node, roi, segmentation, ijk_to_ras
):
    outside = headless.add_roi("far", ijk_to_ras, voxel_box_corners((500, 500, 5), (510, 510, 5)))
    shape = (3, 3)
    for keys, options, text in (
        ([roi], {}, "slices thick: a key slice is a flat box"),
        ([outside], {}, "lies outside of the volume"),
        ([KeySlice(2, 999, Box(1, 1, 2, 2))], {}, "no slice 999 along axis K"),
        ([KeySlice(2, 1, mask=np.zeros(shape, dtype=bool))], {"axis": "k"}, r"shape \(3, 3\), its slice"),
        ([KeySlice(2, 3, Box(1, 1, 2, 2))], {"propagation": "reference"}, "takes no key slices"),
    ):
        with pytest.raises(ValueError, match=text):
            session.segment(volume_node, roi, segmentation, key_slices=keys, **options)
    with pytest.raises(ValueError, match="no slice 999"):
        painted_slice(segmentation, "any", volume_node, 2, 999)
    with pytest.raises(ValueError, match="along the axis of the slices"):
        session.segment(volume_node, None, segmentation, axis="k", key_slices=[KeySlice(0, 3, Box(1, 1, 2, 2))])
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 0
