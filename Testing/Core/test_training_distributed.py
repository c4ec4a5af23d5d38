"""Several processes train as one does alone, and go on together after they were stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from made_up_site import job_in
from MedSAMSlicerLib.training.fine_tuning import fine_tune

SOURCES = Path(__file__).resolve().parents[2] / "MedSAMSlicer"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="PyTorch's Gloo on Windows needs a file to meet at")


def log_of(run: Path) -> list[dict]:
    path = run / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def start_two(folder: Path, depth: str = "decoder") -> subprocess.Popen:
    """Train with two processes, a batch of 2 each, as torchrun starts them."""
    options = {
        "depth": depth,
        "data": folder / "site", "base": folder / "base.pth", "output": folder / "two.pth", "epochs": 3, "batch": 2,
        "learning-rate": 1e-3, "variants": 2, "validated-structures": 1, "device": "cpu",
        "embeddings": folder / "embeddings of two",
    }  # fmt: skip
    arguments = [f"--{name}={value}" for name, value in options.items()]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {"PYTHONPATH": str(SOURCES), "MEDSAM_SLICER_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*launcher, "-m", "MedSAMSlicerLib.training", *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_two_processes_have_the_loss_curve_of_one_with_the_doubled_batch_even_if_they_are_stopped(tmp_path):
    fine_tune(job_in(tmp_path, batch=4, epochs=3))
    first = start_two(tmp_path)
    while not log_of(tmp_path / "two.run") and first.poll() is None:
        time.sleep(0.05)
    # As a cluster does that takes its machines back.
    first.terminate()
    output, _ = first.communicate(timeout=120)
    assert len(log_of(tmp_path / "two.run")) in (1, 2), output
    second = start_two(tmp_path)
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 0, output
    assert output.count("Dice on the validation cases") == 1
    one, two = log_of(tmp_path / "tuned.run"), log_of(tmp_path / "two.run")
    for key in ("train_loss", "validation_dice", "validation_slice_dice"):
        assert [row[key] for row in two] == pytest.approx([row[key] for row in one], abs=2e-3), key
    ours, theirs = (torch.load(tmp_path / name, weights_only=True)["model"] for name in ("tuned.pth", "two.pth"))
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-3


@pytest.mark.parametrize("depth", ["adapter", "full"])
def test_two_processes_train_at_every_depth(tmp_path, depth):
    job_in(tmp_path, depth)
    run = start_two(tmp_path, depth)
    output, _ = run.communicate(timeout=300)
    assert run.returncode == 0, output
    rows = log_of(tmp_path / "two.run")
    assert len(rows) == 3
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
