"""Intensity windows: a CT or MRI slice as the 8-bit image that MedSAM was trained on. The volume is never changed.

The presets and the arithmetic follow MedSAM's ``pre_CT_MR.py``: a CT is clipped to a window, an MRI to the 0.5 and
99.5 percentile of its voxels above 0; then the clipped volume's own range becomes 0..255.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from MedSAMSlicerLib.volume.histogram import finite_range, is_integral, positive_percentiles

# Level and width in Hounsfield units.
CT_WINDOWS: dict[str, tuple[float, float]] = {
    "abdomen": (40, 400),
    "lung": (-600, 1500),
    "brain": (40, 80),
    "mediastinum": (50, 350),
    "bone": (400, 1800),
}
PERCENTILES = (0.5, 99.5)
WINDOW_HELP = f"auto, {', '.join(CT_WINDOWS)}, mr, full, or LEVEL/WIDTH such as 40/400"


@dataclass(frozen=True)
class IntensityRange:
    """The voxel values that become 0 and 255."""

    lower: float
    upper: float

    def apply(self, voxels: np.ndarray) -> np.ndarray:
        """Map voxels to uint8 in a new array: clipped, scaled and truncated as the training data was.

        NaN counts as the lower end, infinities as the end on their side.
        """
        # In double precision and in this order, as the reference computes: truncation shows every rounding error.
        clipped = np.clip(np.asarray(voxels, dtype=np.float64), self.lower, self.upper)
        scaled = (clipped - self.lower) / (self.upper - self.lower) * 255.0
        return np.nan_to_num(scaled, copy=False, nan=0.0).astype(np.uint8)


def guess_modality(voxels: np.ndarray) -> str:
    """Guess what the values of a volume are: "ct", "mr", or "display" for one that is 0..255 already.

    Hounsfield units of a patient reach from fat or air far below 0 to soft tissue above it; no MRI reader makes such
    values, as magnitudes are positive and normalized ones are small. A volume of bytes was windowed by its publisher.
    """
    return "display" if voxels.dtype == np.uint8 else _modality(voxels, *finite_range(voxels))


def _modality(voxels: np.ndarray, low: float, high: float) -> str:
    if low < -150 and high > 0 and high - low > 300:
        return "ct"
    if low >= 0 and high <= 255 and is_integral(voxels):
        return "display"
    return "mr"


def resolve_window(window: str | IntensityRange, voxels: np.ndarray) -> IntensityRange:
    """Turn the name of a window into the range of values of this volume.

    :param window: "auto" (by `guess_modality`: "abdomen" for CT, "mr" for MRI, "full" for bytes and for color), a name
        in `CT_WINDOWS`, "mr" (percentiles), "full" (smallest to largest value) or "LEVEL/WIDTH"; or the range itself.
    :param voxels: the whole volume, (K, J, I) or (K, J, I, channels); it is only read.
    :raises ValueError: if the window is unknown, or all voxels are the same, or none is finite.
    """
    if isinstance(window, IntensityRange):
        return window
    low, high = finite_range(voxels)
    if low == high:
        raise ValueError(f"All voxels of the volume have the same value, {low:g}: there is nothing to segment.")
    if window == "auto":
        modality = "display" if voxels.ndim == 4 else _modality(voxels, low, high)
        window = {"ct": "abdomen", "mr": "mr", "display": "full"}[modality]
    if window == "full":
        return IntensityRange(low, high)
    if window == "mr":
        lower, upper = positive_percentiles(voxels, PERCENTILES) or (low, high)
        return _within(lower, upper, low, high, "the percentiles of its voxels above 0")
    level, width = _level_and_width(window)
    return _within(
        level - width / 2, level + width / 2, low, high, f"the window {window} (level {level:g}, width {width:g})"
    )


def _level_and_width(window: str) -> tuple[float, float]:
    if window in CT_WINDOWS:
        return CT_WINDOWS[window]
    match = re.fullmatch(r"([-+]?[\d.]+)/([-+]?[\d.]+)", window)
    try:
        level, width = (float(number) for number in match.groups()) if match else (0.0, 0.0)
    except ValueError:
        width = 0.0
    if width <= 0:
        raise ValueError(f"The window {window!r} is unknown: give {WINDOW_HELP} (the width above 0).")
    return level, width


def _within(lower: float, upper: float, low: float, high: float, name: str) -> IntensityRange:
    """Narrow a window to the values that occur, as pre_CT_MR.py does by scaling the clipped volume's own range."""
    lower, upper = max(lower, low), min(upper, high)
    if not lower < upper:
        raise ValueError(
            f"The voxels, {low:g} to {high:g}, all look the same in {name}: choose another window ({WINDOW_HELP})."
        )
    return IntensityRange(lower, upper)
