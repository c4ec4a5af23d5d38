"""What was computed of slices, kept in memory: a second box on a slice costs decoding only, the same box nothing."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np

from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.embedding_store import EmbeddingStore

# Rows and columns of a slice.
Window = tuple[slice, slice]

# Probabilities below this are kept as 0, others in as many parts of 1.
_LEAST, _WHOLE = 0.01, 1 << 15


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


class Decoder(Encoder, Protocol):
    """A predictor, which turns embeddings and boxes into masks as well."""

    def decode(self, embedding: Any, boxes: list[Box], window: Window | None = None) -> Any:
        """Predict one mask per box, whole or in a window: ``.probabilities`` (N, h, w) in [0, 1] and ``.iou`` (N,)."""


class Foresighted(Encoder, Protocol):
    """An encoder that works on while its caller does something else."""

    @property
    def ahead(self) -> int:
        """Return how many slices are best encoded in advance."""

    def encode_all(self, images: Sequence[np.ndarray]) -> Sequence[Embedding]:
        """Embed slices, without waiting until they are."""


class Packer(Encoder, Protocol):
    """An encoder whose embeddings can be kept on disk."""

    def pack(self, embedding: Any) -> np.ndarray:
        """Turn an embedding into an array (C, h, w)."""

    def unpack(self, values: np.ndarray, size: tuple[int, int]) -> Any:
        """Undo `pack`, for a slice of a size (rows, columns)."""


class Slice:
    """A slice that is asked for again and again: its pixels are made to be encoded only, its key is kept.

    :param encoder: that sees it.
    :param view: makes its pixels, uint8 (rows, columns) or (rows, columns, 3).
    """

    def __init__(self, encoder: Encoder, view: Callable[[], np.ndarray]) -> None:
        self._encoder, self._view = encoder, view
        self._key: bytes | None = None
        # Made for the key, and not looked at since.
        self._pixels: np.ndarray | None = None

    def key(self) -> bytes:
        """Return the key of what the encoder sees, or has seen."""
        if self._key is None:
            self._pixels = self.pixels()
        return cast(bytes, self._key)

    def pixels(self) -> np.ndarray:
        """Make the pixels to encode. The key follows them, as the voxels may have changed since it was asked for."""
        pixels, self._pixels = self._pixels, None
        if pixels is None:
            pixels = self._view()
            self._key = EmbeddingCache.key(self._encoder, pixels)
        return pixels

    def forget(self) -> None:
        """Let go of the pixels that were made for the key."""
        self._pixels = None


class EmbeddingCache:
    """Embeddings by content: the bytes of the windowed slice and the model's key; masks by the box as well; and
    what was found of structures, by the name of all that it depends on.

    Whatever changes what the model sees (voxels, window, axis, weights) changes the key, so that nothing kept is ever
    stale and nothing has to be invalidated. The least recently used leave when a budget is full.

    :param budget: of the embeddings, in bytes. One of SAM's size, 256 x 64 x 64 in single precision, takes 4 MiB.
    :param mask_budget: of the masks, in bytes. One of 100 x 100 pixels takes 20 KB.
    :param found_budget: of what was found, from which corrections start, in bytes. A structure of 200 x 200 pixels in
        30 slices takes 50 MB, what MedSAM2 remembers of a slice of 512 x 512 takes 160 KB. 0 where nobody will correct.
    :param store: keeps the embeddings on disk as well, for another session; the encoders must be `Packer` then.
    """

    def __init__(
        self,
        budget: int = 1 << 30,
        mask_budget: int = 1 << 28,
        store: EmbeddingStore | None = None,
        found_budget: int = 1 << 29,
    ) -> None:
        self.store = store
        self._embeddings: _Kept = _Kept(budget)
        # Encoded in advance, and not on disk before they are asked for, as the host would have to wait for each.
        self._unwritten: set[bytes] = set()
        self._masks: _Kept = _Kept(mask_budget)
        self._found: _Kept = _Kept(found_budget)

    def __len__(self) -> int:
        return len(self._embeddings)

    @property
    def budget(self) -> int:
        """Return what the embeddings may take, in bytes."""
        return self._embeddings.budget

    @budget.setter
    def budget(self, budget: int) -> None:
        self._embeddings.limit(budget)

    @property
    def nbytes(self) -> int:
        """Return what the embeddings take, in bytes."""
        return self._embeddings.nbytes

    def embedding(self, encoder: Encoder, image: np.ndarray | Slice) -> Any:
        """Return the embedding of a slice, encoding it only if it isn't there yet."""
        seen = image if isinstance(image, Slice) else Slice(encoder, lambda: image)
        embedding = self._embeddings.get(seen.key())
        if embedding is None:
            pixels = seen.pixels()
            key = seen.key()
            embedding = self._stored(cast(Packer, encoder), pixels, key) if self.store else encoder.encode(pixels)
            self._put(encoder, key, embedding)
        elif self.store and seen.key() in self._unwritten:
            self.store.put(seen.key(), cast(Packer, encoder).pack(embedding))
        self._unwritten.discard(seen.key())
        seen.forget()
        return embedding

    def prediction(
        self,
        predictor: Decoder,
        image: np.ndarray | Slice,
        boxes: Sequence[Box],
        window: Window | None = None,
        following: Sequence[Slice] = (),
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the masks of boxes in a slice, decoding in one batch those that aren't there yet.

        :param window: rows and columns that are asked for; by default all of an array.
        :param following: the slices that are likely to be asked for next, in order. Where the predictor's device
            computes beside the caller, the first of them begin to be encoded when the masks are there.
        :return: probabilities, float32 (N, h, w) in the window, rounded to 1/32768 and 0 where they are below 0.01;
            and the model's own estimate of each mask's IoU, float32 (N,).
        """
        seen = image if isinstance(image, Slice) else Slice(predictor, lambda: image)
        if window is None:
            rows, columns = cast(np.ndarray, image).shape[:2]
            window = np.s_[0:rows, 0:columns]
        key = seen.key()
        found = {box: mask for box in boxes if (mask := self._kept(key, box, window))}
        missing = [box for box in dict.fromkeys(boxes) if box not in found]
        if missing:
            embedding = self.embedding(predictor, seen)
            decoded = predictor.decode(embedding, missing, window)
            self.encode_ahead(predictor, following, embedding.nbytes)
            key = seen.key()
            for box, probability, iou in zip(missing, decoded.probabilities, decoded.iou, strict=True):
                found[box] = _Mask.of(probability, float(iou), window)
                self._masks.put((key, box), found[box])
        seen.forget()
        masks = [found[box] for box in boxes]
        probabilities = np.zeros((len(masks), *(span.stop - span.start for span in window)), dtype=np.float32)
        for mask, probability in zip(masks, probabilities, strict=True):
            mask.write(probability, window)
        return probabilities, np.array([mask.iou for mask in masks], dtype=np.float32)

    def recall(self, name: bytes) -> Any:
        """Return what was found, by a name that tells all that it depends on; None if it isn't there."""
        return self._found.get(name)

    def remember(self, name: bytes, found: Embedding) -> None:
        """Keep what was found, unless it is larger than all that may be kept."""
        self._found.put(name, found)

    def _kept(self, key: bytes, box: Box, window: Window) -> _Mask | None:
        """Return the mask that is kept of a box, if it was decoded in all of a window."""
        mask = self._masks.get((key, box))
        return mask if mask is not None and _holds(mask.window, window) else None

    def _stored(self, encoder: Packer, image: np.ndarray, key: bytes) -> Any:
        """Take an embedding from the disk, or encode it and put it there."""
        store = cast(EmbeddingStore, self.store)
        values = store.get(key)
        if values is not None:
            # What somebody has put there that is no embedding of this model is made anew.
            with contextlib.suppress(ValueError):
                return encoder.unpack(values, (image.shape[0], image.shape[1]))
        embedding = encoder.encode(image)
        store.put(key, encoder.pack(embedding))
        return embedding

    def encode_ahead(self, encoder: Encoder, slices: Sequence[Slice], nbytes: int) -> None:
        """Begin to encode slices, one batch of them, unless the first one is there.

        Nothing where the encoder's device does not compute beside the caller.

        :param slices: that are likely to be asked for next, in order.
        :param nbytes: what an embedding takes.
        """
        ahead = getattr(encoder, "ahead", 0)
        # What is encoded in advance must neither drive itself out of the cache, nor what is being worked at.
        room = min(self.budget, getattr(encoder, "room", None) or self.budget)
        slices = slices[: min(ahead, room // (2 * max(nbytes, 1)))]
        if slices and not self._is_there(slices[0].key()):
            waiting = [each for each in slices if not self._is_there(each.key())]
            embeddings = cast(Foresighted, encoder).encode_all([each.pixels() for each in waiting])
            for each, embedding in zip(waiting, embeddings, strict=True):
                self._put(encoder, each.key(), embedding)
                self._unwritten.add(each.key())
        for each in slices:
            each.forget()

    def _is_there(self, key: bytes) -> bool:
        return key in self._embeddings or (self.store is not None and key in self.store)

    def _put(self, encoder: Encoder, key: bytes, embedding: Embedding) -> None:
        """Keep an embedding, within what there is room for on the encoder's device."""
        self._embeddings.put(key, embedding)
        room = getattr(encoder, "room", None)
        if room is not None:
            self._embeddings.shrink(room)

    @staticmethod
    def key(encoder: Encoder, image: np.ndarray) -> bytes:
        """Digest what the encoder sees, and who sees it: 20 bytes."""
        digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=20)
        digest.update(f"{image.shape} {image.dtype} {encoder.key}".encode())
        return digest.digest()

    def clear(self) -> None:
        """Forget everything; what is on disk stays (see `EmbeddingStore.clear`)."""
        self._embeddings.clear()
        self._unwritten.clear()
        self._masks.clear()
        self._found.clear()


@dataclass(frozen=True)
class _Mask:
    """The probabilities of a mask where they are not 0, and its estimated IoU.

    :param place: of the probabilities in the slice.
    :param codes: the probabilities in parts of `_WHOLE`, uint16.
    :param window: part of the slice that the mask was decoded in; beyond it nothing is known.
    """

    place: Window
    codes: np.ndarray
    iou: float
    window: Window

    @classmethod
    def of(cls, probability: np.ndarray, iou: float, window: Window) -> _Mask:
        """Keep a mask that was decoded in a window."""
        possible = probability >= _LEAST
        rows, columns = np.flatnonzero(possible.any(axis=1)), np.flatnonzero(possible.any(axis=0))
        if not rows.size:
            return cls(np.s_[0:0, 0:0], np.zeros((0, 0), dtype=np.uint16), iou, window)
        part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        codes = (probability[part] * np.float32(_WHOLE) + np.float32(0.5)).astype(np.uint16)
        codes *= possible[part]
        top, left = window[0].start, window[1].start
        place = np.s_[top + rows[0] : top + rows[-1] + 1, left + columns[0] : left + columns[-1] + 1]
        return cls(place, codes, iou, window)

    def write(self, probability: np.ndarray, window: Window) -> None:
        """Put the probabilities of a window, which this mask was decoded in, into an array of zeros."""
        source, target = [], []
        for span, wanted in zip(self.place, window, strict=True):
            first, stop = max(span.start, wanted.start), min(span.stop, wanted.stop)
            source.append(slice(first - span.start, max(stop, first) - span.start))
            target.append(slice(first - wanted.start, max(stop, first) - wanted.start))
        np.multiply(self.codes[tuple(source)], np.float32(1 / _WHOLE), out=probability[tuple(target)])

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes


def _holds(window: Window, other: Window) -> bool:
    """Return whether a window holds another one."""
    return all(a.start <= b.start and b.stop <= a.stop for a, b in zip(window, other, strict=True))


class _Kept:
    """Objects within a budget of bytes, the least recently used leave first; threads may share it."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.nbytes = 0
        self._objects: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._objects)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._objects

    def get(self, key: Hashable) -> Any:
        with self._lock:
            if key not in self._objects:
                return None
            self._objects.move_to_end(key)
            return self._objects[key]

    def put(self, key: Hashable, value: Any) -> None:
        if value.nbytes > self.budget:
            return
        with self._lock:
            if key in self._objects:
                self.nbytes -= self._objects.pop(key).nbytes
            self._objects[key] = value
            self.nbytes += value.nbytes
        self.shrink(self.budget)

    def limit(self, budget: int) -> None:
        self.budget = budget
        self.shrink(budget)

    def shrink(self, nbytes: int) -> None:
        """Let the least recently used go until the others take no more than so many bytes."""
        with self._lock:
            while self.nbytes > nbytes:
                _, oldest = self._objects.popitem(last=False)
                self.nbytes -= oldest.nbytes

    def clear(self) -> None:
        with self._lock:
            self._objects.clear()
            self.nbytes = 0
