"""Make all pictures of README and Docs: LiteMedSAM on the samples, by the demo, the module and the effect.

The panel is drawn by Qt with stand-ins for the widgets of Slicer and CTK, so that it looks a little different in Slicer
itself. In the environment of the tests, with weights and samples in the store:

    python Testing/screenshots.py [--output Docs/Screenshots]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "MedSAMSlicer")]

import slicer_gui.views
from effect_editor import EffectEditor
from MedSAMSlicerLib.cli.main import main as medsam_slicer
from MedSAMSlicerLib.headless.snapshot import write_png
from MedSAMSlicerLib.loading import load_predictor
from MedSAMSlicerLib.mrml.boxes import key_slices_of, structure_boxes
from MedSAMSlicerLib.store.samples import sample_path
from MedSAMSlicerLib.volume.files import Volume, read_volume
from MedSAMSlicerLib.volume.geometry import bounding_box, voxel_box_corners
from slicer_gui.gui import Gui

MODULE_FILE = Path(__file__).parents[1] / "MedSAMSlicer" / "MedSAMSlicer.py"
ORGANS = {"liver": 5, "right kidney": 2, "left kidney": 3}
PANEL_WIDTH = 470


def pixels(widget: object) -> np.ndarray:
    """Draw a widget: uint8 (rows, columns, 3)."""
    from PySide6 import QtGui

    image = widget.grab().toImage().convertToFormat(QtGui.QImage.Format_RGB888)
    lines = np.frombuffer(image.constBits(), dtype=np.uint8).reshape(image.height(), image.bytesPerLine())
    return lines[:, : image.width() * 3].reshape(image.height(), image.width(), 3).copy()


def beside(panel: np.ndarray, views: np.ndarray) -> np.ndarray:
    """Put two pictures side by side, on black where one is lower."""
    rows = max(len(panel), len(views))
    padded = [np.pad(each, ((0, rows - len(each)), (0, 0), (0, 0))) for each in (panel, views)]
    return np.concatenate(padded, axis=1)


def four_views(gui: Gui) -> np.ndarray:
    """Draw the views as Slicer's layout Four-Up puts them."""
    rows = [
        np.concatenate([gui.picture(left), gui.picture(right)], axis=1)
        for left, right in (("Red", "3D"), ("Green", "Yellow"))
    ]
    return np.concatenate(rows)


def show_volume(gui: Gui, volume: Volume) -> object:
    """Add a volume and show it in all slice views, in the window of the abdomen."""
    node = gui.headless.add_volume(volume)
    node.GetScalarVolumeDisplayNode().SetAutoWindowLevel(False)
    node.GetScalarVolumeDisplayNode().SetWindowLevel(400, 40)
    for name in gui.layout_manager.sliceViewNames():
        view = gui.layout_manager.sliceWidget(name)
        view.mrmlSliceCompositeNode().SetBackgroundVolumeID(node.GetID())
        view.fitSliceToBackground()
    return node


def module_picture(gui: Gui, volume: Volume, expert: np.ndarray) -> np.ndarray:
    """Segment three organs in the module, and correct one of them."""
    show_volume(gui, volume)
    gui.load_module(MODULE_FILE)
    widget = gui.open_module("MedSAMSlicer")
    ui = widget.panel.ui
    for organ, label in ORGANS.items():
        roi = gui.headless.add_roi(organ, volume.ijk_to_ras, voxel_box_corners(*bounding_box(expert == label)))
        roi.GetDisplayNode().SetFillVisibility(False)
        roi.GetDisplayNode().SetPropertiesLabelVisibility(False)
    gui.pump()
    for row in range(ui.boxesTable.rowCount):
        ui.boxesTable.item(row, 0).setCheckState(gui.qt.Qt.Checked)
        gui.pump()
    ui.segmentButton.click()
    gui.pump(until=lambda: not widget.panel.result.running, at_most=1200)
    gui.pump()
    ui.segmentComboBox.setCurrentIndex(1)
    ui.segmentComboBox.activated.emit(1)
    ui.show3DButton.click()
    gui.pump()
    ui.nextDoubtfulButton.click()
    ui.correctSliceButton.click()
    gui.pump(0.2)
    # One box is enough to see what boxes look like.
    for roi in structure_boxes(gui.scene):
        roi.GetDisplayNode().SetVisibility(roi.GetName() == "liver")
    for roi in key_slices_of(widget.panel.parameters.segmentation, widget.panel.parameters.segmentID):
        roi.GetDisplayNode().SetPropertiesLabelVisibility(False)

    gui.layout_manager.threeDWidget(0).threeDView().resetFocalPoint()
    widget.parent.resize(PANEL_WIDTH, widget.parent.sizeHint().height())
    gui.pump(0.2)
    return beside(pixels(widget.parent), four_views(gui))


def effect_picture(gui: Gui, monkeypatch: pytest.MonkeyPatch, volume: Volume, expert: np.ndarray) -> np.ndarray:
    """Draw a box around a kidney in one slice with the effect of the Segment Editor, in 3-D, not applied yet."""
    editor = EffectEditor(gui, monkeypatch, load_predictor("lite", "cpu"), volume)
    show_volume(gui, volume)
    kidney = expert == ORGANS["right kidney"]
    (_, _, k0), (_, _, k1) = bounding_box(kidney)
    middle = (k0 + k1) // 2
    (i0, j0, _), (i1, j1, _) = bounding_box(kidney[middle : middle + 1])
    editor.draw(2, middle, (i0, j0), (i1, j1))
    gui.pump(until=lambda: not editor.logic.worker.busy, at_most=1200)
    for name in gui.layout_manager.sliceViewNames():
        node = gui.layout_manager.sliceWidget(name).mrmlSliceNode()
        node.JumpSliceByOffsetting(*(volume.ijk_to_ras @ [(i0 + i1) / 2, (j0 + j1) / 2, middle, 1])[:3])
    frame = editor.effect.scriptedEffect.optionsFrame()
    frame.setFixedWidth(PANEL_WIDTH - 80)
    frame.adjustSize()
    gui.pump(0.2)
    picture = beside(pixels(frame), np.concatenate([gui.picture("Red"), gui.picture("Yellow")], axis=1))
    editor.close()
    return picture


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "Docs" / "Screenshots")
    args = parser.parse_args()
    volume = read_volume(sample_path("example_ct_sm.nii.gz"))
    expert = read_volume(sample_path("example_seg.nii.gz")).voxels
    pictures = {
        "effect.png": ((430, 380), lambda gui, monkeypatch: effect_picture(gui, monkeypatch, volume, expert)),
        "module.png": ((430, 615), lambda gui, monkeypatch: module_picture(gui, volume, expert)),
    }
    for name, (view_size, draw) in pictures.items():
        slicer_gui.views._SIZE = view_size
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch:
            gui = Gui(Path(folder) / "Slicer.ini", monkeypatch)
            write_png(args.output / name, draw(gui, monkeypatch))
            gui.close()
    with tempfile.TemporaryDirectory() as folder:
        if medsam_slicer(["demo", "--yes", "--output", folder]):
            sys.exit("The demo has failed.")
        for name in ("ct.png", "mr.png"):
            shutil.copy(Path(folder) / name, args.output / name)


if __name__ == "__main__":
    main()
