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

    def add_volume(self, name):
        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        slicer.util.updateVolumeFromArray(volume, np.arange(7200, dtype=np.int16).reshape(10, 24, 30))
        volume.CreateDefaultDisplayNodes()
        return volume

    def test_a_parameter_of_a_new_node_that_another_wrapper_sets_is_shown(self):
        from MedSAMSlicerLib.app.parameters import MedSAMSlicerParameterNode

        selector = slicer.qMRMLNodeComboBox()
        selector.nodeTypes, selector.noneEnabled = ["vtkMRMLScalarVolumeNode"], True
        selector.setMRMLScene(slicer.mrmlScene)
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")
        shown = MedSAMSlicerParameterNode(node)
        tag = shown.connectParametersToGui({"inputVolume": selector})
        MedSAMSlicerParameterNode(node).inputVolume = self.volume
        self.assertIs(selector.currentNode(), self.volume)
        shown.disconnectGui(tag)

    def test_what_the_console_chooses_is_shown(self):
        other = self.add_volume("other")
        self.widget.logic.getParameterNode().inputVolume = other
        self.run_events()
        self.assertIs(self.widget.panel.ui.inputVolumeSelector.currentNode(), other)

    def test_a_volume_that_is_loaded_while_none_is_chosen_is_chosen(self):
        self.parameters.inputVolume = None
        self.run_events()
        self.assertIsNone(self.widget.panel.ui.inputVolumeSelector.currentNode())
        loaded = self.add_volume("loaded")
        self.run_events()
        self.assertIs(self.widget.panel.ui.inputVolumeSelector.currentNode(), loaded)

    def views_away_from(self, roi):
        """Name the views that do not show the middle of a box."""
        manager, center = slicer.app.layoutManager(), np.array(roi.GetCenterWorld())
        away = []
        for name in manager.sliceViewNames():
            node = manager.sliceWidget(name).mrmlSliceNode()
            to_ras = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
            x, y = (np.linalg.inv(slicer.util.arrayFromVTKMatrix(node.GetXYToRAS())) @ [*center, 1])[:2]
            width, height = node.GetDimensions()[:2]
            in_plane = abs(to_ras[:3, 2] @ (to_ras[:3, 3] - center)) < 0.01
            if not (in_plane and 0 <= x < width and 0 <= y < height):
                away.append(name)
        view = manager.threeDWidget(0).mrmlViewNode()
        camera = slicer.modules.cameras.logic().GetViewActiveCameraNode(view)
        if np.linalg.norm(np.array(camera.GetFocalPoint()) - center) > 0.01:
            away.append("3-D")
        return away

    def test_all_views_show_the_box_that_was_chosen_in_the_table(self):
        slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        self.run_events()
        roi = self.add_box()
        for name in slicer.app.layoutManager().sliceViewNames():
            slicer.app.layoutManager().sliceWidget(name).mrmlSliceNode().JumpSliceByCentering(500.0, 500.0, 500.0)
        self.assertTrue(self.views_away_from(roi))
        self.widget.panel.ui.boxesTable.cellClicked.emit(0, 0)
        self.run_events()
        self.assertEqual(self.views_away_from(roi), [])

    def test_a_placed_box_has_no_name_across_it_and_is_in_all_views(self):
        self.place_box("Red", (4.7, 5.7, 4), (20.3, 15.3, 4))
        roi = slicer.util.getNodesByClass("vtkMRMLMarkupsROINode")[0]
        self.assertFalse(roi.GetDisplayNode().GetPropertiesLabelVisibility())
        self.assertEqual(self.views_away_from(roi), [])

    def test_the_lesion_of_a_measured_line_is_followed_and_undone(self):
        self.add_block()
        middle = (FIRST[1] + LAST[1]) / 2
        line = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", "lesion")
        across = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", "across")
        for node, ends in (
            (line, ((FIRST[0], middle, 4), (LAST[0], middle, 4))),
            (across, ((12, FIRST[1], 4), (12, LAST[1], 4))),
        ):
            for ijk in ends:
                node.AddControlPointWorld(*self.world(ijk))
        self.run_events()
        ui = self.widget.panel.ui
        ui.boxesOfLinesButton.click()
        self.run_events()
        self.assertEqual([ui.boxesTable.item(0, column).text() for column in (0, 1)], ["lesion", "one slice"])
        self.segment()
        slices = np.flatnonzero(self.mask().any(axis=(1, 2)))
        self.assertEqual(slices.tolist(), list(range(FIRST[2], LAST[2] + 1)))
        self.widget.logic.undo(self.parameters.segmentation)
        self.run_events()
        self.assertEqual(self.parameters.segmentation.GetSegmentation().GetNumberOfSegments(), 0)

    def test_a_segment_keeps_out_of_the_others_by_one_tick(self):
        self.add_box()
        self.segment()
        held = self.mask()
        ui = self.widget.panel.ui
        ui.boxesTable.item(0, 0).setCheckState(qt.Qt.Unchecked)
        ui.keepOutCheckBox.click()
        self.run_events()
        larger = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "larger")
        larger.SetCenter(12.0, 10.0, 4.5)
        larger.SetSize(20.0, 14.0, 8.0)
        self.run_events()
        ui.boxesTable.item(1, 0).setCheckState(qt.Qt.Checked)
        self.run_events()
        self.segment()
        segmentation = self.parameters.segmentation
        second = segmentation.GetSegmentation().GetNthSegmentID(1)
        made = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, second, self.volume) != 0
        self.assertTrue(made.any())
        self.assertFalse((made & held).any())
        np.testing.assert_array_equal(self.mask(), held)

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
