"""``slicer.parameterNodeWrapper``: typed parameters in a real vtkMRMLScriptedModuleNode, connected to widgets.

Names, types and rules as in Slicer Base/Python/slicer/parameterNodeWrapper (wrapper.py, serializers.py, validators.py);
nothing is copied from it. Supported are str, int, float, bool, pathlib.Path, enum.Enum, list[str], MRML nodes and
Optional of them, with the annotations Choice, WithinRange, Minimum, Maximum and Default; anything else is refused, as
is setting an attribute that is not declared (which Slicer would keep in the wrapper and forget).
"""

from __future__ import annotations

import enum
import pathlib
import types
import typing
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import slicer
import slicer.util
import vtk

__all__ = ["Choice", "Default", "Maximum", "Minimum", "WithinRange", "parameterNodeWrapper"]


@dataclass
class Default:
    """The value of a parameter that nobody has set."""

    value: object


@dataclass
class Choice:
    """Allows only listed values."""

    choices: list

    def validate(self, value: object) -> None:
        if value not in self.choices:
            raise ValueError(f"{value!r} is not one of {self.choices}.")


@dataclass
class Minimum:
    """Allows nothing below."""

    minimum: float

    def validate(self, value: float) -> None:
        if value < self.minimum:
            raise ValueError(f"{value!r} is below {self.minimum}.")


@dataclass
class Maximum:
    """Allows nothing above."""

    maximum: float

    def validate(self, value: float) -> None:
        if value > self.maximum:
            raise ValueError(f"{value!r} is above {self.maximum}.")


@dataclass
class WithinRange:
    """Allows what is between, both ends included."""

    minimum: float
    maximum: float

    def validate(self, value: float) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value!r} is not within [{self.minimum}, {self.maximum}].")


@dataclass
class Parameter:
    """A declared parameter: how it is kept in the node."""

    name: str
    kind: type
    annotations: tuple
    default: object
    optional: bool

    @property
    def is_node(self) -> bool:
        return isinstance(self.kind, type) and issubclass(self.kind, slicer.vtkMRMLNode)

    def annotation(self, kind: type) -> object | None:
        return next((each for each in self.annotations if isinstance(each, kind)), None)

    def validate(self, value: object) -> None:
        if value is None and (self.is_node or self.optional):
            return
        if self.kind == list[str]:
            fits = isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
        else:
            fits = isinstance(value, (int, float) if self.kind is float else self.kind)
        if not fits:
            raise TypeError(f"{self.name} = {value!r}: not of type {self.kind}.")
        for each in self.annotations:
            if hasattr(each, "validate"):
                each.validate(value)

    def write(self, node: slicer.vtkMRMLScriptedModuleNode, value: object) -> None:
        self.validate(value)
        with slicer.util.NodeModify(node):
            if self.is_node:
                node.SetParameter(self.name, "")
                node.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
            elif value is None:
                node.UnsetParameter(self.name)
            elif self.kind == list[str]:
                node.SetParameter(self.name, "")
                for index in range(len(self.read(node))):
                    node.UnsetParameter(f"{self.name}.{index}")
                node.SetParameter(f"{self.name}.len", str(len(value)))
                for index, item in enumerate(value):
                    node.SetParameter(f"{self.name}.{index}", item)
            else:
                node.SetParameter(self.name, value.name if isinstance(value, enum.Enum) else str(value))

    def read(self, node: slicer.vtkMRMLScriptedModuleNode) -> object:
        if self.is_node:
            return node.GetNodeReference(self.name)
        if not node.HasParameter(self.name):
            return self.default
        text = node.GetParameter(self.name)
        if self.kind == list[str]:
            count = int(node.GetParameter(f"{self.name}.len") or 0)
            return [node.GetParameter(f"{self.name}.{index}") for index in range(count)]
        if self.kind is bool:
            return text == "True"
        return self.kind[text] if issubclass(self.kind, enum.Enum) else self.kind(text)


class _Cached:
    """A parameter as one wrapper sees it: as it was when an observer of this wrapper heard of a change last.

    VTK calls the very first observer of an object last: until then that one's value is the old one.
    """

    def __init__(self, parameter: Parameter, node: slicer.vtkMRMLScriptedModuleNode) -> None:
        self._parameter, self._node, self._writing = parameter, node, False
        if not node.HasParameter(parameter.name):
            parameter.write(node, parameter.default)
        self.value = parameter.read(node)
        reference = weakref.ref(self)
        self._tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: reference()._read())

    def __del__(self) -> None:
        self._node.RemoveObserver(self._tag)

    def write(self, value: object) -> None:
        self._writing = True
        try:
            with slicer.util.NodeModify(self._node):
                self._parameter.write(self._node, value)
                self.value = self._parameter.read(self._node)
        finally:
            self._writing = False

    def _read(self) -> None:
        if not self._writing:
            self.value = self._parameter.read(self._node)


