"""What segments hold, read without making an array of the whole volume."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
import vtk

from MedSAMSlicerLib.mrml.segments import add_segment, segment_mask, segment_part, segment_slice
from MedSAMSlicerLib.volume.geometry import slice_of


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_and_the_reach_of_a_segment_are_read_as_from_the_whole_volume(
    headless, session, volume_node, roi, segmentation, axis
):
    segment_id = session.segment(volume_node, roi, segmentation)
    coarser = headless.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "coarser")
    slicer.util.updateVolumeFromArray(coarser, np.zeros((6, 13, 17), dtype=np.int16))
    matrix = vtk.vtkMatrix4x4()
    volume_node.GetIJKToRASMatrix(matrix)
    coarser.SetIJKToRASMatrix(matrix)
    coarser.SetSpacing([1.7 * spacing for spacing in volume_node.GetSpacing()])
    for volume in (volume_node, coarser):
        whole = segment_mask(segmentation, segment_id, volume)
        assert whole.any()
        part, (i, j, k) = segment_part(segmentation, segment_id, volume)
        assert part.sum() == whole.sum()
        np.testing.assert_array_equal(part, whole[k:, j:, i:][tuple(map(slice, part.shape))])
        for index in range(whole.shape[2 - axis]):
            found = segment_slice(segmentation, segment_id, volume, axis, index)
            np.testing.assert_array_equal(found, slice_of(whole, axis, index))
    empty = add_segment(segmentation, "empty")
    assert not segment_slice(segmentation, empty, volume_node, axis, 0).any()
    assert not segment_part(segmentation, empty, volume_node)[0].any()
