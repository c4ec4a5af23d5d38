"""What a user waits for, one after the other: the model, a slice, the first mask, a box, another one, a correction.

The volume is made up, the embeddings are kept in a cache of its own, and nothing is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch

from MedSAMSlicerLib.benchmark.figures import Figures
from MedSAMSlicerLib.benchmark.machine import device_name, matrix_rate, peak_mebibytes, wait
from MedSAMSlicerLib.benchmark.phantom import SPACING, Phantom
from MedSAMSlicerLib.loading import find_weights, load_predictor, predictor_of
from MedSAMSlicerLib.model import build_model
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.store.catalog import weights_named
from MedSAMSlicerLib.store.weights import WeightsMissing, WeightsStore
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.segmentation import segment_structure
from MedSAMSlicerLib.volume.slice_masks import SliceMask
from MedSAMSlicerLib.volume.slice_stack import SliceStack

if TYPE_CHECKING:
    from MedSAMSlicerLib.inference.predictor import Predictor

_ENCODINGS = 5
_SHIFT = 12.0
# How many parts of the course are told apart in its progress.
PARTS = 7

Report = Callable[[int, str], object]
"""Called with how many parts are done and what comes next; may raise to cancel."""


def weights_used(model: str) -> str:
    """Say which weights a measurement will take: those that are here, else random ones.

    :raises ValueError: if there is no such model.
    """
    try:
        find_weights(model, WeightsStore())
    except WeightsMissing:
        return "random weights, as the model's are not on this computer: a slice takes as long, a box longer"
    return "the model's own weights"


def run_course(phantom: Phantom, model: str, device: str, report: Report) -> Figures:
    """Measure one device.

    :param device: see `inference.device.choose_device`.
    :raises ValueError: if there is no such model or device.
    """
    report(0, "loading the model")
    start = time.perf_counter()
    predictor = _load(model, device)
    wait(predictor.device)
    loaded = time.perf_counter() - start
    _reset_peak(predictor.device)
    report(1, "multiplying matrices")
    rate = matrix_rate(predictor.device, torch.float32, rounds=3)
    report(2, "encoding slices")
    stack = SliceStack(phantom.voxels, SPACING, axis="k")
    box = Box(*map(float, (*phantom.first[:2], *phantom.last[:2])))
    encoded, decoded = _networks(predictor, stack, box)
    cache, middle = EmbeddingCache(), len(stack) // 2
    report(3, "segmenting a box: the first mask")
    first, whole, voxels = _timed(_box(stack, box, predictor, cache, middle), lambda: report(4, "segmenting a box"))
    report(5, "segmenting a second box")
    shifted = Box(box.x0 + _SHIFT, box.y0 + _SHIFT, box.x1 + _SHIFT, box.y1 + _SHIFT)
    _, second, _ = _timed(_box(stack, shifted, predictor, cache, middle))
    report(6, "correcting a slice")
    narrow = Box(box.x0 + (box.x1 - box.x0) / 8, box.y0 + (box.y1 - box.y0) / 8, box.x1, box.y1)
    key = KeySlice(stack.axis, middle, narrow)
    _, corrected, _ = _timed(segment_structure(stack, _boxes(stack, box), predictor, cache, (key,)))
    report(PARTS, "done")
    return Figures(
        device=str(predictor.device),
        name=device_name(predictor.device),
        gflops=rate / 1e9,
        model_loaded=loaded,
        slice_encoded=encoded,
        box_decoded=decoded,
        first_mask=first,
        box=whole,
        second_box=second,
        correction=corrected,
        voxels=voxels,
        process_mebibytes=peak_mebibytes(),
        gpu_mebibytes=_gpu_peak(predictor.device),
    )


def _load(model: str, device: str) -> Predictor:
    """Load a model; with random weights where those of a known one are not on this computer."""
    try:
        return load_predictor(model, device)
    except WeightsMissing:
        known = weights_named(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_model(known.architecture).eval()
    network.preprocessing = known.preprocessing
    return predictor_of(network, device)


def _networks(predictor: Predictor, stack: SliceStack, box: Box) -> tuple[float, float]:
    """Return the seconds that a slice takes in the image encoder and a box in the decoder, waiting for the device."""
    encodings, decodings = [], []
    indices = [len(stack) * number // _ENCODINGS for number in range(_ENCODINGS)]
    predictor.decode(predictor.encode(stack.image(indices[0])), [box])
    for index in indices:
        image = stack.image(index)
        start = time.perf_counter()
        embedding = predictor.encode(image)
        wait(predictor.device)
        encodings.append(time.perf_counter() - start)
        start = time.perf_counter()
        predictor.decode(embedding, [box])
        decodings.append(time.perf_counter() - start)
    return sorted(encodings)[len(encodings) // 2], sorted(decodings)[len(decodings) // 2]


def _boxes(stack: SliceStack, box: Box) -> dict[int, Box]:
    return dict.fromkeys(range(len(stack)), box)


def _box(stack: SliceStack, box: Box, predictor: Predictor, cache: EmbeddingCache, middle: int) -> Iterator[SliceMask]:
    # As the module asks: what the user looks at comes first, where the propagation lets it.
    return segment_structure(stack, _boxes(stack, box), predictor, cache, first=middle)


def _timed(masks: Iterator[SliceMask], at_first: Callable[[], object] = lambda: None) -> tuple[float, float, int]:
    """Return the seconds until the first mask and until the last one, and how many voxels were found."""
    start, first, found = time.perf_counter(), 0.0, {}
    for mask in masks:
        if not first:
            first = time.perf_counter() - start
            at_first()
        found[mask.index] = int(mask.mask.sum())
    return first, time.perf_counter() - start, sum(found.values())


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _gpu_peak(device: torch.device) -> float | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / (1 << 20)
    return torch.mps.driver_allocated_memory() / (1 << 20) if device.type == "mps" else None
