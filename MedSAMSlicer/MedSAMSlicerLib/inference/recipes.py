"""What is done to a slice before the model and to its output after, as the weights were trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from MedSAMSlicerLib.inference.resize import resize_area, resize_bicubic, resize_bilinear, resize_spline
from MedSAMSlicerLib.inference.restoration import Restoration, interpolation, interpolation_by_way_of
from MedSAMSlicerLib.prompts import Box

Size = tuple[int, int]


class Recipe(Protocol):
    """The way between a slice of any size (rows, columns) and the model's square input."""

    def __hash__(self) -> int:
        """Tell it from others: what is made with it is kept."""

    @property
    def image_size(self) -> int:
        """Side of the model's input in pixels."""

    def prepare(self, image: Tensor) -> Tensor:
        """Turn a slice, uint8 (rows, columns) or (rows, columns, 3), into float32 (3, image_size, image_size).

        All is computed on the image's device, which must know double precision.
        """

    def scale(self, size: Size) -> tuple[float, float]:
        """Return how many pixels of the model's input a pixel of a slice of a size becomes, along rows and columns."""

    def scale_boxes(self, boxes: Sequence[Box], size: Size) -> Tensor:
        """Turn boxes in slice pixels into float32 (N, 4) in pixels of the model's input."""

    def restoration(self, size: Size, side: int) -> Restoration:
        """Return the way from the decoder's logits to the probabilities of a slice.

        :param size: of the slice, (rows, columns).
        :param side: of the square of logits.
        """

    def box_around(self, mask: np.ndarray) -> Box | None:
        """Find the box, in slice pixels, with which a mask, bool (rows, columns), prompts the next slice.

        Return None for a mask in which nothing is left at the resolution that the official scripts look at.
        """


@dataclass(frozen=True)
class LiteRecipe:
    """LiteMedSAM's: keep the aspect ratio, pad with zeros (CVPR24_LiteMedSAM_infer.py, branch LiteMedSAM)."""

    image_size: int

    def prepare(self, image: Tensor) -> Tensor:
        """Shrink by areas, scale to [0, 1], pad at the bottom and the right."""
        pixels = resize_area(image, longest_side(self.image_size, (image.shape[0], image.shape[1])))
        return _pad(_channels(_unit_range(pixels)), self.image_size)

    def scale(self, size: Size) -> tuple[float, float]:
        """Scale both axes by the longest side."""
        return self.image_size / max(size), self.image_size / max(size)

    def scale_boxes(self, boxes: Sequence[Box], size: Size) -> Tensor:
        """Scale by the longest side and drop the decimals, as the official script does."""
        return (_corners(boxes) * (self.image_size / max(size))).trunc().float()

    def restoration(self, size: Size, side: int) -> Restoration:
        """Cut off the padding, interpolate the logits, then take the sigmoid."""
        inside = (min(pixels, side) for pixels in longest_side(self.image_size, size))
        rows, columns = (interpolation(each, pixels, side) for each, pixels in zip(inside, size, strict=True))
        return Restoration(rows, columns)

    def box_around(self, mask: np.ndarray) -> Box | None:
        """Widen the bounds by 3 pixels of the model's input (``get_bbox256``).

        The coordinates are such that `scale_boxes` gives back the official integers. As these are clamped to the padded
        square, the box may end beyond the slice.
        """
        small = resize_area(torch.from_numpy(mask.astype(np.uint8)), longest_side(self.image_size, mask.shape))
        bounds = _widened_bounds(small.numpy() > 0, 3, self.image_size)
        if bounds is None:
            return None
        ratio = self.image_size / max(mask.shape)
        return Box(*((bound + 0.5) / ratio for bound in bounds))


@dataclass(frozen=True)
class MedSAMRecipe:
    """MedSAM's: squash to a square (pre_CT_MR.py for training, MedSAM_Inference.py, branch main)."""

    image_size: int

    def prepare(self, image: Tensor) -> Tensor:
        """Resample with cubic splines and scale to [0, 1]."""
        return _channels(_unit_range(resize_spline(image, (self.image_size, self.image_size))))

    def scale(self, size: Size) -> tuple[float, float]:
        """Scale each axis on its own."""
        return self.image_size / size[0], self.image_size / size[1]

    def scale_boxes(self, boxes: Sequence[Box], size: Size) -> Tensor:
        """Scale each axis on its own."""
        return (_corners(boxes) * (self.image_size / _width_height(size))).float()

    def restoration(self, size: Size, side: int) -> Restoration:
        """Take the sigmoid, then interpolate the probabilities."""
        rows, columns = (interpolation(side, pixels, side) for pixels in size)
        return Restoration(rows, columns, sigmoid_first=True)

    def box_around(self, mask: np.ndarray) -> Box | None:
        """Widen the bounds by 5 pixels of MedSAM's input of 1024, which at 512 pixels are 2.5.

        That is what the official propagation does (seg_3dnii_sparse_marker/medsam_infer_3Dbox_adrenal.py, branch main).
        """
        return _box_in_square(mask, self.image_size)


