"""Windows of volume nodes: exact, and the voxels are looked at once."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import slicer
import slicer.util

from MedSAMSlicerLib.mrml import windows
from MedSAMSlicerLib.mrml.windows import modality_of, window_of
from MedSAMSlicerLib.volume.intensity import guess_modality, resolve_window


@pytest.mark.parametrize("window", ["auto", "full", "mr", "40/400"])
def test_a_nodes_window_is_that_of_its_voxels(volume_node, window):
    values = slicer.util.arrayFromVolume(volume_node)
    assert window_of(volume_node, window) == resolve_window(window, values)
    assert modality_of(volume_node) == guess_modality(values)


def test_a_second_box_does_not_look_at_the_voxels_again(session, volume_node, roi, segmentation):
    session.segment(volume_node, roi, segmentation)
    modality_of(volume_node)
    never = AssertionError("The voxels were looked at again.")
    with (
        patch.object(windows, "resolve_window", side_effect=never),
        patch.object(windows, "guess_modality", side_effect=never),
    ):
        session.segment(volume_node, roi, segmentation)
        modality_of(volume_node)
        with pytest.raises(AssertionError):
            window_of(volume_node, "full")


def test_changed_voxels_and_another_frame_get_a_window_of_their_own(volume_node):
    before = window_of(volume_node, "full")
    slicer.util.arrayFromVolume(volume_node)[0, 0, 0] = 3000
    slicer.util.arrayFromVolumeModified(volume_node)
    assert window_of(volume_node, "full").upper == 3000 > before.upper
    slicer.util.updateVolumeFromArray(volume_node, np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    assert (window_of(volume_node, "full").lower, window_of(volume_node, "full").upper) == (0, 59)


def test_the_last_answers_are_kept_not_all(volume_node):
    for width in range(200):
        window_of(volume_node, f"40/{200 + width}")
    assert len(windows._found) <= windows._LIMIT


def test_the_opacity_of_a_color_image_is_not_a_value(headless):
    colors = np.random.default_rng(2).integers(0, 100, (2, 5, 6, 4), dtype=np.uint8)
    colors[..., 3] = 255
    node = headless.scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "photo")
    slicer.util.updateVolumeFromArray(node, colors)
    assert window_of(node, "auto").upper == colors[..., :3].max()
