"""The file of a tuned model: its card, its figures, and the official layout for other programs."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from MedSAMSlicerLib import __version__
from MedSAMSlicerLib.dataset.case import Case
from MedSAMSlicerLib.loading import load_model
from MedSAMSlicerLib.model.checkpoint import save_atomically
from MedSAMSlicerLib.store.weights import WeightsStore
from MedSAMSlicerLib.training.recipe import Recipe


def model_card(name: str, sha256: str, recipe: Recipe, cases: Iterable[Case], slices: int) -> dict[str, Any]:
    """Tell how a model was made, without anything that tells who the patients are.

    :param name: of the base model; ``sha256`` of its file.
    :param cases: all that have a split.
    :param slices: number of labelled slices that were trained on.
    """
    cases = list(cases)
    spacing = np.array([case.spacing for case in cases]).round(2)
    return {
        "base": {"name": name, "sha256": sha256},
        "data": {
            "cases": dict(Counter(case.split for case in cases)),
            "patients": dict(Counter(split for split, _ in {(case.split, case.patient) for case in cases})),
            "labels": dict(Counter(label for case in cases for label in case.labels)),
            "modalities": dict(Counter(case.modality for case in cases)),
            "windows": dict(Counter(case.window for case in cases)),
            "spacing_mm": {"smallest": spacing.min(axis=0).tolist(), "largest": spacing.max(axis=0).tolist()},
            "training_slices": slices,
        },
        "recipe": asdict(recipe),
        "seed": recipe.seed,
        "validation": None,
        "test": None,
        "software": f"MedSAMSlicer {__version__}, PyTorch {torch.__version__}",
        "created": datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(),
    }


def publish(best: Path, output: Path, test: dict[str, Any] | None) -> None:
    """Copy the best model of a run to where the user wants it, with the figures of the test in its card."""
    content = torch.load(best, map_location="cpu", weights_only=True)
    content["metadata"]["test"] = test
    output.parent.mkdir(parents=True, exist_ok=True)
    save_atomically(content, output)


def export_official(model: str, path: Path, store: WeightsStore | None = None) -> None:
    """Write a model as the plain state dict that the official code of SAM, MedSAM and LiteMedSAM loads.

    :param model: a name or a file, see `loading.load_predictor`; an adapter is merged into its base model.
    """
    save_atomically(dict(load_model(model, store).state_dict()), path)
