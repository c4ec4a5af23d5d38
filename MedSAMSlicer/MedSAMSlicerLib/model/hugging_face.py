"""Parameter names of Hugging Face's SamModel, translated to SAM's own."""

from __future__ import annotations

import re

import torch
from torch import Tensor

# Patterns and what replaces them, each applied to what the ones before have made of a name.
_TRANSLATIONS = {
    # The frequencies of the positional encoding are in SamModel twice, as one shared parameter.
    r"^shared_image_embedding\.": "prompt_encoder.shared_embedding.",
    r"\.shared_embedding\.positional_embedding$": ".pe_layer.positional_encoding_gaussian_matrix",
    r"\.point_embed\.": ".point_embeddings.",
    r"\.mask_embed\.conv1\.": ".mask_downscaling.0.",
    r"\.mask_embed\.layer_norm1\.": ".mask_downscaling.1.",
    r"\.mask_embed\.conv2\.": ".mask_downscaling.3.",
    r"\.mask_embed\.layer_norm2\.": ".mask_downscaling.4.",
    r"\.mask_embed\.conv3\.": ".mask_downscaling.6.",
    r"^vision_encoder\.layers\.": "image_encoder.blocks.",
    r"^vision_encoder\.": "image_encoder.",
    r"\.patch_embed\.projection\.": ".patch_embed.proj.",
    r"\.neck\.conv1\.": ".neck.0.",
    r"\.neck\.layer_norm1\.": ".neck.1.",
    r"\.neck\.conv2\.": ".neck.2.",
    r"\.neck\.layer_norm2\.": ".neck.3.",
    r"\.upscale_conv1\.": ".output_upscaling.0.",
    r"\.upscale_layer_norm\.": ".output_upscaling.1.",
    r"\.upscale_conv2\.": ".output_upscaling.3.",
    r"(mlps\.\d|_head)\.layers\.0\.": r"\1.layers.1.",
    r"(mlps\.\d|_head)\.proj_in\.": r"\1.layers.0.",
    r"(mlps\.\d|_head)\.proj_out\.": r"\1.layers.2.",
    r"\.layer_norm_final_attn\.": ".norm_final_attn.",
    r"\.layer_norm(\d)\.": r".norm\1.",
}


def is_hugging_face(state: dict[str, Tensor]) -> bool:
    """Tell whether a state dict is SamModel's."""
    return any(name.startswith("vision_encoder.") for name in state)


def from_hugging_face(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the parameters of a SamModel (transformers, models/sam/modeling_sam.py).

    :raises ValueError: if the positional encoding, which SamModel holds twice, differs.
    """
    translated: dict[str, Tensor] = {}
    for name, tensor in state.items():
        for pattern, replacement in _TRANSLATIONS.items():
            name = re.sub(pattern, replacement, name)
        if name in translated and not torch.equal(translated[name], tensor):
            raise ValueError("not usable: its two positional encodings, of the image and of the prompts, differ")
        translated[name] = tensor
    return translated
