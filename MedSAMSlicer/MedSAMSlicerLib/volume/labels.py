"""Label maps and segmentation files as masks, for evaluation and training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from MedSAMSlicerLib.volume.files import FileError, read_image

# Atlases of the whole brain have some 200 labels; an image has as many values, or more.
_MOST_LABELS = 500


@dataclass(frozen=True)
class Labels:
    """The labels of a file: one or more layers, (K, J, I) integers each, as Slicer stores segments that overlap.

    :param places: label -> (layer, value there). A plain label map has one layer, and every label is its own value.
    :param names: label -> name, as far as the file has names.
    :param tags: label -> the segment's tags, as Slicer writes them: ``name:text|`` for each.
    """

    layers: tuple[sitk.Image, ...]
    places: dict[int, tuple[int, int]]
    names: dict[int, str]
    tags: dict[int, str] = field(default_factory=dict)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimeters, IJK order."""
        i, j, k = self.layers[0].GetSpacing()
        return i, j, k

    def values(self) -> list[int]:
        """List the labels, ascending."""
        return sorted(self.places)

    def seem_an_image(self) -> bool:
        """Tell whether there are more labels than anybody draws."""
        return len(self.places) > _MOST_LABELS

    def mask(self, label: int) -> np.ndarray:
        """Return one label as bool (K, J, I); all False if there is none of it."""
        layer, value = self.places.get(label, (0, None))
        array = sitk.GetArrayViewFromImage(self.layers[layer])
        return np.zeros(array.shape, dtype=bool) if value is None else array == value

    def indices(self, label: int, ijk_to_ras: np.ndarray) -> np.ndarray:
        """List the voxels of another grid that hold the centers of a label's voxels: (N, 3) IJK.

        :param ijk_to_ras: (4, 4), of the other grid.
        """
        image = self.layers[0]
        axes = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
        points = np.argwhere(self.mask(label))[:, ::-1] @ axes.T + image.GetOrigin()
        to_ijk = np.linalg.inv(ijk_to_ras)
        return np.rint(points * (-1, -1, 1) @ to_ijk[:3, :3].T + to_ijk[:3, 3]).astype(int)

    def same_grid(self, other: Labels) -> bool:
        """Tell whether the voxels of both are at the same places, within a thousandth of a millimeter."""
        mine, its = self.layers[0], other.layers[0]
        return mine.GetSize() == its.GetSize() and all(
            np.allclose(getattr(mine, part)(), getattr(its, part)(), atol=1e-3, rtol=0)
            for part in ("GetOrigin", "GetSpacing", "GetDirection")
        )

    def overlaps(self, other: Labels) -> bool:
        """Tell whether a voxel of the other grid lies in this one."""
        ones = sitk.Image(self.layers[0].GetSize(), sitk.sitkUInt8) + 1
        ones.CopyInformation(self.layers[0])
        found = sitk.Resample(ones, other.layers[0], sitk.Transform(), sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8)
        return bool(sitk.GetArrayViewFromImage(found).any())

    def resampled_to(self, other: Labels) -> Labels:
        """Bring the labels to another grid, by nearest neighbor."""
        layers = tuple(
            sitk.Resample(layer, other.layers[0], sitk.Transform(), sitk.sitkNearestNeighbor, 0)
            for layer in self.layers
        )
        return Labels(layers, self.places, self.names)


