"""MedSAM2's mask decoder is fine-tuned as the others' are, and what it remembers with stays as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from made_up_site import job_in
from MedSAMSlicerLib.inference.tracking_predictor import TrackingPredictor
from MedSAMSlicerLib.loading import load_predictor
from MedSAMSlicerLib.model import load_checkpoint, save_checkpoint
from MedSAMSlicerLib.training.fine_tuning import Job, fine_tune
from MedSAMSlicerLib.training.losses import sample_losses
from tiny_tracker import tiny_network, tiny_tracker

FROZEN = (
    "image_encoder", "sam_prompt_encoder", "memory_", "maskmem", "no_", "obj_ptr", "mask_downsample",
    "sam_mask_decoder.conv_s", "sam_mask_decoder.obj_score", "sam_mask_decoder.pred_obj_score",
)  # fmt: skip


def tracker_job(folder: Path, depth: str = "decoder", **changes: object) -> Job:
    """Ask for a short run from a model that finds nothing, so that whatever is learned is better."""
    job = job_in(folder, depth, **changes)
    model = tiny_network()
    with torch.no_grad():
        for mask in model.sam_mask_decoder.output_hypernetworks_mlps:
            mask.layers[2].weight.zero_()
            mask.layers[2].bias.zero_()
    save_checkpoint(model, folder / "base.pth")
    return job


def test_the_decoder_learns_a_sites_structures_and_the_memory_stays_as_it_was(tmp_path):
    outcome = fine_tune(tracker_job(tmp_path, epochs=3))
    assert outcome.output is not None
    assert outcome.best["validation_per_slice_dice"] > outcome.base["validation_per_slice_dice"] + 0.05
    before, after = (load_checkpoint(tmp_path / name).state_dict() for name in ("base.pth", "tuned.pth"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not [name for name in changed if name.startswith(FROZEN)]
    learned = [f"sam_mask_decoder.output_hypernetworks_mlps.{mask}.layers.2.weight" in changed for mask in range(4)]
    assert learned[0]
    # Slices without a box choose among the alternatives, which must not be left behind.
    assert any(learned[1:])


def test_the_tuned_model_follows_structures_as_its_base_does(tmp_path):
    fine_tune(tracker_job(tmp_path, epochs=3))
    predictor = load_predictor(str(tmp_path / "tuned.pth"), "cpu")
    assert isinstance(predictor, TrackingPredictor)
    image = np.zeros((40, 48), dtype=np.uint8)
    seen = predictor.see_mask(predictor.encode(image), image == 0)
    followed = predictor.follow(predictor.encode(image), [(1, seen.memory)], [], 2)
    assert followed.probability.shape == image.shape


@pytest.mark.parametrize("depth", ["adapter", "full"])
def test_what_else_could_be_trained_is_refused(tmp_path, depth):
    with pytest.raises(ValueError, match=r"only the mask decoder can be fine-tuned: give the depth decoder instead of"):
        fine_tune(tracker_job(tmp_path, depth))
    assert not (tmp_path / "tuned.run").exists()


def test_training_sees_the_single_mask_that_a_user_sees():
    network, predictor = tiny_network().eval(), tiny_tracker()
    image = torch.rand(1, 3, 128, 128)
    box = torch.tensor([[20.0, 30.0, 90.0, 100.0]])
    with torch.no_grad():
        logits, iou = network.masks_to_train(network.encode(image), box)
        embedding = predictor.network.encode(image)
        shown, estimate = predictor.network.decode(embedding, box)
    assert logits.shape == (1, 4, 32, 32)
    # The single mask, or the best alternative where it is not stable.
    best = int(iou[0, 1:].argmax()) + 1
    assert any(torch.allclose(logits[:, [which]], shown, atol=1e-4) for which in (0, best))
    assert any(torch.allclose(iou[:, [which]], estimate, atol=1e-5) for which in (0, best))


def test_the_best_alternative_counts_and_the_others_do_not():
    preprocessing = tiny_tracker().recipe
    mask = torch.zeros(128, 128)
    mask[30:90, 40:100] = 1
    right = (mask[::4, ::4] * 20 - 10)[None]
    logits = torch.stack([right, -right, right, -right], dim=1).requires_grad_(True)
    iou = torch.ones(1, 4)
    sample_losses(logits, iou, [mask], preprocessing, with_iou=True).sum().backward()
    gradient = logits.grad.abs().sum(dim=(0, 2, 3))
    assert gradient[0] > 0
    assert gradient[2] > 0
    assert gradient[1] == 0
    assert gradient[3] == 0
