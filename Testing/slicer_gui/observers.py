"""Observers of the scene that end with the widget that has them, and at the latest with the test."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import shiboken6
import vtk

_kept: list[tuple[vtk.vtkObject, int]] = []


def observe(source: vtk.vtkObject, event: str | int, method: Callable, priority: float = 0.0) -> int:
    """Call a widget's method at each event as long as the widget lives, and return the observer's tag."""
    reference = weakref.WeakMethod(method)

    def call(*arguments: object) -> None:
        living = reference()
        if living and shiboken6.isValid(living.__self__):
            living(*arguments)

    tag = source.AddObserver(event, call, priority)
    _kept.append((source, tag))
    return tag


def forget_all() -> None:
    """Remove all observers: widgets that a test has left behind must not see its scene die."""
    for source, tag in _kept:
        source.RemoveObserver(tag)
    _kept.clear()
