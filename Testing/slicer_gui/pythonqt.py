"""Qt's classes as PythonQt shows them to Slicer's Python code, made from those of PySide6.

PythonQt's ways that matter (read in its PythonQtInstanceWrapper.cpp): a property is an attribute (``w.text``,
``w.text = "x"``) and hides the getter of its name, setters and slots are methods, signals are connected by
``w.clicked.connect(f)`` or ``w.connect("clicked(bool)", f)``, enum values are integers, and an attribute that the C++
class does not have can't be set. All of that is an exception here, also where PythonQt would only print.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable
from typing import Any

from PySide6 import QtCore

# Getters that C++ calls back in Python: PySide takes a property of that name for an override. They stay methods.
_VIRTUAL_GETTERS = {"minimumSizeHint", "sizeHint", "spacing"}


class _QtProperty:
    """A property of a Qt class as an attribute."""

    def __init__(self, name: str, getter: object, *, writable: bool) -> None:
        self._name, self._getter, self._writable = name, getter, writable

    def __get__(self, instance: QtCore.QObject | None, owner: type) -> Any:
        if instance is None:
            return self._getter
        if self._name in _VIRTUAL_GETTERS:
            return self._getter.__get__(instance, owner)
        return instance.property(self._name)

    def __set__(self, instance: QtCore.QObject, value: object) -> None:
        kind = type(instance).__name__
        if not self._writable:
            raise AttributeError(f"{kind}.{self._name} can only be read.")
        if not instance.setProperty(self._name, value):
            raise TypeError(f"{kind}.{self._name} = {value!r} is rejected by Qt: the type does not fit.")


class _PythonQtType(type(QtCore.QObject)):
    """Lets ``isinstance(qt.QPushButton(), qt.QWidget)`` hold, which share no generated class."""

    def __instancecheck__(cls, instance: object) -> bool:
        return super().__instancecheck__(instance) or isinstance(instance, cls.__dict__.get("qt_class", ()))


class PythonQtObject:
    """What PythonQt adds to every QObject, and its strictness.

    `cpp_signals` maps the C++ signatures of signals that Python has declared to their attributes, `cpp_slots` names the
    C++ signatures of slots that Python has defined; Qt knows its own.
    """

    qt_class: type[QtCore.QObject]
    cpp_signals: dict[str, str] = {}  # noqa: RUF012 (a constant of each class)
    cpp_slots: tuple[str, ...] = ()

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        # PySide finds its own `connect` before an inherited one.
        cls.connect, cls.disconnect = PythonQtObject.connect, PythonQtObject.disconnect

    def __setattr__(self, name: str, value: object) -> None:
        kind = type(self)
        # Python code may add attributes to its own subclasses; the stand-ins and PySide have their private ones.
        free = not is_stand_in(kind) or name == "__METAOBJECT__"
        free = free or any(name.startswith(f"_{base.__name__.lstrip('_')}__") for base in kind.__mro__)
        known = inspect.getattr_static(kind, name, None)
        # PySide sets its own kind of property without the descriptor protocol.
        if not (free or hasattr(known, "__set__") or isinstance(known, QtCore.Property)):
            raise AttributeError(f"{kind.__name__} has no property {name!r}.")
        super().__setattr__(name, value)

    @property
    def name(self) -> str:
        return self.objectName

    @name.setter
    def name(self, value: str) -> None:
        self.setObjectName(value)

    def className(self) -> str:
        return next(base.__name__ for base in type(self).__mro__ if is_stand_in(base))

    def connect(self, signal: str, slot: Callable) -> bool:
        declared = self._declared_signal(signal)
        if declared is not None:
            return bool(declared.connect(slot))
        return bool(QtCore.QObject.connect(self, QtCore.SIGNAL(signal), slot))

    def disconnect(self, signal: str, slot: Callable) -> bool:
        declared = self._declared_signal(signal)
        if declared is not None:
            return bool(declared.disconnect(slot))
        return bool(QtCore.QObject.disconnect(self, QtCore.SIGNAL(signal), slot))

    def findChild(self, kind: type, name: str = "") -> QtCore.QObject | None:
        return next(iter(self.findChildren(kind, name)), None)

    def findChildren(self, kind: type, name: str = "") -> list[QtCore.QObject]:
        found = self.qt_class.findChildren(self, getattr(kind, "qt_class", kind))
        return [child for child in found if isinstance(child, kind) and name in ("", child.objectName)]

    def delete(self) -> None:
        import shiboken6

        shiboken6.delete(self)

    def _declared_signal(self, signal: str) -> QtCore.SignalInstance | None:
        """Return the signal of a C++ signature if Python has declared it.

        :raises ValueError: if there is no such signal.
        """
        signature = normalized(signal)
        for base in type(self).__mro__:
            if signature in getattr(base, "cpp_signals", {}):
                return getattr(self, base.cpp_signals[signature])
        if self.metaObject().indexOfSignal(signature) < 0:
            raise ValueError(f"{type(self).__name__} has no signal {signal!r}.")
        return None


def is_stand_in(kind: type) -> bool:
    """Tell whether a class stands in for one of C++, and is not Python code's own subclass of it."""
    return "qt_class" in kind.__dict__ or "stands_in" in kind.__dict__


