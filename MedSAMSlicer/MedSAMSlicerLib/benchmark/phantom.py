"""A made-up CT, the same on every computer: a body with a large organ that moves from slice to slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIDE = 512
SPACING = (0.75, 0.75, 3.0)
# Where the organ's center is and how far it reaches, in pixels: columns, then rows.
_CENTER, _RADII = (190.0, 250.0), (105.0, 80.0)


@dataclass(frozen=True)
class Phantom:
    """A volume, and the box of its organ.

    :param voxels: int16 (slices, 512, 512), in Hounsfield units.
    :param first: the box's first voxel, IJK order; ``last`` its last one, inclusive.
    """

    voxels: np.ndarray
    first: tuple[int, int, int]
    last: tuple[int, int, int]

    def __str__(self) -> str:
        return f"made-up CT, {SIDE} x {SIDE} x {len(self.voxels)} voxels, one organ through all slices"


def phantom(slices: int) -> Phantom:
    """Make the volume; its noise is the same every time, and no two slices are alike."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    voxels = np.empty((slices, SIDE, SIDE), dtype=np.int16)
    held = np.zeros((SIDE, SIDE), dtype=bool)
    for index in range(slices):
        t = index / max(slices - 1, 1)
        image = np.full((SIDE, SIDE), -1000, dtype=np.float32)
        image[_ellipse(columns, rows, (256, 262), (220, 165))] = -90  # fat
        image[_ellipse(columns, rows, (256, 262), (205, 150))] = 45  # muscle
        image[_ellipse(columns, rows, (256, 350), (26, 22))] = 420  # vertebra
        image[_ellipse(columns, rows, (370, 240 + 12 * t), (42, 58))] = 95  # spleen
        wave = np.sin(np.pi * t)
        organ = _ellipse(
            columns,
            rows,
            (_CENTER[0] + 18 * t, _CENTER[1] - 10 * t),
            (_RADII[0] * (0.72 + 0.28 * wave), _RADII[1] * (0.75 + 0.25 * wave)),
        )
        image[organ] = 115
        held |= organ
        voxels[index] = (image + random.normal(0, 14, image.shape)).round()
    y, x = np.flatnonzero(held.any(axis=1)), np.flatnonzero(held.any(axis=0))
    return Phantom(voxels, (int(x[0]), int(y[0]), 0), (int(x[-1]), int(y[-1]), slices - 1))


def _ellipse(
    columns: np.ndarray, rows: np.ndarray, center: tuple[float, float], radii: tuple[float, float]
) -> np.ndarray:
    return ((columns - center[0]) / radii[0]) ** 2 + ((rows - center[1]) / radii[1]) ** 2 <= 1
