"""The question before a download, or a removal."""

from __future__ import annotations

import sys


def consent(*, given: bool, question: str = "Download?", refused: str = "Nothing downloaded") -> int:
    """Ask whether to do what was just listed, and return 0 if the user agrees.

    Else the exit code: 1 if the user declines, 2 if nobody can be asked here.

    :param given: the user has agreed already, with ``--yes``.
    :param refused: what is said otherwise.
    """
    if given:
        return 0
    if not sys.stdin.isatty():
        print(f"{refused}: nobody can be asked here, so add --yes to agree.", file=sys.stderr)
        return 2
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        print(f"{refused}.")
        return 1
    return 0
