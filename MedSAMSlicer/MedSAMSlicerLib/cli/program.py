"""The program as a process: from its start to its exit code."""

from __future__ import annotations

import os
import sys

from MedSAMSlicerLib.cli import interrupt


def run(arguments: list[str] | None = None) -> int:
    """Run the program from its start to its end, with the arguments of the process unless others are given."""
    interrupt.watch()
    _speak_utf8()
    try:
        from MedSAMSlicerLib.cli.main import main

        return main(arguments)
    except KeyboardInterrupt:
        interrupt.ignore()
        print(f"medsam-slicer: {interrupt.TEXT}", file=sys.stderr)
        return interrupt.EXIT_INTERRUPTED


def _speak_utf8() -> None:
    """Begin anew with paths in UTF-8, where the locale has another encoding: ITK, GDCM and VTK have no other."""
    if sys.platform != "win32" and sys.getfilesystemencoding().lower() != "utf-8" and sys.executable:
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
