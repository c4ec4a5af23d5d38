"""MedSAM2's own weights on the sample CT and MRI, where a user has imported them; elsewhere this is not collected."""

from __future__ import annotations

import numpy as np
import pytest

from MedSAMSlicerLib.inference.tracking_predictor import TrackingPredictor
from MedSAMSlicerLib.loading import load_predictor
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.files import read_volume
from MedSAMSlicerLib.volume.geometry import bounding_box, roi_boxes, voxel_box_corners
from MedSAMSlicerLib.volume.labels import read_labels
from MedSAMSlicerLib.volume.segmentation import segment_structure
from MedSAMSlicerLib.volume.slice_masks import collect
from MedSAMSlicerLib.volume.slice_stack import SliceStack


@pytest.fixture(scope="module")
def predictor() -> TrackingPredictor:
    found = load_predictor("medsam2")
    assert isinstance(found, TrackingPredictor)
    return found


@pytest.mark.parametrize(
    ("image", "labels", "window", "label"),
    [
        ("example_ct_sm.nii.gz", "example_seg.nii.gz", "abdomen", 5),
        ("example_ct_sm.nii.gz", "example_seg.nii.gz", "abdomen", 3),
        ("example_mr_sm.nii.gz", "example_seg_mr.nii.gz", "mr", 5),
        ("example_mr_sm.nii.gz", "example_seg_mr.nii.gz", "mr", 3),
    ],
    ids=["liver in CT", "left kidney in CT", "liver in MRI", "left kidney in MRI"],
)
def test_an_organ_is_found_from_one_box(predictor, samples, image, labels, window, label):
    volume, expert = read_volume(samples[image]), read_labels(samples[labels]).mask(label)
    stack = SliceStack(volume.voxels, volume.spacing, window=window)
    boxes = roi_boxes(voxel_box_corners(*bounding_box(expert)), stack.dimensions, stack.axis)
    mask = collect(segment_structure(stack, boxes, predictor, EmbeddingCache()), stack)
    dice = 2 * np.count_nonzero(mask & expert) / (np.count_nonzero(mask) + np.count_nonzero(expert))
    assert dice > 0.7
