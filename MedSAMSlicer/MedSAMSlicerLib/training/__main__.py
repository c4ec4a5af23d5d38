"""Run the command ``train`` as torchrun starts it: ``torchrun … -m MedSAMSlicerLib.training --data …``."""

from __future__ import annotations

import sys

from MedSAMSlicerLib.cli.program import run

if __name__ == "__main__":
    sys.exit(run(["train", *sys.argv[1:]]))
