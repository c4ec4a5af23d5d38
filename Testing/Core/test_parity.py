"""Our models compute what the reference implementations compute."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from MedSAMSlicerLib.model import MedSAM, build_model, load_checkpoint
from reference_models import decode, lite_medsam, sam_vit_b

TOLERANCE = 1e-4


def close(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
    """Compare logits and IoU."""
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, atol=TOLERANCE, rtol=0)


def prompts(size: int) -> dict[str, dict[str, object]]:
    """Every kind of prompt, for an input of the given side."""
    boxes = torch.tensor([[0.1, 0.2, 0.5, 0.6], [0.0, 0.0, 1.0, 1.0], [0.4, 0.5, 0.45, 0.52]]) * size
    coords = torch.tensor([[[0.3, 0.4], [0.7, 0.2]]]).repeat(3, 1, 1) * size
    labels = torch.tensor([[1, 0], [1, 1], [1, -1]])
    masks = torch.linspace(-10, 10, 256 * 256).view(1, 1, 256, 256) * torch.tensor([1.0, -1.0, 0.5]).view(3, 1, 1, 1)
    return {
        "one box": {"boxes": boxes[:1]},
        "boxes": {"boxes": boxes},
        "points": {"points": (coords, labels)},
        "boxes and points": {"boxes": boxes, "points": (coords, labels)},
        "masks": {"masks": masks},
        "boxes and masks": {"boxes": boxes, "masks": masks},
        "alternatives": {"points": (coords, labels), "multimask": True},
    }


@pytest.fixture(scope="module")
def image() -> Tensor:
    """A smooth random image in [0, 1], the range that MedSAM is given, (1, 3, 256, 256)."""
    noise = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(noise, (256, 256), mode="bicubic").clamp(0, 1)


@pytest.fixture(scope="module")
def lite_reference(lite_wheel: Path, lite_weights: Path) -> nn.Module:
    return lite_medsam(lite_wheel, lite_weights)


@pytest.fixture(scope="module")
def embedding(lite_reference: nn.Module, image: Tensor) -> Tensor:
    with torch.no_grad():
        return lite_reference.image_encoder(image)


@pytest.fixture(scope="module", params=["as loaded", "prepared for inference"])
def lite(request: pytest.FixtureRequest, lite_weights: Path) -> MedSAM:
    model = load_checkpoint(lite_weights)
    return model.prepare_for_inference() if request.param == "prepared for inference" else model


@torch.inference_mode()
def test_litemedsam_gives_the_reference_embedding(lite: MedSAM, image: Tensor, embedding: Tensor) -> None:
    torch.testing.assert_close(lite.encode(image), embedding, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kind", prompts(256))
@torch.inference_mode()
def test_litemedsam_gives_the_reference_masks(
    lite: MedSAM, lite_reference: nn.Module, embedding: Tensor, kind: str
) -> None:
    prompt = prompts(256)[kind]
    close(lite.decode(embedding, **prompt), decode(lite_reference, embedding, **prompt))


@torch.inference_mode()
def test_prompts_in_several_images_give_what_they_give_one_by_one(lite: MedSAM, embedding: Tensor) -> None:
    embeddings = torch.cat([embedding, embedding.flip(-1)])
    boxes = prompts(256)["boxes"]["boxes"][:2]
    logits, iou = lite.decode(embeddings, boxes)
    for index in range(2):
        one = slice(index, index + 1)
        close((logits[one], iou[one]), lite.decode(embeddings[one], boxes[one]))


def with_random_positions(model: nn.Module) -> nn.Module:
    """Make every parameter matter: SAM starts the positions at zero."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "rel_pos" in name or "pos_embed" in name:
                parameter.normal_(std=0.2)
    return model


@torch.inference_mode()
def test_vit_b_gives_what_sam_gives() -> None:
    torch.manual_seed(0)
    reference = with_random_positions(sam_vit_b())
    ours = build_model("vit_b").eval()
    ours.load_state_dict(reference.state_dict())
    images = torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(1))
    embedding = reference.image_encoder(images)
    torch.testing.assert_close(ours.encode(images), embedding, atol=TOLERANCE, rtol=0)
    for kind in ("boxes", "points"):
        close(ours.decode(embedding, **prompts(1024)[kind]), decode(reference, embedding, **prompts(1024)[kind]))


