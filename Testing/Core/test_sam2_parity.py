"""Our MedSAM2 computes what transformers' Sam2VideoModel does, with one state dict in the official names."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from MedSAMSlicerLib.model import ARCHITECTURES, MedSAM2
from MedSAMSlicerLib.model.hugging_face import from_hugging_face
from MedSAMSlicerLib.model.medsam2 import NO_OBJECT, Memory
from sam2_reference import load_official, sam2_backbone, sam2_video, track, with_random_weights

TOLERANCE = 1e-4
Pair = tuple[MedSAM2, nn.Module]


def pair(architecture: str, image_size: int | None = None, presence: float = 2.0) -> Pair:
    """Build our model and the reference with the same random weights.

    :param presence: added to the logit of the object being there.
    """
    torch.manual_seed(0)
    a = ARCHITECTURES[architecture]
    ours = MedSAM2(architecture, "medsam2", a.image_encoder(), image_size or a.image_size).eval()
    with_random_weights(ours)
    with torch.no_grad():
        ours.sam_mask_decoder.pred_obj_score_head.layers[2].bias += presence
    theirs = sam2_video(architecture, image_size)
    load_official(theirs, ours.state_dict())
    return ours, theirs


def close(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)


def slices(number: int, size: int) -> Tensor:
    """Random slices that change smoothly, as (number, 3, size, size)."""
    noise = torch.randn(1, 3, number // 4 + 2, 8, 8, generator=torch.Generator().manual_seed(1))
    return nn.functional.interpolate(noise, (number, size, size), mode="trilinear")[0].transpose(0, 1).contiguous()


def box_of(size: int) -> Tensor:
    return torch.tensor([0.2, 0.3, 0.6, 0.7]) * size


@torch.inference_mode()
def follow(model: MedSAM2, images: Tensor, start: int, reverse: bool) -> tuple[dict[int, Tensor], dict[int, Memory]]:
    """Follow what a box points out, with every memory there is."""
    embedding = model.encode(images[start : start + 1])
    found = model.prompted(embedding, box_of(model.image_size)[None])
    key = model.remembered(embedding, found, (model.enlarged(found.logits) > 0).float())
    logits, memories = {start: found.logits}, {start: key}
    past: list[Memory] = []
    for age, index in enumerate(range(start - 1, -1, -1) if reverse else range(start + 1, len(images)), start=1):
        embedding = model.encode(images[index : index + 1])
        found = model.followed(embedding, [(age, key)], past, len(images))
        past.insert(0, model.remembered(embedding, found))
        logits[index], memories[index] = found.logits, past[0]
    return logits, memories


@pytest.mark.parametrize("prepared", [False, True], ids=["as built", "prepared for inference"])
@pytest.mark.parametrize("architecture", ["tiny_medsam2", "medsam2"])
@torch.inference_mode()
def test_image_features_are_the_references(architecture: str, prepared: bool) -> None:
    ours, theirs = pair(architecture)
    if prepared:
        ours.prepare_for_inference()
    image = slices(1, ours.image_size)
    fine, middle, embedding = (
        each.permute(1, 2, 0).unflatten(2, (side, side))
        for each, side in zip(
            theirs.get_image_features(image).fpn_hidden_states,
            (ours.image_size // stride for stride in (4, 8, 16)),
            strict=True,
        )
    )
    found = ours.encode(image)
    close(found[:, :256], embedding)
    # Pixel by pixel of the embedding, the finer maps follow: the pixel (1, 2) has these.
    close(found[0, 256:512, 1, 2].view(2, 2, 64), middle[0, :, 2:4, 4:6].permute(1, 2, 0))
    sixteen = found[0, 512:, 1, 2].view(2, 2, 2, 2, 32).transpose(1, 2).reshape(4, 4, 32)
    close(sixteen, fine[0, :, 4:8, 8:12].permute(1, 2, 0))


@pytest.mark.parametrize("architecture", ["sam2_small", "sam2_base_plus", "sam2_large"])
@torch.inference_mode()
def test_the_larger_trunks_are_the_references(architecture: str) -> None:
    from transformers import AutoModel

    torch.manual_seed(0)
    trunk = with_random_weights(ARCHITECTURES[architecture].image_encoder()).eval()
    # Its own random weights, of up to 212 million parameters, are not made.
    with torch.device("meta"):
        theirs = AutoModel.from_config(sam2_backbone(architecture)).eval()
    official = trunk.state_dict()
    theirs.load_state_dict({name: official[_official(name)] for name in theirs.state_dict()}, assign=True)
    image = slices(1, 256)
    expected = theirs(image).intermediate_hidden_states
    for found, their in zip(trunk(image), expected, strict=True):
        close(found, their.permute(0, 3, 1, 2))


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("presence", [2.0, -2.0], ids=["present", "absent"])
@torch.inference_mode()
def test_masks_and_memories_of_twenty_slices_are_the_references(presence: float, reverse: bool) -> None:
    ours, theirs = pair("tiny_medsam2", presence=presence)
    images = slices(20, ours.image_size)
    start = 18 if reverse else 1
    logits, memories = follow(ours, images, start, reverse)
    expected, kept = track(theirs, images, start, box_of(ours.image_size), reverse)
    assert logits.keys() == expected.keys() == memories.keys()
    assert len(logits) == 19
    for index in logits:
        assert bool((logits[index] == NO_OBJECT).all()) == (presence < 0)
        close(logits[index], expected[index])
        maps, pointer = kept[index]
        close(memories[index].map.float()[0], maps.float()[:, 0], tolerance=0.02)
        close(memories[index].pointer, pointer[0])


# The trunk is small here, the rest is as large as it is.
@pytest.mark.parametrize(
    ("size", "number", "start", "reverse"),
    [(512, 20, 10, False), (512, 20, 10, True), (1024, 3, 1, False), (1024, 3, 1, True)],
)
@torch.inference_mode()
def test_masks_of_the_real_sizes_are_the_references(size: int, number: int, start: int, reverse: bool) -> None:
    ours, theirs = pair("tiny_medsam2", size)
    ours.prepare_for_inference()
    images = slices(number, size)
    logits, _ = follow(ours, images, start, reverse)
    expected, _ = track(theirs, images, start, box_of(size), reverse)
    assert logits.keys() == expected.keys()
    for index in logits:
        assert (logits[index] > NO_OBJECT).all()
        close(logits[index], expected[index])


@torch.inference_mode()
def test_boxes_of_a_slice_decode_together_and_in_a_window_as_the_reference_does_one_by_one() -> None:
    ours, theirs = pair("tiny_medsam2")
    image = slices(1, ours.image_size)
    boxes = torch.tensor([[0.2, 0.3, 0.6, 0.7], [0.0, 0.0, 1.0, 1.0], [0.4, 0.5, 0.45, 0.52]]) * ours.image_size
    embedding = ours.encode(image)
    logits, iou = ours.decode(embedding, boxes)
    window = (slice(2, 5), slice(1, 8))
    part, same_iou = ours.decode(embedding, boxes, window=window)
    close(part, logits[..., 8:20, 4:32])
    close(same_iou, iou)
    for index, box in enumerate(boxes):
        points, labels = box.view(1, 1, 2, 2), torch.tensor([[[2, 3]]])
        found = theirs._single_frame_forward(image, points, labels, multimask_output=False)
        close(logits[index], found.pred_masks[0])
        close(iou[index], found.iou_scores[0, 0])


@pytest.mark.parametrize("stable", [True, False])
@torch.inference_mode()
def test_only_a_stable_single_mask_is_taken(stable: bool) -> None:
    ours, theirs = pair("tiny_medsam2")
    if stable:
        # Logits that are all far from zero: nothing depends on the threshold.
        ours.sam_mask_decoder.output_hypernetworks_mlps[0].layers[2].weight *= 1e4
        load_official(theirs, ours.state_dict())
    image, box = slices(1, ours.image_size), box_of(ours.image_size)
    points, labels = box.view(1, 1, 2, 2), torch.tensor([[[2, 3]]])
    found = theirs._single_frame_forward(image, points, labels, multimask_output=False)
    logits, iou = ours.decode(ours.encode(image), box[None])
    torch.testing.assert_close(logits[0], found.pred_masks[0], atol=TOLERANCE, rtol=1e-3)
    close(iou[0], found.iou_scores[0, 0])
    assert bool(logits.abs().max() > 100) == stable


@pytest.mark.parametrize("empty", [False, True])
@torch.inference_mode()
def test_a_mask_that_was_painted_is_taken_for_what_is_there(empty: bool) -> None:
    ours, theirs = pair("tiny_medsam2")
    size = ours.image_size
    mask = torch.zeros(1, 1, size, size)
    if not empty:
        mask[..., 30:70, 20:90] = 1
    image = slices(1, size)
    embedding = ours.encode(image)
    features = [
        each.permute(1, 2, 0).unflatten(2, (size // stride, size // stride))
        for each, stride in zip(theirs.get_image_features(image).fpn_hidden_states, (4, 8, 16), strict=True)
    ]
    found = ours.given(embedding, mask)
    expected = theirs._use_mask_as_output(features[2], features[:2], mask)
    close(found.logits, expected.pred_masks)
    close(found.score, expected.object_score_logits[0])
    # For the pointer, transformers takes the best of three masks, the official code the single one.
    prompt = theirs.mask_downsample(mask)
    single = theirs._single_frame_forward(input_masks=prompt, image_embeddings=features, multimask_output=False)
    close(found.pointer, theirs.no_object_pointer if empty else single.object_pointer[0])
    tokens = features[2].flatten(2).permute(2, 0, 1)
    kept, _ = theirs._encode_new_memory(tokens, expected.high_res_masks, expected.object_score_logits, True)
    close(ours.remembered(embedding, found, mask).map.float()[0], kept.float()[:, 0], tolerance=0.02)


def _official(name: str) -> str:
    """Translate a name of the trunk."""
    prefix = "vision_encoder.backbone."
    return next(iter(from_hugging_face({prefix + name: torch.zeros(1)}))).removeprefix("image_encoder.trunk.")
