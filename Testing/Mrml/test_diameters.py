"""Measured diameters: Markups lines in a slice, as boxes from which a lesion is followed until it ends."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util

from geometries import FIRST, LAST
from MedSAMSlicerLib.mrml.boxes import structure_boxes
from MedSAMSlicerLib.mrml.diameters import box_of_diameter, diameters, lesion, new_lines, structure_of_diameter
from MedSAMSlicerLib.mrml.segments import segment_mask
from MedSAMSlicerLib.mrml.slice_boxes import is_on_slice, slice_of
from MedSAMSlicerLib.mrml.structure import Structure
from MedSAMSlicerLib.mrml.volumes import ijk_to_world


@pytest.fixture
def draw(headless, volume_node):
    """Draw a line from one voxel (IJK) to another."""

    def draw_line(name: str, *ends: tuple[float, float, float]) -> slicer.vtkMRMLMarkupsLineNode:
        line = headless.scene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", name)
        for ijk in ends:
            line.AddControlPointWorld(*(ijk_to_world(volume_node) @ [*ijk, 1.0])[:3])
        return line

    return draw_line


def edges(box) -> list[float]:
    return [box.x0, box.y0, box.x1, box.y1]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_two_crossing_lines_are_one_lesion_whose_box_wraps_both(volume_node, draw, axis):
    across = [each for each in range(3) if each != axis]
    ends = np.full((4, 3), 4.0)
    ends[:2, across] = [[2, 5], [8, 5]]  # the longer one, along x
    ends[2:, across] = [[4, 4], [4, 6]]
    lines = [draw("first", *ends[:2]), draw("second", *ends[2:])]
    (found,) = diameters(lines, volume_node)
    assert (found.axis, found.index) == (axis, 4)
    assert edges(found.box)[0] <= 2
    assert edges(found.box)[2] >= 8
    assert edges(found.box)[1] <= 4
    assert edges(found.box)[3] >= 6
    lengths = {line: line.GetLineLengthWorld() for line in lines}
    assert list(found.lines) == sorted(lines, key=lengths.get, reverse=True), "the longer one in millimeters"
    assert found.name == found.lines[0].GetName()


def test_one_line_is_the_long_axis_of_an_ellipse(volume_node, draw):
    i, j, _k = volume_node.GetSpacing()
    (found,) = diameters([draw("L", (4, 10, 4), (24, 10, 4))], volume_node)
    half = 0.75 * 20 * i / j / 2
    assert edges(found.box) == [4, round(10 - half), 24, round(10 + half)]
    # A slanted one is wrapped by what the ellipse reaches.
    (slanted,) = diameters([draw("S", (8, 6, 4), (16, 14, 4))], volume_node)
    x0, y0, x1, y1 = edges(slanted.box)
    assert x0 < 8 < 16 < x1 or (x0, x1) == (8, 16)
    assert y0 < 6 < 14 < y1 or (y0, y1) == (6, 14)
    assert (x0 + x1, y0 + y1) == (24, 20)


def test_lines_that_do_not_cross_are_lesions_of_their_own_in_the_order_they_were_given(volume_node, draw):
    short, long = draw("short", (20, 18, 4), (24, 18, 4)), draw("long", (3, 5, 4), (15, 5, 4))
    elsewhere = draw("elsewhere", (9, 2, 7), (9, 8, 7))  # seen from above it crosses the long one
    found = diameters([short, elsewhere, long], volume_node)
    assert [(each.name, each.index) for each in found] == [("short", 4), ("elsewhere", 7), ("long", 4)]
    with pytest.raises(ValueError, match="'long' and 'short' do not cross in one slice"):
        lesion(long, short, volume_node)


def test_the_lesion_is_followed_from_the_line_and_its_box_says_the_same(session, volume_node, segmentation, draw):
    voxels = slicer.util.arrayFromVolume(volume_node)
    block = tuple(slice(low, high + 1) for low, high in zip(FIRST[::-1], LAST[::-1], strict=True))
    voxels[block] += 500
    slicer.util.arrayFromVolumeModified(volume_node)
    middle = (FIRST[1] + LAST[1]) // 2
    long = draw("lesion", (FIRST[0], middle, 4), (LAST[0], middle, 4))
    short = draw("across", (12, FIRST[1], 4), (12, LAST[1], 4))
    found = lesion(long, short, volume_node)
    assert edges(found.box) == [FIRST[0], FIRST[1], LAST[0], LAST[1]]

    def segment(structure: Structure) -> np.ndarray:
        task = session.begin(volume_node, segmentation, [structure])
        list(session.run(task))
        return segment_mask(segmentation, task.segment_ids[0], volume_node)

    made = segment(structure_of_diameter(found, volume_node))
    assert np.flatnonzero(made.any(axis=(1, 2))).tolist() == list(range(FIRST[2], LAST[2] + 1))
    expected = np.zeros(voxels.shape[1:], dtype=bool)
    expected[block[1:]] = True
    np.testing.assert_array_equal(made[4], expected)
    assert segmentation.GetSegmentation().GetNthSegment(0).GetName() == "lesion"
    # A line that has its box is done, until the box is deleted.
    assert new_lines(volume_node.GetScene()) == [long, short]
    roi = box_of_diameter(found, volume_node)
    assert is_on_slice(roi)
    assert slice_of(roi, volume_node) == (2, 4)
    assert structure_boxes(volume_node.GetScene()) == [roi]
    assert new_lines(volume_node.GetScene()) == []
    np.testing.assert_array_equal(segment(Structure.of_roi(volume_node, roi)), made)
    volume_node.GetScene().RemoveNode(roi)
    assert new_lines(volume_node.GetScene()) == [long, short]


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        ([(3, 5, 2)], "'L' has not both of its ends"),
        ([(3, 5, 1), (15, 14, 8)], r"'L' runs through \d+ slices of the volume .* measure the diameter within one"),
        ([(300, 5, 4), (320, 5, 4)], "'L' lies outside of the volume"),
    ],
)
def test_a_line_that_measures_no_lesion_is_refused_in_words(volume_node, draw, ends, told):
    with pytest.raises(ValueError, match=told):
        diameters([draw("L", *ends)], volume_node)
    with pytest.raises(ValueError, match="No line is given"):
        lesion(None, None, volume_node)
