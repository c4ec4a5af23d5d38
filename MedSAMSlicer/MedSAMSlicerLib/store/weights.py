"""The weights on this computer: found, fetched, imported and checked before every use."""

from __future__ import annotations

import contextlib
import json
import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from MedSAMSlicerLib.store.archive import extract
from MedSAMSlicerLib.store.catalog import WEIGHTS, ArchiveMember, Weights, weights_named
from MedSAMSlicerLib.store.download import Progress, download
from MedSAMSlicerLib.store.folder import StorageError, replacing, sha256_of, store_folder, writing_to
from MedSAMSlicerLib.store.log import note

State = Literal["absent", "present", "damaged"]

_NEVER = -1
_LEGACY_TORCH_FILE = b"\x80\x02"


class WeightsMissing(RuntimeError):
    """The weights are absent or damaged; the text names the command that brings them."""


@dataclass(frozen=True)
class StoredWeights:
    """Tell how one entry of the catalog stands on this computer."""

    weights: Weights
    path: Path
    state: State


@dataclass(frozen=True)
class _Record:
    """Remember a file's checksum for as long as its size and time stay the same."""

    sha256: str
    size: int
    mtime_ns: int

    def describes(self, path: Path) -> bool:
        """Return whether the file has not been touched since it was hashed."""
        status = path.stat()
        return (status.st_size, status.st_mtime_ns) == (self.size, self.mtime_ns)


class WeightsStore:
    """Keep the weights files of the catalog in one folder.

    Beside each file lies ``<file>.json`` with its SHA-256, so that a file is hashed once and then again only when its
    size or time has changed. Weights whose publisher states no checksum are bound to the one of their first import.
    """

    def __init__(self, folder: Path | None = None, catalog: Sequence[Weights] = WEIGHTS) -> None:
        """Look into ``folder`` itself, by default ``weights`` in the folder of the store."""
        self.folder = folder if folder is not None else store_folder() / "weights"
        self.catalog = catalog

    def entries(self) -> list[StoredWeights]:
        """Return the state of every entry of the catalog."""
        return [self._stored(weights) for weights in self.catalog]

    def verify(self) -> list[StoredWeights]:
        """Return the state of every entry of the catalog, with every file hashed anew."""
        return [self._stored(weights, hash_anew=True) for weights in self.catalog]

    def path(self, name: str) -> Path:
        """Return the file of weights that are present and sound.

        :raises WeightsMissing: they are absent or damaged.
        """
        stored = self._stored(weights_named(name, self.catalog))
        if stored.state == "present":
            return stored.path
        text = f"The weights {name!r} ({stored.weights.title}) are {stored.state} ({stored.path}). "
        raise WeightsMissing(text + _how_to_get(stored.weights))

    def fetch(self, name: str, progress: Progress | None = None) -> Path:
        """Download weights unless they are present and sound, and return their file.

        :raises WeightsMissing: these weights can only be fetched by hand.
        :raises DownloadError: no source gave the file.
        :raises StorageError: the file cannot be written.
        """
        stored = self._stored(weights_named(name, self.catalog))
        weights = stored.weights
        if stored.state == "present":
            return stored.path
        if weights.size is None or weights.sha256 is None:
            raise WeightsMissing(f"{weights.title} cannot be downloaded automatically. {_how_to_get(weights)}")
        download(
            weights.sources,
            stored.path,
            size=weights.size,
            sha256=weights.sha256,
            remedy=f"Check the network and try again, or fetch the file by hand. {_how_to_import(weights)}",
            progress=progress,
        )
        self._remember(stored.path, weights.sha256)
        return stored.path

    def import_file(self, name: str, path: Path, recognize: Callable[[Weights], object] = lambda weights: None) -> Path:
        """Copy a file that the user has fetched by hand into the store, and return the copy.

        Takes the checkpoint itself or the archive that contains it. Weights without a published checksum are bound to
        this file: later ones must equal it, until they are removed.

        :param recognize: raises a ValueError if the file is none of these weights; asked where there is no checksum.
        :raises ValueError: the file is not the one that belongs to the name.
        :raises FileNotFoundError: there is no such file.
        """
        weights = weights_named(name, self.catalog)
        if not path.is_file():
            raise FileNotFoundError(f"No file {path}: give the path of {weights.filename}.")
        sha256 = sha256_of(path)
        target = self._file(weights)
        if weights.size is not None and weights.sha256 is not None:
            for source in weights.sources:
                if isinstance(source, ArchiveMember) and source.archive.sha256 == sha256:
                    extract(path, [(source.member, target, weights.size, weights.sha256)])
                    self._remember(target, weights.sha256)
                    note("imported", target, path)
                    return target
        self._refuse_wrong_file(weights, path, sha256)
        if self._expected_sha256(weights) is None:
            recognize(weights)
        with replacing(target) as draft:
            shutil.copyfile(path, draft)
            if sha256_of(draft) != sha256:
                raise ValueError(f"{path} changes while it is copied: wait until it is complete and import it again.")
        self._remember(target, sha256)
        note("imported", target, path)
        return target

    def remove(self, name: str) -> None:
        """Delete weights and what is remembered of them; absent ones are no error."""
        path = self._file(weights_named(name, self.catalog))
        with writing_to(path):
            path.unlink(missing_ok=True)
            _record_file(path).unlink(missing_ok=True)
        note("removed", path)

    def checksum(self, path: Path) -> str | None:
        """Return the SHA-256 of a file of the store that is remembered and still true; None where it has to be read."""
        record = _read_record(path) if path.parent == self.folder else None
        return record.sha256 if record is not None and record.describes(path) else None

    def identify(self, path: Path) -> Weights | None:
        """Return the entry of the catalog whose very file this is, wherever it lies and whatever it is called."""
        size = path.stat().st_size
        candidates = [weights for weights in self.catalog if self._expected_size(weights) == size]
        return self._owner(sha256_of(path)) if candidates else None

    def _stored(self, weights: Weights, *, hash_anew: bool = False) -> StoredWeights:
        """Return the state of one entry, hashing its file where the record is not enough."""
        path = self._file(weights)
        if not path.is_file():
            return StoredWeights(weights, path, "absent")
        record = _read_record(path)
        expected = self._expected_sha256(weights)
        if not hash_anew and record is not None and record.describes(path) and record.sha256 == expected:
            return StoredWeights(weights, path, "present")
        if self._expected_size(weights) not in (None, path.stat().st_size):
            return StoredWeights(weights, path, "damaged")
        sha256 = sha256_of(path)
        sound = sha256 == expected if expected is not None else _looks_like_checkpoint(path)
        # A store that an administrator has filled may be read-only: it works, but hashes each time.
        with contextlib.suppress(StorageError):
            if sound:
                self._remember(path, sha256)
            elif record is not None:
                # The checksum stays, the time goes, so that the damage is seen until the file is replaced.
                self._write_record(path, replace(record, mtime_ns=_NEVER))
        return StoredWeights(weights, path, "present" if sound else "damaged")

    def _refuse_wrong_file(self, weights: Weights, path: Path, sha256: str) -> None:
        """Raise a ValueError that says what the file is, when it is not the one that belongs to these weights."""
        owner = self._owner(sha256)
        if owner == weights:
            return
        if owner is not None:
            raise ValueError(f"{path} holds {owner.title}, not {weights.title}: import it as {owner.name!r}.")
        if weights.sha256 is not None:
            raise ValueError(
                f"{path} is not {weights.title}: its SHA-256 is {sha256} instead of {weights.sha256}. "
                f"Download {weights.filename} again from {weights.page}."
            )
        bound_to = self._expected_sha256(weights)
        if bound_to is not None:
            raise ValueError(
                f"{path} differs from the {weights.title} that was imported first (SHA-256 {sha256} instead of "
                f"{bound_to}). To replace it, run `medsam-slicer models remove {weights.name}` first."
            )
        if not _looks_like_checkpoint(path):
            raise ValueError(
                f"{path} is not a complete PyTorch checkpoint (perhaps a web page, or cut off): "
                f"download {weights.filename} again from {weights.page}."
            )

    def _owner(self, sha256: str) -> Weights | None:
        """Return the entry of the catalog that a checksum belongs to."""
        return next((weights for weights in self.catalog if self._expected_sha256(weights) == sha256), None)

    def _file(self, weights: Weights) -> Path:
        """Return where the weights lie or would lie."""
        return self.folder / weights.filename

    def _expected_sha256(self, weights: Weights) -> str | None:
        """Return the checksum that the file must have: the published one, else that of the first import."""
        record = _read_record(self._file(weights))
        return weights.sha256 or (record.sha256 if record else None)

    def _expected_size(self, weights: Weights) -> int | None:
        """Return the bytes that the file must have: the published ones, else those of the first import."""
        record = _read_record(self._file(weights))
        return weights.size or (record.size if record else None)

    def _remember(self, path: Path, sha256: str) -> None:
        """Record the checksum of a file that has just been hashed."""
        status = path.stat()
        self._write_record(path, _Record(sha256, status.st_size, status.st_mtime_ns))

    def _write_record(self, path: Path, record: _Record) -> None:
        """Write the record beside its weights file."""
        with replacing(_record_file(path)) as draft:
            draft.write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="ascii")


