"""Input that can't be right: what makes it, the command that meets it, and the words of the answer.

Each of these was answered wrongly once: with a file that was lost, a traceback, or words that helped nobody.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

BOX = "--box 5 6 2 20 15 7"
SEGMENT = f"segment --volume CT.nrrd {BOX}"
EVALUATE = "evaluate --prediction labels.seg.nrrd --reference labels.nii.gz"
TRAIN = "train --data site --base base.pth --device cpu --epochs 1 --validated-structures 1"
HEADER = "volume,output,box,snapshot,json\n"


def nothing(folder: Path) -> None:
    """Take the folder as it is."""


@dataclass(frozen=True)
class BadInput:
    """A case.

    :param command: the arguments, run in the folder.
    :param words: what the only line of the error has to say.
    :param make: puts the bad input into the folder.
    :param environment: variables that are set.
    """

    name: str
    command: str
    words: tuple[str, ...]
    make: Callable[[Path], object] = nothing
    environment: dict[str, str] = field(default_factory=dict)


def link(new: str, old: str) -> Callable[[Path], None]:
    return lambda folder: (folder / new).symlink_to(folder / old)


def hard_link(new: str, old: str) -> Callable[[Path], None]:
    return lambda folder: os.link(folder / old, folder / new)


def copy(new: str, old: str) -> Callable[[Path], object]:
    return lambda folder: (folder / new).write_bytes((folder / old).read_bytes())


def text(name: str, content: str | bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def change(name: str, old: str, new: str) -> Callable[[Path], None]:
    """Replace bytes of a file, once."""

    def make(folder: Path) -> None:
        content = (folder / name).read_bytes()
        assert old.encode() in content
        (folder / name).write_bytes(content.replace(old.encode(), new.encode(), 1))

    return make


def image(name: str, voxels: np.ndarray, origin: tuple[float, float, float] = (0, 0, 0)) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        made = sitk.GetImageFromArray(voxels)
        made.SetOrigin(origin)
        sitk.WriteImage(made, str(folder / name))

    return make


def table(*rows: str, header: str = HEADER, encoding: str = "utf-8") -> Callable[[Path], object]:
    return text("t.csv", (header + "".join(f"{row}\n" for row in rows)).encode(encoding))


def index(**values: object) -> Callable[[Path], None]:
    """Change the dataset's index."""

    def make(folder: Path) -> None:
        path = folder / "site" / "dataset.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return make


def cases(**values: object) -> Callable[[Path], None]:
    """Change all cases in the dataset's index."""

    def make(folder: Path) -> None:
        entries = json.loads((folder / "site" / "dataset.json").read_text())["cases"]
        index(cases=[{**entry, **values} for entry in entries])(folder)

    return make


def cell(
    output: str, box: str = "5 6 2 20 15 7", volume: str = "CT.nrrd", snapshot: str = "", figures: str = ""
) -> str:
    return f"{volume},{output},{box},{snapshot},{figures}"


RANDOM = np.random.default_rng(3)
PIXELS = RANDOM.integers(0, 4000, (4, 30, 30)).astype(np.uint16)
CUT_NIFTI = struct.pack("<i", 348) + b"\0" * 344 + b"n+1\0"

