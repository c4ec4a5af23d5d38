"""SAM 2's memory encoder: a slice's features and the mask that was found there become a memory."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from MedSAMSlicerLib.model.layers import GELU, LayerNorm2d, Linear


class MemoryEncoder(nn.Module):
    """Fuse image features with a mask (facebookresearch/sam2, modeling/memory_encoder.py)."""

    def __init__(self, dim: int = 256, memory_dim: int = 64) -> None:
        super().__init__()
        self.mask_downsampler = MaskDownsampler(dim)
        self.pix_feat_proj = nn.Conv2d(dim, dim, kernel_size=1)
        self.fuser = Fuser(dim)
        self.out_proj = nn.Conv2d(dim, memory_dim, kernel_size=1)

    def forward(self, image: Tensor, masks: Tensor) -> Tensor:
        """Fuse features (N, dim, h, w) and masks (N, 1, 16 * h, 16 * w) to memories (N, memory_dim, h, w)."""
        return self.out_proj(self.fuser(self.pix_feat_proj(image) + self.mask_downsampler(masks)))


class MaskDownsampler(nn.Module):
    """Halve a mask four times, with four times the channels each time."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise([1, 4, 16, 64, 256]):
            layers += [nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1), LayerNorm2d(after), GELU()]
        self.encoder = nn.Sequential(*layers, nn.Conv2d(256, dim, kernel_size=1))

    def forward(self, masks: Tensor) -> Tensor:
        """Map (N, 1, 16 * h, 16 * w) to (N, dim, h, w)."""
        return self.encoder(masks)


class Fuser(nn.Module):
    """Apply ConvNeXt blocks."""

    def __init__(self, dim: int, depth: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ConvNeXtBlock(dim) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, dim, h, w) to the same shape."""
        for layer in self.layers:
            x = layer(x)
        return x


class ConvNeXtBlock(nn.Module):
    """Convolve depthwise, then transform every pixel, scaled by a learned factor (Liu et al., CVPR 2022)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size=7, padding=3, groups=dim)
        self.norm = LayerNorm2d(dim)
        self.pwconv1 = Linear(dim, 4 * dim)
        self.pwconv2 = Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), 1e-6))
        self.act = GELU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, dim, h, w) to the same shape."""
        tokens = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)
        return x + (self.gamma * self.pwconv2(self.act(self.pwconv1(tokens)))).permute(0, 3, 1, 2)
