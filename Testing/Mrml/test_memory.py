"""How much memory a small box in a large volume takes: measured on the command itself, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from MedSAMSlicerLib.model import build_model, save_checkpoint

SLICES = 120
MEGABYTES = 512 * 512 * SLICES * 2 / 1e6


def volume_file(path: Path, slices: int) -> Path:
    voxels = np.random.default_rng(1).integers(-1000, 1000, (slices, 512, 512), dtype=np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))
    return path


def peak_megabytes(volume: Path, output: Path, model: Path) -> float:
    """Segment a box of five slices, and return how much memory the process had at most."""
    arguments = ["segment", "--volume", volume, "--box", 100, 100, 2, 160, 160, 6, "--output", output, "--model", model]
    with subprocess.Popen(
        [sys.executable, "-m", "MedSAMSlicerLib", *map(str, arguments), "--device", "cpu", "--window", "abdomen"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


@pytest.mark.parametrize(("ending", "most"), [(".seg.nrrd", 1.7), (".nrrd", 2.5)])
def test_a_small_box_in_a_large_volume_takes_the_size_of_the_volume(tmp_path, ending, most):
    """A label map comes on top, of a byte per voxel, and is read again from its file."""
    save_checkpoint(build_model("tiny"), tmp_path / "tiny.pth")
    small, large = (
        peak_megabytes(volume_file(tmp_path / f"{slices}.nrrd", slices), tmp_path / f"o{ending}", tmp_path / "tiny.pth")
        for slices in (8, SLICES)
    )
    assert large - small < most * MEGABYTES
