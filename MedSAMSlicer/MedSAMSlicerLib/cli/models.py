"""The command ``models``: the weights on this computer, listed, fetched, imported, verified and removed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from MedSAMSlicerLib.cli.consent import consent
from MedSAMSlicerLib.cli.progress import ProgressBar
from MedSAMSlicerLib.store.catalog import Source, weights_named
from MedSAMSlicerLib.store.weights import StoredWeights, WeightsStore

if TYPE_CHECKING:
    _Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: _Subparsers) -> None:
    """Add ``models`` with its own commands to the program's commands."""
    models = subparsers.add_parser("models", help="list, fetch, import, verify and remove weights")
    commands = models.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("list", help="show the known weights and which of them are here")
    command.set_defaults(run=_list)

    command = commands.add_parser("fetch", help="download weights and check them")
    command.add_argument("name", metavar="NAME", help="the name that `models list` shows, such as lite")
    command.add_argument("--yes", action="store_true", help="download without asking")
    command.set_defaults(run=_fetch)

    command = commands.add_parser("import", help="take over weights that you have downloaded yourself")
    command.add_argument("name", metavar="NAME", help="the name that `models list` shows, such as vit_b")
    command.add_argument("file", metavar="FILE", type=Path, help="the checkpoint, or the archive that contains it")
    command.set_defaults(run=_import)

    command = commands.add_parser("verify", help="read all weights that are here and compare their checksums")
    command.set_defaults(run=_verify)

    command = commands.add_parser("remove", help="delete weights from this computer")
    command.add_argument("name", metavar="NAME", help="the name that `models list` shows")
    command.set_defaults(run=_remove)


def _list(args: argparse.Namespace) -> int:
    """Print the table of known weights."""
    store = WeightsStore()
    rows = [("NAME", "MODEL", "SIZE", "LICENSE", "STATE", "SOURCE")]
    for stored in store.entries():
        weights = stored.weights
        place = _place(weights.sources[0]) if weights.sources else f"by hand: {weights.page}"
        rows.append((weights.name, weights.title, _size(stored), weights.license, stored.state, place))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"\nFolder: {store.folder}")
    return 0


def _fetch(args: argparse.Namespace) -> int:
    """Download weights after the user has agreed."""
    store = WeightsStore()
    weights = weights_named(args.name, store.catalog)
    stored = next(stored for stored in store.entries() if stored.weights == weights)
    if stored.state == "present":
        print(f"{weights.title} is already here and sound: {stored.path}")
        return 0
    if weights.sources:
        print(f"{weights.title}, {_size(stored)}, license {weights.license} ({weights.page})")
        print(f"  from {', else '.join(_place(source) for source in weights.sources)}")
        print(f"  to   {stored.path}")
        if refusal := consent(given=args.yes):
            return refusal
    with ProgressBar(weights.size or 0, weights.name, "B") as bar:
        path = store.fetch(weights.name, bar.update)
    print(f"{weights.title} is here and its checksum is right: {path}")
    return 0


def _import(args: argparse.Namespace) -> int:
    """Copy a file of the user's into the store."""
    from MedSAMSlicerLib.loading import import_weights

    path = import_weights(args.name, args.file, WeightsStore())
    print(f"Imported {args.name}: {path}")
    return 0


def _verify(args: argparse.Namespace) -> int:
    """Hash all weights anew; 1 where some are damaged."""
    damaged = False
    for stored in WeightsStore().verify():
        if stored.state == "present":
            print(f"{stored.weights.name}: sound ({stored.path})")
        elif stored.state == "damaged":
            damaged = True
            print(f"{stored.weights.name}: DAMAGED ({stored.path}); fetch or import it again")
        else:
            print(f"{stored.weights.name}: absent")
    return 1 if damaged else 0


def _remove(args: argparse.Namespace) -> int:
    """Delete weights."""
    WeightsStore().remove(args.name)
    print(f"Removed {args.name}.")
    return 0


def _size(stored: StoredWeights) -> str:
    """Return the published size, else that of the file that is here."""
    size = stored.weights.size or (stored.path.stat().st_size if stored.path.is_file() else None)
    return f"{size / 1e6:,.1f} MB" if size else "unknown"


def _place(source: Source) -> str:
    """Return a short name of a source."""
    return urlsplit(source).netloc if isinstance(source, str) else str(source)
