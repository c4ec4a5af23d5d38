"""How much memory a small box in a large volume takes: measured on the command itself, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from Core.dicom_writer import write_series
from MedSAMSlicerLib.model import build_model, save_checkpoint

SLICES = 120
MEGABYTES = 512 * 512 * SLICES * 2 / 1e6


# A process asks for its own peak, in kB: what a parent is told of one that has ended is no less than its own was.
PEAK = """
import resource, sys
def peak():
    if sys.platform == "linux":
        return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
"""
PROGRAM = f"""{PEAK}
from MedSAMSlicerLib.cli.program import run
code = run(sys.argv[1:])
print(peak())
sys.exit(code)
"""
READING = f"""{PEAK}
from pathlib import Path
from MedSAMSlicerLib.volume.files import read_volume
before = peak()
volume = read_volume(Path(sys.argv[1]))
print(peak() - before)
"""


def volume_file(path: Path, slices: int) -> Path:
    """Write a volume; as a DICOM series, if the path is one of a folder."""
    voxels = np.random.default_rng(1).integers(-1000, 1000, (slices, 512, 512), dtype=np.int16)
    if path.suffix:
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))
    else:
        write_series(path, voxels, np.eye(4))
    return path


def megabytes_told(program: str, *arguments: object) -> float:
    """Run a program that prints kB."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=True,
    )
    return int(done.stdout) * 1024 / 1e6


def peak_megabytes(volume: Path, output: Path, model: Path) -> float:
    """Segment a box of five slices, and return how much memory the process had at most."""
    arguments = ["segment", "--volume", volume, "--box", 100, 100, 2, 160, 160, 6, "--output", output, "--model", model]
    return megabytes_told(PROGRAM, *arguments, "--device", "cpu", "--window", "abdomen")


@pytest.mark.parametrize(("ending", "most"), [(".seg.nrrd", 1.7), (".nrrd", 2.5)])
def test_a_small_box_in_a_large_volume_takes_the_size_of_the_volume(tmp_path, ending, most):
    """A label map comes on top, of a byte per voxel, and is read again from its file."""
    save_checkpoint(build_model("tiny"), tmp_path / "tiny.pth")
    small, large = (
        peak_megabytes(volume_file(tmp_path / f"{n}.nrrd", n), tmp_path / f"o{ending}", tmp_path / "tiny.pth")
        for n in (8, SLICES)
    )
    assert large - small < most * MEGABYTES


def test_a_dicom_series_is_read_in_the_memory_that_it_needs(tmp_path):
    """And not in as much again that was freed before: GDCM reads all of it to list it."""
    assert megabytes_told(READING, volume_file(tmp_path / "series", SLICES)) < 1.5 * MEGABYTES
