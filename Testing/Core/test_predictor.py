"""Slices and boxes in, masks out: with LiteMedSAM on a real CT, and with the tiny model where any model will do."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from MedSAMSlicerLib.inference.predictor import Embedding, Predictor
from MedSAMSlicerLib.inference.recipes import RECIPES
from MedSAMSlicerLib.model import build_model, load_checkpoint
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.embedding_model import EmbeddingModel, Features
from reference_models import decode, lite_medsam

LIVER = 5


@pytest.fixture(scope="module")
def tiny() -> Predictor:
    return Predictor(build_model("tiny"), device="cpu")


@pytest.fixture(scope="module")
def lite(lite_weights: Path) -> Predictor:
    return Predictor(load_checkpoint(lite_weights), device="cpu")


@pytest.fixture(scope="module")
def ct_slice(samples: dict[str, Path]) -> tuple[np.ndarray, np.ndarray]:
    """A slice through the liver, windowed to 40 +- 200 HU as uint8, and the liver's mask."""
    voxels = sitk.GetArrayFromImage(sitk.ReadImage(samples["example_ct_sm.nii.gz"]))
    liver = sitk.GetArrayFromImage(sitk.ReadImage(samples["example_seg.nii.gz"])) == LIVER
    index = int(liver.sum(axis=(1, 2)).argmax())
    image = (np.clip(voxels[index], -160, 240) + 160) / 400 * 255
    return image.astype(np.uint8), liver[index]


def bounds(mask: np.ndarray) -> Box:
    y, x = np.nonzero(mask)
    return Box(int(x.min()), int(y.min()), int(x.max()), int(y.max()))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


@torch.inference_mode()
def test_a_real_slice_is_segmented_as_by_the_official_script(lite, ct_slice, lite_wheel, lite_weights) -> None:
    image, liver = ct_slice
    box = bounds(liver)
    reference = lite_medsam(lite_wheel, lite_weights)
    height, width = image.shape
    scale = 256 / max(image.shape)
    rows, columns = int(height * scale + 0.5), int(width * scale + 0.5)
    small = cv2.resize(np.repeat(image[:, :, None], 3, axis=-1), (columns, rows), interpolation=cv2.INTER_AREA)
    small = (small - small.min()) / np.clip(small.max() - small.min(), 1e-8, None)
    padded = np.pad(small, ((0, 256 - rows), (0, 256 - columns), (0, 0)))
    embedding = reference.image_encoder(torch.tensor(padded).float().permute(2, 0, 1)[None])
    box_256 = torch.tensor([[int(coordinate * scale) for coordinate in (box.x0, box.y0, box.x1, box.y1)]]).float()
    logits, iou = decode(reference, embedding, box_256)
    logits = reference.postprocess_masks(logits, (rows, columns), (height, width))
    expected = logits.sigmoid().squeeze().numpy()

    prediction = lite.decode(lite.encode(image), [box])
    np.testing.assert_allclose(prediction.probabilities[0], expected, atol=0.05)
    assert dice(prediction.probabilities[0] > 0.5, expected > 0.5) > 0.999
    np.testing.assert_allclose(prediction.iou, iou[:, 0], atol=1e-3)


def test_a_real_liver_is_found_from_its_box(lite, ct_slice) -> None:
    image, liver = ct_slice
    prediction = lite.decode(lite.encode(image), [bounds(liver)])
    assert dice(prediction.probabilities[0] > 0.5, liver) > 0.9


def test_boxes_decoded_together_give_what_they_give_one_by_one(lite, ct_slice) -> None:
    image, liver = ct_slice
    embedding = lite.encode(image)
    boxes = [bounds(liver), Box(10, 20, 60, 70), Box(0, 0, image.shape[1] - 1, image.shape[0] - 1)]
    together = lite.decode(embedding, boxes)
    for index, box in enumerate(boxes):
        alone = lite.decode(embedding, [box])
        np.testing.assert_allclose(together.probabilities[index], alone.probabilities[0], atol=1e-4)
        np.testing.assert_allclose(together.iou[index], alone.iou[0], atol=1e-5)


@pytest.mark.parametrize("recipe", ["lite", "medsam", "sam"])
@pytest.mark.parametrize("window", [np.s_[30:61, 40:90], np.s_[0:1, 0:1], np.s_[100:, 117:122], np.s_[:, :]])
def test_a_window_of_a_mask_is_the_mask_there(lite, ct_slice, recipe, window, monkeypatch) -> None:
    image, liver = ct_slice
    monkeypatch.setattr(lite, "recipe", RECIPES[recipe](256 if recipe == "lite" else 1024))
    embedding = Embedding(lite.model.encode(torch.rand(1, 3, 256, 256)), image.shape)
    boxes = [bounds(liver), Box(10, 20, 60, 70)]
    whole, part = lite.decode(embedding, boxes), lite.decode(embedding, boxes, window)
    np.testing.assert_allclose(part.probabilities, whole.probabilities[(slice(None), *window)], atol=1e-5)
    np.testing.assert_array_equal(part.iou, whole.iou)


def test_half_precision_gives_nearly_the_same_embedding_and_is_not_taken_for_it(tiny) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
    half = Predictor(build_model("tiny"), device="cpu", precision="bfloat16")
    embedding, expected = half.encode(image).tensor, tiny.encode(image).tensor
    assert embedding.dtype == torch.float32
    assert 0 < float((embedding - expected).abs().max()) < 0.1
    assert half.key != tiny.key


