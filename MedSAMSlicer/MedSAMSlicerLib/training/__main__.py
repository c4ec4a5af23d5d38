"""Run the command ``train`` as torchrun starts it: ``torchrun … -m MedSAMSlicerLib.training --data …``."""

from __future__ import annotations

import sys

from MedSAMSlicerLib.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
