"""What a model is fine-tuned on: whose turn it is, how the slice looks, which box is drawn."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from made_up_site import job_in, made_up_site
from MedSAMSlicerLib.dataset.case import Case, LoadedCase
from MedSAMSlicerLib.dataset.site import SiteDataset
from MedSAMSlicerLib.inference.predictor import Predictor
from MedSAMSlicerLib.inference.recipes import RECIPES
from MedSAMSlicerLib.model import load_checkpoint
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.training.boxes import drawn_box
from MedSAMSlicerLib.training.embeddings import StoredEmbeddings
from MedSAMSlicerLib.training.outlines import Outline, Outlines
from MedSAMSlicerLib.training.recipe import DEPTHS, Recipe
from MedSAMSlicerLib.training.samples import Feed, Sample, Samples
from MedSAMSlicerLib.training.turns import order_of, turns_per_epoch
from MedSAMSlicerLib.training.variation import Variation
from MedSAMSlicerLib.volume.box_track import bounds
from MedSAMSlicerLib.volume.files import Volume
from MedSAMSlicerLib.volume.intensity import IntensityRange

AS_IT_IS = IntensityRange(0, 255)


@pytest.fixture
def outlines(tmp_path: Path) -> Outlines:
    dataset = made_up_site(tmp_path / "site")
    return Outlines(map(dataset.load, dataset.cases))


@pytest.fixture
def two_blocks() -> np.ndarray:
    mask = np.zeros((60, 80), dtype=bool)
    mask[10:40, 20:50] = True
    return mask


def test_every_label_of_every_slice_is_an_outline_with_the_experts_mask(tmp_path):
    dataset = made_up_site(tmp_path / "site")
    loaded = dataset.load(dataset.cases[0])
    found = Outlines([loaded])
    expected = {(label, k) for label, mask in loaded.labels.items() for k in range(3) if mask[k].any()}
    assert {(outline.label, outline.index) for outline in found.all} == expected
    assert found.slices == 3
    for outline in found.all:
        np.testing.assert_array_equal(outline.mask, loaded.labels[outline.label][outline.index])
        voxels, _ = found.slice(outline.case_id, outline.index)
        np.testing.assert_array_equal(voxels, loaded.volume.voxels[outline.index])


def test_each_gets_its_turn_within_a_few_epochs_however_outnumbered_and_none_is_trained_on_alone():
    groups = [("large", "liver", -1)] * 400 + [("small", "cyst", -4)] * 3
    turns = turns_per_epoch(groups)
    assert turns.sum() == pytest.approx(403)
    epochs = int(np.ceil(1 / turns.min()))
    seen = Counter(item for epoch in range(epochs) for item in order_of(epoch, turns, seed=5).tolist())
    assert set(seen) == set(range(403))
    # The case of 400 slices gets more turns than the one of 3, but fewer than 400 to 3.
    large, small = turns[:400].sum(), turns[400:].sum()
    assert 1 < large / small < 400 / 3 / 2


def test_the_order_is_the_same_for_all_processes_new_in_every_epoch_and_a_whole_number_of_steps():
    turns = turns_per_epoch([("a", "b", 0)] * 30)
    np.testing.assert_array_equal(order_of(3, turns, 1, 8), order_of(3, turns, 1, 8))
    assert not np.array_equal(order_of(3, turns, 1, 8), order_of(4, turns, 1, 8))
    assert len(order_of(3, turns, 1, 8)) == 32


def test_a_structure_in_many_thin_slices_counts_no_more_than_in_few_and_each_slice_gets_its_turn(cone):
    def turns(**settings: int) -> list[int]:
        samples = Samples(cone, Recipe(**settings))
        return list(itertools.chain.from_iterable(samples.of_epoch(epoch) for epoch in range(20)))

    for most, each in ((3, 3), (6, 5), (0, 5)):
        assert abs(len(turns(slices_per_structure=most)) - 20 * each) <= len(cone.all)
    assert set(turns(slices_per_structure=1)) == set(range(5))
    assert len(turns(slices_per_structure=3, samples_per_epoch=9)) > 20 * 8


def test_boxes_are_drawn_inward_and_outward_within_what_users_do(two_blocks):
    random = np.random.default_rng(1)
    drawn = (drawn_box(bounds(two_blocks), two_blocks.shape, random) for _ in range(3000))
    boxes = np.array([[b.x0, b.y0, b.x1, b.y1] for b in drawn])
    outward = (np.array([20, 10, 50, 40]) - boxes) * [1, 1, -1, -1] / 30
    assert 0.17 < outward.max() <= 0.2
    assert -0.14 < outward.min() < -0.08
    assert 0.2 < (outward < 0).mean() < 0.6


@pytest.mark.parametrize("place", [np.s_[0, 0], np.s_[59, 79], np.s_[:, :], np.s_[5:7, 79]])
def test_boxes_stay_in_the_slice_and_are_at_least_a_pixel_wide(place):
    mask = np.zeros((60, 80), dtype=bool)
    mask[place] = True
    random = np.random.default_rng(2)
    for box in (drawn_box(bounds(mask), mask.shape, random) for _ in range(300)):
        assert 0 <= box.x0 < box.x1 <= 80
        assert 0 <= box.y0 < box.y1 <= 60
        assert min(box.x1 - box.x0, box.y1 - box.y0) > 0.999


@pytest.fixture
def cone() -> Outlines:
    """A structure of five slices whose blocks are 8, 16, 24, 32 and 40 pixels wide, about the same middle."""
    mask = np.zeros((5, 60, 80), dtype=bool)
    for k in range(5):
        half = 4 * (k + 1)
        mask[k, 30 - half // 2 : 30 + half // 2, 40 - half : 40 + half] = True
    volume = Volume(mask.astype(np.int16), np.eye(4), "cone")
    case = Case("case-0001", "P0001", "train", ("cone",), "full", "mr", (1.0,) * 3, (80, 60, 5), "", "", "", "")
    return Outlines([LoadedCase(case, volume, {"cone": mask}, "full")])


def samples_of(outlines: Outlines, index: int, **shares: float) -> list[Sample]:
    recipe = Recipe(**{"region_boxes": 0.0, "neighbor_boxes": 0.0, **shares}, variants=4)
    (outline,) = (each for each in outlines.all if each.index == index)
    samples = Samples(outlines, recipe)
    return [samples.draw(9, position, outline) for position in range(200)]


def test_an_end_of_a_structure_is_asked_with_the_box_of_the_whole_as_a_3d_box_does(cone):
    whole = samples_of(cone, 0, region_boxes=1.0)
    assert {sample.mask.sum() for sample in whole} == {8 * 4}
    assert min(sample.box.x1 - sample.box.x0 for sample in whole) > 34
    assert max(sample.box.x1 - sample.box.x0 for sample in samples_of(cone, 0)) < 14


def test_the_decoder_is_asked_with_the_edges_of_the_slices_own_mask(cone):
    share = Recipe.of_depth("decoder").tight_boxes
    assert share == 1
    for sample in samples_of(cone, 2, tight_boxes=share):
        rows, columns = (np.flatnonzero(sample.mask.any(axis=axis)) for axis in (1, 0))
        assert sample.box == Box(columns[0], rows[0], columns[-1], rows[-1])
    mixed = [sample.box.x1 - sample.box.x0 for sample in samples_of(cone, 2, tight_boxes=0.5)]
    assert 0.4 < np.mean(np.array(mixed) == 23) < 0.6


def test_a_neighbors_box_is_that_of_the_slice_above_or_below_a_little_wider(cone):
    widths = np.array([sample.box.x1 - sample.box.x0 for sample in samples_of(cone, 2, neighbor_boxes=1.0)])
    below, above = widths[widths < 24], widths[widths > 24]
    # 16 and 32 pixels, and on both sides 1 to 3 of 256 pixels in a slice of 80.
    for found, width in ((below, 16), (above, 32)):
        assert len(found) > 50
        assert width + 2 * 80 / 256 <= found.min() < found.max() <= width + 6 * 80 / 256


@pytest.mark.parametrize(
    "shares", [{"region_boxes": 0.6, "neighbor_boxes": 0.5}, {"neighbor_boxes": -0.1}, {"region_boxes": float("nan")}]
)
def test_shares_of_boxes_that_cannot_be_are_refused(shares):
    with pytest.raises(ValueError, match=r"shares of boxes .* are wrong: give 0 or more each, together at most 1"):
        Recipe(**shares)


def test_a_box_moves_with_the_slice(two_blocks):
    edges = bounds(two_blocks)
    for variation in [Variation.numbered(number, seed=9) for number in range(4)]:
        assert variation.of_box(edges, two_blocks.shape) == bounds(variation.of_mask(two_blocks))
    assert Variation(zoom=3.0).of_box(Box(0, 0, 4, 4), two_blocks.shape) is None


def test_the_mask_moves_with_the_slice(two_blocks):
    random = np.random.default_rng(3)
    image = np.where(two_blocks, 220, 30).astype(np.uint8)
    variations = [Variation.drawn(random) for _ in range(20)]
    assert {variation.flip_x for variation in variations} == {True, False}
    for variation in variations:
        changed, mask = variation.of_slice(image, AS_IT_IS), variation.of_mask(two_blocks)
        bright = changed > 128
        assert 2 * (bright & mask).sum() / (bright.sum() + mask.sum()) > 0.97
        assert mask.sum() > 500


def test_the_first_of_the_kept_variants_is_the_slice_as_the_user_sees_it_and_the_others_differ(two_blocks):
    voxels = np.random.default_rng(4).integers(0, 1000, (60, 80, 3))
    window = IntensityRange(100, 900)
    images = [Variation.numbered(number, seed=9).of_slice(voxels, window) for number in range(4)]
    np.testing.assert_array_equal(images[0], window.apply(voxels))
    assert len({image.tobytes() for image in images}) == 4
    assert {(image.shape, image.dtype.name) for image in images} == {((60, 80, 3), "uint8")}


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_sample_depends_on_seed_epoch_and_position_alone(outlines, depth):
    ours, theirs = (Samples(outlines, Recipe.of_depth(depth, tight_boxes=0.0, seed=seed)) for seed in (1, 1))
    other = Samples(outlines, Recipe.of_depth(depth, tight_boxes=0.0, seed=2))
    outline = outlines.all[3]
    a, b, c = (samples.draw(4, 7, outline) for samples in (ours, theirs, other))
    assert (a.box, a.variation) == (b.box, b.variation)
    np.testing.assert_array_equal(ours.image(a), theirs.image(b))
    assert a.box != c.box
    assert ours.draw(4, 8, outline).box != a.box != ours.draw(5, 7, outline).box


def test_the_first_epoch_needs_no_variant_whose_embedding_takes_time(outlines):
    samples = Samples(outlines, Recipe(variants=3))
    drawn = [
        {samples.draw(epoch, position, outline).variation for position, outline in enumerate(outlines.all)}
        for epoch in range(4)
    ]
    assert drawn[0] == {Variation()}
    assert [len(variations) for variations in drawn] == [1, 2, 3, 3]


def test_a_slice_of_one_pixel_is_packed(tmp_path):
    mask = np.zeros((5, 7), dtype=bool)
    mask[4, 6] = True
    edges = bounds(mask)
    np.testing.assert_array_equal(Outline.of(mask, "case-0001", "spot", 0, edges, ()).mask, mask)


def test_cases_without_a_label_are_refused():
    with pytest.raises(ValueError, match="No case of the training split has a label"):
        Outlines([])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"depth": "deep"}, "'deep' is unknown: give one of decoder, adapter, full"),
        ({"epochs": 0}, "epochs is 0: give 1 or more"),
        ({"learning_rate": float("nan")}, "learning_rate is nan: give a number above 0"),
        ({"warmup": 1.0}, "warmup is 1.0: give a share"),
        ({"precision": "int8"}, "'int8' is unknown"),
        ({"guard_tolerance": -0.1}, "guard_tolerance is -0.1: give 0 or more"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused(change, text):
    with pytest.raises(ValueError, match=text):
        Recipe(**change)


def test_samples_can_be_prepared_by_processes_that_are_spawned(tmp_path):
    """As on Windows and macOS: they are told where the embeddings are, and nothing of the model."""
    job = job_in(tmp_path)
    base = load_checkpoint(job.data.with_name("base.pth"))
    dataset = SiteDataset.open(job.data)
    samples = Samples(Outlines(dataset.load(case) for case in dataset.cases[:1]), job.recipe)
    embeddings = StoredEmbeddings(tmp_path / "embeddings", Predictor(base, device="cpu"))
    preprocessing = RECIPES[base.preprocessing](base.image_size)
    feed = Feed(samples, 0, samples.of_epoch(0), [range(2)], preprocessing, embeddings.files)
    for image in feed.missing():
        embeddings.keep(image)
    (expected,) = feed.loader(0)
    (given,) = DataLoader(feed, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    assert [each.sample.box for each in given] == [each.sample.box for each in expected]
    assert all(torch.equal(a.tensor, b.tensor) for a, b in zip(given, expected, strict=True))


def test_slices_that_are_preprocessed_where_the_model_is_are_the_same(outlines, monkeypatch):
    samples = Samples(outlines, Recipe.of_depth("full"))
    preprocessing, order = RECIPES["medsam"](64), samples.of_epoch(0)
    (expected,) = Feed(samples, 0, order, [range(3)], preprocessing, None).loader(0)
    feed = Feed(samples, 0, order, [range(3)], preprocessing, None, torch.device("cuda"))
    # The CPU in its place.
    monkeypatch.setattr(feed, "_device", torch.device("cpu"))
    (given,) = feed.loader(0)
    for ours, theirs in zip(given, expected, strict=True):
        assert torch.equal(ours.tensor, theirs.tensor)
        assert torch.equal(ours.box, theirs.box)
