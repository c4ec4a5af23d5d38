"""What a machine is and can do: its processor, and how fast it multiplies matrices."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def machine() -> dict[str, Any]:
    """Tell what this computer is; nothing of it names the computer or its user."""
    report: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": _memory_gb(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }
    return {name: value for name, value in report.items() if value is not None}


def device_name(device: torch.device) -> str:
    """Name the chip that a device is."""
    if device.type == "cuda":
        return (
            f"{torch.cuda.get_device_name(device)} ({torch.cuda.get_device_properties(device).total_memory >> 30} GiB)"
        )
    return cpu_name() if device.type == "cpu" else f"{cpu_name()}, Metal"


def cpu_name() -> str:
    """Name the processor as its maker does, where the system tells."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        if sys.platform == "darwin":
            command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def seconds(function: Callable[[], object], device: torch.device, rounds: int = 10) -> list[float]:
    """Time a function several times after a first call that doesn't count, in ascending order."""
    function()
    times = []
    for _ in range(rounds):
        wait(device)
        start = time.perf_counter()
        function()
        wait(device)
        times.append(time.perf_counter() - start)
    return sorted(times)


def matrix_rate(device: torch.device, precision: torch.dtype, rounds: int = 10) -> float:
    """Return the rate of matrix products in FLOP/s, the best of two ways.

    On a CPU one of them is PyTorch's own (MKL), the other oneDNN's, as a 1 x 1 convolution.
    """
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.rand(size, size, device=device, dtype=precision) for _ in range(2))
    pixels, weight = a[None, :, None].permute(0, 3, 1, 2), b[:, :, None, None]
    with torch.inference_mode():
        times = seconds(lambda: a @ b.T, device, rounds)
        if device.type == "cpu":
            times += seconds(lambda: torch.nn.functional.conv2d(pixels, weight), device, rounds)
    return 2 * size**3 / min(times)


def wait(device: torch.device) -> None:
    """Wait until a device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_mebibytes() -> float | None:
    """Return the most memory that this process has had so far; None where the system doesn't tell."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def _memory_gb() -> float | None:
    with contextlib.suppress(AttributeError, ValueError, OSError):
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    return None
