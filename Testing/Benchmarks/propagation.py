"""Measure how well one box per structure is segmented, for every propagation, on real organs and lesions.

The boxes are the expert's own bounds, the same 10 % and 20 % larger in every direction, and moved at random (seeded) by
up to 10 % of their size; and what a user draws on one slice: the expert's bounds in the middle slice, 5 % larger on
every side, as an ROI of the depth that Slicer gives it (the smaller of its two other sides), and as a box on that slice
alone, from which the structure is followed. In the environment of the tests:

    python Testing/Benchmarks/propagation.py [--data FOLDER] [--method NAME ...] [--boxes NAME ...]

Embeddings are kept on disk (half precision) in the folder of the store, so that a rerun decodes only.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np
import SimpleITK as sitk
import torch

sys.path[:0] = [str(Path(__file__).parents[1])]

from Benchmarks.cases import Case, labelled_cases
from MedSAMSlicerLib.evaluation.boxes import box_on_slice, slice_boxes
from MedSAMSlicerLib.inference.predictor import Embedding, Predictor
from MedSAMSlicerLib.loading import load_predictor
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.store.folder import replacing, store_folder
from MedSAMSlicerLib.volume import candidates, path_propagation
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache, Slice
from MedSAMSlicerLib.volume.following import propagate_until_end
from MedSAMSlicerLib.volume.geometry import bounding_box, roi_boxes, voxel_box_corners
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.metrics import agreement
from MedSAMSlicerLib.volume.path_propagation import propagate_path
from MedSAMSlicerLib.volume.propagation import PROPAGATIONS
from MedSAMSlicerLib.volume.slice_masks import Predictor as AnyPredictor
from MedSAMSlicerLib.volume.slice_masks import SliceMask, collect
from MedSAMSlicerLib.volume.slice_stack import SliceStack

K = 2
SEED = 2026

Voxels = tuple[int, int, int]
Method = Callable[[Case, SliceStack, dict[int, Box], AnyPredictor], Iterator[SliceMask]]
ONE_SLICE, PLACED = "one slice", "placed ROI"


class StoredEmbeddings(EmbeddingCache):
    """Embeddings on disk, by the same key as in memory.

    :param mask_budget: 0 to decode every box anew, as a first run does.
    """

    def __init__(self, folder: Path, mask_budget: int = 1 << 28) -> None:
        super().__init__(budget=0, mask_budget=mask_budget)
        self._folder = folder

    def embedding(self, encoder: Predictor, image: np.ndarray | Slice) -> Embedding:
        """Read the embedding of a slice, or encode it and write it."""
        image = image.pixels() if isinstance(image, Slice) else image
        path = self._folder / f"{self.key(encoder, image).hex()}.npy"
        if not path.is_file():
            tensor = encoder.encode(image).tensor
            with replacing(path) as draft, draft.open("wb") as file:
                np.save(file, tensor.cpu().numpy().astype(np.float16))
        return Embedding(torch.from_numpy(np.load(path).astype(np.float32)), image.shape[:2])


def from_box(name: str, cache: EmbeddingCache) -> Method:
    """Segment from the 3-D box alone, or by following the structure from the only slice that has a box."""

    def segment(_: Case, stack: SliceStack, boxes: dict[int, Box], predictor: AnyPredictor) -> Iterator[SliceMask]:
        if name == "path" and len(boxes) == 1 and len(stack) > 1:
            ((index, box),) = boxes.items()
            return propagate_until_end(stack, KeySlice(K, index, box), predictor, cache)
        return PROPAGATIONS[name](stack, boxes, predictor, cache)

    return segment


def from_expert_boxes(cache: EmbeddingCache) -> Method:
    """Segment every slice from the expert's own box in it: what no single box can give, as a ceiling."""
    return lambda case, stack, _, predictor: PROPAGATIONS["per-slice"](
        stack, slice_boxes(case.expert, K), predictor, cache
    )


