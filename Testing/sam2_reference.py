"""SAM 2.1 as transformers has it, with random weights: what our MedSAM2 is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from MedSAMSlicerLib.model.hugging_face import from_hugging_face

if TYPE_CHECKING:
    from transformers import Sam2HieraDetConfig

# What transformers calls the sizes of our architectures: channels, heads, blocks, global blocks, windows, background.
SIZES = {
    "medsam2": (512, 96, 1, (1, 2, 7, 2), (5, 7, 9), (8, 4, 14, 7), 7),
    "sam2_tiny": (1024, 96, 1, (1, 2, 7, 2), (5, 7, 9), (8, 4, 14, 7), 7),
    "sam2_small": (1024, 96, 1, (1, 2, 11, 2), (7, 10, 13), (8, 4, 14, 7), 7),
    "sam2_base_plus": (1024, 112, 2, (2, 3, 16, 3), (12, 16, 20), (8, 4, 14, 7), 14),
    "sam2_large": (1024, 144, 2, (2, 6, 36, 4), (23, 33, 43), (8, 4, 16, 8), 7),
    "tiny_medsam2": (128, 8, 1, (1, 1, 2, 1), (3,), (8, 4, 6, 3), 3),
}


def with_random_weights(model: nn.Module, seed: int = 0) -> nn.Module:
    """Make every parameter matter: some start at zero, and ConvNeXt's blocks at nearly nothing."""
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in model.named_parameters():
            if "gamma" in name or "pos_" in name or name.count(".") == 0:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def sam2_video(architecture: str, image_size: int | None = None) -> nn.Module:
    """Build transformers' Sam2VideoModel as large as one of our architectures, or for images of another size."""
    from transformers import Sam2VideoConfig, Sam2VideoModel, Sam2VisionConfig

    backbone = sam2_backbone(architecture)
    size = image_size or SIZES[architecture][0]
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=backbone.embed_dim_per_stage[::-1],
        backbone_feature_sizes=[[size // stride] * 2 for stride in (4, 8, 16)],
    )
    config = Sam2VideoConfig(
        vision_config=vision,
        image_size=size,
        prompt_encoder_config={"image_size": size},
        memory_attention_rope_feat_sizes=[size // 16] * 2,
    )
    return Sam2VideoModel(config).eval()


def sam2_backbone(architecture: str) -> Sam2HieraDetConfig:
    """Say what transformers calls the trunk of one of our architectures."""
    from transformers import Sam2HieraDetConfig

    _, dim, heads, depths, full, windows, background = SIZES[architecture]
    return Sam2HieraDetConfig(
        hidden_size=dim,
        embed_dim_per_stage=[dim << stage for stage in range(4)],
        num_attention_heads_per_stage=[heads << stage for stage in range(4)],
        blocks_per_stage=list(depths),
        global_attention_blocks=list(full),
        window_size_per_stage=list(windows),
        window_positional_embedding_background_size=[background, background],
    )


def load_official(reference: nn.Module, state: dict[str, Tensor]) -> None:
    """Load a state dict in the official names into transformers' model, all of it.

    Names that we translate wrongly would end up at the wrong place, and the results differ.
    """
    loaded = {}
    for name, tensor in reference.state_dict().items():
        mark = "vision_encoder.backbone.pos_embed"
        names = [*from_hugging_face({mark: tensor} | {name: tensor})]
        loaded[name] = torch.cat([state[each] for each in (names if name == mark else names[1:])])
    assert {*loaded} == {*reference.state_dict()}
    reference.load_state_dict(loaded)


def track(
    reference: nn.Module, slices: Tensor, start: int, box: Tensor, reverse: bool
) -> tuple[dict[int, Tensor], dict[int, tuple[Tensor, Tensor]]]:
    """Follow what a box points out with transformers' model, from one slice to the first or the last.

    :param slices: preprocessed, (D, 3, S, S).
    :param box: (4,) in pixels of these.
    :return: slice -> logits (1, 1, S / 4, S / 4), and slice -> memory (T, 1, 64) in bfloat16 and pointer (1, 1, 256).
    """
    from transformers import Sam2VideoInferenceSession

    height, width = slices.shape[2:]
    session = Sam2VideoInferenceSession(slices, video_height=height, video_width=width, dtype=torch.float32)
    number = session.obj_id_to_idx(1)
    points = {"point_coords": box.view(1, 1, 2, 2), "point_labels": torch.tensor([[[2, 3]]])}
    session.add_point_inputs(number, start, points)
    session.obj_with_new_inputs = [1]
    logits = {start: reference(session, frame_idx=start).pred_masks}
    for found in reference.propagate_in_video_iterator(session, start_frame_idx=start, reverse=reverse):
        logits[found.frame_idx] = found.pred_masks
    outputs = session.output_dict_per_obj[number]
    kept = outputs["cond_frame_outputs"] | outputs["non_cond_frame_outputs"]
    return logits, {i: (output["maskmem_features"], output["object_pointer"]) for i, output in kept.items()}
