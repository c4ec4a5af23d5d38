"""The slice views of Slicer's layout: which one the user looks at, and a slice of the volume shown in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer
import slicer.util

from MedSAMSlicerLib.mrml.boxes import slice_in_view
from MedSAMSlicerLib.mrml.volumes import dimensions, ijk_to_world


class LastSliceView(slicer.util.VTKObservationMixin):
    """Remembers the slice view that the mouse was in last, also when the mouse has left it for a button."""

    def __init__(self) -> None:
        super().__init__()
        self._node: Any = None
        for crosshair in slicer.util.getNodesByClass("vtkMRMLCrosshairNode"):
            self.addObserver(crosshair, crosshair.CursorPositionModifiedEvent, self._on_cursor_moved)

    @property
    def node(self) -> Any:
        """Return its slice node; that of the layout's first slice view as long as the mouse was in none.

        :raises ValueError: if the layout has no slice view.
        """
        manager = slicer.app.layoutManager()
        shown = [manager.sliceWidget(name).mrmlSliceNode() for name in manager.sliceViewNames()]
        if not shown:
            raise ValueError("The layout has no slice view: choose one that has.")
        return self._node if self._node in shown else shown[0]

    def close(self) -> None:
        """Follow the mouse no more."""
        self.removeObservers()

    def _on_cursor_moved(self, crosshair: Any, _event: Any) -> None:
        position = [0.0, 0.0, 0.0]
        self._node = crosshair.GetCursorPositionXYZ(position) or self._node


def slice_node_under_mouse() -> Any:
    """Return the slice node of the view that the mouse is in; None if that is a 3-D view or none."""
    nodes = (
        crosshair.GetCursorPositionXYZ([0.0, 0.0, 0.0])
        for crosshair in slicer.util.getNodesByClass("vtkMRMLCrosshairNode")
    )
    return next((node for node in nodes if node is not None), None)


def jump_to(position: Sequence[float]) -> None:
    """Show a position (RAS) in all slice views."""
    manager = slicer.app.layoutManager()
    for name in manager.sliceViewNames():
        manager.sliceWidget(name).mrmlSliceNode().JumpSliceByOffsetting(*position)


def show_slice(volume: Any, axis: int, index: int) -> None:
    """Show a slice of a volume: in the views that lie along its axis, and in the others by a line through it.

    :param axis: of the slice, 0 = I, 1 = J, 2 = K.
    """
    center = (np.array(dimensions(volume)) - 1) / 2
    to_world = ijk_to_world(volume)
    manager = slicer.app.layoutManager()
    for name in manager.sliceViewNames():
        node = manager.sliceWidget(name).mrmlSliceNode()
        try:
            shown, _index = slice_in_view(node, volume)
        except ValueError:
            shown = None
        if shown == axis:
            # Only along the view's own normal: what the user has moved or zoomed to stays.
            center[axis] = index
            x, y, z = (to_world @ [*center, 1.0])[:3]
            node.JumpSliceByOffsetting(x, y, z)
