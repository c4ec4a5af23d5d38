"""Resampling of images, equal to what the official training scripts did, without the libraries that they used.

Each method is a linear operator per axis, so that resizing is two matrix products, ``rows @ image @ columns.T``;
OpenCV's enlarging and Pillow's ways are computed in whole numbers, as their rounding is part of them. All is computed
where the image is, in double precision, which Apple's MPS lacks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

# A spline's coefficients are computed with this many zeros beyond the border, as scipy.ndimage does.
SPLINE_PADDING = 12
# Pillow's weights are whole numbers that sum up to this.
_FIXED_POINT = 1 << 22


def resize_area(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize as OpenCV's ``cv2.resize(..., interpolation=cv2.INTER_AREA)``.

    OpenCV shrinks in single precision, so that values may differ by 1 where they fall on a half.

    :param image: uint8 (H, W) or (H, W, C).
    :param size: the new (H, W).
    :return: uint8, new (H, W) or (H, W, C).
    """
    old, new = tuple(image.shape[:2]), size
    if old == new:
        return image
    if new[0] > old[0] or new[1] > old[1]:
        return _enlarge(image, size)
    pixels = _apply(_area_weights, image, size)
    # OpenCV's code path for exact halving rounds a half up, the others to the nearest even number.
    halved = old == (2 * new[0], 2 * new[1])
    return (_round_half_up(pixels) if halved else pixels.round()).to(torch.uint8)


