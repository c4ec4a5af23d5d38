"""The slices of a DICOM series as one regular stack, upright or sheared, or which of them does not fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from MedSAMSlicerLib.volume.image_file import FileError

# In parts of the usual gap: by how much gaps between slices may differ (Slicer's DICOM plugin: 1 %).
_GAP_TOLERANCE = 0.01
# In millimeters: nearer ones lie at the same place. Positions are rounded decimals.
_SAME_PLACE = 1e-3
# In voxels: how far a slice may lie beside the line through all of them.
_OFF_LINE = 0.1
# In pixels, over all slices together: less than this is rounding, more is a tilted gantry.
_TILT = 0.05
# In radians: how much the directions of slices may differ, which are rounded decimals, too.
_TURN = 1e-3
REMEDY = "Load it in Slicer, choose or regularize one volume there, save it as NRRD, and give that."


@dataclass(frozen=True)
class Plane:
    """A slice as its file tells of it.

    :param name: of the file, with the frame where it has several.
    :param size: columns, rows and values per pixel.
    :param axes: (3, 2) directions along a row and along a column, LPS.
    :param spacing: millimeters between columns, then between rows.
    :param position: (3,) of the first pixel's center, LPS, in millimeters.
    """

    name: str
    size: tuple[int, int, int]
    axes: np.ndarray
    spacing: np.ndarray
    position: np.ndarray

    @property
    def normal(self) -> np.ndarray:
        """Return the direction in which slices are stacked."""
        return np.cross(self.axes[:, 0], self.axes[:, 1])


def stack_planes(path: Path, planes: Sequence[Plane]) -> tuple[np.ndarray, np.ndarray]:
    """Sort slices along their normal and find the matrix from IJK to LPS that places all of them.

    :raises FileError: if there is none.
    """
    first = planes[0]
    for plane in planes[1:]:
        if plane.size != first.size:
            raise _differs(path, "size", (plane, first), (plane.size[:2], first.size[:2]))
        if np.abs(plane.axes - first.axes).max() > _TURN:
            raise _differs(path, "orientation", (plane, first), (plane.axes.T.ravel(), first.axes.T.ravel()))
        if not np.allclose(plane.spacing, first.spacing, rtol=1e-4):
            raise _differs(path, "pixel spacing", (plane, first), (plane.spacing, first.spacing))
    positions = np.array([plane.position for plane in planes])
    normal = first.normal
    order = np.argsort(positions @ normal, kind="stable")
    names, positions = [planes[number].name for number in order], positions[order]
    _check_gaps(path, names, np.diff(positions @ normal))
    step = _check_line(path, names, positions, first)
    return order, matrix_of(first.axes * first.spacing, step, positions[0])


def _check_gaps(path: Path, names: Sequence[str], gaps: np.ndarray) -> None:
    """Refuse slices that share a place, or of which one is missing: those after it would lie wrongly."""
    if (same := np.flatnonzero(gaps < _SAME_PLACE)).size:
        raise FileError(
            f"The DICOM series {path} has several images at one position ({names[same[0]]} and {names[same[0] + 1]}, "
            f"and {same.size - 1} more): it holds copies, or several phases or echoes. Move all but one of them to "
            f"another folder. Or: {REMEDY}"
        )
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])  # of a few, the smaller one: a missing slice makes a gap larger
    odd = np.flatnonzero(np.abs(gaps - usual) > usual * _GAP_TOLERANCE + _SAME_PLACE)
    if odd.size:
        raise FileError(
            f"The DICOM series {path} is not evenly spaced: {gaps[odd[0]]:g} mm between {names[odd[0]]} and "
            f"{names[odd[0] + 1]}, else {usual:g} mm. Is a slice missing? {REMEDY}"
        )


def _check_line(path: Path, names: Sequence[str], positions: np.ndarray, plane: Plane) -> np.ndarray:
    """Find the step from slice to slice, (3,) in millimeters; refuse slices that are shifted in their own plane."""
    numbers = np.arange(len(positions))[:, None]
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    gap = float(step @ plane.normal)
    units = np.column_stack([plane.axes * (1 / plane.spacing), plane.normal / gap])
    drift = step - gap * plane.normal
    off = np.abs((positions - positions[0] - numbers * step) @ units).max(axis=1)
    if off.max() > _OFF_LINE:
        # Which one it is, the usual step tells better than one to the last slice, which may be the wrong one.
        usual = np.median(np.diff(positions, axis=0), axis=0)
        rest = positions - numbers * usual
        beside = np.linalg.norm(rest - np.median(rest, axis=0), axis=1)
        worst = int(beside.argmax())
        raise FileError(
            f"The DICOM series {path} is no regular stack: {names[worst]} lies {beside[worst] or off.max():.3g} mm "
            f"beside the line through the other slices. {REMEDY}"
        )
    if float(np.linalg.norm(drift)) > gap:
        raise FileError(
            f"The DICOM series {path} is no regular stack: from slice to slice it moves {np.linalg.norm(drift):.3g} mm "
            f"aside and {gap:.3g} mm up, which is no tilt of a gantry. {REMEDY}"
        )
    tilted = float(np.abs(drift @ units).max()) * len(positions) > _TILT
    return step if tilted else gap * plane.normal


def _differs(path: Path, what: str, planes: tuple[Plane, Plane], numbers: tuple[Iterable[float], ...]) -> FileError:
    one, other = (
        f"{plane.name} has {' x '.join(f'{value:.6g}' for value in values)}"
        for plane, values in zip(planes, numbers, strict=True)
    )
    return FileError(
        f"The DICOM series {path} has images of different {what}: {one}, {other}. Move those that don't belong to the "
        f"stack, such as a localizer, to another folder. Or: {REMEDY}"
    )


def matrix_of(in_plane: np.ndarray, step: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Make the matrix from IJK of its columns: (3, 2), (3,) and (3,), in millimeters."""
    matrix = np.eye(4)
    matrix[:3, :2], matrix[:3, 2], matrix[:3, 3] = in_plane, step, origin
    return matrix
