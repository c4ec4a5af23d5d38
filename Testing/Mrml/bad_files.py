"""Files that are damaged, or in a form that can't be read exactly, and commands that would lose something.

Each of these was answered wrongly once, as those of `bad_input` were; most by a volume in which voxels were missing.
"""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom import dcmread
from pydicom.dataset import Dataset

from Core.dicom_writer import write_segmentation
from Mrml.bad_input import BOX, HEADER, SEGMENT, TRAIN, BadInput, image, index, link, table, text

_MAGIC, _S_FORM_SHEAR = 344, 304
PIXELS = np.random.default_rng(3).integers(0, 4000, (4, 30, 30)).astype(np.uint16)


def volume(name: str) -> str:
    return f"segment --volume {name} {BOX} --output o.seg.nrrd"


def saved(name: str, change: Callable[[Path], object] = lambda path: None, *, compressed: bool = False) -> Callable:
    """Save the CT in another format, and change what was written."""

    def make(folder: Path) -> None:
        sitk.WriteImage(sitk.ReadImage(str(folder / "CT.nrrd")), str(folder / name), useCompression=compressed)
        change(folder / name)

    return make


def cut(ending: str, count: int) -> Callable[[Path], object]:
    """Cut bytes off a file, or off the one beside it that has this ending."""

    def make(path: Path) -> None:
        path = path.with_suffix(ending)
        path.write_bytes(path.read_bytes()[:-count])

    return make


def flip(path: Path) -> None:
    """Damage a byte in the midst of the voxels."""
    content = bytearray(path.read_bytes())
    content[-3000] ^= 0xFF
    path.write_bytes(content)


def packed(path: Path, change: Callable[[Path], object] = lambda path: None) -> None:
    """Compress the voxels of a pair."""
    voxels = path.with_suffix(".img")
    (path.with_suffix(".img.gz")).write_bytes(gzip.compress(voxels.read_bytes()))
    voxels.unlink()
    change(path.with_suffix(".img.gz"))


def put(at: int, form: str, value: object) -> Callable[[Path], None]:
    """Change a header."""

    def make(path: Path) -> None:
        content = bytearray(path.read_bytes())
        struct.pack_into(form, content, at, value)
        path.write_bytes(content)

    return make


def slices(change: Callable[[Dataset, int], object]) -> Callable[[Path], None]:
    """Change the files of the DICOM series."""

    def make(folder: Path) -> None:
        files = [(path, dcmread(path)) for path in (folder / "dicom").iterdir()]
        for n, (path, dataset) in enumerate(sorted(files, key=lambda file: file[1].InstanceNumber)):
            change(dataset, n)
            dataset.save_as(path)

    return make


def roi(**values: object) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        content = json.loads((folder / "R.mrk.json").read_text())
        content["markups"][0] |= values
        (folder / "bad.mrk.json").write_text(json.dumps(content))

    return make


def drawn(name: str) -> Callable[[Path], object]:
    """Write a DICOM segmentation."""
    mask = np.ones((3, 24, 30), dtype=bool)
    return lambda folder: write_segmentation(folder / name, {"liver": mask}, np.diag([0.8, 0.8, 3.0, 1]))


def apart(folder: Path) -> None:
    """Take a volume apart: a header, and voxels that have the name of an image."""
    sitk.WriteImage(sitk.ReadImage(str(folder / "CT.nrrd")), str(folder / "x.mhd"))
    (folder / "x.raw").rename(folder / "o.mha")
    (folder / "x.mhd").write_text((folder / "x.mhd").read_text().replace("x.raw", "o.mha"))


def short(dataset: Dataset, n: int) -> None:
    if n == 1:
        dataset.PixelData = dataset.PixelData[:-120]


def steep(dataset: Dataset, n: int) -> None:
    dataset.ImagePositionPatient = [4 * n, 0, 3 * n]