def from_expert_keys(cache: EmbeddingCache) -> Method:
    """Fix every slice by the expert's own box in it, as a key slice."""

    def segment(case: Case, stack: SliceStack, boxes: dict[int, Box], predictor: AnyPredictor) -> Iterator[SliceMask]:
        keys = {index: KeySlice(K, index, box) for index, box in slice_boxes(case.expert, K).items()}
        return propagate_path(stack, boxes, predictor, cache, keys)

    return segment


def box_variants(case: Case) -> dict[str, tuple[Voxels, Voxels]]:
    """List first and last voxel of the boxes that a user may draw."""
    first, last = (np.array(corner) for corner in bounding_box(case.expert))
    size = last - first + 1
    random = np.random.default_rng([SEED, *case.name.encode()])
    moved = np.rint(random.uniform(-0.1, 0.1, 3) * size).astype(int)
    limit = np.array(case.volume.dimensions) - 1

    def corners(low: np.ndarray, high: np.ndarray) -> tuple[Voxels, Voxels]:
        return tuple(np.clip(low, 0, limit).tolist()), tuple(np.clip(high, 0, limit).tolist())

    loose = {share: np.ceil(size * share / 2).astype(int) for share in (0.1, 0.2)}
    return {
        "tight": corners(first, last),
        "10 % loose": corners(first - loose[0.1], last + loose[0.1]),
        "20 % loose": corners(first - loose[0.2], last + loose[0.2]),
        "shifted": corners(first + moved, last + moved),
    }


def placed_boxes(case: Case) -> dict[int, Box]:
    """Cut the ROI that two clicks on the middle slice make, which is as deep as it is wide or high, if that is less."""
    index, box = box_on_slice(case.expert, K)
    x, y, z = case.volume.spacing
    reach = min((box.x1 - box.x0 + 1) * x, (box.y1 - box.y0 + 1) * y) / z / 2
    first, last = max(int(np.ceil(index - reach)), 0), min(int(index + reach), len(case.expert) - 1)
    return dict.fromkeys(range(first, last + 1), box)


def prompts(case: Case, stack: SliceStack) -> dict[str, dict[int, Box]]:
    """List the boxes per slice of every kind of box; on one slice there is but one."""
    whole = {
        kind: roi_boxes(voxel_box_corners(*corners), stack.dimensions, K)
        for kind, corners in box_variants(case).items()
    }
    return whole | {PLACED: placed_boxes(case), ONE_SLICE: dict([box_on_slice(case.expert, K)])}


def over_patients(patients: Sequence[str], values: np.ndarray) -> float:
    """Average over patients, each of whom counts the same however many structures were segmented."""
    names = np.array(patients)
    return float(np.mean([values[names == name].mean() for name in sorted(set(patients))]))


def count_bodies(mask: np.ndarray) -> int:
    """Count the parts of a mask (K, J, I) that no face, edge or corner joins."""
    labels = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), True)
    return int(sitk.GetArrayViewFromImage(labels).max())


