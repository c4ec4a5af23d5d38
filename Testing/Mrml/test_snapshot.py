"""The picture of a result: what is drawn, where, in which gray values."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import slicer.util

from geometries import affine
from MedSAMSlicerLib.headless.scene import HeadlessScene
from MedSAMSlicerLib.headless.snapshot import draw_four_up, write_png
from MedSAMSlicerLib.mrml.segments import SegmentWriter, add_segment, segment_mask
from MedSAMSlicerLib.volume.files import Volume
from MedSAMSlicerLib.volume.geometry import voxel_box_corners

SIZE = 300
# I runs to the left, J to the back and K up, as in an axial CT; in RAS the middle is near 0.
AXIAL = affine(np.diag([-1.0, -1.0, 1.0]), (2.0, 2.0, 3.0), (39.0, 39.0, -28.5))
# Segments far from the middle and from each other, so that a flipped view would show them elsewhere.
RIGHT_FRONT, LEFT_BACK = np.s_[4:16, 6:14, 6:14], np.s_[4:16, 26:34, 26:34]


@pytest.fixture
def a_body() -> np.ndarray:
    """Soft tissue of 40 HU in air, with a little bone, (20, 40, 40)."""
    voxels = np.full((20, 40, 40), 40, dtype=np.int16)
    voxels[:, :3] = voxels[:, -3:] = -1000
    voxels[:, 19:21, 19:21] = 1000
    return voxels


def segmented(headless: HeadlessScene, volume, *blocks: tuple[slice, ...]) -> slicer.vtkMRMLSegmentationNode:
    segmentation = headless.add_segmentation("S", volume)
    for number, block in enumerate(blocks):
        mask = np.zeros(volume.GetImageData().GetDimensions()[::-1], dtype=bool)
        mask[block] = True
        name = f"organ {number}"
        SegmentWriter(segmentation, add_segment(segmentation, name), volume).add(mask, (0, 0, 0))
        k, j, i = block
        corners = voxel_box_corners((i.start, j.start, k.start), (i.stop - 1, j.stop - 1, k.stop - 1))
        headless.add_roi(name, AXIAL, corners)
    return segmentation


def hue(picture: np.ndarray, color: tuple[float, float, float]) -> np.ndarray:
    """Find the pixels of a segment's color, blended with gray."""
    pixels = picture.astype(float)
    tint = pixels - pixels.mean(axis=2, keepdims=True)
    wanted = np.array(color) - np.mean(color)
    length = np.linalg.norm(tint, axis=2)
    return (length > 15) & (tint @ wanted / np.linalg.norm(wanted) > 0.95 * np.maximum(length, 1e-6))


def middle_of(found: np.ndarray) -> tuple[float, float]:
    """Place of some pixels as shares of the height and of the width."""
    rows, columns = np.nonzero(found)
    return rows.mean() / found.shape[0], columns.mean() / found.shape[1]


def colors_of(segmentation: slicer.vtkMRMLSegmentationNode) -> list[tuple[float, float, float]]:
    content = segmentation.GetSegmentation()
    return [content.GetSegment(segment_id).GetColor() for segment_id in content.GetSegmentIDs()]


def test_every_view_shows_the_segments_in_their_colors_on_the_side_where_radiologists_look_for_them(headless, a_body):
    volume = headless.add_volume(Volume(a_body, AXIAL, "CT"))
    segmentation = segmented(headless, volume, RIGHT_FRONT, LEFT_BACK)
    picture = draw_four_up(headless, volume, segmentation, size=SIZE)
    assert picture.dtype == np.uint8
    assert picture.shape[1:] == (2 * SIZE + 4, 3)
    first, second = colors_of(segmentation)
    axial, in_3d = picture[:SIZE, :SIZE], picture[:SIZE, -SIZE:]
    coronal, sagittal = picture[SIZE + 4 :, :SIZE], picture[SIZE + 4 :, -SIZE:]
    for view in (axial, in_3d):
        assert hue(view, first).mean() > 0.005
        assert hue(view, second).mean() > 0.005
    # Axial: the patient's right is on the left, the front on top.
    assert max(middle_of(hue(axial, first))) < 0.45
    assert min(middle_of(hue(axial, second))) > 0.55
    # Each of the others is a slice through a segment.
    for view in (coronal, sagittal):
        assert max(hue(view, color).mean() for color in (first, second)) > 0.005


