"""Refinement by intensities: where the outline goes, and where it has to stay."""

from __future__ import annotations

import numpy as np
import pytest

from MedSAMSlicerLib.volume.intensity_model import refine

SHAPE = (2, 32, 32)
ORGAN, CORE = np.s_[:, 8:24, 8:24], np.s_[:, 10:22, 10:22]
BOX = np.s_[:, 3:29, 3:29]


def mask_of(*places: tuple[slice, ...]) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    for place in places:
        mask[place] = True
    return mask


INSIDE = mask_of(BOX)


def an_image(organ: float = 170, around: float = 60) -> np.ndarray:
    """An organ whose noise does not reach the other tissue's."""
    random = np.random.default_rng(3)
    return (np.where(mask_of(ORGAN), organ, around) + random.normal(0, 8, SHAPE)).clip(0, 255).astype(np.uint8)


def probabilities_of(ring: tuple[slice, ...], ambiguous: float) -> np.ndarray:
    """Sure of the core, sure that nothing is far outside, and ambiguous in the ring between."""
    probabilities = np.full(SHAPE, 0.02)
    probabilities[ring] = ambiguous
    probabilities[CORE] = 0.97
    return probabilities


@pytest.mark.parametrize("ambiguous", [0.25, 0.4, 0.6])
@pytest.mark.parametrize(("organ", "around"), [(170, 60), (60, 170), (250, 5)])
def test_where_the_model_is_ambiguous_the_outline_moves_to_the_edge(organ, around, ambiguous):
    probabilities = probabilities_of(np.s_[:, 5:27, 5:27], ambiguous)
    refined = refine(probabilities, an_image(organ, around), INSIDE)
    np.testing.assert_array_equal(refined > 0.5, mask_of(ORGAN))


def test_where_the_model_is_sure_the_outline_stays():
    # A lesion in the organ is as dark as what is around it, and a vessel outside is as bright as the organ.
    image = an_image()
    image[:, 14:16, 14:17] = 60
    image[:, 26:28, 14:17] = 170
    probabilities = np.where(mask_of(ORGAN), 0.95, 0.05)
    np.testing.assert_array_equal(refine(probabilities, image, INSIDE) > 0.5, mask_of(ORGAN))


@pytest.mark.parametrize("gray", [0, 100, 255])
def test_a_constant_image_changes_nothing_on_the_mask(gray):
    probabilities = np.random.default_rng(1).uniform(0, 1, SHAPE)
    refined = refine(probabilities, np.full(SHAPE, gray, dtype=np.uint8), INSIDE)
    np.testing.assert_array_equal(refined > 0.5, (probabilities > 0.5) & INSIDE)


@pytest.mark.parametrize("full", [False, True], ids=["tiny segment", "tiny surroundings"])
def test_too_few_voxels_for_a_histogram_change_nothing(full):
    probabilities = np.full(SHAPE, 0.6 if full else 0.4)
    few = np.s_[0, 8:11, 8:14]
    probabilities[few] = 1 - probabilities[few]
    refined = refine(probabilities, an_image(), INSIDE)
    np.testing.assert_array_equal(refined, np.where(INSIDE, probabilities, 0))


def test_a_stack_without_any_segment_stays_empty():
    assert not refine(np.zeros(SHAPE), an_image(), INSIDE).any()


def test_nothing_is_added_outside_of_the_box_and_nothing_there_is_looked_at():
    inside = mask_of(np.s_[:, 3:20, 3:29])
    probabilities = probabilities_of(np.s_[:, 5:27, 5:27], 0.6)
    image = an_image()
    refined = refine(probabilities, image, inside)
    np.testing.assert_array_equal(refined > 0.5, mask_of(ORGAN) & inside)
    assert not refined[~inside].any()
    image[~inside] = 170
    probabilities[~inside] = 0.99
    np.testing.assert_array_equal(refine(probabilities, image, inside), refined)


def test_slices_share_what_is_known_of_the_intensities():
    # In the second slice the model is sure of nothing: the histograms are the first slice's.
    probabilities = probabilities_of(ORGAN, 0.97)
    probabilities[1] = np.where(INSIDE[1], 0.45, 0.02)
    refined = refine(probabilities, an_image(), INSIDE)
    np.testing.assert_array_equal(refined > 0.5, mask_of(ORGAN))


def test_the_probabilities_that_were_given_are_not_changed():
    probabilities = probabilities_of(np.s_[:, 5:27, 5:27], 0.6)
    before = probabilities.copy()
    refine(probabilities, an_image(), INSIDE)
    np.testing.assert_array_equal(probabilities, before)


def test_intensities_that_are_not_whole_numbers_are_taken_as_well():
    # As the mean of three color channels is.
    probabilities = probabilities_of(np.s_[:, 5:27, 5:27], 0.6)
    refined = refine(probabilities, an_image() + 0.75, INSIDE)
    np.testing.assert_array_equal(refined > 0.5, mask_of(ORGAN))
