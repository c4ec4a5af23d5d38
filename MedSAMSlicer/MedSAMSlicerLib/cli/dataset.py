"""The command ``dataset``: a site's labelled cases, added, checked, split and listed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from MedSAMSlicerLib.cli.outputs import RunFiles, check_json
from MedSAMSlicerLib.cli.progress import ProgressBar
from MedSAMSlicerLib.cli.segment import write_json

if TYPE_CHECKING:
    from MedSAMSlicerLib.dataset.site import SiteDataset

    _Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: _Subparsers) -> None:
    """Add ``dataset`` with its own commands to the program's commands."""
    dataset = subparsers.add_parser("dataset", help="add, check, split and list a site's labelled cases for training")
    commands = dataset.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("add", help="add a folder of image/label pairs; a new dataset is created")
    _add_data(command)
    command.add_argument("--images", type=Path, required=True, metavar="FOLDER", help="folder of the images")
    command.add_argument("--labels", type=Path, metavar="FOLDER", help="folder of the labels, if it is another one")
    command.add_argument(
        "--image-pattern",
        metavar="PATTERN",
        help="path of an image in its folder, default {case}_image.*; {patient} groups cases of one patient, a folder "
        "that matches is a DICOM series",
    )
    command.add_argument(
        "--label-pattern",
        metavar="PATTERN",
        help="path of its labels, default {case}_label.*: .seg.nrrd, label maps or DICOM segmentations; {label} names "
        "labels that have files of their own",
    )
    command.add_argument("--window", default="auto", help="intensity window of all images, as for segment")
    command.add_argument(
        "--name", nargs="+", default=[], metavar="LABEL=NAME", help="names of the labels of label maps, such as 5=liver"
    )
    command.add_argument(
        "--verbose",
        action="store_true",
        help="tell which file became which case; whoever reads this knows the patients behind the pseudonyms",
    )
    command.set_defaults(run=_add)

    command = commands.add_parser("check", help="read all cases and tell what is wrong with them")
    _add_data(command)
    command.add_argument("--json", metavar="OUT.json", help="the findings; - for the standard output")
    command.set_defaults(run=_check)

    command = commands.add_parser("split", help="deal all patients anew to train, validation and test, or move some")
    _add_data(command)
    command.add_argument(
        "--shares", type=float, nargs=3, metavar=("TRAIN", "VALIDATION", "TEST"), help="default 0.7 0.15 0.15"
    )
    command.add_argument("--seed", type=int, default=0, help="another number deals in another order, default 0")
    command.add_argument("--keep", action="store_true", help="deal only the patients that have no split yet")
    command.add_argument(
        "--assign", nargs="+", metavar="PATIENT=SPLIT", help="only move these patients, such as P0003=test"
    )
    command.set_defaults(run=_split)

    command = commands.add_parser("list", help="show the cases")
    _add_data(command)
    command.set_defaults(run=_list)

    command = commands.add_parser("remove", help="delete cases from the dataset")
    _add_data(command)
    command.add_argument("case", nargs="+", metavar="CASE", help="such as case-0003")
    command.set_defaults(run=_remove)


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="folder of the dataset")


def _add(args: argparse.Namespace) -> int:
    """Add what is right, and tell what is not; 1 if anything was left out."""
    from MedSAMSlicerLib.dataset.pairs import IMAGES, LABELS, add_pairs, find_pairs
    from MedSAMSlicerLib.dataset.patients import Pseudonyms
    from MedSAMSlicerLib.dataset.site import SiteDataset

    names = _names(args.name)
    images, labels = args.image_pattern or IMAGES, args.label_pattern or LABELS
    found = find_pairs(args.images, images, labels, args.labels)
    if not found.pairs:
        raise ValueError(
            f"No image with labels is in {args.images}: {len(found.images_alone)} images match "
            f"{images!r}, {len(found.labels_alone)} labels match {labels!r}. "
            "Give the patterns of your files."
        )
    known = (args.data / "dataset.json").exists()
    if known:
        # What is wrong with it is wrong for all pairs.
        Pseudonyms.read(args.data / "patients.key")
    dataset = SiteDataset.open(args.data) if known else SiteDataset.create(args.data)
    problems = [f"{path}: no labels match it" for path in found.images_alone]
    problems += [f"{path}: no image matches it" for path in found.labels_alone]
    added = []
    with ProgressBar(len(found.pairs), "Adding", "cases") as bar:
        for done, addition in enumerate(add_pairs(dataset, found.pairs, window=args.window, names=names), start=1):
            bar.update(done)
            if case := addition.case:
                # Which file became which case is told only to who asks: paths may have the names of patients.
                source = f"  {addition.pair.image}" if args.verbose else ""
                added.append(f"{case.id}  {case.patient}{source}")
            if addition.text:
                same = f" It is {addition.same.id}." if addition.same and args.verbose else ""
                problems.append(f"{addition.pair.image}: {addition.text}{same}")
    for problem in problems:
        print(problem, file=sys.stderr)
    for line in added:
        print(line)
    if not known and not added:
        dataset.discard()
        print(f"Added none of {len(found.pairs)} pairs, and made no dataset.")
        return 1
    print(f"Added {len(added)} of {len(found.pairs)} pairs to {args.data}, which has {len(dataset.cases)} cases now.")
    return 1 if problems else 0


