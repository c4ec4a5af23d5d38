"""Embeddings kept by content, within a budget."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache


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


@pytest.fixture
def encoder() -> Encoder:
    return Encoder()


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
