"""How far predicted masks are from the expert's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from MedSAMSlicerLib.inference.recipes import Recipe as Preprocessing

# Models whose head that estimates the masks' IoU was trained; MedSAM's was not. MedSAM2 chooses by it wherever a slice
# has no box.
WITH_IOU = ("lite", "medsam2", "sam2_tiny", "sam2_small", "sam2_base_plus", "sam2_large", "tiny_medsam2")
_SMOOTH = 1e-5
_LEAST = 1e-30


def sample_losses(
    logits: Tensor, iou: Tensor, masks: Sequence[Tensor], preprocessing: Preprocessing, *, with_iou: bool
) -> Tensor:
    """Compute soft Dice + binary cross-entropy (+ squared error of the estimated IoU) of each sample: (N,).

    The terms and their equal weights are those of MedSAM's and LiteMedSAM's train_one_gpu.py (monai's DiceLoss with
    squared_pred). They are taken where the user sees the mask, at the slice's own resolution.

    Where a model gives alternatives beside the first mask, the best of them counts as well, as in SAM 2's training
    (training/loss_fns.py), so that none of them has to be all that the box may mean.

    :param logits: (N, M, h, w).
    :param iou: the model's estimate, (N, M).
    :param masks: the expert's, float (rows, columns) each, in 0..1.
    """
    losses = []
    for logit, estimate, mask in zip(logits.float(), iou.float(), masks, strict=True):
        each = _mask_losses(logit[:, None], estimate, mask, preprocessing, with_iou=with_iou)
        losses.append(each[0] + each[1:].min() if len(each) > 1 else each[0])
    return torch.stack(losses)


def _mask_losses(logits: Tensor, iou: Tensor, mask: Tensor, preprocessing: Preprocessing, *, with_iou: bool) -> Tensor:
    """Compute the loss of each of M masks (M, 1, h, w) of one sample: (M,)."""
    restoration = preprocessing.restoration((mask.shape[0], mask.shape[1]), logits.shape[-1])
    inside = restoration(logits)
    # Of the negated logits, as 1 - inside has no digits left where the model is sure, and so no gradient.
    outside = restoration(-logits)
    cross_entropy = -(mask * (inside + _LEAST).log() + (1 - mask) * (outside + _LEAST).log()).mean(dim=(1, 2))
    overlap = 2 * (inside * mask).sum(dim=(1, 2)) + _SMOOTH
    loss = 1 - overlap / ((inside**2).sum(dim=(1, 2)) + (mask**2).sum() + _SMOOTH) + cross_entropy
    if with_iou:
        found, true = inside > 0.5, mask > 0.5
        actual = (found & true).sum(dim=(1, 2)) / (found | true).sum(dim=(1, 2)).clamp(min=1)
        loss = loss + (iou - actual) ** 2
    return loss
