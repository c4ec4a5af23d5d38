"""How far predicted masks are from the expert's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from MedSAMSlicerLib.inference.predictor import way_back
from MedSAMSlicerLib.inference.recipes import Recipe as Preprocessing

# Models whose head that estimates the masks' IoU was trained; MedSAM's was not.
WITH_IOU = ("lite",)
_SMOOTH = 1e-5
_LEAST = 1e-30


def sample_losses(
    logits: Tensor, iou: Tensor, masks: Sequence[Tensor], preprocessing: Preprocessing, *, with_iou: bool
) -> Tensor:
    """Compute soft Dice + binary cross-entropy (+ squared error of the estimated IoU) of each sample: (N,).

    The terms and their equal weights are those of MedSAM's and LiteMedSAM's train_one_gpu.py (monai's DiceLoss with
    squared_pred). They are taken where the user sees the mask, at the slice's own resolution.

    :param logits: (N, 1, h, w).
    :param iou: the model's estimate, (N, 1).
    :param masks: the expert's, float (rows, columns) each, in 0..1.
    """
    losses = []
    for logit, estimate, mask in zip(logits.float().split(1), iou.float(), masks, strict=True):
        size = (mask.shape[0], mask.shape[1])
        _, restoration = way_back(preprocessing, size, logit.shape[-1], None, logit.device)
        inside = restoration(logit)[0]
        # Of the negated logits, as 1 - inside has no digits left where the model is sure, and so no gradient.
        outside = restoration(-logit)[0]
        cross_entropy = -(mask * (inside + _LEAST).log() + (1 - mask) * (outside + _LEAST).log()).mean()
        overlap = 2 * (inside * mask).sum() + _SMOOTH
        loss = 1 - overlap / ((inside**2).sum() + (mask**2).sum() + _SMOOTH) + cross_entropy
        if with_iou:
            found, true = inside > 0.5, mask > 0.5
            actual = (found & true).sum() / (found | true).sum().clamp(min=1)
            loss = loss + (estimate[0] - actual) ** 2
        losses.append(loss)
    return torch.stack(losses)
