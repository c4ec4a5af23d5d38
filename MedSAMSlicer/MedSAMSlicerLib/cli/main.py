"""The program ``medsam-slicer``."""

from __future__ import annotations

import argparse
import os
import sys
import traceback

from MedSAMSlicerLib import __version__
from MedSAMSlicerLib.cli import dataset, demo, evaluate, models, report, segment, train

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 success, 1 error, 2 wrong usage, 130 interrupted."""
    parser = argparse.ArgumentParser(
        prog="medsam-slicer", description="Segment organs and lesions in CT and MRI volumes from boxes, with MedSAM."
    )
    parser.add_argument("--version", action="version", version=f"medsam-slicer {__version__}")
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (segment, evaluate, dataset, train, report, models, demo):
        command.add_parser(subparsers)
    args = parser.parse_args(arguments)
    try:
        code = int(args.run(args))
        _flush_output()
        return code
    except KeyboardInterrupt:
        print("\nmedsam-slicer: interrupted; no file is half-written", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (head, less) has left: that is no error of ours.
        _discard_output()
        return EXIT_ERROR
    except (ValueError, OSError, RuntimeError, ImportError, MemoryError) as error:
        if args.debug:
            traceback.print_exc()
        else:
            print(f"medsam-slicer: error: {_one_line(error)}", file=sys.stderr)
        return EXIT_ERROR


def _flush_output() -> None:
    """Write what is still buffered: at exit a failure would escape our error handling."""
    try:
        sys.stdout.flush()
    except OSError:
        _discard_output()
        raise


def _discard_output() -> None:
    """Keep what can't be written from failing once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "there is not enough memory: close other programs, or crop the volume"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
