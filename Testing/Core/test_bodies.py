"""Bodies: which connected parts of a mask are the structure."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from MedSAMSlicerLib.volume.bodies import largest_part, structure_bodies

SLICES, ROWS, COLUMNS = 8, 40, 50
ORGAN = np.s_[1:7, 10:22, 10:24]
NOTHING = np.zeros((SLICES, ROWS, COLUMNS), dtype=bool)


def mask_of(*places: tuple[slice, ...]) -> np.ndarray:
    mask = NOTHING.copy()
    for place in places:
        mask[place] = True
    return mask


def kept(masks: np.ndarray, named: np.ndarray = NOTHING, gap: int = 0) -> tuple[np.ndarray, int]:
    before = masks.copy()
    result = structure_bodies(masks, named, gap)
    np.testing.assert_array_equal(masks, before)
    return result


@pytest.mark.parametrize("gap", [0, 1, 4])
def test_fragments_go_and_are_counted(gap):
    fragments = np.s_[2:4, 30:34, 10:14], np.s_[5:6, 12:13, 40:41], np.s_[3:5, 35:39, 45:50]
    mask, dropped = kept(mask_of(ORGAN, *fragments), gap=gap)
    np.testing.assert_array_equal(mask, mask_of(ORGAN))
    assert dropped == 3


def test_one_body_stays_as_it_is_and_so_does_nothing():
    # Neighbors by a corner are one body.
    one = mask_of(ORGAN, np.s_[7:8, 22:26, 24:30])
    mask, dropped = kept(one)
    np.testing.assert_array_equal(mask, one)
    assert dropped == 0
    mask, dropped = kept(NOTHING)
    assert not mask.any()
    assert dropped == 0


def test_of_two_bodies_in_the_same_slices_the_larger_one_stays_unless_the_other_is_named():
    larger, smaller = ORGAN, np.s_[1:7, 28:36, 30:40]
    mask, dropped = kept(mask_of(larger, smaller))
    np.testing.assert_array_equal(mask, mask_of(larger))
    assert dropped == 1
    mask, dropped = kept(mask_of(larger, smaller), named=mask_of(np.s_[3:4, 30:31, 32:33]))
    np.testing.assert_array_equal(mask, mask_of(smaller))
    assert dropped == 1


def test_all_bodies_that_are_named_stay_however_small_they_are():
    small, other = np.s_[2:3, 30:31, 30:31], np.s_[5:6, 34:36, 5:7]
    named = mask_of(np.s_[2:3, 28:32, 28:32], np.s_[2:3, 12:13, 12:13])
    mask, dropped = kept(mask_of(ORGAN, small, other), named=named)
    np.testing.assert_array_equal(mask, mask_of(ORGAN, small))
    assert dropped == 1


def test_what_is_named_but_not_in_the_masks_adds_nothing():
    mask, dropped = kept(mask_of(ORGAN), named=mask_of(np.s_[2:4, 30:35, 30:35]))
    np.testing.assert_array_equal(mask, mask_of(ORGAN))
    assert dropped == 0


def test_a_body_without_which_slices_were_empty_stays():
    # Another node of a tumor, or the other arm of a bowed organ.
    other = np.s_[5:8, 28:36, 30:40]
    mask, dropped = kept(mask_of(np.s_[0:6, 10:22, 10:24], other))
    np.testing.assert_array_equal(mask, mask_of(np.s_[0:6, 10:22, 10:24], other))
    assert dropped == 0


def test_a_body_that_begins_where_the_structure_has_ended_is_another_one():
    organ = np.s_[0:6, 10:22, 10:24]
    mask, dropped = kept(mask_of(organ, np.s_[6:8, 28:36, 30:40]))
    np.testing.assert_array_equal(mask, mask_of(organ))
    assert dropped == 1


def test_noise_does_not_stay_because_the_slice_is_empty_otherwise():
    mask, dropped = kept(mask_of(ORGAN, np.s_[7:8, 30:32, 30:32]))
    np.testing.assert_array_equal(mask, mask_of(ORGAN))
    assert dropped == 1


def test_of_two_bodies_that_fill_an_empty_slice_the_larger_one_stays():
    larger, smaller = np.s_[5:8, 28:38, 30:44], np.s_[5:8, 2:10, 30:38]
    mask, dropped = kept(mask_of(np.s_[0:6, 10:22, 10:24], larger, smaller))
    np.testing.assert_array_equal(mask, mask_of(np.s_[0:6, 10:22, 10:24], larger))
    assert dropped == 1


def test_in_thick_slices_an_end_that_has_moved_is_of_the_same_body():
    end = np.s_[7:8, 16:20, 28:32]
    thin, dropped = kept(mask_of(ORGAN, end), gap=0)
    np.testing.assert_array_equal(thin, mask_of(ORGAN))
    assert dropped == 1
    thick, dropped = kept(mask_of(ORGAN, end), gap=6)
    np.testing.assert_array_equal(thick, mask_of(ORGAN, end))
    assert dropped == 0
    # But not one that is farther off than slices are apart.
    far, dropped = kept(mask_of(ORGAN, np.s_[7:8, 16:20, 36:40]), gap=6)
    np.testing.assert_array_equal(far, mask_of(ORGAN))
    assert dropped == 1


def test_the_largest_part_of_a_slice_is_one_connected_part_of_it():
    mask = mask_of(np.s_[0, 2:5, 2:5], np.s_[0, 20:30, 20:30], np.s_[0, 30:32, 30:32])[0]
    np.testing.assert_array_equal(largest_part(mask), mask_of(np.s_[0, 20:30, 20:30], np.s_[0, 30:32, 30:32])[0])
    assert not largest_part(NOTHING[0]).any()
    assert largest_part(~NOTHING[0]).all()


def test_the_largest_part_of_any_mask_is_what_another_library_finds():
    random = np.random.default_rng(7)
    for share in np.linspace(0.1, 0.9, 60):
        mask = random.random(random.integers(1, 40, 2)) < share
        image = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), True)
        labels = sitk.GetArrayFromImage(image)
        sizes = np.bincount(labels[mask], minlength=2)
        np.testing.assert_array_equal(largest_part(mask), mask & (labels == sizes.argmax()))
