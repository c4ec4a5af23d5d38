"""Run the command line: ``python -m MedSAMSlicerLib``."""

from __future__ import annotations

import sys

from MedSAMSlicerLib.cli.program import run

if __name__ == "__main__":
    sys.exit(run())