FILES = [
    BadInput(
        "damaged MetaImage",
        volume("x.mha"),
        ("x.mha is damaged", "download it again"),
        saved("x.mha", flip, compressed=True),
    ),
    BadInput(
        "cut-off voxels of MetaImage",
        volume("x.mhd"),
        ("x.mhd is cut off",),
        saved("x.mhd", cut(".zraw", 500), compressed=True),
    ),
    BadInput("cut-off pair", volume("x.hdr"), ("x.hdr is cut off", "14400 bytes"), saved("x.hdr", cut(".img", 3000))),
    BadInput("cut-off pair by its voxels", volume("x.img"), ("x.img is cut off",), saved("x.img", cut(".img", 3000))),
    BadInput("damaged pair", volume("x.hdr"), ("cut off or damaged",), saved("x.hdr", lambda path: packed(path, flip))),
    BadInput("sheared pair", volume("x.hdr"), ("sheared",), saved("x.hdr", put(_S_FORM_SHEAR, "<f", 1.1))),
    BadInput("ANALYZE", volume("x.hdr"), ("ANALYZE 7.5", "left from right"), saved("x.hdr", put(_MAGIC, "4s", b""))),
    BadInput("lost mark of NIfTI", volume("x.nii"), ("damaged",), saved("x.nii", put(_MAGIC, "4s", b"xxx"))),
    BadInput("VTK", volume("x.vtk"), ("x.vtk is a VTK file", "give NRRD"), saved("x.vtk", cut(".vtk", 3000))),
    BadInput("TIFF", volume("x.tif"), ("x.tif is a TIFF file", "PNG"), image("x.tif", PIXELS)),
    BadInput(
        "a DICOM slice with too few pixels", volume("dicom"), (".dcm has too few pixels", "download"), slices(short)
    ),
    BadInput("steeper than a gantry", volume("dicom"), ("moves 4 mm aside and 3 mm up",), slices(steep)),
    BadInput("a DICOM segmentation", volume("s.dcm"), ("s.dcm is a DICOM segmentation",), drawn("s.dcm")),
    BadInput(
        "a DICOM segmentation as prediction",
        "evaluate --prediction s.dcm --reference labels.nii.gz",
        ("s.dcm is a DICOM file",),
        drawn("s.dcm"),
    ),
    BadInput(
        "values without end",
        "evaluate --prediction x.nrrd --reference labels.nii.gz",
        ("x.nrrd has values that are no whole numbers",),
        image("x.nrrd", np.full((10, 24, 30), np.inf, np.float32)),
    ),
    BadInput(
        "an ROI without directions",
        "segment --volume CT.nrrd --roi bad.mrk.json --output o.seg.nrrd",
        ("the ROI in bad.mrk.json",),
        roi(orientation=[0] * 9),
    ),
    BadInput(
        "a log that is none",
        "report --data site --model base.pth --output r.html --log CT.nrrd",
        ("CT.nrrd is no log of a training run",),
    ),
]

LOSSES = [
    BadInput(
        "the voxels of the header",
        f"segment --volume x.mhd {BOX} --output o.mha",
        ("output o.mha", "voxels of the volume"),
        apart,
    ),
    BadInput("a link to itself", f"{SEGMENT} --output l.nrrd", ("l.nrrd can't be found",), link("l.nrrd", "l.nrrd")),
    BadInput("capital letters", f"{SEGMENT} --output O.NII.GZ", ("must end with .seg.nrrd", "mha, in small letters.")),
    BadInput(
        "embeddings in a file", f"{SEGMENT} --output o.nrrd --embeddings CT.nrrd", ("folder of embeddings", "CT.nrrd")
    ),
    BadInput("names", f"{SEGMENT} --output o.nrrd --name a b", ("2 names for 1 boxes", "fewer names")),
    BadInput("demo into a file", "demo --output CT.nrrd --yes", ("output folder", "CT.nrrd", "give another one")),
    BadInput(
        "quotes without an end", "segment --batch t.csv", ("t.csv is no table",), table('CT.nrrd,"o.nrrd,1 1 1 2 2 2')
    ),
    BadInput("the run is the output", f"{TRAIN} --output o.pth --run o.pth", ("folder of the run o.pth", "output")),
    BadInput(
        "an output among the run's files", f"{TRAIN} --output r/best.pth --run r", ("r/best.pth", "files of its own")
    ),
    BadInput("figures over the settings", f"{TRAIN} --output o.pth --run r --json r/settings.json", ("settings.json",)),
    BadInput("the run is a file", f"{TRAIN} --output o.pth --run base.pth", ("folder of the run", "base.pth")),
    BadInput(
        "embeddings of a training in a file",
        f"{TRAIN} --output o.pth --embeddings base.pth",
        ("folder of embeddings", "base.pth"),
    ),
    BadInput("shares that are no numbers", "dataset split --data site --shares nan 0 0", ("shares nan",)),
    BadInput(
        "one of two patients is unknown",
        "dataset split --data site --assign P0001=validation P9999=test",
        ("no case 'P9999'",),
    ),
    BadInput("one of two cases is unknown", "dataset remove --data site case-0001 case-0009", ("no case 'case-0009'",)),
    BadInput(
        "a next number of too many digits",
        "dataset add --data site --images new",
        ("next_case is 1000000000000",),
        index(next_case=10**12),
    ),
    BadInput(
        "a table of rows without cells", "segment --batch t.csv", ("t.csv has no row",), text("t.csv", HEADER + ",,\n")
    ),
]
