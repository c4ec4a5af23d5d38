"""The command ``evaluate``: how well a segmentation agrees with a reference."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from MedSAMSlicerLib.cli.outputs import RunFiles, check_json
from MedSAMSlicerLib.cli.segment import write_json

if TYPE_CHECKING:
    from MedSAMSlicerLib.volume.labels import Labels

    _Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: _Subparsers) -> None:
    """Add ``evaluate`` to the program's commands."""
    parser = subparsers.add_parser("evaluate", help="compare a segmentation with a reference, label by label")
    parser.add_argument("--prediction", type=Path, required=True, help="label map or .seg.nrrd")
    parser.add_argument("--reference", type=Path, required=True, help="label map or .seg.nrrd")
    parser.add_argument("--label", type=int, help="compare only this label; by default every label of the reference")
    parser.add_argument(
        "--prediction-label",
        type=int,
        help="the label that stands for it in the prediction, if it has another number there",
    )
    parser.add_argument("--tolerance-mm", type=float, default=2.0, help="of the surface Dice, default 2")
    parser.add_argument("--json", metavar="OUT.json", help="the figures; - for the standard output")
    parser.set_defaults(run=run)


def _counterpart(label: int, reference: Labels, prediction: Labels) -> int:
    """Return the label of the prediction that stands for one of the reference; 0 if there is none.

    It is that of the same number, but of the same name where both files have names, and some in common.
    """
    if not set(reference.names.values()) & set(prediction.names.values()):
        return label
    alike = [number for number, name in prediction.names.items() if name == reference.names.get(label)]
    return label if label in alike else next(iter(alike), 0)


def run(args: argparse.Namespace) -> int:
    """Print a table, or JSON, of Dice and surface Dice per label."""
    from MedSAMSlicerLib.volume.labels import read_labels
    from MedSAMSlicerLib.volume.metrics import agreement

    if not 0 <= args.tolerance_mm < math.inf:
        raise ValueError(f"The tolerance {args.tolerance_mm:g} mm is negative or no number: give 0 or more.")
    if args.prediction_label is not None and args.label is None:
        raise ValueError("--prediction-label needs --label: say which label of the reference it stands for.")
    files = RunFiles()
    files.reads("prediction", args.prediction)
    files.reads("reference", args.reference)
    check_json(files, args.json)
    reference = read_labels(args.reference)
    values = [args.label] if args.label is not None else reference.values()
    if not values:
        raise ValueError(f"{args.reference} has no label: there is nothing to compare with.")
    if args.label is None and reference.seem_an_image():
        raise ValueError(
            f"{args.reference} has {len(values)} different values: is it an image? Give a label map, or one --label."
        )
    prediction = read_labels(args.prediction)
    if not prediction.same_grid(reference):
        if not prediction.overlaps(reference):
            raise ValueError(
                f"{args.prediction} and {args.reference} lie at different places and share no voxel: is one of them of "
                "another patient, or has it lost its position?"
            )
        print("The files have different voxel grids: the prediction is resampled (nearest neighbor).", file=sys.stderr)
        prediction = prediction.resampled_to(reference)
    rows = []
    for value in values:
        predicted = (
            _counterpart(value, reference, prediction) if args.prediction_label is None else args.prediction_label
        )
        masks = prediction.mask(predicted), reference.mask(value)
        if not masks[0].any() and not masks[1].any():
            raise ValueError(
                f"Neither file has the label {value}: the reference has {', '.join(map(str, reference.values()))}."
            )
        found = agreement(*masks, reference.spacing, tolerance=args.tolerance_mm)
        rows.append(
            {
                "label": value,
                "name": reference.names.get(value, ""),
                "dice": round(found.dice, 4),
                "surface_dice": round(found.surface_dice, 4),
            }
        )
    if args.json:
        write_json(args.json, {"tolerance_mm": args.tolerance_mm, "labels": rows})
    if args.json != "-":
        print(f"label   Dice  surface Dice ({args.tolerance_mm:g} mm)  name")
        for row in rows:
            print(f"{row['label']:5}  {row['dice']:.3f}  {row['surface_dice']:19.3f}  {row['name']}".rstrip())
    return 0
