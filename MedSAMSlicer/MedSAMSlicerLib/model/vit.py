"""SAM's image encoder: a plain vision transformer (ViT-B, -L or -H) with windowed and global attention."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from MedSAMSlicerLib.model.layers import GELU, Linear, MLPBlock, Neck, by_rows, join_windows, linear, partition_windows

PATCH_SIZE = 16
# Numbers in the bias of attention that are computed at a time on the CPU, 16 MiB.
BIAS_SIZE = 1 << 22


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
        return by_rows(self._transform, x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def _transform(self, x: Tensor) -> Tensor:
        tokens = x.permute(0, 2, 3, 1)
        return (tokens + self.mlp(self.norm2(tokens))).permute(0, 3, 1, 2)


class Attention(nn.Module):
    """Attend within windows, with decomposed relative positions (Li et al., MViTv2, 2022).

    :param window_size: side of a window in tokens; a window as large as the map is global attention.
    """

    kept_rows: Tensor | None
    kept_columns: Tensor | None
    kept_place: Tensor | None

    def __init__(self, dim: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * window_size - 1, dim // num_heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * window_size - 1, dim // num_heads))
        for name in ("kept_rows", "kept_columns", "kept_place"):
            self.register_buffer(name, None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, H, W, dim) to the same shape."""
        size = (x.shape[1], x.shape[2])
        # SAM pads the windows at the border before this projection and lets the padding take part as keys. A padding
        # token is then the projection's bias alone: adding it after the padding saves projecting the padding.
        qkv = partition_windows(linear(x, self.qkv.weight), self.window_size) + self.qkv.bias
        windows, tokens, _ = qkv.shape
        q, k, v = qkv.view(windows, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        grid = q.unflatten(2, (self.window_size, self.window_size))
        row_table = relative_positions(self.rel_pos_h) if self.kept_rows is None else self.kept_rows
        column_table = relative_positions(self.rel_pos_w) if self.kept_columns is None else self.kept_columns
        rows = torch.einsum("bnhwc,hkc->bnhwk", grid, row_table).flatten(2, 3)
        columns = torch.einsum("bnhwc,wkc->bnhwk", grid, column_table).flatten(2, 3)
        if x.device.type == "cpu" and torch.is_inference_mode_enabled():
            x = attend_by_strips(q, k, v, rows, columns)
        else:
            x = attend_fused(q, k, v, rows, columns, self.kept_place)
        x = x.transpose(1, 2).reshape(windows, tokens, -1)
        return self.proj(join_windows(x, self.window_size, size))

    def keep_tables(self) -> None:
        """Look up once and for all what depends on the weights alone: a third of the kernels of the encoder."""
        self.kept_rows, self.kept_columns = relative_positions(self.rel_pos_h), relative_positions(self.rel_pos_w)
        self.kept_place = places(self.window_size, self.rel_pos_h)


def attend_fused(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor, place: Tensor | None = None) -> Tensor:
    """Attend with a bias per row and per column of the keys, without the matrix of attention in memory.

    The bias becomes part of the scalar product: a query is followed by its biases, a key by ones at its row and its
    column. So PyTorch's fused kernels, which take no such bias, compute it all; values are padded to the same length,
    and all with zeros to a multiple of 8, as these kernels ask of half precision.

    :param q: queries (B, heads, S * S, C), as the keys and the values.
    :param rows: bias (B, heads, S * S, S) of every query to the S rows of keys; ``columns`` likewise.
    :param place: see `places`, where it is at hand.
    :return: (B, heads, S * S, C).
    """
    side, channels = rows.shape[-1], q.shape[-1]
    place = places(side, q) if place is None else place
    spare = place.shape[1] - 2 * side
    queries = torch.cat([q * channels**-0.5, rows, columns, rows.new_zeros(1).expand(*rows.shape[:3], spare)], dim=-1)
    keys = torch.cat([k, place.expand(*k.shape[:2], -1, -1)], dim=-1)
    values = F.pad(v, (0, place.shape[1]))
    return F.scaled_dot_product_attention(queries, keys, values, scale=1.0)[..., :channels]


def places(side: int, queries: Tensor) -> Tensor:
    """Mark the row and the column of every key by a one, for `attend_fused`: (side * side, 2 * side and what is spare).

    :param queries: (..., C) of the same type and device; together with C the length is a multiple of 8.
    """
    one = torch.eye(side, dtype=queries.dtype, device=queries.device)
    marks = torch.cat([one.repeat_interleave(side, dim=0), one.repeat(side, 1)], dim=1)
    return F.pad(marks, (0, -(queries.shape[-1] + 2 * side) % 8))


def attend_by_strips(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Compute the same as `attend_fused` with a third of its arithmetic, which is what counts on a CPU.

    The bias of a few rows of queries at a time stays in the cache; all of it takes 768 MiB in ViT-B's global attention.
    """
    windows, heads, tokens, _ = q.shape
    side = rows.shape[-1]
    strip = max(BIAS_SIZE // (heads * side * tokens), 1) * side
    result = torch.empty_like(v.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
    for window in range(windows):
        for first in range(0, tokens, strip):
            one = slice(window, window + 1)
            part = (one, slice(None), slice(first, first + strip))
            bias = (rows[part][..., :, None] + columns[part][..., None, :]).flatten(-2)
            result[part] = F.scaled_dot_product_attention(q[part], k[one], v[one], attn_mask=bias)
    return result


def relative_positions(table: Tensor) -> Tensor:
    """Look up the embeddings of all query-key distances along an axis: (2 * n - 1, C) -> (n queries, n keys, C)."""
    n = (len(table) + 1) // 2
    position = torch.arange(n, device=table.device)
    return table[position[:, None] - position + n - 1]
