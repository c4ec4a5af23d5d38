"""The stand-in for Slicer's GUI layer refuses what Slicer does not have, and runs what Slicer runs."""

from __future__ import annotations

import enum
import sys
import threading
from io import StringIO
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
import slicer
import slicer.util
from slicer import vtkMRMLScalarVolumeNode

from slicer_gui.gui import Gui
from slicer_gui.ui_loader import UiError

MODULE_FILE = Path(__file__).parent / "MadeUp" / "MadeUp.py"
UI_FILE = MODULE_FILE.parent / "Resources" / "UI" / "MadeUp.ui"
EFFECT_FILE = MODULE_FILE.parent / "SegmentEditorMadeUpLib" / "SegmentEditorEffect.py"


@pytest.fixture
def volume(gui: Gui) -> slicer.vtkMRMLScalarVolumeNode:
    """A volume whose voxel (K, J, I) holds I, with voxels of 1 mm and the RAS axes."""
    voxels = np.broadcast_to(np.arange(40, dtype=np.int16), (20, 30, 40)).copy()
    node = slicer.util.addVolumeFromArray(voxels, name="CT", ijkToRAS=np.eye(4))
    node.CreateDefaultDisplayNodes()
    return node


@pytest.fixture
def load_ui(gui: Gui, tmp_path: Path):
    """Load the made-up .ui file after a replacement in its text."""

    def load(old: str = "", new: str = ""):
        text = UI_FILE.read_text(encoding="utf-8")
        assert old in text
        (tmp_path / "changed.ui").write_text(text.replace(old, new), encoding="utf-8")
        return slicer.util.loadUI(str(tmp_path / "changed.ui"))

    return load


class TestQt:
    def test_properties_are_attributes_and_setters_are_methods(self, gui: Gui):
        button = gui.qt.QPushButton("Apply")
        button.toolTip = "Starts"
        button.setText("Apply it")

        assert (button.text, button.toolTip, button.className()) == ("Apply it", "Starts", "QPushButton")
        assert isinstance(button, gui.qt.QWidget)
        with pytest.raises(TypeError, match="not callable"):
            button.text()

    def test_attributes_that_qt_does_not_have_are_refused(self, gui: Gui):
        button = gui.qt.QPushButton()

        with pytest.raises(AttributeError, match="caption"):
            _ = button.caption
        with pytest.raises(AttributeError, match="no property 'caption'"):
            button.caption = "Apply"
        with pytest.raises(AttributeError, match="no property 'text'"):
            gui.qt.QTableWidgetItem().text = "Apply"

    def test_values_that_qt_does_not_take_are_refused(self, gui: Gui):
        with pytest.raises(TypeError, match="text = <object"):
            gui.qt.QPushButton().text = object()
        with pytest.raises(TypeError, match="'wide' is not a float"):
            gui.ctk.ctkSliderWidget().value = "wide"

    def test_signals_that_qt_does_not_have_are_refused(self, gui: Gui):
        with pytest.raises(ValueError, match=r"no signal 'clicked\(int\)'"):
            gui.qt.QPushButton().connect("clicked(int)", print)
        with pytest.raises(ValueError, match="no signal"):
            slicer.qMRMLNodeComboBox().connect("currentNodeChanged(vtkMRMLVolumeNode*)", print)

    def test_both_ways_of_connecting_work(self, gui: Gui):
        heard = []
        button = gui.qt.QPushButton()
        button.connect("clicked(bool)", lambda: heard.append("signature"))
        button.clicked.connect(lambda checked: heard.append(checked))

        button.click()

        assert heard == ["signature", False]

    def test_enum_values_are_integers_without_the_name_of_the_enum(self, gui: Gui):
        assert gui.qt.Qt.Key_Escape == 0x01000000
        assert gui.qt.QMessageBox().Ok == gui.qt.QMessageBox.Ok
        with pytest.raises(AttributeError, match="without the enum's name"):
            _ = gui.qt.QMessageBox.StandardButton.Ok

    def test_setters_that_are_no_slots_are_hidden(self, gui: Gui):
        slider = gui.ctk.ctkSliderWidget()
        slider.setValue(3)

        assert slider.value == 3
        assert not hasattr(slider, "setMinimum")

    def test_the_modules_have_no_more_than_is_declared(self, gui: Gui):
        with pytest.raises(AttributeError, match="no 'QWebEngineView'"):
            _ = gui.qt.QWebEngineView
        with pytest.raises(AttributeError, match="no 'ctkDICOMBrowser'"):
            _ = gui.ctk.ctkDICOMBrowser

    def test_a_collapsed_section_hides_its_widgets_but_not_for_ever(self, gui: Gui):
        section = gui.ctk.ctkCollapsibleButton("Section")
        layout = gui.qt.QVBoxLayout(section)
        shown, hidden = gui.qt.QLabel("shown"), gui.qt.QLabel("hidden")
        for label in (shown, hidden):
            layout.addWidget(label)
        hidden.visible = False
        section.show()

        section.collapsed = True
        assert not shown.visible
        section.collapsed = False

        assert shown.visible
        assert not hidden.visible

    def test_shortcuts_are_heard(self, gui: Gui):
        heard = []
        widget = gui.qt.QWidget()
        shortcut = gui.qt.QShortcut(widget)
        shortcut.setKey(gui.qt.QKeySequence("Ctrl+Return"))
        shortcut.connect("activated()", lambda: heard.append(True))
        widget.show()

        gui.shortcut(widget, "Ctrl+Return")

        assert heard == [True]

    def test_settings_are_kept_in_the_folder_of_the_test(self, gui: Gui, tmp_path: Path):
        gui.qt.QSettings().setValue("MadeUp/device", "cpu")
        slicer.app.settings().sync()

        assert slicer.util.settingsValue("MadeUp/device", "auto") == "cpu"
        assert "device=cpu" in (tmp_path / "Slicer.ini").read_text(encoding="utf-8")


