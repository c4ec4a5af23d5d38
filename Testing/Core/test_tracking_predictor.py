"""The network that remembers slices: how a structure is followed by it, and what a slice is remembered by."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from MedSAMSlicerLib.inference.tracking_predictor import TrackingPredictor
from MedSAMSlicerLib.model import MedSAM2, build_model, layers
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.memory_propagation import propagate_memory
from MedSAMSlicerLib.volume.slice_stack import SliceStack
from sam2_reference import with_random_weights


@pytest.fixture(scope="module")
def network() -> TrackingPredictor:
    """The smallest network, with random weights that see something nearly everywhere."""
    model = with_random_weights(build_model("tiny_medsam2"))
    with torch.no_grad():
        model.sam_mask_decoder.pred_obj_score_head.layers[2].bias += 2
    return TrackingPredictor(model, device="cpu")


def copy_of(network: TrackingPredictor) -> MedSAM2:
    return copy.deepcopy(network.network)


def noise(length: int) -> SliceStack:
    voxels = np.random.default_rng(0).integers(0, 256, (length, 40, 30), dtype=np.uint8)
    return SliceStack(voxels, (1, 1, 5), axis="k", window="full")


@torch.inference_mode()
def test_the_network_follows_as_its_model_does_step_by_step(network) -> None:
    stack, boxes = noise(6), dict.fromkeys(range(6), Box(4, 6, 20, 30))
    results = {each.index: each for each in propagate_memory(stack, boxes, network, EmbeddingCache()) if not each.final}
    model, recipe = network.network, network.recipe
    tensors = [network.encode(stack.image(index)).tensor for index in range(6)]
    scaled = recipe.scale_boxes([Box(4, 6, 21, 31)], stack.shape)
    found = model.prompted(tensors[2], scaled)
    key = model.remembered(tensors[2], found, (model.enlarged(found.logits) > 0).float())
    past = []
    inside = np.s_[6:31, 4:21]
    for index in range(3, 6):
        found = model.followed(tensors[index], [(index - 2, key)], past, 6)
        past.insert(0, model.remembered(tensors[index], found))
        probability = recipe.restoration(stack.shape, 32)(found.logits)[0].numpy()
        np.testing.assert_array_equal(results[index].mask[inside], probability[inside] > 0.5)
        assert not np.delete(results[index].mask, np.s_[6:31], axis=0).any()
        assert results[index].iou == pytest.approx(float(found.iou), abs=1e-5)
        assert 0 < results[index].confidence < float(found.score.sigmoid())


def test_what_a_slice_is_remembered_by_is_small(network) -> None:
    embedding = network.encode(noise(1).image(0))
    sighting = network.see_box(embedding, Box(2, 2, 20, 20))
    assert embedding.nbytes == 1024 * 8 * 8 * 4
    assert sighting.memory.nbytes == 64 * 8 * 8 * 2 + 256 * 4


def test_a_painted_mask_is_kept_though_it_is_thinner_than_the_models_pixels(network) -> None:
    image = np.random.default_rng(0).integers(0, 256, (600, 700), dtype=np.uint8)
    mask = np.zeros((600, 700), dtype=bool)
    mask[300, 350] = True
    embedding = network.encode(image)
    assert network.see_mask(embedding, mask).presence > 0.99
    assert network.see_mask(embedding, np.zeros_like(mask)).presence < 0.01


@pytest.mark.parametrize("size", [(50, 70), (50, 70, 3)])
def test_a_slice_alone_is_segmented_as_by_any_predictor(network, size) -> None:
    image = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    embedding = network.encode(image)
    boxes = [Box(5, 6, 30, 25), Box(0, 0, 69, 49)]
    prediction = network.decode(embedding, boxes)
    assert prediction.probabilities.shape == (2, 50, 70)
    part = network.decode(embedding, boxes, np.s_[10:30, 20:66])
    np.testing.assert_allclose(part.probabilities, prediction.probabilities[:, 10:30, 20:66], atol=1e-5)
    np.testing.assert_allclose(network.see_box(embedding, boxes[0]).probability, prediction.probabilities[0], atol=1e-5)
    kept = network.unpack(network.pack(embedding).astype(np.float16), (50, 70))
    np.testing.assert_allclose(network.decode(kept, boxes).probabilities, prediction.probabilities, atol=0.02)


def test_half_precision_gives_nearly_the_same(network, monkeypatch) -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 70), dtype=np.uint8)
    half = TrackingPredictor(copy_of(network), device="cpu", precision="bfloat16")
    # What a GPU does: PyTorch's own products, of which autocast makes those of half precision.
    monkeypatch.setattr(layers, "_onednn", None)
    monkeypatch.setattr(TrackingPredictor, "_half", property(lambda self: self.precision == torch.bfloat16))
    found = []
    for predictor in (network, half):
        embedding = predictor.encode(image)
        key = predictor.see_box(embedding, Box(5, 6, 30, 25))
        found.append(predictor.follow(embedding, [(1, key.memory)], [key.memory] * 3, 9))
    single, halved = found
    assert halved.memory.map.dtype == torch.bfloat16
    assert halved.memory.pointer.dtype == torch.float32
    difference = np.abs(single.probability - halved.probability)
    assert 0 < difference.mean() < 0.02
