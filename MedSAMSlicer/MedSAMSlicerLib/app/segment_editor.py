"""Slicer's module Segment Editor: its settings, and its own history."""

from __future__ import annotations

from typing import Any

import slicer


def segment_editor_node() -> Any:
    """Return the parameters of the Segment Editor module; None if it was never opened."""
    return slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")


def save_editor_state(segmentation: Any) -> None:
    """Make what follows a step of its own in the Segment Editor's undo, if it is open on this segmentation.

    The editor's undo sets the whole segmentation back to a saved state. Without one between a stroke and a run it would
    take back both at once.
    """
    # Slicer puts a module's widget here when the module is opened for the first time.
    widget = getattr(slicer.modules, "SegmentEditorWidget", None)
    editor = getattr(widget, "editor", None)
    if editor is not None and editor.segmentationNode() is segmentation:
        editor.saveStateForUndo()
