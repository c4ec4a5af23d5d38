"""PyTorch is read from the disk beside a responsive Slicer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import ctypes, importlib.util, os, sys, types
from pathlib import Path

import slicer
from slicer_gui import i18n

slicer.i18n = sys.modules["slicer.i18n"] = i18n
from MedSAMSlicerLib.app.requirements import read_torch

(library,) = (Path(importlib.util.find_spec("torch").origin).parent / "lib").glob("libtorch_python.[sd]*")


def is_loaded():
    try:
        ctypes.CDLL(str(library), mode=os.RTLD_NOLOAD)
    except OSError:
        return False
    return True


assert not is_loaded()
read_torch()
assert is_loaded()
assert "torch" not in sys.modules
import torch

assert torch.ones(2).sum() == 2
"""


def test_the_libraries_are_there_before_python_imports_them(tmp_path):
    folders = [str(Path(__file__).parents[2] / each) for each in ("Testing", "MedSAMSlicer")]
    start = f"import sys; sys.path[:0] = {folders!r}"
    done = subprocess.run([sys.executable, "-c", start + SCRIPT], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
