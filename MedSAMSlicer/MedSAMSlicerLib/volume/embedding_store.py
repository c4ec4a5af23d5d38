"""Embeddings on disk: a case that is opened again is not encoded again."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import tempfile
from pathlib import Path

import numpy as np

_ENDING = ".embedding"
_PART = ".embedding-part"
# How a file begins: the format, the digest of what follows, then the array's three sizes.
_FORMAT = b"MedSAM embedding 1\n"
_DIGEST_BYTES = 16
_SHAPE_BYTES = 12
# How many embeddings are written at most until the folder is looked at again.
_LOOK_EVERY = 64


class EmbeddingStore:
    """Embeddings in a folder, in half precision, one file each; several processes may share it.

    Named by the digests of `EmbeddingCache.key`: another slice, window or model has another name, so that no file is
    ever stale. A file that is cut short or damaged is recognized by its checksum and deleted. Where the folder can't be
    written to, nothing is kept, and nothing else changes.

    An embedding shows what its slice showed: keep the folder as safe as the images.

    :param folder: need not exist yet.
    :param budget: in bytes; the least recently used leave when it is full. One embedding takes 2 MiB.
    """

    def __init__(self, folder: Path, budget: int = 4 << 30) -> None:
        self.folder = Path(folder)
        self.budget = budget
        # What there is at most, by the last look at the folder and what was written since; None before the first look.
        self._at_most: int | None = None
        self._written = 0

    @property
    def nbytes(self) -> int:
        """Return the size of all files together, in bytes."""
        return sum(size for _, size, _ in self._files())

    def __contains__(self, key: bytes) -> bool:
        return self._path(key).is_file()

    def get(self, key: bytes) -> np.ndarray | None:
        """Read an embedding, float16 (C, h, w); None if it isn't there or is damaged."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        start = len(_FORMAT) + _DIGEST_BYTES
        body = content[start:]
        shape = tuple(np.frombuffer(body[:_SHAPE_BYTES].ljust(_SHAPE_BYTES, b"\0"), dtype="<u4").tolist())
        if content[:start] != _FORMAT + _digest(key, body) or len(body) != _SHAPE_BYTES + 2 * math.prod(shape):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        # Where the file is read-only or gone by now, it was read all the same.
        with contextlib.suppress(OSError):
            os.utime(path)
        return np.frombuffer(body, dtype="<f2", offset=_SHAPE_BYTES).reshape(shape)

    def put(self, key: bytes, values: np.ndarray) -> None:
        """Write an embedding (C, h, w); one that half precision can't hold is left out."""
        with np.errstate(over="ignore"):
            half = np.ascontiguousarray(values, dtype="<f2")
        if half.nbytes > self.budget or not np.isfinite(half).all():
            return
        body = np.array(half.shape, dtype="<u4").tobytes() + half.tobytes()
        content = _FORMAT + _digest(key, body) + body
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor, part = tempfile.mkstemp(_PART, dir=self.folder)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                Path(part).replace(self._path(key))
            finally:
                Path(part).unlink(missing_ok=True)
            self._written += 1
            if self._at_most is not None:
                self._at_most += len(content)
            # To look at thousands of files takes longer than to write one. Other processes may write as well.
            if self._at_most is None or self._at_most > self.budget or self._written % _LOOK_EVERY == 0:
                self._sweep(self.budget)

    def clear(self) -> None:
        """Delete all embeddings; other files in the folder stay."""
        self._sweep(0)

    def _path(self, key: bytes) -> Path:
        return self.folder / f"{key.hex()}{_ENDING}"

    def _files(self) -> list[tuple[float, int, Path]]:
        """List time of use, size and path of all embeddings, and of what a crash has left half-written."""
        found = []
        for path in self.folder.glob("*"):
            if path.suffix in (_ENDING, _PART):
                # Another process may have deleted it.
                with contextlib.suppress(OSError):
                    status = path.stat()
                    found.append((status.st_mtime, status.st_size, path))
        return sorted(found)

    def _sweep(self, budget: int) -> None:
        """Delete the least recently used files until the others fit into a budget."""
        files = self._files()
        excess = sum(size for _, size, _ in files) - budget
        for _, size, path in files:
            if excess <= 0:
                break
            # On Windows another process may be reading it: the next one goes in its place.
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
                excess -= size
        self._at_most = budget + excess


def _digest(key: bytes, body: bytes) -> bytes:
    """Check the content and that it belongs to the name."""
    return hashlib.blake2b(body, key=key, digest_size=_DIGEST_BYTES).digest()
