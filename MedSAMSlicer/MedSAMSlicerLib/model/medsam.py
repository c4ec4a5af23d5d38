"""MedSAM: image encoder, prompt encoder and mask decoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from MedSAMSlicerLib.model.mask_decoder import MaskDecoder, Window
from MedSAMSlicerLib.model.prompt_encoder import Points, PromptEncoder
from MedSAMSlicerLib.model.tiny_vit import ConvBN, WindowAttention
from MedSAMSlicerLib.model.transformer import TwoWayTransformer


class MedSAM(nn.Module):
    """Segment what a box, points or a mask point out (Ma et al., "Segment anything in medical images", 2024).

    The parameters are named as in the official checkpoints of SAM, MedSAM and LiteMedSAM.

    :param architecture: its name in `architectures.ARCHITECTURES`.
    :param preprocessing: the recipe of `inference.recipes` that the weights were trained with.
    :param image_size: side of the square input in pixels.
    :param stride: input pixels per embedding pixel.

    ``metadata`` holds what the author of the weights saved with them (see `checkpoint.save_checkpoint`).
    """

    def __init__(
        self, architecture: str, preprocessing: str, image_encoder: nn.Module, image_size: int, stride: int
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.preprocessing = preprocessing
        self.image_size = image_size
        self.metadata: dict[str, Any] = {}
        self.prepared = False
        self.image_encoder = image_encoder
        self.prompt_encoder = PromptEncoder(image_size, image_size // stride)
        self.mask_decoder = MaskDecoder(TwoWayTransformer(depth=2, embedding_dim=256, num_heads=8, mlp_dim=2048))

    def encode(self, images: Tensor) -> Tensor:
        """Embed preprocessed images (B, 3, S, S), S = image_size: (B, 256, h, w).

        :raises ValueError: if the images have another shape.
        """
        size = self.image_size
        if images.ndim != 4 or images.shape[1:] != (3, size, size):
            raise ValueError(
                f"The images have the shape {tuple(images.shape)}, but {self.architecture} takes "
                f"(B, 3, {size}, {size}): preprocess them with the model's recipe first."
            )
        return self.image_encoder(images)

    def decode(
        self,
        embeddings: Tensor,
        boxes: Tensor | None = None,
        points: Points | None = None,
        masks: Tensor | None = None,
        multimask: bool = False,
        window: Window | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Predict the masks of N prompts, all in one image or each in its own.

        :param embeddings: what `encode` made, (1, 256, h, w) or (N, 256, h, w).
        :param boxes: (N, 4) as x0, y0, x1, y1 in pixels of the preprocessed image.
        :param points: coordinates (N, P, 2) as x, y in the same pixels, and labels (N, P): 1 foreground, 0 background.
        :param masks: logits (N, 1, 4 * h, 4 * w) of an earlier prediction.
        :param multimask: give three alternatives per prompt instead of one mask.
        :param window: rows and columns of the embedding to which the masks are confined, which saves time.
        :return: logits (N, M, 4 * h, 4 * w) and the model's estimate of their IoU (N, M), M = 3 or 1.
        :raises ValueError: if no prompt is given, or if the prompts' and the embeddings' numbers differ.
        """
        prompts = {"boxes": boxes, "points": points and points[0], "masks": masks}
        counts = {name: len(prompt) for name, prompt in prompts.items() if prompt is not None}
        if not counts:
            raise ValueError("There is no prompt: give boxes, points or masks.")
        if len(set(counts.values())) > 1 or len(embeddings) not in (1, *counts.values()):
            raise ValueError(
                f"The numbers of prompts differ: {counts}, with {len(embeddings)} embeddings. "
                "Give as many of each kind, and one embedding or as many."
            )
        sparse, dense = self.prompt_encoder(boxes, points, masks)
        return self.mask_decoder(embeddings, self.prompt_encoder.dense_pe(), sparse, dense, multimask, window)

    @torch.no_grad()
    def prepare_for_inference(self) -> MedSAM:
        """Make the model fast, for good: it computes the same, but can neither be trained nor saved afterward.

        Switches to eval mode without gradients, folds batch norms into convolutions, stores convolution weights
        channels-last, and keeps the position tables that otherwise are looked up on every call. Return the model.
        """
        if self.prepared:
            return self
        self.eval().requires_grad_(False)
        for module in list(self.modules()):
            if isinstance(module, ConvBN):
                module.fold()
            elif isinstance(module, WindowAttention):
                module.keep_bias()
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.weight.data = module.weight.contiguous(memory_format=torch.channels_last)
        self.prompt_encoder.keep_dense_pe()
        self.prepared = True
        return self
