"""SAM's prompt encoder: boxes, points and masks to embeddings."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from MedSAMSlicerLib.model.layers import GELU, LayerNorm2d

Points = tuple[Tensor, Tensor]


class PromptEncoder(nn.Module):
    """Embed prompts (facebookresearch/segment-anything, modeling/prompt_encoder.py).

    :param image_size: side of the encoder's square input in pixels, in which boxes and points are given.
    :param embedding_size: side of the image embedding.
    """

    kept_dense_pe: Tensor | None

    def __init__(self, image_size: int, embedding_size: int, embed_dim: int = 256, mask_channels: int = 16) -> None:
        super().__init__()
        self.image_size = image_size
        self.embedding_size = embedding_size
        self.pe_layer = PositionEmbeddingRandom(embed_dim // 2)
        # Background point, foreground point, a box's first corner, its second corner.
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, embed_dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, embed_dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_channels // 4, kernel_size=2, stride=2),
            LayerNorm2d(mask_channels // 4),
            GELU(),
            nn.Conv2d(mask_channels // 4, mask_channels, kernel_size=2, stride=2),
            LayerNorm2d(mask_channels),
            GELU(),
            nn.Conv2d(mask_channels, embed_dim, kernel_size=1),
        )
        self.no_mask_embed = nn.Embedding(1, embed_dim)
        self.register_buffer("kept_dense_pe", None, persistent=False)

    def forward(self, boxes: Tensor | None, points: Points | None, masks: Tensor | None) -> tuple[Tensor, Tensor]:
        """Embed N prompts.

        :param boxes: (N, 4) as x0, y0, x1, y1 in input pixels.
        :param points: coordinates (N, P, 2) as x, y, and labels (N, P): 1 foreground, 0 background, -1 not a
            point; in SAM 2, which takes a box for two points, also 2 and 3, its corners.
        :param masks: logits (N, 1, 4 * embedding_size, 4 * embedding_size) of an earlier prediction.
        :return: sparse embeddings (N, tokens, C) and dense embeddings (N, C, embedding_size, embedding_size); without
            masks the dense ones are the same for all prompts and come as (1, C, 1, 1).
        """
        sparse = []
        if points is not None:
            # Without a box SAM was trained to see one more, empty point.
            sparse.append(self._embed_points(*points, pad=boxes is None))
        if boxes is not None:
            sparse.append(self._embed_boxes(boxes))
        if masks is None:
            dense = self.no_mask_embed.weight[:, :, None, None]
        else:
            dense = self.mask_downscaling(masks)
            sparse = sparse or [dense.new_zeros(len(masks), 0, dense.shape[1])]
        return torch.cat(sparse, dim=1), dense

    def dense_pe(self) -> Tensor:
        """Return the positional encoding of the image embedding, (1, C, embedding_size, embedding_size)."""
        if self.kept_dense_pe is not None:
            return self.kept_dense_pe
        size = self.embedding_size
        centers = (torch.arange(size, device=self.no_mask_embed.weight.device) + 0.5) / size
        y, x = torch.meshgrid(centers, centers, indexing="ij")
        return self.pe_layer(torch.stack([x, y], dim=-1)).permute(2, 0, 1)[None]

    def keep_dense_pe(self) -> None:
        """Compute the positional encoding of the image embedding once and for all."""
        self.kept_dense_pe = self.dense_pe()

    def _embed_points(self, coords: Tensor, labels: Tensor, pad: bool) -> Tensor:
        if pad:
            coords = torch.cat([coords, coords.new_zeros(len(coords), 1, 2)], dim=1)
            labels = torch.cat([labels, labels.new_full((len(labels), 1), -1)], dim=1)
        labels = labels[..., None]
        embedding = self.pe_layer((coords + 0.5) / self.image_size)
        embedding = torch.where(labels == -1, self.not_a_point_embed.weight, embedding)
        for label, weight in enumerate(self._point_weights()):
            embedding = embedding + (labels == label) * weight
        return embedding

    def _embed_boxes(self, boxes: Tensor) -> Tensor:
        corners = self.pe_layer((boxes.view(-1, 2, 2) + 0.5) / self.image_size)
        return corners + torch.cat(self._point_weights()[2:])

    def _point_weights(self) -> list[Tensor]:
        return [cast(Tensor, embedding.weight) for embedding in self.point_embeddings]


class PositionEmbeddingRandom(nn.Module):
    """Encode positions with random spatial frequencies (Tancik et al., 2020).

    :param num_features: number of frequencies, half the size of the encoding.
    """

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, num_features))

    def forward(self, positions: Tensor) -> Tensor:
        """Encode positions (..., 2) as x, y in [0, 1]: (..., 2 * num_features)."""
        phases = 2 * math.pi * ((2 * positions - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([phases.sin(), phases.cos()], dim=-1)
