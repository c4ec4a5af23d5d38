"""The command ``cache``: what of this project lies on this computer, taken from and to a folder, and removed."""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from MedSAMSlicerLib.cli.consent import consent
from MedSAMSlicerLib.store.folder import store_folder
from MedSAMSlicerLib.store.inventory import KINDS, Kept, forget_store, inventory, remove
from MedSAMSlicerLib.store.log import log_file
from MedSAMSlicerLib.store.transfer import export_to, import_from
from MedSAMSlicerLib.store.weights import WeightsStore

if TYPE_CHECKING:
    _Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: _Subparsers) -> None:
    """Add ``cache`` with its own commands to the program's commands."""
    cache = subparsers.add_parser(
        "cache", help="list what is kept on this computer, carry it to another one, remove it"
    )
    commands = cache.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("list", help="show weights, samples, embeddings, models and runs with their sizes")
    command.add_argument("--json", action="store_true", help="as JSON")
    command.set_defaults(run=_list)

    command = commands.add_parser("export", help="copy the weights and samples to a folder, such as a USB stick")
    command.add_argument("folder", metavar="FOLDER", type=Path)
    command.set_defaults(run=_export)

    command = commands.add_parser("import", help="take over weights and samples from such a folder; needs no network")
    command.add_argument("folder", metavar="FOLDER", type=Path)
    command.set_defaults(run=_import)

    command = commands.add_parser("remove", help="delete what is kept")
    command.add_argument("kind", choices=(*KINDS, "all"), help="what `cache list` shows")
    command.add_argument("name", nargs="?", metavar="NAME", help="one of this kind; by default all of it")
    command.add_argument("--yes", action="store_true", help="remove without asking")
    command.set_defaults(run=_remove)

    command = commands.add_parser("log", help="show what was fetched from where and when, imported and removed")
    command.set_defaults(run=_log)


def _list(args: argparse.Namespace) -> int:
    """Print the table of what is kept."""
    found = inventory()
    if args.json:
        rows = [{"kind": each.kind, "name": each.name, "bytes": each.size, "path": str(each.path)} for each in found]
        print(json.dumps({"folder": str(store_folder()), "kept": rows}, indent=2))
        return 0
    _print(found)
    print(f"\n{_megabytes(sum(each.size for each in found))} in {store_folder()}")
    return 0


def _export(args: argparse.Namespace) -> int:
    """Fill a folder for another computer."""
    for path in export_to(args.folder, WeightsStore()):
        print(path)
    print(f"On the other computer run: medsam-slicer cache import {args.folder}")
    return 0


def _import(args: argparse.Namespace) -> int:
    """Take over what lies in a folder."""
    from MedSAMSlicerLib.loading import import_weights

    store = WeightsStore()
    taken = import_from(args.folder, store, partial(import_weights, store=store), lambda name: print(f"Reading {name}"))
    print(f"Imported {', '.join(taken)}." if taken else "All that the folder holds is here already.")
    return 0


def _remove(args: argparse.Namespace) -> int:
    """Delete what was asked for, after the user has agreed."""
    found = [each for each in inventory() if args.kind in (each.kind, "all") and args.name in (each.name, None)]
    if args.name is not None and not found:
        raise ValueError(
            f"There is nothing called {args.name!r} among the {args.kind}: see `medsam-slicer cache list`."
        )
    if found:
        _print(found)
        if refusal := consent(given=args.yes, question="Remove?", refused="Nothing removed"):
            return refusal
    for each in found:
        remove(each)
    print(f"Removed {_megabytes(sum(each.size for each in found))}.")
    if args.kind == "all" and args.name is None:
        for path in forget_store():
            print(f"{path} is not ours and stays.", file=sys.stderr)
    return 0


def _log(args: argparse.Namespace) -> int:
    """Print the log."""
    if not log_file().is_file():
        print(f"Nothing was fetched, imported or removed yet ({log_file()}).")
        return 0
    print(log_file().read_text(encoding="utf-8", errors="replace"), end="")
    return 0


def _print(found: list[Kept]) -> None:
    rows = [("KIND", "NAME", "SIZE", "PATH")]
    rows += [(each.kind, each.name, _megabytes(each.size), str(each.path)) for each in found]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
