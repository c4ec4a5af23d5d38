"""Which widget can show which parameter, as Slicer Base/Python/slicer/parameterNodeWrapper/guiConnectors.py has it."""

from __future__ import annotations

import enum
import math
import pathlib
from collections.abc import Callable
from dataclasses import dataclass

from slicer_gui.parameter_node import Choice, Maximum, Minimum, Parameter, WithinRange

_SLIDERS = ("ctkSliderWidget", "qMRMLSliderWidget")


@dataclass
class Connector:
    """A widget seen as the value of a parameter; ``changed`` is the signal that tells of a new one."""

    widget: object
    changed: str
    read: Callable[[], object]
    write: Callable[[object], None]


def connector_for(widget: object, parameter: Parameter) -> Connector:
    """Connect a widget to a parameter.

    :raises RuntimeError: if Slicer has no connector for the two.
    """
    name, kind = widget.className(), parameter.kind
    if kind is bool and name in ("QCheckBox", "QPushButton", "ctkCheckablePushButton"):
        if name == "QPushButton" and not widget.checkable:
            raise RuntimeError(f"The button {widget.name} must be checkable to show {parameter.name}.")
        return _attribute(widget, "checked", "toggled(bool)")
    if kind is int and name in ("QSpinBox", "QSlider"):
        _limit(widget, parameter, -(2**31), 2**31 - 1)
        return _attribute(widget, "value", "valueChanged(int)")
    if kind in (int, float) and name in ("QDoubleSpinBox", "ctkDoubleSpinBox", *_SLIDERS):
        if name in _SLIDERS and not _is_bounded(parameter):
            raise RuntimeError(f"The slider {widget.name} needs limits: annotate {parameter.name} with WithinRange.")
        if kind is int:
            widget.decimals = 0
        _limit(widget, parameter, -math.inf, math.inf)
        connector = _attribute(widget, "value", "valueChanged(double)")
        connector.read = lambda: kind(widget.value)
        return connector
    if name in ("QComboBox", "ctkComboBox"):
        return _choice(widget, parameter)
    if kind is str and name == "QLineEdit":
        return _attribute(widget, "text", "textChanged(QString)")
    if kind is str and name == "QLabel":
        return _attribute(widget, "text", "")
    if kind is pathlib.Path and name == "ctkPathLineEdit":
        connector = _attribute(widget, "currentPath", "currentPathChanged(QString)")
        connector.read = lambda: pathlib.Path(widget.currentPath)
        connector.write = lambda path: setattr(widget, "currentPath", str(path))
        return connector
    if parameter.is_node and name == "qMRMLNodeComboBox":
        widget.nodeTypes = [kind.__name__]
        return Connector(widget, "currentNodeChanged(vtkMRMLNode*)", widget.currentNode, widget.setCurrentNode)
    raise RuntimeError(f"Slicer can't show {parameter.name} ({kind}) in the {name} {widget.name}.")


def _attribute(widget: object, name: str, changed: str) -> Connector:
    def write(value: object) -> None:
        # Else the cursor of a line would jump at each letter.
        if getattr(widget, name) != value:
            setattr(widget, name, value)

    return Connector(widget, changed, lambda: getattr(widget, name), write)


def _choice(widget: object, parameter: Parameter) -> Connector:
    """Fill a combo box with the choices, whatever it held before."""
    choice = parameter.annotation(Choice)
    if isinstance(parameter.kind, type) and issubclass(parameter.kind, enum.Enum):
        values = list(parameter.kind)
        labels = [value.label() if hasattr(value, "label") else value.name for value in values]
    elif choice and parameter.kind in (str, int, float, bool):
        values, labels = choice.choices, [str(value) for value in choice.choices]
    else:
        raise RuntimeError(f"The combo box {widget.name} needs an Enum or the annotation Choice for {parameter.name}.")
    widget.clear()
    widget.addItems(labels)
    return Connector(
        widget,
        "currentIndexChanged(int)",
        lambda: values[widget.currentIndex],
        lambda value: setattr(widget, "currentIndex", values.index(value)),
    )


def _is_bounded(parameter: Parameter) -> bool:
    both = parameter.annotation(Minimum) and parameter.annotation(Maximum)
    return bool(parameter.annotation(WithinRange) or both)


def _limit(widget: object, parameter: Parameter, lowest: float, highest: float) -> None:
    within = parameter.annotation(WithinRange)
    minimum, maximum = parameter.annotation(Minimum) or within, parameter.annotation(Maximum) or within
    widget.minimum = minimum.minimum if minimum else lowest
    widget.maximum = maximum.maximum if maximum else highest
