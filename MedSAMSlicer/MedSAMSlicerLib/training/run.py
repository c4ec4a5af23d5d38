"""The folder of a run: what is written while a model is trained, and found again after the process was killed."""

from __future__ import annotations

import contextlib
import json
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from MedSAMSlicerLib.model.checkpoint import UNREADABLE, save_atomically
from MedSAMSlicerLib.store.lock import exclusive
from MedSAMSlicerLib.volume.files import atomic_output

_TELL_EVERY_S = 1.0


class RunError(ValueError):
    """A folder in which this run can't work; the text says why and what to do."""


@dataclass(frozen=True)
class Progress:
    """How far a run is, as it stands in ``progress.json``.

    :param state: "preparing", "encoding", "training", "validating", "testing", "done", "stopped" or "failed".
    :param epoch: the one that is worked on, from 1; ``of`` all.
    :param batch: of the epoch, or of the slices to encode; ``batches`` all.
    :param seconds_left: None as long as nothing is known.
    :param best: validation score of the best epoch so far, that of the base model before; None before that.
    :param message: what went wrong, or how it ended, in a sentence.
    """

    state: str
    epoch: int = 0
    of: int = 0
    batch: int = 0
    batches: int = 0
    seconds_left: float | None = None
    best: float | None = None
    message: str = ""


class RunFolder:
    """The files of one run: settings, state, log, progress and the best model so far.

    ``state.pt`` holds what the next epoch begins with, ``log.jsonl`` an object per epoch, ``progress.json`` the latest
    `Progress`. Whoever puts a file ``stop`` into the folder ends the run after the current batch.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.best = folder / "best.pth"
        self._told = 0.0
        self._state = ""

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other runs out of the folder, and take back an old request to stop.

        A folder that is made for a run that is refused goes with it.

        :raises RunError: if another run is in it.
        """
        new = [folder for folder in (self.folder, *self.folder.absolute().parents) if not folder.exists()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with exclusive(self.folder / "run", while_waiting=self._refuse):
                (self.folder / "stop").unlink(missing_ok=True)
                yield
        except BaseException:
            if new and not (self.folder / "settings.json").exists():
                with contextlib.suppress(OSError):
                    for name in ("progress.json", ".run.lock"):
                        (self.folder / name).unlink(missing_ok=True)
                    for folder in new:
                        folder.rmdir()
            raise

    def settle(self, settings: dict[str, Any]) -> None:
        """Write what the run is made with, or check that it is what an earlier start of the run was made with.

        :raises RunError: if the folder holds a run with other settings.
        """
        path = self.folder / "settings.json"
        settings = json.loads(json.dumps(settings))
        if not path.is_file():
            self._write(path, settings)
            return
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise RunError(f"{path} is damaged: give another folder for the run, or delete this one.") from error
        if before != settings:
            differing = sorted(_differing(before, settings))
            raise RunError(
                f"{self.folder} holds a run with other settings ({', '.join(differing)}): give these again to go on "
                "with it, or give another folder."
            )

    def load_state(self) -> dict[str, Any] | None:
        """Read what `save_state` wrote, None in a new run."""
        path = self.folder / "state.pt"
        try:
            return torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else None
        except (pickle.UnpicklingError, *UNREADABLE) as error:
            raise RunError(f"{path} is damaged: give another folder for the run, or delete this one.") from error

    def save_state(self, state: dict[str, Any], history: list[dict[str, Any]]) -> None:
        """Write what the next epoch begins with, and the log of the epochs that are done."""
        save_atomically({**state, "history": history}, self.folder / "state.pt")
        with atomic_output(self.folder / "log.jsonl") as draft:
            draft.write_text("".join(json.dumps(row) + "\n" for row in history), encoding="utf-8")

    def tell(self, progress: Progress) -> None:
        """Write how far the run is, at most once a second as long as the state is the same.

        A progress that can't be written stops nothing.
        """
        now = time.monotonic()
        if progress.state == self._state and now - self._told < _TELL_EVERY_S:
            return
        self._told, self._state = now, progress.state
        with contextlib.suppress(OSError):
            self._write(self.folder / "progress.json", asdict(progress))

    def stop_requested(self) -> bool:
        """Return whether somebody has put a file ``stop`` into the folder."""
        return (self.folder / "stop").exists()

    def _refuse(self) -> None:
        raise RunError(f"{self.folder} is in use by another run: wait for it or stop it, or give another folder.")

    def _write(self, path: Path, content: dict[str, Any]) -> None:
        with atomic_output(path) as draft:
            draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@contextlib.contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Turn the first SIGINT or SIGTERM into a request to stop, which is set then; a second one acts as usual."""
    interrupted = threading.Event()
    before: dict[int, Any] = {}

    def interrupt(number: int, frame: object) -> None:
        interrupted.set()
        signal.signal(number, before[number])

    # Only there does Python receive signals.
    if threading.current_thread() is threading.main_thread():
        before = {int(number): signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _differing(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """Name what differs between two settings, one level of dicts deep in each other."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {*before, *now}:
            yield from _differing(before.get(key), now.get(key), f"{name} {key}".strip())
    elif before != now:
        yield name


def show_in_tensorboard(folder: Path, row: dict[str, Any]) -> None:
    """Write the figures of an epoch as TensorBoard reads them, if it is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return
    with SummaryWriter(str(folder)) as writer:
        for name, figure in row.items():
            if isinstance(figure, float):
                writer.add_scalar(name, figure, row["epoch"])
