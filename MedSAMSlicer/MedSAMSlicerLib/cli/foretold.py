"""The time that a run will take, said before it begins: at the pace of the last runs of its kind on this computer."""

from __future__ import annotations

import sys

from MedSAMSlicerLib.store.pace import seconds_for, told


def foretell(kind: str, count: int, unit: str) -> None:
    """Say on the standard error stream how long a run will take; nothing where none of its kind was measured.

    :param kind: see `store.pace.seconds_for`.
    :param count: of what the pace is measured in, in words ``unit``.
    """
    seconds = seconds_for(kind, count)
    if seconds is not None and count:
        print(f"{count} {unit}: about {told(seconds)}, at the pace of the last runs", file=sys.stderr, flush=True)
