"""The smallest network that remembers slices, with random weights that find something nearly everywhere."""

from __future__ import annotations

from pathlib import Path

import torch

from MedSAMSlicerLib.inference.tracking_predictor import TrackingPredictor
from MedSAMSlicerLib.model import build_model, save_checkpoint
from MedSAMSlicerLib.model.network import Network
from sam2_reference import with_random_weights


def tiny_network() -> Network:
    """Build it, not prepared for inference."""
    model = with_random_weights(build_model("tiny_medsam2"))
    with torch.no_grad():
        model.sam_mask_decoder.pred_obj_score_head.layers[2].bias += 2
    return model


def tiny_tracker() -> TrackingPredictor:
    """Make a predictor of it."""
    return TrackingPredictor(tiny_network(), device="cpu")


def tiny_file(path: Path) -> Path:
    """Write it to a file, as users have models."""
    save_checkpoint(tiny_network(), path)
    return path
