"""What a site's training is worth to its next patient: one patient is left out, the others are the site.

Real patients, ``<patient>_<sequence>_image.*`` and ``<patient>_<sequence>_label.*``, one sequence at a time. The site
trains as its users would, with `training.fine_tuning`, which may decline; then base and tuned model segment the patient
who was left out from a box on one slice, from one 3-D box, and from a box per slice, and the sample cases, which are of
the old kind. In the environment of the tests:

    python Testing/Benchmarks/site_training.py --data FOLDER [--sequence t1c flair] [--patients 1 2 3] [--every 3]
        [--depth decoder] [--device cpu] [--leave PATIENT ...] [--folder WORK] [OPTION=VALUE ...]

Options are fields of `training.recipe.Recipe`. Of each volume every third slice is taken, as of a scan of 3 mm, which
is three times as fast. Embeddings and runs stay in the folder; a run that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1])]

from MedSAMSlicerLib.dataset.site import SiteDataset
from MedSAMSlicerLib.evaluation.scores import FOUND_FROM, TIGHT, Score, score_case
from MedSAMSlicerLib.loading import load_predictor
from MedSAMSlicerLib.training.embeddings import StoredEmbeddings
from MedSAMSlicerLib.training.fine_tuning import Job, Outcome, fine_tune
from MedSAMSlicerLib.training.recipe import DEPTHS, Recipe
from MedSAMSlicerLib.training.strengths import sample_cases
from MedSAMSlicerLib.training.validation import spread
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.files import Volume, read_volume
from MedSAMSlicerLib.volume.intensity import resolve_window

Patients = dict[str, tuple[Volume, np.ndarray, str]]


def patients_of(folder: Path, sequence: str, every: int) -> Patients:
    """Read the patients of a sequence: volume, label (K, J, I), and the window of the whole volume."""
    patients = {}
    for path in sorted(folder.glob(f"*_{sequence}_image.*")):
        volume = read_volume(path)
        expert = read_volume(path.with_name(path.name.replace("_image.", "_label."))).voxels != 0
        seen = resolve_window("auto", volume.voxels)
        matrix = volume.ijk_to_ras.copy()
        matrix[:, 2] *= every
        start = every // 2
        thin = Volume(volume.voxels[start::every].copy(), matrix, volume.name)
        window = f"{(seen.lower + seen.upper) / 2}/{seen.upper - seen.lower}"
        patients[re.sub(rf"_{sequence}_image\..*", "", path.name)] = (thin, expert[start::every].copy(), window)
    return patients


def site_of(patients: Patients, folder: Path, held: Patients) -> SiteDataset:
    """Make the dataset of a site; the last patient validates, where none is left out in turn, and others test."""
    if (folder / "dataset.json").is_file():
        return SiteDataset.open(folder)
    dataset = SiteDataset.create(folder)
    for number, (volume, expert, window) in enumerate(patients.values(), start=1):
        case = dataset.add(volume, {"structure": expert}, patient=None, window=window)
        dataset.assign(case.id, "validation" if number == len(patients) > 1 else "train")
    for volume, expert, window in held.values():
        case = dataset.add(volume, {"structure": expert}, patient=None, window=window)
        dataset.assign(case.id, "test")
    return dataset


def main() -> None:
    """Print a row per patient left out, and the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the patients")
    parser.add_argument("--sequence", nargs="+", default=["t1c", "flair"])
    parser.add_argument("--patients", nargs="+", type=int, default=[3], help="to train on, beside the one left out")
    parser.add_argument("--every", type=int, default=3, help="slice of a volume is taken")
    parser.add_argument("--depth", default="decoder", choices=DEPTHS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--leave", nargs="+", metavar="PATIENT", help="leave out these only, one after the other")
    parser.add_argument("--boxes", nargs="+", default=list(FOUND_FROM), choices=FOUND_FROM)
    parser.add_argument("--old", type=int, default=4, help="structures of the sample cases, of the old kind")
    parser.add_argument("--folder", type=Path, help="of datasets, runs and embeddings, by default a temporary one")
    parser.add_argument("options", nargs="*", metavar="OPTION=VALUE")
    args = parser.parse_args()
    changes = {name: ast.literal_eval(value) for name, _, value in (each.partition("=") for each in args.options)}
    recipe = Recipe.of_depth(args.depth, **changes)
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(recipe, args.folder or Path(temporary), args.device, args.boxes, args.old)
        for sequence in args.sequence:
            patients = patients_of(args.data, sequence, args.every)
            if unknown := set(args.leave or ()) - set(patients):
                parser.error(
                    f"no patient {', '.join(sorted(unknown))} in {args.data}: give some of {', '.join(patients)}"
                )
            for count in args.patients:
                bench.measure(sequence, patients, args.leave or list(patients), count)


class Bench:
    """What is trained, and what is measured of it.

    :param work: folder of datasets, runs and embeddings.
    :param boxes: from which the patient left out is segmented, see `evaluation.scores.Score`.
    :param old: how many structures of the sample cases are, too, from one 3-D box.
    """

    def __init__(self, recipe: Recipe, work: Path, device: str, boxes: Sequence[str], old: int) -> None:
        self.recipe, self.work, self.boxes = recipe, work, boxes
        self.base = load_predictor("lite", device)
        self.cache = StoredEmbeddings(work / "embeddings", self.base)
        known = spread(sample_cases(), old)
        self.old = [(each, score_case(each, self.base, self.cache, (TIGHT,))[0]) for each in known]

    def measure(self, sequence: str, patients: Patients, left: Sequence[str], count: int) -> None:
        """Leave patients out, one at a time, with as many others as the site."""
        rows: dict[str, list[tuple[Score, Score]]] = {box: [] for box in (*self.boxes, "old kind")}
        names, accepted = list(patients), 0
        for name in left:
            number = names.index(name)
            others = (names[number + 1 :] + names[:number])[:count]
            folder = self.work / f"{sequence}-without-{name}-{count}"
            dataset = site_of({other: patients[other] for other in others}, folder / "site", {name: patients[name]})
            outcome, minutes = self.trained(folder)
            print(
                f"{sequence}, {name} left out, trained on {', '.join(others)}: {outcome.message} ({minutes:.1f} min)",
                flush=True,
            )
            (loaded,) = (dataset.load(case) for case in dataset.cases if case.split == "test")
            before = score_case(loaded, self.base, self.cache, self.boxes)
            after = before
            if outcome.output:
                accepted += 1
                tuned = load_predictor(str(outcome.output), str(self.base.device))
                # Another image encoder makes other embeddings.
                own = self.cache if self.recipe.depth == "decoder" else EmbeddingCache(found_budget=0)
                after = score_case(loaded, tuned, own, self.boxes)
                rows["old kind"] += [(known, score_case(each, tuned, own, (TIGHT,))[0]) for each, known in self.old]
            for box, *pair in zip(self.boxes, before, after, strict=True):
                rows[box].append(tuple(pair))
                show(f"  {name}", box, rows[box][-1:])
        print(f"{sequence}, {count} patients to train on, {accepted} of {len(left)} models accepted")
        for box, pairs in rows.items():
            if pairs:
                show("  mean", box, pairs)
                show("  worst", box, [min(pairs, key=lambda pair: pair[1].dice - pair[0].dice)])

    def trained(self, folder: Path) -> tuple[Outcome, float]:
        """Train the site in a folder; return the outcome and the minutes that it took, encoding included."""
        start = time.monotonic()
        outcome = fine_tune(
            Job(
                folder / "site",
                folder / "tuned.pth",
                self.recipe,
                device=str(self.base.device),
                embeddings=self.work / "embeddings",
            )
        )
        return outcome, (time.monotonic() - start) / 60


def show(who: str, box: str, pairs: Sequence[tuple[Score, Score]]) -> None:
    """Print the mean Dice and surface Dice (2 mm) before and after."""
    figures = np.array([[(score.dice, score.surface_dice) for score in pair] for pair in pairs])
    (dice, surface), (after, surface_after) = figures.mean(axis=0)
    text = f"Dice {dice:.3f} to {after:.3f} ({after - dice:+.3f})  surface {surface:.3f} to {surface_after:.3f}"
    print(f"{who:24}  {box:10}  {text}", flush=True)


if __name__ == "__main__":
    main()
