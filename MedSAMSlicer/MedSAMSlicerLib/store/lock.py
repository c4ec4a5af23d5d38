"""The lock that lets one process at a time fetch or change a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from MedSAMSlicerLib.store.folder import writing_to

_POLL_S = 0.2
PATIENCE_S = 900.0


@contextmanager
def exclusive(path: Path, *, while_waiting: Callable[[], object] = lambda: None) -> Iterator[IO[bytes]]:
    """Hold the lock of ``path``, a file that is about to be written; the system releases it when a process dies.

    The lock lies in a file beside ``path``, which stays: deleting it would let a third process lock a new one while a
    second still waits for the old one. It is empty, and given to the holder, who may keep a note in it.

    :param while_waiting: called about five times a second while another process holds the lock; may raise to give up.
    :raises TimeoutError: another process has held the lock for a quarter of an hour.
    """
    lock = path.with_name(f".{path.name}.lock")
    with writing_to(path):
        lock.parent.mkdir(parents=True, exist_ok=True)
        if lock.is_symlink():
            lock.unlink()  # the note of the holder would be written to whatever it leads to
        file = lock.open("a+b")
    with file:
        deadline = time.monotonic() + PATIENCE_S
        while not _acquire(file):
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"Another process has held {path} for {PATIENCE_S / 60:.0f} minutes: wait for it or end it, and "
                    "try again."
                )
            while_waiting()
            time.sleep(_POLL_S)
        yield file


if sys.platform == "win32":
    import msvcrt

    def _acquire(file: IO[bytes]) -> bool:
        """Lock the first byte; return False when another process has it."""
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _acquire(file: IO[bytes]) -> bool:
        """Lock the file; return False when another process has it."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            # Some network file systems have no locks. Checksums still keep a file safe that two processes write.
            return True
        return True
