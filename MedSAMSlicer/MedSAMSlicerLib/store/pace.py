"""How long a slice took the last times, by which the time of the next run is foretold."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path

from MedSAMSlicerLib.store.folder import StorageError, replacing, store_folder

# Of the last few runs the slowest tells: better to be done early than late.
_REMEMBERED = 5
# So many kinds of runs are remembered, those of the last ones.
_KINDS = 50


def pace_file() -> Path:
    """Return where the times are kept; it need not exist yet."""
    return store_folder() / "pace.json"


def seconds_for(kind: str, count: int) -> float | None:
    """Foretell the seconds of a run; None if none of its kind was measured here.

    :param kind: what the time depends on, such as model, device and propagation.
    :param count: of slices, or whatever else was counted.
    """
    measured = _read().get(kind)
    return max(measured) * count if measured else None


def remember_pace(kind: str, count: int, seconds: float) -> None:
    """Remember what a run took; where the store can't be written to, nothing is foretold, and nothing else changes."""
    if count < 1 or not 0 < seconds < math.inf:
        return
    paces = _read()
    measured = paces.pop(kind, [])
    paces[kind] = [*measured, round(seconds / count, 4)][-_REMEMBERED:]
    with contextlib.suppress(StorageError), replacing(pace_file()) as draft:
        draft.write_text(json.dumps(dict(list(paces.items())[-_KINDS:]), indent=1) + "\n", encoding="utf-8")


def told(seconds: float) -> str:
    """Say a time as exactly as it can be foretold."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _read() -> dict[str, list[float]]:
    """Read the times per slice, in seconds; what is damaged counts as nothing."""
    try:
        content = json.loads(pace_file().read_text(encoding="utf-8"))
        return {
            str(kind): [float(each) for each in measured if 0 < float(each) < math.inf]
            for kind, measured in content.items()
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
