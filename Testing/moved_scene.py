"""A scene whose segments' voxels are known wherever volume and segmentation are moved to, and its Segment Editor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import slicer
import slicer.util
import vtk

from geometries import affine, rotation
from MedSAMSlicerLib.headless.scene import HeadlessScene
from MedSAMSlicerLib.mrml.segments import voxels_of
from MedSAMSlicerLib.mrml.transforms import matrix_from_numpy, numpy_from_matrix
from MedSAMSlicerLib.volume.files import Volume

SIZE = (18, 14, 8)  # of the volume, IJK
MARGIN = 3  # voxels around the volume, for segments that are moved out of it
EDITOR_STATES = 10

Ends = tuple[list[int], list[int]]


def nothing() -> np.ndarray:
    """An empty mask: bool (K, J, I), the volume's voxels with a margin around them."""
    return np.zeros([size + 2 * MARGIN for size in SIZE[::-1]], dtype=bool)


class MovedScene:
    """A volume and a segmentation under transforms.

    Both move together in any way, and the segmentation by whole voxels against the volume.

    :param voxels: (K, J, I) of `SIZE`.
    :param lattice: (4, 4), from IJK to RAS.
    """

    def __init__(self, voxels: np.ndarray, lattice: np.ndarray) -> None:
        headless = HeadlessScene()
        self.scene = headless.scene
        self.volume = headless.add_volume(Volume(voxels, lattice, "CT"))
        self.segmentation = headless.add_segmentation("Segmentation", self.volume)
        self.content = self.segmentation.GetSegmentation()
        self.lattice = lattice
        self._together, self._apart = (
            self.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name) for name in ("together", "apart")
        )
        self._apart.SetAndObserveTransformNodeID(self._together.GetID())
        self.volume.SetAndObserveTransformNodeID(self._together.GetID())
        self.segmentation.SetAndObserveTransformNodeID(self._apart.GetID())
        self.shift = np.zeros(3, dtype=int)  # of the volume in the segmentation's voxels
        # One editor that is open, and the settings that the module's runs follow.
        self.settings, self.rules = (self.scene.AddNode(slicer.vtkMRMLSegmentEditorNode()) for _ in range(2))
        self.rules.SetOverwriteMode(self.rules.OverwriteAllSegments)
        self.settings.SetAndObserveSegmentationNode(self.segmentation)
        self.editor = slicer.vtkSlicerSegmentEditorLogic()
        self.editor.SetMRMLScene(self.scene)
        self.editor.SetSegmentEditorNode(self.settings)
        self.editor.SetSourceVolumeNode(self.volume)
        self.editor.SetMaximumNumberOfUndoStates(EDITOR_STATES)

    def move_together(self, angles: np.ndarray, place: np.ndarray) -> None:
        """Turn (degrees) and move (mm) both."""
        self._together.SetMatrixTransformToParent(matrix_from_numpy(affine(rotation(*angles), (1, 1, 1), tuple(place))))

    def move_segmentation(self, shift: np.ndarray) -> None:
        """Move the segmentation against the volume, so that voxel 0 of the volume lies in its voxel ``shift``."""
        self.shift = shift
        moved = np.eye(4)
        moved[:3, 3] = -shift
        self._apart.SetMatrixTransformToParent(matrix_from_numpy(self.lattice @ moved @ np.linalg.inv(self.lattice)))

    def name(self, segment_id: str) -> str:
        """Return the name of a segment."""
        return str(self.content.GetSegment(segment_id).GetName())

    def saved_and_opened(self, path: Path) -> slicer.vtkMRMLSegmentationNode:
        """Save the segmentation as Slicer does, and read the file in a scene of its own."""
        self._opened = HeadlessScene()  # or the node would be gone with it
        node = self._opened.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "opened")
        storage = slicer.vtkMRMLSegmentationStorageNode()
        storage.SetFileName(str(path))
        assert storage.WriteData(self.segmentation)
        assert storage.ReadData(node)
        return node

    def read(self, segment_id: str, segmentation: slicer.vtkMRMLSegmentationNode | None = None) -> np.ndarray:
        """Read a segment in its own voxels, as `nothing` is.

        :param segmentation: another one than the scene's.
        """
        mask = nothing()
        image, matrix = slicer.vtkOrientedImageData(), vtk.vtkMatrix4x4()
        if (
            not (segmentation or self.segmentation).GetBinaryLabelmapRepresentation(segment_id, image)
            or image.IsEmpty()
        ):
            return mask
        image.GetImageToWorldMatrix(matrix)
        grid = numpy_from_matrix(matrix)
        start = np.linalg.inv(self.lattice) @ grid @ [*image.GetExtent()[::2], 1]
        first = start[:3].round().astype(int)
        assert np.allclose(start[:3], first, atol=1e-3), "A segment is not in the voxels of the segmentation any more."
        assert np.allclose(grid[:3, :3], self.lattice[:3, :3], atol=1e-4), "A segment has other voxels."
        mask[tuple((np.argwhere(voxels_of(image)) + first[::-1] + MARGIN).T)] = True
        return mask

    def whole(self, slices: Mapping[int, np.ndarray]) -> np.ndarray:
        """Put slices of the volume along K into the segmentation's voxels, as `nothing` is."""
        mask, start = nothing(), MARGIN + self.shift
        for index, each in slices.items():
            j, i = (slice(start[axis], start[axis] + SIZE[axis]) for axis in (1, 0))
            mask[start[2] + index, j, i] = each
        return mask

    def brush(self, segment_id: str, ends: Ends, mode: int, *, overwrite: bool) -> np.ndarray:
        """Add or remove a box by Slicer's own logic of the Segment Editor, and return the box as `nothing` is.

        :param ends: the first and the last voxel, IJK, of the segmentation.
        :param mode: ``ModificationModeAdd`` or ``ModificationModeRemove`` of the logic.
        :param overwrite: whether other segments lose what this one gets.
        """
        self.settings.SetOverwriteMode(self.settings.OverwriteAllSegments if overwrite else self.settings.OverwriteNone)
        self.settings.SetSelectedSegmentID(segment_id)
        assert self.editor.ResetModifierLabelmapToDefault()
        labelmap, box = self.editor.GetModifierLabelmap(), nothing()
        # (It may reach beyond the volume, where segments do.)
        for voxels, start in ((box, [-MARGIN] * 3), (voxels_of(labelmap), labelmap.GetExtent()[4::-2])):
            place = zip(ends[0][::-1], ends[1][::-1], start, strict=True)
            voxels[tuple(slice(first - low, last + 1 - low) for first, last, low in place)] = 1
        labelmap.Modified()
        self.editor.ModifySegmentByLabelmap(
            self.segmentation, segment_id, labelmap, mode, list(labelmap.GetExtent()), False, False
        )
        return box
