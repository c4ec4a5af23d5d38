"""The Segment Editor effect with LiteMedSAM's weights on a real CT."""

from __future__ import annotations

import numpy as np
import pytest

from effect_editor import EffectEditor
from MedSAMSlicerLib.loading import load_predictor
from MedSAMSlicerLib.volume.files import read_volume
from MedSAMSlicerLib.volume.geometry import bounding_box

KIDNEY = 2


def dice(mask: np.ndarray, expert: np.ndarray) -> float:
    return 2 * (mask & expert).sum() / (mask.sum() + expert.sum())


@pytest.fixture
def expert(samples) -> np.ndarray:
    return read_volume(samples["example_seg.nii.gz"]).voxels == KIDNEY


@pytest.fixture
def editor(gui, monkeypatch, lite_weights, samples):
    """A Segment Editor with the effect MedSAM on the CT, in 3-D."""
    effect_editor = EffectEditor(
        gui, monkeypatch, load_predictor("lite", "cpu"), read_volume(samples["example_ct_sm.nii.gz"])
    )
    yield effect_editor
    effect_editor.close()


def test_a_box_on_a_kidney_finds_it_in_its_slice_and_the_ones_beside_it(editor, expert):
    (_, _, k0), (_, _, k1) = bounding_box(expert)
    middle = (k0 + k1) // 2
    (i0, j0, _), (i1, j1, _) = bounding_box(expert[middle : middle + 1])
    editor.set(rangeComboBox="distance", distanceSpinBox=1.5 * editor.volume.GetSpacing()[2])
    editor.draw(2, middle, (i0, j0), (i1, j1))
    editor.settle()
    beside = slice(middle - 1, middle + 2)
    assert dice(editor.proposed()[beside], expert[beside]) > 0.85
    assert editor.proposed().sum() == editor.proposed()[beside].sum()
    editor.accept()
    assert dice(editor.held()[beside], expert[beside]) > 0.85
