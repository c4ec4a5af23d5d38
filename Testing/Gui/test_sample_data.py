"""The samples in Slicer's module Sample Data: loaded by a click, with boxes that are segmented by another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import slicer
import slicer.util
from PySide6 import QtGui

from MedSAMSlicerLib.mrml.boxes import is_ticked, structure_boxes, tick
from MedSAMSlicerLib.mrml.markups import wrap_voxels
from MedSAMSlicerLib.mrml.segments import segment_mask
from MedSAMSlicerLib.mrml.volumes import ijk_to_world
from MedSAMSlicerLib.mrml.windows import window_of
from MedSAMSlicerLib.volume.files import read_volume
from MedSAMSlicerLib.volume.geometry import voxel_box_corners
from MedSAMSlicerLib.volume.metrics import agreement
from panel_user import MODULE_FILE, is_in_sight


@pytest.fixture
def sources(gui, samples) -> dict:
    """The registered samples by name."""
    gui.load_module(MODULE_FILE)
    gui.start_up()
    return {source.sampleName: source for source in slicer.modules.sampleDataSources["MedSAM"]}


def click(source):
    """Do what Sample Data does at a click."""
    return source.customDownloader(source)


def test_the_samples_are_registered_once_with_a_title_and_pictures(gui, sources):
    gui.start_up()
    names = [source.sampleName for source in slicer.modules.sampleDataSources["MedSAM"]]
    assert names == ["MedSAMCTAbdomen", "MedSAMMRAbdomen"]
    assert slicer.modules.sampleDataSourceCategories["MedSAM"] == {"title": "MedSAM"}
    for source in sources.values():
        picture = Path(source.thumbnailFileName)
        assert picture.stat().st_size < 60_000
        assert QtGui.QImage(str(picture)).size().toTuple() == (260, 280)


@pytest.mark.parametrize(
    ("name", "labels", "numbers"),
    [
        ("MedSAMCTAbdomen", "example_seg.nii.gz", {"spleen": 1, "right kidney": 2, "left kidney": 3}),
        ("MedSAMMRAbdomen", "example_seg_mr.nii.gz", {"right kidney": 2, "left kidney": 3, "liver": 5}),
    ],
)
def test_each_sample_comes_with_ticked_boxes_around_what_the_experts_drew(gui, sources, samples, name, labels, numbers):
    volume = click(sources[name])
    assert volume.GetName() == name
    composite = gui.layout_manager.sliceWidget("Red").mrmlSliceCompositeNode()
    assert composite.GetBackgroundVolumeID() == volume.GetID()
    experts = read_volume(samples[labels])
    boxes = structure_boxes(gui.scene)
    assert {box.GetName() for box in boxes} == set(numbers)
    for box in boxes:
        assert is_ticked(box)
        drawn = np.argwhere(experts.voxels == numbers[box.GetName()])[:, ::-1]
        corners = np.array([drawn.min(axis=0) - 0.5, drawn.max(axis=0) + 0.5])
        world = corners @ experts.ijk_to_ras[:3, :3].T + experts.ijk_to_ras[:3, 3]
        bounds = np.zeros(6)
        box.GetRASBounds(bounds)
        np.testing.assert_allclose(bounds.reshape(3, 2), np.sort(world, axis=0).T, atol=0.01)


def test_a_second_sample_is_what_the_module_shows_and_segments(gui, sources):
    click(sources["MedSAMCTAbdomen"])
    widget = gui.open_module("MedSAMSlicer")
    gui.leave_module("MedSAMSlicer")
    volume = click(sources["MedSAMMRAbdomen"])
    gui.open_module("MedSAMSlicer")
    assert widget.panel.ui.inputVolumeSelector.currentNode() is volume
    assert [box.GetName() for box in structure_boxes(gui.scene) if is_ticked(box)] == [
        "right kidney",
        "left kidney",
        "liver",
    ]
    assert "MRI" in widget.panel.ui.modalityLabel.text


@pytest.mark.parametrize("name", ["MedSAMCTAbdomen", "MedSAMMRAbdomen"])
def test_a_sample_is_shown_so_that_its_organs_can_be_told_apart(gui, sources, name):
    camera = slicer.modules.cameras.logic().GetViewActiveCameraNode(gui.layout_manager.threeDWidget(0).mrmlViewNode())
    camera.SetPosition(3000.0, 3000.0, 3000.0)
    volume = click(sources[name])
    display, seen = volume.GetScalarVolumeDisplayNode(), window_of(volume, "auto")
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (seen.lower, seen.upper)
    assert seen.upper - seen.lower < np.ptp(slicer.util.arrayFromVolume(volume))
    organ = structure_boxes(gui.scene)[-1]
    for view in ("Red", "Green", "Yellow", "3D"):
        assert is_in_sight(gui, view, organ), view
        assert gui.picture(view).any()


def test_a_sample_that_cannot_be_fetched_is_told(gui, sources, monkeypatch):
    from MedSAMSlicerLib.app import sample_data

    def refuse(progress):
        progress(1, 4)
        raise OSError("The network is down.")

    monkeypatch.setattr(sample_data, "fetch_samples", refuse)
    with pytest.raises(OSError, match="network is down"):
        click(sources["MedSAMCTAbdomen"])
    (shown,) = gui.dialogs.take()
    assert "MedSAMCTAbdomen could not be loaded" in shown.text
    assert "network is down" in shown.text
    assert gui.main_window.statusBar().currentMessage() == "Sample data: 25 % of the download"
    assert gui.scene.GetNumberOfNodesByClass("vtkMRMLMarkupsROINode") == 0


def test_a_kidney_of_the_sample_is_segmented_as_the_experts_did(gui, sources, samples, lite_weights):
    volume = click(sources["MedSAMMRAbdomen"])
    for box in structure_boxes(gui.scene):
        tick(box, box.GetName() == "left kidney")
        # Slices 4 to 6, for the sake of time.
        wrap_voxels(box, ijk_to_world(volume), voxel_box_corners((72, 48, 4), (90, 62, 6)))
    panel = gui.open_module("MedSAMSlicer").panel
    panel.ui.segmentButton.click()
    gui.pump(until=lambda: not panel.result.running, at_most=120)
    segmentation = panel.parameters.segmentation
    (segment_id,) = segmentation.GetSegmentation().GetSegmentIDs()
    experts = read_volume(samples["example_seg_mr.nii.gz"])
    found = segment_mask(segmentation, segment_id, volume)
    drawn = experts.voxels == 3
    drawn[:4] = drawn[7:] = False
    assert agreement(found, drawn, experts.spacing).dice > 0.8
