"""On a real NVIDIA GPU, collected only where there is one: it finds what the CPU finds, and loses nothing when full."""

from __future__ import annotations

import copy
import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from Benchmarks.cases import Case, labelled_cases
from made_up_site import job_in
from MedSAMSlicerLib.evaluation.scores import segment_label
from MedSAMSlicerLib.inference import predictor as predictor_module
from MedSAMSlicerLib.inference.enduring_predictor import EnduringPredictor
from MedSAMSlicerLib.inference.predictor import Predictor
from MedSAMSlicerLib.inference.tracking_predictor import TrackingPredictor
from MedSAMSlicerLib.loading import load_predictor
from MedSAMSlicerLib.model import build_model
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.training.fine_tuning import Job, fine_tune
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.segmentation import segment_structure
from MedSAMSlicerLib.volume.slice_masks import collect
from MedSAMSlicerLib.volume.slice_stack import SliceStack
from sam2_reference import with_random_weights

SOURCES = Path(__file__).parents[2] / "MedSAMSlicer"
NAMES = ("CT spleen", "CT right kidney", "MRI liver", "MRI left kidney")


@pytest.fixture(scope="module")
def cases(samples: dict[str, Path]) -> dict[str, Case]:
    return {case.name: case for case in labelled_cases() if case.name in NAMES}


@pytest.fixture(scope="module")
def on_cpu(lite_weights: Path) -> Predictor:
    return load_predictor(str(lite_weights), "cpu")


@pytest.fixture(scope="module")
def on_gpu(lite_weights: Path) -> Predictor:
    return load_predictor(str(lite_weights), "cuda")


@pytest.fixture
def little_memory() -> Iterator[Callable[..., None]]:
    """Allow this process what it has of the card and as many bytes more; by default too few to encode a slice."""

    def leave(more: int = 8 << 20) -> None:
        gc.collect()
        torch.cuda.empty_cache()
        allowed = torch.cuda.memory_reserved() + more
        torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(0).total_memory)

    yield leave
    torch.cuda.set_per_process_memory_fraction(1.0)


def stack_of(case: Case) -> SliceStack:
    return SliceStack(case.volume.voxels, case.volume.spacing, axis="k", window=case.window)


def middle_of(case: Case) -> tuple[np.ndarray, Box]:
    """Return the slice with most of a structure, as the model sees it, and the structure's box in it."""
    index = int(case.expert.sum(axis=(1, 2)).argmax())
    y, x = np.nonzero(case.expert[index])
    return stack_of(case).image(index), Box(float(x.min()), float(y.min()), float(x.max()), float(y.max()))


def segmented(case: Case, predictor: Any, cache: EmbeddingCache | None = None) -> np.ndarray:
    return segment_label(stack_of(case), case.expert, predictor, cache or EmbeddingCache(), box="tight")


