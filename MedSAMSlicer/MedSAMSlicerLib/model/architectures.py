"""The models that can be built, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import nn

from MedSAMSlicerLib.model.hiera import Hiera
from MedSAMSlicerLib.model.medsam import MedSAM
from MedSAMSlicerLib.model.medsam2 import STRIDE, MedSAM2
from MedSAMSlicerLib.model.network import Network
from MedSAMSlicerLib.model.tiny_vit import TinyViT
from MedSAMSlicerLib.model.vit import PATCH_SIZE, ImageEncoderViT


@dataclass(frozen=True)
class Architecture:
    """What tells one model from another.

    :param preprocessing: the recipe of `inference.recipes` with which the weights that are usual for it were trained.
    :param image_size: side of the square input in pixels.
    :param stride: input pixels per embedding pixel.
    :param telling: a parameter of the image encoder, and its shape, that no other architecture has. Only MedSAM2 and
        the smallest SAM 2.1 share it, which differ in the size of their images and in nothing that a file holds.
    """

    preprocessing: str
    image_size: int
    stride: int
    image_encoder: Callable[[], nn.Module]
    telling: tuple[str, tuple[int, ...]]

    @property
    def remembers(self) -> bool:
        """Tell whether the model follows what it sees through slices."""
        return self.preprocessing == "medsam2"


def _vit(
    preprocessing: str, image_size: int, dim: int, depth: int, heads: int, full: Sequence[int], window: int = 14
) -> Architecture:
    encoder = partial(ImageEncoderViT, image_size, dim, depth, heads, full, window)
    grid = image_size // PATCH_SIZE
    return Architecture(preprocessing, image_size, PATCH_SIZE, encoder, ("pos_embed", (1, grid, grid, dim)))


def _hiera(
    image_size: int,
    dim: int,
    heads: int,
    depths: Sequence[int],
    full: Sequence[int],
    windows: Sequence[int] = (8, 4, 14, 7),
    background: int = 7,
) -> Architecture:
    trunk = partial(Hiera, dim, heads, depths, full, windows, background)
    telling = (f"trunk.blocks.{sum(depths[:-1])}.proj.weight", (dim << len(depths) - 1, dim << len(depths) - 2))
    return Architecture("medsam2", image_size, STRIDE, trunk, telling)


_HIERA_TINY = (96, 1, (1, 2, 7, 2), (5, 7, 9))

ARCHITECTURES: dict[str, Architecture] = {
    "lite": Architecture("lite", 256, 4, TinyViT, ("patch_embed.seq.0.c.weight", (32, 3, 1, 1))),
    "vit_b": _vit("medsam", 1024, 768, 12, 12, (2, 5, 8, 11)),
    "vit_l": _vit("sam", 1024, 1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": _vit("sam", 1024, 1280, 32, 16, (7, 15, 23, 31)),
    "medsam2": _hiera(512, *_HIERA_TINY),
    "sam2_tiny": _hiera(1024, *_HIERA_TINY),
    "sam2_small": _hiera(1024, 96, 1, (1, 2, 11, 2), (7, 10, 13)),
    "sam2_base_plus": _hiera(1024, 112, 2, (2, 3, 16, 3), (12, 16, 20), background=14),
    "sam2_large": _hiera(1024, 144, 2, (2, 6, 36, 4), (23, 33, 43), windows=(8, 4, 16, 8)),
    "tiny": _vit("medsam", 64, 32, 2, 2, (1,), window=3),
    "tiny_medsam2": _hiera(128, 8, 1, (1, 1, 2, 1), (3,), windows=(8, 4, 6, 3), background=3),
}


def build_model(architecture: str) -> Network:
    """Build a model with random weights, in training mode.

    ``tiny`` and ``tiny_medsam2``, of 64 x 64 and 128 x 128 pixels, for tests, get the same weights on every call.

    :param architecture: one of `ARCHITECTURES`.
    :raises ValueError: if it is none of them.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"The architecture {architecture!r} is unknown: give one of {', '.join(ARCHITECTURES)}.")
    a = ARCHITECTURES[architecture]
    fixed = architecture.startswith("tiny")
    with torch.random.fork_rng(devices=[], enabled=fixed):
        if fixed:
            torch.manual_seed(0)
        if a.remembers:
            return MedSAM2(architecture, a.preprocessing, cast(Hiera, a.image_encoder()), a.image_size)
        return MedSAM(architecture, a.preprocessing, a.image_encoder(), a.image_size, a.stride)
