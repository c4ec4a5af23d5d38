"""A GPU of NVIDIA's on a computer without one: tensors that have a device, a type and a shape, but no content.

What lies on the wrong device or has the wrong type fails as it would there; kernels, and how often the host waits for
the device, are counted. What it can't tell: numbers, which kernels there are, and how fast they are.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._guards import active_fake_mode
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode

from MedSAMSlicerLib.inference import device, predictor, recipes, resize, restoration

# Where PyTorch's C++ library keeps what switches devices, by kind: 1 is CUDA, 14 is meta, whose one does nothing.
_GUARDS, _CUDA, _META = "_ZN3c104impl26device_guard_impl_registryE", 1, 14


class Card(TorchDispatchMode):
    """Counts, while it is entered, what is done on the card.

    ``kernels`` counts operations that compute or copy there, by name; ``to_card`` and ``to_host`` copies from and to
    the host, each of which it waits for; ``bytes_to_card`` what the former take; ``lengths`` holds the lengths of
    queries in fused attention, and their types; ``products`` counts products of matrices by their types.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()
        self.to_card = self.to_host = self.bytes_to_card = 0
        self.lengths: set[tuple[int, torch.dtype]] = set()
        self.products: Counter[torch.dtype] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func.namespace == "prim":
            # It asks a tensor for its device, or the like.
            return NotImplemented
        # Under inference mode operations come here whole that consist of others.
        # Attention is fused on a card.
        if func.overloadpacket is torch.ops.aten.scaled_dot_product_attention:
            self.lengths.add((args[0].shape[-1], args[0].dtype))
        else:
            with self:
                result = func.decompose(*args, **(kwargs or {}))
            if result is not NotImplemented:
                return result
        result = func(*args, **(kwargs or {}))
        given = {each.device.type for each in _tensors((args, kwargs or {}))}
        made = {each.device.type for each in _tensors(result)}
        if func is torch.ops.aten._to_copy.default and given != made:
            self.to_card += "cuda" in made
            self.bytes_to_card += result.nbytes if "cuda" in made else 0
            self.to_host += "cuda" in given
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm):
            self.products[result.dtype] += 1
        if "cuda" in made and not func.is_view and func.overloadpacket is not torch.ops.aten._unsafe_view:
            self.kernels[func.overloadpacket.__name__] += 1
        return result


@contextlib.contextmanager
def fake_cuda(capability: tuple[int, int] = (9, 0), memory: int = 8 << 30) -> Iterator[None]:
    """Let PyTorch believe in one GPU of a compute capability; all tensors that are made meanwhile have no content.

    :param memory: what tensors may take there, in bytes.
    """
    patch = pytest.MonkeyPatch()
    guards = (ctypes.c_void_p * 20).in_dll(ctypes.CDLL(str(Path(torch.__file__).parent / "lib/libc10.so")), _GUARDS)
    before = guards[_CUDA]
    # A build for CPUs has none for CUDA.
    guards[_CUDA] = before or guards[_META]
    patch.setattr(device, "_count", lambda kind: int(kind != "mps"))
    patch.setattr(torch.cuda, "is_available", lambda: True)
    patch.setattr(torch.cuda, "is_bf16_supported", lambda: capability >= (8, 0))
    patch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    patch.setattr(predictor, "free_memory", lambda device: memory)
    patch.setattr(torch.nn.Module, "_apply", _apply)
    patch.setattr(Tensor, "numpy", _numpy)
    patch.setattr(Tensor, "backward", lambda self: None)
    patch.setattr(FakeTensor, "item", _item)
    patch.setattr(FakeTensor, "tolist", lambda self: np.zeros(self.cpu().shape).tolist())
    # The matrices of the way back are looked at, so they need content; they are made on the CPU.
    patch.setattr(restoration.Restoration, "within", _with_content(restoration.Restoration.within))
    for name in ("interpolation", "interpolation_by_way_of"):
        patch.setattr(recipes, name, _with_content(getattr(recipes, name)))
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    move = restoration.Restoration.to

    def emptied(way: restoration.Restoration, device: torch.device) -> restoration.Restoration:
        return move(replace(way, rows=mode.from_tensor(way.rows), columns=mode.from_tensor(way.columns)), device)

    patch.setattr(restoration.Restoration, "to", emptied)
    _forget()
    try:
        with mode:
            yield
    finally:
        patch.undo()
        guards[_CUDA] = before
        _forget()


def _forget() -> None:
    """Drop what is kept between calls: tensors without content must not outlive the card, nor others come to it."""
    predictor.way_back.cache_clear()
    resize._kept.cache_clear()


_known_item = FakeTensor.item


def _item(self: FakeTensor) -> Any:
    """Return a number that was put into a tensor; of any other one, nothing but that it is a number is known."""
    try:
        return _known_item(self)
    except DataDependentOutputException:
        self.cpu()
        return 1


def _with_content(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        with unset_fake_temporarily():
            return function(*args)

    return call


def _numpy(self: Tensor) -> np.ndarray:
    return np.zeros(self.shape, dtype=str(self.dtype).removeprefix("torch.")) if self.is_cpu else _refuse(self)


def _refuse(tensor: Tensor) -> Any:
    raise TypeError(f"A tensor on {tensor.device} has no place in the host's memory: copy it there first.")


def _apply(module: torch.nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> torch.nn.Module:
    """Do what Module._apply does without swapping the contents of tensors, which those without one refuse."""
    for part in module.modules():
        for name, tensor in part._parameters.items():
            if tensor is not None:
                part._parameters[name] = torch.nn.Parameter(function(_emptied(tensor)), tensor.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = function(_emptied(buffer))
    return module


def _emptied(tensor: Tensor) -> Tensor:
    """Return a tensor without its content."""
    mode = active_fake_mode()
    return tensor.detach() if mode is None or isinstance(tensor, FakeTensor) else mode.from_tensor(tensor.detach())


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, FakeTensor | Tensor):
        yield values
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))
    elif isinstance(values, list | tuple):
        for each in values:
            yield from _tensors(each)
