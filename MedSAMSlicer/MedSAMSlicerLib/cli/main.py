"""The program ``medsam-slicer``."""

from __future__ import annotations

import argparse
import re
import sys
import traceback

from MedSAMSlicerLib import __version__
from MedSAMSlicerLib.cli import (
    bench,
    cache,
    dataset,
    demo,
    evaluate,
    interrupt,
    models,
    report,
    segment,
    streams,
    train,
)
from MedSAMSlicerLib.cli.messages import sentence

EXIT_ERROR = 1


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 success, 1 error, 2 wrong usage, 130 interrupted."""
    streams.complete()
    parser = argparse.ArgumentParser(
        prog="medsam-slicer", description="Segment organs and lesions in CT and MRI volumes from boxes, with MedSAM."
    )
    parser.add_argument("--version", action="version", version=f"medsam-slicer {__version__}")
    parser.add_argument(
        "--debug", action="store_true", help="show where an error comes from, and what libraries say on their own"
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (segment, evaluate, dataset, train, report, models, cache, bench, demo):
        command.add_parser(subparsers)
    given = sys.argv[1:] if arguments is None else arguments
    if any(re.fullmatch(r"(--[\w-]+=)?", each) for each in given):
        # As a path it would be the folder that one is in.
        parser.error("an argument is empty: is a variable of the shell not set?")
    args = parser.parse_args(given)
    with streams.loud() if args.debug else streams.quiet():
        code, text = _run(args)
        # It has ended: nothing may follow this line, nor take its place.
        interrupt.ignore()
        if text:
            print(f"medsam-slicer: {text}", file=sys.stderr)
    return code


def _run(args: argparse.Namespace) -> tuple[int, str]:
    """Run a command, and return its exit code and what is to be said of it."""
    try:
        _check_text(args)
        code = int(args.run(args))
        _flush_output()
        return code, ""
    except KeyboardInterrupt:
        return interrupt.EXIT_INTERRUPTED, interrupt.TEXT
    except BrokenPipeError:
        # The reader of our output (head, less) has left: that is no error of ours.
        streams.discard_output()
        return EXIT_ERROR, ""
    except Exception as error:
        if interrupt.waits():
            return interrupt.EXIT_INTERRUPTED, interrupt.TEXT
        if args.debug:
            traceback.print_exc()
            return EXIT_ERROR, ""
        return EXIT_ERROR, f"error: {sentence(error)}"


def _check_text(args: argparse.Namespace) -> None:
    """Refuse what is no text in this system's encoding: native libraries would abort over such a path."""
    for value in vars(args).values():
        for text in map(str, value if isinstance(value, list) else [value]):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"{text!a} is no valid UTF-8: rename the file or folder.") from error


def _flush_output() -> None:
    """Write what is still buffered: at exit a failure would escape our error handling."""
    try:
        sys.stdout.flush()
    except OSError:
        streams.discard_output()
        raise