@pytest.mark.parametrize("architecture", ["tiny", "lite"])
def test_the_fast_ways_of_inference_compute_what_training_computes(architecture: str) -> None:
    model = with_random_positions(build_model(architecture)).eval()
    images = torch.rand(2, 3, model.image_size, model.image_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model.encode(images)
    with torch.inference_mode():
        torch.testing.assert_close(model.encode(images), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.safetensors"])
@torch.inference_mode()
def test_a_small_hugging_face_model_gives_the_same_from_our_loader(tmp_path: Path, file: str) -> None:
    reference = hugging_face_sam(image_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                                 mlp_dim=128, window_size=3, global_attn_indexes=[1])  # fmt: skip
    ours = saved_and_loaded(reference, tmp_path, file)
    assert (ours.architecture, ours.preprocessing) == ("tiny", "sam")
    same_as_hugging_face(ours, reference)


@torch.inference_mode()
def test_vit_b_gives_what_hugging_face_gives(tmp_path: Path) -> None:
    reference = hugging_face_sam()
    ours = saved_and_loaded(reference, tmp_path, "model.safetensors")
    assert (ours.architecture, ours.preprocessing) == ("vit_b", "sam")
    same_as_hugging_face(ours.prepare_for_inference(), reference)


def hugging_face_sam(image_size: int = 1024, **vision: object) -> nn.Module:
    from transformers import SamConfig, SamModel

    torch.manual_seed(0)
    prompt = {"image_size": image_size, "image_embedding_size": image_size // 16}
    config = SamConfig(vision_config={"image_size": image_size, **vision}, prompt_encoder_config=prompt)
    return with_random_positions(SamModel(config)).eval()


def saved_and_loaded(reference: nn.Module, folder: Path, file: str) -> MedSAM:
    if file == "model.safetensors":
        reference.save_pretrained(folder)
    else:
        torch.save(reference.state_dict(), folder / file)
    return load_checkpoint(folder / file)


def same_as_hugging_face(ours: MedSAM, reference: nn.Module) -> None:
    size = ours.image_size
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    embedding = reference.get_image_embeddings(images)
    if isinstance(embedding, tuple):
        embedding = embedding[0]
    torch.testing.assert_close(ours.encode(images), embedding, atol=TOLERANCE, rtol=0)
    boxes = prompts(size)["boxes"]["boxes"]
    coords, labels = prompts(size)["points"]["points"]
    for given, theirs in (
        ({"boxes": boxes}, {"input_boxes": boxes[None]}),
        ({"points": (coords, labels)}, {"input_points": coords[None], "input_labels": labels[None]}),
    ):
        expected = reference(image_embeddings=embedding, multimask_output=False, **theirs)
        close(ours.decode(embedding, **given), (expected.pred_masks[0], expected.iou_scores[0]))


def test_training_reaches_every_parameter_that_counts() -> None:
    model = build_model("tiny")
    embeddings = model.encode(torch.rand(2, 3, 64, 64))
    coords = torch.tensor([[[10.0, 20], [30, 40], [0, 0]]]).repeat(2, 1, 1)
    points = (coords, torch.tensor([[1, 0, -1], [1, 0, -1]]))
    single = model.decode(embeddings, torch.tensor([[5.0, 6, 40, 50], [1, 2, 30, 40]]))
    several = model.decode(embeddings, points=points, masks=torch.rand(2, 1, 16, 16), multimask=True)
    sum(output.square().mean() for output in (*single, *several)).backward()
    unreached = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # To all logits of a softmax they add the same.
    assert len(unreached) == 3
    assert all(name.endswith("token_to_image.k_proj.bias") for name in unreached)


def test_litemedsam_trains_as_the_reference_does(lite_weights: Path, lite_reference: nn.Module, image: Tensor) -> None:
    ours, theirs = load_checkpoint(lite_weights).train(), copy.deepcopy(lite_reference).train()
    ours.encode(image).square().mean().backward()
    theirs.image_encoder(image).square().mean().backward()
    for name, parameter in theirs.image_encoder.named_parameters():
        gradient = ours.image_encoder.get_parameter(name).grad
        scale = max(float(parameter.grad.abs().max()), 1e-6)
        torch.testing.assert_close(gradient / scale, parameter.grad / scale, atol=1e-3, rtol=0, msg=name)
    # Batch norms are alive: one batch in training mode has moved their statistics, and by the same amount.
    for name, expected in theirs.image_encoder.named_buffers():
        if "running" in name:
            torch.testing.assert_close(ours.image_encoder.get_buffer(name), expected, atol=TOLERANCE, rtol=1e-4)
    assert ours.image_encoder.get_buffer("patch_embed.seq.0.bn.num_batches_tracked") == 1 + int(
        lite_reference.image_encoder.get_buffer("patch_embed.seq.0.bn.num_batches_tracked")
    )


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "no prompt"),
        ({"boxes": torch.zeros(2, 4), "masks": torch.zeros(3, 1, 16, 16)}, "numbers of prompts differ"),
    ],
)
def test_prompts_that_do_not_fit_together_are_refused(given: dict[str, Tensor], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        build_model("tiny").decode(torch.zeros(1, 256, 4, 4), **given)


def test_an_image_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 3, 32, 32\).*takes \(B, 3, 64, 64\)"):
        build_model("tiny").encode(torch.zeros(1, 3, 32, 32))


def test_an_unknown_architecture_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'vit_x' is unknown: give one of lite, vit_b"):
        build_model("vit_x")


def test_tiny_has_the_same_weights_on_every_call() -> None:
    torch.manual_seed(5)
    first = build_model("tiny").state_dict()
    second = build_model("tiny").state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
