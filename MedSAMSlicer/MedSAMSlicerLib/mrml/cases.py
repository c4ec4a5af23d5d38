"""A volume and chosen segments of a scene as a case for a site's dataset."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import slicer
import vtk

from MedSAMSlicerLib.mrml.segments import labelmap_of, segment_mask
from MedSAMSlicerLib.mrml.transforms import numpy_from_matrix
from MedSAMSlicerLib.mrml.volumes import voxels
from MedSAMSlicerLib.volume.files import Volume


def case_from_scene(
    volume: slicer.vtkMRMLVolumeNode,
    segmentation: slicer.vtkMRMLSegmentationNode,
    segment_ids: Sequence[str],
) -> tuple[Volume, dict[str, np.ndarray]]:
    """Take a volume and segments out of a scene, ready for `dataset.site.SiteDataset.add`.

    Segments of another geometry, or under another transform, are brought to the volume's voxels by nearest neighbor.
    The names of the nodes are left behind: they may be those of patients.

    :return: the volume as it lies below its own transforms, and segment name -> bool (K, J, I).
    :raises ValueError: if no segment is chosen, or one is not there, has no label map, is empty, lies outside of the
        volume, or shares its name with another one; or if a parent transform is not linear.
    """
    array = voxels(volume)
    if segmentation is None or not segmentation.IsA("vtkMRMLSegmentationNode"):
        raise ValueError("No segmentation is given: choose the one that an expert has drawn.")
    if not segment_ids:
        raise ValueError("No segment is chosen: choose those that an expert has drawn.")
    labels: dict[str, np.ndarray] = {}
    for segment_id in segment_ids:
        segment = segmentation.GetSegmentation().GetSegment(segment_id)
        if segment is None:
            raise ValueError(f"The segmentation {segmentation.GetName()!r} has no segment {segment_id!r}.")
        name = segment.GetName()
        if name in labels:
            raise ValueError(f"Two of the segments are called {name!r}: rename one of them.")
        if labelmap_of(segmentation, segment_id) is None:
            raise ValueError(
                f"The segment {name!r} has no label map: create the representation 'Binary labelmap' in the "
                "Segmentations module."
            )
        mask = segment_mask(segmentation, segment_id, volume)
        if not mask.any():
            raise ValueError(
                f"The segment {name!r} is empty within the volume: draw it, or choose the volume that it was drawn on."
            )
        labels[name] = mask
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return Volume(array, numpy_from_matrix(matrix), "case"), labels
