"""Let a random user segment, measure, correct, cancel, undo, redo, paint, erase, rename, delete, add, move and save.

After every step all segments, their names and the volume are compared with a plain model, see `checked_session`. In the
environment of the tests: `python Testing/Benchmarks/random_edits.py [--steps 10000] [--seed 1] [--scene 200]`. The exit
code is 1 if anything was lost or wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "Testing"), str(ROOT / "MedSAMSlicer")]

from random_user import RandomUser


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000, help="how many, in all scenes together")
    parser.add_argument("--seed", type=int, default=1, help="of the first scene; each further one takes the next")
    parser.add_argument("--scene", type=int, default=200, help="steps after which a new scene begins")
    options = parser.parse_args()
    start, done, wrong, seed = time.monotonic(), 0, 0, options.seed
    kinds: Counter[str] = Counter()
    while done < options.steps:
        user, told = RandomUser(seed), [f"seed {seed}"]
        try:
            for _ in range(min(options.scene, options.steps - done)):
                done += 1
                told.append(user.act())
                kinds[told[-1].split(":")[0]] += 1
        except Exception as error:
            wrong += 1
            print("\n  ".join(told[:1] + told[-10:] + [f"then: {type(error).__name__}: {error}"]), flush=True)
        seed += 1
    print(", ".join(f"{count} {kind}" for kind, count in kinds.most_common()))
    print(f"{done} steps in {seed - options.seed} scenes, {time.monotonic() - start:.0f} s: {wrong} lost or wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
