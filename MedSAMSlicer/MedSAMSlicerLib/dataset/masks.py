"""The labels of a case in one file: a segmentation that Slicer opens, brought to the voxels of the image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from MedSAMSlicerLib.volume.dicom_segmentation import read_dicom_segmentation
from MedSAMSlicerLib.volume.files import FileError, Volume, is_dicom, write_labelmap
from MedSAMSlicerLib.volume.geometry import bounding_box
from MedSAMSlicerLib.volume.labels import Labels, read_labels

# In voxels: how far the voxel centers of two files that mean the same grid may be apart.
_TOLERANCE = 0.01

_COLORS = (
    "0.9 0.62 0",
    "0.34 0.71 0.91",
    "0 0.62 0.45",
    "0.8 0.47 0.65",
    "0.94 0.89 0.26",
    "0.84 0.37 0",
    "0 0.45 0.7",
)


def write_masks(path: Path, masks: Mapping[str, np.ndarray], ijk_to_ras: np.ndarray) -> None:
    """Write masks as a segmentation ``.seg.nrrd``; those that overlap go to layers of their own, as in Slicer.

    :param masks: name -> bool (K, J, I), at least one, all of one shape.
    :raises FileError: if the file can't be written.
    """
    layers: list[np.ndarray] = []
    lines = ["Segmentation_MasterRepresentation:=Binary labelmap"]
    for number, (name, mask) in enumerate(masks.items()):
        layer = next((n for n, values in enumerate(layers) if not values[mask].any()), len(layers))
        if layer == len(layers):
            layers.append(np.zeros(mask.shape, dtype=np.uint8 if len(masks) < 256 else np.uint16))
        layers[layer][mask] = number + 1
        (i0, j0, k0), (i1, j1, k1) = bounding_box(mask)
        entries = {
            "ID": f"Segment_{number + 1}",
            "Name": name,
            "Color": _COLORS[number % len(_COLORS)],
            "Extent": f"{i0} {i1} {j0} {j1} {k0} {k1}",
            "LabelValue": number + 1,
            "Layer": layer,
        }
        lines += [f"Segment{number}_{key}:={value}" for key, value in entries.items()]
    write_labelmap(path, np.stack(layers, axis=-1) if len(layers) > 1 else layers[0], ijk_to_ras)
    # The header of an NRRD file is text up to the first empty line.
    header, voxels = path.read_bytes().split(b"\n\n", 1)
    try:
        path.write_bytes(b"\n".join([header, *(line.encode() for line in lines)]) + b"\n\n" + voxels)
    except OSError as error:
        raise FileError(f"{path} could not be written ({error.strerror}): is the disk full?") from error


def read_masks(
    path: Path, volume: Volume, names: Mapping[int, str] | None = None
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Read the labels of a file in the voxels of a volume.

    The file has the volume's grid, or a part of it, as Slicer saves a segmentation that is cropped to its segments; or
    it is a DICOM segmentation of the volume (see `volume.dicom_segmentation`).

    :param names: label -> name, for files that have none; others are called "label 1" and so on.
    :return: name -> bool (K, J, I); and the names of labels that are empty, which are left out.
    :raises FileError: if the file can't be read, was drawn on another grid, has a label that reaches out of the image,
        or two labels of one name.
    :raises ModuleNotFoundError: if it is a DICOM segmentation, and pydicom is not installed.
    """
    parts, offset = _parts(path, volume)
    masks: dict[str, np.ndarray] = {}
    empty = []
    for value, own_name, part in parts:
        name = (names or {}).get(value) or own_name or f"label {value}"
        if name in masks or name in empty:
            raise FileError(f"{path} has two labels that are called {name!r}: rename one of them.")
        if not part.any():
            empty.append(name)
            continue
        first, last = (np.array(corner) + offset for corner in bounding_box(part))
        outside = [axis for axis in range(3) if first[axis] < 0 or last[axis] >= volume.dimensions[axis]]
        if outside:
            raise FileError(
                f"{path}: {name!r} reaches out of the image (along {', '.join('IJK'[axis] for axis in outside)}): "
                "is it the segmentation of another image?"
            )
        masks[name] = np.zeros(volume.voxels.shape[:3], dtype=bool)
        found = np.nonzero(part)
        masks[name][tuple(indices + offset[2 - axis] for axis, indices in enumerate(found))] = True
    return masks, empty


def _parts(path: Path, volume: Volume) -> tuple[Iterable[tuple[int, str, np.ndarray]], np.ndarray]:
    """Read number, name (or "") and mask of each label, and the voxel of the volume, IJK, at which the masks begin."""
    if path.is_dir() or is_dicom(path):
        segments = read_dicom_segmentation(path, volume)
        return [(segment.number, segment.name, segment.mask) for segment in segments], np.zeros(3, dtype=int)
    labels = read_labels(path)
    if labels.seem_an_image():
        raise FileError(f"{path} has {len(labels.places)} different values: is it an image instead of a label map?")
    offset = _offset(path, labels, volume)
    return ((value, labels.names.get(value, ""), labels.mask(value)) for value in labels.values()), offset


def _offset(path: Path, labels: Labels, volume: Volume) -> np.ndarray:
    """Find the voxel of the volume, IJK, at which a file of labels begins."""
    grid = labels.layers[0]
    to_ras = np.eye(4)
    flip = np.diag([-1.0, -1.0, 1.0])
    to_ras[:3, :3] = flip @ np.array(grid.GetDirection()).reshape(3, 3) * grid.GetSpacing()
    to_ras[:3, 3] = flip @ grid.GetOrigin()
    to_volume = np.linalg.inv(volume.ijk_to_ras) @ to_ras
    offset = np.rint(to_volume[:3, 3])
    # Where the last voxel lands tells how far two grids drift apart that begin at the same place.
    last = np.array(grid.GetSize()) - 1
    drift = np.abs(to_volume[:3, :3] - np.eye(3)) @ last + np.abs(to_volume[:3, 3] - offset)
    same_size = tuple(grid.GetSize()) == volume.dimensions
    if drift.max() > _TOLERANCE or (same_size and offset.any()):
        remedy = "resample it to the image in Slicer (Segmentations, reference volume) and save it again"
        if same_size:
            remedy = (
                f"it has as many voxels as the image, so one of the files may have lost its position; else {remedy}"
            )
        raise FileError(f"{path} was drawn on another voxel grid than the image: {remedy}.")
    return offset.astype(int)
