"""Volumes and label maps in files, read and written by SimpleITK: NRRD, NIfTI, MetaImage and DICOM series."""

from __future__ import annotations

import contextlib
import gzip
import math
import os
import re
import struct
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

# ITK works in LPS, Slicer in RAS: the first two coordinates change sign.
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

# Slices of one series whose gaps differ by more than this are not a regular grid (Slicer's DICOM plugin: 1 %).
_SPACING_TOLERANCE = 0.01


class FileError(ValueError):
    """A file that can't be read as what was asked for; the text says which, why and what to do."""


@dataclass(frozen=True)
class Volume:
    """Voxels (K, J, I), in color (K, J, I, channels), and the matrix (4, 4) from IJK to RAS in millimeters."""

    voxels: np.ndarray
    ijk_to_ras: np.ndarray
    name: str

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimeters between voxel centers, IJK order."""
        i, j, k = np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @property
    def dimensions(self) -> tuple[int, int, int]:
        """Number of voxels, IJK order."""
        k, j, i = self.voxels.shape[:3]
        return i, j, k


def read_volume(path: Path) -> Volume:
    """Read a volume.

    :param path: an NRRD, NIfTI or MetaImage file, any other image that ITK reads (2-D ones become one slice), a folder
        that holds one DICOM series, or one file of a DICOM series, which stands for the whole of it.
    :raises FileError: if there is no such file, or it holds no image, more than one, or one that is not 3-D.
    """
    path = Path(path)
    image = _read_dicom(path) if path.is_dir() or is_dicom(path) else read_image(path)
    dimension, size = image.GetDimension(), image.GetSize()
    if dimension == 4 and size[3] == 1:
        image, dimension = image[:, :, :, 0], 3
    if dimension == 2:
        image, dimension = sitk.JoinSeries(image), 3
    if dimension != 3:
        raise FileError(
            f"{path} has {dimension} dimensions, {' x '.join(map(str, size))} voxels: "
            "save one 3-D volume (one time point) of it and give that."
        )
    if "complex" in image.GetPixelIDTypeAsString():
        raise FileError(f"{path} has complex values: save their magnitude and give that.")
    ijk_to_lps = np.eye(4)
    ijk_to_lps[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    ijk_to_lps[:3, 3] = image.GetOrigin()
    return Volume(sitk.GetArrayFromImage(image), _LPS_TO_RAS @ ijk_to_lps, stem(path))


def write_labelmap(path: Path, labels: np.ndarray, ijk_to_ras: np.ndarray) -> None:
    """Write a label map (K, J, I), compressed; the file is either whole or not there.

    :raises FileError: if it can't be written, or is not the same when it is read again.
    """
    image = sitk.GetImageFromArray(labels)
    ijk_to_lps = _LPS_TO_RAS @ ijk_to_ras
    spacing = np.linalg.norm(ijk_to_lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((ijk_to_lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(ijk_to_lps[:3, 3].tolist())
    with atomic_output(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
        except RuntimeError as error:
            raise FileError(f"{path} can't be written: {_reason(error)}.") from error
        # ITK's writers say nothing when the disk is full.
        try:
            whole = np.array_equal(sitk.GetArrayFromImage(read_image(temporary)), labels)
        except FileError:
            whole = False
        if not whole:
            raise FileError(f"{path} could not be written: is the disk full?")


@contextlib.contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """Give a temporary path with the same ending, and move it to ``path`` only if the block ends well.

    An interrupted or failed write leaves neither a half-written file nor a temporary one, and keeps an older file.

    :raises OSError: if the folder can't be written to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A folder of its own: some writers put further files beside the one they are told.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".medsam-") as folder:
        temporary = Path(folder) / path.name
        yield temporary
        if not temporary.is_file() or temporary.stat().st_size == 0:
            raise OSError(f"{path} could not be written: is the disk full, or the folder {path.parent} read-only?")
        temporary.replace(path)


def stem(path: Path) -> str:
    """Name a file without its folder and endings: ``CT.nii.gz`` -> ``CT``."""
    name = path.absolute().name
    for ending in (".seg.nrrd", ".nii.gz", ".mrk.json", path.suffix):
        if ending and name.lower().endswith(ending.lower()):
            return name[: -len(ending)]
    return name


