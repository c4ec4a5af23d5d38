"""The command ``segment``: boxes or ROIs in a volume in, a segmentation file out."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedSAMSlicerLib.cli.foretold import foretell
from MedSAMSlicerLib.cli.outputs import RunFiles, check_folder, check_output
from MedSAMSlicerLib.cli.progress import ProgressBar
from MedSAMSlicerLib.cli.repeat import Repetition, check_options, find_model, volume_told
from MedSAMSlicerLib.store.pace import remember_pace

if TYPE_CHECKING:
    from MedSAMSlicerLib.mrml.structure import Structure
    from MedSAMSlicerLib.volume.files import Volume

    _Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_ENDINGS = {
    "output": (".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".mha"),
    "snapshot": (".png",),
    "JSON file": (".json",),
}


def add_parser(subparsers: _Subparsers) -> None:
    """Add ``segment`` to the program's commands."""
    from MedSAMSlicerLib.volume.intensity import WINDOW_HELP
    from MedSAMSlicerLib.volume.propagation import AUTO, PROPAGATIONS

    parser = subparsers.add_parser("segment", help="segment what boxes or ROIs in a volume hold")
    parser.add_argument("--volume", type=Path, help="NRRD, NIfTI or MHA file, DICOM folder or one file of a series")
    prompts = parser.add_mutually_exclusive_group()
    prompts.add_argument(
        "--roi", type=Path, nargs="+", action="extend", metavar="R.mrk.json", help="ROIs saved by Slicer"
    )
    prompts.add_argument(
        "--box",
        type=int,
        nargs="+",
        action="extend",
        metavar="INDEX",
        help="I0 J0 K0 I1 J1 K1: first and last voxel of a box, both inclusive; six numbers for every box",
    )
    prompts.add_argument(
        "--slice-box",
        type=int,
        nargs="+",
        action="extend",
        metavar="INDEX",
        help="K X0 Y0 X1 Y1: a slice along --axis, and the first and last voxel of a box there, both inclusive; X "
        "counts the lower and Y the higher of the two other axes. The structure is followed from there to both sides "
        "until it ends. Five numbers for every box",
    )
    prompts.add_argument(
        "--line",
        type=Path,
        nargs="+",
        action="extend",
        metavar="L.mrk.json",
        help="diameters measured with lines in Slicer, as for RECIST: each lesion is followed from its slice until it "
        "ends. Two lines that cross are the long and the short axis of one lesion",
    )
    prompts.add_argument(
        "--repeat",
        type=Path,
        metavar="FILE.seg.nrrd",
        help="make the segments of a file again from the prompts and options that they tell, and compare them; refused "
        "where the volume or the model is another one. --name chooses some of them",
    )
    parser.add_argument(
        "--limit",
        type=float,
        metavar="MM",
        help="how far a structure is followed from its --slice-box or --line to either side (default: until it ends)",
    )
    parser.add_argument("--name", nargs="+", default=[], help="names of the segments, in the order of the boxes")
    parser.add_argument(
        "--model", default="lite", help="name of known weights (see: models list) or path of a checkpoint"
    )
    parser.add_argument("--window", default="auto", help=WINDOW_HELP)
    parser.add_argument("--axis", default="auto", choices=("auto", "i", "j", "k"), help="direction of the slices")
    parser.add_argument("--propagation", default=AUTO, choices=(AUTO, *PROPAGATIONS))
    parser.add_argument("--device", default="auto", choices=("auto", "cuda", "mps", "cpu"))
    parser.add_argument("--output", type=Path, help="OUT.seg.nrrd, or a label map OUT.nii.gz")
    parser.add_argument(
        "--snapshot", type=Path, metavar="OUT.png", help="picture of the result in three slice views and in 3-D"
    )
    parser.add_argument("--json", metavar="OUT.json", help="figures of the run; - for the standard output")
    parser.add_argument(
        "--embeddings",
        type=Path,
        metavar="FOLDER",
        help="keep what the model made of each slice there (up to 4 GB), so that another run on the volume is faster; "
        "shows what the images show",
    )
    parser.add_argument(
        "--batch",
        type=Path,
        metavar="TABLE.csv",
        help="segment one volume per row; the columns are these options: volume, output, one of box, slice_box, line "
        "and roi, and at will name, limit, window, axis, propagation, snapshot and json. Put ; between several lines, "
        "ROIs or names",
    )
    parser.set_defaults(run=run, wrong_usage=parser.error, default_of=parser.get_default)


