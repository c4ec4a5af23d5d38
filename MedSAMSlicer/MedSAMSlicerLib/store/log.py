"""The log of the store: what came onto this computer, from where and when, and what was removed again."""

from __future__ import annotations

import contextlib
from datetime import datetime, timezone
from pathlib import Path

from MedSAMSlicerLib.store.folder import store_folder


def log_file() -> Path:
    """Return where the log lies, a line of text for every event, in UTC; it need not exist yet."""
    return store_folder() / "log.txt"


def note(event: str, path: Path, source: object = "") -> None:
    """Add a line about a file of the store; files elsewhere are the business of whoever put them there.

    :param event: such as "fetched".
    :param source: where it came from, without credentials.
    """
    path = path.absolute()
    if not path.is_relative_to(store_folder()):
        return
    size = f", {path.stat().st_size:,} bytes" if path.is_file() else ""
    come = f", from {source}" if source else ""
    time = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    # A store that can't be written to any more, or is full, has its own message.
    with contextlib.suppress(OSError):
        log_file().parent.mkdir(parents=True, exist_ok=True)
        with log_file().open("a", encoding="utf-8") as file:
            file.write(f"{time}: {event} {path.relative_to(store_folder())}{size}{come}\n")
