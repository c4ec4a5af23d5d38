"""The device that a model runs on, and the precision that suits it."""

from __future__ import annotations

import torch


def choose_device(name: str = "auto") -> torch.device:
    """Choose a device by name, or the fastest that is there.

    :param name: ``auto`` (CUDA, else Apple's MPS, else the CPU), ``cpu``, ``mps``, ``cuda`` or ``cuda:1``.
    :raises ValueError: if the name is unknown, or if this computer has no such device.
    """
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if _count(kind)))
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"The device {name!r} is unknown: give auto, cpu, cuda, cuda:N or mps.") from error
    if (device.index or 0) >= _count(device.type):
        there = [kind for kind in ("cuda", "mps", "cpu") if _count(kind)]
        raise ValueError(
            f"The device {name!r} is not there: this computer, with this build of PyTorch, has {', '.join(there)}. "
            "Give one of these, or auto."
        )
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Choose a precision by name, or the one that costs no accuracy that matters and is fastest on the device.

    :param name: ``auto`` (bfloat16 on an NVIDIA GPU that computes it, Ampere or newer, else float32), ``float32`` or
        ``bfloat16``.
    :raises ValueError: if the name is unknown.
    """
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0) else "float32"
    if name not in ("float32", "bfloat16"):
        raise ValueError(f"The precision {name!r} is unknown: give auto, float32 or bfloat16.")
    return torch.float32 if name == "float32" else torch.bfloat16


def _count(kind: str) -> int:
    """Count the devices of a kind."""
    if kind == "cuda":
        return torch.cuda.device_count() if torch.cuda.is_available() else 0
    return kind == "cpu" or (kind == "mps" and torch.backends.mps.is_available())
