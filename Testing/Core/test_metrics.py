"""Dice and surface Dice with known answers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from MedSAMSlicerLib.volume.metrics import agreement

SHAPE = (12, 14, 16)


def cube(k: int = 4, j: int = 4, i: int = 4, size: int = 4, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[k : k + size, j : j + size, i : i + size] = True
    return mask


def brute_force(
    a: np.ndarray, b: np.ndarray, spacing: tuple[float, float, float], tolerance: float
) -> tuple[float, float]:
    """Both figures from all pairs of surface voxels."""

    def surface(mask: np.ndarray) -> np.ndarray:
        padded = np.pad(mask, 1)
        inner = padded.copy()
        for axis, step in itertools.product(range(3), (-1, 1)):
            inner &= np.roll(padded, step, axis)
        return (np.argwhere(padded & ~inner)[:, ::-1] - 1) * spacing

    points = surface(a), surface(b)
    distances = np.linalg.norm(points[0][:, None] - points[1][None], axis=2)
    near = (distances.min(axis=1) <= tolerance + 1e-6).sum() + (distances.min(axis=0) <= tolerance + 1e-6).sum()
    return 2 * (a & b).sum() / (a.sum() + b.sum()), near / sum(distances.shape)


def test_equal_masks_agree_fully():
    assert agreement(cube(), cube(), (0.7, 0.8, 5.0)).dice == 1
    assert agreement(cube(), cube(), (0.7, 0.8, 5.0), tolerance=0).surface_dice == 1


@pytest.mark.parametrize(("shift", "dice"), [(1, 0.75), (2, 0.5), (3, 0.25), (4, 0.0), (7, 0.0)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_dice_of_shifted_cubes_is_their_common_share(axis, shift, dice):
    assert agreement(cube(), np.roll(cube(), shift, axis), (1, 1, 1)).dice == pytest.approx(dice)


def test_masks_may_have_any_type_whose_nonzero_voxels_are_inside():
    found = agreement(cube().astype(np.uint8) * 255, np.roll(cube(), 1, 0).astype(np.float32) * 0.5, (1, 1, 1))
    assert found.dice == pytest.approx(0.75)


@pytest.mark.parametrize(("axis", "spacing_at"), [(0, 2), (1, 1), (2, 0)], ids=["along K", "along J", "along I"])
def test_the_tolerance_is_in_millimeters_and_its_edge_is_within(axis, spacing_at):
    spacing = [1.0, 1.0, 1.0]
    spacing[spacing_at] = 2.5
    shifted = np.roll(cube(size=3), 4, axis)
    # Every surface voxel of a cube of three has its twin four voxels, 10 mm, away; the nearest faces are 2 apart.
    assert agreement(cube(size=3), shifted, tuple(spacing), tolerance=10.0).surface_dice == 1
    within = agreement(cube(size=3), shifted, tuple(spacing), tolerance=9.99).surface_dice
    # The last of three layers is out on both sides: 9 of 26 surface voxels.
    assert within == pytest.approx(1 - 9 / 26)
    assert agreement(cube(size=3), shifted, tuple(spacing), tolerance=4.99).surface_dice == 0


def test_a_voxel_of_another_segment_costs_its_share_of_the_surface():
    single = np.zeros(SHAPE, dtype=bool)
    single[5, 5, 5] = True
    far = single.copy()
    far[5, 5, 9] = True
    found = agreement(single, far, (1, 1, 1), tolerance=3.9)
    assert found.dice == pytest.approx(2 / 3)
    assert found.surface_dice == pytest.approx(2 / 3)


def test_a_mask_at_the_border_has_its_surface_there():
    whole = np.ones((5, 6, 7), dtype=bool)
    hollow_core = np.zeros_like(whole)
    hollow_core[2, 2:4, 2:5] = True
    found = agreement(whole, hollow_core, (1, 1, 1), tolerance=1.5)
    assert found.surface_dice == pytest.approx(brute_force(whole, hollow_core, (1, 1, 1), 1.5)[1])
    corner = np.zeros_like(whole)
    corner[0, 0, 0] = True
    assert agreement(corner, corner, (1, 1, 1), tolerance=0).surface_dice == 1


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.9, 4.0), (3.0, 1.0, 0.5)])
@pytest.mark.parametrize("tolerance", [0.0, 1.0, 2.0, 4.1])
def test_ragged_masks_agree_with_a_computation_over_all_pairs(spacing, tolerance):
    random = np.random.default_rng(6)
    for _ in range(6):
        a, b = (random.random(SHAPE) < 0.04 for _ in range(2))
        a |= cube(*random.integers(0, 8, 3), size=5)
        b |= cube(*random.integers(0, 8, 3), size=6)
        b &= random.random(SHAPE) < 0.97
        found = agreement(a, b, spacing, tolerance=tolerance)
        assert (found.dice, found.surface_dice) == pytest.approx(brute_force(a, b, spacing, tolerance))
        other_way = agreement(b, a, spacing, tolerance=tolerance)
        assert (other_way.dice, other_way.surface_dice) == pytest.approx((found.dice, found.surface_dice))


def test_one_empty_mask_agrees_in_nothing_and_two_can_not_be_compared():
    empty = np.zeros(SHAPE, dtype=bool)
    for pair in ((empty, cube()), (cube(), empty)):
        found = agreement(*pair, (1, 1, 1))
        assert (found.dice, found.surface_dice) == (0, 0)
    with pytest.raises(ValueError, match="Both masks are empty"):
        agreement(empty, empty, (1, 1, 1))


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(12, 14, 16\) and \(3, 14, 16\): resample one first"):
        agreement(cube(), cube()[:3], (1, 1, 1))
