"""The standard streams: always open, and free of what libraries say on their own."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

_STDERR = 2


def complete() -> None:
    """Open what the caller has closed: otherwise a file of ours would get its number, and libraries write into it."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (_STDERR, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is given, and those below are taken by now.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    # A name that the terminal or a file can't show is no reason to stop in the midst.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def discard_output() -> None:
    """Keep what can't be written to the standard output from failing once more at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings of libraries off the screen, those of Python's and those that they write to the stream themselves.

    ITK, GDCM, HDF5, VTK and torch tell of what they meet on the standard error stream; what matters of it the program
    says in its own words. ``sys.stderr`` still leads to the screen.
    """
    silenced = logging.NullHandler()
    logging.getLogger().addHandler(silenced)
    with contextlib.ExitStack() as stack:
        stack.callback(logging.getLogger().removeHandler, silenced)
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(_without_native_noise())
        yield


@contextlib.contextmanager
def loud() -> Iterator[None]:
    """Show what libraries say, also what our readers keep for the log (see `volume.image_file.quiet`)."""
    handler, ours = logging.StreamHandler(), logging.getLogger("MedSAMSlicerLib")
    level = ours.level
    logging.getLogger().addHandler(handler)
    ours.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        ours.setLevel(level)
        logging.getLogger().removeHandler(handler)


@contextlib.contextmanager
def _without_native_noise() -> Iterator[None]:
    shown = sys.stderr
    shown.flush()
    screen = os.dup(_STDERR)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STDERR)
    os.close(nowhere)
    own: TextIO | None = None
    if _number(shown) == _STDERR:
        settings: dict[str, Any] = {"encoding": shown.encoding, "errors": shown.errors, "closefd": False}
        own = open(screen, "w", buffering=1, **settings)  # noqa: PTH123, SIM115
        sys.stderr = own
    try:
        yield
    finally:
        if own:
            own.flush()
            sys.stderr = shown
        os.dup2(screen, _STDERR)
        os.close(screen)


def _number(stream: TextIO) -> int | None:
    """Return the number of a stream's file; None of one in the memory."""
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None
