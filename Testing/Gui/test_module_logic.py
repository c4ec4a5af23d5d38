"""What a user types in Slicer's Python console: on a real image with LiteMedSAM, and with masks that are known."""

from __future__ import annotations

import inspect
import threading
import unittest
from pathlib import Path

import numpy as np
import pytest
import slicer
import slicer.util

from box_predictor import BoxPredictor
from geometries import FIRST, LAST
from made_up_site import blind_base
from MedSAMSlicerLib import loading
from MedSAMSlicerLib.model import save_checkpoint
from MedSAMSlicerLib.mrml.markups import ijk_corners
from MedSAMSlicerLib.mrml.segments import segment_mask
from MedSAMSlicerLib.mrml.slice_boxes import lay
from MedSAMSlicerLib.volume.files import Volume, read_volume
from MedSAMSlicerLib.volume.geometry import bounding_box, voxel_box_corners
from MedSAMSlicerLib.volume.metrics import agreement
from panel_user import GEOMETRY, MODULE_FILE, box_mask

LEFT_KIDNEY = 3


@pytest.fixture
def module(gui):
    return gui.load_module(MODULE_FILE)


@pytest.fixture
def logic(module):
    return slicer.util.getModuleLogic("MedSAMSlicer")


@pytest.fixture
def loaded(predictor: BoxPredictor, monkeypatch) -> list[tuple[str, str]]:
    """The models and devices that were loaded; each fills boxes."""
    calls = []

    def load_predictor(model: str = "lite", device: str = "auto") -> BoxPredictor:
        calls.append((model, device))
        return predictor

    monkeypatch.setattr(loading, "load_predictor", load_predictor)
    return calls


@pytest.fixture
def roi_node(gui) -> slicer.vtkMRMLMarkupsROINode:
    return gui.headless.add_roi("lesion", GEOMETRY, voxel_box_corners(FIRST, LAST))


@pytest.fixture
def segmentation_node(gui, volume_node) -> slicer.vtkMRMLSegmentationNode:
    return gui.headless.add_segmentation("Segmentation", volume_node)


def names(segmentation: slicer.vtkMRMLSegmentationNode) -> list[str]:
    content = segmentation.GetSegmentation()
    return [content.GetSegment(segment_id).GetName() for segment_id in content.GetSegmentIDs()]


def test_the_readme_lines_segment_and_correct_a_real_kidney(gui, logic, lite_weights: Path, samples):
    whole, labels = read_volume(samples["example_mr_sm.nii.gz"]), read_volume(samples["example_seg_mr.nii.gz"])
    part = slice(4, 7)  # slices, for the sake of time
    to_ras = whole.ijk_to_ras.copy()
    to_ras[:3, 3] = (whole.ijk_to_ras @ [0, 0, part.start, 1])[:3]
    mri, expert = Volume(whole.voxels[part], to_ras, "MRI"), labels.voxels[part] == LEFT_KIDNEY
    volumeNode = gui.headless.add_volume(mri)
    roiNode = gui.headless.add_roi("left kidney", to_ras, voxel_box_corners(*bounding_box(expert)))
    segmentationNode = gui.headless.add_segmentation("Segmentation", volumeNode)

    segmentID = logic.segmentROI(volumeNode, roiNode, segmentationNode)

    kidney = segment_mask(segmentationNode, segmentID, volumeNode)
    assert agreement(kidney, expert, mri.spacing).dice > 0.8
    assert logic.undo(segmentationNode)
    assert names(segmentationNode) == []
    assert logic.redo(segmentationNode)
    np.testing.assert_array_equal(segment_mask(segmentationNode, segmentID, volumeNode), kidney)

    doubted, *_ = logic.slicesToReview(segmentationNode, segmentID)
    (i0, j0, _), (i1, j1, _) = bounding_box(expert[doubted.index : doubted.index + 1])
    keyNode = gui.headless.add_roi(
        "correction", to_ras, voxel_box_corners((i0, j0, doubted.index), (i1, j1, doubted.index))
    )
    logic.segmentROI(volumeNode, roiNode, segmentationNode, segmentID, keySlices=[keyNode])
    slices = logic.slicesToReview(segmentationNode, segmentID)
    assert (slices[-1].index, slices[-1].confidence) == (doubted.index, 1)
    kept = logic.paintedSlice(volumeNode, segmentationNode, segmentID, "k", doubted.index)
    assert not kept.mask[:j0, :].any()
    assert kept.mask[j0 : j1 + 1, i0 : i1 + 1].any()
    followed = logic.segmentROI(volumeNode, None, segmentationNode, keySlices=[keyNode])
    assert segment_mask(segmentationNode, followed, volumeNode)[doubted.index].any()


