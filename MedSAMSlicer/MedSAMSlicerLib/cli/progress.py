"""A progress bar on the standard error stream."""

from __future__ import annotations

import sys
import time
from types import TracebackType

_REDRAW_S = 0.1
_BAR_CELLS = 24


class ProgressBar:
    """Show how far a long task is, how fast it goes and how long it will take.

    On a terminal one line is rewritten; elsewhere, as in a log file, a line appears every 10 %. Use it in a ``with``
    statement, which ends the line even when the task fails.

    :param total: how much there is to do, in ``unit``; 0 where that is not known yet.
    :param unit: what is counted, such as ``slices``; ``B`` counts bytes and shows them as MB.
    """

    def __init__(self, total: int, label: str, unit: str) -> None:
        self._total = total
        self._label = label
        self._unit = unit
        self._first: tuple[float, int] | None = None
        self._drawn_at = 0.0
        self._drawn_tenth = -1
        self._width = 0

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._width:
            sys.stderr.write("\n")
            sys.stderr.flush()

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        """Show that ``done`` of the total is done, counted from the very start of the task.

        :param total: replaces the total, for tasks that learn it on the way.
        :param note: what is being done, for tasks of unlike parts: their rate means nothing and is left out.
        """
        if total is not None:
            self._total = total
        now = time.monotonic()
        if self._first is None or done < self._first[1]:
            # A resumed download starts in the middle: only what is done from here on tells the rate.
            self._first = (now, done)
        tenth = 10 * done // self._total if self._total else 0
        if sys.stderr.isatty():
            if now - self._drawn_at >= _REDRAW_S or done == self._total:
                self._drawn_at = now
                self._rewrite(self._line(done, now, note))
        elif tenth != self._drawn_tenth:
            self._drawn_tenth = tenth
            sys.stderr.write(f"{self._line(done, now, note)}\n")

    def _line(self, done: int, now: float, note: str) -> str:
        """Return the text for this moment."""
        if not self._total:
            return f"{self._label} {self._amount(done)}"
        filled = min(_BAR_CELLS, _BAR_CELLS * done // self._total)
        percent = 100 * done // self._total
        line = f"{self._label} [{'#' * filled}{'.' * (_BAR_CELLS - filled)}] {percent:3d} % {self._amount(done)}"
        if note:
            return f"{line}, {note}"
        first_at, first_done = self._first or (now, done)
        if done > first_done and now > first_at:
            rate = (done - first_done) / (now - first_at)
            line += f", {self._rate(rate)}, {_clock((self._total - done) / rate)} left"
        return line

    def _amount(self, done: int) -> str:
        """Return the done and the total, where it is known, with their unit."""
        if self._unit == "B":
            return f"{done / 1e6:.1f}/{self._total / 1e6:.1f} MB" if self._total else f"{done / 1e6:.1f} MB"
        return f"{done}/{self._total} {self._unit}" if self._total else f"{done} {self._unit}"

    def _rate(self, rate: float) -> str:
        """Return the speed with its unit."""
        return f"{rate / 1e6:.1f} MB/s" if self._unit == "B" else f"{rate:.1f} {self._unit}/s"

    def _rewrite(self, line: str) -> None:
        """Replace the line on the terminal, and the rest of a longer one before it."""
        sys.stderr.write(f"\r{line.ljust(self._width)}")
        sys.stderr.flush()
        self._width = len(line)


def _clock(seconds: float) -> str:
    """Return a time span as minutes and seconds, with hours where there are some."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
