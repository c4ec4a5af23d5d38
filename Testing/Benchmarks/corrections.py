"""Measure how many boxes a structure takes: one 3-D box and key slices, or a box on one slice only, on real cases.

A simulated user gives a tight 3-D box, then fixes one slice after the other by the expert's own box in it (or says
that there is nothing): the slice that `review` names first, the least confident or the truly worst one. And: the
expert's box on the middle slice, from which the structure is followed until it ends. In the environment of the tests:

    python Testing/Benchmarks/corrections.py [--data FOLDER] [--further] [--keys N] [--box NAME]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1])]

from Benchmarks.cases import Case, labelled_cases
from Benchmarks.propagation import K, StoredEmbeddings, box_variants
from MedSAMSlicerLib.evaluation.boxes import slice_boxes
from MedSAMSlicerLib.inference.predictor import Predictor
from MedSAMSlicerLib.loading import load_predictor
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.store.folder import store_folder
from MedSAMSlicerLib.volume.geometry import roi_boxes, voxel_box_corners
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.review import review
from MedSAMSlicerLib.volume.segmentation import segment_structure
from MedSAMSlicerLib.volume.slice_masks import SliceMask
from MedSAMSlicerLib.volume.slice_stack import SliceStack

Results = dict[int, SliceMask]
Choice = Callable[[Case, Results, int], float]


class Run:
    """One case with its stack, and what it takes to segment it."""

    def __init__(self, case: Case, predictor: Predictor, folder: Path) -> None:
        self.case, self.predictor = case, predictor
        self.cache = StoredEmbeddings(folder)
        self.stack = SliceStack(case.volume.voxels, case.volume.spacing, axis="k", window=case.window)

    def segment(self, boxes: dict[int, Box], keys: dict[int, KeySlice]) -> Results:
        """Segment, and return the final slices."""
        results = segment_structure(self.stack, boxes, self.predictor, self.cache, list(keys.values()))
        return {result.index: result for result in results if result.final}

    def dice(self, results: Results) -> float:
        """Compute the Dice with the expert, in 3-D."""
        shared = sum(int((each.mask & self.case.expert[each.index]).sum()) for each in results.values())
        return 2 * shared / (sum(int(each.mask.sum()) for each in results.values()) + int(self.case.expert.sum()))

    def key(self, index: int) -> KeySlice:
        """Do what the expert would do in a slice."""
        expert = self.case.expert[index]
        boxes = slice_boxes(self.case.expert[index : index + 1], K)
        return KeySlice(K, index, boxes[0]) if boxes else KeySlice(K, index, mask=np.zeros_like(expert))


def slice_dice(case: Case, result: SliceMask) -> float:
    """Compute the Dice of one slice; 1 if there is nothing and nothing was found."""
    expert = case.expert[result.index]
    sizes = int(expert.sum()) + int(result.mask.sum())
    return 2 * int((expert & result.mask).sum()) / sizes if sizes else 1.0


def doubtful(_: Case, results: Results, index: int) -> float:
    """Rank as `SegmentationSession.review` does."""
    return -[each.index for each in review(K, results.values())].index(index)


def least_confident(_: Case, results: Results, index: int) -> float:
    """Rank by the confidence alone."""
    return 1 - results[index].confidence


def worst(case: Case, results: Results, index: int) -> float:
    """Rank by the pixels that are truly wrong."""
    return float((results[index].mask ^ case.expert[index]).sum())


CHOICES: dict[str, Choice] = {"review's first": doubtful, "least confident": least_confident, "truly worst": worst}


def curve(run: Run, boxes: dict[int, Box], choice: Choice, count: int) -> list[float]:
    """Give one key slice after the other, and return the Dice after none, one, two..."""
    keys: dict[int, KeySlice] = {}
    results = run.segment(boxes, keys)
    figures = [run.dice(results)]
    for _ in range(count):
        left = [index for index in results if index not in keys]
        if left:
            index = max(left, key=lambda index: choice(run.case, results, index))
            keys[index] = run.key(index)
            results = run.segment(boxes, keys)
        figures.append(run.dice(results))
    return figures


def rank_correlation(a: list[float], b: list[float]) -> float:
    """Compute Spearman's coefficient, ties at their mean rank."""
    ranks = [np.unique(values, return_inverse=True, return_counts=True) for values in (a, b)]
    first, second = ((np.cumsum(counts) - (counts - 1) / 2)[inverse] for _, inverse, counts in ranks)
    return float(np.corrcoef(first, second)[0, 1])


def main() -> None:
    """Print a row per case, and the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of further NAME_image.* and NAME_label.* pairs")
    parser.add_argument("--further", action="store_true", help="other structures of the samples")
    parser.add_argument("--keys", type=int, default=5, help="key slices per case")
    parser.add_argument("--box", default="tight", help="tight, '10 %% loose', '20 %% loose' or shifted")
    args = parser.parse_args()
    predictor = load_predictor("lite", "cpu")
    curves: dict[str, list[list[float]]] = {name: [] for name in CHOICES}
    confidences, truths, seconds = [], [], []
    followed: list[tuple[float, int]] = []
    for case in labelled_cases(args.data, further=args.further):
        run = Run(case, predictor, store_folder() / "benchmark")
        first, last = box_variants(case)[args.box]
        boxes = roi_boxes(voxel_box_corners(first, last), run.stack.dimensions, K)
        results = run.segment(boxes, {})
        confidences += [each.confidence for each in results.values()]
        truths += [slice_dice(case, each) for each in results.values()]
        start = time.perf_counter()
        for name, choice in CHOICES.items():
            curves[name].append(curve(run, boxes, choice, args.keys))
        seconds.append((time.perf_counter() - start) / (len(CHOICES) * args.keys))
        present = np.flatnonzero(case.expert.any(axis=(1, 2)))
        middle = int(present[0] + present[-1]) // 2
        if case.expert[middle].any():
            alone = run.segment({}, {middle: run.key(middle)})
            off = max(abs(min(alone) - int(present[0])), abs(max(alone) - int(present[-1])))
            followed.append((run.dice(alone), off))
        rows = "; ".join(f"{name} " + " ".join(f"{x:.3f}" for x in each[-1]) for name, each in curves.items())
        print(f"{case.name:30}  {rows}; one slice {followed[-1][0]:.3f}, ends off by {followed[-1][1]}", flush=True)
    print(f"\nDice after 0, 1, 2... key slices, {args.box} box; {np.mean(seconds):.2f} s per correction")
    for name, values in curves.items():
        for label, of in (("mean", np.mean), ("worst", np.min)):
            print(f"{name:16}  {label:5}  " + " ".join(f"{x:.3f}" for x in of(values, axis=0)))
    gap = np.mean(curves["truly worst"], axis=0)[1:] - np.mean(curves["review's first"], axis=0)[1:]
    print(f"what the review still has to learn (mean distance of the two curves): {gap.mean():.3f}")
    correlation = rank_correlation(confidences, truths)
    print(f"confidence and true Dice of {len(truths)} slices: rank correlation {correlation:.2f}")
    dice, off = np.array(followed).T
    print(f"from one slice: Dice {dice.mean():.3f}, worst {dice.min():.3f}; {int((off <= 2).sum())} of {len(off)} ends")


if __name__ == "__main__":
    main()
