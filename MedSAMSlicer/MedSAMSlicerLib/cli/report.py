"""The command ``report``: whether a tuned model is better than its base model, on cases that neither has seen."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedSAMSlicerLib.cli.outputs import RunFiles, check_json, check_output
from MedSAMSlicerLib.cli.progress import ProgressBar
from MedSAMSlicerLib.cli.segment import write_json

if TYPE_CHECKING:
    from MedSAMSlicerLib.dataset.case import Case
    from MedSAMSlicerLib.dataset.site import SiteDataset
    from MedSAMSlicerLib.evaluation.report import Specialist

    _Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

# That a specialist is trained for where the model does not tell how long it was tuned.
_SECONDS = 180.0


def add_parser(subparsers: _Subparsers) -> None:
    """Add ``report`` to the program's commands."""
    parser = subparsers.add_parser("report", help="compare a tuned model with its base model on the test cases")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="folder of the dataset")
    parser.add_argument("--model", required=True, help="the tuned model: path of a checkpoint")
    parser.add_argument("--base", help="the model that it was tuned from; by default as its card says, else lite")
    parser.add_argument("--log", type=Path, metavar="log.jsonl", help="of the training run, for the learning curves")
    parser.add_argument(
        "--specialist",
        action="store_true",
        help="also train a small U-Net on the same cases, for as long as the model was tuned, and show its Dice",
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cuda", "mps", "cpu"))
    parser.add_argument(
        "--output", type=Path, default=Path("report.html"), help="page to write, default report.html; JSON beside it"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate both models on the test cases, write the page and the figures, and print the verdict."""
    figures = args.output.with_suffix(".json")
    _check_files(args, figures)
    from MedSAMSlicerLib.dataset.site import SiteDataset
    from MedSAMSlicerLib.evaluation.comparison import compare
    from MedSAMSlicerLib.evaluation.curves import read_log
    from MedSAMSlicerLib.evaluation.page import render
    from MedSAMSlicerLib.evaluation.report import Report
    from MedSAMSlicerLib.loading import load_predictor
    from MedSAMSlicerLib.volume.files import atomic_output

    dataset = SiteDataset.open(args.data)
    cases = _test_cases(dataset)
    log = read_log(args.log) if args.log else []
    tuned = load_predictor(args.model, args.device)
    card = tuned.model.metadata
    base_name = args.base or card.get("base", {}).get("name") or "lite"
    base = load_predictor(base_name, args.device)
    if base.key == tuned.key:
        raise ValueError(f"{args.model} and {base_name} are the same model: there is nothing to compare.")
    with atomic_output(args.output) as page:
        done = 0
        with ProgressBar(sum(len(case.labels) for case in cases), "Segmenting", "structures") as bar:

            def advance() -> None:
                nonlocal done
                done += 1
                bar.update(done)

            comparison = compare((dataset.load(case) for case in cases), base, tuned, advance)
        specialist = _specialist(dataset, cases, card, args.device) if args.specialist else None
        report = Report(Path(base_name).name, Path(args.model).name, comparison, log, card, specialist)
        page.write_text(render(report), encoding="utf-8")
        write_json(str(figures), report.to_json())
    print(comparison.verdict().text)
    if specialist:
        print(report.beside())
    print(f"The report is in {args.output}")
    return 0


def _specialist(dataset: SiteDataset, test: list[Case], card: Mapping[str, Any], device: str) -> Specialist:
    """Train the specialist on the cases that the model was tuned on, for as long as that took."""
    from MedSAMSlicerLib.training.specialist import train_specialist

    tuned = (card.get("validation") or {}).get("seconds")
    train = [dataset.load(case) for case in dataset.cases if case.split in ("train", "validation")]
    with ProgressBar(100, "Training a U-Net", "%") as bar:
        return train_specialist(
            train,
            [dataset.load(case) for case in test],
            float(tuned or _SECONDS),
            device=device,
            progress=lambda share: bar.update(int(100 * share)),
        )


def _check_files(args: argparse.Namespace, figures: Path) -> None:
    """Refuse a page or figures that can't be written, or would take the place of what is read."""
    check_output("output", args.output, (".html", ".htm"))
    files = RunFiles()
    files.reads_dataset(args.data)
    for what in ("model", "base"):
        files.reads_model(what, getattr(args, what) or "")
    if args.log:
        files.reads("log", args.log)
    files.writes("output", args.output)
    check_json(files, str(figures))


def _test_cases(dataset: SiteDataset) -> list[Case]:
    """List the cases of the test split, none of which any model was trained on."""
    cases = [case for case in dataset.cases if case.split == "test"]
    if not cases:
        raise ValueError(f"{dataset.folder} has no case in the test split: run medsam-slicer dataset split.")
    for case in cases:
        if dataset.runs(case):
            raise ValueError(
                f"{case.id} is in the test split, but was used for training ({', '.join(dataset.runs(case))}), so the "
                "report would flatter: move its patient to another split."
            )
    return cases
