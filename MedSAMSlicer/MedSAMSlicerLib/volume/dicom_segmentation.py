"""DICOM segmentations as masks in the voxels of the image series that they were drawn on.

The format: DICOM PS3.3, A.51 Segmentation IOD and C.7.6.16 Multi-frame Functional Groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from MedSAMSlicerLib.volume.files import FileError, Volume, is_dicom

if TYPE_CHECKING:
    import pydicom

_SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
# In voxels: how far a frame may lie beside the voxels of the image. Positions and directions are rounded decimals, and
# slices of a series may lie a little off the regular grid that is made of them.
_TOLERANCE = 0.1


@dataclass(frozen=True)
class DicomSegment:
    """A segment: its number and name in the file, and its mask, bool (K, J, I), in the voxels of the image."""

    number: int
    name: str
    mask: np.ndarray


@dataclass(frozen=True)
class _Frame:
    """One slice of one segment.

    :param pixels: bool (rows, columns).
    :param to_ras: (3, 3) from (column, row, 1) to RAS in millimeters.
    """

    segment: int
    pixels: np.ndarray
    to_ras: np.ndarray


def read_dicom_segmentation(path: Path, volume: Volume) -> list[DicomSegment]:
    """Read all segments of a DICOM segmentation, binary or fractional (from one half of its maximum).

    Its frames may come in any order and orientation, and slices without a frame are empty. Segments may overlap. Of all
    that the file tells of the patient nothing is kept.

    :param path: the file, or a folder that holds no other one.
    :param volume: the image that it was drawn on.
    :raises FileError: if it is no DICOM segmentation, damaged, or drawn on another voxel grid than the image.
    :raises ModuleNotFoundError: if pydicom is not installed.
    """
    path = _only_file(Path(path))
    dataset = _read(path)
    try:
        names = {int(entry.SegmentNumber): str(entry.SegmentLabel) for entry in dataset.SegmentSequence}
        masks = {number: np.zeros(volume.voxels.shape[:3], dtype=bool) for number in names}
        for frame in _frames(dataset):
            i, j, k = _place(path, frame, names[frame.segment], volume)
            masks[frame.segment][k, j, i] = True
    except FileError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        # So pydicom tells of what is missing or misspelt.
        raise FileError(f"{path} is damaged or incomplete ({error}): export the segmentation again.") from error
    return [DicomSegment(number, names[number], mask) for number, mask in masks.items()]


def _only_file(path: Path) -> Path:
    """Find the file of a segmentation, which may lie alone in a folder of its own, as archives give series."""
    if not path.is_dir():
        return path
    files = [file for file in sorted(path.iterdir()) if is_dicom(file)]
    if len(files) != 1:
        raise FileError(f"The folder {path} holds {len(files)} DICOM files: give the file of the segmentation.")
    return files[0]


def _read(path: Path) -> pydicom.Dataset:
    try:
        import pydicom
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{path} is a DICOM file, which pydicom reads: run pip install pydicom (Slicer has it), or give the "
            "labels as .seg.nrrd.",
            name="pydicom",
        ) from error
    try:
        dataset = pydicom.dcmread(path)
    except (pydicom.errors.InvalidDicomError, OSError, EOFError, LookupError, ValueError) as error:
        raise FileError(f"{path} can't be read ({error}): copy or download it again.") from error
    kind = dataset.get("SOPClassUID", "")
    if kind != _SEGMENTATION_STORAGE:
        raise FileError(
            f"{path} is no DICOM segmentation but of the kind {getattr(kind, 'name', kind)!r}: give a file of the kind "
            "'Segmentation Storage', or the labels as .seg.nrrd."
        )
    return dataset


def _frames(dataset: pydicom.Dataset) -> Iterator[_Frame]:
    """List the frames in which something is drawn."""
    least = float(dataset.MaximumFractionalValue) / 2 if dataset.SegmentationType == "FRACTIONAL" else 1
    if not least > 0:
        raise ValueError(f"its maximum of fractions is {dataset.MaximumFractionalValue}")
    try:
        stored = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    except (RuntimeError, NotImplementedError) as error:
        raise ValueError(f"its pixels can't be unpacked: {error}") from error
    shared = dataset.get("SharedFunctionalGroupsSequence", [])
    for own, pixels in zip(dataset.PerFrameFunctionalGroupsSequence, stored, strict=True):
        drawn = pixels >= least
        if not drawn.any():
            continue
        groups = [own, *shared]
        between_rows, between_columns = map(float, _group("PixelMeasuresSequence", groups).PixelSpacing)
        orientation = np.array(_group("PlaneOrientationSequence", groups).ImageOrientationPatient, dtype=float)
        origin = np.array(_group("PlanePositionSequence", groups).ImagePositionPatient, dtype=float)
        to_lps = np.column_stack([orientation[:3] * between_columns, orientation[3:] * between_rows, origin])
        segment = int(_group("SegmentIdentificationSequence", groups).ReferencedSegmentNumber)
        yield _Frame(segment, drawn, _LPS_TO_RAS @ to_lps)


def _group(name: str, groups: list[pydicom.Dataset]) -> pydicom.Dataset:
    """Find a functional group of a frame among its own and those that all frames share."""
    for each in groups:
        if name in each:
            return each[name].value[0]
    raise ValueError(f"a frame has no {name}")


def _place(path: Path, frame: _Frame, name: str, volume: Volume) -> np.ndarray:
    """Find the voxels of the image, (3, n) IJK, on which the drawn pixels of a frame lie.

    :raises FileError: if they lie beside the image or between its voxels.
    """
    to_voxels = np.linalg.inv(volume.ijk_to_ras)[:3] @ np.vstack([frame.to_ras, [0.0, 0.0, 1.0]])
    # The same grid, turned or not, has steps of whole voxels along two axes.
    turn = np.rint(to_voxels).astype(int)
    rows, columns = frame.pixels.shape
    drift = float((np.abs(to_voxels - turn) @ [columns - 1, rows - 1, 1]).max())
    position = ", ".join(f"{value:.6g}" for value in frame.to_ras[:, 2])
    if not np.array_equal(turn[:, :2].T @ turn[:, :2], np.eye(2)) or drift > _TOLERANCE:
        pixel = " x ".join(f"{length:.4g}" for length in np.linalg.norm(frame.to_ras[:, :2], axis=0))
        voxel = " x ".join(f"{length:.4g}" for length in volume.spacing)
        raise FileError(
            f"{path} was drawn on another voxel grid than the image: the slice of {name!r} at RAS {position} has "
            f"{columns} x {rows} pixels of {pixel} mm and lies up to {drift:.2g} voxels beside those of the image, "
            f"which measure {voxel} mm. Give the series that it was drawn on, or resample the segmentation to the "
            "image in Slicer and save it as .seg.nrrd."
        )
    drawn_rows, drawn_columns = np.nonzero(frame.pixels)
    voxels = turn @ [drawn_columns, drawn_rows, np.ones_like(drawn_rows)]
    beyond = (voxels < 0) | (voxels >= np.array(volume.dimensions)[:, None])
    if beyond.any():
        raise FileError(
            f"{path}: {name!r} reaches out of the image (along "
            f"{', '.join('IJK'[axis] for axis in np.flatnonzero(beyond.any(axis=1)))}, in the slice at RAS "
            f"{position}): is it the segmentation of another series, or is a part of the series missing?"
        )
    return voxels
