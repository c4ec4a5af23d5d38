"""A case taken out of a scene, and what Slicer makes of the files of a dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import slicer

from geometries import FIRST, LAST, affine, rotation
from MedSAMSlicerLib.dataset.site import SiteDataset
from MedSAMSlicerLib.headless.scene import HeadlessScene
from MedSAMSlicerLib.mrml.cases import case_from_scene
from MedSAMSlicerLib.mrml.segments import SegmentWriter, add_segment, segment_mask
from MedSAMSlicerLib.mrml.transforms import matrix_from_numpy
from MedSAMSlicerLib.volume.files import Volume


@pytest.fixture
def masks(a_ct: np.ndarray) -> dict[str, np.ndarray]:
    """Two structures that overlap."""
    liver, lesion = np.zeros((2, *a_ct.shape), dtype=bool)
    liver[FIRST[2] : LAST[2] + 1, FIRST[1] : LAST[1] + 1, FIRST[0] : LAST[0] + 1] = True
    lesion[3:5, 8:12, 10:25] = True
    return {"liver": liver, "lesion": lesion}


def draw(segmentation, volume_node, masks: dict[str, np.ndarray]) -> list[str]:
    """Draw masks as segments and return their IDs."""
    ids = []
    for name, mask in masks.items():
        ids.append(add_segment(segmentation, name))
        SegmentWriter(segmentation, ids[-1], volume_node).add(mask, (0, 0, 0))
    return ids


def transform(headless: HeadlessScene, matrix: np.ndarray):
    node = headless.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "registration")
    node.SetMatrixTransformToParent(matrix_from_numpy(matrix))
    return node


def test_chosen_segments_become_masks_in_the_voxels_of_the_volume(volume_node, segmentation, masks, a_ct, ijk_to_ras):
    ids = draw(segmentation, volume_node, {**masks, "not chosen": masks["lesion"]})
    volume, labels = case_from_scene(volume_node, segmentation, ids[:2])
    np.testing.assert_array_equal(volume.voxels, a_ct)
    np.testing.assert_allclose(volume.ijk_to_ras, ijk_to_ras, atol=1e-9)
    assert list(labels) == ["liver", "lesion"]
    for name, mask in masks.items():
        np.testing.assert_array_equal(labels[name], mask)
    assert volume.name != volume_node.GetName()


def test_transforms_of_volume_and_segmentation_count_for_the_masks(
    headless, volume_node, segmentation, masks, ijk_to_ras
):
    ids = draw(segmentation, volume_node, masks)
    registration = transform(headless, affine(rotation(20, 10, -5), (1.0, 1.0, 1.0), (30, -10, 5)))
    for node in (volume_node, segmentation):
        node.SetAndObserveTransformNodeID(registration.GetID())
    volume, labels = case_from_scene(volume_node, segmentation, ids)
    np.testing.assert_array_equal(labels["liver"], masks["liver"])
    np.testing.assert_allclose(volume.ijk_to_ras, ijk_to_ras, atol=1e-9)
    # One voxel along I: the segmentation alone is moved.
    shift = np.eye(4)
    shift[:3, 3] = ijk_to_ras[:3, 0]
    volume_node.SetAndObserveTransformNodeID(None)
    segmentation.SetAndObserveTransformNodeID(transform(headless, shift).GetID())
    _, labels = case_from_scene(volume_node, segmentation, ids[:1])
    np.testing.assert_array_equal(labels["liver"], np.roll(masks["liver"], 1, axis=2))


def test_a_segmentation_of_finer_voxels_is_brought_to_those_of_the_volume(
    headless, volume_node, segmentation, masks, ijk_to_ras
):
    finer = ijk_to_ras @ np.diag([0.5, 0.5, 1, 1])
    finer[:3, 3] = ijk_to_ras[:3, 3] - ijk_to_ras[:3, :3] @ [0.25, 0.25, 0]
    double = masks["liver"].repeat(2, axis=1).repeat(2, axis=2)
    other = headless.add_volume(Volume(double.astype(np.uint8), finer, "finer"))
    ids = draw(segmentation, other, {"liver": double})
    _, labels = case_from_scene(volume_node, segmentation, ids)
    np.testing.assert_array_equal(labels["liver"], masks["liver"])


def test_what_can_not_become_a_case_is_told(headless, volume_node, segmentation, masks):
    ids = draw(segmentation, volume_node, masks)
    with pytest.raises(ValueError, match="No volume is given"):
        case_from_scene(None, segmentation, ids)
    with pytest.raises(ValueError, match="No segmentation is given"):
        case_from_scene(volume_node, volume_node, ids)
    with pytest.raises(ValueError, match="No segment is chosen"):
        case_from_scene(volume_node, segmentation, [])
    with pytest.raises(ValueError, match="has no segment 'spleen'"):
        case_from_scene(volume_node, segmentation, ["spleen"])
    empty = add_segment(segmentation, "spleen")
    with pytest.raises(ValueError, match="'spleen' is empty within the volume: draw it, or choose"):
        case_from_scene(volume_node, segmentation, [empty])
    twin = add_segment(segmentation, "liver")
    with pytest.raises(ValueError, match="Two of the segments are called 'liver'"):
        case_from_scene(volume_node, segmentation, [ids[0], twin])
    far = np.eye(4)
    far[:3, 3] = 1000
    segmentation.SetAndObserveTransformNodeID(transform(headless, far).GetID())
    with pytest.raises(ValueError, match="'liver' is empty within the volume: draw it, or choose"):
        case_from_scene(volume_node, segmentation, ids)


def test_slicer_opens_the_labels_of_a_case_with_names_and_overlaps(
    headless, volume_node, segmentation, masks, tmp_path: Path
):
    dataset = SiteDataset.create(tmp_path / "site")
    case = dataset.add(*case_from_scene(volume_node, segmentation, draw(segmentation, volume_node, masks)), patient="7")
    storage = slicer.vtkMRMLSegmentationStorageNode()
    headless.scene.AddNode(storage)
    storage.SetFileName(str(dataset.labels_path(case)))
    opened = headless.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "opened")
    assert storage.ReadData(opened)
    content = opened.GetSegmentation()
    found = {content.GetSegment(segment_id).GetName(): segment_id for segment_id in content.GetSegmentIDs()}
    assert list(found) == list(masks)
    for name, mask in masks.items():
        np.testing.assert_array_equal(segment_mask(opened, found[name], volume_node), mask)
    # Corrected in Slicer and saved again, the case is read again.
    content.RemoveSegment(found["lesion"])
    assert storage.WriteData(opened)
    loaded = dataset.load(case)
    assert list(loaded.labels) == ["liver"]
    np.testing.assert_array_equal(loaded.labels["liver"], masks["liver"])