class TestErrors:
    @pytest.mark.parametrize("where", ["slot", "timer", "observer", "thread"])
    def test_exceptions_that_would_only_be_printed_fail_the_test(self, gui: Gui, where: str):
        def fail(*_: object) -> None:
            raise ValueError(f"in a {where}")

        if where == "slot":
            button = gui.qt.QPushButton()
            button.connect("clicked()", fail)
            button.click()
        elif where == "timer":
            gui.qt.QTimer.singleShot(0, fail)
        elif where == "observer":
            observer = gui.scene.AddObserver("ModifiedEvent", fail)
            gui.scene.Modified()
            gui.scene.RemoveObserver(observer)
        else:
            thread = threading.Thread(target=fail)
            thread.start()
            thread.join()

        with pytest.raises(AssertionError, match=f"in a {where}"):
            gui.pump()

    def test_warnings_of_qt_and_errors_of_vtk_fail_the_test(self, gui: Gui):
        widget = gui.qt.QWidget()
        widget.setLayout(gui.qt.QVBoxLayout())
        gui.qt.QVBoxLayout(widget)
        gui.scene.AddNode(None)

        errors = gui.take_errors()

        assert any("already has a layout" in error for error in errors)

    def test_waiting_in_vain_fails_the_test(self, gui: Gui):
        with pytest.raises(AssertionError, match="Not within"):
            gui.pump(until=lambda: False, at_most=0.01)


class TestDialogs:
    def test_the_test_answers_questions_and_sees_them(self, gui: Gui):
        gui.dialogs.answer(gui.qt.QMessageBox.Cancel)

        assert not slicer.util.confirmOkCancelDisplay("Download 37 MB?")

        (dialog,) = gui.dialogs.take()
        assert (dialog.kind, dialog.text) == ("Question", "Download 37 MB?")

    def test_questions_without_an_answer_fail(self, gui: Gui):
        with pytest.raises(AssertionError, match="Nobody answers"):
            slicer.util.confirmYesNoDisplay("Really?")
        gui.dialogs.take()

    def test_answers_that_no_button_offers_fail(self, gui: Gui):
        gui.dialogs.answer(gui.qt.QMessageBox.Ok)
        with pytest.raises(AssertionError, match="not among the buttons"):
            slicer.util.confirmYesNoDisplay("Really?")
        gui.dialogs.take()

    def test_messages_that_the_test_does_not_take_are_left_over(self, gui: Gui):
        slicer.util.errorDisplay("The disk is full.")

        assert "The disk is full." in gui.dialogs.left_over()

    def test_a_chosen_file_must_exist(self, gui: Gui, tmp_path: Path):
        gui.dialogs.answer(str(tmp_path), tmp_path / "absent")

        assert gui.qt.QFileDialog.getExistingDirectory(None, "Folder") == str(tmp_path)
        with pytest.raises(AssertionError, match="does not exist"):
            gui.qt.QFileDialog.getOpenFileName()
        gui.dialogs.take()


class TestUiFiles:
    def test_a_sound_file_loads(self, load_ui):
        assert load_ui().name == "MadeUp"

    @pytest.mark.parametrize(
        ("old", "new", "complaint"),
        [
            ("QCheckBox", "QTriStateBox", "no widget class QTriStateBox"),
            ('name="noneEnabled"', 'name="nothingEnabled"', "no property 'nothingEnabled'"),
            ("<signal>mrmlSceneChanged(", "<signal>mrmlChanged(", "no signal"),
            ("<slot>setMRMLScene(vtkMRMLScene*)", "<slot>setMRMLScene()", "no slot"),
            ("<receiver>volumeSelector", "<receiver>selector", "no widget 'selector'"),
            ("Qt::Vertical", "Qt::Orientation::Vertical", "Qt 5"),
        ],
    )
    def test_what_slicer_does_not_know_is_refused(self, gui: Gui, load_ui, old: str, new: str, complaint: str):
        with pytest.raises((UiError, ValueError), match=complaint):
            load_ui(old, new)


