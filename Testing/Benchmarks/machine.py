"""Measure what a machine can do: how fast it multiplies matrices, and how fast it moves memory.

In the environment of the tests: `python Testing/Benchmarks/machine.py [--device cpu|cuda]`.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parents[2] / "MedSAMSlicer")]

from MedSAMSlicerLib.benchmark.machine import device_name, matrix_rate, seconds


def describe(device: torch.device) -> str:
    """Say what the machine is, how busy it is, and what it can do."""
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    name = f"{device_name(device)}{threads}"
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    rates = ", ".join(
        f"{matrix_rate(device, precision) / 1e9:,.0f} GFLOP/s in {str(precision).removeprefix('torch.')}"
        for precision in (torch.float32, torch.bfloat16)
    )
    return f"{name}{load}, PyTorch {torch.__version__}: {rates}, {bandwidth(device) / 1e9:,.0f} GB/s"


def bandwidth(device: torch.device) -> float:
    """Return the bytes per second that are read and written when 256 MiB are copied."""
    source = torch.rand(1 << 26, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds(lambda: target.copy_(source), device)[0]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    print(describe(torch.device(parser.parse_args().device)))
