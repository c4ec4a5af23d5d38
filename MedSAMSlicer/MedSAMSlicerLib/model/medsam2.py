"""MedSAM2: SAM 2.1's network, which remembers the slices that it has segmented."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from MedSAMSlicerLib.model.fpn_neck import PyramidEncoder
from MedSAMSlicerLib.model.hiera import Hiera
from MedSAMSlicerLib.model.layers import MLP, Linear
from MedSAMSlicerLib.model.mask_decoder import Window
from MedSAMSlicerLib.model.memory_attention import MemoryAttention
from MedSAMSlicerLib.model.memory_encoder import MemoryEncoder
from MedSAMSlicerLib.model.network import Network
from MedSAMSlicerLib.model.object_decoder import DecodedObject, ObjectDecoder
from MedSAMSlicerLib.model.prompt_encoder import PromptEncoder
from MedSAMSlicerLib.model.sine_positions import sine_distances, sine_positions

STRIDE = 16
# Slices before this one that are remembered as maps, and those that are remembered as pointers, with the key slice.
MAPS = 6
POINTERS = 16
# The logit of every pixel where there is no object.
NO_OBJECT = -1024.0
# What a mask from 0 to 1 becomes for the memory encoder.
_MASK_SCALE, _MASK_BIAS = 20.0, -10.0


@dataclass(frozen=True)
class Finding:
    """What was found in a slice.

    :param logits: (N, 1, S / 4, S / 4), S = image_size.
    :param iou: the model's own estimate of the masks' IoU, (N, 1).
    :param score: logit of the object being in the slice, (N, 1).
    :param pointer: to the object, (N, 256).
    """

    logits: Tensor
    iou: Tensor
    score: Tensor
    pointer: Tensor


@dataclass(frozen=True)
class Memory:
    """What is remembered of a slice.

    :param map: of its features and its mask, bfloat16 (1, h * w, 64), as the official predictor keeps it.
    :param pointer: to the object, (1, 256).
    """

    map: Tensor
    pointer: Tensor

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.map.nbytes + self.pointer.nbytes


class MedSAM2(Network):
    """Segment what a box points out, and follow it through slices (Ma et al., "MedSAM2", 2025; Ravi et al., 2024).

    The network is SAM 2.1's, of which MedSAM2 takes the smallest at half the resolution; the parameters are named as in
    the official checkpoints. One embedding holds all that is needed of a slice, (B, 1024, h, w): 256 channels for the
    transformer, then the finer maps, see `object_decoder.ObjectDecoder`. Reference: facebookresearch/sam2, sam2_base.py
    and sam2_video_predictor.py as bowang-lab/MedSAM2 sets them up.
    """

    image_encoder: PyramidEncoder
    memory_positions: Tensor

    def __init__(
        self, architecture: str, preprocessing: str, trunk: Hiera, image_size: int, dim: int = 256, memory_dim: int = 64
    ) -> None:
        super().__init__(architecture, preprocessing, image_size)
        side = image_size // STRIDE
        self.image_encoder = PyramidEncoder(trunk, dim)
        self.sam_prompt_encoder = PromptEncoder(image_size, side, dim)
        self.sam_mask_decoder = ObjectDecoder(dim)
        self.memory_attention = MemoryAttention(side, dim, memory_dim)
        self.memory_encoder = MemoryEncoder(dim, memory_dim)
        self.mask_downsample = nn.Conv2d(1, 1, kernel_size=4, stride=4)
        self.obj_ptr_proj = MLP([dim, dim, dim, dim], "relu")
        self.obj_ptr_tpos_proj = Linear(dim, memory_dim)
        self.maskmem_tpos_enc = nn.Parameter(0.02 * torch.randn(MAPS + 1, 1, 1, memory_dim))
        self.no_mem_embed = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        # A part of the checkpoints that is not used.
        self.no_mem_pos_enc = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.no_obj_ptr = nn.Parameter(0.02 * torch.randn(1, dim))
        self.no_obj_embed_spatial = nn.Parameter(0.02 * torch.randn(1, memory_dim))
        self.register_buffer("memory_positions", sine_positions(side, memory_dim), persistent=False)

    @property
    def prompt_encoder(self) -> PromptEncoder:
        """The prompt encoder, by the name that it has in MedSAM."""
        return self.sam_prompt_encoder

    @property
    def mask_decoder(self) -> ObjectDecoder:
        """The mask decoder, by the name that it has in MedSAM."""
        return self.sam_mask_decoder

    @property
    def embedding_shape(self) -> tuple[int, int, int]:
        """Return (1024, h, w)."""
        side = self.sam_prompt_encoder.embedding_size
        return 1024, side, side

    def embed(self, images: Tensor) -> Tensor:
        """Embed images (B, 3, S, S): (B, 1024, S / 16, S / 16)."""
        fine, middle, image = (each.to(self.no_mem_embed.dtype) for each in self.image_encoder(images))
        details = self.sam_mask_decoder.details(fine, middle)
        return torch.cat([image.permute(0, 2, 3, 1), details], dim=3).permute(0, 3, 1, 2)

    def decode(self, embeddings: Tensor, boxes: Tensor, *, window: Window | None = None) -> tuple[Tensor, Tensor]:
        """Predict the masks of N boxes, without any memory: see `Network` and `prompted`."""
        found = self.prompted(embeddings, boxes, window)
        return found.logits, found.iou

    def prompted(self, embedding: Tensor, boxes: Tensor, window: Window | None = None) -> Finding:
        """Find what boxes point out, without any memory.

        :param embedding: what `encode` made of the slice, (1, 1024, h, w).
        :param boxes: (N, 4) as x0, y0, x1, y1 in pixels of the preprocessed image.
        """
        return self._decoded(embedding, *self._asked(embedding, boxes), multimask=False, window=window)

    def masks_to_train(self, embeddings: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Predict the single mask of each box, and the three that slices without a box choose from: see `Network`."""
        image, sparse, dense = self._asked(embeddings, boxes)
        pe = self.sam_prompt_encoder.dense_pe()
        return self.sam_mask_decoder.all_masks(image, self._details(embeddings), pe, sparse, dense)

    def given(self, embedding: Tensor, mask: Tensor) -> Finding:
        """Take a mask for what is found in a slice.

        :param embedding: what `encode` made of the slice, (1, 1024, h, w).
        :param mask: (1, 1, S, S), 0 or 1.
        """
        sparse, dense = self.sam_prompt_encoder(None, self._no_points(), self.mask_downsample(mask))
        found = self._decoded(embedding, self._image(embedding), sparse, dense, multimask=False)
        logits = mask * _MASK_SCALE + _MASK_BIAS
        side = self.image_size // 4
        small = F.interpolate(logits, (side, side), mode="bilinear", antialias=True)
        there = mask.any()
        pointer = torch.where(there, found.pointer, self.no_obj_ptr)
        score = torch.where(there, _MASK_SCALE + _MASK_BIAS, _MASK_BIAS).expand(1, 1)
        return Finding(small, torch.ones_like(score), score, pointer)

    def followed(
        self, embedding: Tensor, keys: Sequence[tuple[int, Memory]], past: Sequence[Memory], length: int
    ) -> Finding:
        """Find in a slice what is remembered of others.

        :param embedding: what `encode` made of the slice, (1, 1024, h, w).
        :param keys: memories of key slices, with the number of slices from there to here; those that lie ahead have
            negative ones.
        :param past: memories of the slices right before, the nearest first; `POINTERS` - 1 count.
        :param length: number of slices that there are, which the official model scales distances of pointers by.
        """
        tokens = self._image(embedding).flatten(2).transpose(1, 2)
        memory, places, unplaced = self._bank(keys, past, min(length, POINTERS))
        tokens = self.memory_attention(tokens, memory, places, unplaced)
        image = tokens.transpose(1, 2).unflatten(2, embedding.shape[2:])
        sparse, dense = self.sam_prompt_encoder(None, self._no_points(), None)
        return self._decoded(embedding, image, sparse, dense, multimask=True)

    def remembered(self, embedding: Tensor, found: Finding, mask: Tensor | None = None) -> Memory:
        """Make a memory of what was found in a slice.

        :param embedding: what `encode` made of the slice, (1, 1024, h, w).
        :param mask: 0 or 1, (1, 1, S, S), of a key slice; without it the mask's probabilities are remembered.
        """
        if mask is None:
            mask = self.enlarged(found.logits).sigmoid()
        maps = self.memory_encoder(self._image(embedding), mask * _MASK_SCALE + _MASK_BIAS).flatten(2).transpose(1, 2)
        maps = maps + (found.score <= 0) * self.no_obj_embed_spatial
        return Memory(maps.bfloat16(), found.pointer)

    def enlarged(self, logits: Tensor) -> Tensor:
        """Interpolate logits (N, 1, S / 4, S / 4) to the size of the input, (N, 1, S, S)."""
        return F.interpolate(logits, (self.image_size, self.image_size), mode="bilinear", align_corners=False)

    def _bank(
        self, keys: Sequence[tuple[int, Memory]], past: Sequence[Memory], pointers: int
    ) -> tuple[Tensor, Tensor, int]:
        """Put memories together.

        :return: memory and its places (1, M, 64), and how many tokens at their end lie nowhere in the slice.
        """
        ages = self.maskmem_tpos_enc[:, 0]
        maps = [memory.map for _, memory in keys] + [memory.map for memory in past[:MAPS]]
        places = [self.memory_positions + ages[MAPS] for _ in keys]
        places += [self.memory_positions + ages[age] for age in range(len(past[:MAPS]))]

        pointed = [(distance, memory.pointer) for distance, memory in keys if distance >= 0]
        pointed += [(age, memory.pointer) for age, memory in enumerate(past[: pointers - 1], start=1)]
        distances = torch.tensor([float(distance) for distance, _ in pointed], device=ages.device)
        # A pointer is as long as several tokens of a memory.
        memory_dim = ages.shape[-1]
        tokens = torch.cat([pointer for _, pointer in pointed]).view(1, -1, memory_dim)
        age = self.obj_ptr_tpos_proj(sine_distances(distances / max(pointers - 1, 1), self._dim))
        places.append(age.repeat_interleave(self._dim // memory_dim, dim=0)[None])
        return torch.cat([*maps, tokens], dim=1), torch.cat(places, dim=1), tokens.shape[1]

    def _decoded(
        self,
        embedding: Tensor,
        image: Tensor,
        sparse: Tensor,
        dense: Tensor,
        multimask: bool,
        window: Window | None = None,
    ) -> Finding:
        image_pe = self.sam_prompt_encoder.dense_pe()
        decoded: DecodedObject = self.sam_mask_decoder(
            image, self._details(embedding), image_pe, sparse, dense, multimask, window
        )
        there = decoded.score > 0
        logits = torch.where(there[..., None, None], decoded.logits, NO_OBJECT)
        pointer = torch.where(there, self.obj_ptr_proj(decoded.token), self.no_obj_ptr)
        return Finding(logits, decoded.iou, decoded.score, pointer)

    def _asked(self, embedding: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what boxes ask without any memory: the image (B, 256, h, w), sparse and dense prompts."""
        # SAM 2 takes a box for two points, which get company by an empty one.
        labels = torch.tensor([[2, 3]], device=boxes.device).expand(len(boxes), -1)
        sparse, dense = self.sam_prompt_encoder(None, (boxes.view(-1, 2, 2), labels), None)
        return self._image(embedding) + self.no_mem_embed.transpose(1, 2)[..., None], sparse, dense

    def _details(self, embedding: Tensor) -> Tensor:
        return embedding[:, self._dim :].permute(0, 2, 3, 1)

    def _image(self, embedding: Tensor) -> Tensor:
        return embedding[:, : self._dim]

    def _no_points(self) -> tuple[Tensor, Tensor]:
        """Return what SAM 2 takes for a prompt where there is none: an empty point."""
        device = self.no_mem_embed.device
        return torch.zeros(1, 1, 2, device=device), torch.full((1, 1), -1, device=device)

    @property
    def _dim(self) -> int:
        return self.no_mem_embed.shape[-1]

    def merge_layers(self) -> None:
        """Merge the decoder's projections of the finer maps into those of the neck, and keep position tables."""
        *_, middle, fine = self.image_encoder.neck.convs
        decoder = self.sam_mask_decoder
        for level, name in ((middle, "conv_s1"), (fine, "conv_s0")):
            level.conv = _merged(cast(nn.Conv2d, level.conv), cast(nn.Conv2d, getattr(decoder, name)))
            setattr(decoder, name, nn.Identity())
        self.image_encoder.trunk.keep_positions(self.image_size // 4)
        self.sam_prompt_encoder.keep_dense_pe()


def _merged(first: nn.Conv2d, second: nn.Conv2d) -> nn.Conv2d:
    """Make one 1 x 1 convolution of two."""
    merged = nn.Conv2d(first.in_channels, second.out_channels, kernel_size=1).requires_grad_(False)
    weight = second.weight.flatten(1)
    merged.weight.copy_((weight @ first.weight.flatten(1))[..., None, None])
    merged.bias = nn.Parameter(weight @ cast(Tensor, first.bias) + cast(Tensor, second.bias), requires_grad=False)
    return merged
