"""How one slice may look otherwise: mirrored, turned, windowed or brightened differently."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional as F

from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.box_track import bounds
from MedSAMSlicerLib.volume.intensity import IntensityRange

_WINDOW_SHIFT = 0.1
_GAMMA = 0.25
_DEGREES = 10.0
_ZOOM = 0.1


@dataclass(frozen=True)
class Variation:
    """Changes to a slice; without any, the slice as it is.

    :param flip_x: mirror the columns; ``flip_y`` the rows.
    :param lower: by what share of the window's width its lower end moves; ``upper`` its upper end.
    :param gamma: exponent of the brightness.
    :param degrees: by which the slice is turned about its middle.
    :param zoom: by which it is enlarged.
    """

    flip_x: bool = False
    flip_y: bool = False
    lower: float = 0.0
    upper: float = 0.0
    gamma: float = 1.0
    degrees: float = 0.0
    zoom: float = 1.0

    @classmethod
    def numbered(cls, number: int, seed: int) -> Variation:
        """Return one of the few variations whose embeddings are kept: 0 is the slice as it is.

        They alternate in what they mirror; turning and zooming are left out, as half of a few would be too many.
        """
        if number == 0:
            return cls()
        random = np.random.default_rng([seed, number])
        return _intensities(replace(cls(), flip_x=number % 2 == 1, flip_y=number % 4 >= 2), random)

    @classmethod
    def drawn(cls, random: np.random.Generator) -> Variation:
        """Draw any variation: mirrored either way half of the time, turned by up to 10°, zoomed by up to 10 %."""
        flips = replace(cls(), flip_x=bool(random.random() < 0.5), flip_y=bool(random.random() < 0.5))
        turned = replace(
            flips, degrees=float(random.uniform(-_DEGREES, _DEGREES)), zoom=float(1 + random.uniform(-_ZOOM, _ZOOM))
        )
        return _intensities(turned, random)

    def of_slice(self, voxels: np.ndarray, window: IntensityRange) -> np.ndarray:
        """Window a slice and change it: uint8, contiguous.

        :param voxels: (rows, columns) or (rows, columns, 3).
        """
        width = window.upper - window.lower
        image = IntensityRange(window.lower + self.lower * width, window.upper + self.upper * width).apply(voxels)
        if self.gamma != 1:
            image = np.rint(255 * (np.arange(256) / 255) ** self.gamma).astype(np.uint8)[image]
        return self._moved(image, "bilinear", "border")

    def of_mask(self, mask: np.ndarray) -> np.ndarray:
        """Move a mask, bool (rows, columns), along with its slice."""
        return self._moved(mask, "nearest", "zeros")

    def of_box(self, box: Box, size: tuple[int, int]) -> Box | None:
        """Move a box, given by its outer edges, along with its slice of a size (rows, columns).

        :return: the outer edges of what becomes of its pixels; None if none of them stays in the slice.
        """
        filled = np.zeros(size, dtype=bool)
        filled[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)] = True
        return bounds(self.of_mask(filled))

    def _moved(self, image: np.ndarray, mode: str, beyond: str) -> np.ndarray:
        """Mirror, turn and zoom; see `grid_sample` for how pixels are interpolated, and what lies beyond the border."""
        image = image[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]
        if (self.degrees, self.zoom) == (0.0, 1.0):
            return np.ascontiguousarray(image)
        rows, columns = image.shape[:2]
        cosine, sine = (f(math.radians(self.degrees)) / self.zoom for f in (math.cos, math.sin))
        # Normalized coordinates run from -1 to 1 on both axes, so that a turn needs the slice's proportions.
        matrix = torch.tensor([[cosine, -sine * rows / columns, 0], [sine * columns / rows, cosine, 0]])
        planes = torch.from_numpy(image.reshape(rows, columns, -1).astype(np.float32)).permute(2, 0, 1)[None]
        grid = F.affine_grid(matrix[None], [1, 1, rows, columns], align_corners=False)
        moved = F.grid_sample(planes, grid, mode=mode, padding_mode=beyond, align_corners=False)[0].permute(1, 2, 0)
        return moved.round().numpy().astype(image.dtype).reshape(image.shape)


def _intensities(variation: Variation, random: np.random.Generator) -> Variation:
    lower, upper = random.uniform(-_WINDOW_SHIFT, _WINDOW_SHIFT, 2)
    gamma = math.exp(random.uniform(-_GAMMA, _GAMMA))
    return replace(variation, lower=float(lower), upper=float(upper), gamma=gamma)