OUTPUTS = [
    BadInput(
        "output is the volume", f"{SEGMENT} --output CT.nrrd", ("output CT.nrrd", "the volume CT.nrrd", "another path")
    ),
    BadInput("spelled otherwise", f"{SEGMENT} --output ./out/../CT.nrrd", ("same file as the volume",)),
    BadInput(
        "symbolic link", f"{SEGMENT} --output link.nrrd", ("same file as the volume",), link("link.nrrd", "CT.nrrd")
    ),
    BadInput(
        "hard link", f"{SEGMENT} --output hard.nrrd", ("same file as the volume",), hard_link("hard.nrrd", "CT.nrrd")
    ),
    BadInput(
        "link to a folder",
        f"{SEGMENT} --output here/CT.nrrd",
        ("same file as the volume",),
        lambda folder: (folder / "here").symlink_to(folder, target_is_directory=True),
    ),
    BadInput(
        "segmentation as volume",
        f"segment --volume labels.seg.nrrd {BOX} --output labels.seg.nrrd",
        ("same file as the volume",),
    ),
    BadInput(
        "NIfTI as volume", f"segment --volume labels.nii.gz {BOX} --output labels.nii.gz", ("same file as the volume",)
    ),
    BadInput(
        "JSON is the volume", f"{SEGMENT} --output o.nrrd --json CT.nrrd", ("JSON file CT.nrrd", "must end with .json")
    ),
    BadInput("JSON is the output", f"{SEGMENT} --output o.nrrd --json o.nrrd", ("must end with .json",)),
    BadInput(
        "JSON is the ROI",
        "segment --volume CT.nrrd --roi R.mrk.json --output o.nrrd --json ./R.mrk.json",
        ("same file as the ROI R.mrk.json",),
    ),
    BadInput(
        "snapshot is the volume",
        f"segment --volume slice.png {BOX} --output o.nrrd --snapshot slice.png",
        ("snapshot slice.png", "same file as the volume"),
        image("slice.png", PIXELS[0]),
    ),
    BadInput(
        "JSON is a DICOM file",
        f"segment --volume dicom {BOX} --output o.nrrd --json dicom/a.json",
        ("DICOM file of the volume",),
        lambda folder: sorted((folder / "dicom").iterdir())[0].rename(folder / "dicom" / "a.json"),
    ),
    BadInput(
        "JSON is beside a DICOM file",
        f"segment --volume dicom/b.dcm {BOX} --output o.nrrd --json dicom/a.json",
        ("DICOM file of the volume",),
        lambda folder: [
            path.rename(folder / "dicom" / name)
            for path, name in zip(sorted((folder / "dicom").iterdir()), ("a.json", "b.dcm"), strict=False)
        ],
    ),
    BadInput(
        "evaluate over the reference",
        "evaluate --prediction labels.seg.nrrd --reference labels.nii.gz --json r.json",
        ("same file as the reference",),
        link("r.json", "labels.nii.gz"),
    ),
    BadInput("check over the index", "dataset check --data site --json site/dataset.json", ("dataset's file",)),
    BadInput(
        "check over a case",
        "dataset check --data site --json c.json",
        ("case's file",),
        hard_link("c.json", "site/cases/case-0001/image.nrrd"),
    ),
    BadInput(
        "report over the index", "report --data site --model base.pth --output site/dataset.html", ("dataset's file",)
    ),
    BadInput("train over the base", f"{TRAIN} --output ./base.pth", ("same file as the base",)),
    BadInput(
        "train over a link to the base",
        f"{TRAIN} --output l.pth",
        ("same file as the base",),
        link("l.pth", "base.pth"),
    ),
    BadInput("official is the output", f"{TRAIN} --output o.pth --official ./o.pth", ("same file as the output",)),
    BadInput("official is the base", f"{TRAIN} --output o.pth --official base.pth", ("same file as the base",)),
    BadInput("figures are the index", f"{TRAIN} --output o.pth --json site/dataset.json", ("dataset's file",)),
    BadInput("train to nowhere", f"{TRAIN} --output /proc/x.pth", ("/proc can't be written to", "another one")),
    BadInput("figures to nowhere", f"{EVALUATE} --json /proc/x.json", ("/proc can't be written to",)),
    BadInput(
        "report to nowhere", "report --data site --model base.pth --output /proc/x.html", ("/proc can't be written to",)
    ),
    BadInput("capital letters", f"{SEGMENT} --output O.NII.GZ", ("in small letters",)),
    BadInput(
        "a device",
        f"{SEGMENT} --output null.nrrd",
        ("no file but a device",),
        lambda folder: (folder / "null.nrrd").symlink_to("/dev/null"),
    ),
    BadInput("no text", "segment --volume \udce9.nrrd --box 0 0 0 1 1 1 --output o.nrrd", ("'\\udce9.nrrd'", "UTF-8")),
]

TABLES = [
    BadInput(
        "outputs spelled otherwise",
        "segment --batch t.csv",
        ("output of row 2", "output of row 1", "another path"),
        table(cell("bo/a.seg.nrrd"), cell("./bo/../bo/a.seg.nrrd")),
    ),
    BadInput(
        "an output is another row's volume",
        "segment --batch t.csv",
        ("output of row 1", "same file as the volume of row 2"),
        table(cell("labels.nii.gz"), cell("o.nrrd", volume="labels.nii.gz")),
    ),
    BadInput("an output is the row's volume", "segment --batch t.csv", ("volume of row 1",), table(cell("CT.nrrd"))),
    BadInput(
        "one snapshot for two",
        "segment --batch t.csv",
        ("snapshot of row 2", "snapshot of row 1"),
        table(cell("a.nrrd", snapshot="s.png"), cell("b.nrrd", snapshot="s.png")),
    ),
    BadInput(
        "one JSON file for two",
        "segment --batch t.csv",
        ("JSON file of row 2",),
        table(cell("a.nrrd", figures="s.json"), cell("b.nrrd", figures="s.json")),
    ),
    BadInput("no row", "segment --batch t.csv", ("t.csv has no row",), table()),
    BadInput(
        "a column twice", "segment --batch t.csv", ("'output' twice",), table("a,b,c", header="volume,output,output\n")
    ),
    BadInput(
        "semicolons",
        "segment --batch t.csv",
        ("with commas between them",),
        table("CT.nrrd;o.nrrd;1 1 1 2 2 2", header="volume;output;box\n"),
    ),
    BadInput(
        "UTF-16", "segment --batch t.csv", ("t.csv is no text in UTF-8",), table(cell("o.nrrd"), encoding="utf-16")
    ),
    BadInput(
        "Latin-1", "segment --batch t.csv", ("t.csv is no text in UTF-8",), table(cell("ö.nrrd"), encoding="latin-1")
    ),
    BadInput("a huge cell", "segment --batch t.csv", ("t.csv is no table",), table(cell("o" * 200_000))),
    BadInput("a zero byte", "segment --batch t.csv", ("t.csv",), table(cell("o\0.nrrd"))),
    BadInput("no table", "segment --batch none.csv", ("none.csv", "check the path")),
    BadInput(
        "RANK",
        "segment --batch t.csv",
        ("RANK=x", "unset both"),
        table(cell("o.nrrd")),
        {"RANK": "x"},
    ),
    BadInput(
        "WORLD_SIZE",
        "segment --batch t.csv",
        ("WORLD_SIZE=0",),
        table(cell("o.nrrd")),
        {"WORLD_SIZE": "0"},
    ),
    BadInput(
        "a rank beyond",
        "segment --batch t.csv",
        ("RANK=2 and WORLD_SIZE=2",),
        table(cell("o.nrrd")),
        {"RANK": "2", "WORLD_SIZE": "2"},
    ),
]

