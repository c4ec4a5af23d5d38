from __future__ import annotations

import sys
import time
import unittest
from pathlib import Path

import numpy as np
import qt
import slicer
import slicer.util
import vtk

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

    def add_block(self):
        """Make the structure bright from FIRST to LAST, so that it can be seen where it ends."""
        voxels = slicer.util.arrayFromVolume(self.volume)
        voxels[tuple(slice(low, high + 1) for low, high in zip(FIRST[::-1], LAST[::-1], strict=True))] += 500
        slicer.util.arrayFromVolumeModified(self.volume)

    def place_box(self, view, *voxels):
        """Click *Place ROI*, then two opposite corners (IJK) in a slice view, by the events of a real mouse."""
        slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        slicer.util.setSliceViewerLayers(background=self.volume, fit=True)
        self.run_events()
        node = slicer.app.layoutManager().sliceWidget(view).mrmlSliceNode()
        node.RotateToVolumePlane(self.volume)
        node.JumpSlice(*self.world(voxels[0]))
        self.run_events()
        self.widget.panel.ui.placeROIButton.click()
        self.run_events()
        to_ras = slicer.util.arrayFromVTKMatrix(node.GetXYToRAS())
        interactor = slicer.app.layoutManager().sliceWidget(view).sliceView().interactor()
        for ijk in voxels:
            x, y = (np.linalg.inv(to_ras) @ [*self.world(ijk), 1])[:2].round().astype(int).tolist()
            for event in ("EnterEvent", "MouseMoveEvent", "LeftButtonPressEvent", "LeftButtonReleaseEvent"):
                interactor.SetEventInformation(x, y, 0, 0, "\0", 0, None)
                interactor.InvokeEvent(event)
            self.run_events()
        self.run_events(until=lambda: not self.widget.panel.ui.placeROIButton.checked)

    def world(self, ijk):
        matrix = vtk.vtkMatrix4x4()
        self.volume.GetIJKToRASMatrix(matrix)
        return matrix.MultiplyPoint((*ijk, 1))[:3]

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

    def test_a_box_of_two_clicks_is_followed_and_its_depth_is_shown_until_it_is_dragged(self):
        self.add_block()
        self.place_box("Red", (4.7, 5.7, 4), (20.3, 15.3, 4))
        table, roi = self.widget.panel.ui.boxesTable, slicer.util.getNodesByClass("vtkMRMLMarkupsROINode")[0]
        self.assertEqual(table.item(0, 1).text(), "one slice")
        self.assertLess(roi.GetSize()[2], 1.0)
        self.segment()
        slices = np.flatnonzero(self.mask().any(axis=(1, 2)))
        self.assertEqual(slices.tolist(), list(range(FIRST[2], LAST[2] + 1)))
        self.assertAlmostEqual(roi.GetSize()[2], len(slices), places=2)
        self.assertEqual(table.item(0, 1).text(), "one slice")
        x, y, z = roi.GetSize()
        roi.SetSize(x, y, z - 2)
        self.run_events()
        self.assertEqual(table.item(0, 1).text(), "3-D box")
        self.segment()
        self.assertEqual(self.mask().any(axis=(1, 2)).sum(), len(slices) - 2)
        self.widget.panel.ui.undoButton.click()
        self.run_events()
        self.assertEqual(self.mask().any(axis=(1, 2)).sum(), len(slices))

    def test_the_depth_of_a_box_is_switched_in_the_table(self):
        self.add_block()
        roi = self.add_box()
        table = self.widget.panel.ui.boxesTable
        self.assertEqual(table.item(0, 1).text(), "3-D box")
        table.item(0, 1).setCheckState(qt.Qt.Checked)
        self.run_events()
        self.assertEqual(table.item(0, 1).text(), "one slice")
        self.assertLess(roi.GetSize()[2], 1.0)

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
