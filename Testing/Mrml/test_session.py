"""A volume node and an ROI node in, a segment out."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from geometries import FIRST, LAST, affine, rotation
from MedSAMSlicerLib.headless.scene import HeadlessScene
from MedSAMSlicerLib.mrml.segments import add_segment, labelmap_of, oriented_image, segment_mask
from MedSAMSlicerLib.mrml.session import SegmentationSession
from MedSAMSlicerLib.mrml.transforms import matrix_from_numpy, numpy_from_matrix
from MedSAMSlicerLib.mrml.volumes import ijk_to_world
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.files import Volume
from MedSAMSlicerLib.volume.geometry import transform_points, voxel_box_corners
from MedSAMSlicerLib.volume.propagation import PROPAGATIONS, segment_each_slice


def expected_mask(volume: slicer.vtkMRMLVolumeNode) -> np.ndarray:
    mask = np.zeros(slicer.util.arrayFromVolume(volume).shape[:3], dtype=bool)
    mask[FIRST[2] : LAST[2] + 1, FIRST[1] : LAST[1] + 1, FIRST[0] : LAST[0] + 1] = True
    return mask


def add_transform(headless: HeadlessScene, matrix: np.ndarray) -> slicer.vtkMRMLLinearTransformNode:
    node = headless.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetMatrixTransformToParent(matrix_from_numpy(matrix))
    return node


def voxels_of(segmentation: slicer.vtkMRMLSegmentationNode, segment_id: str) -> tuple[list[float], bytes]:
    """The voxels of one segment with their grid, to see that nothing moved, added, removed or resampled any."""
    image = slicer.vtkOrientedImageData()
    segmentation.GetBinaryLabelmapRepresentation(segment_id, image)
    i0, i1, j0, j1, k0, k1 = image.GetExtent()
    mask = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1)
    grid = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(grid)
    return numpy_from_matrix(grid).round(9).tolist(), (np.argwhere(mask) + np.array([k0, j0, i0])).tobytes()


@pytest.mark.parametrize("axis", ["auto", "i", "j", "k"])
def test_an_roi_around_voxels_becomes_a_segment_of_these_voxels(session, volume_node, roi, segmentation, axis):
    segment_id = session.segment(volume_node, roi, segmentation, axis=axis)
    np.testing.assert_array_equal(segment_mask(segmentation, segment_id, volume_node), expected_mask(volume_node))
    assert segmentation.GetSegmentation().GetSegment(segment_id).GetName() == "lesion"


@pytest.mark.parametrize(
    "under",
    [set(case) for n in range(1, 4) for case in itertools.combinations(("volume", "roi", "segmentation"), n)],
    ids=" and ".join,
)
def test_parent_transforms_of_all_nodes_are_heeded(headless, session, volume_node, segmentation, ijk_to_ras, under):
    matrices = {
        "volume": affine(rotation(5, 10, -15), (1, 1, 1), (10, -20, 30)),
        "roi": affine(rotation(-30, 8, 22), (1, 1, 1), (-7, 3, 11)),
        "segmentation": affine(rotation(60, -12, 33), (1, 1, 1), (4, 5, -60)),
    }
    if "volume" in under:
        volume_node.SetAndObserveTransformNodeID(add_transform(headless, matrices["volume"]).GetID())
    if "segmentation" in under:
        segmentation.SetAndObserveTransformNodeID(add_transform(headless, matrices["segmentation"]).GetID())
    # The ROI must lie over the voxels in the world, whatever it is under.
    parent = matrices["roi"] if "roi" in under else np.eye(4)
    roi = headless.add_roi("lesion", np.linalg.inv(parent) @ ijk_to_world(volume_node), voxel_box_corners(FIRST, LAST))
    if "roi" in under:
        roi.SetAndObserveTransformNodeID(add_transform(headless, parent).GetID())
    segment_id = session.segment(volume_node, roi, segmentation)
    np.testing.assert_array_equal(segment_mask(segmentation, segment_id, volume_node), expected_mask(volume_node))
    # Where it lies in the world, by Slicer's own reckoning.
    bounds = np.zeros(6)
    segmentation.GetRASBounds(bounds)
    corners = transform_points(ijk_to_world(volume_node), np.argwhere(expected_mask(volume_node))[:, ::-1])
    assert (bounds[::2] <= corners.min(axis=0) + 1e-6).all()
    assert (bounds[1::2] >= corners.max(axis=0) - 1e-6).all()
    np.testing.assert_allclose(segmentation.GetSegmentCenterRAS(segment_id), corners.mean(axis=0), atol=3.0)


def test_an_roi_under_a_scaling_transform_covers_what_slicer_shows(
    headless, session, volume_node, segmentation, ijk_to_ras
):
    scale = np.diag([2.0, 2.0, 2.0, 1.0])
    roi = headless.add_roi("lesion", np.linalg.inv(scale) @ ijk_to_ras, voxel_box_corners(FIRST, LAST))
    roi.SetAndObserveTransformNodeID(add_transform(headless, scale).GetID())
    segment_id = session.segment(volume_node, roi, segmentation)
    np.testing.assert_array_equal(segment_mask(segmentation, segment_id, volume_node), expected_mask(volume_node))


def test_an_oblique_roi_gives_every_slice_its_own_box(
    headless, session, a_box_predictor, volume_node, segmentation, ijk_to_ras
):
    tilted = affine(rotation(0, 0, 0), (1, 1, 1), (0, 0, 0))
    tilted[:3, :3] = rotation(0, 30, 0)
    center = transform_points(ijk_to_ras, np.array([[14.0, 12.0, 5.0]]))[0]
    roi = headless.scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "tilted")
    directions = ijk_to_ras[:3, :3] / np.linalg.norm(ijk_to_ras[:3, :3], axis=0)
    roi.SetAndObserveObjectToNodeMatrix(
        matrix_from_numpy(affine(directions @ tilted[:3, :3], (1, 1, 1), tuple(center)))
    )
    roi.SetSize(4, 6, 12)
    session.segment(volume_node, roi, segmentation, axis="k", propagation="per-slice")
    middles = {(box.x0 + box.x1) / 2 for box in a_box_predictor.prompts}
    assert len(middles) > 2, "the boxes must move with the tilt"


def test_segments_apart_touching_and_overlapping_do_not_change_each_other(
    headless, session, volume_node, segmentation, ijk_to_ras
):
    boxes = {
        "first": (FIRST, LAST),
        "apart": ((22, 17, 0), (28, 22, 9)),
        "touching": ((21, 6, 2), (24, 12, 7)),
        "overlapping": ((10, 10, 3), (25, 20, 8)),
        "across all": ((0, 4, 0), (29, 23, 9)),
    }
    segment_ids, before = {}, {}
    for name, (first, last) in boxes.items():
        roi = headless.add_roi(name, ijk_to_ras, voxel_box_corners(first, last))
        segment_ids[name] = session.segment(volume_node, roi, segmentation)
        assert {each: voxels_of(segmentation, segment_ids[each]) for each in before} == before, (
            f"{name} changed another segment"
        )
        before[name] = voxels_of(segmentation, segment_ids[name])
        mask = segment_mask(segmentation, segment_ids[name], volume_node)
        expected = np.zeros_like(mask)
        expected[first[2] : last[2] + 1, first[1] : last[1] + 1, first[0] : last[0] + 1] = True
        np.testing.assert_array_equal(mask, expected, err_msg=name)
    # Replacing one of them leaves the others alone as well.
    replaced = before.pop("apart")
    session.segment(
        volume_node,
        headless.add_roi("other", ijk_to_ras, voxel_box_corners(FIRST, LAST)),
        segmentation,
        segment_ids["apart"],
    )
    assert {each: voxels_of(segmentation, segment_ids[each]) for each in before} == before
    np.testing.assert_array_equal(
        segment_mask(segmentation, segment_ids["apart"], volume_node), expected_mask(volume_node)
    )
    session.undo(segmentation)
    assert voxels_of(segmentation, segment_ids["apart"]) == replaced


def test_segments_of_another_geometry_that_share_a_label_map_stay_as_they_are(
    headless, session, volume_node, roi, ijk_to_ras
):
    coarse = headless.add_volume(
        Volume(np.zeros((7, 9, 11), np.uint8), affine(rotation(3, 4, 5), (4, 4, 4), (-20, 30, 0)), "PET")
    )
    segmentation = headless.add_segmentation("PET segments", coarse)
    lesions = []
    for number in range(2):
        lesions.append(add_segment(segmentation, f"lesion {number}"))
        image = oriented_image(np.ones((2, 2, 2), bool), [1 + 4 * number, 2, 3], ijk_to_world(coarse))
        slicer.vtkSlicerSegmentationsModuleLogic.SetBinaryLabelmapToSegment(
            image,
            segmentation,
            lesions[number],
            slicer.vtkSlicerSegmentationsModuleLogic.MODE_REPLACE,
            image.GetExtent(),
        )
    # The segmentation's geometry was changed after they were drawn, as the Segment Editor allows.
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
    before = [voxels_of(segmentation, lesion) for lesion in lesions]
    segment_id = session.segment(volume_node, roi, segmentation)
    assert [voxels_of(segmentation, lesion) for lesion in lesions] == before
    np.testing.assert_array_equal(segment_mask(segmentation, segment_id, volume_node), expected_mask(volume_node))


@pytest.mark.parametrize(
    ("spacing", "tolerance"), [((0.4, 0.4, 0.4), 0.03), ((2.0, 2.0, 2.0), 0.12)], ids=["finer", "coarser"]
)
def test_a_segmentation_keeps_its_own_geometry(headless, session, volume_node, roi, ijk_to_ras, spacing, tolerance):
    size = tuple(int(np.ceil(140 / step)) for step in spacing)
    origin = ijk_to_ras @ [14, 12, 5, 1]
    grid = headless.add_volume(
        Volume(np.zeros(size, np.uint8), affine(rotation(10, 20, 30), spacing, (0, 0, 0)), "grid")
    )
    shift = affine(
        rotation(10, 20, 30), spacing, tuple(origin[:3] - rotation(10, 20, 30) @ np.array([70.0, 70.0, 70.0]))
    )
    grid.SetIJKToRASMatrix(matrix_from_numpy(shift))
    segmentation = headless.add_segmentation("S", grid)
    segment_id = session.segment(volume_node, roi, segmentation)
    np.testing.assert_allclose(labelmap_of(segmentation, segment_id).GetSpacing(), spacing)
    milliliters = segment_mask(segmentation, segment_id, grid).sum() * np.prod(spacing)
    expected = expected_mask(volume_node).sum() * abs(np.linalg.det(ijk_to_ras[:3, :3]))
    assert milliliters == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("progress", ["partial", "whole"])
def test_one_undo_takes_one_segmentation_back_and_redo_brings_it_again(
    session, volume_node, roi, segmentation, progress
):
    existing = add_segment(segmentation, "drawn by hand")
    steps = session.segment_by_slice(volume_node, roi, segmentation)
    if progress == "partial":
        next(steps), next(steps)
        steps.close()
    else:
        list(steps)
    segment_ids = segmentation.GetSegmentation().GetSegmentIDs()
    result = segment_mask(segmentation, segment_ids[-1], volume_node)
    assert result.any()
    assert session.undo(segmentation)
    assert segmentation.GetSegmentation().GetSegmentIDs() == (existing,)
    assert not session.undo(segmentation)
    assert session.redo(segmentation)
    assert segmentation.GetSegmentation().GetSegmentIDs() == segment_ids
    np.testing.assert_array_equal(segment_mask(segmentation, segment_ids[-1], volume_node), result)
    assert not session.redo(segmentation)


def test_undo_of_a_replaced_segment_brings_its_old_voxels_back(
    headless, session, volume_node, roi, segmentation, ijk_to_ras
):
    segment_id = session.segment(volume_node, roi, segmentation)
    other = headless.add_roi("other", ijk_to_ras, voxel_box_corners((0, 4, 0), (8, 9, 4)))
    assert session.segment(volume_node, other, segmentation, segment_id) == segment_id
    assert segment_mask(segmentation, segment_id, volume_node).sum() == 9 * 6 * 5
    assert session.undo(segmentation)
    np.testing.assert_array_equal(segment_mask(segmentation, segment_id, volume_node), expected_mask(volume_node))


def test_a_slice_that_a_propagation_gives_again_replaces_the_earlier_one(
    session, volume_node, roi, segmentation, monkeypatch
):
    def second_thoughts(stack, boxes, predictor, cache):
        results = list(segment_each_slice(stack, boxes, predictor, cache))
        yield from results
        yield dataclasses.replace(results[1], mask=np.zeros_like(results[1].mask))

    monkeypatch.setitem(PROPAGATIONS, "second thoughts", second_thoughts)
    steps = list(session.segment_by_slice(volume_node, roi, segmentation, axis="k", propagation="second thoughts"))
    expected = expected_mask(volume_node)
    expected[steps[-1].result.index] = False
    np.testing.assert_array_equal(segment_mask(segmentation, steps[0].segment_id, volume_node), expected)
    assert [step.done for step in steps] == [1, 2, 3, 4, 5, 6, 6]
    assert session.undo(segmentation)
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 0


def test_a_caller_who_stops_keeps_the_slices_that_are_done(session, volume_node, roi, segmentation):
    steps = session.segment_by_slice(volume_node, roi, segmentation, axis="k")
    done = [next(steps) for _ in range(3)]
    steps.close()
    mask = segment_mask(segmentation, done[0].segment_id, volume_node)
    assert set(np.flatnonzero(mask.any(axis=(1, 2)))) == {step.result.index for step in done}
    # The middle slice comes from its box first, then again among its neighbors.
    assert [(step.done, step.total) for step in done] == [(1, 6), (1, 6), (2, 6)]


def test_the_first_mask_is_in_the_segment_before_a_second_slice_is_encoded(
    session, a_box_predictor, volume_node, roi, segmentation
):
    steps = session.segment_by_slice(volume_node, roi, segmentation)
    step = next(steps)
    assert len(a_box_predictor.encoded) == 1
    assert segment_mask(segmentation, step.segment_id, volume_node).any()
    steps.close()


def test_an_error_on_the_way_leaves_the_segmentation_as_it_was(
    session, a_box_predictor, volume_node, roi, segmentation
):
    existing = session.segment(volume_node, roi, segmentation)
    before = voxels_of(segmentation, existing)
    session.cache.clear()
    encode = a_box_predictor.encode

    def fail_on_the_third_slice(image):
        if len(a_box_predictor.encoded) == 9:
            raise RuntimeError("CUDA out of memory")
        return encode(image)

    a_box_predictor.encoded.clear()
    a_box_predictor.encoded.extend([np.zeros(1)] * 7)
    a_box_predictor.encode = fail_on_the_third_slice
    with pytest.raises(RuntimeError, match="out of memory"):
        session.segment(volume_node, roi, segmentation)
    with pytest.raises(RuntimeError, match="out of memory"):
        session.segment(volume_node, roi, segmentation, existing)
    assert segmentation.GetSegmentation().GetSegmentIDs() == (existing,)
    assert voxels_of(segmentation, existing) == before


def test_the_source_volume_is_never_changed(session, volume_node, roi, segmentation):
    voxels, modified = slicer.util.arrayFromVolume(volume_node).tobytes(), volume_node.GetImageData().GetMTime()
    session.segment(volume_node, roi, segmentation)
    session.undo(segmentation)
    assert slicer.util.arrayFromVolume(volume_node).tobytes() == voxels
    assert volume_node.GetImageData().GetMTime() == modified


def test_a_second_box_on_the_same_slices_encodes_none_and_another_window_all(
    headless, session, a_box_predictor, volume_node, roi, segmentation, ijk_to_ras
):
    session.segment(volume_node, roi, segmentation)
    encoded = len(a_box_predictor.encoded)
    assert encoded == 6
    session.segment(
        volume_node, headless.add_roi("b", ijk_to_ras, voxel_box_corners((1, 4, 2), (9, 9, 7))), segmentation
    )
    assert len(a_box_predictor.encoded) == encoded
    session.segment(volume_node, roi, segmentation, window="bone")
    assert len(a_box_predictor.encoded) == 2 * encoded


def test_two_sessions_share_the_cache_that_they_are_given(a_box_predictor, volume_node, roi, segmentation):
    cache = EmbeddingCache()
    for _ in range(2):
        SegmentationSession(a_box_predictor, cache).segment(volume_node, roi, segmentation)
    assert len(a_box_predictor.encoded) == len(cache) == 6


def test_changed_voxels_are_encoded_again(session, a_box_predictor, volume_node, roi, segmentation):
    session.segment(volume_node, roi, segmentation, axis="k", window="-60/300")
    slicer.util.arrayFromVolume(volume_node)[4] += 100
    session.segment(volume_node, roi, segmentation, axis="k", window="-60/300")
    assert len(a_box_predictor.encoded) == 6 + 1


def test_an_roi_partly_outside_is_clipped_and_one_wholly_outside_is_refused(
    headless, session, volume_node, segmentation, ijk_to_ras
):
    partly = headless.add_roi("partly", ijk_to_ras, voxel_box_corners((25, 18, 8), (60, 50, 40)))
    segment_id = session.segment(volume_node, partly, segmentation, propagation="per-slice")
    mask = segment_mask(segmentation, segment_id, volume_node)
    assert mask.sum() == mask[8:, 18:, 25:].size == 2 * 6 * 5
    outside = headless.add_roi("outside", ijk_to_ras, voxel_box_corners((40, 50, 20), (60, 60, 30)))
    with pytest.raises(ValueError, match="'outside' lies outside of the volume 'CT'"):
        session.segment(volume_node, outside, segmentation)
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 1


def test_a_flat_roi_segments_the_slice_it_lies_in(headless, session, volume_node, segmentation, ijk_to_ras):
    corners = voxel_box_corners((5, 6, 4), (20, 15, 4))
    corners[:, 2] = np.clip(corners[:, 2], 4.2, 4.3)
    mask = segment_mask(
        segmentation,
        session.segment(volume_node, headless.add_roi("flat", ijk_to_ras, corners), segmentation, axis="k"),
        volume_node,
    )
    assert list(np.flatnonzero(mask.any(axis=(1, 2)))) == [4]


def test_a_shown_surface_follows_the_segment(session, volume_node, roi, segmentation):
    segment_id = session.segment(volume_node, roi, segmentation)
    segmentation.CreateClosedSurfaceRepresentation()
    second = session.segment(volume_node, roi, segmentation)
    points = [
        segmentation.GetClosedSurfaceInternalRepresentation(each).GetNumberOfPoints() for each in (segment_id, second)
    ]
    assert points[0] == points[1] > 0


@pytest.mark.parametrize("channels", [3, 4])
def test_color_volumes_and_single_slices_work(headless, session, a_box_predictor, segmentation, ijk_to_ras, channels):
    pixels = np.random.default_rng(3).integers(0, 255, (1, 24, 30, channels), dtype=np.uint8)
    photo = headless.add_volume(Volume(pixels, ijk_to_ras, "photo"))
    roi = headless.add_roi("nevus", ijk_to_ras, voxel_box_corners((5, 6, 0), (20, 15, 0)))
    mask = segment_mask(segmentation, session.segment(photo, roi, segmentation, propagation="per-slice"), photo)
    assert mask.sum() == mask[0, 6:16, 5:21].sum() == 160
    assert a_box_predictor.encoded[0].shape == (24, 30, 3)
    within = segment_mask(segmentation, session.segment(photo, roi, segmentation), photo)
    assert within.any()
    assert not (within & ~mask).any()
