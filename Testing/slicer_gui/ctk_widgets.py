"""The module ``ctk``: stand-ins for CTK's widgets, with the properties, slots and signals of CTK's own headers.

Headers: CTK Libs/Widgets/ctkCollapsibleButton.h, ctkCollapsibleGroupBox.h, ctkComboBox.h, ctkSliderWidget.h,
ctkDoubleSpinBox.h, ctkPathLineEdit.h, ctkCheckablePushButton.h, ctkMessageBox.h. As PythonQt sees only properties,
slots and invokables, a setter is a method here only where the header declares it as a slot.
"""

from __future__ import annotations

import functools
import types

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Signal

from slicer_gui.pythonqt import checked_property, held_property, pythonqt, stand_in
from slicer_gui.qt_module import QFileDialog, ctkMessageBox

_HEADER_HEIGHT = 24
# Of a widget that its section has hidden.
_HIDDEN = "hiddenBySection"


def forwarded(kind: type, owner: str, getter: str, setter: str = "") -> QtCore.Property:
    """Declare a property that belongs to a widget inside the stand-in, held in its private attribute ``owner``."""

    def inner(self: QtCore.QObject) -> QtWidgets.QWidget:
        return self.__dict__[owner]

    return checked_property(
        kind,
        lambda self: getattr(inner(self), getter)(),
        (lambda self, value: getattr(inner(self), setter)(value)) if setter else None,
    )


@stand_in
class ctkCollapsibleButton(pythonqt(QtWidgets.QAbstractButton)):
    """A section with a title; a click on the title hides what it contains."""

    contentsCollapsed = Signal(bool)
    collapsed = checked_property(
        bool, lambda self: not self.checked, lambda self, collapsed: self.setChecked(not collapsed)
    )

    def __init__(self, text: str | QtWidgets.QWidget | None = None, parent: QtWidgets.QWidget | None = None) -> None:
        title, parent = (text, parent) if isinstance(text, str) else ("", text)
        super().__init__(parent)
        self.setText(title)
        self.setCheckable(True)
        self.setChecked(True)
        self.setContentsMargins(0, _HEADER_HEIGHT, 0, 0)
        self.toggled.connect(self._show_contents)

    def _show_contents(self, shown: bool) -> None:
        _show_children(self, shown)
        self.updateGeometry()
        self.contentsCollapsed.emit(not shown)

    def childEvent(self, event: QtCore.QChildEvent) -> None:
        if event.added() and event.child().isWidgetType() and self.collapsed:
            _hide(event.child())
        super().childEvent(event)

    def hitButton(self, position: QtCore.QPoint) -> bool:
        return position.y() < _HEADER_HEIGHT

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        header = QtWidgets.QStyleOptionButton()
        header.initFrom(self)
        header.rect = QtCore.QRect(0, 0, self.width, _HEADER_HEIGHT - 2)
        painter = QtWidgets.QStylePainter(self)
        painter.drawControl(QtWidgets.QStyle.CE_PushButton, header)
        title = ("▸ " if self.collapsed else "▾ ") + self.text
        painter.drawText(header.rect.adjusted(8, 0, 0, 0), QtCore.Qt.AlignVCenter | QtCore.Qt.AlignLeft, title)


@stand_in
class ctkCollapsibleGroupBox(pythonqt(QtWidgets.QGroupBox)):
    """A group box whose check box hides what it contains."""

    collapsed = checked_property(
        bool, lambda self: not self.checked, lambda self, collapsed: self.setChecked(not collapsed)
    )

    def __init__(self, title: str | QtWidgets.QWidget | None = None, parent: QtWidgets.QWidget | None = None) -> None:
        title, parent = (title, parent) if isinstance(title, str) else ("", title)
        super().__init__(title, parent)
        self.setCheckable(True)
        self.toggled.connect(self._show_contents)

    def _show_contents(self, shown: bool) -> None:
        _show_children(self, shown)


@stand_in
class ctkComboBox(pythonqt(QtWidgets.QComboBox)):
    """A combo box with a text for "nothing chosen"."""

    cpp_slots = ("setCurrentUserDataAsString(QString)",)
    defaultText = checked_property(
        str, lambda self: self.placeholderText, lambda self, text: self.setPlaceholderText(text)
    )
    currentUserDataAsString = checked_property(
        str, lambda self: str(self.currentData or ""), lambda self, data: self.setCurrentUserDataAsString(data)
    )

    def setCurrentUserDataAsString(self, data: str) -> None:
        self.setCurrentIndex(self.findData(data))


class _NumberWidget(pythonqt(QtWidgets.QWidget)):
    """What ctkSliderWidget and ctkDoubleSpinBox have in common: a spin box inside."""

    valueChanged = Signal(float)
    decimalsChanged = Signal(int)
    cpp_slots = ("setValue(double)", "setDecimals(int)")
    minimum = forwarded(float, "_NumberWidget__spin", "minimum", "setMinimum")
    maximum = forwarded(float, "_NumberWidget__spin", "maximum", "setMaximum")
    singleStep = forwarded(float, "_NumberWidget__spin", "singleStep", "setSingleStep")
    prefix = forwarded(str, "_NumberWidget__spin", "prefix", "setPrefix")
    suffix = forwarded(str, "_NumberWidget__spin", "suffix", "setSuffix")
    value = forwarded(float, "_NumberWidget__spin", "value", "setValue")
    decimals = checked_property(
        int, lambda self: self.__spin.decimals(), lambda self, decimals: self.setDecimals(decimals)
    )

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.__spin = QtWidgets.QDoubleSpinBox()
        # A widget's own name in Designer must not find the one inside.
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.__spin)
        self.__spin.valueChanged.connect(self.valueChanged)

    def setValue(self, value: float) -> None:
        self.value = value

    def setDecimals(self, decimals: int) -> None:
        self.__spin.setDecimals(decimals)
        self.decimalsChanged.emit(decimals)


