"""Layers that several parts of SAM share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# What compiled models use on the CPU; PyTorch has no public name for it, and builds without oneDNN none at all.
_onednn = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None

# Rows of a map that are computed at a time on the CPU: a strip of LiteMedSAM's widest map, 256 channels, takes 8 MiB.
STRIP = 32

# The exact (erf) GELU is meant.
Activation = Literal["none", "relu", "gelu"]
_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {"none": lambda x: x, "relu": F.relu, "gelu": F.gelu}


class Linear(nn.Linear):
    """`nn.Linear`, computed by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: Activation = "none") -> Tensor:
    """Compute `F.linear`, and what is applied to its result; on the CPU, under inference mode, by oneDNN in one go.

    PyTorch's own product is MKL's, which leaves AVX-512 unused on AMD's processors: on one core of an EPYC it makes 90
    GFLOP/s, oneDNN's 200.
    """
    if _onednn is None or not torch.is_inference_mode_enabled() or x.device.type != "cpu" or x.dtype != torch.float32:
        return _ACTIVATIONS[activation](F.linear(x, weight, bias))
    return cast(Tensor, _onednn(x, weight, bias, activation, [], "none" if activation == "gelu" else ""))


def products(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply matrices (N, R, K) with as many others, or one that they share, (N or 1, K, S): (N, R, S).

    :param bias: (S,), added to every row.
    """
    if len(b) == 1:
        return linear(a.flatten(0, 1), b[0].t(), bias).unflatten(0, (len(a), -1))
    return a @ b if bias is None else a @ b + bias


class GELU(nn.Module):
    """Apply the exact (erf) GELU, in place under inference mode: its input is always a layer's fresh output."""

    def forward(self, x: Tensor) -> Tensor:
        """Return GELU(x), any shape."""
        return torch.ops.aten.gelu_(x) if torch.is_inference_mode_enabled() else F.gelu(x)


class MLPBlock(nn.Module):
    """Apply two linear layers with an activation between them to the last axis."""

    def __init__(self, embedding_dim: int, mlp_dim: int, activation: nn.Module) -> None:
        super().__init__()
        self.lin1 = Linear(embedding_dim, mlp_dim)
        self.lin2 = Linear(mlp_dim, embedding_dim)
        self.act = activation

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., embedding_dim) to the same shape."""
        return self.lin2(self.act(self.lin1(x)))


class MLP(nn.Module):
    """Apply linear layers with an activation between them to the last axis.

    :param dims: channels of the input, and of every layer's output.
    """

    def __init__(self, dims: Sequence[int], activation: Activation) -> None:
        super().__init__()
        self.layers = nn.ModuleList(itertools.starmap(Linear, itertools.pairwise(dims)))
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., dims[0]) to (..., dims[-1])."""
        *inner, last = (cast(Linear, layer) for layer in self.layers)
        for layer in inner:
            x = linear(x, layer.weight, layer.bias, self.activation)
        return last(x)


class LayerNorm2d(nn.Module):
    """Normalize the channels of every pixel of a (B, C, H, W) map, as ConvNeXt does."""

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized map, channels-last in memory."""
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class Neck(nn.Sequential):
    """Reduce an encoder's features to SAM's embedding: 1x1 and 3x3 convolutions, each followed by LayerNorm2d."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False),
            LayerNorm2d(out_channels),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
            LayerNorm2d(out_channels),
        )


def by_rows(
    function: Callable[[Tensor], Tensor], x: Tensor, rows: int = STRIP, halo: int = 0, stride: int = 1
) -> Tensor:
    """Apply a function to a map (B, C, H, W), on the CPU under inference mode strip by strip.

    What the layers make of a strip stays in the processor's cache, and its memory is used again for the next one. Fresh
    pages for whole maps, of up to 64 MiB, cost more than the arithmetic: LiteMedSAM's encoder takes 0.34 s, not 0.44.

    :param function: acts on every pixel, or convolves and makes H / stride rows of H.
    :param rows: of a strip, a multiple of the stride.
    :param halo: rows of the result beside a strip that a convolution gets wrong without their neighbors.
    """
    height = x.shape[2]
    if not torch.is_inference_mode_enabled() or x.device.type != "cpu" or height <= rows:
        return function(x)
    result: Tensor | None = None
    for first in range(0, height, rows):
        last = min(first + rows, height)
        low, high = max(first - halo * stride, 0), min(last + halo * stride, height)
        strip = function(x[:, :, low:high])
        if result is None:
            size = (len(x), height // stride, strip.shape[3], strip.shape[1])
            result = strip.new_empty(size).permute(0, 3, 1, 2)
        above = (first - low) // stride
        result[:, :, first // stride : last // stride] = strip[:, :, above : above + (last - first) // stride]
    return cast(Tensor, result)


def partition_windows(x: Tensor, window_size: int) -> Tensor:
    """Cut a (B, H, W, C) map into windows (B * number, window_size**2, C), zero-padded at the bottom and the right."""
    batch, height, width, channels = x.shape
    x = F.pad(x, (0, 0, 0, -width % window_size, 0, -height % window_size))
    rows, columns = x.shape[1] // window_size, x.shape[2] // window_size
    x = x.view(batch, rows, window_size, columns, window_size, channels)
    return x.transpose(2, 3).reshape(batch * rows * columns, window_size**2, channels)


def join_windows(windows: Tensor, window_size: int, size: tuple[int, int]) -> Tensor:
    """Undo `partition_windows`: return the (B, H, W, C) map of the given size (H, W), without the padding."""
    height, width = size
    rows, columns = -(-height // window_size), -(-width // window_size)
    x = windows.view(-1, rows, columns, window_size, window_size, windows.shape[-1]).transpose(2, 3)
    x = x.reshape(-1, rows * window_size, columns * window_size, windows.shape[-1])
    return x[:, :height, :width]
