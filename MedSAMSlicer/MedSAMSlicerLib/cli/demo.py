"""The command ``demo``: real organs in a real CT and a real MRI, from one box each."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedSAMSlicerLib.cli.consent import consent
from MedSAMSlicerLib.cli.outputs import check_folder
from MedSAMSlicerLib.cli.progress import ProgressBar
from MedSAMSlicerLib.cli.segment import require_slicer_core, write_json

if TYPE_CHECKING:
    _Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

# Structure -> its label in the sample CT and in the sample MRI.
_STRUCTURES = {"liver": (5, 5), "spleen": (1, 1), "right kidney": (2, 2), "left kidney": (3, 3), "aorta": (52, 23)}
_CASES = {
    "ct": ("example_ct_sm.nii.gz", "example_seg.nii.gz", "abdomen"),
    "mr": ("example_mr_sm.nii.gz", "example_seg_mr.nii.gz", "mr"),
}


def add_parser(subparsers: _Subparsers) -> None:
    """Add ``demo`` to the program's commands."""
    parser = subparsers.add_parser("demo", help="segment organs in a sample CT and MRI and show the result")
    parser.add_argument(
        "--output", type=Path, default=Path("medsam-demo"), help="folder of the results, default medsam-demo"
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cuda", "mps", "cpu"))
    parser.add_argument("--yes", action="store_true", help="download what is missing without asking")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fetch what is missing, segment, print the table, write segmentations and pictures."""
    check_folder("output folder", args.output)
    if refusal := _fetch(agreed=args.yes):
        return refusal
    with require_slicer_core():
        from MedSAMSlicerLib.headless import scene  # noqa: F401 - only to see that it is there
    from MedSAMSlicerLib.inference.enduring_predictor import EnduringPredictor
    from MedSAMSlicerLib.loading import load_predictor
    from MedSAMSlicerLib.mrml.session import SegmentationSession
    from MedSAMSlicerLib.store.samples import sample_path

    args.output.mkdir(parents=True, exist_ok=True)
    session = SegmentationSession()
    predictor: Any = EnduringPredictor(
        lambda instead: load_predictor("lite", instead or args.device),
        session.cache.clear,
        lambda text: print(text, file=sys.stderr),
    )
    session.predictor = predictor
    print(
        f"LiteMedSAM on {predictor.device}. "
        "Each structure is segmented from one box, the bounds of the expert's label.\n"
    )
    report = {name: _segment_case(name, session, args.output) for name in _CASES}
    write_json(str(args.output / "demo.json"), report)
    print(f"\nPictures and segmentations are in {args.output.resolve()}:")
    for name, (volume, _, _) in _CASES.items():
        print(f"  {name}.png; {name}.seg.nrrd opens in Slicer together with {sample_path(volume)}")
    return 0


def _fetch(*, agreed: bool) -> int:
    """Bring weights and samples here and return 0, or an exit code if the user does not agree to download them."""
    from MedSAMSlicerLib.store.catalog import SAMPLE_ARCHIVE, SAMPLE_LICENSE, SAMPLES, weights_named
    from MedSAMSlicerLib.store.folder import store_folder
    from MedSAMSlicerLib.store.samples import SampleMissing, fetch_samples, sample_path
    from MedSAMSlicerLib.store.weights import WeightsMissing, WeightsStore

    store, lite = WeightsStore(), weights_named("lite")
    missing: dict[str, tuple[Callable[[ProgressBar], object], int]] = {}
    try:
        store.path("lite")
    except WeightsMissing:
        size = lite.size or 0
        missing[f"{lite.title} weights, {size / 1e6:.0f} MB, {lite.license}, from {lite.sources[0]}"] = (
            lambda bar: store.fetch("lite", bar.update),
            size,
        )
    try:
        for sample in SAMPLES:
            sample_path(sample.name)
    except SampleMissing:
        missing[
            f"sample CT and MRI with labels, {SAMPLE_ARCHIVE.size / 1e6:.0f} MB, {SAMPLE_LICENSE}, "
            f"from {SAMPLE_ARCHIVE}"
        ] = (
            lambda bar: fetch_samples(bar.update),
            SAMPLE_ARCHIVE.size,
        )
    if not missing:
        return 0
    print(f"The demo downloads to {store_folder()}:")
    for what in missing:
        print(f"  {what}")
    if refusal := consent(given=agreed):
        return refusal
    for what, (fetch, size) in missing.items():
        with ProgressBar(size, what.split(",")[0], "B") as bar:
            fetch(bar)
    return 0


def _segment_case(name: str, session: Any, output: Path) -> list[dict[str, Any]]:
    """Segment all structures of one sample volume and write its files."""
    from MedSAMSlicerLib.headless.scene import HeadlessScene, save_segmentation
    from MedSAMSlicerLib.headless.snapshot import draw_four_up, write_png
    from MedSAMSlicerLib.mrml.segments import segment_mask
    from MedSAMSlicerLib.store.samples import sample_path
    from MedSAMSlicerLib.volume.files import read_volume
    from MedSAMSlicerLib.volume.geometry import bounding_box, voxel_box_corners
    from MedSAMSlicerLib.volume.metrics import agreement

    volume_file, label_file, window = _CASES[name]
    volume = read_volume(sample_path(volume_file))
    labels = read_volume(sample_path(label_file)).voxels
    headless = HeadlessScene()
    node = headless.add_volume(volume)
    segmentation = headless.add_segmentation(name, node)
    experts = {structure: labels == values[name == "mr"] for structure, values in _STRUCTURES.items()}
    rois = {
        structure: headless.add_roi(structure, volume.ijk_to_ras, voxel_box_corners(*bounding_box(expert)))
        for structure, expert in experts.items()
    }
    rows = []
    print(f"{name.upper()}, {' x '.join(map(str, volume.dimensions))} voxels of {volume.spacing[0]:g} mm")
    print("  structure      Dice  surface Dice (2 mm)  seconds")
    for structure, roi in rois.items():
        start = time.monotonic()
        segment_id = ""
        with ProgressBar(0, f"  {structure}", "slices") as bar:
            for step in session.segment_by_slice(node, roi, segmentation, window=window):
                segment_id = step.segment_id
                if sys.stderr.isatty():
                    bar.update(step.done, step.total)
        seconds = time.monotonic() - start
        found = agreement(segment_mask(segmentation, segment_id, node), experts[structure], volume.spacing)
        print(f"  {structure:12}  {found.dice:.3f}  {found.surface_dice:19.3f}  {seconds:7.1f}")
        rows.append(
            {
                "structure": structure,
                "dice": round(found.dice, 4),
                "surface_dice": round(found.surface_dice, 4),
                "seconds": round(seconds, 2),
            }
        )
    save_segmentation(segmentation, output / f"{name}.seg.nrrd")
    write_png(output / f"{name}.png", draw_four_up(headless, node, segmentation, window=window))
    return rows
