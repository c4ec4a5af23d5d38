"""``qt.QUiLoader``: loads a Designer file with the stand-ins, and refuses what Slicer would only warn about."""

from __future__ import annotations

from xml.etree import ElementTree

from PySide6 import QtCore, QtUiTools, QtWidgets

from slicer_gui import ctk_widgets, mrml_widgets
from slicer_gui.pythonqt import normalized, pythonqt

_CUSTOM = ctk_widgets.WIDGETS | mrml_widgets.WIDGETS


class UiError(Exception):
    """Say what in a .ui file Slicer can't load."""


class QUiLoader(QtUiTools.QUiLoader):
    """Loads a .ui file."""

    def __init__(self, qt_module: object) -> None:
        super().__init__()
        self._qt = qt_module

    def createWidget(self, class_name: str, parent: QtWidgets.QWidget | None = None, name: str = ""):
        widget = self._class(class_name)(parent)
        widget.setObjectName(name)
        return widget

    def createLayout(self, class_name: str, parent: QtCore.QObject | None = None, name: str = ""):
        layout = self._class(class_name)()
        layout.setObjectName(name)
        if isinstance(parent, QtWidgets.QWidget):
            parent.setLayout(layout)
        return layout

    def load(self, file: QtCore.QIODevice, parent: QtWidgets.QWidget | None = None) -> QtWidgets.QWidget:
        """Load a file.

        :raises UiError: for an unknown class, property, signal or slot, and for enums that only Qt 6 understands.
        """
        ui = ElementTree.fromstring(bytes(file.readAll()))
        for element in ui.iter("widget"):
            self._check_properties(element)
        for value in (*ui.iter("enum"), *ui.iter("set")):
            if any(part.count("::") > 1 for part in (value.text or "").split("|")):
                raise UiError(f"{value.text}: Qt 5 only knows the enum without its scope.")
        connections = list(ui.iter("connection"))
        for element in ui.findall("connections"):
            ui.remove(element)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(ui))
        buffer.open(QtCore.QBuffer.ReadOnly)
        widget = super().load(buffer, parent)
        for connection in connections:
            self._connect(widget, *(connection.findtext(tag) for tag in ("sender", "signal", "receiver", "slot")))
        return widget

    def _class(self, name: str) -> type:
        kind = _CUSTOM.get(name) or getattr(self._qt, name, None)
        if kind is None:
            raise UiError(f"The harness has no widget class {name}; add it as its header declares it.")
        return kind

    def _check_properties(self, element: ElementTree.Element) -> None:
        # Of an object: PySide replaces the meta-object of a class that Python has written.
        widget = self._class(element.get("class"))()
        meta_object = widget.metaObject()
        for declared in element.findall("property"):
            name = declared.get("name")
            if declared.get("stdset") != "0" and meta_object.indexOfProperty(name) < 0:
                raise UiError(f"{element.get('class')} {element.get('name')} has no property {name!r}.")

    def _connect(self, root: QtWidgets.QWidget, sender: str, signal: str, receiver: str, slot: str) -> None:
        objects = {}
        for name in (sender, receiver):
            found = root if root.objectName == name else root.findChild(pythonqt(QtCore.QObject), name)
            if found is None:
                raise UiError(f"The connection {sender}.{signal} → {receiver}.{slot} names no widget {name!r}.")
            objects[name] = found
        target, signature = objects[receiver], normalized(slot)
        known = any(signature in getattr(base, "cpp_slots", ()) for base in type(target).__mro__)
        if not known and target.metaObject().indexOfSlot(signature) < 0:
            raise UiError(f"{type(target).__name__} {receiver} has no slot {slot!r}.")
        objects[sender].connect(signal, getattr(target, slot.split("(")[0]))
