"""Measure an epoch of fine-tuning and its memory: ours by depth, against the recipe of MedSAM's train_one_gpu.py.

The same made-up slices, samples, steps and weights for all; each way runs in a process of its own. The official recipe
is restated on our model code, which computes what the official classes do (see `reference_agreement.py`): the slice
goes through the image encoder in every step, with gradients or, frozen, without; Dice + cross-entropy on the model's
grid; AdamW. In the environment of the tests:

    python Testing/Benchmarks/training.py [--model lite vit_b] [--samples 8] [--threads 1]

Times are of the processor, which other programs on the machine change little; the memory is the process's peak.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "MedSAMSlicer")]

from MedSAMSlicerLib.dataset.case import Case, LoadedCase
from MedSAMSlicerLib.inference.predictor import Predictor
from MedSAMSlicerLib.inference.recipes import RECIPES
from MedSAMSlicerLib.loading import load_model
from MedSAMSlicerLib.model import MedSAM, build_model
from MedSAMSlicerLib.store.weights import WeightsMissing
from MedSAMSlicerLib.training.distributed import Team
from MedSAMSlicerLib.training.embeddings import StoredEmbeddings
from MedSAMSlicerLib.training.loop import Loop
from MedSAMSlicerLib.training.outlines import Outlines
from MedSAMSlicerLib.training.recipe import Recipe
from MedSAMSlicerLib.training.samples import Samples
from MedSAMSlicerLib.training.trainee import Trainee
from MedSAMSlicerLib.volume.files import Volume

WAYS = ("official", "official, encoder frozen", "decoder", "adapter", "full")
BATCH = 2


def outlines_of(count: int) -> Outlines:
    """Make as many slices of 256 x 256 pixels, each with one disk."""
    random = np.random.default_rng(1)
    voxels = random.normal(0, 30, (count, 256, 256))
    y, x = np.ogrid[:256, :256]
    disks = np.array([(y - cy) ** 2 + (x - cx) ** 2 < 30**2 for cy, cx in random.integers(60, 190, (count, 2))])
    voxels[disks] += 150
    volume = Volume(voxels.astype(np.int16), np.diag([1.0, 1.0, 3.0, 1.0]), "made up")
    case = Case(
        "case-0001", "P0001", "train", ("disk",), "full", "mr", (1.0, 1.0, 3.0), (256, 256, count), "", "", "", ""
    )
    return Outlines([LoadedCase(case, volume, {"disk": disks}, "full")])


def model_named(name: str) -> MedSAM:
    """Load the weights, or take random ones where they are not here: the time is the same."""
    try:
        return load_model(name)
    except WeightsMissing:
        return build_model(name).eval()


def official(base: MedSAM, samples: Samples, frozen: bool) -> Callable[[], object]:
    """Restate an epoch of train_one_gpu.py (bowang-lab/MedSAM, branches main and LiteMedSAM)."""
    model, preprocessing = base.train(), RECIPES[base.preprocessing](base.image_size)
    model.prompt_encoder.requires_grad_(False)
    model.image_encoder.requires_grad_(not frozen)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.01)

    def epoch() -> None:
        order = samples.of_epoch(0, BATCH)
        for start in range(0, len(order), BATCH):
            drawn = [
                samples.draw(0, position, samples.outlines.all[order[position]])
                for position in range(start, start + BATCH)
            ]
            images = torch.stack(
                [
                    preprocessing.prepare(torch.from_numpy(np.ascontiguousarray(samples.image(sample))))
                    for sample in drawn
                ]
            )
            boxes = torch.cat([preprocessing.scale_boxes([sample.box], (256, 256)) for sample in drawn])
            masks = torch.stack([torch.from_numpy(sample.mask).float() for sample in drawn])[:, None]
            with torch.set_grad_enabled(not frozen):
                embeddings = model.encode(images)
            logits, _ = model.decode(embeddings, boxes)
            if base.architecture != "lite":
                logits = F.interpolate(logits, base.image_size, mode="bilinear", align_corners=False)
            masks = F.interpolate(masks, logits.shape[-2:])
            found = logits.sigmoid()
            dice = 1 - 2 * (found * masks).sum((1, 2, 3)) / ((found**2).sum((1, 2, 3)) + (masks**2).sum((1, 2, 3)))
            loss = dice.mean() + F.binary_cross_entropy_with_logits(logits, masks)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return epoch


def ours(base: MedSAM, samples: Samples, folder: Path) -> Callable[[], object]:
    """Prepare an epoch of `training.loop`, without the validation."""
    trainee = Trainee(base, samples.recipe, "base", "")
    embeddings = None
    if trainee.from_embeddings:
        embeddings = StoredEmbeddings(folder, Predictor(copy.deepcopy(base), device="cpu"))
        for outline in samples.outlines.all:
            embeddings.keep(samples.image(samples.draw(0, 0, outline)))
    team = Team(0, 1, torch.device("cpu"))
    loop = Loop(
        trainee, [samples], None, team, embeddings=embeddings, workers=0,
        tell=lambda progress: None, keep=lambda *arguments: None,
    )  # fmt: skip
    return lambda: loop._train_epoch(0)


def measure(way: str, name: str, count: int) -> dict[str, float]:
    """Run an epoch twice and time the second one."""
    depth = way if way in ("decoder", "adapter", "full") else "decoder"
    samples = Samples(outlines_of(count), Recipe.of_depth(depth, batch=BATCH, variants=1))
    base = model_named(name)
    with tempfile.TemporaryDirectory() as folder:
        before = time.process_time()
        if way.startswith("official"):
            epoch = official(base, samples, frozen="frozen" in way)
        else:
            epoch = ours(base, samples, Path(folder))
        prepared = time.process_time() - before
        if name == "lite":
            epoch()
        start, wall = time.process_time(), time.perf_counter()
        epoch()
        seconds, wall = time.process_time() - start, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"prepared": prepared, "seconds": seconds, "wall": wall, "peak": peak}


def main() -> None:
    """Print a row per model and way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="+", default=["lite"], choices=("lite", "vit_b"))
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--way", choices=WAYS, help="measure only this one, and print JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.way:
        print(json.dumps(measure(args.way, args.model[0], args.samples)))
        return
    print("model  way                       prepared, s  processor, s  per sample, s  wall, s  peak, MiB  times faster")
    for name in args.model:
        first = 0.0
        for way in WAYS:
            command = [sys.executable, __file__, "--way", way, "--model", name]
            command += ["--samples", str(args.samples), "--threads", str(args.threads)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            first = first or found["seconds"]
            each = found["seconds"] / args.samples
            print(
                f"{name:5}  {way:24}  {found['prepared']:11.1f}  {found['seconds']:12.1f}  {each:13.2f}  "
                f"{found['wall']:7.1f}  {found['peak']:9.0f}  {first / found['seconds']:12.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