def followed(case: Case, predictor: Predictor) -> np.ndarray:
    stack, index = stack_of(case), int(case.expert.sum(axis=(1, 2)).argmax())
    key = KeySlice(stack.axis, index, middle_of(case)[1])
    return collect(segment_structure(stack, {}, predictor, EmbeddingCache(), [key]), stack)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.count_nonzero(a & b) / max(np.count_nonzero(a) + np.count_nonzero(b), 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_slice_has_the_masks_of_the_cpu(name, cases, on_cpu, on_gpu):
    image, box = middle_of(cases[name])
    inner = Box(box.x0 + 5, box.y0 + 5, box.x1 - 5, box.y1 - 5)
    expected, found = (each.decode(each.encode(image), [box, inner]) for each in (on_cpu, on_gpu))
    assert np.abs(found.probabilities - expected.probabilities).max() < 0.01
    assert np.abs(found.iou - expected.iou).max() < 0.001
    assert np.count_nonzero(expected.probabilities[0] > 0.5) > 50


@pytest.mark.parametrize("name", NAMES)
def test_a_structure_is_the_one_that_the_cpu_finds_from_its_box_and_from_one_slice(name, cases, on_cpu, on_gpu):
    for segment in (segmented, followed):
        expected, found = (segment(cases[name], each) for each in (on_cpu, on_gpu))
        assert expected.sum() > 200
        assert dice(found, expected) > 0.995


def test_slices_that_are_encoded_ahead_in_batches_are_those_that_are_encoded_alone(cases, on_gpu, monkeypatch):
    expected = segmented(cases["CT spleen"], on_gpu)
    batches = []
    encode = on_gpu.encode_all
    monkeypatch.setattr(on_gpu, "encode_all", lambda images: (batches.append(len(images)), encode(images))[1])
    assert dice(segmented(cases["CT spleen"], on_gpu), expected) == 1
    assert max(batches) == 4
    monkeypatch.setattr(predictor_module, "_AHEAD", 0)
    batches.clear()
    assert dice(segmented(cases["CT spleen"], on_gpu), expected) > 0.999
    assert set(batches) == {1}


def test_embeddings_of_a_cache_hold_on_both_devices(cases, on_cpu, on_gpu):
    image, box = middle_of(cases["CT spleen"])
    for one, other in ((on_cpu, on_gpu), (on_gpu, on_cpu)):
        cache = EmbeddingCache()
        first, _ = cache.prediction(one, image, [box])
        moved = replace(box, x1=box.x1 - 1)
        second, _ = cache.prediction(other, image, [moved])
        expected, _ = EmbeddingCache().prediction(other, image, [moved])
        assert len(cache) == 1
        assert np.abs(second - expected).max() < 0.01
        assert first.any()


@pytest.mark.parametrize("name", ["vit_b", "medsam2"])
def test_half_precision_changes_an_embedding_little(name, cases):
    torch.manual_seed(0)
    network = build_model(name).eval()
    if name == "medsam2":
        with_random_weights(network)
    image, _ = middle_of(cases["CT spleen"])
    expected, single, half = (
        Predictor(copy.deepcopy(network), device=device, precision=precision).encode(image).tensor.cpu()
        for device, precision in (("cpu", "float32"), ("cuda", "float32"), ("cuda", "auto"))
    )
    assert (single - expected).norm() / expected.norm() < 1e-4
    assert 0 < (half - expected).norm() / expected.norm() < 0.03


def test_medsam2_follows_a_structure_as_on_the_cpu(cases):
    torch.manual_seed(0)
    network = with_random_weights(build_model("medsam2").eval())
    image, box = middle_of(cases["CT spleen"])
    seen = []
    for device in ("cpu", "cuda"):
        predictor = TrackingPredictor(copy.deepcopy(network), device=device, precision="float32")
        embedding = predictor.encode(image)
        step = predictor.see_box(embedding, box)
        seen.append((step, predictor.follow(embedding, [(1, step.memory)], [step.memory], 20)))
    for expected, found in zip(*seen, strict=True):
        assert np.abs(found.probability - expected.probability).max() < 0.01


def test_where_the_card_is_full_the_cpu_finishes_with_a_word_and_the_same_segment(cases, on_cpu, little_memory):
    told: list[str] = []
    cache = EmbeddingCache()
    expected = segmented(cases["CT right kidney"], on_cpu)
    predictor = EnduringPredictor(
        lambda device: on_cpu if device == "cpu" else load_predictor("lite", "cuda"), cache.clear, told.append
    )
    little_memory()
    found = segmented(cases["CT right kidney"], predictor, cache)
    assert len(told) == 1
    assert np.array_equal(found, expected)


def test_what_is_kept_on_a_full_card_is_given_up_before_the_card_is(cases, on_gpu, little_memory):
    told: list[str] = []
    cache = EmbeddingCache()
    expected = segmented(cases["CT right kidney"], on_gpu)
    kept = [torch.empty(16 << 20, dtype=torch.uint8, device="cuda") for _ in range(64)]
    predictor = EnduringPredictor(lambda device: on_gpu, lambda: (kept.clear(), cache.clear()), told.append)
    little_memory()
    assert np.array_equal(segmented(cases["CT right kidney"], predictor, cache), expected)
    assert not kept
    assert not told


@pytest.mark.parametrize("depth", ["decoder", "adapter", "full"])
def test_a_training_on_the_gpu_ends_with_a_model_that_finds_something(depth, tmp_path):
    job = replace(job_in(tmp_path, depth), device="cuda")
    outcome = fine_tune(job)
    assert outcome.output is not None, outcome.message
    assert load_predictor(str(outcome.output), "cuda").device.type == "cuda"


def launched(job: Job, processes: int) -> subprocess.CompletedProcess[str]:
    """Train as torchrun starts it, every process with a GPU of its own."""
    options = {"data": job.data, "base": job.base, "output": job.output, "embeddings": job.embeddings, "epochs": 1}
    options["device"] = "cuda"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [*launcher, "-m", "MedSAMSlicerLib.training", *(f"--{name}={value}" for name, value in options.items())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCES), *sys.path])}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_pytorchs_launcher_trains_on_every_gpu(tmp_path):
    done = launched(job_in(tmp_path), torch.cuda.device_count())
    assert done.returncode == 0, done.stderr


def test_more_processes_than_gpus_are_refused_in_a_sentence(tmp_path):
    count = torch.cuda.device_count()
    done = launched(job_in(tmp_path), count + 1)
    assert done.returncode != 0
    assert f"The device 'cuda:{count}' is not there" in done.stderr