def _check(args: argparse.Namespace) -> int:
    """Print the findings; 1 if there is an error among them."""
    from MedSAMSlicerLib.dataset.checks import check
    from MedSAMSlicerLib.dataset.site import SiteDataset

    dataset = SiteDataset.open(args.data)
    files = RunFiles()
    files.reads_dataset(args.data)
    check_json(files, args.json)
    with ProgressBar(len(dataset.cases), "Checking", "cases") as bar:
        findings = check(dataset, bar.update)
    if args.json:
        rows = [{"level": each.level, "case": each.case_id, "text": each.text} for each in findings]
        write_json(args.json, {"findings": rows})
    if args.json != "-":
        for finding in findings:
            print(f"{finding.level}: {finding.case_id + ': ' if finding.case_id else ''}{finding.text}")
        if not findings:
            print(f"Nothing is wrong with the {len(dataset.cases)} cases of {args.data}.")
    return 1 if any(finding.level == "error" for finding in findings) else 0


def _split(args: argparse.Namespace) -> int:
    """Deal or move patients, and print the cases."""
    from MedSAMSlicerLib.dataset.site import SiteDataset
    from MedSAMSlicerLib.dataset.split import SHARES

    dataset = SiteDataset.open(args.data)
    if args.assign:
        moves = [text.partition("=")[::2] for text in args.assign]
        for patient, split in moves:
            # All of them, before the first is moved.
            dataset.check_move(patient, split)
        for patient, split in moves:
            dataset.assign(patient, split)
    else:
        dataset.split(tuple(args.shares or SHARES), seed=args.seed, keep=args.keep)
    _print_cases(dataset)
    return 0


def _list(args: argparse.Namespace) -> int:
    """Print the cases."""
    from MedSAMSlicerLib.dataset.site import SiteDataset

    _print_cases(SiteDataset.open(args.data))
    return 0


def _remove(args: argparse.Namespace) -> int:
    """Delete cases."""
    from MedSAMSlicerLib.dataset.site import SiteDataset

    dataset = SiteDataset.open(args.data)
    for case_id in [dataset.case(each).id for each in dict.fromkeys(args.case)]:
        dataset.remove(case_id)
        print(f"Removed {case_id}.")
    return 0


def _print_cases(dataset: SiteDataset) -> None:
    """Print the table of cases and how many are in each split."""
    from MedSAMSlicerLib.dataset.case import SPLITS

    rows = [("CASE", "PATIENT", "SPLIT", "IMAGE", "VOXELS", "LABELS")]
    for case in dataset.cases:
        voxels = "x".join(map(str, case.dimensions))
        split = f"{case.split or '-'}{' (trained on)' if dataset.runs(case) else ''}"
        rows.append((case.id, case.patient, split, case.modality, voxels, ", ".join(case.labels)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    counts = {split: [case for case in dataset.cases if case.split == split] for split in (*SPLITS, "")}
    parts = [
        f"{split or 'no split yet'} {len(cases)} ({len({case.patient for case in cases})})"
        for split, cases in counts.items()
        if cases
    ]
    print(f"\nCases (patients): {', '.join(parts) or 'none yet'}")


def _names(texts: list[str]) -> dict[int, str]:
    """Read LABEL=NAME."""
    names = {}
    for text in texts:
        label, equals, name = text.partition("=")
        if not (label.isascii() and label.isdigit() and len(label) < 10) or not equals or not name:
            raise ValueError(f"--name takes LABEL=NAME, such as 5=liver, not {text!r}.")
        names[int(label)] = name
    return names
