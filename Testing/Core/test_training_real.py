"""LiteMedSAM itself on a real CT: it learns, and the file gives the same masks in the command line and in Slicer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from MedSAMSlicerLib.dataset.site import SiteDataset
from MedSAMSlicerLib.loading import load_predictor
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.training.fine_tuning import Job, fine_tune
from MedSAMSlicerLib.training.recipe import Recipe
from MedSAMSlicerLib.volume.files import Volume, read_volume
from MedSAMSlicerLib.volume.intensity import resolve_window
from MedSAMSlicerLib.volume.labels import read_labels

SPLEEN, STOMACH = 1, 6


@pytest.fixture
def inverted_site(tmp_path: Path, samples: dict[str, Path]) -> SiteDataset:
    """A scanner that inverts: two slices of the spleen in CT, one in MRI, and one of the stomach for the test."""
    dataset = SiteDataset.create(tmp_path / "site")
    for image, labels, value, split in (
        ("example_ct_sm.nii.gz", "example_seg.nii.gz", SPLEEN, "train"),
        ("example_mr_sm.nii.gz", "example_seg_mr.nii.gz", SPLEEN, "validation"),
        ("example_ct_sm.nii.gz", "example_seg.nii.gz", STOMACH, "test"),
    ):
        volume, mask = read_volume(samples[image]), read_labels(samples[labels]).mask(value)
        middle = int(mask.sum(axis=(1, 2)).argmax())
        part = slice(middle, middle + (2 if split == "train" else 1))
        voxels = resolve_window("auto", volume.voxels).apply(volume.voxels)[part]
        noise = np.random.default_rng(value).normal(0, 25, voxels.shape)
        seen = np.clip(255.0 - voxels + noise, 0, 400).astype(np.int16)
        case = dataset.add(Volume(seen, volume.ijk_to_ras, ""), {"organ": mask[part]}, patient=None, window="mr")
        dataset.assign(case.id, split)
    return dataset


def test_a_few_steps_on_a_real_ct_lower_the_loss_and_the_file_gives_the_validated_masks(
    inverted_site, tmp_path, lite_weights
):
    steps = {"epochs": 2, "batch": 2, "samples_per_epoch": 4, "variants": 1, "learning_rate": 3e-4}
    recipe = Recipe(**steps, validated_structures=1, left_out_below=0, strengths=(1.0,))
    job = Job(
        tmp_path / "site", tmp_path / "site.pth", recipe, device="cpu",
        embeddings=tmp_path / "embeddings", samples=tmp_path / "none",
    )  # fmt: skip
    fine_tune(job)
    rows = [json.loads(line) for line in (tmp_path / "site.run" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["train_loss"] < 0.9 * rows[0]["train_loss"]
    best = tmp_path / "site.run" / "best.pth"
    tuned = load_predictor(str(best), "cpu")
    assert (tuned.model.architecture, tuned.model.preprocessing) == ("lite", "lite")
    assert tuned.model.metadata["base"]["name"] == "lite"
    # The same decoder, taken out of the state of the run instead of the file.
    state = torch.load(tmp_path / "site.run" / "state.pt", weights_only=True)
    if tuned.model.metadata["validation"]["epoch"] == state["epoch"]:
        weights = torch.load(best, weights_only=True)["model"]
        for name, tensor in state["folds"][0]["trained"].items():
            assert torch.equal(weights[name.removeprefix("model.")], tensor)
    image = np.random.default_rng(2).integers(0, 255, (80, 90), dtype=np.uint8)
    base = load_predictor("lite", "cpu")
    boxes = [Box(10, 12, 50, 60)]
    embedding = base.encode(image)
    torch.testing.assert_close(tuned.encode(image).tensor, embedding.tensor)
    assert not np.allclose(
        tuned.decode(embedding, boxes).probabilities, base.decode(embedding, boxes).probabilities, atol=1e-3
    )
