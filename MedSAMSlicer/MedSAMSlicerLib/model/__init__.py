"""MedSAM and its kin as PyTorch models, and their weights on disk."""

from __future__ import annotations

from MedSAMSlicerLib.model.architectures import ARCHITECTURES, build_model
from MedSAMSlicerLib.model.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from MedSAMSlicerLib.model.medsam import MedSAM
from MedSAMSlicerLib.model.medsam2 import MedSAM2
from MedSAMSlicerLib.model.network import Network

__all__ = [
    "ARCHITECTURES",
    "CheckpointError",
    "MedSAM",
    "MedSAM2",
    "Network",
    "build_model",
    "load_checkpoint",
    "save_checkpoint",
]
