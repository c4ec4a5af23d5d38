"""Preprocessing and postprocessing are the official scripts', step by step."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from skimage.transform import resize
from torch.nn import functional as F

from MedSAMSlicerLib.inference.recipes import RECIPES, LiteRecipe, MedSAM2Recipe, MedSAMRecipe, SAMRecipe
from MedSAMSlicerLib.prompts import Box
from reference_models import bounds_256

SIZES = [(512, 512), (400, 512), (511, 300), (100, 80), (63, 77), (256, 256)]
BOX = Box(12.6, 7.2, 49.9, 55.5)


def image(size: tuple[int, int], channels: int = 1) -> np.ndarray:
    pixels = data.camera() if channels == 1 else data.astronaut()
    return np.ascontiguousarray(pixels[: size[0], : size[1]])


def three_channels(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels[:, :, None], 3, axis=-1) if pixels.ndim == 2 else pixels


def unit_range(pixels: np.ndarray) -> np.ndarray:
    return (pixels - pixels.min()) / np.clip(pixels.max() - pixels.min(), a_min=1e-8, a_max=None)


def lite_size(size: tuple[int, int]) -> tuple[int, int]:
    scale = 256 * 1.0 / max(size)
    return int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)


def logits(number: int, side: int = 256) -> torch.Tensor:
    return torch.randn(number, 1, side, side, generator=torch.Generator().manual_seed(2)) * 5


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_lite_prepares_as_the_official_script(size, channels) -> None:
    pixels = image(size, channels)
    rows, columns = lite_size(size)
    small = unit_range(cv2.resize(three_channels(pixels), (columns, rows), interpolation=cv2.INTER_AREA))
    expected = np.pad(small, ((0, 256 - rows), (0, 256 - columns), (0, 0))).transpose(2, 0, 1)
    prepared = LiteRecipe(256).prepare(torch.from_numpy(pixels))
    assert prepared.dtype == torch.float32
    # One gray level of 255, where OpenCV's single precision rounds the other way.
    np.testing.assert_allclose(prepared.numpy(), expected, atol=1.01 / (pixels.max() - pixels.min()))


@pytest.mark.parametrize("size", SIZES)
def test_lite_scales_a_box_to_whole_pixels_as_the_official_script(size) -> None:
    ratio = 256 / max(size)
    expected = [int(coordinate * ratio) for coordinate in (12.6, 7.2, 49.9, 55.5)]
    assert LiteRecipe(256).scale_boxes([BOX], size).tolist() == [expected]


@pytest.mark.parametrize("size", SIZES)
def test_lite_restores_as_the_official_script(size) -> None:
    rows, columns = lite_size(size)
    cropped = logits(2)[..., :rows, :columns]
    expected = torch.sigmoid(F.interpolate(cropped, size=size, mode="bilinear", align_corners=False))[:, 0]
    torch.testing.assert_close(LiteRecipe(256).restoration(size, 256)(logits(2)), expected)


@pytest.mark.parametrize("size", [(512, 512), (400, 512), (512, 300), (100, 80), (63, 77), (256, 256)])
@pytest.mark.parametrize("organ", [(20, 30, 50, 70), (0, 0, 9, 9), (40, 40, 41, 41), (5, 0, 63, 77)])
def test_lite_prompts_the_next_slice_with_the_official_box(size, organ) -> None:
    mask = np.zeros(size, dtype=bool)
    mask[organ[0] : organ[2], organ[1] : organ[3]] = True
    rows, columns = lite_size(size)
    small = cv2.resize(mask.astype(np.uint8), (columns, rows), interpolation=cv2.INTER_AREA)
    padded = np.pad(small, ((0, 256 - rows), (0, 256 - columns)))
    recipe = LiteRecipe(256)
    box = recipe.box_around(mask)
    if not padded.any():
        assert box is None
    else:
        assert recipe.scale_boxes([box], size).tolist() == [bounds_256(padded)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(100, 80), (63, 77), (300, 511)])
def test_medsam_prepares_as_its_training_data_were_prepared(size, channels) -> None:
    pixels = image(size, channels)
    resized = resize(
        three_channels(pixels), (256, 256), order=3, preserve_range=True, mode="constant", anti_aliasing=True
    )
    prepared = MedSAMRecipe(256).prepare(torch.from_numpy(pixels))
    assert prepared.dtype == torch.float32
    np.testing.assert_allclose(prepared.numpy(), unit_range(resized).transpose(2, 0, 1), atol=1e-6)


def test_medsam_scales_each_axis_of_a_box() -> None:
    scaled = MedSAMRecipe(1024).scale_boxes([Box(10, 20, 40, 50), Box(0, 0, 80, 100)], (100, 80))
    torch.testing.assert_close(scaled, torch.tensor([[128, 204.8, 512, 512], [0, 0, 1024, 1024]]))


def test_medsam_interpolates_probabilities_not_logits() -> None:
    expected = F.interpolate(torch.sigmoid(logits(2)), size=(100, 80), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(MedSAMRecipe(1024).restoration((100, 80), 256)(logits(2)), expected)


def test_medsam_prompts_the_next_slice_with_the_official_box() -> None:
    mask = np.zeros((100, 80), dtype=bool)
    mask[20:50, 60:80] = True
    square = cv2.resize(mask.astype(np.uint8), (1024, 1024), interpolation=cv2.INTER_NEAREST)
    recipe = MedSAMRecipe(1024)
    scaled = recipe.scale_boxes([recipe.box_around(mask)], mask.shape)
    torch.testing.assert_close(scaled, torch.tensor([bounds_256(square, shift=5)], dtype=torch.float32))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(100, 80), (63, 77), (300, 511)])
def test_sam_prepares_as_its_predictor(size, channels) -> None:
    pixels = image(size, channels)
    scale = 256 * 1.0 / max(size)
    rows, columns = int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)
    resized = np.array(Image.fromarray(three_channels(pixels)).resize((columns, rows), Image.Resampling.BILINEAR))
    colors = torch.from_numpy(resized).permute(2, 0, 1)
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    standardized = (colors - mean[:, None, None]) / std[:, None, None]
    expected = F.pad(standardized, (0, 256 - columns, 0, 256 - rows))
    torch.testing.assert_close(SAMRecipe(256).prepare(torch.from_numpy(pixels)), expected)


def test_sam_scales_a_box_by_the_rounded_size() -> None:
    scaled = SAMRecipe(1024).scale_boxes([Box(10, 20, 40, 50)], (63, 77))
    new_rows, new_columns = 838, 1024
    expected = [10 * new_columns / 77, 20 * new_rows / 63, 40 * new_columns / 77, 50 * new_rows / 63]
    torch.testing.assert_close(scaled, torch.tensor([expected]))


def test_sam_restores_as_its_postprocessing() -> None:
    masks = F.interpolate(logits(2), (1024, 1024), mode="bilinear", align_corners=False)[..., :838, :1024]
    expected = F.interpolate(masks, (63, 77), mode="bilinear", align_corners=False)[:, 0].sigmoid()
    torch.testing.assert_close(SAMRecipe(1024).restoration((63, 77), 256)(logits(2)), expected)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(100, 80), (63, 77), (300, 511), (512, 512), (128, 128), (1, 5), (256, 40)])
@torch.inference_mode()
def test_medsam2_prepares_as_its_official_script(size, channels) -> None:
    side = 128
    pixels = image(size, channels)
    # resize_grayscale_to_rgb_and_resize and what follows it, step by step.
    color = Image.fromarray(pixels).convert("RGB")
    # In two steps, as Pillow 13 shrinks tall images along the columns first, which the versions before it did not.
    resized = np.array(color.resize((side, size[0])).resize((side, side))).transpose(2, 0, 1)
    expected = torch.from_numpy(resized / 255.0)
    expected -= torch.tensor((0.485, 0.456, 0.406), dtype=torch.float32)[:, None, None]
    expected /= torch.tensor((0.229, 0.224, 0.225), dtype=torch.float32)[:, None, None]
    prepared = MedSAM2Recipe(side).prepare(torch.from_numpy(pixels))
    assert prepared.dtype == torch.float32
    torch.testing.assert_close(prepared, expected.float(), atol=1e-6, rtol=0)


def test_medsam2_scales_each_axis_of_a_box() -> None:
    scaled = MedSAM2Recipe(512).scale_boxes([Box(10, 20, 40, 50)], (100, 80))
    torch.testing.assert_close(scaled, torch.tensor([[64, 102.4, 256, 256]]))


def test_medsam2_interpolates_logits() -> None:
    expected = F.interpolate(logits(2, 128), size=(100, 80), mode="bilinear", align_corners=False)[:, 0].sigmoid()
    torch.testing.assert_close(MedSAM2Recipe(512).restoration((100, 80), 128)(logits(2, 128)), expected)


@pytest.mark.parametrize("name", RECIPES)
def test_a_constant_slice_stays_finite(name) -> None:
    assert RECIPES[name](64).prepare(torch.full((30, 40), 255, dtype=torch.uint8)).isfinite().all()


@pytest.mark.parametrize("name", RECIPES)
def test_an_empty_mask_has_no_box(name) -> None:
    assert RECIPES[name](64).box_around(np.zeros((30, 40), dtype=bool)) is None


@pytest.mark.parametrize("name", RECIPES)
def test_the_box_around_a_mask_holds_it_and_little_more(name) -> None:
    mask = np.zeros((400, 512), dtype=bool)
    mask[100:200, 150:300] = True
    box = RECIPES[name](256).box_around(mask)
    assert 140 <= box.x0 <= 150
    assert 90 <= box.y0 <= 100
    assert 299 <= box.x1 <= 310
    assert 199 <= box.y1 <= 210


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", RECIPES)
def test_the_scale_is_that_of_the_boxes(name, size) -> None:
    recipe = RECIPES[name](256)
    scale = recipe.scale(size)
    (scaled,) = recipe.scale_boxes([BOX], size).tolist()
    # LiteMedSAM's drops the decimals.
    slack = 1 if name == "lite" else 1e-3
    for found, coordinate, each in zip(scaled, (12.6, 7.2, 49.9, 55.5), (*scale[::-1], *scale[::-1]), strict=True):
        assert coordinate * each - slack < found < coordinate * each + 1e-3


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", RECIPES)
def test_the_scale_is_that_of_the_prepared_slice(name, size) -> None:
    pixels = torch.zeros(size, dtype=torch.uint8)
    top, left = size[0] // 2, size[1] // 3
    pixels[top:, left:] = 255
    recipe = RECIPES[name](256)
    bright = recipe.prepare(pixels)[0] > 0.5
    rows, columns = (torch.nonzero(bright.any(dim=dim)).flatten() for dim in (1, 0))
    for places, first, length, scale in zip((rows, columns), (top, left), size, recipe.scale(size), strict=True):
        assert abs(int(places[0]) - first * scale) <= 1
        assert abs(int(places[-1]) + 1 - length * scale) <= 1
