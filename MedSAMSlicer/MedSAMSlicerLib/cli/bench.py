"""The command ``bench``: how long this computer takes for what a user waits for, as a table for an issue."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from MedSAMSlicerLib import __version__
from MedSAMSlicerLib.cli.outputs import RunFiles, check_json
from MedSAMSlicerLib.cli.progress import ProgressBar
from MedSAMSlicerLib.cli.segment import write_json

if TYPE_CHECKING:
    _Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: _Subparsers) -> None:
    """Add ``bench`` to the program's commands."""
    parser = subparsers.add_parser("bench", help="measure how fast this computer segments, on a made-up CT")
    parser.add_argument(
        "--device", default="auto", choices=("auto", "cuda", "mps", "cpu"), help="to be compared with the CPU"
    )
    parser.add_argument(
        "--model", default="lite", help="name of known weights (random ones where they are not here) or a checkpoint"
    )
    parser.add_argument("--slices", type=int, default=30, help="that the made-up CT has, default 30")
    parser.add_argument(
        "--json", metavar="OUT.json", help="the figures; - for the standard output instead of the table"
    )
    parser.add_argument("--no-cpu", action="store_true", help="do not measure the CPU beside a GPU")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure the device, and the CPU if it is another one, and print the table."""
    if args.slices < 3:
        raise ValueError(f"--slices is {args.slices}: give 3 or more.")
    files = RunFiles()
    files.reads_model("model", args.model)
    check_json(files, args.json)
    from MedSAMSlicerLib.benchmark.course import PARTS, run_course, weights_used
    from MedSAMSlicerLib.benchmark.figures import ratios, table
    from MedSAMSlicerLib.benchmark.machine import machine
    from MedSAMSlicerLib.benchmark.phantom import phantom
    from MedSAMSlicerLib.inference.device import choose_device

    weights, device = weights_used(args.model), choose_device(args.device)
    devices = [str(device)] if device.type == "cpu" or args.no_cpu else [str(device), "cpu"]
    report: dict[str, Any] = {"medsam_slicer": __version__, "machine": machine(), "model": args.model}
    made_up = phantom(args.slices)
    report |= {"weights": weights, "input": str(made_up)}
    rows = []
    with ProgressBar(PARTS * len(devices), "bench", "parts") as bar:
        for number, name in enumerate(devices):

            def tell(done: int, what: str, before: int = PARTS * number, name: str = name) -> None:
                bar.update(before + done, note=f"{name}: {what}")

            rows.append(run_course(made_up, args.model, name, tell))
    report["devices"] = [figures.as_dict() for figures in rows]
    if len(rows) == 2:
        report["times_as_fast_as_cpu"] = dict(ratios(*rows))
    if args.json != "-":
        print(_text(report, table(rows)))
    if args.json:
        write_json(args.json, report)
    return 0


def _text(report: dict[str, Any], table: str) -> str:
    """Put what was measured, where, and the table together, as it can be pasted into an issue."""
    machine = report["machine"]
    chips = "; ".join(dict.fromkeys(f"{each['device']}: {each['name']}" for each in report["devices"]))
    lines = [
        f"medsam-slicer {report['medsam_slicer']}, model {report['model']}, {report['weights']}",
        f"{machine['system']}, {chips}; {machine['threads']} threads, Python {machine['python']}, "
        f"PyTorch {machine['torch']}",
        f"{report['input']}; nothing of it was downloaded or written",
        "",
        table,
    ]
    if machine.get("load", 0) > machine["threads"] / 2:
        lines += ["", f"Other programs were running (load {machine['load']}): close them for figures worth comparing."]
    return "\n".join(lines)
