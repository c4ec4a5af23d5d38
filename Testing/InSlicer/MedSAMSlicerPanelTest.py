from __future__ import annotations

import sys
import time
import unittest
from pathlib import Path

import numpy as np
import qt
import slicer
import slicer.util

# The stand-in for the network lies beside this folder: these tests need neither PyTorch nor weights.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

FIRST, LAST = (5, 6, 2), (20, 15, 7)


class MedSAMSlicerPanelTest(unittest.TestCase):
    """Use the module's panel in a running Slicer: its widgets, its thread, and the scene that it follows."""

    def setUp(self):
        slicer.mrmlScene.Clear()
        slicer.util.selectModule("MedSAMSlicer")
        self.widget = slicer.util.getModuleWidget("MedSAMSlicer")
        voxels = np.random.default_rng(0).normal(40, 20, (10, 24, 30)).astype(np.int16)
        self.volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
        slicer.util.updateVolumeFromArray(self.volume, voxels)
        self.volume.CreateDefaultDisplayNodes()
        self.run_events()
        self.parameters = self.widget.logic.getParameterNode()
        self.parameters.inputVolume = self.volume
        self.use_predictor()
        self.run_events()

    def use_predictor(self):
        """Let the module fill boxes, whatever is installed."""
        from box_predictor import BoxPredictor

        predictor = BoxPredictor()
        self.widget.logic.loadPredictor = lambda model=None, device=None: predictor

    def run_events(self, seconds=0.2, until=None):
        """Run Slicer's main loop, for a time or until something is so."""
        end = time.monotonic() + (30 if until else seconds)
        while not (until and until()):
            slicer.app.processEvents()
            if time.monotonic() > end:
                self.assertFalse(until, "Not within 30 s.")
                return
            time.sleep(0.005)

    def add_box(self):
        roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "lesion")
        roi.CreateDefaultDisplayNodes()
        low, high = np.array(FIRST) - 0.5, np.array(LAST) + 0.5
        roi.SetCenter(*(low + high) / 2)
        roi.SetSize(*(high - low))
        self.run_events()
        self.widget.panel.ui.boxesTable.item(0, 0).setCheckState(qt.Qt.Checked)
        self.run_events()
        return roi

    def segment(self):
        panel = self.widget.panel
        # (Not by the button, which is disabled where PyTorch or the weights are missing.)
        panel.segment(panel.boxes.read)
        self.run_events(until=lambda: not panel.result.running)
        self.run_events()

    def mask(self):
        segmentation = self.widget.logic.getParameterNode().segmentation
        segment_id = segmentation.GetSegmentation().GetNthSegmentID(0)
        return slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, self.volume) != 0

    def test_a_ticked_box_is_segmented_undone_and_redone(self):
        self.add_box()
        self.segment()
        expected = np.zeros((10, 24, 30), dtype=bool)
        expected[tuple(slice(low, high + 1) for low, high in zip(FIRST[::-1], LAST[::-1], strict=True))] = True
        np.testing.assert_array_equal(self.mask(), expected)
        ui = self.widget.panel.ui
        self.assertTrue(ui.statusLabel.text.startswith("Done"), ui.statusLabel.text)
        content = self.parameters.segmentation.GetSegmentation()
        ui.undoButton.click()
        self.run_events()
        self.assertEqual(content.GetNumberOfSegments(), 0)
        ui.redoButton.click()
        self.run_events()
        self.assertEqual(content.GetNumberOfSegments(), 1)

    def test_a_segment_added_by_hand_stays_when_the_run_is_undone(self):
        self.add_box()
        self.segment()
        content = self.parameters.segmentation.GetSegmentation()
        by_hand = content.AddEmptySegment("", "by hand", [1.0, 0.0, 0.0])
        self.run_events()
        self.widget.panel.ui.undoButton.click()
        self.run_events()
        self.assertEqual(content.GetSegmentIDs(), (by_hand,))

    def test_every_control_has_a_tooltip_and_the_parameters_are_connected(self):
        ui = self.widget.panel.ui
        for name, control in vars(ui).items():
            if name.endswith(("Button", "CheckBox", "ComboBox", "SpinBox", "Selector", "Table")):
                self.assertTrue(control.toolTip, name)
        self.assertIs(ui.inputVolumeSelector.currentNode(), self.volume)
        ui.autoUpdateCheckBox.click()
        self.assertTrue(self.parameters.autoUpdate)

    def test_placing_a_box_can_be_left(self):
        ui = self.widget.panel.ui
        interaction = slicer.app.applicationLogic().GetInteractionNode()
        ui.placeROIButton.click()
        self.run_events()
        self.assertEqual(interaction.GetCurrentInteractionMode(), interaction.Place)
        ui.placeROIButton.click()
        self.run_events()
        self.assertEqual(interaction.GetCurrentInteractionMode(), interaction.ViewTransform)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLMarkupsROINode"), 0)

    def test_closing_the_scene_and_reloading_in_the_middle_of_a_run_do_no_harm(self):
        self.add_box()
        panel = self.widget.panel
        panel.segment(panel.boxes.read)
        slicer.mrmlScene.Clear()
        self.run_events(until=lambda: not panel.result.running)
        self.widget.onReload()
        self.run_events()
        self.assertIsNot(slicer.util.getModuleWidget("MedSAMSlicer"), self.widget)

    def test_the_samples_are_registered(self):
        names = [source.sampleName for source in slicer.modules.sampleDataSources.get("MedSAM", [])]
        self.assertEqual(names, ["MedSAMCTAbdomen", "MedSAMMRAbdomen"])
