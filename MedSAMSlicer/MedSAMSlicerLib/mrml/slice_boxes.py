"""Boxes on one slice: ROIs that say where a structure is in one slice, and whose depth is found.

An ROI remembers that it is one, in an attribute that is saved with the scene, until its depth is set by anything but
this module: then it is a 3-D box like any other. Kept is a plane below the ROI's parent transforms, not the index of a
slice: Slicer may turn a volume around when it reads it again, and another volume may be chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer

from MedSAMSlicerLib.mrml.markups import world_corners
from MedSAMSlicerLib.mrml.transforms import matrix_from_numpy, node_to_world, numpy_from_matrix
from MedSAMSlicerLib.mrml.volumes import dimensions, ijk_to_world
from MedSAMSlicerLib.volume.geometry import MOST_OBLIQUE, box_corners, nearest_axis, roi_boxes, transform_points
from MedSAMSlicerLib.volume.key_slices import KeySlice

_ON_SLICE = "MedSAM.OnSlice"
# The depth of a box of which nothing is found yet, in slices: it lies in one of them only.
_THICKNESS = 0.5
# A depth that differs by less, as part of itself and of its place, was not set by anybody.
_SAME_DEPTH, _SAME_PLACE = 1e-2, 1e-6


@dataclass(frozen=True)
class _Place:
    """Where an ROI is along one of its axes, in millimeters below its parent transforms.

    :param axis: of the ROI, 0 to 2.
    :param normal: direction of this axis.
    :param low: where the ROI begins along the axis.
    :param high: where it ends.
    :param level: of the slice; NaN as long as no depth is found, where it is the ROI's middle.
    """

    axis: int
    normal: tuple[float, float, float]
    low: float
    high: float
    level: float = float("nan")

    @property
    def found(self) -> bool:
        """Return whether the ROI has the depth that was found from its slice."""
        return not np.isnan(self.level)


def is_on_slice(roi: slicer.vtkMRMLMarkupsROINode) -> bool:
    """Return whether an ROI is a box on one slice, and not a 3-D box whose ends hold."""
    return _place(roi) is not None


def has_depth(roi: slicer.vtkMRMLMarkupsROINode) -> bool:
    """Return whether an ROI is a box on one slice that has the depth that was found from there."""
    place = _place(roi)
    return place is not None and place.found


def make_3d(roi: slicer.vtkMRMLMarkupsROINode) -> None:
    """Make an ROI a 3-D box, as it is."""
    roi.SetAttribute(_ON_SLICE, None)


def lay(roi: slicer.vtkMRMLMarkupsROINode, volume: slicer.vtkMRMLVolumeNode, axis: int, index: int) -> None:
    """Make an ROI a box on one slice of a volume, of which nothing is found yet.

    :param axis: of the slice, 0 = I, 1 = J, 2 = K.
    :raises ValueError: if the ROI is turned against the slices, or the volume has no such slice.
    """
    across = _axis_across(roi, volume, axis)
    if not 0 <= index < dimensions(volume)[axis]:
        raise ValueError(_outside(roi, volume))
    _set_ends(roi, across, *_levels(roi, volume, across, axis, (index - _THICKNESS / 2, index + _THICKNESS / 2)))
    _remember(roi, _now(roi, across))


def show_found(roi: slicer.vtkMRMLMarkupsROINode, volume: slicer.vtkMRMLVolumeNode, first: int, last: int) -> None:
    """Give a box on one slice the depth that was found: it can be seen and dragged, and stays a box on this slice.

    :param first: of the slices along the axis of the box's own slice.
    """
    place = _place(roi)
    assert place is not None
    axis, index = slice_of(roi, volume)
    low, high, level = _levels(roi, volume, place.axis, axis, (first - 0.5, last + 0.5, index))
    _set_ends(roi, place.axis, low, high)
    now = _now(roi, place.axis)
    _remember(roi, _Place(now.axis, now.normal, now.low, now.high, level))


def slice_of(roi: slicer.vtkMRMLMarkupsROINode, volume: slicer.vtkMRMLVolumeNode) -> tuple[int, int]:
    """Find the slice of a volume that an ROI is a box on: its axis (0 = I, 1 = J, 2 = K) and its index.

    :raises ValueError: if the ROI is turned against all slices, or the slice lies outside of the volume.
    """
    place = _place(roi)
    if place is None:
        raise ValueError(f"The ROI {roi.GetName()!r} is a 3-D box: it has no slice of its own.")
    axis, angle = nearest_axis(np.linalg.inv(ijk_to_world(volume)), _to_world(roi)[:3, place.axis])
    if angle > MOST_OBLIQUE:
        raise ValueError(
            f"The ROI {roi.GetName()!r} is turned by {angle:.0f} degrees against the slices of the volume "
            f"{volume.GetName()!r}: make it a 3-D box (in the table of the module), or place it anew."
        )
    start, rise = _line(roi, volume, place.axis, axis)
    index = round(start + rise * (_level_of(place) - _middle(roi, place.axis)))
    if not 0 <= index < dimensions(volume)[axis]:
        raise ValueError(_outside(roi, volume))
    return axis, index


def key_on_slice(roi: slicer.vtkMRMLMarkupsROINode, volume: slicer.vtkMRMLVolumeNode) -> KeySlice:
    """Make a key slice of a box on one slice.

    :raises ValueError: as `slice_of` does, and if the box lies outside of its slice or is a single pixel.
    """
    axis, index = slice_of(roi, volume)
    place = _place(roi)
    assert place is not None
    world_corners(roi)  # refuses an ROI without a size, or under a non-linear transform
    half = np.array(roi.GetSize(), dtype=float) / 2
    lower, upper = -half, half
    lower[place.axis] = upper[place.axis] = _level_of(place) - _middle(roi, place.axis)
    to_ijk = np.linalg.inv(ijk_to_world(volume)) @ _to_world(roi)
    corners = transform_points(to_ijk, box_corners(lower, upper))
    corners[:, axis] = index
    return checked_key(axis, index, roi_boxes(corners, dimensions(volume), axis), roi.GetName(), volume.GetName())


def checked_key(axis: int, index: int, boxes: dict, name: str, volume_name: str) -> KeySlice:
    """Make a key slice of a box that a structure is followed from.

    :param boxes: of the slice, as `volume.geometry.roi_boxes` cuts them; none if the box lies outside.
    :raises ValueError: if it does, or is a single pixel.
    """
    if index not in boxes:
        raise ValueError(
            f"The box {name!r} lies outside of the volume {volume_name!r}: move it over the structure to segment."
        )
    box = boxes[index]
    if (box.x0, box.y0) == (box.x1, box.y1):
        raise ValueError(
            f"The box {name!r} on slice {'IJK'[axis]} {index} is a single pixel: draw it around the structure."
        )
    return KeySlice(axis, index, box)


def _place(roi: slicer.vtkMRMLMarkupsROINode) -> _Place | None:
    """Read what an ROI remembers; None for a 3-D box, also for one whose depth somebody has set since."""
    try:
        axis, *numbers = (float(word) for word in (roi.GetAttribute(_ON_SLICE) or "").split())
        x, y, z, low, high, level = numbers
    except ValueError:
        return None
    place = _Place(int(axis), (x, y, z), low, high, level)
    now = _now(roi, place.axis)
    if not np.allclose(place.normal, now.normal, atol=1e-3):
        return None
    close = _SAME_DEPTH * (high - low) + _SAME_PLACE * max(abs(low), abs(high))
    if place.found:
        return place if max(abs(now.low - low), abs(now.high - high)) < close else None
    # A flat box may be moved: it lies on another slice then.
    return now if abs((now.high - now.low) - (high - low)) < close else None


def _remember(roi: slicer.vtkMRMLMarkupsROINode, place: _Place) -> None:
    numbers = (*place.normal, place.low, place.high, place.level)
    roi.SetAttribute(_ON_SLICE, " ".join([str(place.axis), *(repr(float(number)) for number in numbers)]))


def _now(roi: slicer.vtkMRMLMarkupsROINode, axis: int) -> _Place:
    """Return where an ROI is along one of its axes."""
    x, y, z = numpy_from_matrix(roi.GetObjectToNodeMatrix())[:3, axis].tolist()
    middle, half = _middle(roi, axis), roi.GetSize()[axis] / 2
    return _Place(axis, (x, y, z), middle - half, middle + half)


def _middle(roi: slicer.vtkMRMLMarkupsROINode, axis: int) -> float:
    to_node = numpy_from_matrix(roi.GetObjectToNodeMatrix())
    return float(to_node[:3, axis] @ to_node[:3, 3])


def _level_of(place: _Place) -> float:
    return place.level if place.found else (place.low + place.high) / 2


def _to_world(roi: slicer.vtkMRMLMarkupsROINode) -> np.ndarray:
    """Return the matrix (4, 4) from an ROI's own coordinates to the world.

    Slicer's turns axes of a mirrored ROI around, which leaves the box what it is; here they are those of the node.
    """
    to_world = numpy_from_matrix(roi.GetObjectToWorldMatrix())
    expected = node_to_world(roi) @ numpy_from_matrix(roi.GetObjectToNodeMatrix())
    to_world[:3, :3] *= np.where((to_world * expected)[:3, :3].sum(axis=0) < 0, -1.0, 1.0)
    return to_world


def _axis_across(roi: slicer.vtkMRMLMarkupsROINode, volume: slicer.vtkMRMLVolumeNode, axis: int) -> int:
    """Find the axis of an ROI that runs across the slices of a volume."""
    to_ijk = np.linalg.inv(ijk_to_world(volume))
    angles = [
        angle if nearest == axis else 90.0
        for nearest, angle in (nearest_axis(to_ijk, direction) for direction in _to_world(roi)[:3, :3].T)
    ]
    across = int(np.argmin(angles))
    if angles[across] > MOST_OBLIQUE:
        raise ValueError(
            f"The ROI {roi.GetName()!r} is turned by more than {MOST_OBLIQUE:.0f} degrees against the slices of the "
            f"volume {volume.GetName()!r}, so that it is on none of them: leave it a 3-D box, or place it anew."
        )
    return across


def _line(
    roi: slicer.vtkMRMLMarkupsROINode, volume: slicer.vtkMRMLVolumeNode, across: int, axis: int
) -> tuple[float, float]:
    """Return the slice, not rounded, in which an ROI has its middle, and how it changes per millimeter of the ROI."""
    to_ijk = np.linalg.inv(ijk_to_world(volume)) @ _to_world(roi)
    return float(to_ijk[axis, 3]), float(to_ijk[axis, across])


def _levels(
    roi: slicer.vtkMRMLMarkupsROINode,
    volume: slicer.vtkMRMLVolumeNode,
    across: int,
    axis: int,
    indices: tuple[float, ...],
) -> list[float]:
    """Find where slices are along an ROI's axis, as `_Place` counts."""
    start, rise = _line(roi, volume, across, axis)
    return [_middle(roi, across) + (index - start) / rise for index in indices]


def _set_ends(roi: slicer.vtkMRMLMarkupsROINode, across: int, one: float, other: float) -> None:
    """Let an ROI reach from one level of its axis to another."""
    to_node = numpy_from_matrix(roi.GetObjectToNodeMatrix())
    to_node[:3, 3] += ((one + other) / 2 - _middle(roi, across)) * to_node[:3, across]
    size = list(roi.GetSize())
    size[across] = abs(other - one)
    # (In this order: the setting of a matrix that is not the node's own is one event, like that of the size.)
    roi.SetAndObserveObjectToNodeMatrix(matrix_from_numpy(to_node))
    roi.SetSize(*size)


def _outside(roi: slicer.vtkMRMLMarkupsROINode, volume: slicer.vtkMRMLVolumeNode) -> str:
    return (
        f"The slice of the ROI {roi.GetName()!r} lies outside of the volume {volume.GetName()!r}: "
        "move it over the structure to segment."
    )
