"""The claim of a piece of work: one process at a time is at it, and what it has made is remembered.

A piece of work is a row of a batch's table, or a case of the module's worklist.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from MedSAMSlicerLib.store.folder import sha256_of
from MedSAMSlicerLib.store.lock import exclusive


class _HeldError(Exception):
    """Another process works at the row."""


class Claim:
    """The right to write the files of a row, and the record of what a row has made of them.

    Both lie in a small hidden file beside the first of them, ``.<name>.row.lock``: the digest of the row, and the
    SHA-256 of its files once all of them are written.

    :param outputs: the files that the row makes.
    :param digest: of all that these depend on; another one means that the row was changed since.
    """

    def __init__(self, outputs: Sequence[Path], digest: str) -> None:
        self._outputs, self._digest = outputs, digest
        self._held = contextlib.ExitStack()
        self._file: IO[bytes] | None = None
        self._path = outputs[0].with_name(f"{outputs[0].name}.row")
        self._lock = self._path.with_name(f".{self._path.name}.lock")
        self._before: dict[str, Any] = {}
        self._new_folders = [folder for folder in self._path.absolute().parents if not folder.exists()]

    def take(self) -> bool:
        """Claim the row; False if another process has it."""

        def leave() -> None:
            raise _HeldError

        try:
            self._file = self._held.enter_context(exclusive(self._path, while_waiting=leave))
            # Who had it before may have deleted the file that was opened here.
            if not self._lock.exists() or not os.path.samestat(os.fstat(self._file.fileno()), self._lock.stat()):
                raise _HeldError
        except _HeldError:
            self._held.close()
            return False
        return True

    def is_done(self) -> bool:
        """Tell whether this row has made all of its files already, and they are whole.

        :raises ValueError: if one of them was changed since, or is not known to come from a row: somebody's work is
            not written over.
        """
        record = self._before = self._read()
        # None while they were being written, by a process that was ended.
        made = record["files"]
        found = self._found()
        for path in self._outputs if made is not None else ():
            # What is empty holds nobody's work.
            if found[path.name] and made.get(path.name) != found[path.name]:
                was = "was changed since this row has made it" if path.name in made else "was not made by this row"
                raise ValueError(f"{path} {was}: move or delete it to have it made anew, or take the row out.")
        return record == {"row": self._digest, "files": found} and all(found.values())

    def begin(self) -> None:
        """Remember that the files are being written."""
        self._write({"row": self._digest, "files": None})

    def end(self) -> None:
        """Remember that all files are written."""
        self._before = {"row": self._digest, "files": self._found()}
        self._write(self._before)

    def release(self) -> None:
        """Let other processes have the row; a record that tells of no file goes as well."""
        assert self._file is not None
        made = any(path.exists() for path in self._outputs)
        with contextlib.suppress(OSError):
            if self._before.get("files") == self._found():
                # A row that has failed before it wrote anything has not made what is there.
                self._write(self._before)
            if not made or not os.fstat(self._file.fileno()).st_size:
                self._lock.unlink(missing_ok=True)
        self._held.close()
        with contextlib.suppress(OSError):
            for folder in () if made else self._new_folders:
                folder.rmdir()

    def _found(self) -> dict[str, str]:
        """Return name -> SHA-256 of the files, "" for what is not there or empty."""
        return {path.name: sha256_of(path) if path.is_file() and path.stat().st_size else "" for path in self._outputs}

    def _read(self) -> dict[str, Any]:
        assert self._file is not None
        self._file.seek(0)
        content = self._file.read()
        if not content:
            return {"row": "", "files": {}}
        with contextlib.suppress(ValueError, KeyError, TypeError):
            record = json.loads(content)
            return {"row": str(record["row"]), "files": None if record["files"] is None else dict(record["files"])}
        # A note that was cut off was ours, too.
        return {"row": "", "files": None}

    def _write(self, record: dict[str, Any]) -> None:
        assert self._file is not None
        self._file.seek(0)
        self._file.truncate()
        self._file.write(json.dumps(record).encode())
        self._file.flush()
