"""The segment that is edited and the volume that it is edited on, as they were when a box was drawn."""

from __future__ import annotations

import numpy as np
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy


class EditTarget:
    """Where a proposal comes from and where it goes; it tells when either is no longer what it was.

    The volume is taken in the geometry of the segmentation, resampled by Slicer where they differ. Indices are those
    of its array, which begin at 0 even if the geometry's extent does not.

    :raises ValueError: if there is no segment or no source volume, or a parent transform is not linear.
    """

    def __init__(self, scriptedEffect):
        from MedSAMSlicerLib.mrml.provenance import VoxelsDigest
        from MedSAMSlicerLib.mrml.transforms import node_to_world, numpy_from_matrix

        self._effect = scriptedEffect
        self._state = self._currentState()
        if self._state is None:
            raise ValueError(_("Select a segment and a source volume first."))
        self.segmentationNode, self.segmentID, self.volumeNode = self._state[:3]
        image = scriptedEffect.sourceVolumeImageData()
        self.voxels = _voxelsOf(image)
        self.voxels.flags.writeable = False
        self.digest = VoxelsDigest(image.GetPointData().GetScalars(), self.voxels)
        self.spacing = image.GetSpacing()
        self.rasToVoxel = np.linalg.inv(
            node_to_world(self.segmentationNode)
            @ numpy_from_matrix(_imageToWorld(image))
            @ _shift(image.GetExtent()[::2])
        )

    @property
    def dimensions(self):
        """Return the number of voxels, IJK order."""
        return self.voxels.shape[::-1]

    def isVolumesOwn(self):
        """Return whether the voxels are those of the volume itself, in the same order: not resampled."""
        from MedSAMSlicerLib.mrml.volumes import dimensions, ijk_to_world

        sameSize = tuple(dimensions(self.volumeNode)) == self.dimensions
        return sameSize and np.allclose(self.rasToVoxel @ ijk_to_world(self.volumeNode), np.eye(4), atol=1e-3)

    def isCurrent(self):
        """Return whether the same segment is selected, and the volume's voxels and place are what they were."""
        return self._state == self._currentState()

    def color(self):
        """Return the segment's color, red, green and blue from 0 to 1."""
        return self.segmentationNode.GetSegmentation().GetSegment(self.segmentID).GetColor()

    def segmentVoxels(self):
        """Copy what the segment holds now: bool (K, J, I)."""
        labelmap = self._effect.selectedSegmentLabelmap()
        # Slicer resamples it to the same geometry as the volume, but not an empty one.
        if not labelmap.GetNumberOfPoints():
            return np.zeros(self.voxels.shape, dtype=bool)
        return _voxelsOf(labelmap) != 0

    def write(self, mask, modificationMode):
        """Change the segment by a mask, in one step of undo; Segment Editor's masking rules hold.

        :param mask: (K, J, I), nonzero inside.
        :param modificationMode: a ModificationMode of qSlicerSegmentEditorAbstractEffect.
        """
        labelmap = self._effect.defaultModifierLabelmap()
        _voxelsOf(labelmap)[:] = mask
        labelmap.Modified()
        self._effect.saveStateForUndo()
        self._effect.modifySelectedSegmentByLabelmap(labelmap, modificationMode)

    def told(self):
        """Return what the segment tells of its origin, see `MedSAMSlicerLib.volume.provenance.FIELDS`."""
        from MedSAMSlicerLib.mrml.provenance import read_fields

        return read_fields(self.segmentationNode.GetSegmentation().GetSegment(self.segmentID))

    def tell(self, fields):
        """Let the segment tell its origin, in the step of undo of `write`, which has just been called."""
        from MedSAMSlicerLib.mrml.provenance import write_fields

        write_fields(self.segmentationNode.GetSegmentation().GetSegment(self.segmentID), fields)

    def _currentState(self):
        """Return all that must stay as it is, the nodes first; None where something is missing."""
        from MedSAMSlicerLib.mrml.transforms import numpy_from_matrix

        node = self._effect.parameterSetNode()
        segmentationNode = node.GetSegmentationNode() if node is not None else None
        volumeNode = node.GetSourceVolumeNode() if node is not None else None
        if segmentationNode is None or volumeNode is None or not node.GetSelectedSegmentID():
            return None
        segment = segmentationNode.GetSegmentation().GetSegment(node.GetSelectedSegmentID())
        # Slicer makes it anew whenever the volume's voxels or its place have changed.
        image = self._effect.sourceVolumeImageData()
        if segment is None or image is None or image.GetPointData().GetScalars() is None:
            return None
        scalars = image.GetPointData().GetScalars()
        transformNode = segmentationNode.GetParentTransformNode()
        return (
            *(segmentationNode, node.GetSelectedSegmentID(), volumeNode, segment),
            *(scalars, scalars.GetMTime(), image.GetExtent(), numpy_from_matrix(_imageToWorld(image)).tobytes()),
            *(transformNode, transformNode.GetTransformToWorldMTime() if transformNode is not None else 0),
        )


def _voxelsOf(image):
    """View a single-component image as an array (K, J, I)."""
    i, j, k = image.GetDimensions()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(k, j, i)


def _imageToWorld(image):
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return matrix


def _shift(offset):
    """Return the matrix (4, 4) that moves by an offset."""
    matrix = np.eye(4)
    matrix[:3, 3] = offset
    return matrix