def read_image(path: Path) -> sitk.Image:
    """Read a file as ITK does.

    :raises FileError: if there is no such file, it is empty, or no image.
    """
    if not path.exists():
        raise FileError(f"{path} does not exist: check the path.")
    if path.stat().st_size == 0:
        raise FileError(f"{path} is empty: copy or download it again.")
    if path.name.lower().endswith((".nii", ".nii.gz")):
        _check_nifti(path)
    try:
        return sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise FileError(
            f"{path} can't be read as an image ({_reason(error)}): "
            "it is damaged, or no NRRD, NIfTI, MetaImage or DICOM file."
        ) from error


def _check_nifti(path: Path) -> None:
    """Refuse a NIfTI file that is cut off or damaged: ITK says nothing and puts zeros where voxels are missing."""
    with path.open("rb") as plain:
        compressed = plain.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path, "rb") if compressed else path.open("rb") as file:
            header = file.read(348)
            size = file.seek(0, os.SEEK_END)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FileError(f"{path} is cut off or damaged ({error}): copy or download it again.") from error
    # NIfTI-1 as nifti1.h lays it out, in either byte order; ITK itself tells what is no NIfTI file.
    for order in "<>":
        if len(header) == 348 and struct.unpack_from(f"{order}i", header)[0] == 348:
            count, *sizes = struct.unpack_from(f"{order}8h", header, 40)
            (bits,) = struct.unpack_from(f"{order}h", header, 72)
            (start,) = struct.unpack_from(f"{order}f", header, 108)
            expected = int(start) + math.prod(sizes[:count]) * bits // 8
            if header[344:347] == b"n+1" and size < expected:
                raise FileError(f"{path} is cut off: it has {size} of {expected} bytes. Copy or download it again.")


def is_dicom(path: Path) -> bool:
    """Tell whether a file has DICOM's magic word."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _read_dicom(path: Path) -> sitk.Image:
    """Read the DICOM series that a folder holds, or that a file belongs to."""
    folder = path if path.is_dir() else path.resolve().parent
    reader = sitk.ImageSeriesReader()
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # What it finds missing we tell ourselves.
    series = {uid: reader.GetGDCMSeriesFileNames(str(folder), uid) for uid in reader.GetGDCMSeriesIDs(str(folder))}
    sitk.ProcessObject.SetGlobalWarningDisplay(shown)
    if path.is_file():
        wanted = str(path.resolve())
        series = {
            uid: files for uid, files in series.items() if wanted in (str(Path(file).resolve()) for file in files)
        }
        if not series:
            return read_image(path)
    if not series:
        raise FileError(
            f"The folder {path} holds no DICOM series: give the folder that has the image files directly in it."
        )
    if len(series) > 1:
        found = "; ".join(f"{len(files)} images such as {Path(files[0]).name}" for files in series.values())
        raise FileError(
            f"The folder {path} holds {len(series)} DICOM series ({found}): give one file of the series you want."
        )
    (files,) = series.values()
    if len(files) > 1:
        _check_spacing(path, files)
    reader.SetFileNames(files)
    try:
        return reader.Execute()
    except RuntimeError as error:
        raise FileError(f"The DICOM series in {folder} can't be read: {_reason(error)}.") from error


def _check_spacing(path: Path, files: tuple[str, ...]) -> None:
    """Refuse a series with a missing slice: ITK would place all slices after it wrongly."""
    positions = []
    for file in files:
        header = sitk.ImageFileReader()
        header.SetFileName(file)
        header.ReadImageInformation()
        direction = np.array(header.GetDirection()).reshape(header.GetDimension(), -1)
        origin = np.array(header.GetOrigin())
        if len(origin) < 3:
            return
        positions.append(float(origin[:3] @ np.cross(direction[:3, 0], direction[:3, 1])))
    gaps = np.diff(positions)
    usual = float(np.median(gaps))
    odd = np.flatnonzero(np.abs(gaps - usual) > abs(usual) * _SPACING_TOLERANCE + 1e-3)
    if odd.size:
        raise FileError(
            f"The DICOM series {path} is not evenly spaced: {gaps[odd[0]]:g} mm between {Path(files[odd[0]]).name} and "
            f"{Path(files[odd[0] + 1]).name}, else {usual:g} mm. Is a slice missing? Load it in Slicer, which can "
            "regularize it, and save it as NRRD."
        )


def _reason(error: RuntimeError) -> str:
    """Find the sentence that matters in one of ITK's multi-line errors."""
    # "Reason:" is the system's last error, which is often an older one.
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith("Reason:")]
    if not lines:
        return "no reason given"
    return re.sub("^(sitk::ERROR|ITK ERROR): ", "", lines[-1]).split("): ")[-1].rstrip(".")[:200]
