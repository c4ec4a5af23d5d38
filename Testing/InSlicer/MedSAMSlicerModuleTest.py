from __future__ import annotations

import sys
import unittest
from pathlib import Path

import numpy as np
import slicer
import slicer.util
import vtk

# The stand-in for the network lies beside this folder: these tests need neither PyTorch nor weights.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


class MedSAMSlicerModuleTest(unittest.TestCase):
    """Check in a running Slicer what only the application can show: that the module is there and answers."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def test_module_is_loaded_in_the_segmentation_category(self):
        module = slicer.util.getModule("MedSAMSlicer")
        self.assertIn("Segmentation", list(module.categories))

    def test_module_shows_its_own_icon(self):
        icon = Path(slicer.util.modulePath("MedSAMSlicer")).parent / "Resources" / "Icons" / "MedSAMSlicer.png"
        self.assertTrue(icon.is_file(), f"{icon} was not installed")
        self.assertFalse(slicer.util.getModule("MedSAMSlicer").icon.isNull())

    def test_logic_is_available_to_scripts(self):
        self.assertTrue(callable(slicer.util.getModuleLogic("MedSAMSlicer").segmentROI))

    def test_segmenting_without_a_volume_is_refused(self):
        roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        with self.assertRaisesRegex(ValueError, "(?i)volume"):
            slicer.util.getModuleLogic("MedSAMSlicer").segmentROI(None, roi, segmentation)
        self.assertEqual(segmentation.GetSegmentation().GetNumberOfSegments(), 0)

    def test_an_roi_in_an_oblique_volume_becomes_a_segment_that_can_be_undone(self):
        from box_predictor import BoxPredictor
        from MedSAMSlicerLib.mrml.session import SegmentationSession

        ijk_to_ras = vtk.vtkMatrix4x4()
        ijk_to_ras.DeepCopy((0, -0.8, 0, 20, 0.6, 0, -1.6, -5, 0.8, 0, 1.2, 40, 0, 0, 0, 1))
        voxels = np.random.default_rng(0).integers(0, 1000, (10, 24, 30)).astype(np.int16)
        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "MRI")
        volume.SetIJKToRASMatrix(ijk_to_ras)
        slicer.util.updateVolumeFromArray(volume, voxels)
        roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "lesion")
        object_to_node = vtk.vtkMatrix4x4()
        center = ijk_to_ras.MultiplyPoint((12.5, 10.5, 4.5, 1))
        for column, spacing in enumerate((1.0, 0.8, 2.0)):
            for row in range(3):
                object_to_node.SetElement(row, column, ijk_to_ras.GetElement(row, column) / spacing)
        for row in range(3):
            object_to_node.SetElement(row, 3, center[row])
        roi.SetAndObserveObjectToNodeMatrix(object_to_node)
        roi.SetSize(16 * 1.0, 10 * 0.8, 6 * 2.0)
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Segmentation")

        session = SegmentationSession(BoxPredictor())
        segment_id = session.segment(volume, roi, segmentation)

        expected = np.zeros(voxels.shape, dtype=bool)
        expected[2:8, 6:16, 5:21] = True
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, volume)
        np.testing.assert_array_equal(mask != 0, expected)
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume), voxels)

        # A flat ROI of the same center corrects the slice that it lies in, and the next undo takes that back.
        key = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "correction")
        center = ijk_to_ras.MultiplyPoint((12.5, 10.5, 4, 1))
        for row in range(3):
            object_to_node.SetElement(row, 3, center[row])
        key.SetAndObserveObjectToNodeMatrix(object_to_node)
        key.SetSize(8 * 1.0, 6 * 0.8, 0.5 * 2.0)
        session.segment(volume, roi, segmentation, segment_id, key_slices=[key])
        corrected = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, volume) != 0
        self.assertEqual(np.argwhere(corrected[4]).min(axis=0).tolist(), [8, 9])
        self.assertEqual(np.argwhere(corrected[4]).max(axis=0).tolist(), [13, 16])
        self.assertEqual(session.review(segmentation, segment_id)[-1].index, 4)
        self.assertTrue(session.undo(segmentation))
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, volume)
        np.testing.assert_array_equal(mask != 0, expected)

        self.assertTrue(session.undo(segmentation))
        self.assertEqual(segmentation.GetSegmentation().GetNumberOfSegments(), 0)
        self.assertTrue(session.redo(segmentation))
        self.assertEqual(segmentation.GetSegmentation().GetNumberOfSegments(), 1)
