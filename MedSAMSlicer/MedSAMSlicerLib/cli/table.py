"""The table of a batch: a CSV file with a line for every volume."""

from __future__ import annotations

import csv
from pathlib import Path

PROMPTS = ("box", "slice_box", "line", "roi")
COLUMNS = ("volume", "output", *PROMPTS, "name", "limit", "window", "axis", "propagation", "snapshot", "json")


def read_table(path: Path) -> list[dict[str, str]]:
    """Read the rows of a table, column -> cell without spaces around it; empty lines are left out.

    :raises ValueError: if the file is no such table, or a row can't be meant so.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [_without_rest([cell.strip() for cell in line]) for line in csv.reader(file, strict=True)]
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is no text in UTF-8 (byte {error.start}): save it as 'CSV UTF-8', as spreadsheets call that."
        ) from error
    except csv.Error as error:
        raise ValueError(f"{path} is no table ({error}): save it as CSV with commas.") from error
    columns = lines[0] if lines else []
    if unknown := [name for name in columns if name not in COLUMNS]:
        raise ValueError(
            f"{path} has the column {unknown[0]!r}: the columns may be {', '.join(COLUMNS)}, with commas between them."
        )
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise ValueError(f"{path} has the column {twice[0]!r} twice: leave one of them out.")
    if missing := [name for name in ("volume", "output") if name not in columns]:
        raise ValueError(f"{path} has no column {missing[0]!r}: its first line must name the columns.")
    rows = [line for line in lines[1:] if line]
    if not rows:
        raise ValueError(f"{path} has no row below its first line: add one for every volume.")
    for number, row in enumerate(rows, start=1):
        if len(row) > len(columns):
            raise ValueError(
                f"Row {number} of {path} has more cells than the first line: put texts with commas in quotes."
            )
        if "\0" in "".join(row):
            raise ValueError(f"Row {number} of {path} has a zero byte: save the table as text anew.")
    table = [dict(zip(columns, row + [""] * (len(columns) - len(row)), strict=True)) for row in rows]
    for number, cells in enumerate(table, start=1):
        if not cells["output"]:
            raise ValueError(f"Row {number} of {path} has no output: give each row its own file.")
    return table


def _without_rest(line: list[str]) -> list[str]:
    """Leave out empty cells at the end, as spreadsheets write them."""
    while line and not line[-1]:
        line.pop()
    return line
