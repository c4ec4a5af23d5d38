"""Embeddings kept by content, within a budget."""

from __future__ import annotations

from dataclasses import astuple, dataclass, field

import numpy as np
import pytest

from box_predictor import FilledBoxes
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache, Slice, Window
from MedSAMSlicerLib.volume.embedding_store import EmbeddingStore


@dataclass(frozen=True)
class Embedding:
    """Remembers of which pixels it was made."""

    pixels: bytes
    nbytes: int


@dataclass
class Encoder:
    key: str = "weights"
    nbytes: int = 100
    encoded: list[int] = field(default_factory=list)

    def encode(self, image: np.ndarray) -> Embedding:
        self.encoded.append(int(image.flat[0]))
        return Embedding(image.tobytes(), self.nbytes)


@dataclass
class Decoder(Encoder):
    """Answers every image and box with random probabilities of their own."""

    least: float = 0.2
    decoded: list[list[Box]] = field(default_factory=list)

    def decode(self, embedding: Embedding, boxes: list[Box], window: Window | None = None) -> FilledBoxes:
        self.decoded.append(list(boxes))
        seeds = [(len(self.key), *embedding.pixels[:1], *map(int, astuple(box))) for box in boxes]
        masks = [np.random.default_rng(seed).uniform(self.least, 1, (4, 6)) for seed in seeds]
        iou = np.array([box.x0 / 8 for box in boxes], dtype=np.float32)
        return FilledBoxes(np.array(masks, dtype=np.float32), iou).within(window)


@dataclass
class Ahead(Decoder):
    """Encodes up to three slices in advance."""

    ahead: int = 3
    batches: list[list[int]] = field(default_factory=list)

    def encode_all(self, images: list[np.ndarray]) -> list[Embedding]:
        self.batches.append([int(image.flat[0]) for image in images])
        return [Embedding(image.tobytes(), self.nbytes) for image in images]


@pytest.fixture
def encoder() -> Encoder:
    return Encoder()


@pytest.fixture
def decoder() -> Decoder:
    return Decoder()


A, B, C = Box(0, 0, 2, 2), Box(1, 0, 3, 3), Box(2, 1, 4, 3)


def a_slice(number: int) -> np.ndarray:
    return np.full((4, 6), number, dtype=np.uint8)


def test_a_slice_is_encoded_once_also_when_it_comes_as_another_array_of_the_same_pixels(encoder):
    cache = EmbeddingCache()
    first = cache.embedding(encoder, a_slice(1))
    reversed_twice = a_slice(1)[::-1].copy(order="F")
    assert cache.embedding(encoder, reversed_twice) is first
    assert encoder.encoded == [1]


def test_one_changed_pixel_another_shape_type_or_model_is_encoded_anew(encoder):
    cache = EmbeddingCache()
    cache.embedding(encoder, a_slice(1))
    changed = a_slice(1)
    changed[3, 5] = 2
    for image in (changed, a_slice(1).reshape(6, 4), a_slice(1).reshape(2, 4, 3), a_slice(1).view(np.int8)):
        assert cache.embedding(encoder, image).pixels == image.tobytes()
    assert len(encoder.encoded) == 5
    other = Encoder(key="other weights")
    cache.embedding(other, a_slice(1))
    assert other.encoded == [1]
    assert len(cache) == 6


def test_an_array_that_is_changed_in_place_afterwards_is_encoded_anew(encoder):
    cache = EmbeddingCache()
    image = a_slice(1)
    first = cache.embedding(encoder, image)
    image[:] = 2
    assert cache.embedding(encoder, image).pixels != first.pixels
    assert encoder.encoded == [1, 2]


def test_the_least_recently_used_leave_first_when_the_budget_is_full(encoder):
    cache = EmbeddingCache(budget=399)
    for number in (1, 2, 3, 1, 4):
        cache.embedding(encoder, a_slice(number))
    assert (cache.nbytes, len(cache)) == (300, 3)
    encoder.encoded.clear()
    for number in (3, 1, 4, 2):
        cache.embedding(encoder, a_slice(number))
    assert encoder.encoded == [2]
    assert cache.nbytes == 300


def test_a_budget_can_be_filled_to_the_last_byte(encoder):
    cache = EmbeddingCache(budget=200)
    for number in (1, 2, 1, 2):
        cache.embedding(encoder, a_slice(number))
    assert encoder.encoded == [1, 2]


