"""The choice of a device, and what is said when it isn't there."""

from __future__ import annotations

import pytest
import torch

from MedSAMSlicerLib.inference.device import (
    choose_device,
    choose_precision,
    free_memory,
    full_precision,
    out_of_memory,
)
from MedSAMSlicerLib.training.distributed import joined


@pytest.fixture
def no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("no_accelerator")
def test_auto_falls_back_to_the_cpu() -> None:
    assert choose_device() == torch.device("cpu")


@pytest.mark.usefixtures("no_accelerator")
def test_auto_takes_apples_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("mps")


def test_auto_prefers_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("cuda")


def test_a_second_gpu_can_be_named_only_where_there_are_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ValueError, match="'cuda:2' is not there"):
        choose_device("cuda:2")


@pytest.mark.usefixtures("no_accelerator")
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' is not there: .* has cpu"):
        choose_device(name)


@pytest.mark.parametrize("name", ["gpu", "", "xpu"])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' is"):
        choose_device(name)


@pytest.mark.parametrize(("capability", "precision"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16)])
def test_a_gpu_is_used_in_half_precision_where_it_computes_it(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision("auto", torch.device("cuda")) == precision
    assert choose_precision("float32", torch.device("cuda")) == torch.float32


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_elsewhere_single_precision_is_used_unless_asked_otherwise(device: str) -> None:
    assert choose_precision("auto", torch.device(device)) == torch.float32
    assert choose_precision("bfloat16", torch.device(device)) == torch.bfloat16


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="'half' is unknown: give auto, float32 or bfloat16"):
        choose_precision("half", torch.device("cpu"))


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Pascal and an Ampere."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    capabilities = [(6, 1), (8, 6)]
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda device: capabilities[getattr(device, "index", device) or 0]
    )


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("built", "chosen"),
    [
        (["sm_75", "sm_80", "sm_90"], "cuda:1"),  # kernels for 8.0 run on 8.6
        (["sm_60", "sm_70", "sm_80"], "cuda"),
        (["sm_50", "compute_50"], "cuda"),  # compiled for the GPU at the first use
        (["sm_90", "sm_100a", "compute_120"], "cpu"),
        (["gfx906", "gfx1030"], "cuda"),  # AMD's
    ],
)
def test_auto_takes_the_first_gpu_that_this_build_of_pytorch_has_kernels_for(
    monkeypatch: pytest.MonkeyPatch, built: list[str], chosen: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device() == torch.device(chosen)


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_without_kernels_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90"])
    with pytest.raises(ValueError, match=r"'cuda:1' has the compute capability 8\.6.*install a build"):
        choose_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_90"])
    with pytest.raises(ValueError, match=r"'cuda' has the compute capability 6\.1.*give cpu"):
        choose_device("cuda")


def test_single_precision_is_not_tf32_and_others_keep_their_setting() -> None:
    places = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [place.allow_tf32 for place in places]
    try:
        for place in places:
            place.allow_tf32 = True
        with full_precision():
            assert [place.allow_tf32 for place in places] == [False, False]
        assert [place.allow_tf32 for place in places] == [True, True]
    finally:
        for place, setting in zip(places, before, strict=True):
            place.allow_tf32 = setting


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.88 GB, max allowed: 9.07 GB)."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError("Unable to find an engine to execute this computation"),
    ],
)
def test_a_full_device_is_recognized_by_whatever_it_says(error: RuntimeError) -> None:
    assert out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("device-side assert triggered"), ValueError("out of memory")])
def test_other_errors_are_not_taken_for_a_full_device(error: Exception) -> None:
    assert not out_of_memory(error)


def test_memory_that_pytorch_keeps_for_later_is_free_and_what_tensors_hold_is_not(monkeypatch):
    kept = {"reserved_bytes": {"all": {"current": 500}}, "allocated_bytes": {"all": {"current": 200}}}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 8000))
    monkeypatch.setattr(torch.cuda, "memory_stats_as_nested_dict", lambda device: kept)
    assert free_memory(torch.device("cuda", 0)) == 1300


def test_more_processes_than_gpus_are_refused_before_they_meet(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: [])
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ValueError, match="The device 'cuda:1' is not there"), joined("cuda"):
        pass
