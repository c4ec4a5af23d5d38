"""Masks written to segments: only the changed extent, and never another segment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from MedSAMSlicerLib.mrml.transforms import matrix_from_numpy, node_to_world, numpy_from_matrix
from MedSAMSlicerLib.mrml.volumes import dimensions, ijk_to_world
from MedSAMSlicerLib.volume.geometry import bounding_box, box_corners, plane_axes, slice_of, transform_points

# Colors of organs side by side must be told apart on gray: after Okabe and Ito (2008), without black and gray.
_COLORS = (
    (0.90, 0.62, 0.00),
    (0.34, 0.71, 0.91),
    (0.00, 0.62, 0.45),
    (0.80, 0.47, 0.65),
    (0.94, 0.89, 0.26),
    (0.84, 0.37, 0.00),
    (0.00, 0.45, 0.70),
)


def require_labelmaps(segmentation: slicer.vtkMRMLSegmentationNode) -> None:
    """Check that masks can be written to a segmentation.

    :raises ValueError: if there is no segmentation, or its segments are stored as surfaces (RT structures, models): to
        write a mask would mean to convert all of them, which only the user may decide.
    """
    if segmentation is None or not segmentation.IsA("vtkMRMLSegmentationNode"):
        raise ValueError("No segmentation is given: choose or create a segmentation node for the result.")
    content = segmentation.GetSegmentation()
    labelmap = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    if content.GetSourceRepresentationName() == labelmap:
        return
    if content.GetNumberOfSegments():
        raise ValueError(
            f"The segmentation {segmentation.GetName()!r} stores {content.GetSourceRepresentationName()!r}, not label "
            "maps: choose another one, or make 'Binary labelmap' its source representation in the Segmentations module."
        )
    content.SetSourceRepresentationName(labelmap)


def add_segment(segmentation: slicer.vtkMRMLSegmentationNode, name: str) -> str:
    """Add an empty segment of a color of its own and return its ID."""
    content = segmentation.GetSegmentation()
    return content.AddEmptySegment("", name, _COLORS[content.GetNumberOfSegments() % len(_COLORS)])


class SegmentWriter:
    """Adds masks in the voxels of a volume to one segment.

    The segmentation keeps its own geometry; where there is none yet it takes the volume's. A mask of another geometry
    (other voxels, or another parent transform) is resampled by nearest neighbor to it.

    :raises ValueError: if a parent transform is not linear.
    """

    def __init__(
        self, segmentation: slicer.vtkMRMLSegmentationNode, segment_id: str, volume: slicer.vtkMRMLVolumeNode
    ) -> None:
        self.segmentation = segmentation
        self.segment_id = segment_id
        # Segments live in the coordinate system of their own node, below its parent transform.
        self._ijk_to_node = _ijk_to_node(segmentation, volume)
        self._lattice = self._find_lattice(volume)
        # Slicer would resample a label map that other segments share to the geometry of what is merged into this one.
        # (Not asked: IsSharedBinaryLabelmap, which answers the opposite. An unshared segment is not touched by this.)
        if not self._fits(labelmap_of(segmentation, segment_id)):
            segmentation.GetSegmentation().SeparateSegmentLabelmap(segment_id)
        self.written: list[slicer.vtkOrientedImageData] | None = None
        """The label maps that make up what was written to the segment; None before anything was."""

    def add(self, mask: np.ndarray, first: tuple[int, int, int]) -> None:
        """Add a mask to the segment.

        :param mask: bool (K, J, I), a part of the volume.
        :param first: the voxel of the volume, IJK, that the mask begins at.
        """
        self.written = self.written or []
        if not mask.any():
            return
        low, high = bounding_box(mask)
        crop = tuple(slice(low[axis], high[axis] + 1) for axis in (2, 1, 0))
        start = [first[axis] + low[axis] for axis in range(3)]
        labelmap = oriented_image(mask[crop], start, self._ijk_to_node)
        if not self._fits(labelmap):
            labelmap = self._resample(mask[crop], start)
        _merge(self.segmentation, self.segment_id, labelmap)
        self.written.append(labelmap)

    def replace(self, masks: Iterable[tuple[np.ndarray, tuple[int, int, int]]]) -> None:
        """Put masks in the place of all that the segment holds; see `add` for each of them.

        (Not by ``ClearSegment``: it drops the surfaces of all segments. And first the new voxels, then without the old
        ones: Slicer can't make a surface of a segment that is empty in between.)
        """
        self.written = []
        for mask, first in masks:
            self.add(mask, first)
        _keep(self.segmentation, self.segment_id, self.written)

    def _fits(self, image: slicer.vtkOrientedImageData | None) -> bool:
        return image is not None and slicer.vtkOrientedImageDataResample.DoGeometriesMatch(image, self._lattice)

    def _resample(self, mask: np.ndarray, start: list[int]) -> slicer.vtkOrientedImageData:
        # A rim of zeros keeps the sampler from extending the outermost voxels.
        padded = oriented_image(np.pad(mask, 1), [index - 1 for index in start], self._ijk_to_node)
        resampled = slicer.vtkOrientedImageData()
        slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
            padded, self._lattice, resampled, False, True
        )
        return resampled

    def _find_lattice(self, volume: slicer.vtkMRMLVolumeNode) -> slicer.vtkOrientedImageData:
        """Find the voxel grid of the segmentation, and give it the volume's if it has none."""
        content = self.segmentation.GetSegmentation()
        parameter = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
        if not content.GetConversionParameter(parameter):
            for segment_id in content.GetSegmentIDs():
                labelmap = labelmap_of(self.segmentation, segment_id)
                if labelmap is not None and not labelmap.IsEmpty():
                    return labelmap
            self.segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        lattice = slicer.vtkOrientedImageData()
        slicer.vtkSegmentationConverter.DeserializeImageGeometry(
            content.GetConversionParameter(parameter), lattice, False
        )
        return lattice


def put_labelmap(
    segmentation: slicer.vtkMRMLSegmentationNode, segment_id: str, labelmap: slicer.vtkOrientedImageData | None
) -> None:
    """Put a label map (nonzero inside; None for an empty one) in the place of all that a segment holds.

    :param labelmap: in the segmentation node's coordinates; resampled where the segment has another grid.
    """
    held = labelmap_of(segmentation, segment_id)
    if labelmap is None or labelmap.IsEmpty():
        _keep(segmentation, segment_id, [])
        return
    if held is not None and not slicer.vtkOrientedImageDataResample.DoGeometriesMatch(held, labelmap):
        segmentation.GetSegmentation().SeparateSegmentLabelmap(segment_id)
        held = labelmap_of(segmentation, segment_id)
        if held is not None and not held.IsEmpty():
            moved = slicer.vtkOrientedImageData()
            slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
                labelmap, held, moved, False, True
            )
            labelmap = moved
    _merge(segmentation, segment_id, labelmap)
    _keep(segmentation, segment_id, [labelmap])


