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
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1])]

from Benchmarks.cases import Case
from Benchmarks.propagation import drawn_box
from MedSAMSlicerLib.dataset.case import LoadedCase
from MedSAMSlicerLib.dataset.site import SiteDataset
from MedSAMSlicerLib.evaluation.scores import PER_SLICE, segment_label, stack_of
from MedSAMSlicerLib.inference.predictor import Predictor
from MedSAMSlicerLib.loading import load_predictor
from MedSAMSlicerLib.training.embeddings import StoredEmbeddings
from MedSAMSlicerLib.training.fine_tuning import Job, Outcome, fine_tune
from MedSAMSlicerLib.training.recipe import DEPTHS, Recipe
from MedSAMSlicerLib.training.strengths import sample_cases
from MedSAMSlicerLib.training.validation import spread
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.files import Volume, read_volume
from MedSAMSlicerLib.volume.intensity import resolve_window
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.metrics import agreement
from MedSAMSlicerLib.volume.segmentation import segment_structure
from MedSAMSlicerLib.volume.slice_masks import collect

ONE_SLICE = "slice box"
BOXES = (ONE_SLICE, "tight", PER_SLICE)


def patients_of(folder: Path, sequence: str, every: int) -> dict[str, tuple[Volume, np.ndarray, str]]:
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


def site_of(
    patients: dict[str, tuple[Volume, np.ndarray, str]], folder: Path, held: dict[str, tuple[Volume, np.ndarray, str]]
) -> SiteDataset:
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


def segmented(loaded: LoadedCase, predictor: Predictor, cache: EmbeddingCache, box: str) -> tuple[float, float]:
    """Segment the structure of a case from a kind of box: Dice and surface Dice (2 mm)."""
    stack, ((name, expert),) = stack_of(loaded), loaded.labels.items()
    if box == ONE_SLICE:
        index, drawn = drawn_box(Case(name, loaded.volume, expert, "auto"))
        mask = collect(segment_structure(stack, {}, predictor, cache, [KeySlice(stack.axis, index, drawn)]), stack)
    else:
        mask = segment_label(stack, expert, predictor, cache, box=box)
    found = agreement(mask, expert, loaded.volume.spacing)
    return found.dice, found.surface_dice


def trained(job: Job) -> tuple[Outcome, float]:
    """Run a training; return its outcome and the minutes that it took, encoding included."""
    start = time.monotonic()
    outcome = fine_tune(job)
    return outcome, (time.monotonic() - start) / 60


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
    parser.add_argument("--boxes", nargs="+", default=BOXES, choices=BOXES)
    parser.add_argument("--old", type=int, default=4, help="structures of the sample cases, of the old kind")
    parser.add_argument("--folder", type=Path, help="of datasets, runs and embeddings, by default a temporary one")
    parser.add_argument("options", nargs="*", metavar="OPTION=VALUE")
    args = parser.parse_args()
    changes = {name: ast.literal_eval(value) for name, _, value in (each.partition("=") for each in args.options)}
    recipe = Recipe.of_depth(args.depth, **changes)
    with tempfile.TemporaryDirectory() as temporary:
        work = args.folder or Path(temporary)
        base = load_predictor("lite", args.device)
        cache = StoredEmbeddings(work / "embeddings", base)
        old = [(each, segmented(each, base, cache, "tight")) for each in spread(sample_cases(), args.old)]
        for sequence in args.sequence:
            patients = patients_of(args.data, sequence, args.every)
            if unknown := set(args.leave or ()) - set(patients):
                parser.error(
                    f"no patient {', '.join(sorted(unknown))} in {args.data}: give some of {', '.join(patients)}"
                )
            for count in args.patients:
                measure(
                    sequence, patients, args.leave or list(patients), count, recipe, work, base, cache, args.boxes, old
                )


def measure(
    sequence: str,
    patients: dict[str, tuple[Volume, np.ndarray, str]],
    left: list[str],
    count: int,
    recipe: Recipe,
    work: Path,
    base: Predictor,
    cache: EmbeddingCache,
    boxes: list[str],
    old: list[tuple[LoadedCase, tuple[float, float]]],
) -> None:
    """Leave patients out, one at a time, with as many others as the site."""
    rows: dict[str, list[tuple[tuple[float, float], tuple[float, float]]]] = {box: [] for box in (*boxes, "old kind")}
    names, accepted = list(patients), 0
    for name in left:
        number = names.index(name)
        others = (names[number + 1 :] + names[:number])[:count]
        folder = work / f"{sequence}-without-{name}-{count}"
        dataset = site_of({other: patients[other] for other in others}, folder / "site", {name: patients[name]})
        device = str(base.device)
        job = Job(folder / "site", folder / "tuned.pth", recipe, device=device, embeddings=work / "embeddings")
        outcome, minutes = trained(job)
        print(
            f"{sequence}, {name} left out, trained on {', '.join(others)}: {outcome.message} ({minutes:.1f} min)",
            flush=True,
        )
        tuned = load_predictor(str(outcome.output), device) if outcome.output else base
        # Another image encoder makes other embeddings.
        own = cache if recipe.depth == "decoder" else EmbeddingCache(found_budget=0)
        accepted += outcome.output is not None
        (loaded,) = (dataset.load(case) for case in dataset.cases if case.split == "test")
        for box in boxes:
            before = segmented(loaded, base, cache, box)
            rows[box].append((before, before if tuned is base else segmented(loaded, tuned, own, box)))
            show(f"  {name}", box, np.array(rows[box][-1:]))
        for structure, before in old if tuned is not base else []:
            rows["old kind"].append((before, segmented(structure, tuned, own, "tight")))
    print(f"{sequence}, {count} patients to train on, {accepted} of {len(left)} models accepted")
    for box, pairs in rows.items():
        if pairs:
            show("  mean", box, np.array(pairs))
            show("  worst", box, np.array(sorted(pairs, key=lambda pair: pair[1][0] - pair[0][0])[:1]))


def show(who: str, box: str, pairs: np.ndarray) -> None:
    """Print the mean Dice and surface Dice before and after: pairs (N, 2, 2)."""
    (dice, surface), (after, surface_after) = pairs.mean(axis=0)
    figures = f"Dice {dice:.3f} to {after:.3f} ({after - dice:+.3f})  surface {surface:.3f} to {surface_after:.3f}"
    print(f"{who:24}  {box:10}  {figures}", flush=True)


if __name__ == "__main__":
    main()