def run(args: argparse.Namespace) -> int:
    """Segment one volume, or those of a table."""
    prompt = args.roi or args.box or args.slice_box or args.line or args.repeat
    prompts = "--roi, --box, --slice-box, --line or --repeat"
    single = {"--volume": args.volume, "--output": args.output, prompts: prompt}
    optional = {"--name": args.name, "--snapshot": args.snapshot, "--json": args.json}
    if args.batch:
        from MedSAMSlicerLib.cli.batch import run_batch

        if given := [option for option, value in {**single, **optional, "--repeat": args.repeat}.items() if value]:
            args.wrong_usage(f"{', '.join(given)}: with --batch the table says that")
        return run_batch(args)
    if missing := [option for option, value in single.items() if not value]:
        args.wrong_usage(f"the following arguments are required: {', '.join(missing)}")
    if args.limit is not None and not (args.slice_box or args.line):
        args.wrong_usage(
            "--limit says how far a structure is followed from a --slice-box or --line: give one, or leave it out"
        )
    if args.repeat:
        check_options(args, args.default_of)
    check_arguments(args)
    check_files({"": args})
    from MedSAMSlicerLib.loading import load_predictor
    from MedSAMSlicerLib.volume.files import read_volume

    segment_volume(args, read_volume(args.volume), lambda instead: load_predictor(args.model, instead or args.device))
    return 0


def segment_volume(args: argparse.Namespace, volume: Volume, load: Callable[[str | None], Any]) -> dict[str, Any]:
    """Segment, write all files only after everything went well, and return the figures of the run.

    :param load: makes the predictor on a device, None for the chosen one, once it is clear that the prompts fit the
        volume.
    """
    with require_slicer_core():
        from MedSAMSlicerLib.headless.scene import HeadlessScene, save_segmentation
    from MedSAMSlicerLib.inference.enduring_predictor import EnduringPredictor
    from MedSAMSlicerLib.mrml.outcomes import told
    from MedSAMSlicerLib.mrml.provenance import read_fields
    from MedSAMSlicerLib.mrml.segments import segment_part
    from MedSAMSlicerLib.mrml.session import SegmentationSession
    from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
    from MedSAMSlicerLib.volume.embedding_store import EmbeddingStore
    from MedSAMSlicerLib.volume.files import check_holds

    check_holds(args.output, volume.ijk_to_ras)
    headless = HeadlessScene()
    node = headless.add_volume(volume)
    repetition = _repetition(args, volume, node) if args.repeat else None
    options = {"axis": args.axis, "window": args.window, "propagation": args.propagation, "limit": args.limit}
    runs = repetition.runs() if repetition else [(_structures(args, headless, volume, node), options)]
    segmentation = headless.add_segmentation(volume.name, node)
    store = EmbeddingStore(args.embeddings) if args.embeddings else None
    # Nothing that is found is corrected later, unless corrections are repeated.
    cache = EmbeddingCache(store=store) if repetition else EmbeddingCache(store=store, found_budget=0)
    session = SegmentationSession(cache=cache)
    tasks = [session.begin(node, segmentation, structures, **options) for structures, options in runs]
    predictor: Any = EnduringPredictor(load, session.cache.clear, lambda text: print(text, file=sys.stderr))
    if repetition:
        repetition.check_model(args.model, predictor.source)
    kind = f"{args.model} {predictor.device} {args.propagation}"
    total = sum(task.total for task in tasks)
    known = not any(structure.is_followed for structures, _ in runs for structure in structures)
    foretell(kind, total if known else 0, "slices")

    start = time.monotonic()
    first_mask = 0.0
    for task, (structures, _options) in zip(tasks, runs, strict=True):
        with ProgressBar(task.total, volume.name, "slices") as bar:
            for step in session.run(task, predictor):
                first_mask = first_mask or time.monotonic() - start
                following = structures[step.structure].is_followed and not step.result.final
                bar.update(step.done, 0 if following else step.total)
    segment_ids = [segment_id for task in tasks for segment_id in task.segment_ids]
    outcomes = {segment_id: outcome for task in tasks for segment_id, outcome in task.outcomes.items()}
    seconds = time.monotonic() - start
    remember_pace(kind, sum(task.total for task in tasks), seconds)

    parts = {segment_id: segment_part(segmentation, segment_id, node) for segment_id in segment_ids}
    _write(args.output, volume, segmentation, parts, save_segmentation)
    if args.snapshot:
        from MedSAMSlicerLib.headless.snapshot import draw_four_up, write_png

        write_png(args.snapshot, draw_four_up(headless, node, segmentation, window=args.window))
    milliliters = abs(float(_determinant(volume))) / 1000
    report: dict[str, Any] = {
        "model": args.model,
        "device": str(predictor.device),
        "slices": sum(task.total for task in tasks),
        "seconds_to_first_mask": round(first_mask, 3),
        "seconds": round(seconds, 3),
        "segments": [
            {
                "name": segmentation.GetSegmentation().GetSegment(segment_id).GetName(),
                "voxels": int(mask.sum()),
                "milliliters": round(float(mask.sum()) * milliliters, 3),
                "fragments_dropped": outcomes[segment_id].fragments,
                # The volume's first or last slice, where what was followed had not ended.
                "open_ends": list(outcomes[segment_id].open_ends),
                # In the order in which they are worth a look.
                "slices": [
                    {"axis": "ijk"[each.axis], "index": each.index, "confidence": round(each.confidence, 3)}
                    for each in session.review(segmentation, segment_id)
                ],
                "origin": read_fields(segmentation.GetSegmentation().GetSegment(segment_id)),
            }
            for segment_id, (mask, _first) in parts.items()
        ],
    }
    for segment in report["segments"]:
        print(f"{segment['name']}: {segment['voxels']} voxels, {segment['milliliters']} mL", file=sys.stderr)
        if not segment["voxels"]:
            print(f"{segment['name']}: the model found nothing in this box; is the window right?", file=sys.stderr)
    for segment_id, outcome in outcomes.items():
        for sentence in told(outcome):
            name = segmentation.GetSegmentation().GetSegment(segment_id).GetName()
            print(f"{name}: {sentence}", file=sys.stderr)
    if repetition:
        for segment, count in zip(
            report["segments"], repetition.differences(list(parts.values()), volume), strict=True
        ):
            segment["voxels_changed"] = count
    if args.json:
        write_json(args.json, report)
    return report


