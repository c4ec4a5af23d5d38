"""Many volumes from a table: one model, the next volume read in the meantime, one line of result per case."""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedSAMSlicerLib.cli.foretold import foretell
from MedSAMSlicerLib.cli.messages import sentence
from MedSAMSlicerLib.cli.outputs import files_of
from MedSAMSlicerLib.cli.ranks import rank_and_size
from MedSAMSlicerLib.cli.segment import check_arguments, check_files, outputs_of, require_slicer_core, segment_volume
from MedSAMSlicerLib.cli.table import PROMPTS, read_table
from MedSAMSlicerLib.store.claim import Claim
from MedSAMSlicerLib.store.pace import remember_pace

if TYPE_CHECKING:
    from MedSAMSlicerLib.volume.files import Volume

# Options that change where or how something is computed, but not what.
_NO_MATTER = ("batch", "device", "embeddings", "debug", "run", "wrong_usage", "default_of", "repeat")


def run_batch(args: argparse.Namespace) -> int:
    """Segment the cases of a table and print one JSON object a line for each; 1 where some failed.

    A case whose files are all there and made from its row is skipped, so that the same command goes on where it was
    interrupted; one that another process works at is left to it. Under torchrun every process takes its share of the
    table (``RANK``, ``WORLD_SIZE``) and its own GPU (``LOCAL_RANK``).
    """
    rank, processes = rank_and_size()
    cases = [_Case(args, number, row) for number, row in enumerate(read_table(args.batch), start=1)]
    check_files({f" of row {case.number}": case.arguments for case in cases if case.arguments})
    with require_slicer_core():
        from MedSAMSlicerLib.headless import scene  # noqa: F401
    from MedSAMSlicerLib.inference.enduring_predictor import EnduringPredictor

    load = functools.cache(lambda instead: _load(args, instead))
    failed, share = False, cases[rank::processes]
    kind = f"row {args.model} {args.device} {args.propagation}"
    foretell(kind, len(share), "rows at most")
    with contextlib.closing(_read_ahead(share)) as pending:
        for case, reading in pending:
            if isinstance(reading, dict):
                result = reading
            else:
                # A model that can't be loaded would fail every case: it stops the batch.
                EnduringPredictor(load, lambda: None, lambda text: print(text, file=sys.stderr))
                result = _result(case, reading, load)
            failed |= result["state"] == "failed"
            if result["state"] == "done":
                remember_pace(kind, 1, result["seconds"])
            line = json.dumps({"row": case.number, "output": case.row["output"], **result})
            # With its end at once: PyTorch's launcher buffers nothing, and another process's line must not get between.
            print(f"{line}\n", end="", flush=True)
    return int(failed)


def _result(case: _Case, reading: Future[Volume], load: Callable[[str | None], Any]) -> dict[str, Any]:
    """Segment a case and return its figures, or why it failed."""
    start = time.monotonic()
    try:
        volume = reading.result()
        case.claim.begin()
        report = segment_volume(case.arguments, volume, load)
        case.claim.end()
    except Exception as error:
        return _failure(error)
    voxels = {segment["name"]: segment["voxels"] for segment in report["segments"]}
    return {"state": "done", "voxels": voxels, "seconds": round(time.monotonic() - start, 3)}


def _failure(error: Exception) -> dict[str, Any]:
    return {"state": "failed", "error": sentence(error)}