@stand_in
class ctkDoubleSpinBox(_NumberWidget):
    """A spin box; unlike QDoubleSpinBox it is a widget around one."""

    editingFinished = Signal()

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.findChild(QtWidgets.QDoubleSpinBox).editingFinished.connect(self.editingFinished)


@stand_in
class ctkSliderWidget(_NumberWidget):
    """A slider with a spin box."""

    valueIsChanging = Signal(float)
    pageStep = held_property(float, 10.0)
    tracking = held_property(bool, True)
    spinBoxVisible = checked_property(
        bool, lambda self: not self.__number.isHidden(), lambda self, shown: self.__number.setVisible(shown)
    )

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.__number = self.findChild(QtWidgets.QDoubleSpinBox)
        self.__slider = QtWidgets.QSlider(QtCore.Qt.Horizontal)
        self.__slider.setRange(0, 1000)
        self.layout().insertWidget(0, self.__slider)
        self.__number.setMaximum(100.0)
        self.__slider.sliderMoved.connect(self._follow_slider)
        self.valueChanged.connect(self._follow_number)

    def _follow_slider(self, position: int) -> None:
        self.setValue(self.minimum + position / 1000 * (self.maximum - self.minimum))

    def _follow_number(self, value: float) -> None:
        span = self.maximum - self.minimum
        self.__slider.setValue(round(1000 * (value - self.minimum) / span) if span else 0)


@stand_in
class ctkPathLineEdit(pythonqt(QtWidgets.QWidget)):
    """A line for a path, with a button that opens the file dialog."""

    Dirs, Files, Drives, NoSymLinks, Readable, Writable, Executable = 0x1, 0x2, 0x4, 0x8, 0x10, 0x20, 0x40
    AllDirs, NoDotAndDotDot, AllEntries = 0x400, 0x1000, 0x7

    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)
    cpp_slots = ("setCurrentPath(QString)", "browse()", "retrieveHistory()", "addCurrentPathToHistory()")
    label = held_property(str, "")
    filters = held_property(int, AllEntries)
    nameFilters = held_property("QStringList", [])
    settingKey = held_property(str, "")
    showHistoryButton = held_property(bool, True)
    showBrowseButton = checked_property(
        bool, lambda self: not self.__button.isHidden(), lambda self, shown: self.__button.setVisible(shown)
    )
    currentPath = checked_property(str, lambda self: self.__line.text(), lambda self, path: self.setCurrentPath(path))

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.__line, self.__button = QtWidgets.QLineEdit(), QtWidgets.QToolButton()
        self.__button.setText("...")
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.__line)
        row.addWidget(self.__button)
        self.__line.textChanged.connect(self.currentPathChanged)
        self.__button.clicked.connect(self.browse)

    def setCurrentPath(self, path: str) -> None:
        self.__line.setText(path)

    def browse(self) -> None:
        folders_only = self.filters & self.Dirs and not self.filters & self.Files
        path = QFileDialog.getExistingDirectory() if folders_only else QFileDialog.getOpenFileName()
        if path:
            self.setCurrentPath(path)

    def retrieveHistory(self) -> None:
        """The history is not kept from one test to the next."""

    addCurrentPathToHistory = retrieveHistory


@stand_in
class ctkCheckablePushButton(pythonqt(QtWidgets.QPushButton)):
    """A push button with a check box on it."""

    checkBoxToggled = Signal(bool)
    checkBoxControlsButton = held_property(bool, True)
    checkBoxControlsButtonToggleState = held_property(bool, False)
    checkBoxUserCheckable = held_property(bool, True)
    checkState = held_property(int, 0, "_tell")

    def _tell(self) -> None:
        if self.checkBoxControlsButtonToggleState:
            self.setCheckable(bool(self.checkState))
            self.setChecked(bool(self.checkState))
        self.checkBoxToggled.emit(bool(self.checkState))


def _show_children(section: QtWidgets.QWidget, shown: bool) -> None:
    """Hide the widgets in a section, or show again those that it has hidden."""
    for child in section.children():
        if not child.isWidgetType():
            continue
        if shown and child.property(_HIDDEN):
            child.setProperty(_HIDDEN, False)
            child.setVisible(True)
        elif not shown and not child.isHidden():
            _hide(child)


def _hide(child: QtWidgets.QWidget) -> None:
    # Noted in Qt: PySide has another object for a child that is being made than later.
    child.setProperty(_HIDDEN, True)
    child.setVisible(False)


WIDGETS = {
    kind.__name__: kind
    for kind in (
        ctkCheckablePushButton,
        ctkCollapsibleButton,
        ctkCollapsibleGroupBox,
        ctkComboBox,
        ctkDoubleSpinBox,
        ctkMessageBox,
        ctkPathLineEdit,
        ctkSliderWidget,
    )
}


class CtkModule(types.ModuleType):
    """The module itself. A name that it does not have raises AttributeError."""

    def __init__(self) -> None:
        super().__init__("ctk", "Stands in for PythonQt's module of CTK's widgets.")
        for name, kind in WIDGETS.items():
            setattr(self, name, kind)

    def __getattr__(self, name: str) -> object:
        raise AttributeError(f"The stand-in for Slicer's ctk has no {name!r}; add it as CTK's header declares it.")


@functools.cache
def ctk_module() -> CtkModule:
    """Return the module; the same one each time, as Python code keeps what it has imported."""
    return CtkModule()