@contextlib.contextmanager
def require_slicer_core() -> Iterator[None]:
    """Say how to get slicer-core where it is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith(("slicer", "vtk")):
            raise
        raise ModuleNotFoundError(
            "This command works on Slicer's own nodes and needs the package slicer-core: "
            "run pip install 'medsam-slicer[slicer]'"
        ) from error


def write_json(target: str, report: dict[str, Any]) -> None:
    """Write figures to a file, whole or not at all, or to the standard output where the target is "-"."""
    from MedSAMSlicerLib.volume.files import atomic_output

    text = json.dumps(report, indent=2) + "\n"
    if target == "-":
        print(text, end="")
        return
    with atomic_output(Path(target)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_arguments(args: argparse.Namespace) -> None:
    """Find what is wrong with the arguments before minutes of computing are spent on them."""
    if args.box and len(args.box) % 6:
        raise ValueError(f"--box takes six numbers for every box, I0 J0 K0 I1 J1 K1, but {len(args.box)} were given.")
    if args.slice_box and len(args.slice_box) % 5:
        raise ValueError(
            f"--slice-box takes five numbers for every box, K X0 Y0 X1 Y1, but {len(args.slice_box)} were given."
        )
    count = len(args.roi or []) or len(args.box or []) // 6 or len(args.slice_box or []) // 5
    count = count or len(args.line or [])
    if len(args.name) > count and not args.repeat:
        raise ValueError(f"There are {len(args.name)} names for {count} boxes: give each one name, or fewer names.")
    if args.embeddings:
        check_folder("folder of embeddings", args.embeddings)
    for what, path in outputs_of(args).items():
        check_output(what, path, _ENDINGS[what])


def check_files(runs: Mapping[str, argparse.Namespace]) -> None:
    """Refuse runs that would write over what one of them reads, or two outputs into one file.

    :param runs: what tells a run from the others in messages, such as " of row 2" -> its arguments.
    """
    files = RunFiles()
    for which, args in runs.items():
        files.reads(f"volume{which}", args.volume)
        for path in args.roi or ():
            files.reads(f"ROI{which}", path)
        for path in args.line or ():
            files.reads(f"line{which}", path)
        if args.repeat:
            files.reads("segmentation to repeat", args.repeat)
        files.reads_model("model", args.model)
    for which, args in runs.items():
        for what, path in outputs_of(args).items():
            files.writes(f"{what}{which}", path)


def outputs_of(args: argparse.Namespace) -> dict[str, Path]:
    """List what a run writes, as it is called in messages, and where."""
    paths = {"output": args.output, "snapshot": args.snapshot, "JSON file": args.json if args.json != "-" else None}
    return {what: Path(path) for what, path in paths.items() if path is not None}


def _structures(args: argparse.Namespace, headless: Any, volume: Volume, node: Any) -> list[Structure]:
    """Read the boxes, lines or ROIs of the command line."""
    from MedSAMSlicerLib.mrml.diameters import structures_of_lines
    from MedSAMSlicerLib.mrml.structure import Structure

    if args.slice_box:
        numbers = [args.slice_box[start : start + 5] for start in range(0, len(args.slice_box), 5)]
        names = [*args.name, *(f"Segment_{number + 1}" for number in range(len(args.name), len(numbers)))]
        return [
            Structure.of_slice(node, index, box, args.axis, name)
            for (index, *box), name in zip(numbers, names, strict=True)
        ]
    if args.line:
        return structures_of_lines([headless.load_line(path) for path in args.line], node, args.name)
    rois = [headless.load_roi(path) for path in args.roi] if args.roi else _add_boxes(headless, volume, args.box)
    for roi, name in zip(rois, args.name, strict=False):
        roi.SetName(name)
    if not args.box:
        return [Structure.of_roi(node, roi) for roi in rois]
    # The voxels themselves: where they are sheared an ROI, which is a cuboid, can't wrap them.
    boxes = [args.box[start : start + 6] for start in range(0, len(args.box), 6)]
    return [Structure.of_voxels(node, box[:3], box[3:], roi.GetName()) for box, roi in zip(boxes, rois, strict=True)]


def _repetition(args: argparse.Namespace, volume: Volume, node: Any) -> Repetition:
    """Read the file to repeat, and make its model the one to load where none is given."""
    repetition = Repetition(args.repeat, args.name)
    repetition.check_volume(args.volume, volume_told(volume, node))
    if args.model == args.default_of("model"):
        args.model = find_model(repetition.model)
    return repetition


def _add_boxes(headless: Any, volume: Volume, numbers: list[int]) -> list[Any]:
    """Make an ROI node of every six numbers, which a picture shows."""
    from MedSAMSlicerLib.volume.geometry import voxel_box_corners

    rois = []
    for start in range(0, len(numbers), 6):
        i0, j0, k0, i1, j1, k1 = numbers[start : start + 6]
        if i1 < i0 or j1 < j0 or k1 < k0:
            raise ValueError(
                f"The box {i0} {j0} {k0} {i1} {j1} {k1} is inverted: "
                "give the first voxel, then the last one, as I0 J0 K0 I1 J1 K1."
            )
        if min(i1, j1, k1) < 0 or any(low >= size for low, size in zip((i0, j0, k0), volume.dimensions, strict=True)):
            raise ValueError(
                f"The box {i0} {j0} {k0} {i1} {j1} {k1} lies outside of the volume, which has "
                f"{' x '.join(map(str, volume.dimensions))} voxels (I x J x K, counted from 0)."
            )
        corners = voxel_box_corners((i0, j0, k0), (i1, j1, k1))
        rois.append(headless.add_roi(f"Segment_{start // 6 + 1}", volume.ijk_to_ras, corners))
    return rois


def _write(path: Path, volume: Volume, segmentation: Any, parts: dict[str, Any], save_segmentation: Any) -> None:
    import numpy as np

    from MedSAMSlicerLib.volume.files import write_labelmap

    if path.name.lower().endswith(".seg.nrrd"):
        save_segmentation(segmentation, path)
        return
    labels = np.zeros(volume.voxels.shape[:3], dtype=np.uint8 if len(parts) < 256 else np.uint16)
    for label, (segment_id, (mask, (i, j, k))) in enumerate(parts.items(), start=1):
        held = labels[k : k + mask.shape[0], j : j + mask.shape[1], i : i + mask.shape[2]]
        covered = int(np.count_nonzero(held[mask]))
        if covered:
            name = segmentation.GetSegmentation().GetSegment(segment_id).GetName()
            print(
                f"{name} overlaps earlier segments in {covered} voxels and covers them in the label map; "
                ".seg.nrrd keeps both.",
                file=sys.stderr,
            )
        held[mask] = label
    write_labelmap(path, labels, volume.ijk_to_ras)


def _determinant(volume: Volume) -> float:
    import numpy as np

    return float(np.linalg.det(volume.ijk_to_ras[:3, :3]))
