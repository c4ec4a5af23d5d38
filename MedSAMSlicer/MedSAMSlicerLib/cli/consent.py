"""The question before a download."""

from __future__ import annotations

import sys


def consent(*, given: bool) -> int:
    """Ask whether to download what was just listed, and return 0 if the user agrees.

    Else the exit code: 1 if the user declines, 2 if nobody can be asked here.

    :param given: the user has agreed already, with ``--yes``.
    """
    if given:
        return 0
    if not sys.stdin.isatty():
        print("Nothing downloaded: nobody can be asked here, so add --yes to agree.", file=sys.stderr)
        return 2
    if input("Download? [y/N] ").strip().lower() not in ("y", "yes"):
        print("Nothing downloaded.")
        return 1
    return 0
