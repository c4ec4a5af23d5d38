"""What of this project lies on this computer, how much room it takes, and its removal."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from MedSAMSlicerLib.store.catalog import SAMPLE_ARCHIVE, SAMPLES, WEIGHTS, Weights
from MedSAMSlicerLib.store.folder import store_folder, writing_to
from MedSAMSlicerLib.store.lock import exclusive
from MedSAMSlicerLib.store.log import log_file, note
from MedSAMSlicerLib.store.pace import pace_file

KINDS = ("weights", "samples", "embeddings", "models", "runs", "tests")
"""Weights and samples can be fetched again, and embeddings made again; fine-tuned models and their runs can't."""

_EMBEDDINGS = (".embedding", ".embedding-part")
_DIGEST_DIGITS = 40
_FOLDERS = ("weights", "samples", "slices", "models", "tests", "benchmark")
# By these a run's folder is told from others: the one is written by the module, the other by the training.
_OF_A_RUN = ("request.json", "settings.json")


class InUseError(RuntimeError):
    """What was to be removed is being written; the text says what to wait for."""


@dataclass(frozen=True)
class Kept:
    """One thing that is kept, which can be removed by itself.

    :ivar kind: one of `KINDS`.
    :ivar path: the file or folder that a user would look for; ``paths`` is all that goes with it.
    :ivar size: of all files together, in bytes.
    """

    kind: str
    name: str
    path: Path
    paths: tuple[Path, ...]
    size: int


def inventory(catalog: Sequence[Weights] = WEIGHTS) -> list[Kept]:
    """List what is kept in the folder of the store, kind by kind; what others have put there is not listed."""
    home = store_folder()
    found = []
    for weights in catalog:
        file = home / "weights" / weights.filename
        beside = (file, *(file.with_name(f"{file.name}{ending}") for ending in (".json", ".part")))
        found += _kept("weights", weights.name, file, [*beside, *_archives(weights, file.parent)])
    folder = home / "samples"
    names = [SAMPLE_ARCHIVE.filename, f"{SAMPLE_ARCHIVE.filename}.part", *(sample.name for sample in SAMPLES)]
    found += _kept("samples", "samples", folder, [folder / name for name in names])
    folder = home / "slices"
    found += _kept(
        "embeddings", "embeddings", folder, [path for path in folder.glob("*") if path.suffix in _EMBEDDINGS]
    )
    folder = home / "models"
    for path in sorted(folder.glob("*.pth")):
        found += _kept("models", path.stem, path, [path])
    for path in sorted(folder.glob("*.run")):
        if any((path / name).is_file() for name in _OF_A_RUN):
            found += _kept("runs", path.stem, path, [path])
    # What the tests and benchmarks of this project keep: archives of the catalog, and embeddings by their digests.
    archives = [path for weights in catalog for path in _archives(weights, home / "tests")]
    embeddings = [path for path in (home / "benchmark").glob("*.npy") if len(path.stem) == _DIGEST_DIGITS]
    for name, paths in (("tests", archives), ("benchmark", embeddings)):
        found += _kept("tests", name, home / name, paths)
    return found


def remove(kept: Kept) -> None:
    """Delete something that is kept, and what nothing else needs of the folders around it.

    :raises InUseError: if it is a run that goes on, or a download.
    :raises StorageError: if it can't be deleted.
    """
    # What is being written holds its lock, see `store.download`, `store.samples` and `training.run`.
    held = {"runs": kept.path / "run", "samples": kept.path / "samples", "weights": kept.path}.get(kept.kind)
    with _free(held, kept) if held is not None else contextlib.nullcontext():
        for path in kept.paths:
            with writing_to(path):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
    note("removed", kept.path)
    for folder in (kept.path, kept.path.parent):
        if folder != store_folder():
            _sweep(folder)


def forget_store() -> list[Path]:
    """Delete the log, the times of runs and empty folders, once all else was removed; return what stays, not ours."""
    home = store_folder()
    for path in (log_file(), pace_file()):
        path.unlink(missing_ok=True)
    for name in _FOLDERS:
        _sweep(home / name)
    with contextlib.suppress(OSError):
        home.rmdir()
    return sorted(home.glob("*"))


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder; links count as nothing."""
    return sum(each.lstat().st_size for each in _files(path))


def _files(path: Path) -> Iterator[Path]:
    if path.is_symlink():
        return
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from (each for each in path.rglob("*") if each.is_file() and not each.is_symlink())


def _kept(kind: str, name: str, path: Path, paths: Sequence[Path]) -> list[Kept]:
    """Describe something by the paths that are there; nothing if none is. Empty locks alone are nothing."""
    there = tuple(each for each in paths if each.exists() or each.is_symlink())
    size = sum(map(size_of, there))
    visible = any(not each.name.startswith(".") for each in there)
    return [Kept(kind, name, path, there, size)] if visible else []


def _archives(weights: Weights, folder: Path) -> list[Path]:
    """List what a download that was broken off has left of archives."""
    names = [
        source.archive.filename
        for source in weights.sources
        if not isinstance(source, str) and hasattr(source, "archive")
    ]
    return [folder / f"{name}{ending}" for name in names for ending in ("", ".part")]


def _free(held: Path, kept: Kept) -> AbstractContextManager[object]:
    """Hold the lock under which something is written, or refuse at once."""

    def leave() -> None:
        raise InUseError(f"{kept.path} is being written by another process: stop it, or wait for its end.")

    return exclusive(held, while_waiting=leave)


def _sweep(folder: Path) -> None:
    """Delete a folder in which nothing but unused locks is left."""
    left = list(folder.glob("*"))
    hidden = [path for path in left if path.name.startswith(".") and path.name.endswith(".lock") and not size_of(path)]
    if folder.is_dir() and len(hidden) == len(left):
        with contextlib.suppress(OSError):
            for path in hidden:
                path.unlink()
            folder.rmdir()
