"""Slice embeddings kept in memory, so that a second box on a slice costs decoding only."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Protocol

import numpy as np


class Embedding(Protocol):
    """What an image encoder makes of a slice; only its size in memory matters here."""

    @property
    def nbytes(self) -> int:
        """Size in bytes."""


class Encoder(Protocol):
    """The part of a predictor that turns a slice into an embedding."""

    @property
    def key(self) -> str:
        """Identify the weights and their preprocessing."""

    def encode(self, image: np.ndarray) -> Embedding:
        """Embed a slice, uint8 (rows, columns) or (rows, columns, 3)."""


class EmbeddingCache:
    """Embeddings by content: the bytes of the windowed slice and the model's key.

    Whatever changes what the model sees (voxels, window, axis, weights) changes the key, so that an embedding is never
    stale and none has to be invalidated. The least recently used ones leave when the budget is full.

    :param budget: in bytes. An embedding of SAM's size, 256 x 64 x 64 in single precision, takes 4 MiB.
    """

    def __init__(self, budget: int = 1 << 30) -> None:
        self.budget = budget
        self.nbytes = 0
        self._embeddings: OrderedDict[bytes, Embedding] = OrderedDict()

    def __len__(self) -> int:
        return len(self._embeddings)

    def embedding(self, encoder: Encoder, image: np.ndarray) -> Embedding:
        """Return the embedding of a slice, encoding it only if it isn't there yet."""
        key = self.key(encoder, image)
        if key in self._embeddings:
            self._embeddings.move_to_end(key)
            return self._embeddings[key]
        embedding = encoder.encode(image)
        if embedding.nbytes <= self.budget:
            self._embeddings[key] = embedding
            self.nbytes += embedding.nbytes
            while self.nbytes > self.budget:
                _, oldest = self._embeddings.popitem(last=False)
                self.nbytes -= oldest.nbytes
        return embedding

    @staticmethod
    def key(encoder: Encoder, image: np.ndarray) -> bytes:
        """Digest what the encoder sees, and who sees it: 20 bytes."""
        digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=20)
        digest.update(f"{image.shape} {image.dtype} {encoder.key}".encode())
        return digest.digest()

    def clear(self) -> None:
        """Forget all embeddings."""
        self._embeddings.clear()
        self.nbytes = 0
