"""The processes that train together: one, or as many as torchrun starts on one machine or several."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from MedSAMSlicerLib.inference.device import choose_device, out_of_memory

Item = TypeVar("Item")
# How long a process waits for the others at most: one may have far more slices to encode, which took PyTorch's own
# limit of 10 minutes on GPUs for a failure. One that has died is noticed at once, or ended for by torchrun.
_PATIENCE = timedelta(days=1)


class Team:
    """The processes of a run; a run of one needs no torch.distributed.

    :param rank: number of this process; 0 is the one that writes.
    :param size: number of processes.
    :param device: that this process computes on.
    """

    def __init__(self, rank: int, size: int, device: torch.device) -> None:
        self.rank, self.size, self.device = rank, size, device

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this process's part of a list that all processes have."""
        return items[self.rank :: self.size]

    def gather(self, value: Any) -> list[Any]:
        """Return the value of every process, in their order. All must call this.

        :raises RuntimeError: if another process has ended.
        """
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with self._meeting():
            distributed.all_gather_object(values, value)
        return values

    def average(self, parameters: Sequence[Tensor]) -> None:
        """Make each parameter's gradient the mean over all processes. All must call this.

        In one exchange: PyTorch's DistributedDataParallel, which sends while it still computes, keeps hold of the
        group for ever, and a thread of it that lives when the interpreter ends can abort the process.

        :raises RuntimeError: if another process has ended.
        """
        if self.size == 1:
            return
        gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
        mean = torch.cat([gradient.flatten() for gradient in gradients])
        with self._meeting():
            distributed.all_reduce(mean)
        mean /= self.size
        parts = mean.split([gradient.numel() for gradient in gradients])
        for parameter, gradient, part in zip(parameters, gradients, parts, strict=True):
            parameter.grad = part.view_as(gradient)

    @contextlib.contextmanager
    def _meeting(self) -> Iterator[None]:
        """Say in plain words that another process has not come, what PyTorch tells of connections."""
        try:
            yield
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            raise RuntimeError(
                f"Another of the {self.size} processes that train together has ended or can't be reached any more: see "
                f"what it has written; the same command goes on from the last complete epoch. ({error})"
            ) from error


@contextlib.contextmanager
def joined(device: str = "auto") -> Iterator[Team]:
    """Join the processes that torchrun has started (by its environment variables), or work alone.

    They meet over NCCL on GPUs of NVIDIA, one GPU per process, and over Gloo elsewhere.

    :param device: see `inference.device.choose_device`.
    :raises ValueError: if there are fewer GPUs than processes.
    """
    chosen = choose_device(device)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team(0, 1, chosen)
        return
    if chosen.type == "cuda":
        chosen = choose_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
        torch.cuda.set_device(chosen)
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Team(distributed.get_rank(), size, chosen)
    finally:
        distributed.destroy_process_group()
