"""Slice axes, and an ROI cut by slice planes, against an independent computation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from geometries import GEOMETRIES, affine, rotation
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.geometry import (
    bounding_box,
    box_corners,
    choose_axis,
    plane_axes,
    roi_boxes,
    slice_of,
    transform_points,
    voxel_box_corners,
)

I, J, K = range(3)  # noqa: E741 - the names of the axes
DIMENSIONS = (30, 24, 10)
FIRST, LAST = (5, 6, 2), (20, 15, 7)


@pytest.mark.parametrize(
    ("spacing", "dimensions", "axis"),
    [
        ((0.8, 0.8, 5.0), (512, 512, 30), K),
        ((5.0, 0.8, 0.8), (30, 512, 512), I),
        ((0.8, 5.0, 0.8), (512, 30, 512), J),
        ((1.0, 1.0, 1.0), (90, 90, 90), K),
        ((2.0, 2.0, 1.0), (90, 90, 90), K),
        ((1.0, 2.0, 2.0), (90, 90, 90), K),
        ((1.009, 1.0, 1.0), (90, 90, 90), K),
        ((1.0, 1.009, 1.0), (90, 90, 90), K),
        ((1.0, 1.02, 1.0), (90, 90, 90), J),
        ((0.5, 0.5, 0.3), (400, 400, 1), K),
        ((0.5, 3.0, 0.5), (1, 400, 400), I),
        ((3.0, 0.5, 0.5), (400, 1, 400), J),
        ((1.0, 1.0, 4.0), (1, 1, 50), K),
    ],
    ids=[
        "axial", "sagittal", "coronal", "isotropic", "two coarse axes I and J", "two coarse axes J and K",
        "1 % noise in I", "1 % noise in J", "2 % coarser", "one slice", "one along I", "one along J", "a line",
    ],
)  # fmt: skip
def test_slices_lie_across_the_coarsest_axis_and_across_k_in_doubt(spacing, dimensions, axis):
    assert choose_axis(spacing, dimensions) == axis


@pytest.mark.parametrize("channels", [(), (3,)], ids=["gray", "color"])
def test_a_slice_is_a_view_whose_columns_are_the_lower_axis(channels):
    voxels = np.arange(4 * 5 * 6 * (channels or (1,))[0]).reshape(4, 5, 6, *channels)
    np.testing.assert_array_equal(slice_of(voxels, K, 1), voxels[1])
    np.testing.assert_array_equal(slice_of(voxels, J, 2), voxels[:, 2])
    np.testing.assert_array_equal(slice_of(voxels, I, 3), voxels[:, :, 3])
    assert [plane_axes(axis) for axis in (I, J, K)] == [(J, K), (I, K), (I, J)]
    slice_of(voxels, J, 2)[:] = -1
    assert (voxels[:, 2] == -1).all()
    assert (voxels == -1).sum() == voxels[:, 2].size


def test_a_bounding_box_counts_ijk_and_both_ends_belong_to_it():
    mask = np.zeros(DIMENSIONS[::-1], dtype=bool)
    mask[2, 6, 20] = mask[7, 15, 5] = True
    assert bounding_box(mask) == (FIRST, LAST)
    with pytest.raises(ValueError, match="mask is empty"):
        bounding_box(np.zeros((3, 4, 5)))


def wrapped(axis: int) -> dict[int, Box]:
    """The boxes of an ROI that wraps the voxels FIRST to LAST."""
    x, y = plane_axes(axis)
    return {index: Box(FIRST[x], FIRST[y], LAST[x], LAST[y]) for index in range(FIRST[axis], LAST[axis] + 1)}


@pytest.mark.parametrize("axis", [I, J, K])
@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("far", [0.0, 4000.0], ids=["near", "far from the origin"])
def test_an_roi_that_wraps_voxels_holds_exactly_these_after_the_way_to_the_world_and_back(name, axis, far):
    ijk_to_ras = GEOMETRIES[name].copy()
    ijk_to_ras[:3, 3] += far
    # Slicer stores markups as text with fewer digits than a double has.
    world = transform_points(ijk_to_ras, voxel_box_corners(FIRST, LAST)).astype(np.float32).astype(float)
    assert roi_boxes(transform_points(np.linalg.inv(ijk_to_ras), world), DIMENSIONS, axis) == wrapped(axis)


@pytest.mark.parametrize("error", [-5e-5, 5e-5], ids=["shrunk", "grown"])
@pytest.mark.parametrize("axis", [I, J, K])
def test_faces_through_voxel_centers_keep_these_voxels_whatever_rounding_does(axis, error):
    corners = box_corners(np.array(FIRST) - error, np.array(LAST) + error)
    assert roi_boxes(corners, DIMENSIONS, axis) == wrapped(axis)


@pytest.mark.parametrize("axis", [I, J, K])
def test_an_upright_roi_holds_the_voxels_whose_centers_lie_in_it(axis):
    random = np.random.default_rng(axis)
    k, j, i = np.indices(DIMENSIONS[::-1])
    for _ in range(50):
        ends = np.sort(random.uniform(-8, np.array(DIMENSIONS) + 8, (2, 3)), axis=0)
        ends[1] = np.maximum(ends[1], ends[0] + 1)
        expected = np.ones(DIMENSIONS[::-1], dtype=bool)
        for coordinate, low, high in zip((i, j, k), *ends, strict=True):
            expected &= (low <= coordinate) & (coordinate <= high)
        found = np.zeros_like(expected)
        for index, box in roi_boxes(box_corners(*ends), DIMENSIONS, axis).items():
            slice_of(found, axis, index)[box.y0 : box.y1 + 1, box.x0 : box.x1 + 1] = True
        np.testing.assert_array_equal(found, expected, err_msg=f"{ends}")


def polygon_by_half_planes(center: np.ndarray, edges: np.ndarray, axis: int, position: float) -> np.ndarray:
    """Corners (N, 2) of the cut of the box center +- edges: all crossings of its six lines that lie within the box."""
    x, y = plane_axes(axis)
    inverse = np.linalg.inv(edges)
    # |inverse @ (p - center)| <= 1 is, in the plane, |offset + a * px + b * py| <= 1 for each of three rows.
    start = np.zeros(3)
    start[axis] = position
    offset, slopes = inverse @ (start - center), inverse[:, [x, y]]
    found = []
    for (row, other), side, far_side in itertools.product(((0, 1), (0, 2), (1, 2)), (-1, 1), (-1, 1)):
        lines = slopes[[row, other]]
        if abs(np.linalg.det(lines)) < 1e-12:
            continue
        point = np.linalg.solve(lines, np.array([side, far_side]) - offset[[row, other]])
        if (np.abs(offset + slopes @ point) <= 1 + 1e-9).all():
            found.append(point)
    return np.array(found).reshape(-1, 2)


def pixel_span(low: float, high: float, count: int) -> list[int]:
    """The pixels whose centers lie in a span, or the one that holds the middle of a span between two centers."""
    rounding = 1e-4  # A center that is as near to a face lies on it.
    held = [pixel for pixel in range(-50, 100) if low - rounding <= pixel <= high + rounding]
    if not held:
        held = [pixel for pixel in range(-50, 100) if pixel - 0.5 <= (low + high) / 2 < pixel + 0.5]
    return [pixel for pixel in held if 0 <= pixel < count]


@pytest.mark.parametrize("axis", [I, J, K])
def test_an_oblique_roi_gives_every_slice_the_bounds_of_its_own_cut(axis):
    random = np.random.default_rng(10 + axis)
    x, y = plane_axes(axis)
    several = 0
    for _ in range(60):
        center = random.uniform(0, DIMENSIONS)
        # Oblique in the world, so that in voxels of unequal spacing its angles are not right ones.
        spacing, angles, halves = random.uniform(0.5, 4, 3), random.uniform(0, 360, 3), random.uniform(2, 20, 3)
        edges = np.diag(1 / spacing) @ rotation(*angles) @ np.diag(halves)
        corners = center + (box_corners(-np.ones(3), np.ones(3)) @ edges.T)
        expected = {}
        for index in range(DIMENSIONS[axis]):
            polygon = polygon_by_half_planes(center, edges, axis, index)
            if len(polygon):
                columns = pixel_span(polygon[:, 0].min(), polygon[:, 0].max(), DIMENSIONS[x])
                rows = pixel_span(polygon[:, 1].min(), polygon[:, 1].max(), DIMENSIONS[y])
                if columns and rows:
                    expected[index] = Box(columns[0], rows[0], columns[-1], rows[-1])
        depth = corners[:, axis]
        if np.ceil(depth.min()) > np.floor(depth.max()):
            continue  # It lies between two planes: see below.
        assert roi_boxes(corners, DIMENSIONS, axis) == expected
        several += len(set(expected.values())) > 1
    assert several > 20, "the cases must be oblique enough to tell slices apart"


@pytest.mark.parametrize("axis", [I, J, K])
def test_the_boxes_come_in_the_order_of_the_slices_and_none_where_the_roi_is_not(axis):
    boxes = roi_boxes(voxel_box_corners(FIRST, LAST), DIMENSIONS, axis)
    assert list(boxes) == list(range(FIRST[axis], LAST[axis] + 1))


def test_a_rhombus_is_cut_narrow_at_its_tips_and_wide_in_its_middle():
    corners = np.array([15, 12, 5]) + box_corners(np.array([-4, -3, -4]), np.array([4, 3, 4])) @ rotation(0, 45, 0).T
    # Half the diagonal is 5.66: the slice n away from the middle spans 5.66 - n to both sides.
    assert roi_boxes(corners, DIMENSIONS, K) == {
        5 + away: Box(15 - (5 - abs(away)), 9, 15 + (5 - abs(away)), 15) for away in range(-5, 5)
    }


def test_an_roi_that_leaves_the_volume_is_clipped_and_one_outside_has_no_box():
    assert roi_boxes(voxel_box_corners((25, -9, 8), (60, 50, 40)), DIMENSIONS, K) == {
        8: Box(25, 0, 29, 23),
        9: Box(25, 0, 29, 23),
    }
    whole = voxel_box_corners((-9, -9, -9), (60, 60, 60))
    assert roi_boxes(whole, DIMENSIONS, K) == {index: Box(0, 0, 29, 23) for index in range(10)}
    for axis, direction, out in itertools.product((I, J, K), (I, J, K), (-60.0, 60.0)):
        moved = voxel_box_corners(FIRST, LAST)
        moved[:, direction] += out
        assert roi_boxes(moved, DIMENSIONS, axis) == {}


@pytest.mark.parametrize(
    ("low", "high", "index"), [(4.2, 4.3, 4), (4.6, 4.6, 5), (4.0, 4.0, 4), (-0.4, -0.3, 0), (9.4, 9.45, 9)]
)
@pytest.mark.parametrize("axis", [I, J, K])
def test_a_flat_roi_belongs_to_the_slice_nearest_to_it(axis, low, high, index):
    corners = voxel_box_corners((2, 3, 4), (6, 7, 8))
    corners[:, axis] = np.where(corners[:, axis] < corners[:, axis].mean(), low, high)
    offset = DIMENSIONS[axis] - 10 if low > 9 else 0
    corners[:, axis] += offset
    x, y = plane_axes(axis)
    assert roi_boxes(corners, DIMENSIONS, axis) == {
        index + offset: Box((2, 3, 4)[x], (2, 3, 4)[y], (6, 7, 8)[x], (6, 7, 8)[y])
    }


def test_a_flat_roi_beyond_the_first_or_last_slice_has_no_box():
    for depth in (-0.6, 9.6):
        corners = voxel_box_corners((2, 3, 4), (6, 7, 8))
        corners[:, K] = depth
        assert roi_boxes(corners, DIMENSIONS, K) == {}


def test_an_roi_thinner_than_a_pixel_takes_the_pixel_that_holds_its_middle():
    corners = box_corners(np.array([4.55, 6.1, 2.0]), np.array([4.75, 6.3, 3.0]))
    assert roi_boxes(corners, DIMENSIONS, K) == {2: Box(5, 6, 5, 6), 3: Box(5, 6, 5, 6)}


def test_a_thin_oblique_roi_between_two_planes_is_cut_in_its_own_middle():
    tilted = affine(rotation(0, 2, 0), (1, 1, 1), (15, 12, 4.5 - 0.05))
    corners = transform_points(tilted, box_corners(np.array([-8, -3, -0.01]), np.array([8, 3, 0.01])))
    assert corners[:, K].min() > 4
    assert corners[:, K].max() < 5
    (index,) = boxes = roi_boxes(corners, DIMENSIONS, K)
    assert index == 4
    assert (boxes[4].y0, boxes[4].y1) == (9, 15)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_corners_that_are_no_numbers_are_refused(value):
    corners = voxel_box_corners(FIRST, LAST)
    corners[3, 1] = value
    with pytest.raises(ValueError, match="eight finite corners"):
        roi_boxes(corners, DIMENSIONS, K)
