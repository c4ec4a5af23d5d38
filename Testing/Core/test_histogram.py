"""Ranges and percentiles of whole volumes, as numpy computes them from copies, but without a copy."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from MedSAMSlicerLib.volume.histogram import finite_range, is_integral, positive_percentiles
from MedSAMSlicerLib.volume.intensity import guess_modality, resolve_window

PERCENTILES = (0.0, 0.5, 33.3, 50.0, 99.5, 100.0)
TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", ">i2", ">f4")


def values_of(dtype: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return (random.normal(0, 1, shape) * 10.0 ** random.integers(-4, 4, shape)).astype(dtype)
    limits = np.iinfo(dtype)
    native = limits.dtype.newbyteorder("=")
    spread = random.integers(0, 8 * native.itemsize, shape).astype(native)
    return (random.integers(limits.min, limits.max, shape, dtype=native) >> spread).astype(dtype)


def expected(voxels: np.ndarray) -> np.ndarray:
    above = voxels[voxels > 0]
    return np.percentile(above[np.isfinite(above)], PERCENTILES)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(7, 30, 41), (1, 3, 1), (40, 1, 9, 3)], ids=["volume", "three voxels", "color"])
def test_percentiles_are_numpys_to_the_last_bit(dtype, shape):
    for seed in range(3):
        voxels = values_of(dtype, shape, seed)
        voxels.flat[0] = 1
        assert positive_percentiles(voxels, PERCENTILES) == expected(voxels).tolist()
        view = voxels.transpose(1, 0, *range(2, voxels.ndim))[:, ::2]
        if (view > 0).any():
            assert positive_percentiles(view, PERCENTILES) == expected(view).tolist()


def test_zeros_negatives_and_broken_values_do_not_count():
    voxels = np.array([[[0.0, -0.0, -5.0, np.nan], [np.inf, -np.inf, 3.0, 1e-44]]], dtype=np.float32)
    assert positive_percentiles(voxels, (0, 100)) == [float(np.float32(1e-44)), 3.0]
    assert positive_percentiles(voxels[:, :1], (0, 100)) == []
    assert finite_range(voxels) == (-5.0, 3.0)


def test_whole_numbers_are_told_from_others_in_any_type():
    assert is_integral(np.ones((2, 3, 4), dtype=np.int16))
    voxels = np.ones((2, 3, 4))
    assert is_integral(voxels)
    voxels[1, 2, 3] = 1.5
    assert not is_integral(voxels)


@pytest.mark.parametrize("dtype", ["u2", "i2", "f4"])
@pytest.mark.parametrize("window", ["auto", "mr", "full"])
def test_no_window_takes_memory_of_the_volumes_size(dtype, window):
    voxels = np.zeros((200, 256, 256), dtype=dtype)
    voxels[90:110, 60:200, 60:200] = np.arange(1, 141, dtype=dtype)
    voxels[0, 0, 0] = 900
    tracemalloc.start()
    try:
        guess_modality(voxels)
        resolve_window(window, voxels)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < voxels.nbytes / 8
