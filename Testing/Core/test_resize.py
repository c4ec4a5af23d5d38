"""Our resampling gives what OpenCV, scikit-image and Pillow give."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from skimage.transform import resize

from MedSAMSlicerLib.inference.resize import resize_area, resize_bicubic, resize_bilinear, resize_spline

# Up and down, odd, exact halves and thirds, one axis alone, and slices so thin that an axis keeps one pixel.
SIZES = [
    ((512, 512), (256, 256)),
    ((512, 400), (256, 200)),
    ((511, 512), (256, 256)),
    ((300, 201), (256, 172)),
    ((432, 288), (144, 96)),
    ((256, 200), (256, 200)),
    ((512, 512), (256, 512)),
    ((100, 80), (256, 205)),
    ((63, 77), (209, 256)),
    ((90, 400), (180, 256)),
    ((3, 400), (2, 256)),
    ((400, 1), (256, 1)),
]


def gray(size: tuple[int, int]) -> np.ndarray:
    return np.ascontiguousarray(data.camera()[: size[0], : size[1]])


def mask(size: tuple[int, int]) -> np.ndarray:
    return (gray(size) > 100).astype(np.uint8)


def color(size: tuple[int, int]) -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[: size[0], : size[1]])


def tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels)


def difference(ours: torch.Tensor, theirs: np.ndarray) -> np.ndarray:
    result = ours.numpy()
    assert result.dtype == theirs.dtype
    assert result.shape == theirs.shape
    return np.abs(result.astype(float) - theirs)


@pytest.mark.parametrize("image", [gray, mask, color])
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_area_equals_opencv_but_for_rounding(image, old, new) -> None:
    pixels = image(old)
    off = difference(resize_area(tensor(pixels), new), cv2.resize(pixels, new[::-1], interpolation=cv2.INTER_AREA))
    assert off.max() <= 1
    assert np.count_nonzero(off) <= 0.002 * off.size


@pytest.mark.parametrize("image", [gray, color])
@pytest.mark.parametrize(("old", "new"), [*SIZES, ((100, 120), (1024, 1024)), ((512, 512), (64, 64))])
def test_spline_equals_scikit_image(image, old, new) -> None:
    pixels = image(old)
    expected = resize(pixels, new, order=3, mode="constant", anti_aliasing=True, preserve_range=True)
    assert difference(resize_spline(tensor(pixels), new), expected).max() < 1e-9


def test_spline_is_clipped_to_zero_below_a_dark_image_as_by_scikit_image() -> None:
    pixels = np.full((40, 50), 2, dtype=np.uint8)
    pixels[10:20, 10:20] = 250
    expected = resize(pixels, (64, 64), order=3, mode="constant", anti_aliasing=True, preserve_range=True)
    ours = resize_spline(tensor(pixels), (64, 64))
    assert ours.min() == 0
    assert difference(ours, expected).max() < 1e-9


@pytest.mark.parametrize("image", [gray, color])
@pytest.mark.parametrize(("old", "new"), SIZES)
@pytest.mark.parametrize(
    ("resizing", "method"),
    [(resize_bilinear, Image.Resampling.BILINEAR), (resize_bicubic, Image.Resampling.BICUBIC)],
    ids=["bilinear", "bicubic"],
)
def test_pillows_ways_are_pillows_to_the_last_bit(resizing, method, image, old, new) -> None:
    pixels = image(old)
    # In two steps, as Pillow 13 may begin with the columns, which the versions before it did not.
    first = Image.fromarray(pixels).resize((new[1], old[0]), method)
    np.testing.assert_array_equal(resizing(tensor(pixels), new).numpy(), np.asarray(first.resize(new[::-1], method)))


def test_the_input_is_left_alone() -> None:
    pixels = gray((100, 120))
    before = pixels.copy()
    for resizing in (resize_area, resize_spline, resize_bilinear, resize_bicubic):
        resizing(tensor(pixels), (50, 200))
    np.testing.assert_array_equal(pixels, before)
