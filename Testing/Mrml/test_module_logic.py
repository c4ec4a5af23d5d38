"""What a user types in Slicer's Python console, on real nodes, weights and images."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import slicer.util

from MedSAMSlicerLib.headless.scene import HeadlessScene
from MedSAMSlicerLib.mrml.segments import segment_mask
from MedSAMSlicerLib.volume.files import read_volume
from MedSAMSlicerLib.volume.geometry import bounding_box, voxel_box_corners
from MedSAMSlicerLib.volume.metrics import agreement
from slicer_application import MODULE_FILE, Parent, load_module_file

KIDNEY = 2


@pytest.fixture(scope="module")
def module():
    return load_module_file()


@pytest.fixture
def logic(module, monkeypatch):
    """The logic as the console gets it: `slicer.util.getModuleLogic` returns the one that the widget holds."""
    logic = module.MedSAMSlicerLogic()
    monkeypatch.setattr(slicer.util, "getModuleLogic", {"MedSAMSlicer": logic}.__getitem__)
    return logic


def test_the_readme_lines_segment_a_real_kidney(headless: HeadlessScene, logic, lite_weights: Path, samples):
    ct = read_volume(samples["example_ct_sm.nii.gz"])
    expert = read_volume(samples["example_seg.nii.gz"]).voxels == KIDNEY
    volumeNode = headless.add_volume(ct)
    roiNode = headless.add_roi("right kidney", ct.ijk_to_ras, voxel_box_corners(*bounding_box(expert)))
    segmentationNode = headless.add_segmentation("Segmentation", volumeNode)

    logic = slicer.util.getModuleLogic("MedSAMSlicer")
    segmentID = logic.segmentROI(volumeNode, roiNode, segmentationNode)

    kidney = segment_mask(segmentationNode, segmentID, volumeNode)
    assert agreement(kidney, expert, ct.spacing).dice > 0.8
    assert logic.undo(segmentationNode)
    assert segmentationNode.GetSegmentation().GetNumberOfSegments() == 0
    assert logic.redo(segmentationNode)
    np.testing.assert_array_equal(segment_mask(segmentationNode, segmentID, volumeNode), kidney)

    doubted, *_ = logic.slicesToReview(segmentationNode, segmentID)
    (i0, j0, _), (i1, j1, _) = bounding_box(expert[doubted.index : doubted.index + 1])
    corners = voxel_box_corners((i0, j0, doubted.index), (i1, j1, doubted.index))
    keyNode = headless.add_roi("correction", ct.ijk_to_ras, corners)
    logic.segmentROI(volumeNode, roiNode, segmentationNode, segmentID, keySlices=[keyNode])
    slices = logic.slicesToReview(segmentationNode, segmentID)
    assert slices[-1].index == doubted.index
    assert slices[-1].confidence == 1
    kept = logic.paintedSlice(volumeNode, segmentationNode, segmentID, "k", doubted.index)
    assert not kept.mask[:j0, :].any()
    assert kept.mask[j0 : j1 + 1, i0 : i1 + 1].any()

    followed = logic.segmentROI(volumeNode, None, segmentationNode, keySlices=[keyNode])
    found = segment_mask(segmentationNode, followed, volumeNode)
    assert found[doubted.index].any()
    assert logic.undo(segmentationNode)
    assert logic.undo(segmentationNode)
    np.testing.assert_array_equal(segment_mask(segmentationNode, segmentID, volumeNode), kidney)

    counts = []
    stopped = logic.segmentROI(
        volumeNode, roiNode, segmentationNode, progress=lambda done, total: counts.append((done, total)) or done < 3
    )
    # The middle slice comes twice.
    assert [done for done, _ in counts] == [1, 1, 2, 3]
    assert np.count_nonzero(segment_mask(segmentationNode, stopped, volumeNode).any(axis=(1, 2))) == 3


def test_a_missing_node_is_named_before_the_model_is_loaded(headless, logic, volume_node, monkeypatch, tmp_path):
    monkeypatch.setenv("MEDSAM_SLICER_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="No volume is given"):
        logic.segmentROI(None, None, None)
    with pytest.raises(ValueError, match="No ROI is given"):
        logic.segmentROI(volume_node, None, None)


def test_missing_weights_say_how_to_get_them(headless, logic, volume_node, ijk_to_ras, monkeypatch, tmp_path):
    monkeypatch.setenv("MEDSAM_SLICER_HOME", str(tmp_path))
    roi = headless.add_roi("R", ijk_to_ras, voxel_box_corners((1, 1, 1), (5, 5, 5)))
    segmentation = headless.add_segmentation("S", volume_node)
    with pytest.raises(RuntimeError, match="models fetch lite"):
        logic.segmentROI(volume_node, roi, segmentation)
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 0


def test_slicer_finds_its_four_classes_and_what_it_shows_of_the_module(module):
    parent = Parent()
    module.MedSAMSlicer(parent)
    assert parent.title == "MedSAM"
    assert parent.categories == ["Segmentation"]
    assert all(hasattr(module, f"MedSAMSlicer{suffix}") for suffix in ("", "Widget", "Logic", "Test"))


def test_the_module_file_imports_neither_torch_nor_the_library():
    code = (
        "import sys; from slicer_application import load_module_file; load_module_file();"
        "print([name for name in sys.modules if name.split('.')[0] in ('torch', 'SimpleITK', 'MedSAMSlicerLib')])"
    )
    path = [str(MODULE_FILE.parent), str(Path(__file__).parents[1])]
    result = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path}; {code}"], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip().splitlines()[-1] == "[]"


def test_its_own_self_test_passes(module):
    case = module.MedSAMSlicerTest("test_missingVolumeIsNamed")
    case.test_missingVolumeIsNamed()
