"""LiteMedSAM's image encoder: a TinyViT of convolutions and windowed attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from MedSAMSlicerLib.model.layers import GELU, STRIP, Linear, Neck, by_rows, join_windows, partition_windows


class TinyViT(nn.Module):
    """Embed images with LiteMedSAM's variant of TinyViT (Wu et al., ECCV 2022; after MobileSAM).

    It differs from TinyViT: the patch embedding keeps the full resolution, and the map is halved only twice.
    Reference: bowang-lab/MedSAM, branch LiteMedSAM, tiny_vit_sam.py. Maps are kept channels-last in memory, so that
    a map (B, C, H, W) for convolutions and a token map (B, H, W, C) for attention are two views of one tensor.

    :param dims: channels of the four stages; the first is convolutional, the others attend.
    :param window_sizes: side of the attention windows of stages two to four, in tokens.
    """

    def __init__(
        self,
        dims: Sequence[int] = (64, 128, 160, 320),
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (4, 5, 10),
        window_sizes: Sequence[int] = (7, 14, 7),
        out_channels: int = 256,
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(dims[0])
        strides = (2, 2, 1)
        mergings = [*map(PatchMerging, dims, dims[1:], strides), None]
        self.layers = nn.ModuleList([Stage([MBConv(dims[0]) for _ in range(depths[0])], mergings[0])])
        for dim, depth, heads, window_size, merging in zip(
            dims[1:], depths[1:], num_heads, window_sizes, mergings[1:], strict=True
        ):
            self.layers.append(Stage([TinyViTBlock(dim, heads, window_size) for _ in range(depth)], merging))
        self.neck = Neck(dims[-1], out_channels)

    def forward(self, images: Tensor) -> Tensor:
        """Embed images (B, 3, S, S) as (B, out_channels, S / 4, S / 4)."""
        x = self.patch_embed(images.contiguous(memory_format=torch.channels_last))
        for layer in self.layers:
            x = layer(x)
        return self.neck(x)


class ConvBN(nn.Sequential):
    """Convolve without bias, then normalize by batch statistics.

    :param groups: equal to both channel counts for a depthwise convolution.
    """

    def __init__(self, in_channels: int, channels: int, kernel_size: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(in_channels, channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    @torch.no_grad()
    def fold(self) -> None:
        """Put the batch norm's running statistics into the convolution and drop it: the same function in eval mode."""
        norm = self.bn
        running_mean, running_var = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
        scale = norm.weight / (running_var + norm.eps).sqrt()
        self.c.weight = nn.Parameter(self.c.weight * scale[:, None, None, None], requires_grad=False)
        self.c.bias = nn.Parameter(norm.bias - running_mean * scale, requires_grad=False)
        del self.bn


class PatchEmbed(nn.Module):
    """Lift the three colors of every pixel to features."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(ConvBN(3, dim // 2), GELU(), ConvBN(dim // 2, dim))

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, S, S) to (B, dim, S, S)."""
        return by_rows(self.seq, images)


class Stage(nn.Module):
    """Apply blocks at one resolution, then go on to the next."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the next stage's shape."""
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class MBConv(nn.Module):
    """Apply an inverted residual bottleneck: widen four times, convolve depthwise, narrow."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = 4 * dim
        self.conv1 = ConvBN(dim, hidden)
        self.conv2 = ConvBN(hidden, hidden, kernel_size=3, groups=hidden)
        self.conv3 = ConvBN(hidden, dim)
        self.act = GELU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, dim, H, W) to the same shape."""
        return by_rows(self._convolve, x, halo=1)

    def _convolve(self, x: Tensor) -> Tensor:
        hidden = self.act(self.conv2(self.act(self.conv1(x))))
        return self.act(self.conv3(hidden) + x)


class PatchMerging(nn.Module):
    """Change the channels and, with stride 2, halve the resolution."""

    def __init__(self, dim: int, out_dim: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = ConvBN(dim, out_dim)
        self.conv2 = ConvBN(out_dim, out_dim, kernel_size=3, stride=stride, groups=out_dim)
        self.conv3 = ConvBN(out_dim, out_dim)
        self.act = GELU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, dim, H, W) to (B, out_dim, H / stride, W / stride)."""
        return by_rows(self._convolve, x, halo=1, stride=self.stride)

    def _convolve(self, x: Tensor) -> Tensor:
        return self.conv3(self.act(self.conv2(self.act(self.conv1(x)))))


class TinyViTBlock(nn.Module):
    """Attend within windows, convolve depthwise, transform."""

    def __init__(self, dim: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        self.attn = WindowAttention(dim, num_heads, window_size)
        self.local_conv = ConvBN(dim, dim, kernel_size=3, groups=dim)
        self.mlp = MLP(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, dim, H, W) to the same shape."""
        whole_windows = max(STRIP // self.attn.window_size, 1) * self.attn.window_size
        x = by_rows(self._attend, x, whole_windows)
        return by_rows(self._transform, self.local_conv(x))

    def _attend(self, x: Tensor) -> Tensor:
        tokens = x.permute(0, 2, 3, 1)
        return (tokens + self.attn(tokens)).permute(0, 3, 1, 2)

    def _transform(self, x: Tensor) -> Tensor:
        tokens = x.permute(0, 2, 3, 1)
        return (tokens + self.mlp(tokens)).permute(0, 3, 1, 2)


class MLP(nn.Module):
    """Normalize, then apply two linear layers with GELU between them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = Linear(dim, 4 * dim)
        self.fc2 = Linear(4 * dim, dim)
        self.act = GELU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., dim) to the same shape."""
        return self.fc2(self.act(self.fc1(self.norm(x))))


class WindowAttention(nn.Module):
    """Attend within windows, with a learned bias per head and per absolute distance (as LeViT).

    ``attention_biases`` holds, for every head, the distances (rows, columns) in row-major order.
    """

    kept_bias: Tensor | None

    def __init__(self, dim: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.norm = nn.LayerNorm(dim)
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(num_heads, window_size**2))
        self.register_buffer("kept_bias", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, H, W, dim) to the same shape."""
        size = (x.shape[1], x.shape[2])
        qkv = self.qkv(self.norm(partition_windows(x, self.window_size)))
        windows, tokens, _ = qkv.shape
        q, k, v = qkv.view(windows, tokens, self.num_heads, 3, -1).permute(3, 0, 2, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias())
        x = x.transpose(1, 2).reshape(windows, tokens, -1)
        return self.proj(join_windows(x, self.window_size, size))

    def bias(self) -> Tensor:
        """Return what is added to the attention scores, (1, heads, tokens, tokens)."""
        if self.kept_bias is not None:
            return self.kept_bias
        side = self.window_size
        position = torch.arange(side, device=self.attention_biases.device)
        distance = (position[:, None] - position).abs()
        index = distance[:, None, :, None] * side + distance[None, :, None, :]
        return self.attention_biases[None, :, index.view(side**2, side**2)]

    def keep_bias(self) -> None:
        """Look the bias up once and for all."""
        self.kept_bias = self.bias()
