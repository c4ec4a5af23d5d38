"""What the effect writes tells where it comes from, in the same step of undo."""

from __future__ import annotations

import json

import numpy as np
import pytest

from effect_editor import block
from MedSAMSlicerLib.mrml.provenance import read_fields
from MedSAMSlicerLib.mrml.volumes import dimensions, voxels
from MedSAMSlicerLib.volume.provenance import volume_text, voxels_sha256


def told(editor) -> dict[str, str]:
    return read_fields(editor.segmentation.GetSegmentation().GetSegment(editor.segment))


@pytest.fixture
def editor_3d(editor):
    editor.set(threeDCheckBox=True)
    return editor


def test_a_structure_that_was_followed_tells_its_box_and_undo_and_redo_take_it_along(editor_3d):
    editor_3d.draw_around(2, 9)
    editor_3d.settle()
    editor_3d.accept()
    fields = told(editor_3d)
    prompts = json.loads(fields["Prompts"])
    assert (prompts["space"], prompts["axis"], prompts["slice_box"]["index"]) == ("IJK", "k", 9)
    assert fields["Model"] == "no file; weights box-predictor"
    assert fields["Propagation"] == "path"
    # As the module and the command line tell the same volume.
    volume = editor_3d.volume
    told_of_volume = volume_text(dimensions(volume), volume.GetSpacing(), voxels_sha256(voxels(volume)))
    assert fields["Volume"] == told_of_volume
    assert "Reservation" not in fields
    editor_3d.widget.undo()
    assert not editor_3d.held().any()
    assert told(editor_3d) == {}
    editor_3d.widget.redo()
    assert told(editor_3d) == fields


def test_a_correction_is_told_with_the_box_that_it_corrects(editor_3d):
    editor_3d.draw_around(2, 9)
    editor_3d.settle()
    editor_3d.accept()
    editor_3d.effect.proposer.correct()
    editor_3d.settle()
    editor_3d.draw(2, 6, (12, 12), (22, 20))
    editor_3d.settle()
    editor_3d.accept()
    prompts = json.loads(told(editor_3d)["Prompts"])
    assert prompts["slice_box"]["index"] == 9
    assert [key["index"] for key in prompts["key_slices"]] == [6]
    assert "Earlier" not in told(editor_3d)


@pytest.mark.parametrize(("mode", "word"), [("add", "added"), ("subtract", "taken away"), ("set", None)])
def test_what_the_segment_held_before_counts_unless_it_is_replaced(editor_3d, mode, word):
    editor_3d.draw_around(2, 9)
    editor_3d.settle()
    editor_3d.accept()
    first = told(editor_3d)
    editor_3d.put(editor_3d.segment, np.roll(block(), 3, axis=2))
    editor_3d.set(modeComboBox=mode)
    editor_3d.draw_around(2, 9)
    editor_3d.settle()
    editor_3d.accept()
    fields = told(editor_3d)
    if word is None:
        assert "Reservation" not in fields
        assert "Earlier" not in fields
    else:
        assert word in fields["Reservation"]
        (earlier,) = json.loads(fields["Earlier"])
        assert earlier == {**first, "Prompts": json.loads(first["Prompts"])}


def test_a_single_slice_and_a_masked_result_say_so(editor):
    editor.draw_around(2, 9)
    editor.accept()
    assert "Single slices" in told(editor)["Reservation"]
    assert [key["index"] for key in json.loads(told(editor)["Prompts"])["key_slices"]] == [9]
    editor.widget.undo()
    editor.node.SetSourceVolumeIntensityMask(True)
    editor.node.SetSourceVolumeIntensityMaskRange(230, 1000)
    editor.set(threeDCheckBox=True)
    editor.draw_around(2, 9)
    editor.settle()
    editor.accept()
    assert "masking has cut it" in told(editor)["Reservation"]
