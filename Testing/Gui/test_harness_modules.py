"""The stand-in for modules runs them as Slicer does: selectors, parameter nodes, the widget's life, and extensions."""

from __future__ import annotations

import enum
import sys
from io import StringIO
from pathlib import Path
from typing import Annotated

import pytest
import slicer
import slicer.util
from slicer import vtkMRMLScalarVolumeNode

from slicer_gui.gui import Gui

MODULE_FILE = Path(__file__).parent / "MadeUp" / "MadeUp.py"


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
