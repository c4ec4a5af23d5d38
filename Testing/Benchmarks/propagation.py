"""Measure how well one box per structure is segmented, for every propagation, on real organs and lesions.

The boxes are the expert's own bounds, the same 10 % and 20 % larger in every direction, and moved at random (seeded) by
up to 10 % of their size. In the environment of the tests:

    python Testing/Benchmarks/propagation.py [--data FOLDER] [--method NAME ...] [--boxes NAME ...]

Embeddings are kept on disk (half precision) in the folder of the store, so that a rerun decodes only.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).parents[1])]

from Benchmarks.cases import Case, labelled_cases
from MedSAMSlicerLib.inference.predictor import Embedding, Predictor
from MedSAMSlicerLib.loading import load_predictor
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.store.folder import replacing, store_folder
from MedSAMSlicerLib.volume import candidates, viterbi
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.geometry import bounding_box, roi_boxes, voxel_box_corners
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.metrics import agreement
from MedSAMSlicerLib.volume.path import propagate_path
from MedSAMSlicerLib.volume.propagation import PROPAGATIONS
from MedSAMSlicerLib.volume.stack import SliceStack
from MedSAMSlicerLib.volume.steps import Predictor as AnyPredictor
from MedSAMSlicerLib.volume.steps import SliceMask, collect

K = 2
SEED = 2026

Voxels = tuple[int, int, int]
Method = Callable[[Case, SliceStack, dict[int, Box], AnyPredictor], Iterator[SliceMask]]


class StoredEmbeddings(EmbeddingCache):
    """Embeddings on disk, by the same key as in memory.

    :param mask_budget: 0 to decode every box anew, as a first run does.
    """

    def __init__(self, folder: Path, mask_budget: int = 1 << 28) -> None:
        super().__init__(budget=0, mask_budget=mask_budget)
        self._folder = folder

    def embedding(self, encoder: Predictor, image: np.ndarray) -> Embedding:
        """Read the embedding of a slice, or encode it and write it."""
        path = self._folder / f"{self.key(encoder, image).hex()}.npy"
        if not path.is_file():
            tensor = encoder.encode(image).tensor
            with replacing(path) as draft, draft.open("wb") as file:
                np.save(file, tensor.cpu().numpy().astype(np.float16))
        return Embedding(torch.from_numpy(np.load(path).astype(np.float32)), image.shape[:2])


def from_box(name: str, cache: EmbeddingCache) -> Method:
    """Segment from the 3-D box alone."""
    return lambda case, stack, boxes, predictor: PROPAGATIONS[name](stack, boxes, predictor, cache)


def expert_boxes(expert: np.ndarray) -> dict[int, Box]:
    """Find the bounding box of a mask (K, J, I) in each slice along K that it is in."""
    boxes = {}
    for index in np.flatnonzero(expert.any(axis=(1, 2))):
        (x0, y0, _), (x1, y1, _) = bounding_box(expert[index : index + 1])
        boxes[int(index)] = Box(x0, y0, x1, y1)
    return boxes


def from_expert_boxes(cache: EmbeddingCache) -> Method:
    """Segment every slice from the expert's own box in it: what no single box can give, as a ceiling."""
    return lambda case, stack, _, predictor: PROPAGATIONS["per-slice"](
        stack, expert_boxes(case.expert), predictor, cache
    )


def from_expert_keys(cache: EmbeddingCache) -> Method:
    """Fix every slice by the expert's own box in it, as a key slice."""

    def segment(case: Case, stack: SliceStack, boxes: dict[int, Box], predictor: AnyPredictor) -> Iterator[SliceMask]:
        keys = {index: KeySlice(K, index, box) for index, box in expert_boxes(case.expert).items()}
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


