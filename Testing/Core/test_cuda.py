"""The way over an NVIDIA GPU, on a computer without one; see `fake_cuda`."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Generator, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from fake_cuda import Card, fake_cuda
from made_up_site import made_up_site
from MedSAMSlicerLib.inference.predictor import Embedding, Prediction, Predictor
from MedSAMSlicerLib.inference.recipes import RECIPES
from MedSAMSlicerLib.model import build_model
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.training.distributed import Team
from MedSAMSlicerLib.training.loop import Loop
from MedSAMSlicerLib.training.outlines import Outline, Outlines
from MedSAMSlicerLib.training.recipe import Recipe
from MedSAMSlicerLib.training.samples import Feed, Prepared, Sample, Samples
from MedSAMSlicerLib.training.trainee import Trainee
from MedSAMSlicerLib.training.variation import Variation
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache, Window
from MedSAMSlicerLib.volume.path_propagation import propagate_path
from MedSAMSlicerLib.volume.propagation import PROPAGATIONS
from MedSAMSlicerLib.volume.slice_masks import SliceMask
from MedSAMSlicerLib.volume.slice_stack import SliceStack

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
    assert (encoding.to_card, encoding.to_host, encoding.bytes_to_card) == (1, 0, SLICE.nbytes)
    assert (decoding.to_card, decoding.to_host) == (1, 1)


def counted(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of slices of each batch; networks that only give shapes take their place."""
    batches: list[int] = []

    def encode(images: Tensor) -> Tensor:
        batches.append(len(images))
        return torch.zeros(len(images), *predictor.model.embedding_shape, device=images.device)

    def decode(embedding: Embedding, boxes: list[Box], window: Window | None = None) -> Prediction:
        size = embedding.size if window is None else tuple(span.stop - span.start for span in window)
        shape = (len(boxes), *size)
        return Prediction(np.zeros(shape, np.float32), np.zeros(len(boxes), np.float32))

    monkeypatch.setattr(predictor.model, "encode", encode)
    monkeypatch.setattr(predictor, "decode", decode)
    return batches


def propagated(
    predictor: Predictor,
    cache: EmbeddingCache | None = None,
    count: int = 30,
    propagate: Callable[..., Generator[SliceMask, None, int]] = propagate_path,
) -> Generator[SliceMask, None, int]:
    """Segment a box on slices of which no two are the same."""
    voxels = np.random.default_rng(0).integers(0, 255, (count, 50, 70), dtype=np.uint8)
    boxes, cache = dict.fromkeys(range(count), BOX), EmbeddingCache() if cache is None else cache
    return propagate(SliceStack(voxels, (1.0, 1.0, 1.0), axis="k"), boxes, predictor, cache)


@pytest.mark.usefixtures("cuda")
def test_slices_of_a_box_are_encoded_ahead_but_none_before_the_first_mask_or_after_a_stop(monkeypatch):
    predictor = Predictor(build_model("tiny"), device=CARD)
    batches = counted(predictor, monkeypatch)
    masks = propagated(predictor)
    next(masks)
    assert batches == [1]
    next(masks)
    assert batches == [1, 1, 4]
    for _ in range(4):
        next(masks)
    assert batches == [1, 1, 4, 4]
    for _ in masks:
        pass
    assert batches == [1, 1, *[4] * 7]
    stopped = propagated(predictor)
    next(stopped), next(stopped), stopped.close()
    assert batches[9:] == [1, 1, 4]


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("name", ["reference", "per-slice"])
def test_the_simpler_propagations_encode_ahead_as_well(name, monkeypatch):
    predictor = Predictor(build_model("tiny"), device=CARD)
    batches = counted(predictor, monkeypatch)
    assert len(list(propagated(predictor, propagate=PROPAGATIONS[name]))) == 30
    assert batches == [1, 1, *[4] * 7]


@pytest.mark.usefixtures("cuda")
def test_a_box_keeps_the_host_waiting_once_for_masks_and_once_for_features_of_a_slice(monkeypatch):
    predictor = Predictor(build_model("tiny"), device=CARD)
    # What is kept for all slices of a size goes to the card once.
    next(propagated(predictor, count=5))
    decode, decoded = predictor.decode, []
    monkeypatch.setattr(predictor, "decode", lambda *given: (decoded.append(1), decode(*given))[1])
    assert predictor.key
    with Card() as card:
        walk = itertools.islice(propagated(predictor, count=5), 5)
        assert len(list(walk)) == len(decoded) == 5
    # The last slice was not left yet, so its features were not asked for.
    assert card.to_host == 5 + 4
    # Boxes of every slice, and the slices: two alone, and the others together.
    assert card.to_card == 5 + 3


@pytest.mark.parametrize(
    ("memory", "budget", "expected"),
    [
        (8 << 30, 1 << 30, [1, 1, *[4] * 7]),
        (1 << 30, 1 << 30, [1, 1, *[2] * 14]),
        (1 << 28, 1 << 30, [1] * 30),
        # What was encoded ahead must not leave the cache before it is used.
        (8 << 30, 4, [1, 1, *[2] * 14]),
    ],
)
def test_no_more_slices_are_encoded_ahead_than_the_card_and_the_cache_have_room_for(
    memory, budget, expected, monkeypatch
):
    with fake_cuda(memory=memory):
        predictor = Predictor(build_model("tiny"), device=CARD)
        nbytes = predictor.encode(SLICE).nbytes
        batches = counted(predictor, monkeypatch)
        cache = EmbeddingCache(budget if budget > 100 else budget * nbytes)
        walk = itertools.islice(propagated(predictor, cache), 30)
        assert len(list(walk)) == 30
    assert batches == expected


def test_embeddings_take_a_part_of_a_small_cards_memory_only():
    with fake_cuda():
        nbytes = Predictor(build_model("tiny"), device=CARD).encode(SLICE).nbytes
    with fake_cuda(memory=4 * 3 * nbytes):
        predictor, cache = Predictor(build_model("tiny"), device=CARD), EmbeddingCache()
        for number in range(10):
            cache.embedding(predictor, SLICE + np.uint8(number))
        assert cache.nbytes == 3 * nbytes


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


def test_slices_to_train_on_are_preprocessed_on_the_gpu_to_which_they_go_as_bytes(tmp_path):
    dataset = made_up_site(tmp_path / "site")
    samples = Samples(Outlines(map(dataset.load, dataset.cases)), Recipe.of_depth("full"))
    preprocessing, order = RECIPES["lite"](64), samples.of_epoch(0)
    with fake_cuda():
        feed = Feed(samples, 0, order, [range(3), range(3, 6)], preprocessing, None, torch.device(CARD))
        list(feed.loader(0))
        with Card() as card:
            batches = list(feed.loader(0))
    assert [len(batch) for batch in batches] == [3, 3]
    for each in itertools.chain(*batches):
        tensor = each.tensor
        assert (str(tensor.device), tensor.dtype, tuple(tensor.shape)) == (CARD, torch.float32, (3, 64, 64))
    # As many as the slices have pixels: what is preprocessed takes twelve for each of the model's.
    assert (card.to_card, card.to_host) == (2, 0)
    assert card.bytes_to_card == sum(each.sample.mask.size for each in itertools.chain(*batches))


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