class TestMrmlWidgets:
    def test_a_selector_follows_the_scene(self, gui: Gui, volume):
        selector = slicer.qMRMLNodeComboBox()
        selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        heard = []
        selector.connect("currentNodeChanged(vtkMRMLNode*)", heard.append)
        selector.connect("currentNodeChanged(bool)", heard.append)

        selector.setMRMLScene(gui.scene)
        added = selector.addNode()
        gui.scene.RemoveNode(added)
        gui.scene.RemoveNode(volume)

        assert heard == [volume, True, added, True, volume, True, None, False]

    def test_with_none_in_the_list_nothing_is_chosen_for_the_user(self, gui: Gui, volume):
        selector = slicer.qMRMLNodeComboBox()
        selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        selector.noneEnabled = True
        selector.setMRMLScene(gui.scene)

        assert selector.currentNode() is None
        assert selector.nodeCount() == 1

    def test_a_segment_selector_follows_the_segmentation(self, gui: Gui, volume):
        selector = slicer.qMRMLSegmentSelectorWidget()
        heard = []
        selector.connect("currentSegmentChanged(QString)", heard.append)
        selector.setMRMLScene(gui.scene)
        segmentation = gui.headless.add_segmentation("Segmentation", volume)

        segmentation.GetSegmentation().AddEmptySegment("liver", "liver")
        segmentation.GetSegmentation().AddEmptySegment("spleen", "spleen")
        segmentation.GetSegmentation().RemoveSegment("liver")

        assert selector.currentNode() is segmentation
        assert heard == ["liver", "spleen"]


class Plane(enum.Enum):
    AXIAL = 1
    CORONAL = 2