@pytest.mark.parametrize(("window", "gray"), [("40/400", 127), ("90/400", 95), ("full", 132)])
def test_the_slices_have_the_gray_values_of_the_window(headless, a_body, window, gray):
    volume = headless.add_volume(Volume(a_body, AXIAL, "CT"))
    segmentation = segmented(headless, volume, RIGHT_FRONT, LEFT_BACK)
    axial = draw_four_up(headless, volume, segmentation, window=window, size=SIZE)[:SIZE, :SIZE]
    plain = axial[np.ptp(axial.astype(int), axis=2) == 0][:, 0]
    assert np.median(plain) == pytest.approx(gray, abs=2)


def test_drawing_changes_neither_voxels_nor_segments(headless, a_body):
    volume = headless.add_volume(Volume(a_body, AXIAL, "CT"))
    segmentation = segmented(headless, volume, RIGHT_FRONT, LEFT_BACK)
    segment_ids = segmentation.GetSegmentation().GetSegmentIDs()
    draw_four_up(headless, volume, segmentation, size=SIZE)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume), a_body)
    assert segmentation.GetSegmentation().GetSegmentIDs() == segment_ids
    for segment_id, block in zip(segment_ids, (RIGHT_FRONT, LEFT_BACK), strict=True):
        expected = np.zeros(a_body.shape, dtype=bool)
        expected[block] = True
        np.testing.assert_array_equal(segment_mask(segmentation, segment_id, volume), expected)


def test_a_result_without_any_voxel_is_drawn_as_the_plain_volume(headless, a_body):
    volume = headless.add_volume(Volume(a_body, AXIAL, "CT"))
    segmentation = headless.add_segmentation("S", volume)
    add_segment(segmentation, "nothing found")
    axial = draw_four_up(headless, volume, segmentation, window="40/400", size=SIZE)[:SIZE, :SIZE]
    assert (np.abs(axial.astype(int) - 127) <= 2).all(axis=2).mean() > 0.3


def test_a_color_photo_is_drawn_in_its_colors(headless):
    pixels = np.zeros((1, 40, 40, 3), dtype=np.uint8)
    pixels[..., 0] = 200
    pixels[0, 0, 0] = 255
    photo = headless.add_volume(Volume(pixels, AXIAL, "photo"))
    segmentation = segmented(headless, photo, np.s_[0:1, 6:14, 6:14])
    axial = draw_four_up(headless, photo, segmentation, size=SIZE)[:SIZE, :SIZE].astype(int)
    assert ((axial[..., 0] > 150) & (axial[..., 1] < 40) & (axial[..., 2] < 40)).mean() > 0.1


def test_a_png_file_holds_exactly_the_picture(tmp_path):
    picture = np.random.default_rng(1).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    write_png(tmp_path / "new" / "p.png", picture)
    image = sitk.ReadImage(str(tmp_path / "new" / "p.png"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), picture)
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["p.png"]


def test_a_second_picture_of_a_scene_is_like_the_first(headless, a_body):
    volume = headless.add_volume(Volume(a_body, AXIAL, "body"))
    segmentation = segmented(headless, volume, RIGHT_FRONT)
    first, second = (draw_four_up(headless, volume, segmentation, size=SIZE) for _ in range(2))
    np.testing.assert_array_equal(second, first)


def test_a_picture_that_finds_no_room_keeps_the_older_one(tmp_path):
    write_png(tmp_path / "a.png", np.full((4, 4, 3), 200, dtype=np.uint8))
    before = (tmp_path / "a.png").read_bytes()
    # VTK writes what fits and returns normally, as on a full disk.
    code = f"""
import resource, signal, sys
sys.path[:0] = {sys.path}
import numpy as np
from pathlib import Path
from MedSAMSlicerLib.headless.snapshot import write_png
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))
write_png(Path({str(tmp_path / "a.png")!r}), np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "a.png could not be written" in run.stderr.splitlines()[-1]
    assert (tmp_path / "a.png").read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "a.png"]
