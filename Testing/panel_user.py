"""A user of the module's panel: what he does there, and what he sees of it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import slicer.util

from box_predictor import BoxPredictor
from geometries import FIRST, GEOMETRIES, LAST
from MedSAMSlicerLib.mrml.segments import segment_mask
from MedSAMSlicerLib.volume.geometry import voxel_box_corners

MODULE_FILE = Path(__file__).parents[1] / "MedSAMSlicer" / "MedSAMSlicer.py"
GEOMETRY = GEOMETRIES["left-handed"]


class SlowPredictor(BoxPredictor):
    """A `BoxPredictor` that takes its time for a slice, and refuses to take it in the main thread."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def encode(self, image: np.ndarray) -> Any:
        if threading.current_thread() is threading.main_thread():
            raise RuntimeError("A slice was encoded in the main thread.")
        time.sleep(self.seconds)
        return super().encode(image)


def box_mask(
    volume_node: slicer.vtkMRMLVolumeNode, first: tuple[int, int, int] = FIRST, last: tuple[int, int, int] = LAST
) -> np.ndarray:
    """The voxels from one to another: bool (K, J, I)."""
    mask = np.zeros(slicer.util.arrayFromVolume(volume_node).shape, dtype=bool)
    mask[tuple(slice(low, high + 1) for low, high in zip(first[::-1], last[::-1], strict=True))] = True
    return mask


def is_in_sight(gui: Any, view: str, roi: slicer.vtkMRMLMarkupsROINode) -> bool:
    """Tell whether the middle of a box is in a view; in a slice view, in the slice that it shows."""
    mouse, center = gui.mouse(view), roi.GetCenterWorld()
    width, height = mouse.widget.viewWidget().renderWindow().GetSize()
    x, y = mouse.ras_to_xy(center)
    if view != "3D":
        to_ras = slicer.util.arrayFromVTKMatrix(mouse.widget.mrmlSliceNode().GetSliceToRAS())
        if abs(to_ras[:3, 2] @ (to_ras[:3, 3] - center)) > 0.01:
            return False
    return 0 <= x < width and 0 <= y < height


class User:
    """Works with the open module.

    :param gui: the application, see `slicer_gui`.
    :param module: the module that was loaded.
    """

    def __init__(self, gui: Any, volume_node: slicer.vtkMRMLVolumeNode) -> None:
        self.gui = gui
        self.volume_node = volume_node
        self.widget = gui.open_module("MedSAMSlicer")
        for name in gui.layout_manager.sliceViewNames():
            view = gui.layout_manager.sliceWidget(name)
            view.mrmlSliceCompositeNode().SetBackgroundVolumeID(volume_node.GetID())
            view.mrmlSliceNode().RotateToVolumePlane(volume_node)
            view.fitSliceToBackground()
        gui.pump()

    @property
    def panel(self) -> Any:
        return self.widget.panel

    @property
    def ui(self) -> Any:
        return self.panel.ui

    @property
    def segmentation(self) -> slicer.vtkMRMLSegmentationNode:
        return self.widget.logic.getParameterNode().segmentation

    @property
    def segments(self) -> list[str]:
        """The names of the segments."""
        content = self.segmentation.GetSegmentation()
        return [content.GetSegment(segment_id).GetName() for segment_id in content.GetSegmentIDs()]

    def mask(self, number: int = 0) -> np.ndarray:
        """The voxels of a segment."""
        segment_id = self.segmentation.GetSegmentation().GetSegmentIDs()[number]
        return segment_mask(self.segmentation, segment_id, self.volume_node)

    def add_box(
        self,
        name: str = "lesion",
        first: tuple[int, int, int] = FIRST,
        last: tuple[int, int, int] = LAST,
        *,
        ticked: bool = True,
    ) -> slicer.vtkMRMLMarkupsROINode:
        """Add an ROI around voxels, and tick it."""
        roi = self.gui.headless.add_roi(name, GEOMETRY, voxel_box_corners(first, last))
        self.gui.pump()
        if ticked:
            table = self.ui.boxesTable
            (row,) = (row for row in range(table.rowCount) if table.item(row, 0).text() == name)
            table.item(row, 0).setCheckState(self.gui.qt.Qt.Checked)
            self.gui.pump()
        return roi

    def segment(self) -> None:
        """Press Segment, and wait for the end."""
        self.ui.segmentButton.click()
        self.wait()

    def wait(self) -> None:
        """Wait until nothing runs any more."""
        self.gui.pump(until=lambda: not self.panel.result.running)
        self.gui.pump()

    def press(self, button: str) -> None:
        """Press a button."""
        getattr(self.ui, button).click()
        self.gui.pump()

    def click_voxels(self, view: str, *voxels: tuple[float, float, float]) -> None:
        """Click where voxels (IJK) are in a view."""
        mouse = self.gui.mouse(view)
        for position in [mouse.ras_to_xy((GEOMETRY @ [*ijk, 1])[:3]) for ijk in voxels]:
            mouse.click(position)
            self.gui.pump()

    def look_at(self, view: str, voxel: tuple[float, float, float]) -> None:
        """Scroll a view to a voxel, and leave the mouse in it."""
        self.gui.layout_manager.sliceWidget(view).mrmlSliceNode().JumpSlice(*(GEOMETRY @ [*voxel, 1])[:3])
        mouse = self.gui.mouse(view)
        mouse.enter(mouse.ras_to_xy((GEOMETRY @ [*voxel, 1])[:3]))
        self.gui.pump()