class _Wrapper:
    """What every wrapped class can do; see Slicer's documentation of parameter node wrappers."""

    allParameters: dict[str, Parameter] = {}  # noqa: RUF012 (a constant of each class)

    def __init__(self, parameterNode: slicer.vtkMRMLScriptedModuleNode) -> None:
        object.__setattr__(self, "parameterNode", parameterNode)
        object.__setattr__(self, "_connections", {})
        object.__setattr__(self, "_updating_gui", False)
        cached = {name: _Cached(parameter, parameterNode) for name, parameter in self.allParameters.items()}
        object.__setattr__(self, "_cached", cached)

    def __setattr__(self, name: str, value: object) -> None:
        if name not in self.allParameters:
            raise AttributeError(f"{type(self).__name__} declares no parameter {name!r}.")
        self.setValue(name, value)

    def getValue(self, name: str) -> object:
        return self._cached[self._parameter(name).name].value

    def setValue(self, name: str, value: object) -> None:
        self._cached[self._parameter(name).name].write(value)

    def default(self, name: str) -> Default:
        return Default(self._parameter(name).default)

    def dataType(self, name: str) -> type:
        return self._parameter(name).kind

    def StartModify(self) -> int:
        return self.parameterNode.StartModify()

    def EndModify(self, wasModified: int) -> int:
        return self.parameterNode.EndModify(wasModified)

    def Modified(self) -> None:
        self.parameterNode.Modified()

    def AddObserver(self, event: object, callback: Callable, priority: float = 0.0) -> int:
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)

    def connectGui(self, gui: object) -> int:
        """Connect the widgets that have a Qt property SlicerParameterName; the node's values win at first.

        :param gui: a widget with children, or what `slicer.util.childWidgetVariables` returns.
        :return: the tag to give to `disconnectGui`.
        """
        import qt

        widgets = gui.findChildren(qt.QWidget) if isinstance(gui, qt.QWidget) else vars(gui).values()
        named = {widget.property("SlicerParameterName"): widget for widget in widgets}
        return self.connectParametersToGui({name: widget for name, widget in named.items() if name})

    def connectParametersToGui(self, mapping: dict[str, object]) -> int:
        """Connect parameters to widgets; see `connectGui`."""
        from slicer_gui.gui_connectors import connector_for

        connectors = {name: connector_for(widget, self._parameter(name)) for name, widget in mapping.items()}
        slots = {}
        for name, connector in connectors.items():
            connector.write(self.getValue(name))
            slots[name] = self._slot(name, connector)
            if connector.changed:
                connector.widget.connect(connector.changed, slots[name])
        observer = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._update_gui(connectors))
        tag = 1 + max(self._connections, default=0)
        self._connections[tag] = (connectors, slots, observer)
        return tag

    def disconnectGui(self, tag: int | None) -> None:
        """Undo `connectGui`; an unknown tag is ignored."""
        connectors, slots, observer = self._connections.pop(tag, ({}, {}, None))
        for name, connector in connectors.items():
            if connector.changed:
                connector.widget.disconnect(connector.changed, slots[name])
        if observer is not None:
            self.RemoveObserver(observer)

    def _parameter(self, name: str) -> Parameter:
        if name not in self.allParameters:
            raise ValueError(
                f"{type(self).__name__} has no parameter {name!r}; it has {', '.join(self.allParameters)}."
            )
        return self.allParameters[name]

    def _slot(self, name: str, connector: object) -> Callable:
        def take_over(*_: object) -> None:
            if not self._updating_gui:
                self.setValue(name, connector.read())

        return take_over

    def _update_gui(self, connectors: dict[str, object]) -> None:
        if self._updating_gui:
            return
        object.__setattr__(self, "_updating_gui", True)
        try:
            for name, connector in connectors.items():
                connector.write(self.getValue(name))
        finally:
            object.__setattr__(self, "_updating_gui", False)


def parameterNodeWrapper(declared: type) -> type:
    """Make a class of annotations into a view of a parameter node."""
    attributes: dict[str, object] = {"__module__": declared.__module__, "__doc__": declared.__doc__}
    attributes |= {name: value for name, value in vars(declared).items() if callable(value)}
    attributes.pop("__init__", None)
    parameters = {}
    for name, hint in typing.get_type_hints(declared, include_extras=True).items():
        parameter = parameters[name] = _parameter_of(name, hint, declared)
        attributes[name] = property(lambda self, name=name: self.getValue(name))
        parameter.validate(parameter.default)
    attributes["allParameters"] = parameters
    return type(declared.__name__, (_Wrapper,), attributes)


def _parameter_of(name: str, hint: object, declared: type) -> Parameter:
    if hasattr(_Wrapper, name):
        raise ValueError(f"The parameter {name!r} has the name of a method of every wrapper.")
    annotations = getattr(hint, "__metadata__", ())
    kind = typing.get_args(hint)[0] if annotations else hint
    arguments = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else ()
    optional = type(None) in arguments
    if optional:
        (kind,) = (argument for argument in arguments if argument is not type(None))
    known = (str, int, float, bool, pathlib.Path, list[str])
    is_class = isinstance(kind, type) and not typing.get_origin(kind)
    is_node = is_class and issubclass(kind, slicer.vtkMRMLNode)
    is_enum = is_class and issubclass(kind, enum.Enum)
    if not (kind in known or is_node or is_enum):
        raise TypeError(f"{declared.__name__}.{name}: the harness does not know {hint}.")
    unknown = [each for each in annotations if not isinstance(each, (Choice, Default, Maximum, Minimum, WithinRange))]
    if unknown:
        raise TypeError(f"{declared.__name__}.{name}: the harness does not know the annotations {unknown}.")
    given = next((each.value for each in annotations if isinstance(each, Default)), None)
    default = getattr(declared, name, given)
    if optional and not is_node and default is not None:
        raise TypeError(f"{declared.__name__}.{name}: the harness knows Optional only with None as default.")
    if default is None and not (optional or is_node):
        default = next(iter(kind)) if is_enum else [] if kind == list[str] else kind()
    return Parameter(name, kind, annotations, default, optional)
