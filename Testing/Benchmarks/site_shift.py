"""Fine-tune for a scanner of known contrast: the base model loses on its images; does the tuned one regain, on others?

Real images and expert labels, passed through a scanner that is written down in `scanned`: TotalSegmentator's sample CT
and MRI, and pairs ``NAME_image.*`` and ``NAME_label.*``, all of different patients. In the environment of the tests:

    python Testing/Benchmarks/site_shift.py --data FOLDER [--patients 1] [--depth decoder] [--epochs 3] [--folder WORK]

With the folder of a run that was interrupted it goes on. The embeddings stay in it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1])]

from Benchmarks.cases import Case, labelled_cases
from MedSAMSlicerLib.dataset.case import LoadedCase
from MedSAMSlicerLib.dataset.site import SiteDataset
from MedSAMSlicerLib.evaluation.scores import FOUND_FROM, score_case
from MedSAMSlicerLib.inference.predictor import Predictor
from MedSAMSlicerLib.loading import load_predictor
from MedSAMSlicerLib.training.fine_tuning import Job, fine_tune
from MedSAMSlicerLib.training.recipe import DEPTHS, Recipe
from MedSAMSlicerLib.training.run import Progress
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.files import Volume
from MedSAMSlicerLib.volume.intensity import resolve_window

SEED = 2026
NOISE = 0.1


def scanned(voxels: np.ndarray, window: str) -> np.ndarray:
    """Make the image that another scanner would give of a windowed one, its values in [0, 1], as int16.

    Its contrast is inverted and flat (1 becomes 0.3, 0 becomes 0.7), its coil sees the front 1.6 times and the back
    0.6 times as bright (exp(0.5 y), y from -1 to 1 along J), and its noise is Rician, as an MRI's is, with a standard
    deviation of 0.1.
    """
    values = resolve_window(window, voxels).apply(voxels) / 255.0
    values = 0.7 - 0.4 * values
    values = values * np.exp(0.5 * np.linspace(-1, 1, voxels.shape[1]))[None, :, None]
    random = np.random.default_rng(SEED)
    values = np.hypot(values + random.normal(0, NOISE, voxels.shape), random.normal(0, NOISE, voxels.shape))
    return np.rint(1000 * values).astype(np.int16)


def site_of(cases: list[Case], folder: Path, trained: int) -> SiteDataset:
    """Put the scanned images into a dataset: the CT and others are tuned on, the MRI validates, the rest is shown."""
    if (folder / "dataset.json").is_file():
        return SiteDataset.open(folder)
    dataset = SiteDataset.create(folder)
    patients: dict[int, list[Case]] = {}
    for case in cases:
        patients.setdefault(id(case.volume), []).append(case)
    splits = ["train", "validation", *["train"] * (trained - 1), *["test"] * len(patients)]
    for structures, split in zip(patients.values(), splits, strict=False):
        volume = structures[0].volume
        shifted = Volume(scanned(volume.voxels, structures[0].window), volume.ijk_to_ras, volume.name)
        case = dataset.add(shifted, {case.name: case.expert for case in structures}, patient=None, window="mr")
        dataset.assign(case.id, split)
    return dataset


def shown(loaded: list[LoadedCase], predictor: Predictor) -> dict[tuple[str, str], float]:
    """Measure the Dice of every structure from every kind of box."""
    cache = EmbeddingCache()
    scores = [score for case in loaded for score in score_case(case, predictor, cache)]
    return {(score.label, score.box): score.dice for score in scores}


def main() -> None:
    """Tune, and print the Dice before and after on the patients that are shown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of NAME_image.* and NAME_label.* pairs")
    parser.add_argument("--folder", type=Path, help="of the dataset and the run, by default a temporary one")
    parser.add_argument("--depth", default="decoder", choices=DEPTHS)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--patients", type=int, default=1, help="to tune on: the CT, and the first of the others")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = args.folder or Path(temporary)
        cases = labelled_cases(args.data)
        dataset = site_of(cases, work / "site", args.patients)
        for case in dataset.cases:
            print(f"{case.id}  {case.split:10}  {', '.join(case.labels)}")
        recipe = Recipe.of_depth(args.depth, epochs=args.epochs, variants=2, validated_structures=6)
        start, clock = time.monotonic(), [0.0]

        def report(progress: Progress) -> None:
            if time.monotonic() - clock[0] > 30:
                clock[0] = time.monotonic()
                print(f"  {progress.state} {progress.epoch}/{progress.of}: {progress.batch}/{progress.batches}")

        job = Job(work / "site", work / f"{args.depth}.pth", recipe, embeddings=work / "embeddings", device="cpu")
        outcome = fine_tune(job, report)
        print(f"{outcome.message} ({(time.monotonic() - start) / 60:.1f} minutes)")
        if outcome.output is None:
            return
        test = [case for case in dataset.cases if case.split == "test"]
        images = {"shifted": [dataset.load(case) for case in test]}
        originals = [case for case in cases if any(case.name in held.labels for held in test)]
        names = {id(case.volume): held for held in test for case in originals if case.name in held.labels}
        images["as they were"] = [
            LoadedCase(held, case.volume, {c.name: c.expert for c in originals if c.volume is case.volume}, case.window)
            for case in originals
            if (held := names.pop(id(case.volume), None))
        ]
        for kind, loaded in images.items():
            before = shown(loaded, load_predictor("lite", "cpu"))
            after = shown(loaded, load_predictor(str(outcome.output), "cpu"))
            print(f"\nImages {kind}                     box         before  after")
            for label, box in before:
                print(f"{label:36}  {box:10}  {before[label, box]:6.3f}  {after[label, box]:.3f}")
            for box in FOUND_FROM:
                pairs = [(before[key], after[key]) for key in before if key[1] == box]
                print(f"{'mean':36}  {box:10}  {np.mean(pairs, axis=0)[0]:6.3f}  {np.mean(pairs, axis=0)[1]:.3f}")


if __name__ == "__main__":
    main()
