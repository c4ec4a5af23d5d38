"""The models that can be built, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from MedSAMSlicerLib.model.medsam import MedSAM
from MedSAMSlicerLib.model.tiny_vit import TinyViT
from MedSAMSlicerLib.model.vit import PATCH_SIZE, ImageEncoderViT


@dataclass(frozen=True)
class Architecture:
    """What tells one model from another.

    :param preprocessing: the recipe of `inference.recipes` with which the weights that are usual for it were trained.
    :param image_size: side of the square input in pixels.
    :param stride: input pixels per embedding pixel.
    :param telling: a parameter of the image encoder, and its shape, that no other architecture has.
    """

    preprocessing: str
    image_size: int
    stride: int
    image_encoder: Callable[[], nn.Module]
    telling: tuple[str, tuple[int, ...]]


def _vit(
    preprocessing: str, image_size: int, dim: int, depth: int, heads: int, full: Sequence[int], window: int = 14
) -> Architecture:
    encoder = partial(ImageEncoderViT, image_size, dim, depth, heads, full, window)
    grid = image_size // PATCH_SIZE
    return Architecture(preprocessing, image_size, PATCH_SIZE, encoder, ("pos_embed", (1, grid, grid, dim)))


ARCHITECTURES: dict[str, Architecture] = {
    "lite": Architecture("lite", 256, 4, TinyViT, ("patch_embed.seq.0.c.weight", (32, 3, 1, 1))),
    "vit_b": _vit("medsam", 1024, 768, 12, 12, (2, 5, 8, 11)),
    "vit_l": _vit("sam", 1024, 1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": _vit("sam", 1024, 1280, 32, 16, (7, 15, 23, 31)),
    "tiny": _vit("medsam", 64, 32, 2, 2, (1,), window=3),
}


def build_model(architecture: str) -> MedSAM:
    """Build a model with random weights, in training mode.

    ``tiny``, a ViT of 64 x 64 pixels for tests, gets the same weights on every call.

    :param architecture: one of `ARCHITECTURES`.
    :raises ValueError: if it is none of them.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"The architecture {architecture!r} is unknown: give one of {', '.join(ARCHITECTURES)}.")
    a = ARCHITECTURES[architecture]
    with torch.random.fork_rng(devices=[], enabled=architecture == "tiny"):
        if architecture == "tiny":
            torch.manual_seed(0)
        return MedSAM(architecture, a.preprocessing, a.image_encoder(), a.image_size, a.stride)
