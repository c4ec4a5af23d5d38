"""Candidates: what is decoded in a slice, where it is cut, and how it scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from box_predictor import Scripted, numbered_stack
from MedSAMSlicerLib.inference.recipes import RECIPES
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.candidates import CandidateDecoder, Candidates, grown, outline, smaller_boxes
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.packed_masks import dice, packed
from MedSAMSlicerLib.volume.slice_masks import Boxes

ROWS, COLUMNS = 32, 40
ROI = Box(6, 5, 30, 25)
ORGAN = np.s_[10:20, 12:24]
GRAY = np.full((3, ROWS, COLUMNS), 60)
# Prompts that only tell the masks of a test apart.
PROMPTS = [Box(number, 0, number + 1, 1) for number in range(5)]


def with_organ(place: tuple[slice, ...] = ORGAN) -> np.ndarray:
    voxels = GRAY.copy()
    voxels[(slice(None), *place)] = 160
    return voxels


def probability_of(place: tuple[slice, ...], value: float = 1) -> np.ndarray:
    probability = np.zeros((ROWS, COLUMNS), dtype=np.float32)
    probability[place] = value
    return probability


def a_decoder(voxels: np.ndarray, answers: list[np.ndarray], boxes: Boxes | None = None) -> CandidateDecoder:
    """Make a decoder that answers PROMPTS with these probabilities."""

    def answer(_index: int, box: Box, probability: np.ndarray) -> None:
        probability[:] = answers[int(box.x0)]

    boxes = boxes or dict.fromkeys(range(3), ROI)
    return CandidateDecoder(numbered_stack(voxels), boxes, Scripted(answer), EmbeddingCache())


def candidates_of(voxels: np.ndarray, answers: list[np.ndarray], boxes: Boxes | None = None) -> Candidates:
    return a_decoder(voxels, answers, boxes).decode(1, PROMPTS[: len(answers)])


def test_a_mask_scores_the_less_the_more_of_it_is_uncertain():
    fringed = probability_of(ORGAN)
    fringed[9, 12:24] = 0.4
    half = probability_of(ORGAN)
    half[10:15, 12:24] = 0.6
    sure, fringed_score, half_score, empty = candidates_of(
        GRAY, [probability_of(ORGAN), fringed, half, probability_of(ORGAN, 0.45)]
    ).score
    assert sure == 0
    assert sure > fringed_score > half_score > empty
    assert half_score == pytest.approx(np.log(61 / 121))


def test_empty_masks_score_worst_also_where_there_are_edges():
    empty, sure_of_nothing, found = candidates_of(
        with_organ(), [probability_of(ORGAN, 0), probability_of(ORGAN, 0.5), probability_of(ORGAN, 0.8)]
    ).score
    assert empty == sure_of_nothing == -3
    assert found > empty


def test_the_outline_on_an_edge_scores_best():
    on_edge, shifted, larger, smaller, elsewhere = candidates_of(
        with_organ(),
        [
            *(probability_of(ORGAN), probability_of(np.s_[13:23, 12:24]), probability_of(np.s_[7:23, 9:27])),
            *(probability_of(np.s_[13:17, 15:21]), probability_of(np.s_[21:25, 7:11])),
        ],
    ).score
    assert on_edge > shifted > max(larger, smaller, elsewhere)
    # Within the organ, or away from it, an outline has no contrast at all.
    assert smaller == pytest.approx(0)
    assert elsewhere == pytest.approx(0)


def test_a_dark_organ_has_the_contrast_of_a_bright_one():
    bright = candidates_of(with_organ(), [probability_of(ORGAN)]).score
    dark = candidates_of(220 - with_organ(), [probability_of(ORGAN)]).score
    assert bright[0] == pytest.approx(dark[0])
    assert bright[0] > 0


def test_contrast_does_not_depend_on_the_window():
    contrasts = [
        candidates_of(voxels, [probability_of(ORGAN)]).score[0] for voxels in (with_organ(), 30 + with_organ() // 2)
    ]
    assert contrasts[0] == pytest.approx(contrasts[1])


@pytest.mark.parametrize(
    "place",
    [np.s_[10:20, 0:12], np.s_[10:20, 28:40], np.s_[0:10, 12:24], np.s_[22:32, 12:24], np.s_[22:32, 28:40]],
    ids=["left", "right", "top", "bottom", "corner"],
)
def test_an_organ_at_the_border_of_the_image_has_the_contrast_of_its_other_sides(place):
    whole = dict.fromkeys(range(3), Box(0, 0, COLUMNS - 1, ROWS - 1))
    # Only a rim around the organ is dark, so that a look at the opposite border would show.
    voxels = np.full_like(GRAY, 160)
    rows, columns = (slice(max(span.start - 3, 0), span.stop + 3) for span in place)
    voxels[:, rows, columns] = 60
    voxels[(slice(None), *place)] = 160
    decoder = a_decoder(voxels, [probability_of(place)], whole)
    (score,) = decoder.decode(1, PROMPTS[:1]).score
    assert score == pytest.approx(0.2 * 100 / np.std(list(decoder.images.values())))


def test_a_mask_of_the_whole_image_has_no_outline_and_a_score_all_the_same():
    whole = dict.fromkeys(range(3), Box(0, 0, COLUMNS - 1, ROWS - 1))
    assert candidates_of(with_organ(), [probability_of(np.s_[:, :])], whole).score.tolist() == [0]


def test_a_mask_that_fills_its_box_is_measured_against_the_rim_around_the_box():
    box = Box(12, 10, 23, 19)
    decoder = a_decoder(with_organ(), [probability_of(np.s_[:, :])], dict.fromkeys(range(3), box))
    # Where the organ fills the box there is no deviation, and the contrast is that of the gray values.
    assert decoder.decode(1, PROMPTS[:1]).score[0] == pytest.approx(0.2 * 100)


def test_masks_are_cut_to_the_slices_own_box():
    boxes = {0: Box(3, 2, 9, 8), 1: Box(5, 6, 20, 21), 2: Box(30, 25, 36, 29)}
    decoder = a_decoder(GRAY, [probability_of(np.s_[:, :]), probability_of(np.s_[0:10, 0:10])], boxes)
    candidates = decoder.decode(1, PROMPTS[:2])
    np.testing.assert_array_equal(decoder.whole(candidates.masks[0]), probability_of(np.s_[6:22, 5:21]) > 0)
    np.testing.assert_array_equal(decoder.whole(candidates.masks[1]), probability_of(np.s_[6:10, 5:10]) > 0)
    assert not (candidates.probabilities[:, ~decoder.inside[1]] > 0).any()


@pytest.mark.parametrize(
    ("box", "frame"),
    [
        (Box(6, 5, 30, 25), np.s_[3:28, 4:33]),
        (Box(0, 0, 5, 7), np.s_[0:10, 0:8]),
        (Box(30, 20, 39, 31), np.s_[18:32, 28:40]),
        (Box(0, 0, 39, 31), np.s_[0:32, 0:40]),
    ],
)
def test_the_frame_is_a_rim_wider_than_the_boxes_but_ends_with_the_image(box, frame):
    decoder = a_decoder(GRAY, [probability_of(np.s_[:, :])], dict.fromkeys(range(3), box))
    assert decoder.frame == frame
    pixels = probability_of(np.s_[int(box.y0) : int(box.y1) + 1, int(box.x0) : int(box.x1) + 1]) > 0
    np.testing.assert_array_equal(decoder.whole(decoder.pixels_of(box)), pixels)


def test_color_slices_score_by_the_mean_of_their_channels():
    voxels = np.repeat(GRAY[..., None], 3, axis=3)
    voxels[(slice(None), *ORGAN, 1)] = 90
    gray = GRAY.copy()
    gray[(slice(None), *ORGAN)] = 70
    answers = [probability_of(ORGAN), probability_of(np.s_[13:23, 12:24])]
    in_color = candidates_of(voxels, answers)
    np.testing.assert_allclose(in_color.score, candidates_of(gray, answers).score)
    assert in_color.score[0] > in_color.score[1]


def test_the_box_around_a_mask_is_a_little_wider_but_if_wanted_not_than_the_slices_own_box():
    boxes = {0: ROI, 1: Box(12, 5, 30, 19), 2: ROI}
    decoder = a_decoder(GRAY, [], boxes)
    mask = (probability_of(ORGAN) > 0)[decoder.frame]
    margin = COLUMNS / 256
    assert decoder.box_around(mask, 0) == Box(12 - margin, 10 - margin, 24 + margin, 20 + margin)
    assert decoder.box_around(mask, 1) == Box(12, 10 - margin, 24 + margin, 20)


def test_there_is_no_box_around_an_empty_mask_or_one_outside_of_the_slices_own_box():
    boxes = {0: ROI, 1: Box(6, 5, 10, 9), 2: ROI}
    decoder = a_decoder(GRAY, [], boxes)
    mask = (probability_of(ORGAN) > 0)[decoder.frame]
    assert decoder.box_around(mask, 1) is None
    assert decoder.box_around(np.zeros_like(mask), 0) is None


@pytest.mark.parametrize("shape", [(32, 40), (101, 122), (256, 256), (404, 488), (512, 512), (600, 300)])
def test_the_official_box_around_a_mask_is_that_of_the_official_script(shape):
    rows, columns = shape
    recipe = RECIPES["lite"](256)
    stack = numbered_stack(np.zeros((1, rows, columns)))
    boxes = {0: Box(columns // 8, rows // 8, columns - columns // 8, rows - 1)}
    decoder = CandidateDecoder(stack, boxes, Scripted(lambda *_: None), EmbeddingCache())
    random = np.random.default_rng(7)
    for _ in range(20):
        x, y = (
            np.sort(random.choice(np.arange(side // 8 + 1, side - side // 8), 2, replace=False)) for side in shape[::-1]
        )
        mask = np.zeros(shape, dtype=bool)
        mask[y[0] : y[1] + 1, x[0] : x[1] + 1] = True
        ours, theirs = decoder.official_box_around(mask[decoder.frame]), recipe.box_around(mask)
        scaled = recipe.scale_boxes([ours, theirs], shape)
        # Where a pixel of the model is cut in half, rounding may differ.
        assert (scaled[0] - scaled[1]).abs().max() <= 1
    assert decoder.official_box_around(np.zeros(shape, dtype=bool)[decoder.frame]) is None


def test_sets_of_one_slice_are_joined_and_made_better_in_order():
    decoder = a_decoder(GRAY, [probability_of(ORGAN), probability_of(np.s_[10:14, 12:16], 0.6)])
    first, second = (decoder.decode(1, [prompt]) for prompt in PROMPTS[:2])
    joined = first + second.better_by(0.5)
    assert joined.boxes == PROMPTS[:2]
    np.testing.assert_array_equal(joined.masks, np.concatenate([first.masks, second.masks]))
    assert joined.score.tolist() == [first.score[0], second.score[0] + 0.5]
    # What was joined is as it was.
    assert second.better_by(0.5).score[0] == second.score[0] + 0.5


def test_the_smaller_boxes_are_the_corners_and_the_center():
    assert smaller_boxes(Box(10, 20, 30, 60)) == [
        Box(10, 20, 30, 60),
        Box(10, 20, 25, 50),
        Box(15, 20, 30, 50),
        Box(10, 30, 25, 60),
        Box(15, 30, 30, 60),
        Box(13, 26, 27, 54),
    ]


def test_the_outline_of_a_box_ends_behind_its_last_pixel():
    assert outline(Box(3, 4, 3, 9)) == Box(3, 4, 4, 10)


@pytest.mark.parametrize("numpy_counts_bits", [True, False])
def test_dice_of_all_masks_with_all_others(numpy_counts_bits, monkeypatch):
    if not numpy_counts_bits:
        # As before NumPy 2.0.
        monkeypatch.delattr(np, "bitwise_count", raising=False)
    whole, half, other, empty = (
        probability_of(place) > 0 for place in (np.s_[0:4, 0:4], np.s_[0:2, 0:4], np.s_[8:9, 8:9], np.s_[0:0])
    )
    found = dice(packed(np.stack([whole, half])), packed(np.stack([whole, half, other, empty])))
    np.testing.assert_allclose(found, [[1, 16 / 24, 0, 0], [16 / 24, 1, 0, 0]], rtol=1e-6)
    # Two empty masks do not agree on anything.
    assert dice(packed(empty[None]), packed(empty[None])).tolist() == [[0]]


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_masks_grow_to_the_four_neighbors_and_not_around_the_border(steps):
    masks = np.random.default_rng(steps).random((2, 3, 7, 9)) > 0.9
    masks[0, 0], masks[0, 0, 3, -1], masks[1, 2, -1, 4] = False, True, True
    expected = masks
    for _ in range(steps):
        wider = np.pad(expected, ((0, 0), (0, 0), (1, 1), (1, 1)))
        sides = (wider[..., 2:, 1:-1], wider[..., :-2, 1:-1], wider[..., 1:-1, 2:], wider[..., 1:-1, :-2])
        expected = expected | sides[0] | sides[1] | sides[2] | sides[3]
    np.testing.assert_array_equal(grown(masks, steps), expected)


def test_masks_that_were_seen_are_still_seen_in_what_is_joined_or_made_better():
    decoder = a_decoder(GRAY, [probability_of(ORGAN), probability_of(np.s_[10:14, 12:16], 0.6)])
    first, second = (decoder.decode(1, [prompt]) for prompt in PROMPTS[:2])
    np.testing.assert_array_equal(
        (first + second.better_by(0.5)).packed, np.concatenate([packed(first.masks), packed(second.masks)])
    )
    # Another set of probabilities has masks of its own.
    nothing = replace(first, probabilities=first.probabilities * 0)
    assert not np.any(nothing.masks)
    assert not nothing.packed.any()
