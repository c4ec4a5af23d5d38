"""Measure how well one box per structure is segmented, for every propagation, on real organs and lesions.

The boxes are the expert's own bounds, the same 10 % and 20 % larger in every direction, and moved at random (seeded) by
up to 10 % of their size. In the environment of the tests:

    python Testing/Benchmarks/propagation.py [--data FOLDER] [--method NAME ...] [--boxes NAME ...]

Embeddings are kept on disk (half precision) in the folder of the store, so that a rerun decodes only.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).parents[1])]

from Benchmarks.cases import Case, labelled_cases
from MedSAMSlicerLib.inference.predictor import Embedding, Predictor
from MedSAMSlicerLib.loading import load_predictor
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.store.folder import replacing, store_folder
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.geometry import bounding_box, roi_boxes, voxel_box_corners
from MedSAMSlicerLib.volume.metrics import agreement
from MedSAMSlicerLib.volume.propagation import PROPAGATIONS
from MedSAMSlicerLib.volume.stack import SliceStack
from MedSAMSlicerLib.volume.steps import Predictor as AnyPredictor
from MedSAMSlicerLib.volume.steps import SliceMask, collect

K = 2
SEED = 2026

Voxels = tuple[int, int, int]
Method = Callable[[Case, SliceStack, dict[int, Box], AnyPredictor], Iterator[SliceMask]]


class StoredEmbeddings(EmbeddingCache):
    """Embeddings on disk, by the same key as in memory."""

    def __init__(self, folder: Path) -> None:
        super().__init__(budget=0)
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


def from_expert_boxes(cache: EmbeddingCache) -> Method:
    """Segment every slice from the expert's own box in it: what no single box can give, as a ceiling."""

    def segment(case: Case, stack: SliceStack, _: dict[int, Box], predictor: AnyPredictor) -> Iterator[SliceMask]:
        boxes = {}
        for index in np.flatnonzero(case.expert.any(axis=(1, 2))):
            (x0, y0, _), (x1, y1, _) = bounding_box(case.expert[index : index + 1])
            boxes[int(index)] = Box(x0, y0, x1, y1)
        return PROPAGATIONS["per-slice"](stack, boxes, predictor, cache)

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
    parser.add_argument("--method", nargs="+", default=["reference", "path"], choices=[*PROPAGATIONS, "expert"])
    parser.add_argument("--boxes", nargs="+", help="tight, '10 %% loose', '20 %% loose', shifted; default all")
    args = parser.parse_args()
    cache = StoredEmbeddings(store_folder() / "benchmark")
    methods = {name: from_expert_boxes(cache) if name == "expert" else from_box(name, cache) for name in args.method}
    predictor = load_predictor("lite", "cpu")
    rows: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    print("case                            box         method        Dice  surface Dice (2 mm)  seconds")
    for case in labelled_cases(args.data):
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
                print(f"{case.name:30}  {box:10}  {name:10}  {figures}", flush=True)
    print("\nmethod      box         Dice: mean  worst   surface Dice: mean  worst   seconds but for encoding: mean")
    for (name, box), values in rows.items():
        dice, surface, seconds = np.array(values).T
        print(
            f"{name:10}  {box:10}  {dice.mean():10.3f}  {dice.min():.3f}  {surface.mean():18.3f}  {surface.min():.3f}"
            f"  {seconds.mean():12.1f}"
        )


if __name__ == "__main__":
    main()