@pytest.mark.parametrize("shape", [(50, 70), (50, 70, 3), (1, 1), (300, 2)])
def test_masks_have_the_size_of_the_slice(tiny, shape) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    embedding = tiny.encode(image)
    prediction = tiny.decode(embedding, [Box(0, 0, 0, 0), Box(0, 0, 1, 1)])
    assert prediction.probabilities.shape == (2, *shape[:2])
    assert prediction.probabilities.dtype == np.float32
    assert prediction.iou.shape == (2,)
    assert 0 <= prediction.probabilities.min() <= prediction.probabilities.max() <= 1
    assert embedding.nbytes == 256 * 4 * 4 * 4


def test_a_gray_slice_is_the_same_as_its_three_equal_channels(tiny) -> None:
    gray = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
    color = np.repeat(gray[:, :, None], 3, axis=2)
    torch.testing.assert_close(tiny.encode(gray).tensor, tiny.encode(color).tensor)


def test_slices_of_several_sizes_are_encoded_together_as_one_by_one(tiny) -> None:
    random = np.random.default_rng(3)
    images = [random.integers(0, 255, shape, dtype=np.uint8) for shape in ((50, 70), (50, 70, 3), (300, 2))]
    for image, together in zip(images, tiny.encode_all(images), strict=True):
        alone = tiny.encode(image)
        assert together.size == alone.size
        torch.testing.assert_close(together.tensor, alone.tensor)
        # It keeps nothing of the others in memory.
        assert together.tensor.untyped_storage().nbytes() == together.nbytes


def test_views_and_read_only_slices_are_taken(tiny) -> None:
    volume = np.random.default_rng(0).integers(0, 256, (6, 40, 50), dtype=np.uint8)
    volume.setflags(write=False)
    turned = volume[::-1].transpose(2, 1, 0)[:, :, 3]
    torch.testing.assert_close(tiny.encode(turned).tensor, tiny.encode(turned.copy()).tensor)


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (np.zeros((8, 8), dtype=np.float32), "holds float32.*uint8"),
        (np.zeros((8, 8), dtype=np.int16), "holds int16.*uint8"),
        (np.zeros((8, 8, 4), dtype=np.uint8), r"\(8, 8, 4\): drop the alpha channel"),
        (np.zeros((5, 8, 8), dtype=np.uint8), r"\(5, 8, 8\): give one slice"),
        (np.zeros((0, 8), dtype=np.uint8), r"\(0, 8\)"),
    ],
)
def test_what_is_no_slice_is_refused_with_a_remedy(tiny, image, text) -> None:
    with pytest.raises(ValueError, match=text):
        tiny.encode(image)


def test_no_box_is_refused(tiny) -> None:
    embedding = tiny.encode(np.zeros((8, 8), dtype=np.uint8))
    with pytest.raises(ValueError, match="no box"):
        tiny.decode(embedding, [])


def test_predictors_of_one_model_share_a_key_and_no_others_do() -> None:
    keys = [Predictor(build_model("tiny"), device="cpu").key for _ in range(2)]
    assert keys[0] == keys[1]

    other_weights = build_model("tiny")
    with torch.no_grad():
        other_weights.mask_decoder.iou_token.weight[0, 0] += 1e-6
    other_preprocessing = build_model("tiny")
    other_preprocessing.preprocessing = "sam"
    others = {Predictor(model, device="cpu").key for model in (other_weights, other_preprocessing)}
    assert len({keys[0], *others}) == 3


def test_the_preprocessing_is_the_weights_own() -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 50), dtype=np.uint8)
    squashed = Predictor(build_model("tiny"), device="cpu").encode(image).tensor
    model = build_model("tiny")
    model.preprocessing = "sam"
    assert not torch.allclose(Predictor(model, device="cpu").encode(image).tensor, squashed)


@pytest.mark.parametrize("shape", [(512, 512), (300, 512), (512, 360), (200, 256)])
def test_what_the_features_of_one_slice_teach_is_found_where_it_lies_in_another(lite, shape) -> None:
    rows, columns = shape
    random = np.random.default_rng(5)

    def with_disk(y: float, x: float) -> tuple[np.ndarray, np.ndarray]:
        j, i = np.indices(shape) + 0.5
        disk = (j - y) ** 2 + (i - x) ** 2 <= (0.06 * max(shape)) ** 2
        image = np.where(disk, 210, 60) + random.integers(0, 20, shape)
        image[0, :2] = 0, 255
        return image.astype(np.uint8), disk

    known, new = with_disk(0.35 * rows, 0.65 * columns), with_disk(0.7 * rows, 0.3 * columns)
    model = EmbeddingModel(shape, np.s_[0:rows, 0:columns])
    for index, (image, _) in enumerate((known, new)):
        model.see(index, Features(*lite.features(lite.encode(image))), Box(0, 0, columns - 1, rows - 1))
    model.learn(0, known[1], 1.0)
    found = model.likenesses([1])[1] > 0.5
    assert dice(found, new[1]) > 0.75
    # To less than a place, of which there are 64 along the longer side.
    middles = [np.argwhere(mask).mean(axis=0) * 64 / max(shape) for mask in (found, new[1])]
    np.testing.assert_allclose(*middles, atol=0.6)


@pytest.mark.parametrize(
    ("preprocessing", "scale"), [("lite", (0.1, 0.1)), ("medsam", (0.2, 0.1)), ("sam", (0.1, 0.1))]
)
def test_features_cover_a_slice_as_it_was_prepared(preprocessing, scale) -> None:
    model = build_model("tiny")
    model.preprocessing = preprocessing
    predictor = Predictor(model, device="cpu")
    embedding = predictor.encode(np.random.default_rng(0).integers(0, 256, (20, 40), dtype=np.uint8))
    values, found = predictor.features(embedding)
    assert values.shape == (256, 4, 4)
    assert found == pytest.approx(scale)
    assert predictor.side == 64