class TestParameterNodeWrapper:
    @pytest.fixture
    def wrap(self, gui: Gui):
        """Wrap a class of annotations around a new node."""
        from slicer.parameterNodeWrapper import parameterNodeWrapper

        def make(annotations: dict, **defaults: object):
            declared = type("Declared", (), {"__annotations__": annotations, **defaults})
            return parameterNodeWrapper(declared)(gui.scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode"))

        return make

    def test_parameters_are_saved_with_the_scene(self, gui: Gui, wrap, volume):
        kinds = {
            "volume": vtkMRMLScalarVolumeNode,
            "mask": vtkMRMLScalarVolumeNode | None,
            "names": list[str],
            "plane": Plane,
            "folder": Path,
            "count": int,
        }
        parameters = wrap(kinds, count=3)
        parameters.names = ["left kidney", "right kidney", "liver"]
        parameters.names = ["left kidney", "spleen"]
        parameters.volume, parameters.plane, parameters.folder = volume, Plane.CORONAL, Path("models")
        gui.scene.SetSaveToXMLString(1)
        gui.scene.Commit()
        other = slicer.vtkMRMLScene()
        other.SetLoadFromXMLString(1)
        other.SetSceneXMLString(gui.scene.GetSceneXMLString())
        other.Import()

        restored = type(parameters)(other.GetFirstNodeByClass("vtkMRMLScriptedModuleNode"))

        assert restored.names == ["left kidney", "spleen"]
        assert (restored.plane, restored.folder, restored.count) == (Plane.CORONAL, Path("models"), 3)
        assert restored.volume.GetName() == "CT"
        assert restored.mask is None

    def test_what_is_not_declared_can_not_be_set(self, wrap):
        with pytest.raises(AttributeError, match="no parameter 'cuont'"):
            wrap({"count": int}).cuont = 4

    @pytest.mark.parametrize("value", ["four", 4.5, None, 11])
    def test_values_that_do_not_fit_are_refused(self, gui: Gui, wrap, value: object):
        from slicer.parameterNodeWrapper import WithinRange

        with pytest.raises((TypeError, ValueError), match=str(value)):
            wrap({"count": Annotated[int, WithinRange(0, 10)]}).count = value

    def test_types_that_are_not_known_are_refused(self, wrap):
        with pytest.raises(TypeError, match="does not know"):
            wrap({"boxes": dict[str, StringIO]})

    def test_a_widget_that_can_not_show_a_parameter_is_refused(self, gui: Gui, wrap):
        with pytest.raises(RuntimeError, match="can't show count"):
            wrap({"count": int}).connectParametersToGui({"count": gui.qt.QLineEdit()})
        with pytest.raises(ValueError, match="no parameter 'size'"):
            wrap({"count": int}).connectParametersToGui({"size": gui.qt.QSpinBox()})


class TestModules:
    @pytest.fixture
    def widget(self, gui: Gui, volume):
        gui.load_module(MODULE_FILE)
        gui.start_up()
        return gui.open_module("MadeUp")

    def test_samples_are_registered_when_slicer_has_started(self, widget):
        assert [source.sampleName for source in slicer.modules.sampleDataSources["MadeUp"]] == ["Sample"]

    def test_the_logic_is_found_by_the_name_of_the_module(self, widget):
        assert slicer.util.getModuleLogic("MadeUp") is widget.logic

    def test_controls_and_parameters_follow_each_other(self, widget, volume):
        widget.ui.thresholdSlider.value = 250
        widget.ui.invertCheckBox.checked = True
        widget.ui.colorComboBox.currentIndex = 1
        widget.ui.volumeSelector.setCurrentNode(volume)
        parameters = widget.parameterNode

        assert (parameters.threshold, parameters.invert, parameters.color) == (250, True, "red")
        assert parameters.volume is volume
        assert widget.ui.applyButton.enabled

        parameters.threshold, parameters.invert, parameters.volume = 7, False, None

        assert (widget.ui.thresholdSlider.value, widget.ui.invertCheckBox.checked) == (7, False)
        assert widget.ui.volumeSelector.currentNode() is None
        assert not widget.ui.applyButton.enabled

    def test_a_click_reaches_the_logic(self, gui: Gui, widget, volume):
        widget.ui.volumeSelector.setCurrentNode(volume)

        widget.ui.applyButton.click()

        assert volume.GetName() == "processed"

    def test_a_failure_is_shown_and_raised(self, gui: Gui, widget, volume):
        volume.SetAndObserveImageData(None)
        widget.ui.volumeSelector.setCurrentNode(volume)

        widget.ui.applyButton.click()

        (dialog,) = gui.dialogs.take()
        assert dialog.kind == "Critical"
        assert dialog.text == "Failed.\n\nThe volume is empty."
        (error,) = gui.take_errors()
        assert "ValueError: The volume is empty." in error

    def test_closing_the_scene_starts_anew(self, gui: Gui, widget, volume):
        widget.parameterNode.volume, widget.parameterNode.threshold = volume, 7

        gui.scene.Clear()
        gui.pump()

        assert widget.parameterNode.volume is None
        assert (widget.parameterNode.threshold, widget.ui.thresholdSlider.value) == (100, 100)

    def test_a_left_module_does_not_follow(self, gui: Gui, widget):
        parameters = widget.parameterNode
        gui.leave_module("MadeUp")

        parameters.threshold = 7

        assert widget.ui.thresholdSlider.value == 100

    def test_a_module_is_reloaded(self, gui: Gui, widget):
        widget.onReload()
        reloaded = gui.open_module("MadeUp")

        assert widget.cleanedUp
        assert reloaded is not widget
        assert slicer.modules.MadeUpWidget is reloaded

    def test_nothing_stays_when_slicer_ends(self, tmp_path: Path):
        with pytest.MonkeyPatch.context() as monkeypatch:
            gui = Gui(tmp_path / "Slicer.ini", monkeypatch)
            gui.load_module(MODULE_FILE)
            widget = gui.open_module("MadeUp")
            gui.close()

        assert widget.cleanedUp
        assert not {"qt", "ctk", "MadeUp", "slicer.i18n"} & set(sys.modules)
        assert not hasattr(slicer, "app")


class TestExtensions:
    def test_samples_take_slicers_arguments_only(self, gui: Gui):
        import SampleData

        with pytest.raises(TypeError, match="uri"):
            SampleData.SampleDataLogic.registerCustomSampleDataSource(sampleName="CT", uri="https://example.org")
        with pytest.raises(FileNotFoundError, match="no picture"):
            SampleData.SampleDataLogic.registerCustomSampleDataSource(sampleName="CT", thumbnailFileName="absent.png")
        with pytest.raises(TypeError, match="no address"):
            SampleData.SampleDataLogic.registerCustomSampleDataSource(sampleName="CT")

    def test_packages_are_asked_for_once(self, gui: Gui):
        gui.packages.missing.add("nibabel")

        for _ in range(2):
            slicer.packaging.pip_ensure("nibabel>=5", requester="MadeUp")

        assert gui.packages.requests == [["nibabel>=5"]]

    def test_without_the_pytorch_extension_there_is_no_pytorch_utils(self, gui: Gui):
        with pytest.raises(ModuleNotFoundError):
            import PyTorchUtils

        extension = gui.add_pytorch_extension(agree=False)
        import PyTorchUtils

        logic = PyTorchUtils.PyTorchUtilsLogic()
        assert logic.installTorch(askConfirmation=True, torchVersionRequirement=">=2.2") is None
        extension.agree = True
        assert logic.installTorch(askConfirmation=True).__name__ == "torch"
        assert logic.torchInstalled()


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
