"""The stand-in for Qt refuses what PythonQt does not have, and fails tests where it would only print."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import slicer
import slicer.util

from slicer_gui.gui import Gui
from slicer_gui.ui_loader import UiError

UI_FILE = Path(__file__).parent / "MadeUp" / "Resources" / "UI" / "MadeUp.ui"


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

    def test_buttons_with_a_text_of_their_own_are_answered_by_it(self, gui: Gui):
        for answer, chosen in (("Keep", True), ("Delete", False)):
            box = gui.qt.QMessageBox()
            keep = box.addButton("Keep", gui.qt.QMessageBox.AcceptRole)
            box.addButton("Delete", gui.qt.QMessageBox.DestructiveRole)
            gui.dialogs.answer(answer)
            box.exec_()
            assert (box.clickedButton() == keep) is chosen
        gui.dialogs.answer(gui.qt.QMessageBox.Ok)
        with pytest.raises(AssertionError, match=r"not among the buttons \('Keep', 'Delete'\)"):
            box.exec_()
        gui.dialogs.take()

    def test_the_main_window_asks_before_it_closes_and_hears_event_filters_first(self, gui: Gui, volume):
        class Filter(gui.qt.QObject):
            def eventFilter(self, window: object, event: object) -> bool:
                if event.type() != gui.qt.QEvent.Close or not refusing:
                    return False
                event.ignore()
                return True

        refusing, own_filter = [True], Filter()
        gui.main_window.installEventFilter(own_filter)
        gui.main_window.show()
        assert not gui.main_window.close()
        refusing.clear()
        gui.dialogs.answer("Cancel exit", "Exit (discard modifications)")
        assert not gui.main_window.close()
        assert gui.main_window.close()
        assert [dialog.title for dialog in gui.dialogs.take()] == ["Save before exit?"] * 2

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
