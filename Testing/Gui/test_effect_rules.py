"""Segment Editor's rules hold for what the effect writes: editable area, intensity range, other segments."""

from __future__ import annotations

import numpy as np
import pytest
import slicer.util

from effect_editor import block, block_slice


@pytest.fixture
def left_half() -> np.ndarray:
    """The voxels of small I."""
    mask = np.zeros_like(block())
    mask[:, :, :20] = True
    return mask


@pytest.mark.parametrize("mode", ["set", "add"])
def test_only_the_inside_of_a_masking_segment_is_edited(editor, left_half, mode):
    other = editor.add_segment("organ", (1.0, 0.0, 0.0), left_half)
    editor.node.SetMaskMode(editor.segmentation.EditAllowedInsideSingleSegment)
    editor.node.SetMaskSegmentID(other)
    editor.set(modeComboBox=mode)
    editor.draw_around(2, 9)
    editor.accept()
    assert np.array_equal(editor.held(), block_slice(2, 9) & left_half)
    assert np.array_equal(editor.held(other), left_half)


def test_one_tick_keeps_the_segment_out_of_the_others(gui, editor, left_half):
    other = editor.add_segment("organ", (1.0, 0.0, 0.0), left_half)
    editor.node.SetOverwriteMode(editor.node.OverwriteAllSegments)
    editor.set(keepOutCheckBox=True)
    assert editor.node.GetMaskMode() == editor.segmentation.EditAllowedOutsideAllSegments
    editor.draw_around(2, 9)
    editor.accept()
    assert np.array_equal(editor.held(), block_slice(2, 9) & ~left_half)
    assert np.array_equal(editor.held(other), left_half)
    # The tick and the masking settings are one.
    tick = editor.options.keepOutCheckBox
    editor.node.SetMaskMode(editor.segmentation.EditAllowedInsideAllSegments)
    assert not tick.checked
    editor.node.SetMaskMode(editor.segmentation.EditAllowedOutsideAllSegments)
    assert tick.checked
    editor.set(keepOutCheckBox=False)
    assert editor.node.GetMaskMode() == editor.segmentation.EditAllowedEverywhere


@pytest.mark.parametrize("overwrite", [True, False])
def test_other_segments_give_way_only_if_they_are_to_be_overwritten(editor, left_half, overwrite):
    other = editor.add_segment("organ", (1.0, 0.0, 0.0), left_half)
    editor.node.SetOverwriteMode(editor.node.OverwriteAllSegments if overwrite else editor.node.OverwriteNone)
    editor.draw_around(2, 9)
    editor.accept()
    assert np.array_equal(editor.held(), block_slice(2, 9))
    assert np.array_equal(editor.held(other), left_half & ~block_slice(2, 9) if overwrite else left_half)


def test_only_voxels_of_the_intensity_range_are_edited(editor):
    editor.node.SetSourceVolumeIntensityMask(True)
    editor.node.SetSourceVolumeIntensityMaskRange(230, 1000)
    editor.draw_around(2, 9)
    editor.accept()
    bright = slicer.util.arrayFromVolume(editor.volume) >= 230
    assert np.array_equal(editor.held(), block_slice(2, 9) & bright)
    assert editor.held().sum() < block_slice(2, 9).sum()