def resize_spline(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize as ``skimage.transform.resize(order=3, mode="constant", anti_aliasing=True, preserve_range=True)``.

    :param image: (H, W) or (H, W, C).
    :param size: the new (H, W).
    :return: float64, new (H, W) or (H, W, C), clipped to the range of the image.
    """
    pixels = _apply(_spline_weights, image, size)
    low, high = (bound.double() for bound in image.aminmax())
    # The background that scikit-image assumes around the image counts as part of its range where it shows.
    shows = (pixels.amin() <= 0) & (pixels.amax() >= 0)
    return pixels.clamp(torch.where(shows, low.clamp(max=0), low), torch.where(shows, high.clamp(min=0), high))


def resize_bilinear(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize as Pillow's ``Image.resize(..., Image.BILINEAR)``: a triangle filter, widened when shrinking.

    :param image: uint8 (H, W) or (H, W, C).
    :param size: the new (H, W).
    :return: uint8, new (H, W) or (H, W, C).
    """
    return _resize_in_fixed_point(_triangle_weights, image, size)


def resize_bicubic(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize as Pillow's ``Image.resize``, whose default is ``Image.BICUBIC``; see `resize_bilinear`."""
    return _resize_in_fixed_point(_cubic_weights, image, size)


def _resize_in_fixed_point(weights: Callable[[int, int], Tensor], image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize in two passes, the first along the rows, each rounded (Pillow's src/libImaging/Resample.c).

    Since its version 13 Pillow begins with the columns if an image is much taller than wanted; the models are older.
    The weights are whole numbers, of which double precision holds the sums exactly.
    """
    for step in ((image.shape[0], size[1]), size):
        if step != tuple(image.shape[:2]):
            pixels = (_apply(weights, image, step) / _FIXED_POINT + 0.5).floor()
            image = pixels.clamp(0, 255).to(torch.uint8)
    return image


def _round_half_up(pixels: Tensor) -> Tensor:
    return (pixels + 0.5).floor()


def _apply(weights: Callable[[int, int], Tensor], image: Tensor, size: tuple[int, int]) -> Tensor:
    """Multiply an image (H, W) or (H, W, C) with the weights (new, old) of each axis whose size changes: float64."""
    pixels = image.double()
    if size[0] != pixels.shape[0]:
        pixels = torch.tensordot(_kept(weights, pixels.shape[0], size[0], image.device), pixels, dims=1)
    if size[1] != pixels.shape[1]:
        pixels = (pixels.movedim(1, -1) @ _kept(weights, pixels.shape[1], size[1], image.device).T).movedim(-1, 1)
    return pixels


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _kept(weights: Callable[[int, int], Tensor], old: int, new: int, device: torch.device) -> Tensor:
    """Compute weights once per pair of sizes: a volume's slices are all of one size."""
    return weights(old, new).to(device)


def _area_weights(old: int, new: int) -> Tensor:
    """Average the old pixels that a new pixel covers, each by the part covered: (new, old)."""
    edges = torch.arange(new + 1, dtype=torch.float64) * (old / new)
    pixel = torch.arange(old, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], pixel + 1) - torch.maximum(edges[:-1, None], pixel)
    return overlap.clamp_(min=0) / (old / new)


def _enlarge(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolate as OpenCV does for INTER_AREA where an axis grows: linearly, with weights of 11 bits.

    Source: OpenCV's modules/imgproc/src/resize.cpp (``area_mode``, ``HResizeLinear`` and ``VResizeLinear`` for uchar).
    """
    left, right, left_weight, right_weight = _enlarging_taps(image.shape[1], size[1], image.device)
    top, bottom, top_weight, bottom_weight = _enlarging_taps(image.shape[0], size[0], image.device)
    channels = image.reshape(*image.shape[:2], -1).long()
    rows = (channels[:, left] * left_weight[:, None] + channels[:, right] * right_weight[:, None]) >> 4
    upper = (rows[top] * top_weight[:, None, None]) >> 16
    lower = (rows[bottom] * bottom_weight[:, None, None]) >> 16
    return ((upper + lower + 2) >> 2).to(torch.uint8).reshape(*size, *image.shape[2:])


def _enlarging_taps(old: int, new: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the two old pixels of each new pixel along an axis, then their weights, which sum up to 2048."""
    scale = old / new
    index = torch.arange(new, dtype=torch.float64, device=device)
    first = (index * scale).floor()
    fraction = (index + 1) - (first + 1) / scale
    second_weight = (2048 * torch.where(fraction <= 0, 0, fraction - fraction.floor())).round().long()
    return first.long(), (first.long() + 1).clamp(max=old - 1), 2048 - second_weight, second_weight


def _triangle_weights(old: int, new: int) -> Tensor:
    """Weight the old pixels by a triangle around a new pixel's center: (new, old), see `_filter_weights`."""
    return _filter_weights(old, new, lambda distance: (1 - distance).clamp(min=0))


def _cubic_weights(old: int, new: int) -> Tensor:
    """Weight the old pixels by Pillow's cubic (Keys, 1981, a = -0.5): (new, old), see `_filter_weights`."""

    def cubic(distance: Tensor) -> Tensor:
        near = (1.5 * distance - 2.5) * distance**2 + 1
        far = (((distance - 5) * distance + 8) * distance - 4) * -0.5
        return torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))

    return _filter_weights(old, new, cubic)


def _filter_weights(old: int, new: int, kernel: Callable[[Tensor], Tensor]) -> Tensor:
    """Weight the old pixels by their distance from a new pixel's center, a kernel that is widened when shrinking.

    :return: (new, old), whole numbers that sum up to about `_FIXED_POINT`.
    """
    scale = old / new
    center = (torch.arange(new, dtype=torch.float64) + 0.5) * scale
    weights = kernel((torch.arange(old, dtype=torch.float64) + 0.5 - center[:, None]).abs() / max(scale, 1.0))
    exact = weights / weights.sum(dim=1, keepdim=True) * _FIXED_POINT
    # As C rounds: halves away from zero.
    return (exact.abs() + 0.5).floor() * exact.sign()


def _spline_weights(old: int, new: int) -> Tensor:
    """Blur if shrinking, then evaluate the cubic spline through the pixels, with zeros beyond the border: (new, old).

    Source: skimage/transform/_warps.py (``resize``), scipy.ndimage's ``gaussian_filter`` and ``zoom`` in grid mode.
    """
    scale = old / new
    padded = old + 2 * SPLINE_PADDING
    # Solving the spline's equations for its coefficients; at the ends of the padding it is mirrored.
    knots = torch.diag(torch.full((padded,), 4 / 6, dtype=torch.float64))
    knots += torch.diag(torch.full((padded - 1,), 1 / 6, dtype=torch.float64), 1)
    knots += torch.diag(torch.full((padded - 1,), 1 / 6, dtype=torch.float64), -1)
    knots[0, 1] = knots[-1, -2] = 2 / 6
    pad = torch.eye(padded, dtype=torch.float64)[:, SPLINE_PADDING:-SPLINE_PADDING]
    coefficients = torch.linalg.solve(knots, pad)

    position = (torch.arange(new, dtype=torch.float64) + 0.5) * scale - 0.5 + SPLINE_PADDING
    distance = (torch.arange(padded, dtype=torch.float64) - position[:, None]).abs()
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = (2 - distance).clamp(min=0) ** 3 / 6
    weights = torch.where(distance < 1, near, far) @ coefficients
    return weights @ _gaussian_weights(old, sigma=(scale - 1) / 2) if scale > 1 else weights


def _gaussian_weights(length: int, sigma: float) -> Tensor:
    """Blur with a Gaussian cut off at four standard deviations, zeros beyond the border: (length, length)."""
    radius = int(4 * sigma + 0.5)
    taps = torch.arange(-radius, radius + 1, dtype=torch.float64)
    position = torch.arange(length, dtype=torch.float64)
    distance = position[:, None] - position
    weights = torch.where(distance.abs() <= radius, torch.exp(-(distance**2) / (2 * sigma**2)), 0)
    return weights / torch.exp(-(taps**2) / (2 * sigma**2)).sum()
