"""Time how long Slicer's main loop is away while the panel segments: one organ, and forty boxes in a large volume.

The model takes no time here, so that slices come as fast as they ever will, and no view is drawn. In the environment of
the tests: `python Testing/Benchmarks/main_loop.py`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "Testing"), str(ROOT / "MedSAMSlicer")]

from MedSAMSlicerLib.store.samples import sample_path
from MedSAMSlicerLib.volume.files import Volume, read_volume
from MedSAMSlicerLib.volume.geometry import bounding_box, voxel_box_corners
from panel_user import MODULE_FILE, SlowPredictor
from slicer_gui.gui import Gui

LIVER, LESIONS = 5, 40
# The sample CT, with each voxel so many times along I, J and K.
LARGE = (4, 4, 8)


def main() -> None:
    """Print the figures of both runs."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch:
        gui = Gui(Path(folder) / "Slicer.ini", monkeypatch)
        gui.load_module(MODULE_FILE)
        ct = read_volume(sample_path("example_ct_sm.nii.gz"))
        liver = bounding_box(read_volume(sample_path("example_seg.nii.gz")).voxels == LIVER)
        timed(gui, "one organ", ct, [liver])
        i, j, k = LARGE
        voxels = ct.voxels.repeat(k, axis=0).repeat(j, axis=1).repeat(i, axis=2)
        random = np.random.default_rng(1)
        places = [[int(random.integers(end)) for end in (100 * i, 80 * j, 22 * k)] for _ in range(LESIONS)]
        boxes = [(tuple(place), (place[0] + 48, place[1] + 48, place[2] + 7)) for place in places]
        large = Volume(voxels, ct.ijk_to_ras @ np.diag([1 / i, 1 / j, 1 / k, 1]), "large")
        timed(gui, f"{LESIONS} boxes in {large.dimensions}", large, boxes)
        sys.stdout.flush()
        # Without the end of the process, which Qt's stand-ins don't go through whole.
        os._exit(0)


def timed(gui: Gui, name: str, volume: Volume, boxes: list) -> None:
    """Segment boxes in the panel and print how long the main loop was away at longest, and what it computed then."""
    gui.scene.Clear(0)
    widget = gui.open_module("MedSAMSlicer")
    predictor = SlowPredictor(0.0)
    widget.logic.loadPredictor = lambda model=None, device=None: predictor
    widget.panel.parameters.inputVolume = gui.headless.add_volume(volume)
    for number, corners in enumerate(boxes):
        gui.headless.add_roi(f"box {number}", volume.ijk_to_ras, voxel_box_corners(*corners))
    gui.pump()
    table = widget.panel.ui.boxesTable
    for row in range(table.rowCount):
        table.item(row, 0).setCheckState(gui.qt.Qt.Checked)
    gui.pump()
    ticks: list[tuple[float, float]] = []
    timer = gui.qt.QTimer()
    timer.setInterval(1)
    timer.connect("timeout()", lambda: ticks.append((time.monotonic(), time.thread_time())))
    timer.start()
    start = time.monotonic()
    widget.panel.ui.segmentButton.click()
    gui.pump(until=lambda: not widget.panel.result.running, at_most=600)
    seconds = time.monotonic() - start
    gui.pump(0.2)
    timer.stop()
    gaps = np.diff(ticks, axis=0).max(axis=0)
    print(f"{name:32} {seconds:6.1f} s; away for {gaps[0]:.3f} s at longest, computing for {gaps[1]:.3f} s at longest")


if __name__ == "__main__":
    main()