def union(
    labelmaps: Sequence[slicer.vtkOrientedImageData], reach: slicer.vtkOrientedImageData | None = None
) -> slicer.vtkOrientedImageData:
    """Make one label map (1 inside) of label maps of one grid.

    :param reach: a label map whose extent the result shall have at least.
    """
    # A resampled mask has a rim of zeros that the segment hasn't.
    images = [*labelmaps, reach] if reach is not None else labelmaps
    whole = slicer.vtkOrientedImageData()
    if not images:
        return whole
    grid = vtk.vtkMatrix4x4()
    images[-1].GetImageToWorldMatrix(grid)
    whole.SetImageToWorldMatrix(grid)
    extents = np.array([image.GetExtent() for image in images])
    i0, j0, k0 = extents[:, ::2].min(axis=0).tolist()
    i1, j1, k1 = extents[:, 1::2].max(axis=0).tolist()
    whole.SetExtent(i0, i1, j0, j1, k0, k1)
    whole.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    inside = voxels_of(whole)
    inside[:] = 0
    for labelmap in labelmaps:
        a0, a1, b0, b1, c0, c1 = labelmap.GetExtent()
        inside[c0 - k0 : c1 + 1 - k0, b0 - j0 : b1 + 1 - j0, a0 - i0 : a1 + 1 - i0] |= voxels_of(labelmap) != 0
    return whole


def voxels_of(image: slicer.vtkOrientedImageData) -> np.ndarray:
    """View a label map's voxels as an array (K, J, I)."""
    i, j, k = image.GetDimensions()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(k, j, i)