def stand_in(kind: type) -> type:
    """Mark a class of the harness as one that stands in for a C++ class of its name."""
    kind.stands_in = True
    return kind


def normalized(signature: str) -> str:
    """Return a signal's or slot's signature as Qt compares it."""
    return bytes(QtCore.QMetaObject.normalizedSignature(signature)).decode()


class FlatEnum:
    """An enum of Qt as PythonQt has it: its values are attributes of the class around it, not of the enum."""

    def __init__(self, kind: type[enum.Enum]) -> None:
        self._kind = kind

    def __call__(self, value: int) -> enum.Enum:
        return self._kind(value)

    def __getattr__(self, name: str) -> object:
        raise AttributeError(f"{self._kind.__qualname__}.{name}: PythonQt has the value without the enum's name.")


def enums_of(kind: type) -> dict[str, type[enum.Enum]]:
    """List the enums that a class of PySide6 has, by name."""
    return {name: value for name in dir(kind) if isinstance(value := getattr(kind, name), enum.EnumMeta)}


_classes: dict[type, type] = {}


def pythonqt(qt_class: type[QtCore.QObject]) -> type:
    """Make PythonQt's view of a class of PySide6; the same one each time."""
    if qt_class not in _classes:
        attributes: dict[str, object] = {"qt_class": qt_class, "__module__": "qt"}
        meta_object = qt_class.staticMetaObject
        for index in range(meta_object.propertyCount()):
            declared = meta_object.property(index)
            getter = getattr(qt_class, declared.name(), None)
            attributes[declared.name()] = _QtProperty(declared.name(), getter, writable=declared.isWritable())
        for name, kind in enums_of(qt_class).items():
            attributes[name] = FlatEnum(kind)
            attributes = dict(kind.__members__) | attributes
        for name in _VIRTUAL_GETTERS - {"spacing"}:
            attributes.pop(name, None)
        _classes[qt_class] = _PythonQtType(qt_class.__name__, (PythonQtObject, qt_class), attributes)
    return _classes[qt_class]


def held_property(kind: type | str, default: object, changed: str = "", *, writable: bool = True) -> QtCore.Property:
    """Declare a property of a stand-in that only holds its value.

    :param kind: as in the C++ header: str, bool, int, float or "QStringList".
    :param changed: method called after a change.
    """
    key = object()

    def read(self: QtCore.QObject) -> object:
        return self.__dict__.get(key, default)

    def write(self: QtCore.QObject, value: object) -> None:
        previous = read(self)
        self.__dict__[key] = value
        if changed and previous != value:
            getattr(self, changed)()

    return checked_property(kind, read, write if writable else None)


def checked_property(kind: type | str, read: Callable, write: Callable | None = None) -> QtCore.Property:
    """Declare a property of a stand-in whose setter refuses values that C++ would not convert."""
    fitting = {bool: (bool, int), int: int, float: (float, int), str: str, "QStringList": (list, tuple)}[kind]

    def checked_write(self: QtCore.QObject, value: object) -> None:
        if not isinstance(value, fitting):
            name = kind if isinstance(kind, str) else kind.__name__
            raise TypeError(f"{type(self).__name__}: {value!r} is not a {name}.")
        write(self, list(value) if kind == "QStringList" else kind(value))

    return QtCore.Property(kind, read, checked_write if write else None)
