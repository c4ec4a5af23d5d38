"""Many volumes from a table: one model, the next volume read in the meantime, one line of result per case."""

from __future__ import annotations

import argparse
import csv
import functools
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedSAMSlicerLib.cli.segment import check_arguments, require_slicer_core, segment_volume

if TYPE_CHECKING:
    from MedSAMSlicerLib.volume.files import Volume

_PROMPTS = ("box", "slice_box", "roi")
_COLUMNS = ("volume", "output", *_PROMPTS, "name", "limit", "window", "axis", "propagation", "snapshot", "json")


def run_batch(args: argparse.Namespace) -> int:
    """Segment the cases of a table and print one JSON object a line for each; 1 where some failed.

    A case whose output is there already is skipped, so that the same command goes on where it was interrupted. Under
    torchrun every process takes its share of the table (``RANK``, ``WORLD_SIZE``) and its own GPU (``LOCAL_RANK``).
    """
    rows = _read_table(args.batch)
    rank, processes = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    cases = [_Case(args, number, row) for number, row in enumerate(rows, start=1)][rank::processes]
    with require_slicer_core():
        from MedSAMSlicerLib.headless import scene  # noqa: F401
    load = functools.cache(lambda: _load(args))
    failed = False
    for case, reading in _read_ahead(cases):
        if reading is None:
            result: dict[str, Any] = {"state": "skipped"}
        else:
            # A model that can't be loaded would fail every case: it stops the batch.
            load()
            result = _result(case, reading, load)
        failed |= result["state"] == "failed"
        print(json.dumps({"row": case.number, "output": case.row["output"], **result}), flush=True)
    return int(failed)


def _result(case: _Case, reading: Future[Volume], load: Callable[[], Any]) -> dict[str, Any]:
    """Segment a case and return its figures, or why it failed."""
    start = time.monotonic()
    try:
        report = segment_volume(case.arguments(), reading.result(), load)
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        return {"state": "failed", "error": " ".join(str(error).split()) or type(error).__name__}
    voxels = {segment["name"]: segment["voxels"] for segment in report["segments"]}
    return {"state": "done", "voxels": voxels, "seconds": round(time.monotonic() - start, 3)}


class _Case:
    """A row of the table, to be turned into the arguments of one run."""

    def __init__(self, options: argparse.Namespace, number: int, row: dict[str, str]) -> None:
        self.options = options
        self.number = number
        self.row = row
        self.folder = options.batch.parent

    @property
    def is_done(self) -> bool:
        return (self.folder / self.row["output"]).is_file()

    def arguments(self) -> argparse.Namespace:
        """Return the command line's options with those of the row in their place.

        :raises ValueError: if a value is missing or wrong.
        """
        row = self.row
        if not row["volume"] or sum(bool(row.get(name)) for name in _PROMPTS) != 1:
            raise ValueError(
                f"Row {self.number} needs a volume, and one of box, slice_box and roi: fill in these columns."
            )
        box = self._numbers("box", int, "six whole numbers, I0 J0 K0 I1 J1 K1")
        slice_box = self._numbers("slice_box", int, "five whole numbers, K X0 Y0 X1 Y1")
        limit = self._numbers("limit", float, "one number, in millimeters")
        values: dict[str, Any] = {name: row[name] for name in ("window", "axis", "propagation") if row.get(name)}
        values |= {name: self.folder / row[name] for name in ("volume", "output", "snapshot") if row.get(name)}
        if row.get("json"):
            values["json"] = str(self.folder / row["json"])
        roi = [self.folder / path.strip() for path in row["roi"].split(";")] if row.get("roi") else None
        names = [name.strip() for name in row["name"].split(";")] if row.get("name") else []
        if limit:
            values["limit"] = limit[0]
        values |= {"box": box, "slice_box": slice_box, "roi": roi, "name": names}
        return argparse.Namespace(**{**vars(self.options), **values})

    def _numbers(self, column: str, kind: type, expected: str) -> list[Any]:
        """Read the numbers of a column; none if it is empty.

        :raises ValueError: if these are none.
        """
        text = self.row.get(column, "")
        try:
            return [kind(number) for number in text.split()]
        except ValueError as error:
            raise ValueError(f"The {column} {text!r} of row {self.number} must be {expected}.") from error

    def read(self) -> Volume:
        """Check the row and read its volume."""
        from MedSAMSlicerLib.volume.files import read_volume

        arguments = self.arguments()
        check_arguments(arguments)
        return read_volume(arguments.volume)


def _read_table(path: Path) -> list[dict[str, str]]:
    """Read the rows of a table, and refuse one that can't be meant so."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, restval="")
        columns = [name.strip() for name in reader.fieldnames or []]
        reader.fieldnames = columns
        rows = list(reader)
    if unknown := [name for name in columns if name not in _COLUMNS]:
        raise ValueError(f"{path} has the column {unknown[0]!r}: the columns may be {', '.join(_COLUMNS)}.")
    if missing := [name for name in ("volume", "output") if name not in columns]:
        raise ValueError(f"{path} has no column {missing[0]!r}: its first line must name the columns.")
    for number, row in enumerate(rows, start=1):
        if None in row:
            raise ValueError(
                f"Row {number} of {path} has more cells than the first line: put texts with commas in quotes."
            )
    outputs = [row["output"] for row in rows]
    for output in outputs:
        if not output or outputs.count(output) > 1:
            raise ValueError(
                f"The output {output!r} is in {outputs.count(output)} rows of {path}: give each its own file."
            )
    return rows


def _read_ahead(cases: list[_Case]) -> Iterator[tuple[_Case, Future[Volume] | None]]:
    """Yield every case with its volume, while a thread reads the next one; None where its output is there already."""
    with ThreadPoolExecutor(max_workers=1) as reader:
        ahead: list[tuple[_Case, Future[Volume] | None]] = []
        for case in cases:
            ahead.append((case, None if case.is_done else reader.submit(case.read)))
            if len(ahead) > 1:
                yield ahead.pop(0)
        yield from ahead


def _load(args: argparse.Namespace) -> Any:
    """Load the model, under torchrun on this process's own GPU where there are GPUs."""
    from MedSAMSlicerLib.inference.device import choose_device
    from MedSAMSlicerLib.loading import load_predictor

    device = args.device
    if "LOCAL_RANK" in os.environ and choose_device(device).type == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    return load_predictor(args.model, device)
