"""SAM 2's image trunk: a vision transformer of four stages, each with half the resolution and twice the channels."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from MedSAMSlicerLib.model.layers import (
    MLP,
    STRIP,
    Linear,
    by_rows,
    join_windows,
    linear,
    partition_windows,
)


class Hiera(nn.Module):
    """Turn images into maps of four resolutions (Ryali et al., "Hiera", ICML 2023).

    Reference: facebookresearch/sam2, modeling/backbones/hieradet.py. Maps are kept channels-last in memory, so that a
    map (B, C, H, W) and tokens (B, H, W, C) are two views of one tensor.

    :param dim: channels of the first stage; they and the heads double from stage to stage.
    :param depths: blocks of every stage.
    :param global_blocks: indices of the blocks that attend to the whole map; the others attend to their window.
    :param window_sizes: side of the windows of every stage; the first block of a stage still has the one before.
    :param background: side of the coarse map of positions, which is enlarged and to which those in a window are added.
    """

    kept_positions: Tensor | None

    def __init__(
        self,
        dim: int,
        num_heads: int,
        depths: Sequence[int],
        global_blocks: Collection[int],
        window_sizes: Sequence[int] = (8, 4, 14, 7),
        background: int = 7,
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, dim, background, background))
        self.pos_embed_window = nn.Parameter(torch.zeros(1, dim, window_sizes[0], window_sizes[0]))
        self.stage_ends = [end - 1 for end in itertools.accumulate(depths)]
        self.dims = [dim << stage for stage in range(len(depths))]
        self.blocks = nn.ModuleList()
        for stage, depth in enumerate(depths):
            for number in range(depth):
                starts = stage > 0 and number == 0
                window_size = window_sizes[stage - 1] if starts else window_sizes[stage]
                self.blocks.append(
                    Block(
                        self.dims[stage - 1] if starts else self.dims[stage],
                        self.dims[stage],
                        num_heads << stage,
                        window_size=0 if len(self.blocks) in global_blocks else window_size,
                        pool=starts,
                    )
                )
        self.register_buffer("kept_positions", None, persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Turn images (B, 3, S, S) into maps (B, C, S / 4, S / 4), (B, 2 * C, S / 8, S / 8), … of every stage."""
        x = self.patch_embed(images.contiguous(memory_format=torch.channels_last))
        x = x + self.positions(x.shape[2])
        maps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.stage_ends:
                maps.append(x)
        return maps

    def positions(self, side: int) -> Tensor:
        """Return the embedding of positions, (1, C, side, side)."""
        if self.kept_positions is not None:
            return self.kept_positions
        coarse = F.interpolate(self.pos_embed, size=(side, side), mode="bicubic")
        times = side // self.pos_embed_window.shape[-1]
        return coarse + self.pos_embed_window.tile(1, 1, times, times)

    def keep_positions(self, side: int) -> None:
        """Compute the embedding of positions once and for all."""
        self.kept_positions = self.positions(side).contiguous(memory_format=torch.channels_last)


class PatchEmbed(nn.Module):
    """Project overlapping patches of 7 x 7 pixels, every fourth, to tokens."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=7, stride=4, padding=3)

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (B, 3, S, S) into (B, dim, S / 4, S / 4)."""
        return self.proj(images)


class Block(nn.Module):
    """Attend and transform, each with a residual connection.

    :param dim: channels of the input; the first block of a stage widens them to ``dim_out``.
    :param window_size: side of a window in tokens; 0 attends to the whole map.
    :param pool: halve the resolution.
    """

    def __init__(self, dim: int, dim_out: int, num_heads: int, window_size: int, pool: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, dim_out, num_heads, window_size, pool)
        self.norm2 = nn.LayerNorm(dim_out, eps=1e-6)
        self.mlp = MLP([dim_out, 4 * dim_out, dim_out], "gelu")
        self.proj = Linear(dim, dim_out) if dim != dim_out else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, dim, H, W) to (B, dim_out, H, W), or half of H and W."""
        window = self.attn.window_size or x.shape[2]
        x = by_rows(self._attend, x, max(STRIP // window, 1) * window, stride=2 if self.attn.pool else 1)
        return by_rows(self._transform, x)

    def _attend(self, x: Tensor) -> Tensor:
        tokens = x.permute(0, 2, 3, 1)
        normed = self.norm1(tokens)
        if self.proj is not None:
            tokens = self.proj(normed)
            tokens = pooled(tokens) if self.attn.pool else tokens
        return (tokens + self.attn(normed)).permute(0, 3, 1, 2)

    def _transform(self, x: Tensor) -> Tensor:
        tokens = x.permute(0, 2, 3, 1)
        return (tokens + self.mlp(self.norm2(tokens))).permute(0, 3, 1, 2)


class Attention(nn.Module):
    """Attend within windows; with pooling, one query stands for four tokens."""

    def __init__(self, dim: int, dim_out: int, num_heads: int, window_size: int, pool: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.pool = pool
        self.qkv = Linear(dim, 3 * dim_out)
        self.proj = Linear(dim_out, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, H, W, dim) to (B, H, W, dim_out), or half of H and W."""
        size = (x.shape[1], x.shape[2])
        window = self.window_size or size[0]
        q, k, v = self._windows(x, window).chunk(3, dim=2)
        if self.pool:
            q = pooled(q.unflatten(1, (window, window))).flatten(1, 2)
            window, size = window // 2, (size[0] // 2, size[1] // 2)
        q, k, v = (each.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for each in (q, k, v))
        x = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.proj(join_windows(x, window, size))

    def _windows(self, x: Tensor, window: int) -> Tensor:
        """Project tokens, in windows: (B * number, window**2, 3 * dim_out)."""
        if x.shape[1] % window == 0 == x.shape[2] % window:
            return self.qkv(partition_windows(x, window))
        # Windows are padded before this projection, and the padding takes part as keys. A padding token is then the
        # bias alone: adding it after the padding saves projecting the padding.
        return partition_windows(linear(x, self.qkv.weight), window) + self.qkv.bias


def pooled(tokens: Tensor) -> Tensor:
    """Take the maximum of every 2 x 2 tokens: (B, H, W, C) -> (B, H / 2, W / 2, C)."""
    tokens = torch.maximum(tokens[:, 0::2], tokens[:, 1::2])
    return torch.maximum(tokens[:, :, 0::2], tokens[:, :, 1::2])
