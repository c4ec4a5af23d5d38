"""A site whose cases are made up, and a small base model that finds nothing: fast enough to train in a test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from MedSAMSlicerLib.dataset.site import SiteDataset
from MedSAMSlicerLib.model import build_model, save_checkpoint
from MedSAMSlicerLib.training.fine_tuning import Job
from MedSAMSlicerLib.training.recipe import Recipe
from MedSAMSlicerLib.volume.files import Volume

SPLITS = ("train", "train", "validation", "test")


def made_up_site(folder: Path, splits: tuple[str, ...] = SPLITS) -> SiteDataset:
    """Make a dataset of small volumes with two blocks that nearly fill them, one patient each.

    So large that a model has learned something after a few steps.
    """
    dataset = SiteDataset.create(folder)
    for number, split in enumerate(splits):
        random = np.random.default_rng(number)
        voxels = random.normal(0, 30, (3, 40, 48))
        bright, inner = np.zeros((2, 3, 40, 48), dtype=bool)
        row, column = random.integers(0, 4, 2)
        bright[1:3, row : row + 36, column : column + 44] = True
        inner[0:2, row + 3 : row + 33, column + 4 : column + 40] = True
        voxels[bright] += 150
        voxels[inner] += 100
        volume = Volume(voxels.astype(np.int16), np.diag([1.0, 1.0, 3.0, 1.0]), f"Doe^John{number}")
        case = dataset.add(volume, {"bright": bright, "inner": inner}, patient=None, window="full")
        dataset.assign(case.id, split)
    return dataset


def blind_base(path: Path) -> Path:
    """Save a tiny model whose masks are all empty, so that whatever is learned is better."""
    model = build_model("tiny")
    with torch.no_grad():
        model.mask_decoder.output_hypernetworks_mlps[0].layers[2].weight.zero_()
        model.mask_decoder.output_hypernetworks_mlps[0].layers[2].bias.zero_()
    save_checkpoint(model, path)
    return path


def job_in(folder: Path, depth: str = "decoder", **changes: object) -> Job:
    """Ask for a short run on a made-up site in a folder; both are made where they are missing."""
    if not (folder / "site").exists():
        made_up_site(folder / "site")
        blind_base(folder / "base.pth")
    settings = {"epochs": 2, "batch": 4, "learning_rate": 1e-3, "variants": 2, "validated_structures": 1, **changes}
    recipe = Recipe.of_depth(depth, **settings)
    nowhere = folder / "no samples"
    return Job(
        folder / "site", folder / "tuned.pth", recipe, base=str(folder / "base.pth"), device="cpu",
        embeddings=folder / "embeddings", samples=nowhere,
    )  # fmt: skip
