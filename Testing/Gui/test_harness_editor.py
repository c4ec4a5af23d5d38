"""The stand-in for the Segment Editor and its views: effects edit, views are used with the mouse, as in Slicer."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import slicer
import slicer.util

from slicer_gui.gui import Gui

EFFECT_FILE = Path(__file__).parent / "MadeUp" / "SegmentEditorMadeUpLib" / "SegmentEditorEffect.py"


class TestEffects:
    @pytest.fixture
    def segmentation(self, gui: Gui, volume):
        node = gui.headless.add_segmentation("Segmentation", volume)
        for name in ("lesion", "liver"):
            node.GetSegmentation().AddEmptySegment(name, name, [1, 0, 0])
        return node

    @pytest.fixture
    def editor(self, gui: Gui, volume, segmentation):
        """An editor with the made-up effect active on the segment "lesion"."""
        register(gui)
        editor = gui.segment_editor(segmentation, volume)
        editor.setActiveEffectByName("MadeUp")
        slicer.util.setSliceViewerLayers(fit=True)
        return editor

    @pytest.mark.parametrize(
        ("view", "first", "last"),
        [("Red", (5, 6, 9), (11, 20, 9)), ("Green", (5, 15, 3), (11, 15, 16)), ("Yellow", (20, 6, 3), (20, 20, 16))],
    )
    def test_a_box_is_filled_in_each_slice_view(self, gui: Gui, editor, segmentation, view: str, first, last):
        drag(gui, view, first, last)

        expected = np.zeros((20, 30, 40), dtype=bool)
        expected[tuple(slice(low, high + 1) for low, high in zip(first[::-1], last[::-1], strict=True))] = True
        np.testing.assert_array_equal(voxels_of(segmentation, "lesion"), expected)

    def test_the_view_itself_does_not_move(self, gui: Gui, editor):
        node = gui.layout_manager.sliceWidget("Red").mrmlSliceNode()
        before = node.GetXYZOrigin()

        drag(gui, "Red", (5, 6, 9), (11, 20, 9))

        assert node.GetXYZOrigin() == before

    def test_an_edit_is_undone_and_redone(self, gui: Gui, editor, segmentation):
        drag(gui, "Red", (5, 6, 9), (11, 20, 9))
        filled = voxels_of(segmentation, "lesion").sum()

        editor.undo()
        assert not voxels_of(segmentation, "lesion").any()
        editor.redo()

        assert voxels_of(segmentation, "lesion").sum() == filled == 7 * 15

    def test_the_mask_of_the_editor_holds(self, gui: Gui, editor, segmentation):
        node = editor.mrmlSegmentEditorNode()
        node.SetSourceVolumeIntensityMask(True)
        node.SetSourceVolumeIntensityMaskRange(8, 100)

        drag(gui, "Red", (5, 6, 9), (11, 20, 9))

        assert np.flatnonzero(voxels_of(segmentation, "lesion").any(axis=(0, 1))).tolist() == [8, 9, 10, 11]

    @pytest.mark.parametrize("overwrite", ["OverwriteAllSegments", "OverwriteNone"])
    def test_the_overwrite_rule_of_the_editor_holds(self, gui: Gui, editor, segmentation, overwrite: str):
        node = editor.mrmlSegmentEditorNode()
        node.SetOverwriteMode(getattr(node, overwrite))
        drag(gui, "Red", (5, 6, 9), (11, 20, 9))
        editor.setCurrentSegmentID("liver")

        drag(gui, "Red", (9, 6, 9), (15, 20, 9))

        assert voxels_of(segmentation, "liver").sum() == 7 * 15
        assert voxels_of(segmentation, "lesion").sum() == (4 if overwrite == "OverwriteAllSegments" else 7) * 15

    def test_options_are_kept_in_the_node_of_the_editor(self, editor):
        effect = editor.activeEffect()
        effect.self().slicesSpinBox.value = 5
        assert editor.mrmlSegmentEditorNode().GetAttribute("MadeUp.Slices") == "5"

        effect.setParameter("Slices", 7)

        assert effect.self().slicesSpinBox.value == 7
        with pytest.raises(KeyError, match="no parameter 'Depth'"):
            effect.parameter("Depth")

    def test_a_key_in_the_view_reaches_the_effect(self, gui: Gui, editor):
        drag(gui, "Red", (5, 6, 9), (11, 20, 9))
        renderer = editor.activeEffect().renderer(gui.layout_manager.sliceWidget("Red"))
        actors = renderer.GetActors2D().GetNumberOfItems()

        gui.mouse("Red").key("Escape")

        assert editor.activeEffect() is None
        assert renderer.GetActors2D().GetNumberOfItems() == actors - 1

    def test_placing_a_markup_ends_the_effect(self, gui: Gui, editor):
        interaction = slicer.app.applicationLogic().GetInteractionNode()

        interaction.SetCurrentInteractionMode(interaction.Place)

        assert editor.activeEffect() is None

    def test_a_hidden_segment_is_edited_only_if_the_user_agrees(self, gui: Gui, editor, segmentation):
        segmentation.GetDisplayNode().SetSegmentVisibility("lesion", False)
        gui.dialogs.answer(gui.qt.QMessageBox.Cancel)

        drag(gui, "Red", (5, 6, 9), (11, 20, 9))

        assert len(gui.dialogs.take()) == 1
        assert not voxels_of(segmentation, "lesion").any()

    def test_closing_the_scene_is_survived(self, gui: Gui, editor):
        gui.scene.Clear()
        gui.pump()

        assert editor.segmentationNode() is None

    def test_a_second_effect_of_the_same_name_is_ignored(self, gui: Gui, editor):
        register(gui)

        assert len(slicer.qSlicerSegmentEditorEffectFactory.instance().registeredEffects()) == 1

    def test_a_file_loaded_under_the_name_of_its_folder_hides_the_package(self, gui: Gui, monkeypatch):
        monkeypatch.delitem(sys.modules, "SegmentEditorMadeUpLib", raising=False)
        import qSlicerSegmentationsEditorEffectsPythonQt as effects

        effect = effects.qSlicerSegmentEditorScriptedEffect(None)
        effect.setPythonSource(EFFECT_FILE.as_posix())

        assert not hasattr(sys.modules["SegmentEditorMadeUpLib"], "__path__")
        assert slicer.SegmentEditorMadeUpLib is effect.self()
        effect.self().register()


class TestViews:
    def test_an_roi_is_placed_by_two_clicks(self, gui: Gui, volume):
        slicer.util.setSliceViewerLayers(background=volume, fit=True)
        selection = slicer.app.applicationLogic().GetSelectionNode()
        selection.SetReferenceActivePlaceNodeClassName("vtkMRMLMarkupsROINode")
        interaction = slicer.app.applicationLogic().GetInteractionNode()
        interaction.SetCurrentInteractionMode(interaction.Place)
        mouse = gui.mouse("Red")

        for corner in ((10, 10, 9.5), (20, 16, 9.5)):
            mouse.click(mouse.ras_to_xy(corner))

        roi = gui.scene.GetFirstNodeByClass("vtkMRMLMarkupsROINode")
        assert roi.GetNumberOfControlPoints() == 1
        assert interaction.GetCurrentInteractionMode() == interaction.ViewTransform

    @pytest.mark.parametrize("view", ["Red", "3D"])
    def test_a_face_of_an_roi_is_dragged(self, gui: Gui, volume, view: str):
        slicer.util.setSliceViewerLayers(background=volume, fit=True)
        roi = gui.scene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
        roi.SetCenter(20, 15, 9.5)
        roi.SetSize(10, 10, 10)
        roi.CreateDefaultDisplayNodes()
        roi.GetDisplayNode().SetHandlesInteractive(True)
        gui.layout_manager.resetThreeDViews()
        mouse = gui.mouse(view)

        mouse.drag(mouse.ras_to_xy((25, 15, 9.5)), mouse.ras_to_xy((30, 15, 9.5)))

        assert roi.GetSize()[0] == pytest.approx(15, abs=1)

    def test_a_picture_shows_what_is_in_the_view(self, gui: Gui, volume):
        empty = gui.picture("Red")
        slicer.util.setSliceViewerLayers(background=volume, fit=True)

        assert gui.picture("Red").sum() > empty.sum()


def register(gui: Gui) -> None:
    """Register the made-up effect as its module would."""
    if str(EFFECT_FILE.parents[1]) not in sys.path:
        sys.path.append(str(EFFECT_FILE.parents[1]))
    import qSlicerSegmentationsEditorEffectsPythonQt as effects
    import SegmentEditorMadeUpLib  # noqa: F401 (first, or the effect's file would take its place)

    effect = effects.qSlicerSegmentEditorScriptedEffect(None)
    effect.setPythonSource(EFFECT_FILE.as_posix())
    effect.self().register()


def drag(gui: Gui, view: str, first: tuple[int, int, int], last: tuple[int, int, int]) -> None:
    """Drag from one voxel to another in the slice through the first; voxels are where RAS says, see `volume`."""
    gui.layout_manager.sliceWidget(view).mrmlSliceNode().JumpSliceByCentering(*first)
    mouse = gui.mouse(view)
    mouse.drag(mouse.ras_to_xy(first), mouse.ras_to_xy(last))
    gui.check()


def voxels_of(segmentation: slicer.vtkMRMLSegmentationNode, segment_id: str) -> np.ndarray:
    """Read a segment in the geometry of the volume: bool (K, J, I)."""
    volume = segmentation.GetNodeReference(segmentation.GetReferenceImageGeometryReferenceRole())
    return slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, volume) != 0