def test_a_large_embedding_takes_the_place_of_as_many_small_ones_as_it_needs(encoder):
    cache = EmbeddingCache(budget=400)
    for number in (1, 2, 3, 4):
        cache.embedding(encoder, a_slice(number))
    encoder.nbytes = 250
    cache.embedding(encoder, a_slice(5))
    assert (cache.nbytes, len(cache)) == (350, 2)


def test_an_embedding_above_the_budget_is_returned_but_not_kept_and_drives_no_other_out(encoder):
    cache = EmbeddingCache(budget=150)
    cache.embedding(encoder, a_slice(1))
    encoder.nbytes = 151
    assert cache.embedding(encoder, a_slice(2)).pixels == a_slice(2).tobytes()
    assert (cache.nbytes, len(cache)) == (100, 1)
    cache.embedding(encoder, a_slice(1))
    assert encoder.encoded == [1, 2]


def test_a_failed_encoding_leaves_nothing_behind(encoder):
    cache = EmbeddingCache()
    encoder.encode = lambda image: (_ for _ in ()).throw(RuntimeError("out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        cache.embedding(encoder, a_slice(1))
    del encoder.encode
    assert cache.embedding(encoder, a_slice(1)).pixels == a_slice(1).tobytes()


def test_a_cleared_cache_encodes_again(encoder):
    cache = EmbeddingCache()
    cache.embedding(encoder, a_slice(1))
    cache.clear()
    assert (cache.nbytes, len(cache)) == (0, 0)
    cache.embedding(encoder, a_slice(1))
    assert encoder.encoded == [1, 1]


def test_a_box_is_decoded_once(decoder):
    cache = EmbeddingCache()
    first, first_iou = cache.prediction(decoder, a_slice(1), [A])
    again, again_iou = cache.prediction(decoder, a_slice(1), [A])
    assert decoder.decoded == [[A]]
    np.testing.assert_array_equal(again, first)
    np.testing.assert_array_equal(again_iou, first_iou)


def test_only_the_boxes_that_are_missing_are_decoded_all_at_once_and_masks_come_in_the_order_of_the_boxes(decoder):
    cache = EmbeddingCache()
    cache.prediction(decoder, a_slice(1), [A])
    probabilities, iou = cache.prediction(decoder, a_slice(1), [C, A, B, C])
    assert decoder.decoded == [[A], [C, B]]
    assert iou.tolist() == [2 / 8, 0, 1 / 8, 2 / 8]
    for box, probability in zip([C, A, B, C], probabilities, strict=True):
        np.testing.assert_array_equal(probability, EmbeddingCache().prediction(decoder, a_slice(1), [box])[0][0])


def test_another_box_image_or_model_is_decoded_anew(decoder):
    cache = EmbeddingCache()
    first, _ = cache.prediction(decoder, a_slice(1), [A])
    other = Decoder(key="other weights")
    for predictor, image, box in ((decoder, a_slice(1), B), (decoder, a_slice(2), A), (other, a_slice(1), A)):
        probabilities, _ = cache.prediction(predictor, image, [box])
        assert not np.array_equal(probabilities, first)
    assert decoder.decoded == [[A], [B], [A]]
    assert other.decoded == [[A]]


def test_kept_masks_are_the_decoded_ones(decoder):
    decoder.least = -0.2
    cache, image = EmbeddingCache(), a_slice(1)
    direct = np.maximum(decoder.decode(cache.embedding(decoder, image), [A, B, C]).probabilities, 0)
    for _ in range(2):
        probabilities, _ = cache.prediction(decoder, image, [A, B, C])
        assert (probabilities.dtype, probabilities.shape) == (np.float32, (3, 4, 6))
        np.testing.assert_allclose(probabilities, np.where(direct < 0.01, 0, direct), atol=2e-5)
        certain = np.abs(direct - 0.5) > 2e-5
        np.testing.assert_array_equal((probabilities > 0.5)[certain], (direct > 0.5)[certain])


def test_who_writes_into_a_mask_spoils_no_kept_one(decoder):
    cache = EmbeddingCache()
    first, _ = cache.prediction(decoder, a_slice(1), [A])
    expected = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(cache.prediction(decoder, a_slice(1), [A])[0], expected)


def test_a_mask_that_is_nowhere_or_at_one_edge_comes_back_at_its_place(decoder):
    nowhere, corner = np.zeros((4, 6), dtype=np.float32), np.zeros((4, 6), dtype=np.float32)
    corner[3, 5] = 0.75
    decoder.decode = lambda *_: FilledBoxes(np.stack([nowhere, corner]), np.array([0.5, 0.25]))
    cache = EmbeddingCache()
    for _ in range(2):
        probabilities, iou = cache.prediction(decoder, a_slice(1), [A, B])
        np.testing.assert_array_equal(probabilities, [nowhere, corner])
        assert iou.tolist() == [0.5, 0.25]
        # What was found is kept, also if it is nothing.
        decoder.decode = None


def test_a_window_of_a_mask_is_that_part_of_the_whole_one(decoder):
    whole, _ = EmbeddingCache().prediction(decoder, a_slice(1), [A, B])
    window = np.s_[1:3, 2:6]
    cache = EmbeddingCache()
    for part in (window, window, np.s_[2:3, 3:5], np.s_[1:1, 2:6]):
        probabilities, _ = cache.prediction(decoder, a_slice(1), [A, B], part)
        np.testing.assert_array_equal(probabilities, whole[(slice(None), *part)])
    # What lies in the window was decoded with it.
    assert decoder.decoded == [[A, B]] * 2


def test_a_mask_that_was_decoded_in_a_window_answers_no_larger_one(decoder):
    whole, _ = EmbeddingCache().prediction(decoder, a_slice(1), [A])
    for window, larger in ((np.s_[1:3, 2:6], np.s_[1:3, 1:6]), (np.s_[1:3, 2:6], np.s_[1:4, 2:6])):
        cache = EmbeddingCache()
        cache.prediction(decoder, a_slice(1), [A], window)
        np.testing.assert_array_equal(
            cache.prediction(decoder, a_slice(1), [A], larger)[0], whole[(slice(None), *larger)]
        )
        np.testing.assert_array_equal(cache.prediction(decoder, a_slice(1), [A])[0], whole)


def test_masks_of_color_slices_have_no_channels(decoder):
    color = np.zeros((4, 6, 3), dtype=np.uint8)
    assert EmbeddingCache().prediction(decoder, color, [A, B])[0].shape == (2, 4, 6)


def test_the_least_recently_used_masks_leave_first_when_their_budget_is_full(decoder):
    # A mask takes 4 x 6 x 2 bytes.
    cache = EmbeddingCache(mask_budget=2 * 48)
    for box in (A, B, A, C):
        cache.prediction(decoder, a_slice(1), [box])
    decoder.decoded.clear()
    for box in (A, C, B):
        cache.prediction(decoder, a_slice(1), [box])
    assert decoder.decoded == [[B]]
    # The embedding has a budget of its own.
    assert decoder.encoded == [1]


def test_a_request_for_more_masks_than_the_budget_holds_is_answered_all_the_same(decoder):
    cache = EmbeddingCache(mask_budget=48)
    probabilities, _ = cache.prediction(decoder, a_slice(1), [A, B, C])
    expected, _ = EmbeddingCache().prediction(decoder, a_slice(1), [A, B, C])
    np.testing.assert_array_equal(probabilities, expected)


def test_a_cleared_cache_decodes_again(decoder):
    cache = EmbeddingCache()
    cache.prediction(decoder, a_slice(1), [A])
    cache.clear()
    cache.prediction(decoder, a_slice(1), [A])
    assert decoder.decoded == [[A], [A]]


def following(decoder: Decoder, *numbers: int) -> list[Slice]:
    return [Slice(decoder, lambda number=number: a_slice(number)) for number in numbers]


def test_what_follows_is_encoded_in_advance_once_the_next_slice_is_not_there():
    cache, decoder, window = EmbeddingCache(), Ahead(), np.s_[0:4, 0:6]
    cache.embedding(decoder, a_slice(3))
    cache.prediction(decoder, a_slice(1), [A], window, following(decoder, 2, 3, 4, 5))
    assert decoder.batches == [[2, 4]]
    # Nothing is decoded here, and there the next one is at hand.
    cache.prediction(decoder, a_slice(1), [A], window, following(decoder, 5))
    cache.prediction(decoder, a_slice(2), [A], window, following(decoder, 3, 5))
    assert decoder.batches == [[2, 4]]
    assert decoder.encoded == [3, 1]
    expected, _ = EmbeddingCache().prediction(Decoder(), a_slice(4), [A])
    np.testing.assert_array_equal(cache.prediction(decoder, a_slice(4), [A])[0], expected)


def test_nothing_is_encoded_in_advance_that_finds_no_room():
    decoder, window = Ahead(), np.s_[0:4, 0:6]
    EmbeddingCache(budget=150).prediction(decoder, a_slice(1), [A], window, following(decoder, 2, 3))
    assert decoder.batches == []


def test_what_is_encoded_in_advance_is_on_disk_once_it_was_asked_for(tmp_path):
    decoder, window = Ahead(), np.s_[0:4, 0:6]
    decoder.pack = lambda embedding: np.frombuffer(embedding.pixels, np.uint8).reshape(1, 4, 6)
    store = EmbeddingStore(tmp_path)
    cache = EmbeddingCache(store=store)
    cache.prediction(decoder, a_slice(1), [A], window, following(decoder, 2, 3, 4))
    assert decoder.batches == [[2, 3, 4]]
    assert [cache.key(decoder, a_slice(number)) in store for number in (1, 2, 3)] == [True, False, False]
    for _ in range(2):
        cache.embedding(decoder, a_slice(2))
    assert [cache.key(decoder, a_slice(number)) in store for number in (1, 2, 3)] == [True, True, False]
    # What is on disk is not encoded, not even in advance.
    EmbeddingCache(store=store).prediction(decoder, a_slice(5), [A], window, following(decoder, 2, 3))
    EmbeddingCache(store=store).prediction(decoder, a_slice(6), [A], window, following(decoder, 1, 2))
    assert decoder.batches == [[2, 3, 4]]


def test_masks_are_kept_as_fine_as_they_are_wherever_they_end(decoder, monkeypatch):
    values = np.append(np.linspace(0.01, 1, 40_000, dtype=np.float32), np.float32([0, 0.5, np.nextafter(0.5, 0)]))
    monkeypatch.setattr(decoder, "decode", lambda *args: FilledBoxes(values[None, None].repeat(2, 1), np.ones(1)))
    kept, _ = EmbeddingCache().prediction(decoder, np.zeros((2, len(values)), np.uint8), [A])
    assert kept.max() == 1
    assert np.abs(kept[0, 1] - values).max() < 2e-5
    assert not (kept > 0.5)[0, 1, values <= 0.5].any()


def test_a_slice_that_is_asked_for_again_is_not_made_again(decoder):
    cache, made = EmbeddingCache(), []

    def view() -> np.ndarray:
        made.append(1)
        return a_slice(1)

    seen = Slice(decoder, view)
    whole = np.s_[0:4, 0:6]
    first, _ = cache.prediction(decoder, seen, [A], whole)
    # To know it and to encode it.
    assert len(made) == 1
    again, _ = cache.prediction(decoder, seen, [A, B], whole)
    cache.embedding(decoder, seen)
    assert len(made) == 1
    assert decoder.encoded == [1]
    np.testing.assert_array_equal(again, cache.prediction(Decoder(), a_slice(1), [A, B])[0])
    np.testing.assert_array_equal(again[:1], first)


def test_what_was_computed_of_voxels_that_have_changed_is_not_taken_for_the_old_ones(decoder):
    cache, voxels = EmbeddingCache(), a_slice(1)
    seen = Slice(decoder, voxels.copy)
    whole = np.s_[0:4, 0:6]
    # Another structure has met the slice before, so that its pixels are made for the key alone.
    cache.prediction(decoder, a_slice(1), [A])
    cache.prediction(decoder, seen, [A], whole)
    old_key = seen.key()
    cache.clear()
    voxels[:] = 2
    changed, _ = cache.prediction(decoder, seen, [A], whole)
    assert seen.key() != old_key
    np.testing.assert_array_equal(changed, EmbeddingCache().prediction(Decoder(), a_slice(2), [A])[0])
    np.testing.assert_array_equal(
        cache.prediction(decoder, a_slice(1), [A])[0], EmbeddingCache().prediction(Decoder(), a_slice(1), [A])[0]
    )
