"""DICOM series as volumes: every slice lies where its own header says, or the file that doesn't fit is named."""

from __future__ import annotations

import contextlib
import ctypes
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from MedSAMSlicerLib.volume.dicom_frames import read_frames
from MedSAMSlicerLib.volume.dicom_planes import REMEDY, Plane, matrix_of, stack_planes
from MedSAMSlicerLib.volume.image_file import FileError, is_dicom, quiet, reason

_COPY = "Copy or download it again."

# Imager Pixel Spacing and Nominal Scanned Pixel Spacing, which GDCM takes for Pixel Spacing where they should be.
_DETECTOR_SPACINGS = ("0018|1164", "0018|2010")
_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
# Media storage SOP classes (DICOM PS3.4, B.5) of files that lie beside images and are none: directories, reports,
# presentation states, registrations, raw data, radiotherapy structures and plans, waveforms, documents.
_NO_IMAGES = re.compile(
    r"1\.2\.840\.10008\.(1\.3\.10|5\.1\.4\.1\.1\.(88|11|66|481\.[3-9]|9|104|67|68|78|79|90|4\.2)(\.|$)|5\.1\.4\.3[489])"
)


def read_dicom(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the DICOM series that a folder holds, or that a file belongs to.

    :return: voxels (K, J, I) or (K, J, I, channels), and the matrix (4, 4) from IJK to LPS, sheared if the gantry was
        tilted.
    :raises FileError: if there is no series or more than one, a file of it can't be read, or its slices are not one
        regular stack.
    """
    with quiet():
        return _read_dicom(path)


def _read_dicom(path: Path) -> tuple[np.ndarray, np.ndarray]:
    folder = path if path.is_dir() else path.resolve().parent
    files = _files(path, folder)
    _give_back()
    if len(files) == 1:
        return _read_single(files[0])
    headers = [_header(file) for file in files]
    for file, header in zip(files, headers, strict=True):
        if _frame_count(header) > 1:
            raise FileError(f"{file} is one of {len(files)} files of a series with several frames each. {REMEDY}")
    planes = [_plane(file, header) for file, header in zip(files, headers, strict=True)]
    order, ijk_to_lps = stack_planes(path, planes)
    kinds = [_numpy_type(header) for header in headers]
    columns, rows, channels = planes[0].size
    shape = (len(files), rows, columns) if channels == 1 else (len(files), rows, columns, channels)
    # Each slice by itself: every file has its own slope and intercept, and its own damage.
    voxels = np.empty(shape, dtype=np.result_type(*kinds))
    for k, number in enumerate(order):
        image = _read_slice(files[number])  # named, as a view does not keep it alive
        voxels[k] = sitk.GetArrayViewFromImage(image).reshape(shape[1:])
    return voxels, ijk_to_lps


def _files(path: Path, folder: Path) -> list[Path]:
    """List the files of the series, in no order."""
    reader = sitk.ImageSeriesReader()
    found = {uid: reader.GetGDCMSeriesFileNames(str(folder), uid) for uid in reader.GetGDCMSeriesIDs(str(folder))}
    series = {uid: [Path(file) for file in files] for uid, files in found.items()}
    if path.is_file():
        wanted = path.resolve()
        own = next((uid for uid, files in series.items() if wanted in [file.resolve() for file in files]), None)
        if own is None:
            return [path]
    elif len(series) > 1:
        held = "; ".join(f"{len(files)} images such as {files[0].name}" for files in series.values())
        raise FileError(
            f"The folder {path} holds {len(series)} DICOM series ({held}): give one file of the series you want."
        )
    else:
        own = next(iter(series), "")
    files = sorted(series.get(own, []))
    _refuse_unread(folder, own, files, {file.name for each in series.values() for file in each})
    if not files:
        raise FileError(
            f"The folder {path} holds no DICOM series: give the folder that has the image files directly in it."
        )
    return files


def _give_back() -> None:
    """Give the system what was freed: GDCM lists a series by reading all of it, and glibc would keep as much memory."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)


def _refuse_unread(folder: Path, uid: str, files: Sequence[Path], read: set[str]) -> None:
    """Refuse a folder with a file that seems to belong to a series but can't be read: a slice would be missing.

    GDCM passes such files over without a word.
    """
    endings = {file.suffix.lower() for file in files} - {""}
    patterns = {re.sub(r"\d+", "0", file.name) for file in files}
    for file in sorted(folder.iterdir()):
        # (macOS writes such a file beside every one that it copies to a foreign disk.)
        if file.name in read or file.name.startswith("._") or not file.is_file():
            continue
        with file.open("rb") as content:
            head = content.read(1 << 16)
        alike = file.suffix.lower() in endings or re.sub(r"\d+", "0", file.name) in patterns
        # Data elements (0002,0002) and (0020,000E), as any file has them that can be told to belong elsewhere.
        kind = re.search(rb"\x02\x00\x02\x00UI..([\d.]+)", head, re.DOTALL)
        series = re.search(rb"\x20\x00\x0e\x00(?:UI..|....)([\d.]+)", head, re.DOTALL)
        if (head[128:132] != b"DICM" and not alike) or (kind and _NO_IMAGES.match(kind[1].decode())):
            continue
        if not files or series is None or series[1].decode() == uid:
            what = "can't be read as an image: it is cut off, damaged, or none" if head else "is empty"
            raise FileError(
                f"{file} {what}. {_COPY} If it does not belong to the series, move it to another folder: without it a "
                "slice might be missing."
            )


def _read_single(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a series that is one file: one slice, or several frames."""
    header = _header(file)
    if (count := _frame_count(header)) > 1:
        return _read_frames(file, header, count)
    pixels = sitk.GetArrayFromImage(_read_slice(file))
    columns, rows, channels = _size(header)
    voxels = pixels.reshape((1, rows, columns) if channels == 1 else (1, rows, columns, channels))
    plane = _plane(file, header, alone=True)
    # A slice has no neighbor: its own thickness is all that is known of its third extent. A photograph has none at all.
    told = [*_numbers(file, header, "0018|0050"), *_numbers(file, header, "0018|0088")]
    thickness = next((value for value in told if 0 < value < np.inf), 1.0)
    return voxels, matrix_of(plane.axes * plane.spacing, plane.normal * thickness, plane.position)


def _read_frames(file: Path, header: sitk.ImageFileReader, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Read a file of several frames, each of which may tell its own place."""
    try:
        frames, whole = read_frames(file)
    except ValueError as error:
        raise FileError(f"{file} can't be read: {error}. {REMEDY}") from error
    if whole < count:
        raise FileError(f"{file} should have {count} frames, but its pixels suffice for {whole} only. {_COPY}")
    if frames and len(frames) != count:
        raise FileError(f"{file} has {count} frames, but tells the place of {len(frames)}. {REMEDY}")
    if len({frame.rescale for frame in frames}) > 1:
        raise FileError(f"{file} has frames of different slope or intercept. {REMEDY}")
    planes = []
    for number, frame in enumerate(frames, start=1):
        if frame.position is None or frame.orientation is None or frame.spacing is None:
            raise FileError(f"{file} does not tell where its frame {number} lies. {REMEDY}")
        name = f"frame {number}"
        planes.append(_placed(file, name, _size(header), frame.orientation, frame.spacing[::-1], frame.position))
    if not frames:
        planes = _offset_planes(file, header, count)
    order, ijk_to_lps = stack_planes(file, planes)
    voxels = sitk.GetArrayFromImage(_read_pixels(file))
    return voxels if np.array_equal(order, np.arange(count)) else voxels[order], ijk_to_lps


def _offset_planes(file: Path, header: sitk.ImageFileReader, count: int) -> list[Plane]:
    """Find the frames of a dose or of nuclear medicine, which have one place and distances from it."""
    first = _plane(file, header)
    offsets = _numbers(file, header, "3004|000c")
    if not offsets and (between := _numbers(file, header, "0018|0088")):
        slices = _numbers(file, header, "0054|0081")
        offsets = tuple(between[0] * n for n in range(count)) if not slices or slices[0] == count else ()
    if len(offsets) != count:
        raise FileError(f"{file} has {count} frames and does not tell where they lie (are they a film?). {REMEDY}")
    return [
        Plane(f"frame {n}", first.size, first.axes, first.spacing, first.position + offset * first.normal)
        for n, offset in enumerate(offsets, start=1)
    ]


def _header(file: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise FileError(f"{file} can't be read as a DICOM image ({reason(error)}). {_COPY}") from error
    if reader.HasMetaDataKey("0008|0016") and reader.GetMetaData("0008|0016").strip(" \0") == _SEGMENTATION:
        raise FileError(f"{file} is a DICOM segmentation and no image: give the series that it was drawn on.")
    return reader


def _read_slice(file: Path) -> sitk.Image:
    """Read the pixels of a file that is one slice; where there are too few, GDCM would make the rest up."""
    whole = 1
    with contextlib.suppress(ValueError):
        whole = read_frames(file)[1]
    if whole < 1:
        raise FileError(f"{file} has too few pixels for its rows and columns. {_COPY}")
    return _read_pixels(file)


def _read_pixels(file: Path) -> sitk.Image:
    try:
        return sitk.ReadImage(str(file), imageIO="GDCMImageIO")
    except RuntimeError as error:
        raise FileError(f"The pixels of {file} can't be read ({reason(error)}). {_COPY}") from error


def _plane(file: Path, header: sitk.ImageFileReader, *, alone: bool = False) -> Plane:
    """Read where the one slice of a file lies; a picture that is alone need not tell."""
    position, orientation = _numbers(file, header, "0020|0032"), _numbers(file, header, "0020|0037")
    spacing = _numbers(file, header, "0028|0030")[::-1]
    if not spacing and any(header.HasMetaDataKey(tag) for tag in _DETECTOR_SPACINGS):
        spacing = header.GetSpacing()[:2]
    if not (position and orientation and spacing) and is_dicom(file):
        # The "enhanced" kinds tell it by frame, also of a single one.
        with contextlib.suppress(ValueError):
            for frame in read_frames(file)[0][:1]:
                position, orientation = position or frame.position or (), orientation or frame.orientation or ()
                spacing = spacing or (frame.spacing or ())[::-1]
    if alone:
        position, orientation, spacing = position or (0, 0, 0), orientation or (1, 0, 0, 0, 1, 0), spacing or (1, 1)
    if not (position and orientation and spacing):
        lacking = [
            name
            for name, found in (
                ("Image Position (Patient)", position),
                ("Image Orientation (Patient)", orientation),
                ("Pixel Spacing", spacing),
            )
            if not found
        ]
        raise FileError(f"{file} does not tell where it lies (it has no {' and no '.join(lacking)}). {REMEDY}")
    return _placed(file, file.name, _size(header), orientation, spacing, position)


def _placed(
    file: Path,
    name: str,
    size: tuple[int, int, int],
    orientation: Sequence[float],
    spacing: Sequence[float],
    position: Sequence[float],
) -> Plane:
    """Check the numbers that place a slice; the spacing is that between columns, then between rows."""
    told = {"orientation": (orientation, 6), "pixel spacing": (spacing, 2), "position": (position, 3)}
    for what, (values, count) in told.items():
        if len(values) != count or not np.isfinite(values).all():
            raise FileError(f"{file} has the {what} {values} in {name}, which are not {count} numbers. {REMEDY}")
    axes = np.reshape(orientation, (2, 3)).T.astype(float)
    if not np.allclose(axes.T @ axes, np.eye(2), atol=1e-2) or min(spacing) <= 0:
        raise FileError(f"{file} has no valid orientation or spacing in {name} ({orientation}, {spacing}). {REMEDY}")
    axes[:, 0] /= np.linalg.norm(axes[:, 0])
    axes[:, 1] -= axes[:, 0] * (axes[:, 0] @ axes[:, 1])
    axes[:, 1] /= np.linalg.norm(axes[:, 1])
    return Plane(name, size, axes, np.array(spacing, dtype=float), np.array(position, dtype=float))


def _size(header: sitk.ImageFileReader) -> tuple[int, int, int]:
    columns, rows = header.GetSize()[:2]
    return columns, rows, header.GetNumberOfComponents()


def _frame_count(header: sitk.ImageFileReader) -> int:
    size = header.GetSize()
    return int(size[2]) if len(size) > 2 else 1


def _numpy_type(header: sitk.ImageFileReader) -> np.dtype:
    pixel = sitk.Image([1, 1], header.GetPixelID(), header.GetNumberOfComponents())
    return sitk.GetArrayViewFromImage(pixel).dtype


def _numbers(file: Path, header: sitk.ImageFileReader, tag: str) -> tuple[float, ...]:
    """Read the decimals of an element; none if it is missing or empty."""
    text = header.GetMetaData(tag).strip(" \0") if header.HasMetaDataKey(tag) else ""
    try:
        return tuple(float(part) for part in text.split("\\")) if text else ()
    except ValueError as error:
        raise FileError(
            f"{file} has {text!r} for numbers in its element ({tag.replace('|', ',')}). {REMEDY}"
        ) from error
