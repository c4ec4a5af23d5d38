"""A command of the library that runs beside Slicer, in a process of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

_MODULE_FOLDER = Path(__file__).resolve().parents[2]
# Not by the environment variable PYTHONPATH, which a PythonSlicer may set itself.
_RUN = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)
_LAST_LINES = 3
# How the library begins the line that tells an error, see `cli.main`.
_ERROR = "medsam-slicer: error: "


class PythonProcess:
    """Runs a module of the library with Slicer's own Python; it goes on if Slicer ends.

    :param module: such as "MedSAMSlicerLib"; with its ``arguments``.
    :param output: the file that gets all that the process says; its folder must exist.
    :raises RuntimeError: if Slicer's Python is not where it should be.
    :raises OSError: if the process can't be started, or the file can't be written.
    """

    def __init__(self, module: str, arguments: Sequence[str], output: Path) -> None:
        folder = Path(slicer.app.slicerHome) / "bin"
        python = shutil.which("PythonSlicer", path=str(folder))
        if python is None:
            raise RuntimeError(_("PythonSlicer is not in {folder}: install Slicer again.").format(folder=folder))
        # What ends Slicer (Ctrl+C or a closed terminal) shall not reach it.
        apart: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            apart = {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
        self.output = output
        with output.open("wb") as file:
            self._process = subprocess.Popen(
                [python, "-c", _RUN, str(_MODULE_FOLDER), module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                **apart,
            )

    @property
    def id(self) -> int:
        """Return the number of the process."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Return whether it has not ended yet."""
        return self._process.poll() is None

    @property
    def succeeded(self) -> bool:
        """Return whether it has ended, and well."""
        return self._process.poll() == 0

    def end(self) -> None:
        """End it at once, and wait for that; what it has not finished is lost."""
        self._process.kill()
        self._process.wait()


def last_words(output: Path) -> str:
    """Return the error that a process has told at last, or else the last lines of what it said."""
    try:
        lines = [line for line in output.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    if lines and lines[-1].startswith(_ERROR):
        return lines[-1].removeprefix(_ERROR)
    return "\n".join(lines[-_LAST_LINES:])
