"""The folder on this computer where weights and sample files are kept."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_BLOCK_BYTES = 1024 * 1024


class StorageError(OSError):
    """A file could not be written; the text names the file and the remedy."""


def store_folder() -> Path:
    """Return the folder of the store, which need not exist yet.

    The environment variable MEDSAM_SLICER_HOME decides where it is set. Otherwise it is the user's cache folder:
    ``$XDG_CACHE_HOME/medsam-slicer`` or ``~/.cache/medsam-slicer`` on Linux, ``~/Library/Caches/medsam-slicer`` on
    macOS, ``%LOCALAPPDATA%\\medsam-slicer`` on Windows.
    """
    chosen = os.environ.get("MEDSAM_SLICER_HOME")
    if chosen:
        try:
            return Path(chosen).expanduser().absolute()
        except RuntimeError as error:
            raise ValueError(f"MEDSAM_SLICER_HOME is {chosen!r}, below no home that is here: set a folder.") from error
    if sys.platform == "win32":
        cache = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        cache = Path.home() / "Library" / "Caches"
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache.absolute() / "medsam-slicer"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in lower-case hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def is_sound(path: Path, size: int, sha256: str) -> bool:
    """Return whether the file exists and has exactly the expected content."""
    return path.is_file() and path.stat().st_size == size and sha256_of(path) == sha256


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write ``path`` into a :class:`StorageError`, which says what to do about it."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if error.errno in _NO_ROOM:
            text = f"No room left to write {path}: free some disk space"
        else:
            text = f"Cannot write {path} ({error.strerror or error}): make that folder writable"
        # A site's dataset lies elsewhere, and so may a training run: that variable does not move them.
        if path.absolute().is_relative_to(store_folder()):
            text += ", or set MEDSAM_SLICER_HOME to another folder"
        raise StorageError(f"{text}, and try again.") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a draft beside ``path`` to be written, which takes its place when the block succeeds.

    So ``path`` never holds half a file, even when another process writes it too.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield draft
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
