"""A training run beside Slicer, which finds it again by its folder when it is opened next time."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from MedSAMSlicerLib.app.python_process import PythonProcess, last_words
from MedSAMSlicerLib.evaluation.curves import read_log
from MedSAMSlicerLib.store.lock import exclusive
from MedSAMSlicerLib.volume.files import atomic_output

_ENDS = ("done", "stopped", "failed")
# Importing PyTorch takes seconds, on a busy computer more.
_STARTS_WITHIN_S = 60.0


@dataclass(frozen=True)
class TrainingRequest:
    """What the user has asked for; it is kept in the folder of the run.

    :param data: folder of the dataset.
    :param base: name or path of the model to start from; ``output`` the file of the one to be made, ending with .pth.
    """

    data: str
    base: str
    depth: str
    device: str
    output: str

    @property
    def folder(self) -> Path:
        """Name the folder of the run, as the training itself does."""
        return Path(self.output).with_suffix(".run")


class _HeldError(Exception):
    """A process holds the lock of a run."""


class TrainingProcess:
    """A run, which this Slicer or an earlier one has started.

    The training tells how far it is in its folder (see `training.run.RunFolder`, which needs torch).

    :param folder: of the run.
    :param process: of the training, None for a run that was found again.
    :raises OSError: if the folder holds no run that was started here.
    :raises ValueError: if what was asked for can't be read.
    """

    def __init__(self, folder: Path, process: PythonProcess | None = None) -> None:
        self.folder, self.process = folder, process
        try:
            content = json.loads((folder / "request.json").read_text(encoding="utf-8"))
            self.request = TrainingRequest(**content)
        except TypeError as error:
            raise ValueError(f"{folder / 'request.json'} is no request for a training: delete it.") from error

    @classmethod
    def start(cls, request: TrainingRequest) -> TrainingProcess:
        """Start a training, or go on with one of the same name that has not come to its end.

        :raises ValueError: if the name is in use; the text says by what.
        :raises RuntimeError: if Slicer's Python is missing.
        :raises OSError: if the folder can't be written to, or the process can't be started.
        """
        folder, name = request.folder, Path(request.output).stem
        before = None
        with contextlib.suppress(OSError, ValueError):
            before = cls(folder)
        if before is None and (folder.exists() or Path(request.output).exists()):
            raise ValueError(_("There is a model {name} already: give another name.").format(name=name))
        if before and before.running:
            raise ValueError(_("{name} is being trained already: give another name.").format(name=name))
        if before and before.state == "done":
            raise ValueError(_("The training of {name} is done: give another name.").format(name=name))
        if before and replace(before.request, device=request.device) != request:
            text = _("A training of {name} was begun with another dataset, model or depth: give another name.")
            raise ValueError(text.format(name=name))
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_output(folder / "request.json") as draft:
            draft.write_text(json.dumps(asdict(request), indent=2) + "\n", encoding="utf-8")
        # What it says from now on is said by this process.
        (folder / "progress.json").unlink(missing_ok=True)
        arguments = [f"--{option}={value}" for option, value in asdict(request).items()]
        return cls(folder, PythonProcess("MedSAMSlicerLib.training", arguments, folder / "output.txt"))

    @property
    def name(self) -> str:
        """Return the name of the model that is made."""
        return self.folder.stem

    @property
    def running(self) -> bool:
        """Return whether it has not ended yet."""
        # While a process prepares itself, nobody must touch the lock that it is about to take.
        return (self.process.running if self.process is not None else self._starting()) or self._held()

    @property
    def state(self) -> str:
        """Return what it is at, see `training.run.Progress`; empty before it has begun."""
        return str(self.progress().get("state", ""))

    @property
    def model(self) -> Path | None:
        """Return the file of the model; None as long as there is none."""
        path = Path(self.request.output)
        return path if path.is_file() else None

    def progress(self) -> dict[str, Any]:
        """Read how far it is, see `training.run.Progress`; empty before it has begun."""
        try:
            content = json.loads((self.folder / "progress.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def log(self) -> list[dict[str, Any]]:
        """Read the figures of the epochs that are done."""
        try:
            return read_log(self.folder / "log.jsonl")
        except (OSError, ValueError):
            return []

    def stop(self) -> None:
        """Ask it to end after the current batch; the best model so far is kept.

        :raises OSError: if the folder can't be written to.
        """
        (self.folder / "stop").touch()

    def end(self) -> tuple[bool, str]:
        """Tell whether it has come to an end of its own, and what it has to say; once it runs no more."""
        progress = self.progress()
        if progress.get("state") in _ENDS:
            return progress["state"] != "failed", str(progress.get("message", ""))
        words = last_words(self.folder / "output.txt")
        text = _("The training has ended before its time; Train goes on after the last epoch that was done.")
        return False, f"{text}\n{words}".strip()

    def _starting(self) -> bool:
        """Return whether an earlier Slicer has started it so lately that it may not have got to its first word."""
        try:
            status = (self.folder / "output.txt").stat()
        except OSError:
            return False
        silent = not status.st_size and not (self.folder / "progress.json").exists()
        return silent and 0 <= time.time() - status.st_mtime < _STARTS_WITHIN_S

    def _held(self) -> bool:
        """Return whether any process holds the lock of the run's folder."""

        def leave() -> None:
            raise _HeldError

        if not self.folder.is_dir():
            return False
        try:
            with exclusive(self.folder / "run", while_waiting=leave):
                return False
        except _HeldError:
            return True
