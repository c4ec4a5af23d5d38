"""Cut-outs: which part of large slices is looked at enlarged, and how what is seen there joins the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from box_predictor import BoxPredictor, FilledBoxes, Shape
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.candidates import CandidateDecoder
from MedSAMSlicerLib.volume.cut_out import cut_out
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache, Window
from MedSAMSlicerLib.volume.following import follow
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.slice_masks import Boxes
from MedSAMSlicerLib.volume.slice_stack import SliceStack

SIDE = 256
LESION = Box(300, 200, 329, 219)


def test_a_cut_out_is_a_square_around_the_middle_of_all_boxes():
    boxes = [LESION, Box(310, 190, 339, 209)]
    rows, columns = cut_out(boxes, (512, 600), SIDE)
    assert rows.stop - rows.start == columns.stop - columns.start
    assert (rows.start + rows.stop) / 2 == pytest.approx((190 + 220) / 2, abs=0.5)
    assert (columns.start + columns.stop) / 2 == pytest.approx((300 + 340) / 2, abs=0.5)


@pytest.mark.parametrize("size", [1, 20, 50, 80, 110])
def test_it_shows_more_than_the_structure_and_enlarges_no_more_than_twice(size):
    box = Box(200, 220, 199 + size, 219 + (size + 1) // 2)
    rows, columns = cut_out([box], (512, 512), SIDE)
    assert rows.stop - rows.start >= max(2 * size, SIDE / 2)
    # Enlarged it is.
    assert rows.stop - rows.start < 0.75 * 512
    assert columns.start <= box.x0 - size / 2
    assert box.x1 + size / 2 < columns.stop


@pytest.mark.parametrize(
    "box",
    [Box(0, 0, 9, 9), Box(630, 500, 639, 511), Box(0, 250, 9, 270), Box(300, 505, 310, 511)],
    ids=["top left", "bottom right", "left", "bottom"],
)
def test_at_the_border_it_is_moved_into_the_slice(box):
    rows, columns = cut_out([box], (512, 640), SIDE)
    assert 0 <= rows.start <= box.y0 < box.y1 < rows.stop <= 512
    assert 0 <= columns.start <= box.x0 < box.x1 < columns.stop <= 640
    assert rows.stop - rows.start == columns.stop - columns.start


@pytest.mark.parametrize(
    ("shape", "side"), [((256, 256), 256), ((320, 384), 256), ((512, 512), 1024), ((1536, 1000), 1024)]
)
def test_there_is_none_where_the_model_sees_nearly_all_pixels(shape, side):
    assert cut_out([LESION], shape, side) is None


@pytest.mark.parametrize(
    ("box", "shape"),
    [
        (Box(100, 100, 299, 250), (512, 512)),
        (Box(0, 20, 511, 60), (512, 512)),
        # Around it there is hardly less than the whole slice.
        (Box(150, 150, 299, 250), (512, 512)),
    ],
    ids=["large", "wide", "half"],
)
def test_there_is_none_for_large_structures(box, shape):
    assert cut_out([box], shape, SIDE) is None


def test_there_is_none_that_is_larger_than_a_narrow_slice():
    assert cut_out([Box(20, 300, 29, 309)], (600, 100), SIDE) is None
    assert cut_out([Box(20, 300, 29, 309)], (600, 200), SIDE) is not None


ROWS, COLUMNS = 120, 150
ROI = Box(90, 40, 104, 52)


@dataclass(frozen=True)
class Seen(Shape):
    """The embedding of `Twofold`: the image itself."""

    image: np.ndarray = field(default_factory=lambda: np.zeros((1, 1), dtype=np.uint8))


class Twofold(BoxPredictor):
    """Answers in a whole slice and in a cut-out of it what a test wrote, as images of probabilities."""

    def __init__(self, whole: Callable[[np.ndarray], np.ndarray], part: Callable[[np.ndarray], np.ndarray]) -> None:
        super().__init__(side=64)
        self.whole, self.part = whole, part

    def encode(self, image: np.ndarray) -> Seen:
        shape = super().encode(image)
        return Seen(shape.rows, shape.columns, image=image)

    def decode(self, embedding: Seen, boxes: Sequence[Box], window: Window | None = None) -> FilledBoxes:
        filled = super().decode(embedding, boxes)
        answer = self.whole if embedding.image.shape == (ROWS, COLUMNS) else self.part
        filled.probabilities[:] = answer(embedding.image)
        return filled.within(window)


def always(probability: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda image: np.full(image.shape, probability)


def bright_pixels(image: np.ndarray) -> np.ndarray:
    return np.where(image > 128, 0.9, 0.1)


@pytest.fixture
def a_stack() -> SliceStack:
    voxels = np.random.default_rng(8).integers(0, 256, (3, ROWS, COLUMNS)).astype(np.uint8)
    return SliceStack(voxels, (1.0, 1.0, 3.0), axis="k", window="full")


def a_decoder(
    stack: SliceStack, predictor: BoxPredictor, boxes: Boxes | None = None, **options: object
) -> CandidateDecoder:
    boxes = boxes or dict.fromkeys(range(3), ROI)
    return CandidateDecoder(stack, boxes, predictor, EmbeddingCache(), **{"structure": boxes.values(), **options})


@pytest.mark.parametrize(("whole", "part", "both"), [(0.2, 0.8, 0.5), (0.9, 0.5, 0.75), (0.3, 0.3, 0.3)])
def test_the_mean_of_both_is_that_of_their_odds(a_stack, whole, part, both):
    decoder = a_decoder(a_stack, Twofold(always(whole), always(part)))
    probability = decoder.decode(1, [ROI]).probabilities[0]
    np.testing.assert_allclose(probability[decoder.inside[1]], both, atol=1e-3)
    assert not probability[~decoder.inside[1]].any()


@pytest.mark.parametrize(
    "box", [ROI, Box(0, 0, 12, 9), Box(140, 110, 149, 119), Box(0, 60, 5, 70)], ids=["inside", "first", "last", "left"]
)
def test_what_is_seen_in_the_cut_out_comes_to_its_place(a_stack, box):
    decoder = a_decoder(a_stack, Twofold(always(0.5), bright_pixels), dict.fromkeys(range(3), box))
    mask = decoder.whole(decoder.decode(1, [box]).masks[0])
    expected = np.zeros((ROWS, COLUMNS), dtype=bool)
    place = np.s_[int(box.y0) : int(box.y1) + 1, int(box.x0) : int(box.x1) + 1]
    expected[place] = a_stack.image(1)[place] > 128
    assert expected.any()
    np.testing.assert_array_equal(mask, expected)


def test_each_box_has_its_own_mask_and_one_beyond_the_cut_out_that_of_the_whole_slice(a_stack):
    predictor = Twofold(always(0.8), always(0.2))
    decoder = a_decoder(a_stack, predictor)
    far = Box(2, 2, 100, 60)
    found = decoder.decode(1, [far, ROI, far]).probabilities[:, decoder.inside[1]]
    np.testing.assert_allclose(found[0], 0.8, atol=1e-3)
    np.testing.assert_allclose(found[1], 0.5, atol=1e-3)
    np.testing.assert_allclose(found[2], 0.8, atol=1e-3)


def test_where_the_room_is_wider_than_the_cut_out_the_rest_is_that_of_the_whole_slice(a_stack):
    room = dict.fromkeys(range(3), Box(0, 0, COLUMNS - 1, ROWS - 1))
    decoder = a_decoder(a_stack, Twofold(always(0.8), always(0.2)), room=room).within(room)
    probability = decoder.decode(1, [ROI]).probabilities[0]
    rows, columns = cut_out([ROI], (ROWS, COLUMNS), 64)
    expected = np.full((ROWS, COLUMNS), 0.8)
    expected[rows, columns] = 0.5
    np.testing.assert_allclose(probability, expected, atol=1e-3)


def test_the_boxes_are_those_of_the_cut_out_there_and_each_slice_is_encoded_twice(a_stack):
    predictor = Twofold(always(0.8), always(0.2))
    decoder = a_decoder(a_stack, predictor)
    rows, columns = cut_out([ROI], (ROWS, COLUMNS), 64)
    for _ in range(2):
        decoder.decode(1, [ROI])
    moved = Box(ROI.x0 - columns.start, ROI.y0 - rows.start, ROI.x1 - columns.start, ROI.y1 - rows.start)
    assert predictor.prompts == [ROI, moved]
    whole, part = predictor.encoded
    np.testing.assert_array_equal(whole, a_stack.image(1))
    np.testing.assert_array_equal(part, a_stack.image(1)[rows, columns])


@pytest.mark.parametrize("case", ["not wanted", "small slice", "large structure"])
def test_without_a_cut_out_a_slice_is_encoded_once(a_stack, case):
    predictor = Twofold(always(0.8), always(0.2))
    if case == "small slice":
        predictor.side = 128
    box = Box(20, 20, 120, 100) if case == "large structure" else ROI
    structure = None if case == "not wanted" else [box]
    decoder = a_decoder(a_stack, predictor, dict.fromkeys(range(3), box), structure=structure)
    np.testing.assert_allclose(decoder.decode(1, [box]).probabilities[0][decoder.inside[1]], 0.8, atol=1e-3)
    assert len(predictor.encoded) == 1


def test_the_slice_that_a_structure_is_followed_from_is_looked_at_enlarged_and_no_other(a_stack):
    predictor = Twofold(always(0.5), bright_pixels)
    first = next(follow(a_stack, KeySlice(2, 1, ROI), predictor, EmbeddingCache())).mask
    place = np.s_[ROI.y0 + 2 : ROI.y1 - 1, ROI.x0 + 2 : ROI.x1 - 1]
    assert (first[place] == (a_stack.image(1)[place] > 128)).mean() > 0.9
    assert [image.shape for image in predictor.encoded] == [(ROWS, COLUMNS), (38, 38)]
    list(follow(a_stack, KeySlice(2, 1, ROI), predictor, EmbeddingCache()))
    assert [image.shape for image in predictor.encoded].count((38, 38)) == 2
