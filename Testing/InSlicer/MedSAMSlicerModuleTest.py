from __future__ import annotations

import unittest
from pathlib import Path

import slicer
import slicer.util


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
