"""A MRML scene without the Slicer application, on the package ``slicer-core`` from PyPI."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

# Before VTK opens a window: Linux may have no X server, and needs none. macOS and Windows have no EGL and do without.
if sys.platform.startswith("linux"):
    os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from MedSAMSlicerLib.mrml.markups import wrap_voxels
from MedSAMSlicerLib.mrml.segmentation_file import save_segmentation
from MedSAMSlicerLib.mrml.transforms import matrix_from_numpy, numpy_from_matrix
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
        """Add a volume with its voxels, geometry and a display node; color becomes a vector volume.

        Voxels that can't be written to, as they come from files, are not copied.
        """
        voxels = volume.voxels
        color = voxels.ndim == 4 and voxels.shape[3] > 1
        node = self.scene.AddNewNodeByClass(
            "vtkMRMLVectorVolumeNode" if color else "vtkMRMLScalarVolumeNode", volume.name
        )
        image = vtk.vtkImageData()
        image.SetDimensions(*volume.dimensions)
        flat = np.ascontiguousarray(voxels).reshape((-1, voxels.shape[3]) if color else -1)
        scalars = numpy_to_vtk(flat, deep=flat.flags.writeable)
        # The voxels have to live as long as VTK's own array of them, which would keep them longer by its Python part.
        scalars.AddObserver("DeleteEvent", lambda *_, kept=flat: None)
        vars(scalars).pop("_numpy_reference", None)
        image.GetPointData().SetScalars(scalars)
        node.SetIJKToRASMatrix(matrix_from_numpy(volume.ijk_to_ras))
        node.SetAndObserveImageData(image)
        node.CreateDefaultDisplayNodes()
        return node

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
        try:
            markups = json.loads(path.read_text(encoding="utf-8-sig"))["markups"]
            kinds = [str(markup["type"]) for markup in markups]
        except FileNotFoundError as error:
            raise FileError(f"{path} does not exist: check the path.") from error
        except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
            raise FileError(
                f"{path} is not a markups file of Slicer: save the ROI as .mrk.json and give that."
            ) from error
        if kinds != ["ROI"]:
            raise FileError(
                f"{path} holds {', '.join(kinds) or 'nothing'}, not one ROI: save one Markups ROI as .mrk.json."
            )
        roi = self.scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", stem(path))
        storage = slicer.vtkMRMLMarkupsROIJsonStorageNode()
        self.scene.AddNode(storage)
        storage.SetFileName(str(path))
        with quiet():
            read = storage.ReadData(roi)
        self.scene.RemoveNode(storage)
        if not read or not _is_a_box(roi):
            self.scene.RemoveNode(roi)
            raise FileError(f"Slicer can't read the ROI in {path} (its center, size and orientation): save it again.")
        roi.SetName(stem(path))
        roi.CreateDefaultDisplayNodes()
        return roi


def _is_a_box(roi: slicer.vtkMRMLMarkupsROINode) -> bool:
    """Tell whether an ROI has a place, directions and a size."""
    placed = numpy_from_matrix(roi.GetObjectToNodeMatrix())
    return bool(np.isfinite(placed).all() and np.isfinite(roi.GetSize()).all() and any(roi.GetSize()))