def labelmap_of(segmentation: slicer.vtkMRMLSegmentationNode, segment_id: str) -> slicer.vtkOrientedImageData | None:
    """Return the label map that holds a segment (and maybe others), in the segmentation node's coordinates."""
    return segmentation.GetBinaryLabelmapInternalRepresentation(segment_id)


def held_by(segmentation: slicer.vtkMRMLSegmentationNode, segment_id: str) -> slicer.vtkOrientedImageData:
    """Copy what a segment holds, cut to it (1 inside), in the segmentation node's coordinates; empty if it is.

    (Slicer's own ``GetBinaryLabelmapRepresentation`` copies all that the segments reach which share the label map.)
    """
    whole, segment = labelmap_of(segmentation, segment_id), segmentation.GetSegmentation().GetSegment(segment_id)
    if whole is None or whole.IsEmpty():
        return slicer.vtkOrientedImageData()
    voxels, label = voxels_of(whole), segment.GetLabelValue()
    # Slice by slice, without another array of the whole size.
    slices = [k for k, each in enumerate(voxels) if (each == label).any()]
    if not slices:
        return slicer.vtkOrientedImageData()
    inside = voxels[slices[0] : slices[-1] + 1] == label
    low, high = bounding_box(inside)
    tight = inside[tuple(slice(low[axis], high[axis] + 1) for axis in (2, 1, 0))]
    i, j, k = (int(start) + step for start, step in zip(whole.GetExtent()[::2], low, strict=True))
    grid = vtk.vtkMatrix4x4()
    whole.GetImageToWorldMatrix(grid)
    return oriented_image(tight, [i, j, k + slices[0]], numpy_from_matrix(grid))


def oriented_image(mask: np.ndarray, start: list[int], ijk_to_node: np.ndarray) -> slicer.vtkOrientedImageData:
    """Make a label map (1 inside) of a mask (K, J, I) whose first voxel has the indices ``start`` (IJK)."""
    image = slicer.vtkOrientedImageData()
    k, j, i = mask.shape
    image.SetExtent(start[0], start[0] + i - 1, start[1], start[1] + j - 1, start[2], start[2] + k - 1)
    image.SetImageToWorldMatrix(matrix_from_numpy(ijk_to_node))
    scalars = numpy_to_vtk(np.ascontiguousarray(mask, dtype=np.uint8).ravel(), deep=True)
    image.GetPointData().SetScalars(scalars)
    return image


def segment_mask(
    segmentation: slicer.vtkMRMLSegmentationNode, segment_id: str, volume: slicer.vtkMRMLVolumeNode
) -> np.ndarray:
    """Read a segment in the voxels of a volume: bool (K, J, I), by nearest neighbor where the geometries differ."""
    mask = np.zeros(dimensions(volume)[::-1], dtype=bool)
    part, (i, j, k) = segment_part(segmentation, segment_id, volume)
    mask[k : k + part.shape[0], j : j + part.shape[1], i : i + part.shape[2]] = part
    return mask


