"""The device that a model runs on, and the precision that suits it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import torch

# What the messages of a full device hold: PyTorch's own for CUDA and MPS, and those of cuBLAS and cuDNN, which fail to
# make their handles and workspaces then, or find no algorithm.
_OUT_OF_MEMORY = (
    "out of memory",
    "alloc_failed",
    "allocation_failed",
    "cublas_status_not_initialized",
    "cudnn_status_not_initialized",
    "unable to find an engine",
)


def choose_device(name: str = "auto") -> torch.device:
    """Choose a device by name, or the fastest that is there.

    :param name: ``auto`` (the first NVIDIA GPU that this build of PyTorch has kernels for, else Apple's MPS, else the
        CPU), ``cpu``, ``mps``, ``cuda`` or ``cuda:1``.
    :raises ValueError: if the name is unknown, this computer has no such device, or PyTorch no kernels for it.
    """
    if name == "auto":
        usable = [index for index in range(_count("cuda")) if _has_kernels(index)]
        if usable:
            return torch.device("cuda", usable[0]) if usable[0] else torch.device("cuda")
        return torch.device(next(kind for kind in ("mps", "cpu") if _count(kind)))
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
    if device.type == "cuda" and not _has_kernels(device.index or 0):
        major, minor = torch.cuda.get_device_capability(device)
        raise ValueError(
            f"The device {name!r} has the compute capability {major}.{minor}, for which PyTorch {torch.__version__} "
            "has no kernels: install a build of PyTorch for this GPU (see pytorch.org), or give cpu."
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


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Compute in single precision what is said to be, not in TF32, which NVIDIA's GPUs since Ampere take for it.

    By default PyTorch lets convolutions have it, but not products of matrices: LiteMedSAM's masks would be others on
    such a GPU than elsewhere. The settings are the process's, so they are put back for others.
    """
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def out_of_memory(error: BaseException) -> bool:
    """Return whether a device had too little memory, however the library that asked for it puts that."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _OUT_OF_MEMORY)


def free_memory(device: torch.device) -> int:
    """Return how many bytes tensors may still take on a GPU of NVIDIA's, with what PyTorch keeps there for later."""
    free, _ = torch.cuda.mem_get_info(device)
    # (memory_reserved and memory_allocated put a hundred figures into order first, which takes them 0.3 ms each.)
    figures = torch.cuda.memory_stats_as_nested_dict(device)
    kept, used = (figures[f"{kind}_bytes"]["all"]["current"] for kind in ("reserved", "allocated"))
    return free + kept - used


def give_back_memory() -> None:
    """Let other programs have the memory of the GPU that PyTorch keeps for later, but no tensor holds.

    May be called in any thread, so no garbage is collected: Qt's objects must die in Slicer's main one.
    """
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def _has_kernels(index: int) -> bool:
    """Return whether this build of PyTorch can compute on a GPU of NVIDIA's.

    Kernels of one compute capability run on later ones of the same generation; intermediate code (PTX) on all later.
    """
    built = [re.fullmatch(r"(sm|compute)_(\d+)(\d)[af]?", name) for name in torch.cuda.get_arch_list()]
    kernels = [(each[1], int(each[2]), int(each[3])) for each in built if each]
    if not kernels:
        # A build for AMD's GPUs, whose names are others, tells by itself what it can't do.
        return True
    own = torch.cuda.get_device_capability(index)
    return any((major, minor) <= own and (kind == "compute" or major == own[0]) for kind, major, minor in kernels)


def _count(kind: str) -> int:
    """Count the devices of a kind."""
    if kind == "cuda":
        return torch.cuda.device_count() if torch.cuda.is_available() else 0
    return kind == "cpu" or (kind == "mps" and torch.backends.mps.is_available())