LABELS = [
    BadInput(
        "a layer beyond",
        EVALUATE,
        ("labels.seg.nrrd", "segment 0 in layer 9 of 1"),
        change("labels.seg.nrrd", "Segment0_Layer:=0", "Segment0_Layer:=9"),
    ),
    BadInput(
        "a layer before",
        EVALUATE,
        ("segment 0 in layer -1 of 1",),
        change("labels.seg.nrrd", "Segment0_Layer:=0", "Segment0_Layer:=-1"),
    ),
    BadInput(
        "no number",
        EVALUATE,
        ("labels.seg.nrrd", "'x' for Segment0_LabelValue"),
        change("labels.seg.nrrd", "Segment0_LabelValue:=1", "Segment0_LabelValue:=x"),
    ),
    BadInput(
        "no label value",
        EVALUATE,
        ("labels.seg.nrrd", "'nothing' for Segment0_LabelValue"),
        change("labels.seg.nrrd", "Segment0_LabelValue:=1\n", ""),
    ),
    BadInput("tolerance NaN", f"{EVALUATE} --tolerance-mm nan", ("tolerance nan mm", "0 or more")),
    BadInput("tolerance without end", f"{EVALUATE} --tolerance-mm inf", ("tolerance inf mm",)),
    BadInput(
        "a CT as reference",
        "evaluate --prediction labels.nii.gz --reference CT.nrrd",
        ("CT.nrrd has negative values", "image instead of a label map"),
    ),
    BadInput(
        "an MRI as reference",
        "evaluate --prediction labels.nii.gz --reference mr.nrrd",
        ("mr.nrrd has", "an image?"),
        image("mr.nrrd", PIXELS),
    ),
    BadInput(
        "somewhere else",
        "evaluate --prediction far.nrrd --reference labels.nii.gz",
        ("share no voxel", "far.nrrd"),
        image("far.nrrd", np.ones((4, 30, 30), np.uint8), origin=(1000, 0, 0)),
    ),
    BadInput("a folder", "evaluate --prediction dicom --reference labels.nii.gz", ("dicom is a folder", ".seg.nrrd")),
]

SITES = [
    BadInput(
        "nobody's home",
        "cache list",
        ("MEDSAM_SLICER_HOME is '~nobody-here/x'",),
        environment={"MEDSAM_SLICER_HOME": "~nobody-here/x"},
    ),
    BadInput(
        "labels are numbers", "dataset list --data site", ("dataset.json", "labels of case-0001"), cases(labels=[1, 2])
    ),
    BadInput("a case twice", "dataset list --data site", ("case-0001 is there twice",), cases(id="case-0001")),
    BadInput(
        "digits of another script",
        "dataset list --data site",
        ("dataset.json", "no id of a case"),
        cases(id="case-\u0660\u0660\u0660\u0661"),
    ),
    BadInput("no next number", "dataset split --data site", ("next_case is 'x'",), index(next_case="x")),
    BadInput(
        "nested without end",
        "dataset check --data site",
        ("dataset.json", "backup"),
        text("site/dataset.json", "[" * 100_000),
    ),
    BadInput(
        "a key that is none",
        "dataset add --data site --images new",
        ("patients.key is damaged",),
        text("site/patients.key", '{"key": "00", "given": {}}'),
    ),
    BadInput(
        "a name that is no text",
        "dataset add --data site --images new",
        ("UTF-8", "rename"),
        lambda folder: (Path(os.fsdecode(os.fsencode(folder / "new") + b"/\xe9_image.nrrd"))).write_text("x"),
    ),
    BadInput(
        "unknown window", f"{TRAIN} --output o.pth", ("case-0001", "window 'kidney' is unknown"), cases(window="kidney")
    ),
    BadInput("workers", f"{TRAIN} --output o.pth --workers -1", ("--workers is -1", "0 or more")),
    BadInput("learning rate", f"{TRAIN} --output o.pth --learning-rate inf", ("learning_rate is inf", "finite")),
    BadInput("rank of a training", f"{TRAIN} --output o.pth", ("RANK=x",), environment={"RANK": "x"}),
    BadInput("no base", "train --data site --base none.pth --output o.pth", ("none.pth", "unknown")),
]