class _Case:
    """A row of the table, turned into the arguments of one run.

    ``arguments`` is None where a value is missing or wrong; ``check`` tells.
    """

    claim: Claim

    def __init__(self, options: argparse.Namespace, number: int, row: dict[str, str]) -> None:
        self.options = options
        self.number = number
        self.row = row
        self.folder = options.batch.parent
        self.arguments: Any = None
        with contextlib.suppress(ValueError):
            self.arguments = self._read_row()

    def check(self) -> dict[str, Any] | None:
        """Claim the row, and return its result if there is nothing to do: it is wrong, done, or taken."""
        try:
            arguments = self.arguments or self._read_row()
            check_arguments(arguments)
            claim = Claim(list(outputs_of(arguments).values()), self._digest(arguments))
            if not claim.take():
                return {"state": "taken"}
            try:
                done = claim.is_done()
            except BaseException:
                claim.release()
                raise
        except Exception as error:
            return _failure(error)
        if done:
            claim.release()
            return {"state": "skipped"}
        self.claim = claim
        return None

    def read(self) -> Volume:
        """Read the volume of the row."""
        from MedSAMSlicerLib.volume.files import read_volume

        return read_volume(self.arguments.volume)

    def _read_row(self) -> argparse.Namespace:
        """Return the command line's options with those of the row in their place.

        :raises ValueError: if a value is missing or wrong.
        """
        row = self.row
        if not row["volume"] or sum(bool(row.get(name)) for name in PROMPTS) != 1:
            raise ValueError(
                f"Row {self.number} needs a volume, and one of box, slice_box, line and roi: fill in these columns."
            )
        box = self._value("box", _whole_numbers, "six whole numbers, I0 J0 K0 I1 J1 K1")
        slice_box = self._value("slice_box", _whole_numbers, "five whole numbers, K X0 Y0 X1 Y1")
        limit = self._value("limit", float, "one number, in millimeters")
        if limit is not None and not (slice_box or row.get("line")):
            raise ValueError(f"Row {self.number} has a limit, which is for a slice_box or a line: leave it out.")
        values: dict[str, Any] = {name: row[name] for name in ("window", "axis", "propagation") if row.get(name)}
        values |= {name: self.folder / row[name] for name in ("volume", "output", "snapshot") if row.get(name)}
        if row.get("json"):
            values["json"] = str(self.folder / row["json"])
        lines, rois = (
            [self.folder / path.strip() for path in row[column].split(";") if path.strip()] if row.get(column) else None
            for column in ("line", "roi")
        )
        names = [name.strip() for name in row["name"].split(";")] if row.get("name") else []
        if limit is not None:
            values["limit"] = limit
        values |= {"box": box, "slice_box": slice_box, "line": lines, "roi": rois, "name": names}
        return argparse.Namespace(**{**vars(self.options), **values})

    def _value(self, column: str, convert: Callable[[str], Any], expected: str) -> Any:
        """Convert the text of a column; None if it is empty.

        :raises ValueError: if it is something else than expected.
        """
        text = self.row.get(column)
        try:
            return convert(text) if text else None
        except ValueError as error:
            raise ValueError(f"The {column} {text!r} of row {self.number} must be {expected}.") from error

    def _digest(self, arguments: argparse.Namespace) -> str:
        """Digest all that the result depends on: the row, the options, and the files that are read."""
        from MedSAMSlicerLib.loading import file_state

        options = {name: str(value) for name, value in vars(self.options).items() if name not in _NO_MATTER}
        paths = (*files_of(arguments.volume), *(arguments.line or ()), *(arguments.roi or ()), Path(arguments.model))
        files = [path for path in paths if path.is_file()]
        content = json.dumps([self.row, options, [file_state(str(path)) for path in files]], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def _whole_numbers(text: str) -> list[int]:
    return [int(number) for number in text.split()]


def _read_ahead(cases: list[_Case]) -> Generator[tuple[_Case, Future[Volume] | dict[str, Any]], None, None]:
    """Yield every case with its volume, while a thread reads the next one; with its result where that is known."""
    ahead: list[tuple[_Case, Future[Volume] | dict[str, Any]]] = []
    with ThreadPoolExecutor(max_workers=1) as reader:
        try:
            for case in cases:
                ahead.append((case, case.check() or reader.submit(case.read)))
                if len(ahead) > 1:
                    yield ahead[0]
                    _release(*ahead.pop(0))
            while ahead:
                yield ahead[0]
                _release(*ahead.pop(0))
        finally:
            # The last one first: it may lie in a folder that was made for the one before.
            for held in reversed(ahead):
                _release(*held)


def _release(case: _Case, reading: Future[Volume] | dict[str, Any]) -> None:
    """Let other processes have a row that was claimed."""
    if not isinstance(reading, dict):
        reading.cancel()
        case.claim.release()


def _load(args: argparse.Namespace, instead: str | None) -> Any:
    """Load the model, under torchrun on this process's own GPU where there are GPUs.

    :param instead: another device than the chosen one.
    """
    from MedSAMSlicerLib.inference.device import choose_device
    from MedSAMSlicerLib.loading import load_predictor

    device = instead or args.device
    if "LOCAL_RANK" in os.environ and choose_device(device).type == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    return load_predictor(args.model, device)
