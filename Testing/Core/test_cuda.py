"""The way over an NVIDIA GPU, on a computer without one; see `fake_cuda`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from fake_cuda import Card, fake_cuda
from MedSAMSlicerLib.inference.predictor import Predictor
from MedSAMSlicerLib.model import build_model
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.training.distributed import Team
from MedSAMSlicerLib.training.loop import Loop
from MedSAMSlicerLib.training.outlines import Outline
from MedSAMSlicerLib.training.recipe import Recipe
from MedSAMSlicerLib.training.samples import Prepared, Sample
from MedSAMSlicerLib.training.trainee import Trainee
from MedSAMSlicerLib.training.variation import Variation
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="PyTorch's device guards have this name on Linux only")

# With its number: PyTorch would ask the card for it.
CARD = "cuda:0"
SLICE = np.zeros((50, 70), dtype=np.uint8)
BOX = Box(1, 2, 30, 40)
WINDOW = np.s_[5:40, 10:60]


@pytest.fixture
def cuda() -> Iterator[None]:
    with fake_cuda():
        yield


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("name", ["tiny", "lite"])
@pytest.mark.parametrize("window", [None, WINDOW], ids=["whole", "window"])
def test_a_slice_goes_to_the_gpu_and_its_masks_come_back(name, window):
    predictor = Predictor(build_model(name), device=CARD)
    assert {each.device.type for each in predictor.model.state_dict().values()} == {"cuda"}
    embedding = predictor.encode(SLICE)
    assert (embedding.tensor.device.type, embedding.tensor.dtype) == ("cuda", torch.float32)
    shape = SLICE.shape if window is None else (35, 50)
    # In three batches.
    assert predictor.decode(embedding, [BOX] * 130, window).probabilities.shape == (130, *shape)
    assert predictor.decode(embedding, [BOX], window).iou.shape == (1,)
    values, _ = predictor.features(embedding)
    assert values.shape[0] == 256


@pytest.mark.parametrize(
    ("capability", "precision"), [((9, 0), torch.bfloat16), ((8, 6), torch.bfloat16), ((7, 5), torch.float32)]
)
def test_a_vit_is_computed_in_the_precision_of_the_gpu(capability, precision):
    with fake_cuda(capability):
        predictor = Predictor(build_model("tiny"), device=CARD)
        assert {each.dtype for each in predictor.model.mask_decoder.parameters()} == {torch.float32}
        with Card() as card:
            embedding = predictor.encode(SLICE)
        assert {dtype for _, dtype in card.lengths} == {precision}
        assert embedding.tensor.dtype == torch.float32
        with Card() as card:
            predictor.decode(embedding, [BOX])
        assert {dtype for _, dtype in card.lengths} == {torch.float32}


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize(("name", "encoding", "decoding"), [("lite", 212, 152), ("vit_b", 339, 152)])
def test_no_more_kernels_are_started_than_were_counted(name, encoding, decoding):
    predictor, image = Predictor(build_model(name), device=CARD), np.zeros((512, 512), dtype=np.uint8)
    predictor.decode(predictor.encode(image), [BOX], WINDOW)
    with Card() as card:
        embedding = predictor.encode(image)
    assert card.kernels.total() <= encoding
    # What the fast kernels ask of half precision.
    assert not [length for length, dtype in card.lengths if dtype != torch.float32 and length % 8]
    with Card() as card:
        predictor.decode(embedding, [BOX] * 7, WINDOW)
    assert card.kernels.total() <= decoding


@pytest.mark.usefixtures("cuda")
def test_the_host_waits_for_the_gpu_no_more_than_it_must():
    predictor = Predictor(build_model("tiny"), device=CARD)
    predictor.decode(predictor.encode(SLICE), [BOX], WINDOW)
    with Card() as encoding:
        embedding = predictor.encode(SLICE)
    with Card() as decoding:
        predictor.decode(embedding, [BOX] * 130, WINDOW)
    # The slice's bytes; the boxes, and all masks at once.
    assert (encoding.to_card, encoding.to_host) == (1, 0)
    assert (decoding.to_card, decoding.to_host) == (1, 1)


@pytest.mark.usefixtures("cuda")
def test_an_embedding_holds_on_another_device_than_the_one_that_made_it():
    cache = EmbeddingCache()
    on_gpu, on_cpu = (Predictor(build_model("lite"), device=device) for device in (CARD, "cpu"))
    on_cpu.key = on_gpu.key = "the same weights"
    cache.prediction(on_gpu, SLICE, [BOX])
    with Card() as card:
        probabilities, _ = cache.prediction(on_cpu, SLICE, [Box(2, 2, 30, 40)])
    assert probabilities.shape == (1, *SLICE.shape)
    assert card.to_host == 1
    assert len(cache) == 1


@pytest.mark.parametrize(
    ("depth", "capability", "half"),
    [
        ("decoder", (8, 0), torch.bfloat16),
        ("adapter", (8, 0), torch.bfloat16),
        ("full", (8, 0), torch.bfloat16),
        ("full", (7, 5), torch.float16),
    ],
)
def test_a_step_of_the_training_is_made_on_the_gpu(depth, capability, half):
    """Without the way back of the gradients, which a build of PyTorch for CPUs can't take over fake tensors."""
    outline = Outline("case", "label", 0, (50, 70), (0, 0, 1, 1), b"", BOX, ())
    mask = np.ones((50, 70), dtype=bool)
    sample = Sample(outline, Variation(), mask, BOX)
    trainee = Trainee(build_model("tiny"), Recipe.of_depth(depth), "base", "")
    with fake_cuda(capability):
        loop = Loop(
            trainee, [None, None], None, Team(0, 1, torch.device(CARD)),
            embeddings=None, workers=0, tell=lambda progress: None, keep=lambda *args: None,
        )  # fmt: skip
        side, shape = trainee.model.image_size, trainee.model.embedding_shape
        tensor = torch.zeros(shape, dtype=torch.float16) if depth == "decoder" else torch.zeros(3, side, side)
        batch = [Prepared(sample, tensor, torch.tensor([1.0, 2.0, 30.0, 40.0])) for _ in range(3)]
        loop._enter(0)
        loop._gradients(batch, 1)
        with Card() as card:
            assert loop._gradients(batch, 1) == 0
        # The slices, the boxes and the masks; the losses.
        assert (card.to_card, card.to_host) == (3, 1)
        assert card.products[half] > 20
        for parameter in trainee.trained().values():
            parameter.grad = torch.zeros_like(parameter)
        scaler = loop._scaler
        if scaler is None:
            loop._step(0.5)
        # The scale of one fold's gradients is nothing to the next fold.
        loop._enter(1)
        assert (loop._scaler is None) == (scaler is None) == (half != torch.float16)
        assert scaler is None or loop._scaler is not scaler
        assert {each.device.type for each in trainee.trained().values()} == {"cuda"}
