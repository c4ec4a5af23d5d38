"""Run the command line: ``python -m MedSAMSlicerLib``."""

from __future__ import annotations

import sys

from MedSAMSlicerLib.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
