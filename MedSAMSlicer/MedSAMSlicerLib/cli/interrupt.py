"""Ctrl-C: it ends the program at once, but never in the midst of an import, which native libraries do not survive."""

from __future__ import annotations

import signal
import threading
from types import FrameType

EXIT_INTERRUPTED = 130
TEXT = "interrupted; no file is half-written"
_AGAIN_S = 0.05
_waiting = threading.Event()


def watch() -> None:
    """Let Ctrl-C raise KeyboardInterrupt as soon as nothing is being imported.

    Only in the main thread, and where nobody else has chosen what Ctrl-C does.
    """
    if threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):
        signal.signal(signal.SIGINT, _interrupt)


def ignore() -> None:
    """Let Ctrl-C do nothing any more, if `watch` was asked before: the work is done, and the interpreter is ending."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is _interrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def waits() -> bool:
    """Tell whether Ctrl-C was pressed in an import; an error that comes before it is heard is no news any more."""
    return _waiting.is_set()


def _interrupt(number: int, frame: FrameType | None) -> None:
    if not _importing(frame):
        raise KeyboardInterrupt
    _waiting.set()
    again = threading.Timer(_AGAIN_S, signal.raise_signal, [number])
    again.daemon = True
    again.start()


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
