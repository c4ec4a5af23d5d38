"""Several processes train as one does alone, and go on together after they were stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from made_up_site import job_in
from MedSAMSlicerLib.training.fine_tuning import fine_tune

SOURCES = Path(__file__).resolve().parents[2] / "MedSAMSlicer"


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
    return launched(folder, "-m", "MedSAMSlicerLib.training", *arguments)


def launched(folder: Path, *program: str) -> subprocess.Popen:
    """Start two processes of a program as torchrun does."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {"PYTHONPATH": str(SOURCES), "MEDSAM_SLICER_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*launcher, *program],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
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
    assert output.count("Dice on 3 patients, each left out of training in turn") == 1
    one, two = log_of(tmp_path / "tuned.run"), log_of(tmp_path / "two.run")
    for key in ("train_loss", "validation_dice", "validation_per_slice_dice"):
        assert [row[key] for row in two] == pytest.approx([row[key] for row in one], abs=2e-3), key
    ours, theirs = (torch.load(tmp_path / name, weights_only=True)["model"] for name in ("tuned.pth", "two.pth"))
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-3


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="Only Linux names a process's children")
def test_a_process_that_dies_ends_the_other_one_with_a_word(tmp_path):
    job_in(tmp_path)
    process, told = start_two(tmp_path), tmp_path / "two.run" / "progress.json"
    while process.poll() is None and not (told.is_file() and '"training"' in told.read_text()):
        time.sleep(0.05)
    for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        if b"RANK=1" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            os.kill(int(pid), signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Another of the 2 processes that train together has ended" in output
    # For who looks at the run in the panel.
    progress = json.loads(told.read_text())
    assert (progress["state"], "Another of the 2" in progress["message"]) == ("failed", True)


def test_a_process_waits_for_another_one_that_has_more_to_do_than_pytorch_has_patience(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        """
import sys, time
from datetime import timedelta
from torch.distributed import distributed_c10d
from MedSAMSlicerLib.training.distributed import joined

distributed_c10d._get_default_timeout = lambda backend: timedelta(seconds=1)
with joined("cpu") as team:
    time.sleep(3 * team.rank)
    sys.stdout.write(f"{team.gather(team.rank)}\\n")
"""
    )
    process = launched(tmp_path, str(program))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert output.count("[0, 1]") == 2, output


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="Only Linux names a process's threads")
def test_processes_that_averaged_gradients_end_their_threads_before_the_interpreter_does(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        """
import sys
from pathlib import Path
import torch
from MedSAMSlicerLib.training.distributed import joined

def exchanging():
    return sum("gloo" in path.read_text() for path in Path("/proc/self/task").glob("*/comm"))

parameter = torch.nn.Parameter(torch.zeros(2))
unused = torch.nn.Parameter(torch.zeros(1))
with joined("cpu") as team:
    (parameter * torch.tensor([1.0, 2.0 * team.rank])).sum().backward()
    team.average([parameter, unused])
    during = exchanging()
sys.stdout.write(f"{during > 0} {exchanging()} {parameter.grad.tolist()} {unused.grad.tolist()}\\n")
"""
    )
    process = launched(tmp_path, str(program))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    # A thread that lets go of a tensor while the interpreter ends aborts the process.
    assert output.count("True 0 [1.0, 1.0] [0.0]") == 2, output


@pytest.mark.parametrize("depth", ["adapter", "full"])
def test_two_processes_train_at_every_depth(tmp_path, depth):
    job_in(tmp_path, depth)
    run = start_two(tmp_path, depth)
    output, _ = run.communicate(timeout=300)
    assert run.returncode == 0, output
    rows = log_of(tmp_path / "two.run")
    assert len(rows) == 3
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
