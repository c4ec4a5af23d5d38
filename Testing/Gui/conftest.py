"""Fixtures of the tests that need Slicer's GUI layer."""

from __future__ import annotations

from slicer_gui.fixtures import gui

__all__ = ["gui"]
