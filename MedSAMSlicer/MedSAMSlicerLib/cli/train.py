"""The command ``train``: a site's labelled cases in, a model that is better on them out."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from MedSAMSlicerLib.cli.interrupt import EXIT_INTERRUPTED
from MedSAMSlicerLib.cli.outputs import RunFiles, check_folder, check_json, check_output
from MedSAMSlicerLib.cli.progress import ProgressBar
from MedSAMSlicerLib.cli.ranks import rank_and_size
from MedSAMSlicerLib.cli.segment import write_json
from MedSAMSlicerLib.store.weights import WeightsStore

if TYPE_CHECKING:
    from MedSAMSlicerLib.training.run import Progress

    _Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

# Options that are fields of `training.recipe.Recipe`, and what they mean; without them its defaults count.
_RECIPE = {
    "epochs": (int, "rounds through the training cases"),
    "patience": (int, "epochs without a better validation after which it ends"),
    "batch": (int, "samples per step and process"),
    "accumulate": (int, "steps whose gradients are added up, for a larger batch than fits the memory"),
    "learning_rate": (float, "of AdamW at its height"),
    "samples_per_epoch": (int, "0 for as many as there are labelled slices"),
    "slices_per_structure": (int, "of each label of a case, that count in that at most; 0: all"),
    "variants": (int, "of each slice, mirrored or windowed otherwise, whose embeddings are kept (depth decoder)"),
    "rank": (int, "of the adapter's matrices (depth adapter)"),
    "validated_structures": (int, "structures that are segmented in 3-D after each epoch"),
    "left_out_below": (
        int,
        "patients below which each is left out in turn to choose the model (depth decoder); 0: never",
    ),
    "patient_tolerance": (float, "by how much the score of a patient who was left out may fall"),
    "guard_tolerance": (float, "by how much the Dice on the sample cases may fall"),
    "precision": (str, "auto or float32"),
    "seed": (int, "of everything that is drawn"),
}


def add_parser(subparsers: _Subparsers) -> None:
    """Add ``train`` to the program's commands."""
    parser = subparsers.add_parser("train", help="fine-tune a model on a site's own labelled cases")
    parser.add_argument("--data", type=Path, required=True, help="dataset folder (see: dataset add)")
    parser.add_argument("--output", type=Path, required=True, metavar="SITE.pth", help="the model file to write")
    parser.add_argument("--base", default="lite", help="name of known weights, or path of a checkpoint, to start from")
    parser.add_argument("--depth", default="decoder", choices=("decoder", "adapter", "full"), help="what is trained")
    for name, (kind, text) in _RECIPE.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=text)
    parser.add_argument("--device", default="auto", help="auto, cpu, mps, cuda or cuda:N")
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare samples beside the training one")
    parser.add_argument("--run", type=Path, metavar="FOLDER", dest="run_folder", help="default: beside the output")
    parser.add_argument("--embeddings", type=Path, metavar="FOLDER", help="of kept embeddings; default: in the store")
    parser.add_argument("--official", type=Path, metavar="OUT.pth", help="also write the layout of the official code")
    parser.add_argument("--json", metavar="OUT.json", help="figures of the run; - for the standard output")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, and return 1 if no model was written because none was better than the base model; 130 after Ctrl-C."""
    from dataclasses import asdict

    from MedSAMSlicerLib.training.fine_tuning import Job, fine_tune
    from MedSAMSlicerLib.training.recipe import Recipe

    if args.workers < 0:
        raise ValueError(f"--workers is {args.workers}: give 0 or more.")
    process, _ = rank_and_size()
    _check_files(args)
    changes = {name: getattr(args, name) for name in _RECIPE if getattr(args, name) is not None}
    names = ("data", "output", "base", "official", "run_folder", "device", "workers", "embeddings")
    job = Job(recipe=Recipe.of_depth(args.depth, **changes), **{name: getattr(args, name) for name in names})
    with ProgressBar(0, "Training", "steps") as bar:
        outcome = fine_tune(job, lambda progress: _show(progress, bar))
    # Of the processes that torchrun starts, one speaks and writes.
    if process:
        return 0
    print(outcome.message, file=sys.stderr)
    if args.json:
        write_json(args.json, {**asdict(outcome), "output": str(outcome.output) if outcome.output else None})
    if outcome.interrupted:
        return EXIT_INTERRUPTED
    return 0 if outcome.output else 1


def _check_files(args: argparse.Namespace) -> None:
    """Refuse outputs that can't be written, or would take the place of what is read or of each other."""
    from MedSAMSlicerLib.loading import find_weights

    files = RunFiles()
    files.reads_dataset(args.data)
    # What is wrong with the base is told when it is loaded.
    with contextlib.suppress(ValueError, RuntimeError):
        files.reads("base", find_weights(args.base, WeightsStore())[0])
    for what, path in (("output", args.output), ("official layout", args.official)):
        if path:
            check_output(what, path, (".pth",))
            files.writes(what, path)
    check_json(files, args.json)
    if args.embeddings:
        check_folder("folder of embeddings", args.embeddings)
    if args.run_folder:
        check_folder("folder of the run", args.run_folder)
        files.writes("folder of the run", args.run_folder)
        outputs = (args.output, args.official, args.json if args.json != "-" else None)
        for path in map(Path, filter(None, outputs)):
            if path.resolve().parent == args.run_folder.resolve():
                raise ValueError(f"{path} is in the folder of the run, which has files of its own: give another path.")


def _show(progress: Progress, bar: ProgressBar) -> None:
    if progress.state == "training":
        bar.update((progress.epoch - 1) * progress.batches + progress.batch, progress.of * progress.batches)