def main() -> None:
    """Print a row per case and box, and the mean and the worst of each method and box."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of further NAME_image.* and NAME_label.* pairs")
    parser.add_argument("--further", action="store_true", help="other structures of the samples")
    parser.add_argument(
        "--method", nargs="+", default=list(PROPAGATIONS), choices=[*PROPAGATIONS, "expert", "expert keys"]
    )
    parser.add_argument("--leave-one-out", action="store_true", help="also choose path's settings without each volume")
    parser.add_argument("--boxes", nargs="+", help="tight, '10 %% loose', '20 %% loose', shifted; default all")
    args = parser.parse_args()
    cache = StoredEmbeddings(store_folder() / "benchmark", mask_budget=0)
    plugins = {name: from_box(name, cache) for name in PROPAGATIONS}
    plugins |= {"expert": from_expert_boxes(cache), "expert keys": from_expert_keys(cache)}
    methods = {name: plugins[name] for name in args.method}
    predictor = load_predictor("lite", "cpu")
    rows: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    print("case                            box         method        Dice  surface Dice (2 mm)  seconds")
    cases = labelled_cases(args.data, further=args.further)
    for case in cases:
        stack = SliceStack(case.volume.voxels, case.volume.spacing, axis="k", window=case.window)
        for box, (first, last) in box_variants(case).items():
            if args.boxes and box not in args.boxes:
                continue
            boxes = roi_boxes(voxel_box_corners(first, last), stack.dimensions, K)
            for index in boxes:
                cache.embedding(predictor, stack.image(index))
            for name, method in methods.items():
                start = time.perf_counter()
                mask = collect(method(case, stack, boxes, predictor), stack)
                seconds = time.perf_counter() - start
                found = agreement(mask, case.expert, case.volume.spacing)
                rows.setdefault((name, box), []).append((found.dice, found.surface_dice, seconds))
                figures = f"{found.dice:.3f}  {found.surface_dice:19.3f}  {seconds:7.1f}"
                print(f"{case.name:30}  {box:10}  {name:11}  {figures}", flush=True)
    print("\nmethod      box         Dice: mean  worst   surface Dice: mean  worst   seconds but for encoding: mean")
    for (name, box), values in rows.items():
        dice, surface, seconds = np.array(values).T
        print(
            f"{name:11}  {box:10}  {dice.mean():10.3f}  {dice.min():.3f}  {surface.mean():18.3f}  {surface.min():.3f}"
            f"  {seconds.mean():12.1f}"
        )
    if args.leave_one_out:
        leave_one_out(cases, args.boxes or ["tight", "10 % loose"], predictor)


def leave_one_out(cases: list[Case], variants: list[str], predictor: Predictor) -> None:
    """Print the Dice of `path` where every volume is judged by the settings that are best on the other volumes."""
    settings = list(itertools.product((0.2, 0.35, 0.5), (0.1, 0.2, 0.3)))
    dice = np.zeros((len(settings), len(cases), len(variants)))
    for row, case in enumerate(cases):
        cache = StoredEmbeddings(store_folder() / "benchmark")
        stack = SliceStack(case.volume.voxels, case.volume.spacing, axis="k", window=case.window)
        for column, variant in enumerate(variants):
            boxes = roi_boxes(voxel_box_corners(*box_variants(case)[variant]), stack.dimensions, K)
            for number, (overlap, contrast) in enumerate(settings):
                with (
                    patch.object(viterbi, "_OVERLAP_WEIGHT", overlap),
                    patch.object(candidates, "_CONTRAST_WEIGHT", contrast),
                ):
                    mask = collect(propagate_path(stack, boxes, predictor, cache), stack)
                dice[number, row, column] = agreement(mask, case.expert, case.volume.spacing).dice
    volumes = np.array([id(case.volume) for case in cases])
    left = np.zeros((len(cases), len(variants)))
    for volume in set(volumes):
        held = volumes == volume
        left[held] = dice[dice[:, ~held].mean(axis=(1, 2)).argmax()][held]
    print("\npath, mean Dice over", ", ".join(variants))
    print("  settings chosen on all volumes:           ", dice.mean(axis=1)[dice.mean(axis=(1, 2)).argmax()].round(3))
    print("  on all volumes but the one that is judged:", left.mean(axis=0).round(3))
    print("  worst settings of all:                    ", dice.mean(axis=1)[dice.mean(axis=(1, 2)).argmin()].round(3))


if __name__ == "__main__":
    main()