def main() -> None:
    """Print a row per case and box, and the mean and the worst of each method and box."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of further NAME_image.* and NAME_label.* pairs")
    parser.add_argument("--further", action="store_true", help="other structures of the samples")
    parser.add_argument(
        "--method",
        nargs="+",
        default=["path", "reference", "per-slice"],
        choices=[*PROPAGATIONS, "expert", "expert keys"],
    )
    parser.add_argument("--leave-one-out", action="store_true", help="also choose path's settings without each volume")
    parser.add_argument(
        "--boxes",
        nargs="+",
        help="tight, '10 %% loose', '20 %% loose', shifted, 'placed ROI', 'one slice'; default all",
    )
    args = parser.parse_args()
    cache = StoredEmbeddings(store_folder() / "benchmark", mask_budget=0)
    plugins = {name: from_box(name, cache) for name in PROPAGATIONS}
    plugins |= {"expert": from_expert_boxes(cache), "expert keys": from_expert_keys(cache)}
    methods = {name: plugins[name] for name in args.method}
    predictor = load_predictor("lite", "cpu")
    rows: dict[tuple[str, str], list[tuple[str, float, float, int, float]]] = {}
    print("case                            box         method        Dice  surface Dice (2 mm)  bodies  seconds")
    cases = labelled_cases(args.data, further=args.further)
    for case in cases:
        stack = SliceStack(case.volume.voxels, case.volume.spacing, axis="k", window=case.window)
        for box, boxes in prompts(case, stack).items():
            if args.boxes and box not in args.boxes:
                continue
            for index in boxes:
                cache.embedding(predictor, stack.image(index))
            for name, method in methods.items():
                if box == ONE_SLICE and name != "path":
                    continue
                start = time.perf_counter()
                mask = collect(method(case, stack, boxes, predictor), stack)
                seconds = time.perf_counter() - start
                found = agreement(mask, case.expert, case.volume.spacing)
                row = (case.patient, found.dice, found.surface_dice, count_bodies(mask), seconds)
                rows.setdefault((name, box), []).append(row)
                figures = f"{found.dice:.3f}  {found.surface_dice:19.3f}  {row[3]:6}  {seconds:7.1f}"
                print(f"{case.name:30}  {box:10}  {name:11}  {figures}", flush=True)
    print(
        "\nmethod      box         Dice: mean  worst  mean over patients   surface Dice: mean  worst   bodies: mean"
        "  most   seconds but for encoding: mean"
    )
    for (name, box), values in rows.items():
        patients, *columns = zip(*values, strict=True)
        dice, surface, bodies, seconds = np.array(columns)
        print(
            f"{name:11}  {box:10}  {dice.mean():10.3f}  {dice.min():.3f}  {over_patients(patients, dice):18.3f}"
            f"  {surface.mean():19.3f}  {surface.min():.3f}  {bodies.mean():13.1f}  {bodies.max():4.0f}"
            f"  {seconds.mean():12.1f}"
        )
    if args.leave_one_out:
        leave_one_out(cases, args.boxes or ["tight", "10 % loose"], predictor)


def leave_one_out(cases: list[Case], variants: list[str], predictor: Predictor) -> None:
    """Print the Dice of `path` where every patient is judged by the settings that are best on the other patients."""
    settings = list(itertools.product((0.8, 1.5, 2.5), (0.0, 0.5, 1.0)))
    dice = np.zeros((len(settings), len(cases), len(variants)))
    for row, case in enumerate(cases):
        cache = StoredEmbeddings(store_folder() / "benchmark")
        stack = SliceStack(case.volume.voxels, case.volume.spacing, axis="k", window=case.window)
        for column, variant in enumerate(variants):
            boxes = roi_boxes(voxel_box_corners(*box_variants(case)[variant]), stack.dimensions, K)
            for number, (likeness, margin) in enumerate(settings):
                with (
                    patch.object(candidates, "_LIKENESS_WEIGHT", likeness),
                    patch.object(path_propagation, "_OWN_MARGIN", margin),
                ):
                    mask = collect(propagate_path(stack, boxes, predictor, cache), stack)
                dice[number, row, column] = agreement(mask, case.expert, case.volume.spacing).dice
    patients = [case.patient for case in cases]
    means = np.array([[over_patients(patients, of.mean(axis=1)) for of in dice]])[0]
    left = np.zeros((len(cases), len(variants)))
    for patient in set(patients):
        held = np.array(patients) == patient
        others = [name for name in patients if name != patient]
        best = np.argmax([over_patients(others, of[~held].mean(axis=1)) for of in dice])
        left[held] = dice[best, held]

    def row(values: np.ndarray) -> str:
        return " ".join(f"{over_patients(patients, column):.3f}" for column in values.T)

    print("\npath, mean Dice over patients,", ", ".join(variants))
    print("  settings chosen on all patients:          ", row(dice[means.argmax()]), settings[int(means.argmax())])
    print("  on all patients but the one that is judged:", row(left))
    print("  worst settings of all:                    ", row(dice[means.argmin()]), settings[int(means.argmin())])


if __name__ == "__main__":
    main()
