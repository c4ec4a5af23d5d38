"""The views of Slicer's layout: which slice view the user looks at, and a place in the volume shown in all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer
import slicer.util

from MedSAMSlicerLib.mrml.transforms import numpy_from_matrix


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
    """Show a position (RAS) in all views, slice views and 3-D ones."""
    manager = slicer.app.layoutManager()
    for name in manager.sliceViewNames():
        node = manager.sliceWidget(name).mrmlSliceNode()
        node.JumpSliceByOffsetting(*position)
        # What the user has moved or zoomed to stays, unless the position is outside of it.
        if not _in_sight(node, position):
            node.JumpSliceByCentering(*position)
    for number in range(manager.threeDViewCount):
        view = manager.threeDWidget(number).mrmlViewNode()
        camera = slicer.modules.cameras.logic().GetViewActiveCameraNode(view)
        if camera is not None:
            # Direction and distance stay.
            shift = np.array(position) - camera.GetFocalPoint()
            camera.SetPosition(*(camera.GetPosition() + shift))
            camera.SetFocalPoint(*position)
            camera.ResetClippingRange()


def _in_sight(slice_node: Any, position: Sequence[float]) -> bool:
    """Return whether a position (RAS) is between the edges of a slice view."""
    x, y = (np.linalg.inv(numpy_from_matrix(slice_node.GetXYToRAS())) @ [*position, 1.0])[:2]
    width, height = slice_node.GetDimensions()[:2]
    return bool(0 <= x < width and 0 <= y < height)
