"""The loss of a mask: lower for a better one, with a gradient however wrong the model is."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from MedSAMSlicerLib.inference.recipes import RECIPES
from MedSAMSlicerLib.training.losses import sample_losses

LITE = RECIPES["lite"](256)


@pytest.fixture
def mask() -> torch.Tensor:
    mask = torch.zeros(200, 150)
    mask[40:90, 30:100] = 1
    return mask


def logits_of(mask: torch.Tensor, size: float) -> torch.Tensor:
    """Lay a mask into the padded square of LiteMedSAM, sure by a given logit."""
    square = torch.full((1, 1, 256, 256), -size)
    fitted = F.interpolate(mask[None, None], (256, 192))
    square[..., :192] = size * (2 * fitted - 1)
    return square


@pytest.mark.parametrize("name", ["lite", "medsam", "sam"])
def test_the_loss_falls_as_the_mask_fits_for_every_preprocessing(name, mask):
    recipe = RECIPES[name](256)
    logits = torch.zeros(1, 1, 256, 256, requires_grad=True)
    iou = torch.zeros(1, 1)
    losses = []
    for _ in range(20):
        loss = sample_losses(logits, iou, [mask], recipe, with_iou=False)[0]
        losses.append(float(loss.detach()))
        (gradient,) = torch.autograd.grad(loss, logits)
        logits = (logits - 20000 * gradient).detach().requires_grad_()
    assert losses[-1] < 0.3 * losses[0]
    found = recipe.restoration((200, 150), 256)(logits.detach())[0] > 0.5
    assert 2 * (found & (mask > 0)).sum() / (found.sum() + mask.sum()) > 0.95


def test_it_is_the_official_loss_on_a_slice_of_the_models_own_size():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 1, 256, 256, generator=generator)
    masks = (torch.rand(2, 256, 256, generator=generator) > 0.7).float()
    found = logits[:, 0].sigmoid()
    overlap = 2 * (found * masks).sum((1, 2)) + 1e-5
    dice = 1 - overlap / ((found**2).sum((1, 2)) + (masks**2).sum((1, 2)) + 1e-5)
    cross_entropy = F.binary_cross_entropy_with_logits(logits[:, 0], masks, reduction="none").mean((1, 2))
    hits, true = found > 0.5, masks > 0.5
    iou = (hits & true).sum((1, 2)) / (hits | true).sum((1, 2))
    ours = sample_losses(logits, torch.full((2, 1), 0.4), list(masks), LITE, with_iou=True)
    torch.testing.assert_close(ours, dice + cross_entropy + (0.4 - iou) ** 2)


@pytest.mark.parametrize("sure", [5.0, 20.0, 60.0])
def test_a_model_that_is_surely_wrong_still_learns(sure, mask):
    logits = logits_of(1 - mask, sure).requires_grad_()
    sample_losses(logits, torch.zeros(1, 1), [mask], LITE, with_iou=False).sum().backward()
    inside = logits.grad[0, 0, 60:100, 50:110]
    assert inside.max() < 0
    assert torch.isfinite(logits.grad).all()


def test_the_estimated_iou_is_drawn_toward_the_true_one(mask):
    estimate = torch.tensor([[0.2]], requires_grad=True)
    sample_losses(logits_of(mask, 10.0), estimate, [mask], LITE, with_iou=True).sum().backward()
    assert estimate.grad < 0