@dataclass(frozen=True)
class SAMRecipe:
    """SAM's: keep the aspect ratio, ImageNet statistics (facebookresearch/segment-anything, predictor.py, sam.py)."""

    image_size: int
    mean = (123.675, 116.28, 103.53)
    std = (58.395, 57.12, 57.375)

    def prepare(self, image: Tensor) -> Tensor:
        """Resample with a triangle filter, standardize the colors, pad at the bottom and the right."""
        pixels = _channels(resize_bilinear(image, longest_side(self.image_size, (image.shape[0], image.shape[1]))))
        mean, std = (pixels.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return _pad((pixels - mean) / std, self.image_size)

    def scale(self, size: Size) -> tuple[float, float]:
        """Scale each axis by what rounding to whole pixels has made of it."""
        rows, columns = longest_side(self.image_size, size)
        return rows / size[0], columns / size[1]

    def scale_boxes(self, boxes: Sequence[Box], size: Size) -> Tensor:
        """Scale each axis by what rounding to whole pixels has made of it."""
        new_size = _width_height(longest_side(self.image_size, size))
        return (_corners(boxes) * (new_size / _width_height(size))).float()

    def restoration(self, size: Size, side: int) -> Restoration:
        """Interpolate the logits to the input's size, cut off the padding, interpolate again, take the sigmoid."""
        middle = self.image_size
        inside = longest_side(middle, size)
        rows, columns = (interpolation_by_way_of(middle, *each, side) for each in zip(inside, size, strict=True))
        return Restoration(rows, columns)

    def box_around(self, mask: np.ndarray) -> Box | None:
        """Widen the bounds as MedSAM's recipe; SAM itself knows no next slice."""
        return _box_in_square(mask, self.image_size)


@dataclass(frozen=True)
class MedSAM2Recipe:
    """MedSAM2's: squash to a square, ImageNet statistics (bowang-lab/MedSAM2, medsam2_infer_3D_CT.py).

    SAM 2's video predictor does the same with its larger input (facebookresearch/sam2, utils/misc.py).
    """

    image_size: int
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def prepare(self, image: Tensor) -> Tensor:
        """Resample with cubics, scale by 255, standardize the colors."""
        pixels = _channels(resize_bicubic(image, (self.image_size, self.image_size))) / 255
        mean, std = (pixels.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (pixels - mean) / std

    def scale(self, size: Size) -> tuple[float, float]:
        """Scale each axis on its own."""
        return self.image_size / size[0], self.image_size / size[1]

    def scale_boxes(self, boxes: Sequence[Box], size: Size) -> Tensor:
        """Scale each axis on its own."""
        return (_corners(boxes) * (self.image_size / _width_height(size))).float()

    def restoration(self, size: Size, side: int) -> Restoration:
        """Interpolate the logits, then take the sigmoid."""
        rows, columns = (interpolation(side, pixels, side) for pixels in size)
        return Restoration(rows, columns)

    def box_around(self, mask: np.ndarray) -> Box | None:
        """Widen the bounds as MedSAM's recipe; MedSAM2 itself remembers the slice instead."""
        return _box_in_square(mask, self.image_size)


RECIPES: dict[str, Callable[[int], Recipe]] = {
    "lite": LiteRecipe,
    "medsam": MedSAMRecipe,
    "sam": SAMRecipe,
    "medsam2": MedSAM2Recipe,
}


def longest_side(target: int, size: Size) -> Size:
    """Scale a size (rows, columns) so that its longest side is the target, rounded to whole pixels, at least one."""
    scale = target / max(size)
    return max(int(size[0] * scale + 0.5), 1), max(int(size[1] * scale + 0.5), 1)


def _channels(pixels: Tensor) -> Tensor:
    """Turn (H, W) or (H, W, 3) into float32 (3, H, W)."""
    pixels = pixels.float()
    return pixels.expand(3, -1, -1) if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def _unit_range(pixels: Tensor) -> Tensor:
    """Scale linearly to [0, 1]; a constant image becomes 0."""
    low, high = pixels.double().aminmax()
    return (pixels - low) / (high - low).clamp(min=1e-8)


def _pad(pixels: Tensor, side: int) -> Tensor:
    """Pad (3, H, W) with zeros at the bottom and the right to (3, side, side)."""
    return F.pad(pixels, (0, side - pixels.shape[2], 0, side - pixels.shape[1]))


def _corners(boxes: Sequence[Box]) -> Tensor:
    """Return the boxes as float64 (N, 4)."""
    return torch.tensor([astuple(box) for box in boxes], dtype=torch.float64)


def _width_height(size: Size) -> Tensor:
    """Return (columns, rows, columns, rows) as float64, to scale x0, y0, x1, y1."""
    rows, columns = size
    return torch.tensor([columns, rows, columns, rows], dtype=torch.float64)


def _widened_bounds(mask: np.ndarray, margin: float, side: int) -> tuple[float, float, float, float] | None:
    """Find x0, y0, x1, y1 of a mask, widened by a margin and clamped to [0, side]; None if it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    x0, y0, x1, y1 = float(columns[0]), float(rows[0]), float(columns[-1]), float(rows[-1])
    return max(0.0, x0 - margin), max(0.0, y0 - margin), min(side, x1 + margin), min(side, y1 + margin)


def _box_in_square(mask: np.ndarray, side: int) -> Box | None:
    """Find the box of a mask squashed to a square by nearest neighbors, widened by 5 / 1024 of it, in slice pixels."""
    rows, columns = mask.shape
    square = mask[np.ix_(np.arange(side) * rows // side, np.arange(side) * columns // side)]
    bounds = _widened_bounds(square, 5 * side / 1024, side)
    if bounds is None:
        return None
    x0, y0, x1, y1 = bounds
    return Box(x0 * columns / side, y0 * rows / side, x1 * columns / side, y1 * rows / side)
