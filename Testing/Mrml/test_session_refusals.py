"""What can't be segmented is refused with a reason, and nothing is changed."""

from __future__ import annotations

import pytest
import slicer


@pytest.mark.parametrize(
    ("missing", "text"),
    [("volume", "No volume is given"), ("roi", "No ROI is given"), ("segmentation", "No segmentation is given")],
)
def test_a_missing_node_is_named(session, volume_node, roi, segmentation, missing, text):
    nodes = {"volume": volume_node, "roi": roi, "segmentation": segmentation} | {missing: None}
    with pytest.raises(ValueError, match=text):
        session.segment(*nodes.values())


def test_a_volume_without_voxels_an_unplaced_roi_and_an_unknown_segment_are_named(
    headless, session, volume_node, roi, segmentation
):
    with pytest.raises(ValueError, match="'empty' has no voxels"):
        session.segment(headless.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty"), roi, segmentation)
    with pytest.raises(ValueError, match="'new' has no size yet"):
        session.segment(volume_node, headless.scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "new"), segmentation)
    with pytest.raises(ValueError, match="has no segment 'gone'"):
        session.segment(volume_node, roi, segmentation, "gone")
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 0


@pytest.mark.parametrize("under", ["volume", "roi", "segmentation"])
def test_a_non_linear_transform_is_refused_before_anything_is_changed(
    headless, session, volume_node, roi, segmentation, under
):
    warp = headless.scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "warp")
    spline = slicer.vtkOrientedBSplineTransform()
    warp.SetAndObserveTransformToParent(spline)
    {"volume": volume_node, "roi": roi, "segmentation": segmentation}[under].SetAndObserveTransformNodeID(warp.GetID())
    with pytest.raises(ValueError, match="non-linear transform 'warp'"):
        session.segment(volume_node, roi, segmentation)
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 0


def test_a_segmentation_of_surfaces_is_refused_unchanged(session, volume_node, roi, segmentation):
    session.segment(volume_node, roi, segmentation)
    segmentation.CreateClosedSurfaceRepresentation()
    segmentation.SetSourceRepresentationToClosedSurface()
    with pytest.raises(ValueError, match="'Segmentation' stores 'Closed surface'"):
        session.segment(volume_node, roi, segmentation)
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 1
