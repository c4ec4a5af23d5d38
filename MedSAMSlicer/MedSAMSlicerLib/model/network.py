"""What every model offers, whatever is in it: an image becomes an embedding, an embedding and boxes become masks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from MedSAMSlicerLib.model.mask_decoder import Window


class Network(nn.Module):
    """A model of our `architectures`; the parameters are named as in the official checkpoints.

    :param architecture: its name in `architectures.ARCHITECTURES`.
    :param preprocessing: the recipe of `inference.recipes` that the weights were trained with.
    :param image_size: side of the square input in pixels.

    ``metadata`` holds what the author of the weights saved with them (see `checkpoint.save_checkpoint`), ``source``
    which files they are from, where that is known (see `loading.load_model`).
    """

    image_encoder: nn.Module

    def __init__(self, architecture: str, preprocessing: str, image_size: int) -> None:
        super().__init__()
        self.architecture = architecture
        self.preprocessing = preprocessing
        self.image_size = image_size
        self.metadata: dict[str, Any] = {}
        self.source: dict[str, str] = {}
        self.prepared = False

    @property
    def embedding_shape(self) -> tuple[int, int, int]:
        """Return the shape of an image's embedding, (C, h, w); its first 256 channels are what the transformer sees."""
        raise NotImplementedError

    def encode(self, images: Tensor) -> Tensor:
        """Embed preprocessed images (B, 3, S, S), S = image_size: (B, C, h, w).

        :raises ValueError: if the images have another shape.
        """
        size = self.image_size
        if images.ndim != 4 or images.shape[1:] != (3, size, size):
            raise ValueError(
                f"The images have the shape {tuple(images.shape)}, but {self.architecture} takes "
                f"(B, 3, {size}, {size}): preprocess them with the model's recipe first."
            )
        return self.embed(images)

    def embed(self, images: Tensor) -> Tensor:
        """Embed images of the right shape."""
        raise NotImplementedError

    def decode(self, embeddings: Tensor, boxes: Tensor, *, window: Window | None = None) -> tuple[Tensor, Tensor]:
        """Predict the masks of N boxes, all in one image or each in its own.

        :param embeddings: what `encode` made, (1, C, h, w) or (N, C, h, w).
        :param boxes: (N, 4) as x0, y0, x1, y1 in pixels of the preprocessed image.
        :param window: rows and columns of the embedding to which the masks are confined, which saves time.
        :return: logits (N, 1, 4 * h, 4 * w) and the model's estimate of their IoU (N, 1).
        """
        raise NotImplementedError

    def masks_to_train(self, embeddings: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Predict all masks of each box that training has to keep right: logits (N, M, 4 * h, 4 * w), and IoU (N, M).

        The first one is that of `decode`; of the others, if there are any, one at least should be right.
        """
        return self.decode(embeddings, boxes)

    @torch.no_grad()
    def prepare_for_inference(self) -> Network:
        """Make the model fast, for good: it computes the same, but can neither be trained nor saved afterward.

        Switches to eval mode without gradients, merges layers where that is possible, stores convolution weights
        channels-last, and keeps the position tables that otherwise are looked up on every call. Return the model.
        """
        if not self.prepared:
            self.eval().requires_grad_(False)
            self.merge_layers()
            for module in self.modules():
                if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                    module.weight.data = module.weight.contiguous(memory_format=torch.channels_last)
            self.prepared = True
        return self

    def merge_layers(self) -> None:
        """Merge layers and keep position tables, for `prepare_for_inference`."""
        raise NotImplementedError