def test_undo_and_redo_give_the_box_its_depth(gui, logic, loaded, volume_node, roi_node, segmentation_node):
    def depth() -> list[float]:
        slices = ijk_corners(roi_node, volume_node)[:, 2]
        return [round(float(slices.min()), 2), round(float(slices.max()), 2)]

    slicer.util.arrayFromVolume(volume_node)[box_mask(volume_node)] += 500
    slicer.util.arrayFromVolumeModified(volume_node)
    lay(roi_node, volume_node, 2, 4)
    logic.segmentROI(volume_node, roi_node, segmentation_node)
    assert depth() == [FIRST[2] - 0.5, LAST[2] + 0.5]
    logic.undo(segmentation_node)
    assert depth() == [3.75, 4.25], "it lies in its slice"
    logic.redo(segmentation_node)
    assert depth() == [FIRST[2] - 0.5, LAST[2] + 0.5]


def test_a_measured_diameter_is_followed_and_undone(gui, logic, loaded, volume_node, segmentation_node):
    slicer.util.arrayFromVolume(volume_node)[box_mask(volume_node)] += 500
    slicer.util.arrayFromVolumeModified(volume_node)
    lines = [gui.scene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", name) for name in ("lesion", "across")]
    middle = (FIRST[1] + LAST[1]) / 2
    ends = [[(FIRST[0], middle, 4), (LAST[0], middle, 4)], [(12, FIRST[1], 4), (12, LAST[1], 4)]]
    for line, voxels in zip(lines, ends, strict=True):
        for ijk in voxels:
            line.AddControlPointWorld(*(GEOMETRY @ [*ijk, 1])[:3])
    long, short = lines
    segment_id = logic.segmentLine(volume_node, long, segmentation_node, short)
    assert names(segmentation_node) == ["lesion"]
    made = segment_mask(segmentation_node, segment_id, volume_node)
    assert np.flatnonzero(made.any(axis=(1, 2))).tolist() == list(range(FIRST[2], LAST[2] + 1))
    np.testing.assert_array_equal(made[4], box_mask(volume_node)[4])
    logic.undo(segmentation_node)
    assert names(segmentation_node) == []
    alone = logic.segmentLine(volume_node, short, segmentation_node, limit=2 * volume_node.GetSpacing()[2])
    assert segment_mask(segmentation_node, alone, volume_node).any(axis=(1, 2)).sum() <= 5
    with pytest.raises(ValueError, match="No volume is given"):
        logic.segmentLine(None, long, segmentation_node)


def test_a_segment_keeps_out_of_the_others_if_that_is_asked_for(
    gui, logic, loaded, volume_node, roi_node, segmentation_node
):
    whole = box_mask(volume_node)
    other = logic.segmentBox(volume_node, FIRST, (12, *LAST[1:]), segmentation_node, name="other")
    held = segment_mask(segmentation_node, other, volume_node)
    made = logic.segmentROI(volume_node, roi_node, segmentation_node, keepOut=True)
    np.testing.assert_array_equal(segment_mask(segmentation_node, made, volume_node), whole & ~held)
    np.testing.assert_array_equal(segment_mask(segmentation_node, other, volume_node), held)
    # Made again, it does not keep out of itself.
    logic.segmentROI(volume_node, roi_node, segmentation_node, made, keepOut=True)
    np.testing.assert_array_equal(segment_mask(segmentation_node, made, volume_node), whole & ~held)
    logic.undo(segmentation_node)
    assert names(segmentation_node) == ["other"]
    overlapping = logic.segmentROI(volume_node, roi_node, segmentation_node)
    np.testing.assert_array_equal(segment_mask(segmentation_node, overlapping, volume_node), whole)
    with pytest.raises(ValueError, match="keepOut and editorNode were both given"):
        logic.segmentROI(
            volume_node, roi_node, segmentation_node, keepOut=True, editorNode=slicer.vtkMRMLSegmentEditorNode()
        )


def test_several_rois_become_segments_of_their_names_in_one_step_of_undo(
    gui, logic, loaded, volume_node, roi_node, segmentation_node
):
    other = gui.headless.add_roi("other", GEOMETRY, voxel_box_corners((22, 17, 0), (28, 22, 9)))
    ids = logic.segmentROIs(volume_node, [roi_node, other], segmentation_node)
    assert ids == list(segmentation_node.GetSegmentation().GetSegmentIDs())
    assert names(segmentation_node) == ["lesion", "other"]
    np.testing.assert_array_equal(
        segment_mask(segmentation_node, ids[1], volume_node), box_mask(volume_node, (22, 17, 0), (28, 22, 9))
    )
    assert logic.undo(segmentation_node)
    assert names(segmentation_node) == []
    assert not logic.undo(segmentation_node)


def test_a_box_of_voxels_is_segmented_and_another_one_takes_its_place(logic, loaded, volume_node, segmentation_node):
    liver = logic.segmentBox(volume_node, FIRST, LAST, segmentation_node, name="liver")
    assert names(segmentation_node) == ["liver"]
    np.testing.assert_array_equal(segment_mask(segmentation_node, liver, volume_node), box_mask(volume_node))
    assert logic.segmentBox(volume_node, (3, 5, 1), (12, 9, 4), segmentation_node, segmentID=liver) == liver
    np.testing.assert_array_equal(
        segment_mask(segmentation_node, liver, volume_node), box_mask(volume_node, (3, 5, 1), (12, 9, 4))
    )
    with pytest.raises(ValueError, match="first and the last voxel"):
        logic.segmentBox(volume_node, LAST, FIRST, segmentation_node)


@pytest.fixture
def bright_volume(gui, a_ct) -> slicer.vtkMRMLScalarVolumeNode:
    """A volume in which the structure is bright from FIRST to LAST, so that it can be seen where it ends."""
    a_ct[tuple(slice(low, high + 1) for low, high in zip(FIRST[::-1], LAST[::-1], strict=True))] += 500
    return gui.headless.add_volume(Volume(a_ct, GEOMETRY, "bright"))


def spans(segmentation: slicer.vtkMRMLSegmentationNode, segment_id: str, volume) -> list[int]:
    return np.flatnonzero(segment_mask(segmentation, segment_id, volume).any(axis=(1, 2))).tolist()


def test_an_roi_on_one_slice_is_followed_takes_the_depth_that_was_found_and_is_a_3d_box_once_that_is_set(
    gui, logic, loaded, bright_volume, roi_node, segmentation_node
):
    lay(roi_node, bright_volume, 2, 4)
    segment_id = logic.segmentROI(bright_volume, roi_node, segmentation_node)
    assert spans(segmentation_node, segment_id, bright_volume) == list(range(FIRST[2], LAST[2] + 1))
    depth = ijk_corners(roi_node, bright_volume)[:, 2]
    assert (depth.min(), depth.max()) == (pytest.approx(FIRST[2] - 0.5), pytest.approx(LAST[2] + 0.5))
    x, y, z = roi_node.GetSize()
    (limited,) = logic.segmentROIs(bright_volume, [roi_node], segmentation_node, limit=2.5)
    assert spans(segmentation_node, limited, bright_volume) == [3, 4, 5]
    roi_node.SetSize(x, y, z / 6)
    in_box = logic.segmentROI(bright_volume, roi_node, segmentation_node)
    assert spans(segmentation_node, in_box, bright_volume) == [4]
    assert roi_node.GetSize()[2] == pytest.approx(z / 6)


def test_a_box_of_voxels_on_one_slice_is_followed(logic, loaded, bright_volume, segmentation_node):
    box = (FIRST[0], FIRST[1], LAST[0], LAST[1])
    segment_id = logic.segmentSliceBox(bright_volume, 4, box, segmentation_node, name="liver")
    assert names(segmentation_node) == ["liver"]
    assert spans(segmentation_node, segment_id, bright_volume) == list(range(FIRST[2], LAST[2] + 1))
    logic.segmentSliceBox(bright_volume, 4, box, segmentation_node, segmentID=segment_id, limit=2.5)
    assert spans(segmentation_node, segment_id, bright_volume) == [3, 4, 5]
    with pytest.raises(ValueError, match="no slice 10 along axis K"):
        logic.segmentSliceBox(bright_volume, 10, box, segmentation_node)
    assert names(segmentation_node) == ["liver"]


@pytest.mark.parametrize(("axis", "others"), [("k", (0, 1)), ("j", (0, 2)), ("i", (1, 2))])
def test_boxes_of_single_slices_are_joined_along_any_axis(logic, loaded, volume_node, segmentation_node, axis, others):
    number = "ijk".index(axis)
    low, high = (FIRST[each] for each in others), (LAST[each] for each in others)
    box = (*low, *high)
    boxes = {FIRST[number]: box, LAST[number]: box}
    segment_id = logic.segmentSlices(volume_node, boxes, segmentation_node, axis=axis, name="duct")
    assert names(segmentation_node) == ["duct"]
    np.testing.assert_array_equal(segment_mask(segmentation_node, segment_id, volume_node), box_mask(volume_node))


def test_progress_counts_the_slices_and_false_stops_there(logic, loaded, volume_node, roi_node, segmentation_node):
    total = LAST[2] - FIRST[2] + 1
    counts = []
    logic.segmentROI(
        volume_node, roi_node, segmentation_node, progress=lambda done, total: counts.append((done, total))
    )
    # The first slice comes twice, and all of them once more while they are fitted together.
    assert list(dict.fromkeys(counts)) == [(done, total) for done in range(1, total + 1)]
    counts.clear()
    stopped = logic.segmentROI(
        volume_node,
        roi_node,
        segmentation_node,
        progress=lambda done, total: counts.append((done, total)) or done < 3,
    )
    assert [done for done, _total in counts] == [1, 1, 2, 3]
    assert segment_mask(segmentation_node, stopped, volume_node).any(axis=(1, 2)).sum() == 3


def test_a_cancel_event_set_by_another_thread_keeps_what_is_done(
    logic, loaded, predictor, volume_node, roi_node, segmentation_node, monkeypatch
):
    cancel, encode = threading.Event(), predictor.encode

    def encode_and_cancel(image):
        if len(predictor.encoded) == 2:
            cancel.set()
        return encode(image)

    monkeypatch.setattr(predictor, "encode", encode_and_cancel)
    segment_id = logic.segmentROI(volume_node, roi_node, segmentation_node, cancel=cancel)
    done = segment_mask(segmentation_node, segment_id, volume_node).any(axis=(1, 2)).sum()
    assert 0 < done < LAST[2] - FIRST[2] + 1
    assert logic.undo(segmentation_node)
    assert names(segmentation_node) == []


def test_the_rules_of_a_segment_editor_hold_when_its_node_is_given(
    gui, logic, loaded, volume_node, roi_node, segmentation_node
):
    first = logic.segmentROI(volume_node, roi_node, segmentation_node)
    rules = gui.scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    rules.SetOverwriteMode(rules.OverwriteAllSegments)
    logic.segmentBox(volume_node, FIRST, (12, 15, 7), segmentation_node)
    assert segment_mask(segmentation_node, first, volume_node).sum() == box_mask(volume_node).sum(), "no rules"
    logic.segmentBox(volume_node, FIRST, (12, 15, 7), segmentation_node, editorNode=rules)
    np.testing.assert_array_equal(
        segment_mask(segmentation_node, first, volume_node), box_mask(volume_node, (13, 6, 2), LAST)
    )


def test_a_model_is_loaded_once_and_again_for_another_one_or_another_device(
    gui, logic, loaded, volume_node, roi_node, segmentation_node
):
    for options in ({}, {}, {"model": "ours.pth"}, {"model": "ours.pth", "device": "cpu"}):
        logic.segmentROI(volume_node, roi_node, segmentation_node, **options)
    assert loaded == [("lite", "auto"), ("ours.pth", "auto"), ("ours.pth", "cpu")]
    gui.qt.QSettings().setValue("MedSAM/device", "cuda")
    logic.loadPredictor()
    assert loaded[-1] == ("lite", "cuda")


def test_a_model_file_that_a_new_training_has_overwritten_is_loaded_anew(logic, tmp_path):
    file = blind_base(tmp_path / "ours.pth")
    first = logic.loadPredictor(str(file), "cpu")
    assert logic.loadPredictor(str(file), "cpu") is first
    trained = loading.load_model(str(file))
    trained.mask_decoder.output_hypernetworks_mlps[0].layers[2].bias.data.fill_(1)
    save_checkpoint(trained, file)
    second = logic.loadPredictor(str(file), "cpu")
    assert second.key != first.key
    assert logic.session.predictor is second


def test_what_is_missing_or_wrong_is_named_before_any_model_is_loaded(
    logic, loaded, volume_node, roi_node, segmentation_node
):
    for text, call in {
        "No volume is given": lambda: logic.segmentROI(None, None, None),
        "No ROI is given": lambda: logic.segmentROI(volume_node, None, None),
        "has no segment 'none'": lambda: logic.segmentROI(volume_node, roi_node, segmentation_node, "none"),
        "window 'dark' is unknown": lambda: logic.segmentROI(volume_node, roi_node, segmentation_node, window="dark"),
        "at least one slice": lambda: logic.segmentSlices(volume_node, {}, segmentation_node),
        "axis 'x' is unknown": lambda: logic.paintedSlice(volume_node, segmentation_node, "none", "x", 0),
    }.items():
        with pytest.raises(ValueError, match=text):
            call()
    assert names(segmentation_node) == []
    assert loaded == []


def test_missing_weights_say_how_to_get_them(
    logic, lite_weights, volume_node, roi_node, segmentation_node, monkeypatch, tmp_path
):
    monkeypatch.setenv("MEDSAM_SLICER_HOME", str(tmp_path))
    with pytest.raises(RuntimeError, match="models fetch lite"):
        logic.segmentROI(volume_node, roi_node, segmentation_node)
    assert names(segmentation_node) == []


def test_the_module_knows_through_which_window_a_volume_is_seen(gui, logic, volume_node, a_ct):
    other = gui.headless.add_volume(Volume(a_ct, GEOMETRY, "other"))
    parameters = logic.getParameterNode()
    parameters.inputVolume, parameters.window = volume_node, "bone"
    assert logic.windowFor(volume_node) == "bone"
    assert logic.windowFor(other) == "auto"


def test_every_call_of_the_console_is_documented(module):
    for name, method in inspect.getmembers(module.MedSAMSlicerLogic, inspect.isfunction):
        if method.__module__ == module.__name__ and not name.startswith("_"):
            assert name == "getParameterNode" or inspect.getdoc(method), name


def test_slicer_finds_its_four_classes_and_what_it_shows_of_the_module(gui, module):
    parent = slicer.modules.medsamslicer
    assert parent.title == "MedSAM"
    assert parent.categories == ["Segmentation"]
    assert parent.dependencies == ["Segmentations", "Markups"]
    assert not parent.icon.isNull()
    assert all(hasattr(module, f"MedSAMSlicer{suffix}") for suffix in ("", "Widget", "Logic", "Test"))


@pytest.mark.parametrize("complete", [True, False], ids=["with LiteMedSAM", "without"])
def test_its_own_self_test_passes_and_tells_what_it_could_not_test(
    module, lite_weights, monkeypatch, tmp_path, complete
):
    if not complete:
        monkeypatch.setenv("MEDSAM_SLICER_HOME", str(tmp_path))
    told = []
    monkeypatch.setattr(module.MedSAMSlicerTest, "delayDisplay", lambda self, text: told.append(text))
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(module.MedSAMSlicerTest).run(result)
    assert result.testsRun == 1
    assert result.wasSuccessful(), result.failures + result.errors
    assert bool(told) is not complete
    if not complete:
        assert "LiteMedSAM will be downloaded" in told[0]
        module.MedSAMSlicerTest().runTest()
