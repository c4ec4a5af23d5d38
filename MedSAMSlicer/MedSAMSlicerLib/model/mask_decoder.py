"""SAM's mask decoder: image embedding and prompt embeddings to masks and their estimated quality."""

from __future__ import annotations

import itertools
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from MedSAMSlicerLib.model.layers import GELU, Linear, linear
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
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(dim, dim, dim // 8) for _ in range(num_mask_tokens))
        self.iou_prediction_head = MLP(dim, dim, num_mask_tokens)

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
        size = embeddings.shape[-2:]
        output_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([output_tokens.expand(len(sparse), -1, -1), sparse], dim=1)
        image_tokens = (embeddings + dense).flatten(2).transpose(1, 2)
        tokens, parts = self.transformer(image_tokens, image_pe.flatten(2).transpose(1, 2), tokens)

        masks = range(1, len(self.output_hypernetworks_mlps)) if multimask else range(1)
        weights = torch.stack([self.output_hypernetworks_mlps[mask](tokens[:, 1 + mask]) for mask in masks], dim=1)
        rows, columns = window or (slice(None), slice(None))
        drawn = [
            self._draw(part.unflatten(1, size)[:, rows, columns], weight)
            for part, weight in zip(parts, weights.chunk(len(parts)), strict=True)
        ]
        return torch.cat(drawn), self.iou_prediction_head(tokens[:, 0])[:, masks.start : masks.stop]

    def _draw(self, image_tokens: Tensor, weights: Tensor) -> Tensor:
        """Enlarge image tokens (n, h, w, C) and weigh their channels by (n, M, C / 8): logits (n, M, 4 * h, 4 * w)."""
        _, height, width, _ = image_tokens.shape
        # Pixel by pixel, the four quarters of every pixel one after the other: (n, h * w * 16, C / 8).
        features = self.output_upscaling(image_tokens.flatten(1, 2))
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
