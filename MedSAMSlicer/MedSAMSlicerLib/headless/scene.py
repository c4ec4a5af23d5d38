"""A MRML scene without the Slicer application, on the package ``slicer-core`` from PyPI."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

# Before VTK opens a window: Linux may have no X server, and needs none. macOS and Windows have no EGL and do without.
if sys.platform.startswith("linux"):
    os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")

import numpy as np
import slicer
import vtk

from MedSAMSlicerLib.mrml.markups import wrap_voxels
from MedSAMSlicerLib.mrml.segmentation_file import save_segmentation
from MedSAMSlicerLib.mrml.transforms import numpy_from_matrix
from MedSAMSlicerLib.mrml.volumes import add_volume
from MedSAMSlicerLib.volume.files import FileError, Volume, stem
from MedSAMSlicerLib.volume.image_file import quiet

# Its place for all who write what a scene holds.
__all__ = ["HeadlessScene", "save_segmentation"]

_MODULE_LOGICS = {
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Volumes": "vtkSlicerVolumesLogic",
}


class HeadlessScene:
    """A scene with the logics that volumes, segmentations and markups need."""

    def __init__(self) -> None:
        self.scene = slicer.vtkMRMLScene()
        self.application_logic = slicer.vtkSlicerApplicationLogic()
        self.application_logic.SetMRMLScene(self.scene)
        colors = self.application_logic.GetColorLogic()
        colors.SetMRMLScene(self.scene)
        colors.AddDefaultColorNodes()
        self.application_logic.SetSliceLogics(vtk.vtkCollection())
        self.application_logic.SetViewLogics(vtk.vtkCollection())
        # The application logic does not keep them alive.
        self._module_logics = {name: getattr(slicer, class_name)() for name, class_name in _MODULE_LOGICS.items()}
        for name, logic in self._module_logics.items():
            logic.SetMRMLApplicationLogic(self.application_logic)
            logic.SetMRMLScene(self.scene)
            self.application_logic.SetModuleLogic(name, logic)
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene, True)

    def add_volume(self, volume: Volume) -> slicer.vtkMRMLVolumeNode:
        """Add a volume, see `mrml.volumes.add_volume`."""
        return add_volume(self.scene, volume)

    def add_roi(self, name: str, ijk_to_ras: np.ndarray, corners: np.ndarray) -> slicer.vtkMRMLMarkupsROINode:
        """Add an ROI box that wraps voxels of a volume.

        :param corners: (8, 3) continuous IJK, as `volume.geometry.voxel_box_corners` makes them.
        """
        roi = self.scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", name)
        wrap_voxels(roi, ijk_to_ras, corners)
        roi.CreateDefaultDisplayNodes()
        return roi

    def add_segmentation(self, name: str, volume: slicer.vtkMRMLVolumeNode) -> slicer.vtkMRMLSegmentationNode:
        """Add an empty segmentation in the geometry of a volume."""
        node = self.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        node.CreateDefaultDisplayNodes()
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        return node

    def load_roi(self, path: Path) -> slicer.vtkMRMLMarkupsROINode:
        """Load an ROI that Slicer saved as ``.mrk.json``, named after its file.

        :raises FileError: if there is no such file, or it holds no ROI.
        """
        storage = slicer.vtkMRMLMarkupsROIJsonStorageNode()
        return self._load_markup(path, "ROI", storage, _is_a_box, "its center, size and orientation")

    def load_line(self, path: Path) -> slicer.vtkMRMLMarkupsLineNode:
        """Load a line that Slicer saved as ``.mrk.json``, named after its file.

        :raises FileError: if there is no such file, or it holds no line.
        """
        storage = slicer.vtkMRMLMarkupsJsonStorageNode()
        return self._load_markup(path, "Line", storage, _has_two_ends, "its two points")

    def _load_markup(
        self,
        path: Path,
        kind: str,
        storage: slicer.vtkMRMLStorageNode,
        whole: Callable[[slicer.vtkMRMLMarkupsNode], bool],
        parts: str,
    ) -> slicer.vtkMRMLMarkupsNode:
        """Load the one node of a kind ("ROI", "Line") that a file holds.

        :param whole: tells whether a node has all that it needs; ``parts`` names that.
        """
        try:
            text = path.read_text(encoding="utf-8-sig")
            kinds = [str(markup["type"]) for markup in json.loads(text)["markups"]]
        except FileNotFoundError as error:
            raise FileError(f"{path} does not exist: check the path.") from error
        except (ValueError, KeyError, TypeError, IsADirectoryError, RecursionError) as error:
            raise FileError(
                f"{path} is not a markups file of Slicer: save the {kind} as .mrk.json and give that."
            ) from error
        if kinds != [kind]:
            raise FileError(
                f"{path} holds {', '.join(kinds) or 'nothing'}, not one {kind}: save one Markups {kind} as .mrk.json."
            )
        node = self.scene.AddNewNodeByClass(f"vtkMRMLMarkups{kind}Node", stem(path))
        self.scene.AddNode(storage)
        with tempfile.TemporaryDirectory() as folder, quiet():
            # Slicer can't read the mark that editors of Windows put before the text.
            copy = Path(folder) / "markup.mrk.json"
            copy.write_text(text, encoding="utf-8")
            storage.SetFileName(str(copy))
            read = storage.ReadData(node)
        self.scene.RemoveNode(storage)
        if not read or not whole(node):
            self.scene.RemoveNode(node)
            raise FileError(f"Slicer can't read the {kind} in {path} ({parts}): save it again.")
        node.SetName(stem(path))
        node.CreateDefaultDisplayNodes()
        return node


def _has_two_ends(line: slicer.vtkMRMLMarkupsLineNode) -> bool:
    """Tell whether a line has both of its ends, at places that are finite."""
    ends = [line.GetNthControlPointPositionWorld(n) for n in range(line.GetNumberOfDefinedControlPoints())]
    return len(ends) == 2 and bool(np.isfinite(ends).all())


def _is_a_box(roi: slicer.vtkMRMLMarkupsROINode) -> bool:
    """Tell whether an ROI has a place, directions and a size."""
    placed = [numpy_from_matrix(matrix) for matrix in (roi.GetObjectToNodeMatrix(), roi.GetObjectToWorldMatrix())]
    return bool(np.isfinite(placed).all() and np.isfinite(roi.GetSize()).all() and any(roi.GetSize()))
