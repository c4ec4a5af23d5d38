"""What a box may be."""

from __future__ import annotations

import math

import pytest

from MedSAMSlicerLib.prompts import Box


def test_a_box_of_one_pixel_is_a_box():
    assert Box(3, 4, 3, 4) == Box(3.0, 4.0, 3.0, 4.0)


@pytest.mark.parametrize("coordinates", [(5, 0, 4, 9), (0, 5, 9, 4)], ids=["x", "y"])
def test_an_inverted_box_is_refused_with_its_numbers_and_the_order_to_give(coordinates):
    numbers = ", ".join(map(str, coordinates))
    with pytest.raises(ValueError, match=rf"\({numbers}\) is inverted: give x0 <= x1 and y0 <= y1"):
        Box(*coordinates)


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_box_with_a_coordinate_that_is_no_number_is_refused(place, value):
    coordinates = [0.0, 0.0, 9.0, 9.0]
    coordinates[place] = value
    with pytest.raises(ValueError, match="not a finite number"):
        Box(*coordinates)
