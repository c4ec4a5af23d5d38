"""SAM's mask decoder: image embedding and prompt embeddings to masks and their estimated quality."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from MedSAMSlicerLib.model.layers import GELU, LayerNorm2d, Linear
from MedSAMSlicerLib.model.transformer import TwoWayTransformer


class MaskDecoder(nn.Module):
    """Predict masks (facebookresearch/segment-anything, modeling/mask_decoder.py).

    Mask token 0 gives the single mask of an unambiguous prompt, the others its alternatives.
    """

    def __init__(self, transformer: TwoWayTransformer, dim: int = 256, num_multimask_outputs: int = 3) -> None:
        super().__init__()
        self.transformer = transformer
        num_mask_tokens = num_multimask_outputs + 1
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(num_mask_tokens, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(dim // 4),
            GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, kernel_size=2, stride=2),
            GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(dim, dim, dim // 8) for _ in range(num_mask_tokens))
        self.iou_prediction_head = MLP(dim, dim, num_mask_tokens)

    def forward(
        self, embeddings: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        """Predict the masks of N prompts.

        :param embeddings: image embeddings (N or 1, C, h, w).
        :param image_pe: their positional encoding (1, C, h, w).
        :param sparse: prompt tokens (N, T, C).
        :param dense: prompt maps, broadcastable to (N, C, h, w).
        :param multimask: give the three alternatives instead of the single mask.
        :return: logits (N, M, 4 * h, 4 * w) and estimated IoU (N, M), M = 3 or 1.
        """
        height, width = embeddings.shape[-2:]
        output_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([output_tokens.expand(len(sparse), -1, -1), sparse], dim=1)
        image_tokens = (embeddings + dense).flatten(2).transpose(1, 2)
        tokens, image_tokens = self.transformer(image_tokens, image_pe.flatten(2).transpose(1, 2), tokens)

        features = self.output_upscaling(image_tokens.transpose(1, 2).unflatten(2, (height, width)))
        masks = range(1, len(self.output_hypernetworks_mlps)) if multimask else range(1)
        weights = torch.stack([self.output_hypernetworks_mlps[mask](tokens[:, 1 + mask]) for mask in masks], dim=1)
        logits = torch.einsum("nmc,nchw->nmhw", weights, features)
        return logits, self.iou_prediction_head(tokens[:, 0])[:, masks.start : masks.stop]


class MLP(nn.Module):
    """Apply three linear layers with ReLU between them."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            itertools.starmap(Linear, itertools.pairwise([input_dim, hidden_dim, hidden_dim, output_dim]))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., input_dim) to (..., output_dim)."""
        first, second, last = self.layers
        return last(F.relu(second(F.relu(first(x)))))
