"""Measure what a GPU does for a box and for training, and where the host keeps it waiting.

The made-up CT of the command ``bench``; random weights where a model's are not here. Prints how long slices and boxes
take in batches and what memory they need, a box through all slices with and without encoding ahead, and a step of
training at every depth, each with the share of the time in which the GPU computes. In the environment of the tests:

    python Testing/Benchmarks/gpu.py [--model lite vit_b] [--device cuda] [--slices 30]
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "MedSAMSlicer")]

from Benchmarks.machine import describe
from Benchmarks.training import model_named, outlines_of
from MedSAMSlicerLib.benchmark.machine import seconds, wait
from MedSAMSlicerLib.benchmark.phantom import SPACING, phantom
from MedSAMSlicerLib.inference import predictor as predictor_module
from MedSAMSlicerLib.inference.predictor import Predictor
from MedSAMSlicerLib.loading import predictor_of
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.training.distributed import Team
from MedSAMSlicerLib.training.embeddings import StoredEmbeddings
from MedSAMSlicerLib.training.loop import Loop
from MedSAMSlicerLib.training.recipe import DEPTHS, Recipe
from MedSAMSlicerLib.training.samples import Samples
from MedSAMSlicerLib.training.trainee import Trainee
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.segmentation import segment_structure
from MedSAMSlicerLib.volume.slice_stack import SliceStack

# Samples of an epoch whose steps are timed.
_SAMPLES = 32


def peak_memory(function: Callable[[], object], device: torch.device) -> float:
    """Return the MiB that a function takes beside what is there; not a number on another device than a GPU."""
    if device.type != "cuda":
        return float("nan")
    function()
    wait(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    function()
    wait(device)
    return (torch.cuda.max_memory_allocated(device) - before) / (1 << 20)


def busy_share(function: Callable[[], object], device: torch.device) -> tuple[float, int, float]:
    """Return the share of the time in which the GPU computes, the number of its kernels, and the seconds.

    The profiler costs time of its own, so the share is of the time without it.
    """
    function()
    wait(device)
    start = time.perf_counter()
    function()
    wait(device)
    taken = time.perf_counter() - start
    if device.type != "cuda":
        return float("nan"), 0, taken
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        function()
        wait(device)
    events = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return sum(event.device_time for event in events) * 1e-6 / taken, len(events), taken


def measure_batches(predictor: Predictor, images: list[np.ndarray], box: Box) -> None:
    """Print what slices and boxes take, by the number of them at a time."""
    device = predictor.device
    for count in (1, 2, 4, 8, 16):
        batch = images[:count]
        best, *_, worst = seconds(lambda batch=batch: predictor.encode_all(batch), device)
        memory = peak_memory(lambda batch=batch: predictor.encode_all(batch), device) / count
        share, kernels, _ = busy_share(lambda batch=batch: predictor.encode_all(batch), device)
        print(
            f"slices encoded, {count:2} at a time: {1000 * best / count:6.2f} ms each (at worst "
            f"{1000 * worst / count:.2f}), {memory:.0f} MiB each, {kernels} kernels, GPU busy {share:.0%}"
        )
    embedding = predictor.encode(images[0])
    window = np.s_[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)]
    for count in (1, 4, 9, 64, 128):
        boxes = [Box(box.x0 + each % 7, box.y0, box.x1, box.y1) for each in range(count)]
        best, *_ = seconds(lambda boxes=boxes: predictor.decode(embedding, boxes, window), device)
        memory = peak_memory(lambda boxes=boxes: predictor.decode(embedding, boxes, window), device) / count
        share, kernels, _ = busy_share(lambda boxes=boxes: predictor.decode(embedding, boxes, window), device)
        print(
            f"boxes decoded, {count:3} at a time: {1000 * best:6.2f} ms in all, {memory:.0f} MiB each, {kernels} "
            f"kernels, GPU busy {share:.0%}",
            flush=True,
        )


def measure_box(predictor: Predictor, stack: SliceStack, box: Box) -> None:
    """Print what a box through all slices takes, by the number of slices that are encoded ahead."""
    usual = predictor_module._AHEAD
    for ahead in (0, 2, 4, 8):
        predictor_module._AHEAD = ahead

        def segment(box: Box = box, cache: EmbeddingCache | None = None) -> float:
            start, first = time.perf_counter(), 0.0
            cache = EmbeddingCache() if cache is None else cache
            for _ in segment_structure(stack, dict.fromkeys(range(len(stack)), box), predictor, cache):
                first = first or time.perf_counter() - start
            return first

        share, kernels, whole = busy_share(segment, predictor.device)
        cache = EmbeddingCache()
        first = segment(cache=cache)
        start = time.perf_counter()
        segment(Box(box.x0 + 12, box.y0 + 12, box.x1 + 12, box.y1 + 12), cache)
        second = time.perf_counter() - start
        print(
            f"{len(stack)} slices, {ahead} encoded ahead: first mask {1000 * first:.0f} ms, all {whole:.2f} s, another "
            f"box {second:.2f} s, {kernels} kernels, GPU busy {share:.0%}",
            flush=True,
        )
    predictor_module._AHEAD = usual


def measure_training(name: str, device: torch.device) -> None:
    """Print what a sample of training takes at every depth."""
    base = model_named(name)
    for depth in DEPTHS:
        recipe = Recipe.of_depth(depth, variants=1, slices_per_structure=0)
        samples = Samples(outlines_of(_SAMPLES), recipe)
        trainee = Trainee(copy.deepcopy(base), recipe, "base", "")
        with tempfile.TemporaryDirectory() as folder:
            embeddings = None
            if trainee.from_embeddings:
                embeddings = StoredEmbeddings(Path(folder), Predictor(copy.deepcopy(base), device=str(device)))
                for outline in samples.outlines.all:
                    embeddings.keep(samples.image(samples.draw(0, 0, outline)))
            loop = Loop(
                trainee, [samples], None, Team(0, 1, device), embeddings=embeddings, workers=0,
                tell=lambda progress: None, keep=lambda *arguments: None,
            )  # fmt: skip

            def epoch(loop: Loop = loop) -> float:
                return loop._train_epoch(0)

            memory = peak_memory(epoch, device)
            share, kernels, whole = busy_share(epoch, device)
        each = 1000 * whole / _SAMPLES
        print(
            f"training, {depth}: {each:.1f} ms a sample, batch {recipe.batch}, {memory:.0f} MiB beside the model, "
            f"{kernels * recipe.batch // _SAMPLES} kernels a step, GPU busy {share:.0%}",
            flush=True,
        )


def main() -> None:
    """Print what is measured, model by model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="+", default=["lite", "vit_b"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--slices", type=int, default=30)
    args = parser.parse_args()
    device = torch.device(args.device)
    print(describe(device), flush=True)
    made_up = phantom(args.slices)
    stack = SliceStack(made_up.voxels, SPACING, axis="k")
    box = Box(*map(float, (*made_up.first[:2], *made_up.last[:2])))
    for name in args.model:
        predictor = predictor_of(model_named(name), args.device)
        print(f"\n{name}, encoder in {predictor.precision}")
        measure_batches(predictor, [stack.image(index) for index in range(min(16, len(stack)))], box)
        measure_box(predictor, stack, box)
        measure_training(name, device)


if __name__ == "__main__":
    main()
