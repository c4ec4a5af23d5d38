"""MedSAM: image encoder, prompt encoder and mask decoder."""

from __future__ import annotations

from torch import Tensor, nn

from MedSAMSlicerLib.model.layers import MLPBlock
from MedSAMSlicerLib.model.mask_decoder import MaskDecoder, Window
from MedSAMSlicerLib.model.network import Network
from MedSAMSlicerLib.model.prompt_encoder import Points, PromptEncoder
from MedSAMSlicerLib.model.tiny_vit import ConvBN, WindowAttention
from MedSAMSlicerLib.model.transformer import TwoWayTransformer
from MedSAMSlicerLib.model.vit import Attention


def _two_layers() -> nn.Module:
    return MLPBlock(256, 2048, nn.ReLU())


class MedSAM(Network):
    """Segment what a box, points or a mask point out (Ma et al., "Segment anything in medical images", 2024).

    :param stride: input pixels per embedding pixel.
    """

    def __init__(
        self, architecture: str, preprocessing: str, image_encoder: nn.Module, image_size: int, stride: int
    ) -> None:
        super().__init__(architecture, preprocessing, image_size)
        self.image_encoder = image_encoder
        self.prompt_encoder = PromptEncoder(image_size, image_size // stride)
        self.mask_decoder = MaskDecoder(TwoWayTransformer(2, 256, num_heads=8, mlp=_two_layers))

    @property
    def embedding_shape(self) -> tuple[int, int, int]:
        """Return (256, h, w)."""
        side = self.prompt_encoder.embedding_size
        return 256, side, side

    def embed(self, images: Tensor) -> Tensor:
        """Embed images (B, 3, S, S): (B, 256, h, w)."""
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

    def merge_layers(self) -> None:
        """Fold batch norms into convolutions, and keep position tables."""
        for module in list(self.modules()):
            if isinstance(module, ConvBN):
                module.fold()
            elif isinstance(module, WindowAttention):
                module.keep_bias()
            elif isinstance(module, Attention):
                module.keep_tables()
        self.prompt_encoder.keep_dense_pe()
