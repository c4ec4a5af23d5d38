"""What a user changes while the effect computes or proposes: no crash, and nothing lands in the wrong segment."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util

from effect_editor import block, block_slice


def draw_and_wait_for_the_thread(editor) -> None:
    """Leave the thread in the middle of a computation."""
    editor.predictor.hold()
    editor.draw(2, 9, (8, 6), (31, 29))
    editor.gui.pump(until=editor.predictor.held.is_set)


def go_on(editor) -> None:
    editor.predictor.release()
    editor.settle()


def actors(editor) -> list[int]:
    """Count the actors in each slice view."""
    layout = editor.gui.layout_manager
    views = [layout.sliceWidget(name) for name in layout.sliceViewNames()]
    return [editor.effect.scriptedEffect.renderer(view).GetViewProps().GetNumberOfItems() for view in views]


def delete_segmentation(editor):
    editor.gui.scene.RemoveNode(editor.segmentation)


def delete_segment(editor):
    editor.segmentation.GetSegmentation().RemoveSegment(editor.segment)


def delete_volume(editor):
    editor.gui.scene.RemoveNode(editor.volume)


def close_scene(editor):
    editor.gui.scene.Clear(0)


def leave(editor):
    editor.widget.setActiveEffectByName("")


def close_editor(editor):
    editor.widget._close()


@pytest.mark.parametrize(
    "change", [delete_segmentation, delete_segment, delete_volume, close_scene, leave, close_editor]
)
@pytest.mark.parametrize("when", ["computing", "proposed"])
def test_the_proposal_is_dropped_and_nothing_is_written_when(editor, change, when):
    draw_and_wait_for_the_thread(editor)
    if when == "proposed":
        go_on(editor)
    change(editor)
    go_on(editor)
    editor.effect.proposer.accept()
    editor.settle()
    assert editor.proposed() is None
    if editor.segmentation.GetScene() is not None and editor.segmentation.GetSegmentation().GetSegment(editor.segment):
        assert not editor.held().any()


def other_segment(editor):
    editor.widget.setCurrentSegmentID(editor.add_segment("other", (1.0, 0.0, 0.0)))


def other_volume(editor):
    volume = slicer.util.addVolumeFromArray(np.arange(20 * 36 * 40, dtype=np.int16).reshape(20, 36, 40))
    editor.widget.setSourceVolumeNode(volume)


def other_voxels(editor):
    slicer.util.arrayFromVolume(editor.volume)[9] = 7
    slicer.util.arrayFromVolumeModified(editor.volume)


def other_place(editor):
    editor.volume.SetOrigin(3, 0, 0)


@pytest.mark.parametrize("change", [other_segment, other_volume, other_voxels, other_place])
@pytest.mark.parametrize("when", ["computing", "proposed"])
def test_a_proposal_for_what_is_no_longer_there_is_not_written(editor, change, when):
    draw_and_wait_for_the_thread(editor)
    if when == "proposed":
        go_on(editor)
    change(editor)
    go_on(editor)
    editor.accept()
    assert editor.proposed() is None
    for segment_id in editor.segmentation.GetSegmentation().GetSegmentIDs():
        assert not editor.held(segment_id).any()


def test_another_segment_gets_its_own_proposal(editor):
    editor.draw_around(2, 9)
    other_segment(editor)
    editor.draw_around(2, 10)
    editor.accept()
    assert not editor.held().any()
    assert np.array_equal(editor.held("other"), block_slice(2, 10))


def test_a_new_box_stops_the_computation_of_the_last_one(editor):
    editor.set(threeDCheckBox=True)
    draw_and_wait_for_the_thread(editor)
    editor.draw(2, 10, (8, 6), (31, 29))
    go_on(editor)
    assert np.array_equal(editor.proposed(), block())
    assert {(key.axis, key.index) for key in editor.effect.proposer.proposal.keys} == {(2, 9), (2, 10)}


def test_the_computation_of_others_goes_on(editor):
    from MedSAMSlicerLib.app.worker import Job

    taken = []
    editor.logic.worker.run(Job(lambda job: (each for each in "segment"), taken.append, lambda error: None))
    editor.draw_around(2, 9)
    assert "".join(taken) == "segment"
    assert editor.proposed().any()


def test_what_was_applied_before_the_volume_changed_can_not_be_corrected(editor):
    editor.set(threeDCheckBox=True)
    editor.draw_around(2, 9)
    editor.accept()
    other_voxels(editor)
    editor.options.correctButton.click()
    editor.settle()
    assert editor.proposed() is None
    assert "nothing to correct" in editor.status


def test_leaving_the_effect_leaves_nothing_in_the_views_and_observes_nothing(editor):
    inside = actors(editor)
    editor.draw_around(2, 9)
    assert actors(editor) == inside
    editor.widget.setActiveEffectByName("")
    outside = actors(editor)
    assert [a - b for a, b in zip(inside, outside, strict=True)] == [3, 3, 3]
    for _turn in range(3):
        editor.widget.setActiveEffectByName("MedSAM")
        editor.widget.setActiveEffectByName("")
    assert actors(editor) == outside
    editor.widget.setActiveEffectByName("MedSAM")
    assert actors(editor) == inside
    editor.draw_around(2, 9)
    assert np.array_equal(editor.proposed(), block_slice(2, 9))


def test_another_layout_is_drawn_in_as_well(editor):
    editor.draw_around(2, 9)
    inside = actors(editor)
    editor.effect.layoutChanged()
    assert actors(editor) == inside
    red, green, _blue = editor.color_at(2, (20, 17, 9))
    assert green > red + 50


def test_the_effect_is_registered_once(editor):
    from MedSAMSlicerLib.app.effect_registration import registerEditorEffect

    registerEditorEffect()
    effects = slicer.qSlicerSegmentEditorEffectFactory.instance().registeredEffects()
    assert [effect.name for effect in effects] == ["MedSAM"]
    assert not effects[0].icon().isNull()
    assert "Esc" in effects[0].helpText()
    second = slicer.qMRMLSegmentEditorWidget()
    assert second.availableEffectNames() == ["MedSAM"]
    second._close()


def test_every_control_of_the_panel_has_a_tooltip(editor):
    qt = editor.gui.qt
    for kind in (qt.QAbstractButton, qt.QComboBox, qt.QDoubleSpinBox):
        for widget in editor.effect.scriptedEffect.optionsFrame().findChildren(kind):
            assert widget.toolTip


def test_the_options_are_kept_in_the_scene(editor):
    editor.set(threeDCheckBox=True, rangeComboBox="distance", distanceSpinBox=12.5, modeComboBox="subtract")
    attributes = {name: editor.node.GetAttribute(f"MedSAM.{name}") for name in ("ThreeD", "Range", "Distance", "Mode")}
    assert attributes == {"ThreeD": "1", "Range": "distance", "Distance": "12.5", "Mode": "subtract"}
    editor.node.SetAttribute("MedSAM.Mode", "add")
    editor.effect.updateGUIFromMRML()
    assert editor.options.modeComboBox.currentData == "add"