def _record_file(path: Path) -> Path:
    """Return where the record of a weights file lies."""
    return path.with_name(f"{path.name}.json")


def _read_record(path: Path) -> _Record | None:
    """Return what is remembered of a weights file; an unreadable record counts as none."""
    try:
        return _Record(**json.loads(_record_file(path).read_text(encoding="ascii")))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _looks_like_checkpoint(path: Path) -> bool:
    """Return whether the file is a whole zip archive, as torch.save writes, or a pickle, as it once did."""
    with path.open("rb") as file:
        return file.read(len(_LEGACY_TORCH_FILE)) == _LEGACY_TORCH_FILE or zipfile.is_zipfile(file)


def _how_to_get(weights: Weights) -> str:
    """Return the sentence that tells the user how to bring the weights here."""
    if weights.sources:
        return (
            f"Run: medsam-slicer models fetch {weights.name}, or in Slicer's Python console: "
            f'slicer.util.getModuleLogic("MedSAMSlicer").fetchModel("{weights.name}")'
        )
    return _how_to_import(weights)


def _how_to_import(weights: Weights) -> str:
    """Return the sentence that tells the user how to bring the weights here without our download."""
    archives = "".join(
        f" (or {source}, which contains it)" for source in weights.sources if isinstance(source, ArchiveMember)
    )
    return (
        f"Download {weights.filename} from {weights.page}{archives} and run: "
        f"medsam-slicer models import {weights.name} FILE"
    )