def segment_part(
    segmentation: slicer.vtkMRMLSegmentationNode, segment_id: str, volume: slicer.vtkMRMLVolumeNode
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Read a segment as `segment_mask` does, but only the part of the volume that it may reach.

    :return: bool (K, J, I), and the voxel of the volume, IJK, that it begins at.
    """
    labelmap = held_by(segmentation, segment_id)
    if labelmap.IsEmpty():
        return np.zeros((0, 0, 0), dtype=bool), (0, 0, 0)
    grid_to_node = vtk.vtkMatrix4x4()
    labelmap.GetImageToWorldMatrix(grid_to_node)
    extent = np.reshape(labelmap.GetExtent(), (3, 2))
    corners = box_corners(extent[:, 0] - 0.5, extent[:, 1] + 0.5)
    node_to_ijk = np.linalg.inv(_ijk_to_node(segmentation, volume))
    reached = transform_points(node_to_ijk @ numpy_from_matrix(grid_to_node), corners)
    # A voxel more on every side: what is cut off must not depend on rounding.
    first = np.maximum(np.floor(reached.min(axis=0)).astype(int) - 1, 0)
    last = np.minimum(np.ceil(reached.max(axis=0)).astype(int) + 1, np.array(dimensions(volume)) - 1)
    if (first > last).any():
        return np.zeros((0, 0, 0), dtype=bool), (0, 0, 0)
    i, j, k = first.tolist()
    return _sampled(labelmap, first.tolist(), last.tolist(), _ijk_to_node(segmentation, volume)), (i, j, k)


def segment_span(
    segmentation: slicer.vtkMRMLSegmentationNode, segment_id: str, volume: slicer.vtkMRMLVolumeNode, axis: int
) -> range:
    """Return the slices of a volume from the first to the last that a segment reaches; none if it is empty.

    :param axis: of the slices, 0 = I, 1 = J, 2 = K.
    """
    labelmap = held_by(segmentation, segment_id)
    if labelmap.IsEmpty():
        return range(0)
    extent = labelmap.GetExtent()
    grid_to_node = vtk.vtkMatrix4x4()
    labelmap.GetImageToWorldMatrix(grid_to_node)
    corners = box_corners(np.array(extent[::2]) - 0.5, np.array(extent[1::2]) + 0.5)
    node_to_ijk = np.linalg.inv(_ijk_to_node(segmentation, volume))
    reached = transform_points(node_to_ijk @ numpy_from_matrix(grid_to_node), corners)[:, axis]
    first, last = round(float(reached.min()) + 0.5), round(float(reached.max()) - 0.5)
    return range(max(first, 0), min(max(last, first), dimensions(volume)[axis] - 1) + 1)


def segment_slice(
    segmentation: slicer.vtkMRMLSegmentationNode,
    segment_id: str,
    volume: slicer.vtkMRMLVolumeNode,
    axis: int,
    index: int,
) -> np.ndarray:
    """Read what a segment holds in one slice of a volume: bool (rows, columns), see `segment_mask`.

    :param axis: 0 = I, 1 = J, 2 = K.
    """
    first, last = [0, 0, 0], [count - 1 for count in dimensions(volume)]
    first[axis] = last[axis] = index
    labelmap = held_by(segmentation, segment_id)
    if labelmap.IsEmpty():
        x, y = plane_axes(axis)
        return np.zeros((last[y] + 1, last[x] + 1), dtype=bool)
    return slice_of(_sampled(labelmap, first, last, _ijk_to_node(segmentation, volume)), axis, 0)


def _ijk_to_node(segmentation: slicer.vtkMRMLSegmentationNode, volume: slicer.vtkMRMLVolumeNode) -> np.ndarray:
    """Compute the matrix (4, 4) from a volume's voxels to the coordinates below a segmentation's parent transform."""
    return np.linalg.inv(node_to_world(segmentation)) @ ijk_to_world(volume)


def _sampled(
    labelmap: slicer.vtkOrientedImageData, first: list[int], last: list[int], ijk_to_node: np.ndarray
) -> np.ndarray:
    """Look a label map up at voxels of a grid, from a first to a last one (IJK): bool (K, J, I)."""
    grid = slicer.vtkOrientedImageData()
    grid.SetExtent(*(end for pair in zip(first, last, strict=True) for end in pair))
    grid.SetImageToWorldMatrix(matrix_from_numpy(ijk_to_node))
    resampled = slicer.vtkOrientedImageData()
    slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(labelmap, grid, resampled)
    return voxels_of(resampled) != 0


def _merge(
    segmentation: slicer.vtkMRMLSegmentationNode, segment_id: str, labelmap: slicer.vtkOrientedImageData
) -> None:
    """Add a label map to what a segment holds."""
    # "Mask" sets the segment's own label; "max" would set 1, in a shared label map the label of another segment.
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    if not logic.SetBinaryLabelmapToSegment(
        labelmap, segmentation, segment_id, logic.MODE_MERGE_MASK, labelmap.GetExtent()
    ):
        raise RuntimeError(f"Slicer could not write to the segment {segment_id!r}; see its error log.")


def _keep(
    segmentation: slicer.vtkMRMLSegmentationNode, segment_id: str, added: Sequence[slicer.vtkOrientedImageData]
) -> None:
    """Erase what lies outside of label maps that were added."""
    held = held_by(segmentation, segment_id)
    if held.IsEmpty():
        return
    # No farther than the segment reaches: it may share its label map with many others.
    kept = union(added, held)
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    if not logic.SetBinaryLabelmapToSegment(kept, segmentation, segment_id, logic.MODE_MERGE_MIN, kept.GetExtent()):
        raise RuntimeError(f"Slicer could not erase from the segment {segment_id!r}; see its error log.")
