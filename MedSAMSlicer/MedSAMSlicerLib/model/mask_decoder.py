"""SAM's mask decoder: image embedding and prompt embeddings to masks and their estimated quality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from MedSAMSlicerLib.model.layers import GELU, MLP, linear
from MedSAMSlicerLib.model.transformer import TwoWayTransformer

Window = tuple[slice, slice]


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
            Doubling(dim, dim // 4), nn.LayerNorm(dim // 4, eps=1e-6), GELU(), Doubling(dim // 4, dim // 8), GELU()
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            MLP([dim, dim, dim, dim // 8], "relu") for _ in range(num_mask_tokens)
        )
        self.iou_prediction_head = MLP([dim, dim, dim, num_mask_tokens], "relu")

    def forward(
        self,
        embeddings: Tensor,
        image_pe: Tensor,
        sparse: Tensor,
        dense: Tensor,
        multimask: bool,
        window: Window | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Predict the masks of N prompts.

        :param embeddings: image embeddings (N or 1, C, h, w).
        :param image_pe: their positional encoding (1, C, h, w).
        :param sparse: prompt tokens (N, T, C).
        :param dense: prompt maps, broadcastable to (N, C, h, w).
        :param multimask: give the three alternatives instead of the single mask.
        :param window: rows and columns of the embedding to which the masks are confined, None for all; in it they are
            the same.
        :return: logits (N, M, 4 * h, 4 * w), h and w of the window, and estimated IoU (N, M), M = 3 or 1.
        """
        output_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens, parts = self._attend(embeddings + dense, image_pe, output_tokens, sparse)
        masks = range(1, len(self.output_hypernetworks_mlps)) if multimask else range(1)
        weights = self._weights(tokens[:, 1:], masks).chunk(len(parts))
        rows, columns = window or (slice(None), slice(None))
        maps = (part.unflatten(1, embeddings.shape[-2:])[:, rows, columns] for part in parts)
        drawn = [
            draw(self.output_upscaling(part.flatten(1, 2)), weight, (part.shape[1], part.shape[2]))
            for part, weight in zip(maps, weights, strict=True)
        ]
        return torch.cat(drawn), self.iou_prediction_head(tokens[:, 0])[:, masks.start : masks.stop]

    def _attend(
        self, image: Tensor, image_pe: Tensor, output_tokens: Tensor, sparse: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Let output tokens (O, C), prompts (N, T, C) and an image (N or 1, C, h, w) attend to each other.

        :return: tokens (N, O + T, C), and the image's in parts (n, h * w, C).
        """
        tokens = torch.cat([output_tokens.expand(len(sparse), -1, -1), sparse], dim=1)
        return self.transformer(image.flatten(2).transpose(1, 2), image_pe.flatten(2).transpose(1, 2), tokens)

    def _weights(self, mask_tokens: Tensor, masks: Sequence[int]) -> Tensor:
        """Turn the tokens of masks (N, 4, C) into weights of the features, of some of the masks: (N, M, C / 8)."""
        return torch.stack([self.output_hypernetworks_mlps[mask](mask_tokens[:, mask]) for mask in masks], dim=1)


def draw(features: Tensor, weights: Tensor, size: tuple[int, int]) -> Tensor:
    """Weigh the channels of enlarged image tokens by (n, M, C): logits (n, M, 4 * h, 4 * w).

    :param features: (n, h * w * 16, C), twice the four quarters of every pixel one after the other.
    :param size: (h, w).
    """
    height, width = size
    logits = (weights @ features.transpose(1, 2)).unflatten(2, (height, width, 2, 2, 2, 2))
    return logits.permute(0, 1, 2, 4, 6, 3, 5, 7).reshape(*logits.shape[:2], 4 * height, 4 * width)


class Doubling(nn.ConvTranspose2d):
    """Make four pixels of every pixel: a transposed convolution whose kernel is as wide as its stride, 2.

    Every pixel gives its own four, so that no map is needed.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=2, stride=2)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Map pixels (N, P, in_channels) to (N, 4 * P, out_channels): upper left, upper right, lower left and right."""
        weight = self.weight.permute(2, 3, 1, 0).flatten(0, 2)
        return linear(x, weight, cast(Tensor, self.bias).repeat(4)).unflatten(2, (4, -1)).flatten(1, 2)
