"""SAM 2's mask decoder: SAM's, with the encoder's finer maps and a judgment whether the object is there at all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from MedSAMSlicerLib.model.layers import MLP
from MedSAMSlicerLib.model.mask_decoder import MaskDecoder, Window, draw
from MedSAMSlicerLib.model.transformer import TwoWayTransformer

# A mask is stable if it changes by less than 2 % between the logits -0.05 and 0.05 (sam2/build_sam.py).
_STABILITY_DELTA, _STABLE = 0.05, 0.98


@dataclass(frozen=True)
class DecodedObject:
    """What the decoder makes of N prompts.

    :param logits: (N, 1, 4 * h, 4 * w), h and w of the embedding or of the window.
    :param iou: its own estimate of the masks' IoU with the truth, (N, 1).
    :param token: of the mask, (N, C).
    :param score: logit of the object being in the slice, (N, 1).
    """

    logits: Tensor
    iou: Tensor
    token: Tensor
    score: Tensor


class ObjectDecoder(MaskDecoder):
    """Predict masks (facebookresearch/sam2, modeling/sam/mask_decoder.py).

    ``details`` are the finer maps of a slice, pixel by pixel of its embedding: of each, twice two pixels with C / 4
    channels, then four times four with C / 8, in the order of `mask_decoder.Doubling`.
    """

    def __init__(self, dim: int = 256) -> None:
        super().__init__(TwoWayTransformer(2, dim, num_heads=8, mlp=lambda: MLP([dim, 2048, dim], "relu")), dim)
        self.obj_score_token = nn.Embedding(1, dim)
        self.conv_s0 = nn.Conv2d(dim, dim // 8, kernel_size=1)
        self.conv_s1 = nn.Conv2d(dim, dim // 4, kernel_size=1)
        self.pred_obj_score_head = MLP([dim, dim, dim, 1], "relu")
        self.split = (dim, 2 * dim)

    def details(self, fine: Tensor, middle: Tensor) -> Tensor:
        """Turn the encoder's maps (B, C, 4 * h, 4 * w) and (B, C, 2 * h, 2 * w) into details (B, h, w, 3 * C)."""
        fine, middle = self.conv_s0(fine), self.conv_s1(middle)
        quarters = middle.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).permute(0, 2, 4, 3, 5, 1)
        sixteenths = fine.unflatten(3, (-1, 2, 2)).unflatten(2, (-1, 2, 2)).permute(0, 2, 5, 3, 6, 4, 7, 1)
        return torch.cat([quarters.flatten(3), sixteenths.flatten(3)], dim=3)

    def forward(  # type: ignore[override]
        self,
        image: Tensor,
        details: Tensor,
        image_pe: Tensor,
        sparse: Tensor,
        dense: Tensor,
        multimask: bool,
        window: Window | None = None,
    ) -> DecodedObject:
        """Predict the mask of each of N prompts.

        :param image: embeddings (N or 1, C, h, w).
        :param details: (N or 1, h, w, 3 * C).
        :param image_pe: the positional encoding of the embedding (1, C, h, w).
        :param sparse: prompt tokens (N, T, C).
        :param dense: prompt maps, broadcastable to (N, C, h, w).
        :param multimask: choose the best of the three alternatives, as for a slice without a prompt of its own; else
            take the single mask, and the best alternative only where it is not stable.
        :param window: rows and columns of the embedding to which the masks are confined, None for all; in it they are
            the same.
        """
        tokens, logits, iou = self._masks(image, details, image_pe, sparse, dense)
        mask_tokens = tokens[:, 2:6]
        prompt = torch.arange(len(iou), device=iou.device)
        best = 1 + iou[:, 1:].argmax(dim=1)
        single = torch.zeros_like(best)
        # The pointer to an object that was prompted always is the single mask's.
        pointed, choice = (best, best) if multimask else (single, torch.where(_stable(logits[:, 0]), single, best))
        rows, columns = (slice(4 * part.start, 4 * part.stop) for part in window) if window else (slice(None),) * 2
        score = self.pred_obj_score_head(tokens[:, 0])
        return DecodedObject(
            logits[prompt, choice][:, None, rows, columns],
            iou[prompt, choice][:, None],
            mask_tokens[prompt, pointed],
            score,
        )

    def all_masks(
        self, image: Tensor, details: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Predict the single mask and its three alternatives of each prompt, for training; see `forward`.

        :return: logits (N, 4, 4 * h, 4 * w) and estimated IoU (N, 4).
        """
        _, logits, iou = self._masks(image, details, image_pe, sparse, dense)
        return logits, iou

    def _masks(
        self, image: Tensor, details: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return tokens (N, 6 + T, C), logits of all masks (N, 4, 4 * h, 4 * w), and their estimated IoU (N, 4)."""
        output_tokens = torch.cat([self.obj_score_token.weight, self.iou_token.weight, self.mask_tokens.weight])
        tokens, parts = self._attend(image + dense, image_pe, output_tokens, sparse)
        weights = self._weights(tokens[:, 2:6], range(4)).chunk(len(parts))
        size = (image.shape[2], image.shape[3])
        finer = details.expand(len(sparse), -1, -1, -1).flatten(1, 2).chunk(len(parts))
        logits = torch.cat(
            [
                draw(self._enlarge(part, *detail.split(self.split, dim=2)), weight, size)
                for part, detail, weight in zip(parts, finer, weights, strict=True)
            ]
        )
        return tokens, logits, self.iou_prediction_head(tokens[:, 1]).sigmoid()

    def _enlarge(self, image_tokens: Tensor, quarters: Tensor, sixteenths: Tensor) -> Tensor:
        """Enlarge image tokens (n, P, C), with the details of every pixel: (n, P * 16, C / 8)."""
        first, norm, act, second, last_act = self.output_upscaling
        doubled = first(image_tokens)
        doubled = act(norm(doubled + quarters.unflatten(2, (4, -1)).flatten(1, 2)))
        return last_act(second(doubled) + sixteenths.unflatten(2, (16, -1)).flatten(1, 2))


def _stable(logits: Tensor) -> Tensor:
    """Tell of masks (N, H, W) whether they depend little on the threshold: bool (N,); an empty one does not."""
    inner, outer = ((logits > limit).sum(dim=(1, 2)) for limit in (_STABILITY_DELTA, -_STABILITY_DELTA))
    return (inner / outer.clamp(min=1) >= _STABLE) | (outer == 0)
