"""Parameter names of Hugging Face's SamModel and Sam2VideoModel, translated to SAM's and SAM 2's own."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor

Translations = dict[str, str | Callable[[re.Match[str]], str]]

# Patterns and what replaces them, each applied to what the ones before have made of a name.
_COMMON: Translations = {
    # The frequencies of the positional encoding are in these models twice, as one shared parameter.
    r"^shared_image_embedding\.": "prompt_encoder.shared_embedding.",
    r"\.shared_embedding\.positional_embedding$": ".pe_layer.positional_encoding_gaussian_matrix",
    r"\.mask_embed\.conv1\.": ".mask_downscaling.0.",
    r"\.mask_embed\.layer_norm1\.": ".mask_downscaling.1.",
    r"\.mask_embed\.conv2\.": ".mask_downscaling.3.",
    r"\.mask_embed\.layer_norm2\.": ".mask_downscaling.4.",
    r"\.mask_embed\.conv3\.": ".mask_downscaling.6.",
    r"\.patch_embed\.projection\.": ".patch_embed.proj.",
    r"\.upscale_conv1\.": ".output_upscaling.0.",
    r"\.upscale_layer_norm\.": ".output_upscaling.1.",
    r"\.upscale_conv2\.": ".output_upscaling.3.",
    r"(mlps\.\d|_head|pointer_proj)\.layers\.0\.": r"\1.layers.1.",
    r"(mlps\.\d|_head|pointer_proj)\.proj_in\.": r"\1.layers.0.",
    r"(mlps\.\d|_head|pointer_proj)\.proj_out\.": r"\1.layers.2.",
    r"\.layer_norm_final_attn\.": ".norm_final_attn.",
}
_SAM: Translations = {
    r"\.point_embed\.": ".point_embeddings.",
    r"^vision_encoder\.layers\.": "image_encoder.blocks.",
    r"^vision_encoder\.": "image_encoder.",
    r"\.neck\.conv1\.": ".neck.0.",
    r"\.neck\.layer_norm1\.": ".neck.1.",
    r"\.neck\.conv2\.": ".neck.2.",
    r"\.neck\.layer_norm2\.": ".neck.3.",
    r"\.layer_norm(\d)\.": r".norm\1.",
}
_SAM_2: Translations = {
    r"^(prompt_encoder|mask_decoder)\.": r"sam_\1.",
    r"^vision_encoder\.backbone\.": "image_encoder.trunk.",
    r"^vision_encoder\.(neck\.convs\.\d)\.": r"image_encoder.\1.conv.",
    r"\.o_proj\.": ".out_proj.",
    r"\.mlp\.proj_in\.": ".mlp.layers.0.",
    r"\.mlp\.proj_out\.": ".mlp.layers.1.",
    r"\.mask_downsampler\.layers\.(\d)\.conv\.": lambda found: f".mask_downsampler.encoder.{3 * int(found[1])}.",
    r"\.mask_downsampler\.layers\.(\d)\.layer_norm\.": lambda found: (
        f".mask_downsampler.encoder.{3 * int(found[1]) + 1}."
    ),
    r"\.mask_downsampler\.final_conv\.": ".mask_downsampler.encoder.12.",
    r"\.feature_projection\.": ".pix_feat_proj.",
    r"\.memory_fuser\.": ".fuser.",
    r"\.depthwise_conv\.": ".dwconv.",
    r"\.pointwise_conv(\d)\.": r".pwconv\1.",
    r"^(memory_encoder\.fuser\.layers\.\d)\.scale$": r"\1.gamma",
    r"^memory_encoder\.projection\.": "memory_encoder.out_proj.",
    r"\.layer_norm(\d?)\.": r".norm\1.",
    r"^object_pointer_proj\.": "obj_ptr_proj.",
    r"^temporal_positional_encoding_projection_layer\.": "obj_ptr_tpos_proj.",
    r"^memory_temporal_positional_encoding$": "maskmem_tpos_enc",
    r"^no_memory_embedding$": "no_mem_embed",
    r"^no_memory_positional_encoding$": "no_mem_pos_enc",
    r"^no_object_pointer$": "no_obj_ptr",
    r"^occlusion_spatial_embedding_parameter$": "no_obj_embed_spatial",
}
# Hugging Face keeps the four kinds of points in one table.
_POINTS = "prompt_encoder.point_embed.weight"


def is_hugging_face(state: dict[str, Tensor]) -> bool:
    """Tell whether a state dict is SamModel's or Sam2VideoModel's."""
    return any(name.startswith("vision_encoder.") for name in state)


def from_hugging_face(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the parameters of a SamModel or Sam2VideoModel (transformers, models/sam and models/sam2_video).

    :raises ValueError: if the positional encoding, which these hold twice, differs.
    """
    sam_2 = any(name.startswith("vision_encoder.backbone.") for name in state)
    translations = _COMMON | (_SAM_2 if sam_2 else _SAM)
    translated: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if sam_2 and name == _POINTS:
            for kind, row in enumerate(tensor.split(1)):
                translated[f"sam_prompt_encoder.point_embeddings.{kind}.weight"] = row
            continue
        for pattern, replacement in translations.items():
            name = re.sub(pattern, replacement, name)
        if name in translated and not torch.equal(translated[name], tensor):
            raise ValueError("not usable: its two positional encodings, of the image and of the prompts, differ")
        translated[name] = tensor
    return translated
