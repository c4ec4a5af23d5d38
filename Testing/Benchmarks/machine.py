"""Measure what a machine can do: how fast it multiplies matrices, and how fast it moves memory.

In the environment of the tests: `python Testing/Benchmarks/machine.py [--device cpu|cuda]`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import torch


def seconds(function: Callable[[], object], device: torch.device, rounds: int = 10) -> list[float]:
    """Time a function several times after a first call that doesn't count, in ascending order."""
    function()
    times = []
    for _ in range(rounds):
        _wait(device)
        start = time.perf_counter()
        function()
        _wait(device)
        times.append(time.perf_counter() - start)
    return sorted(times)


def matrix_rate(device: torch.device, precision: torch.dtype) -> float:
    """Return the rate of matrix products in FLOP/s, the best of two ways.

    On a CPU one of them is PyTorch's own (MKL), the other oneDNN's, as a 1 x 1 convolution.
    """
    size = 2048 if device.type == "cpu" else 8192
    a, b = (torch.rand(size, size, device=device, dtype=precision) for _ in range(2))
    pixels, weight = a[None, :, None].permute(0, 3, 1, 2), b[:, :, None, None]
    with torch.inference_mode():
        times = seconds(lambda: a @ b.T, device)
        if device.type == "cpu":
            times += seconds(lambda: torch.nn.functional.conv2d(pixels, weight), device)
    return 2 * size**3 / min(times)


def bandwidth(device: torch.device) -> float:
    """Return the bytes per second that are read and written when 256 MiB are copied."""
    source = torch.rand(1 << 26, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds(lambda: target.copy_(source), device)[0]


def describe(device: torch.device) -> str:
    """Say what the machine is, how busy it is, and what it can do."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    rates = ", ".join(
        f"{matrix_rate(device, precision) / 1e9:,.0f} GFLOP/s in {str(precision).removeprefix('torch.')}"
        for precision in (torch.float32, torch.bfloat16)
    )
    return f"{name}{load}, PyTorch {torch.__version__}: {rates}, {bandwidth(device) / 1e9:,.0f} GB/s"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    print(describe(torch.device(parser.parse_args().device)))