def read_labels(path: Path) -> Labels:
    """Read a label map, or a segmentation that Slicer saved as ``.seg.nrrd``.

    In a ``.seg.nrrd`` the labels are 1, 2, ... in the order of its segments, whatever their values and layers there.
    One that is cropped to its segments comes back in all voxels of the image that it was drawn on.

    :raises FileError: if it can't be read, is not 3-D or has values that are no whole numbers.
    """
    if Path(path).is_dir():
        raise FileError(f"{path} is a folder: give a label map or a .seg.nrrd.")
    image = read_image(Path(path))
    if image.GetDimension() != 3:
        raise FileError(f"{path} has {image.GetDimension()} dimensions: a label map has 3.")
    count = image.GetNumberOfComponentsPerPixel()
    layers = tuple(sitk.VectorIndexSelectionCast(image, n) for n in range(count)) if count > 1 else (image,)
    arrays = [sitk.GetArrayViewFromImage(layer) for layer in layers]
    if any(array.dtype.kind == "f" and not (np.isfinite(array) & (array == np.floor(array))).all() for array in arrays):
        raise FileError(f"{path} has values that are no whole numbers: is it an image instead of a label map?")
    tags = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}
    places, names = _segments(Path(path), tags, count)
    if not places:
        if count > 1:
            raise FileError(f"{path} has {count} values per voxel: a label map has one.")
        if arrays[0].size and arrays[0].min() < 0:
            raise FileError(f"{path} has negative values: is it an image instead of a label map?")
        places = {int(value): (0, int(value)) for value in np.unique(arrays[0]) if value != 0}
    margins = _cropped_margins(image, tags)
    if any(sum(margins, ())):
        layers = tuple(sitk.ConstantPad(layer, *margins, 0) for layer in layers)
    told = {number: tags.get(f"Segment{number - 1}_Tags", "") for number in names}
    return Labels(layers, places, names, told)


def _cropped_margins(image: sitk.Image, tags: Mapping[str, str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Find how many voxels a ``.seg.nrrd`` was cropped by, (I, J, K) at its begin and at its end.

    Slicer tells the geometry that it crops from: IJK to RAS, row by row, and the first and last index of each axis.
    """
    nothing = (0, 0, 0), (0, 0, 0)
    told = re.search(r"Reference image geometry\|([^|]*)\|", tags.get("Segmentation_ConversionParameters", ""))
    try:
        numbers = [float(number) for number in told[1].rstrip(";").split(";")] if told else []
        offset = np.array(tags.get("Segmentation_ReferenceImageExtentOffset", "").split(), dtype=int)
    except ValueError:
        return nothing
    if len(numbers) != 22 or offset.shape != (3,):
        return nothing
    to_ras, extent = np.reshape(numbers[:16], (4, 4)), np.reshape(numbers[16:], (3, 2)).astype(int)
    flip = np.diag([-1.0, -1.0, 1.0])
    axes = flip @ np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    begin = (to_ras @ [*offset, 1])[:3]
    if not np.allclose(axes, to_ras[:3, :3], atol=1e-3) or not np.allclose(flip @ image.GetOrigin(), begin, atol=1e-3):
        return nothing  # segments that were drawn on other voxels
    last = offset + image.GetSize() - 1
    lower, upper = np.maximum(offset - extent[:, 0], 0), np.maximum(extent[:, 1] - last, 0)
    return tuple(map(int, lower)), tuple(map(int, upper))


def _segments(path: Path, tags: Mapping[str, str], layers: int) -> tuple[dict[int, tuple[int, int]], dict[int, str]]:
    """Read where the segments of a ``.seg.nrrd`` are and what they are called; both empty for a plain label map."""
    places, names = {}, {}
    number = 0
    while f"Segment{number}_ID" in tags:
        numbers = []
        for tag, usual in ((f"Segment{number}_Layer", "0"), (f"Segment{number}_LabelValue", "")):
            try:
                numbers.append(int(tags.get(tag, usual)))
            except ValueError as error:
                raise FileError(
                    f"{path} has {tags.get(tag, 'nothing')!r} for {tag}, which is no whole number: save it again from "
                    "Slicer."
                ) from error
        layer, value = numbers
        if not 0 <= layer < layers:
            raise FileError(
                f"{path} has its segment {number} in layer {layer} of {layers} (from 0): save it again from Slicer."
            )
        places[number + 1] = layer, value
        names[number + 1] = tags.get(f"Segment{number}_Name", tags[f"Segment{number}_ID"])
        number += 1
    return places, names
