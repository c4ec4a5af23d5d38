"""What a segment holds at one time, small enough to be kept for every step of undo."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import slicer
import vtk

from MedSAMSlicerLib.mrml.provenance import read_fields, write_fields
from MedSAMSlicerLib.mrml.segments import held_by, labelmap_of, oriented_image, put_labelmap, voxels_of
from MedSAMSlicerLib.mrml.transforms import numpy_from_matrix
from MedSAMSlicerLib.volume.geometry import bounding_box

# In mm: Slicer keeps a segmentation's geometry as text, so a grid that it has made again is off by rounding.
_SAME_PLACE = 1e-3


@dataclass(frozen=True, eq=False)
class PackedMask:
    """A label map cut to what it holds, a bit for each voxel, compressed.

    :param grid: (4, 4), from voxel indices to the segmentation node's coordinates.
    :param first: the first voxel that is kept, IJK.
    :param shape: (K, J, I); zeros for an empty mask.
    """

    grid: np.ndarray
    first: tuple[int, int, int]
    shape: tuple[int, int, int]
    bits: bytes

    @classmethod
    def of(cls, labelmap: slicer.vtkOrientedImageData) -> PackedMask:
        """Pack what is not zero in a label map, which may be empty."""
        matrix = vtk.vtkMatrix4x4()
        labelmap.GetImageToWorldMatrix(matrix)
        grid = numpy_from_matrix(matrix)
        inside = np.zeros((0, 0, 0), dtype=bool) if labelmap.IsEmpty() else voxels_of(labelmap) != 0
        if not inside.any():
            return cls(grid, (0, 0, 0), (0, 0, 0), b"")
        low, high = bounding_box(inside)
        part = inside[tuple(slice(low[axis], high[axis] + 1) for axis in (2, 1, 0))]
        i, j, k = (int(start + step) for start, step in zip(labelmap.GetExtent()[::2], low, strict=True))
        return cls(grid, (i, j, k), part.shape, zlib.compress(np.packbits(part).tobytes(), 1))

    def labelmap(self) -> slicer.vtkOrientedImageData | None:
        """Unpack it; None if it is empty."""
        if not self.bits:
            return None
        bits = np.frombuffer(zlib.decompress(self.bits), dtype=np.uint8)
        inside = np.unpackbits(bits, count=int(np.prod(self.shape))).reshape(self.shape)
        return oriented_image(inside, list(self.first), self.grid)

    def equals(self, other: PackedMask) -> bool:
        """Return whether another mask holds the same voxels at the same place, whatever their indices are."""
        if self.bits != other.bits or self.shape != other.shape:
            return False
        return not self.bits or bool(np.allclose(self._placed(), other._placed(), rtol=0, atol=_SAME_PLACE))

    def _placed(self) -> np.ndarray:
        """Return the edges of a voxel, and where the first one lies: (4, 4)."""
        placed = self.grid.copy()
        placed[:, 3] = self.grid @ [*self.first, 1]
        return placed


@dataclass(frozen=True, eq=False)
class SegmentState:
    """What a segment is called and holds.

    :param metadata: a segment without voxels: name, color and tags.
    """

    metadata: slicer.vtkSegment
    mask: PackedMask

    @classmethod
    def of(
        cls, segmentation: slicer.vtkMRMLSegmentationNode, segment_id: str, mask: PackedMask | None = None
    ) -> SegmentState | None:
        """Read a segment; None if there is none of that ID.

        :param mask: what it holds, where that is known.
        """
        segment = segmentation.GetSegmentation().GetSegment(segment_id)
        if segment is None:
            return None
        metadata = slicer.vtkSegment()
        metadata.DeepCopyMetadata(segment)
        return cls(metadata, mask or PackedMask.of(held_by(segmentation, segment_id)))

    @property
    def name(self) -> str:
        """Return the segment's name."""
        return self.metadata.GetName() or ""

    def put(self, segmentation: slicer.vtkMRMLSegmentationNode, segment_id: str) -> None:
        """Make a segment hold these voxels, and tell where they come from.

        One that isn't there is added under its old ID, name and color.
        """
        content = segmentation.GetSegmentation()
        if content.GetSegment(segment_id) is None:
            content.AddEmptySegment(segment_id, self.name, self.metadata.GetColor())
            segment = content.GetSegment(segment_id)
            # In the label map that it shares with others it has another label now.
            self.metadata.SetLabelValue(segment.GetLabelValue())
            segment.DeepCopyMetadata(self.metadata)
        else:
            write_fields(content.GetSegment(segment_id), read_fields(self.metadata))
        put_labelmap(segmentation, segment_id, self.mask.labelmap())


def stamp(segmentation: slicer.vtkMRMLSegmentationNode, segment_id: str) -> tuple[object, ...]:
    """Tell a segment from itself with other voxels, at no cost; it may also change where only its neighbors do."""
    segment, labelmap = segmentation.GetSegmentation().GetSegment(segment_id), labelmap_of(segmentation, segment_id)
    if segment is None or labelmap is None:
        return (segment is not None,)
    return labelmap.GetAddressAsString(""), labelmap.GetMTime(), segment.GetLabelValue()
