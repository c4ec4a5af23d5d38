"""The module's self-test, which a user's own Slicer runs; it needs neither the network nor data."""

from __future__ import annotations

import unittest
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import slicer.util

from MedSAMSlicerLib.app.requirements import missing_torch, missing_weights
from MedSAMSlicerLib.mrml.boxes import is_ticked, show_depth, structure_boxes, tick
from MedSAMSlicerLib.mrml.markups import ijk_corners, wrap_voxels
from MedSAMSlicerLib.mrml.segments import segment_mask
from MedSAMSlicerLib.mrml.session import SegmentationSession
from MedSAMSlicerLib.mrml.slice_boxes import is_on_slice, lay
from MedSAMSlicerLib.mrml.volumes import ijk_to_world
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.geometry import voxel_box_corners

# The ball in the volume: its center and radius in voxels, and the box around it (IJK).
_CENTER, _RADIUS = (30.0, 34.0, 5.0), 12.0
_FIRST, _LAST = (18, 22, 4), (42, 46, 6)


class SelfTest(unittest.TestCase):
    """A ball is segmented in a volume made up here; each test begins with an empty scene."""

    def setUp(self) -> None:
        """Make a volume with a ball in it, a box around the ball, and an empty segmentation."""
        slicer.mrmlScene.Clear()
        self.logic = slicer.util.getModuleLogic("MedSAMSlicer")
        k, j, i = np.ogrid[:11, :64, :64]
        distance = sum((each - middle) ** 2 for each, middle in zip((i, j, k), _CENTER, strict=True)) ** 0.5
        self.ball = (distance <= _RADIUS) & (np.abs(k - _CENTER[2]) <= _LAST[2] - _CENTER[2])
        voxels = np.random.default_rng(0).normal(np.where(self.ball, 180, 20), 8).astype(np.int16)
        voxels[:, :4] = -1000
        self.volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "self-test")
        self.volume.SetSpacing(1.5, 1.5, 3.0)
        slicer.util.updateVolumeFromArray(self.volume, voxels)
        self.volume.CreateDefaultDisplayNodes()
        self.roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "ball")
        wrap_voxels(self.roi, ijk_to_world(self.volume), voxel_box_corners(_FIRST, _LAST))
        self.segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "result")

    def test_a_missing_volume_is_named(self) -> None:
        """It is, before any model is loaded, and nothing is changed."""
        with self.assertRaisesRegex(ValueError, "No volume is given"):
            self.logic.segmentROI(None, self.roi, self.segmentation)
        self.assertEqual(self.segmentation.GetSegmentation().GetNumberOfSegments(), 0)

    def test_parameters_and_boxes_are_kept_in_the_scene(self) -> None:
        """Parameters and ticks are read as they were written."""
        parameters = self.logic.getParameterNode()
        parameters.inputVolume, parameters.window, parameters.autoUpdate = self.volume, "60/300", True
        again = self.logic.getParameterNode()
        self.assertIs(again.inputVolume, self.volume)
        self.assertEqual((again.window, again.autoUpdate), ("60/300", True))
        tick(self.roi, True)
        self.assertEqual([is_ticked(box) for box in structure_boxes(slicer.mrmlScene)], [True])

    def test_a_box_becomes_a_segment_that_can_be_undone(self) -> None:
        """The segment holds what the model fills, and nothing after the undo."""
        session = SegmentationSession(_BoxFiller())
        segment_id = session.segment(self.volume, self.roi, self.segmentation, propagation="per-slice")
        expected = np.zeros(self.ball.shape, dtype=bool)
        expected[tuple(slice(low, high + 1) for low, high in zip(_FIRST[::-1], _LAST[::-1], strict=True))] = True
        np.testing.assert_array_equal(segment_mask(self.segmentation, segment_id, self.volume), expected)
        self.assertTrue(session.undo(self.segmentation))
        self.assertEqual(self.segmentation.GetSegmentation().GetNumberOfSegments(), 0)

    def test_a_box_on_one_slice_is_followed_and_its_depth_is_found(self) -> None:
        """The box takes the depth of the ball, and is a 3-D box once its depth is set."""
        lay(self.roi, self.volume, 2, int(_CENTER[2]))
        self.assertTrue(is_on_slice(self.roi))
        session = SegmentationSession(_BoxFiller())
        segment_id = session.segment(self.volume, self.roi, self.segmentation)
        found = np.flatnonzero(segment_mask(self.segmentation, segment_id, self.volume).any(axis=(1, 2)))
        self.assertEqual(found.tolist(), list(range(_FIRST[2], _LAST[2] + 1)))
        show_depth(self.roi, self.volume, self.segmentation, segment_id)
        depth = ijk_corners(self.roi, self.volume)[:, 2]
        np.testing.assert_allclose([depth.min(), depth.max()], [_FIRST[2] - 0.5, _LAST[2] + 0.5], atol=0.01)
        self.assertTrue(is_on_slice(self.roi))
        x, y, z = self.roi.GetSize()
        self.roi.SetSize(x, y, z + 3)
        self.assertFalse(is_on_slice(self.roi))

    def test_lite_medsam_finds_the_ball(self) -> None:
        """The real model does, if it is on this computer."""
        if missing := missing_torch() or missing_weights("lite"):
            self.skipTest(f"LiteMedSAM is not tested: {missing}")
        segment_id = self.logic.segmentROI(self.volume, self.roi, self.segmentation)
        found = segment_mask(self.segmentation, segment_id, self.volume)
        self.assertGreater(2 * (found & self.ball).sum() / (found.sum() + self.ball.sum()), 0.8)


@dataclass(frozen=True)
class _Filled:
    """A prediction."""

    probabilities: np.ndarray
    iou: np.ndarray


class _BoxFiller:
    """Takes the place of a model: its masks are the boxes."""

    key = "box filler"
    side = 256

    def encode(self, image: np.ndarray) -> np.ndarray:
        return image

    def decode(self, embedding: np.ndarray, boxes: Sequence[Box], window: tuple[slice, slice] | None = None) -> _Filled:
        masks = np.zeros((len(boxes), *embedding.shape), dtype=np.float32)
        for mask, box in zip(masks, boxes, strict=True):
            mask[int(box.y0) : int(box.y1) + 1, int(box.x0) : int(box.x1) + 1] = 1
        return _Filled(masks if window is None else masks[(slice(None), *window)], np.ones(len(boxes), np.float32))

    def features(self, embedding: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
        return np.zeros((1, 8, 8), dtype=np.float32), (8 / embedding.shape[0], 8 / embedding.shape[1])

    def box_around(self, mask: np.ndarray) -> Any:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        return Box(columns[0], rows[0], columns[-1], rows[-1]) if rows.size else None
