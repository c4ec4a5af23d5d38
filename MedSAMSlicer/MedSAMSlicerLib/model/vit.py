"""SAM's image encoder: a plain vision transformer (ViT-B, -L or -H) with windowed and global attention."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from MedSAMSlicerLib.model.layers import GELU, Linear, MLPBlock, Neck, join_windows, partition_windows

PATCH_SIZE = 16


class ImageEncoderViT(nn.Module):
    """Embed images with the ViTDet backbone of SAM.

    Kirillov et al., "Segment Anything", 2023 (facebookresearch/segment-anything, modeling/image_encoder.py).

    :param image_size: side of the square input in pixels, a multiple of 16.
    :param global_blocks: indices of the blocks that attend to the whole image; the others attend to their window.
    :param window_size: side of a window in patches.
    """

    def __init__(
        self,
        image_size: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        global_blocks: Collection[int],
        window_size: int,
        out_channels: int = 256,
    ) -> None:
        super().__init__()
        grid = image_size // PATCH_SIZE
        self.patch_embed = PatchEmbed(embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid, grid, embed_dim))
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, grid, 0 if index in global_blocks else window_size) for index in range(depth)
        )
        self.neck = Neck(embed_dim, out_channels)

    def forward(self, images: Tensor) -> Tensor:
        """Embed images (B, 3, S, S) as (B, out_channels, S / 16, S / 16)."""
        x = self.patch_embed(images) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.neck(x.permute(0, 3, 1, 2))


class PatchEmbed(nn.Module):
    """Project patches of 16 x 16 pixels to tokens."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, kernel_size=PATCH_SIZE, stride=PATCH_SIZE)

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (B, 3, S, S) into a token map (B, H, W, embed_dim)."""
        return self.proj(images).permute(0, 2, 3, 1)


class Block(nn.Module):
    """Attend and transform, each with a residual connection.

    :param grid: side of the token map.
    :param window_size: side of a window in tokens; 0 attends to the whole map.
    """

    def __init__(self, dim: int, num_heads: int, grid: int, window_size: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads, window_size or grid)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLPBlock(dim, 4 * dim, GELU())

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, H, W, dim) to the same shape."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Attention(nn.Module):
    """Attend within windows, with decomposed relative positions (Li et al., MViTv2, 2022).

    :param window_size: side of a window in tokens; a window as large as the map is global attention.
    """

    def __init__(self, dim: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * window_size - 1, dim // num_heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * window_size - 1, dim // num_heads))

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, H, W, dim) to the same shape."""
        size = (x.shape[1], x.shape[2])
        # SAM pads the windows at the border before this projection and lets the padding take part as keys. A padding
        # token is then the projection's bias alone: adding it after the padding saves projecting the padding.
        qkv = partition_windows(F.linear(x, self.qkv.weight), self.window_size) + self.qkv.bias
        windows, tokens, _ = qkv.shape
        q, k, v = qkv.view(windows, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        x = self._attend(q, k, v).transpose(1, 2).reshape(windows, tokens, -1)
        return self.proj(join_windows(x, self.window_size, size))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend with q, k and v of shape (B, heads, window_size**2, channels)."""
        side = self.window_size
        grid = q.unflatten(2, (side, side))
        rows = torch.einsum("bnhwc,hkc->bnhwk", grid, relative_positions(self.rel_pos_h)).flatten(2, 3)
        columns = torch.einsum("bnhwc,wkc->bnhwk", grid, relative_positions(self.rel_pos_w)).flatten(2, 3)
        # One head at a time: the bias of a single head of global attention takes 64 MiB, that of ViT-H's sixteen 1 GiB.
        heads = []
        for head in range(self.num_heads):
            part = slice(head, head + 1)
            bias = (rows[:, part, :, :, None] + columns[:, part, :, None, :]).flatten(-2)
            heads.append(F.scaled_dot_product_attention(q[:, part], k[:, part], v[:, part], attn_mask=bias))
        return torch.cat(heads, dim=1)


def relative_positions(table: Tensor) -> Tensor:
    """Look up the embeddings of all query-key distances along an axis: (2 * n - 1, C) -> (n queries, n keys, C)."""
    n = (len(table) + 1) // 2
    position = torch.arange(n, device=table.device)
    return table[position[:, None] - position + n - 1]
