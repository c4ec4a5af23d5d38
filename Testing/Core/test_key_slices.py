"""Key slices: what a user fixes stays, what is near follows, what is beyond the next key slice does not change."""

from __future__ import annotations

import numpy as np
import pytest

from box_predictor import BoxPredictor, NumberedSlice, Scripted, numbered_stack
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.path_propagation import propagate_path, widened_boxes
from MedSAMSlicerLib.volume.slice_masks import Boxes, Predictor, SliceMask
from MedSAMSlicerLib.volume.slice_stack import SliceStack

ROWS, COLUMNS, SLICES = 32, 36, 12
ROI = Box(6, 5, 29, 26)
LARGER = Box(2, 2, 33, 29)
KEY = Box(12, 9, 22, 19)
OTHER_KEY = Box(8, 14, 17, 24)
PAINTED = np.s_[11:17, 9:25]
NOTHING = np.s_[0:0]


def boxed(index: int, box: Box) -> dict[int, KeySlice]:
    return {index: KeySlice(2, index, box=box)}


def painted(index: int, *places: tuple[slice, ...]) -> dict[int, KeySlice]:
    return {index: KeySlice(2, index, mask=mask_of(*places))}


def mask_of(*places: tuple[slice, ...]) -> np.ndarray:
    mask = np.zeros((ROWS, COLUMNS), dtype=bool)
    for place in places:
        mask[place] = True
    return mask


def pixels_of(box: Box) -> np.ndarray:
    return mask_of(np.s_[int(box.y0) : int(box.y1) + 1, int(box.x0) : int(box.x1) + 1])


def roi_of(first: int, last: int, box: Box = ROI) -> dict[int, Box]:
    return dict.fromkeys(range(first, last + 1), box)


@pytest.fixture
def a_stack() -> SliceStack:
    random = np.random.default_rng(2)
    voxels = random.normal(80, 30, (SLICES, ROWS, COLUMNS))
    voxels[:, 10:21, 10:24] += 60
    return numbered_stack(voxels.clip(0, 255))


class Capricious(Scripted):
    """Sees an organ in every box, but a tenth of a pixel more or less makes it another mask.

    What it makes of a slice's places tells of their brightness, among much else. So whatever reaches a slice that must
    not be reached shows in its mask.
    """

    def __init__(self, stack: SliceStack) -> None:
        super().__init__(self.see)
        self.stack = stack

    @staticmethod
    def see(index: int, box: Box, probability: np.ndarray) -> None:
        sides = [round(10 * side) for side in (box.x0, box.y0, box.x1, box.y1)]
        random = np.random.default_rng([index, *sides])
        place = np.s_[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)]
        probability[place] = random.uniform(0.2, 0.95, probability[place].shape)
        probability[12:19, 12:22] = 0.9

    def features(self, embedding: NumberedSlice) -> tuple[np.ndarray, tuple[float, float]]:
        places = self.stack.image(embedding.index).reshape(ROWS // 4, 4, COLUMNS // 4, 4).mean(axis=(1, 3))
        others = np.random.default_rng(embedding.index).normal(0, 1, (4, *places.shape))
        return np.concatenate([places[None] / 50, others]).astype(np.float32), (1 / 4, 1 / 4)


@pytest.fixture
def capricious(a_stack) -> Scripted:
    return Capricious(a_stack)


def final(
    stack: SliceStack,
    boxes: Boxes,
    predictor: Predictor,
    keys: dict[int, KeySlice] | None = None,
    cache: EmbeddingCache | None = None,
) -> dict[int, SliceMask]:
    # A cache that is still empty counts as False.
    cache = EmbeddingCache() if cache is None else cache
    results = [each for each in propagate_path(stack, boxes, predictor, cache, keys) if each.final]
    assert [each.index for each in results] == sorted({each.index for each in results})
    return {each.index: each for each in results}


def assert_same(found: dict[int, SliceMask], expected: dict[int, SliceMask], indices: range) -> None:
    for index in indices:
        np.testing.assert_array_equal(found[index].mask, expected[index].mask, err_msg=f"slice {index}")
        assert found[index].box == expected[index].box, index
        assert found[index].confidence == expected[index].confidence, index


def differ(found: dict[int, SliceMask], expected: dict[int, SliceMask], indices: range) -> bool:
    return any(not np.array_equal(found[index].mask, expected[index].mask) for index in indices)


@pytest.mark.parametrize("given", [{}, {"box": KEY, "mask": mask_of(PAINTED)}], ids=["neither", "both"])
def test_a_key_slice_has_either_a_box_or_a_mask(given):
    with pytest.raises(ValueError, match="The key slice 4 needs either a box or a mask: give one of them"):
        KeySlice(2, 4, **given)


def test_the_mask_of_a_key_slice_is_one_slice():
    with pytest.raises(
        ValueError, match=r"The mask of key slice 4 has the shape \(1, 32, 36\): give \(rows, columns\)"
    ):
        KeySlice(2, 4, mask=mask_of(PAINTED)[None])


@pytest.mark.parametrize("index", [1, 4, 5, 8])
def test_a_key_box_fixes_its_slice(a_stack, index):
    found = final(a_stack, roi_of(1, 8), BoxPredictor(), boxed(index, KEY))
    np.testing.assert_array_equal(found[index].mask, pixels_of(KEY))
    assert found[index].confidence == 1
    assert found[index].box == KEY
    assert all(each.confidence <= 1 for each in found.values())


def test_the_structure_of_a_key_box_is_segmented_inside_of_it(a_stack, capricious):
    found = final(a_stack, roi_of(1, 8), capricious, boxed(4, KEY))
    assert not (found[4].mask & ~pixels_of(KEY)).any()
    assert (found[4].mask & mask_of(np.s_[12:19, 12:22])).sum() == 7 * 10


def test_neighbors_follow_a_key_box(a_stack):
    # A predictor that fills boxes knows nothing of the structure: only the key tells that it is smaller.
    gray = numbered_stack(np.full((SLICES, ROWS, COLUMNS), 100))
    found = final(gray, roi_of(1, 8), BoxPredictor(), boxed(4, KEY))
    without = final(gray, roi_of(1, 8), BoxPredictor())
    for index in (3, 5):
        assert found[index].mask.sum() < 0.5 * without[index].mask.sum()
        assert not (pixels_of(KEY) & ~found[index].mask).any()


def test_between_equal_key_boxes_the_structure_stays_the_same():
    gray = numbered_stack(np.full((SLICES, ROWS, COLUMNS), 100))

    def answer(_index: int, box: Box, probability: np.ndarray) -> None:
        # Fills a box given by its outer edges, to the pixel.
        probability[round(box.y0) : round(box.y1), round(box.x0) : round(box.x1)] = 1

    found = final(gray, roi_of(1, 9), Scripted(answer), {**boxed(3, KEY), **boxed(7, KEY)})
    for index in range(3, 8):
        np.testing.assert_array_equal(found[index].mask, pixels_of(KEY), err_msg=str(index))


@pytest.mark.parametrize("places", [(PAINTED,), (PAINTED, np.s_[22:24, 8:10]), (NOTHING,)], ids=["one", "two", "empty"])
@pytest.mark.parametrize("index", [1, 4, 5, 8])
def test_a_painted_slice_stays_voxel_for_voxel(a_stack, capricious, index, places):
    found = final(a_stack, roi_of(1, 8), capricious, painted(index, *places))
    np.testing.assert_array_equal(found[index].mask, mask_of(*places))
    assert found[index].confidence == 1
    assert list(found) == list(range(1, 9))


def test_a_painted_slice_stays_also_where_it_reaches_beyond_the_roi(a_stack, capricious):
    place = np.s_[0:32, 20:36]
    found = final(a_stack, roi_of(1, 8), capricious, painted(4, place))
    np.testing.assert_array_equal(found[4].mask, mask_of(place))


FURTHER = {
    "box": boxed(7, OTHER_KEY),
    "mask": painted(7, PAINTED),
    "empty": painted(7, NOTHING),
}


@pytest.mark.parametrize("further", FURTHER.values(), ids=FURTHER)
@pytest.mark.parametrize("key", [boxed(4, KEY), painted(4, PAINTED), painted(4, NOTHING)], ids=["box", "mask", "empty"])
def test_a_further_key_changes_nothing_beyond_the_next_one(a_stack, capricious, key, further):
    before = final(a_stack, roi_of(0, 11), capricious, key)
    after = final(a_stack, roi_of(0, 11), capricious, {**key, **further})
    assert_same(after, before, range(5))
    assert differ(after, before, range(7, 12))
    # As it says nothing of its neighbors' boxes, an empty mask may leave them as they are.
    assert further is FURTHER["empty"] or differ(after, before, range(5, 7))
    # The same from the other side: what lies beyond slice 7 does not know of slice 4.
    assert_same(after, final(a_stack, roi_of(0, 11), capricious, further), range(7, 12))


def test_a_key_between_two_others_changes_their_section_only(a_stack, capricious):
    outer = {**boxed(3, KEY), **painted(8, PAINTED)}
    before = final(a_stack, roi_of(0, 11), capricious, outer)
    after = final(a_stack, roi_of(0, 11), capricious, {**outer, **boxed(5, OTHER_KEY)})
    assert_same(after, before, range(4))
    assert_same(after, before, range(8, 12))
    assert differ(after, before, range(4, 8))


def test_a_removed_key_leaves_nothing_behind(a_stack, capricious):
    cache = EmbeddingCache()
    keys = {**boxed(3, KEY), **painted(8, PAINTED)}
    none, one = (final(a_stack, roi_of(0, 11), capricious, each, cache) for each in ({}, boxed(3, KEY)))
    both = final(a_stack, roi_of(0, 11), capricious, keys, cache)
    assert differ(both, one, range(4, 12))
    assert_same(final(a_stack, roi_of(0, 11), capricious, boxed(3, KEY), cache), one, range(12))
    assert_same(final(a_stack, roi_of(0, 11), capricious, {}, cache), none, range(12))


def test_what_a_key_slice_shows_is_found_again_by_its_look_where_no_box_leads_to_it():
    gray = numbered_stack(np.full((SLICES, ROWS, COLUMNS), 100))
    # What is shown touches what is to be found, but overlaps it nowhere.
    other, shown, moved = np.s_[8:24, 8:14], np.s_[8:16, 18:28], np.s_[16:24, 18:28]

    def place_of(index: int) -> tuple[slice, slice]:
        return shown if index == 4 else moved

    def answer(index: int, box: Box, probability: np.ndarray) -> None:
        # What the box holds whole: first the other structure, as it is larger.
        for rows, columns in (other, place_of(index)):
            if box.y0 <= rows.start and box.x0 <= columns.start and box.y1 >= rows.stop and box.x1 >= columns.stop:
                probability[rows, columns] = 0.75
                return

    class Seeing(Scripted):
        def features(self, embedding: NumberedSlice) -> tuple[np.ndarray, tuple[float, float]]:
            tissues = np.stack([mask_of(other), mask_of(place_of(embedding.index))])
            places = tissues.reshape(2, ROWS // 2, 2, COLUMNS // 2, 2).mean(axis=(2, 4))
            return places.astype(np.float32), (1 / 2, 1 / 2)

    def found(predictor: Scripted, keys: dict[int, KeySlice]) -> list[np.ndarray]:
        return [each.mask for index, each in final(gray, roi_of(2, 6), predictor, keys).items() if index != 4]

    for mask in found(Seeing(answer), {}) + found(Scripted(answer), painted(4, shown)):
        np.testing.assert_array_equal(mask, mask_of(other))
    for mask in found(Seeing(answer), painted(4, shown)):
        np.testing.assert_array_equal(mask, mask_of(moved))


def test_a_further_key_encodes_nothing_anew(a_stack):
    predictor, cache = BoxPredictor(), EmbeddingCache()
    final(a_stack, roi_of(1, 8), predictor, boxed(3, KEY), cache)
    predictor.encoded.clear()
    final(a_stack, roi_of(1, 8), predictor, {**boxed(3, KEY), **boxed(5, KEY)}, cache)
    assert predictor.encoded == []


def test_a_key_larger_than_the_roi_widens_its_section(a_stack):
    keys = {**boxed(3, ROI), **boxed(6, LARGER)}
    found = final(a_stack, roi_of(0, 9), BoxPredictor(), keys)
    np.testing.assert_array_equal(found[6].mask, pixels_of(LARGER))
    np.testing.assert_array_equal(found[3].mask, pixels_of(ROI))
    for index in (0, 1, 2):
        assert not (found[index].mask & ~pixels_of(ROI)).any(), index
    for index in (5, 7):
        assert (found[index].mask & ~pixels_of(ROI)).any(), index
    assert not any((each.mask & ~pixels_of(LARGER)).any() for each in found.values())


@pytest.mark.parametrize(("index", "last"), [(10, 10), (0, 8)])
@pytest.mark.parametrize(
    "key", [{"box": KEY}, {"mask": mask_of(PAINTED)}, {"mask": mask_of()}], ids=["box", "mask", "empty"]
)
def test_a_key_beyond_the_end_of_the_roi_moves_the_end_there(a_stack, capricious, index, last, key):
    found = final(a_stack, roi_of(3, 8), capricious, {index: KeySlice(2, index, **key)})
    assert list(found) == list(range(min(index, 3), last + 1))
    assert found[index].confidence == 1
    assert any(found[index].mask.any() for index in found)


def test_a_key_needs_no_roi(a_stack):
    found = final(a_stack, {}, BoxPredictor(), {**boxed(4, KEY), **boxed(6, KEY)})
    assert list(found) == [4, 5, 6]
    assert all(np.array_equal(each.mask, pixels_of(KEY)) for each in found.values())


@pytest.mark.parametrize("empty", [(0,), (8,), (0, 2), (8, 10), (0, 10)])
def test_empty_slices_on_the_way_to_a_key_without_an_roi_stay_empty(a_stack, empty):
    keys = {index: KeySlice(2, index, mask=mask_of()) for index in empty} | boxed(5, KEY)
    found = final(a_stack, {}, BoxPredictor(), keys)
    assert list(found) == list(range(min(keys), max(keys) + 1))
    assert not any(found[index].mask.any() for index in empty)


def test_empty_keys_alone_find_nothing(a_stack):
    assert final(a_stack, {}, BoxPredictor(), painted(4, NOTHING)) == {}


def test_an_empty_key_needs_no_room():
    # The boxes of an oblique ROI; a larger key has widened those up to the empty one, which does not pass that on.
    boxes = {index: Box(index, 5, index + 9, 20) for index in range(2, 9)}
    assert widened_boxes(boxes, painted(4, NOTHING)) == boxes
    widened = widened_boxes(boxes, {**boxed(3, LARGER), **painted(5, NOTHING)})
    assert widened[4] == LARGER
    assert [widened[index] for index in (6, 7, 8)] == [boxes[index] for index in (6, 7, 8)]
    # Beyond the end, it continues with the last box.
    assert widened_boxes(boxes, painted(10, NOTHING)) == {**boxes, 9: boxes[8], 10: boxes[8]}


def test_keys_inside_of_the_roi_leave_its_boxes_as_they_are():
    boxes = roi_of(2, 8)
    keys = {**boxed(3, KEY), **painted(5, PAINTED), **painted(7, np.s_[26:27, 29:30])}
    assert widened_boxes(boxes, keys) == boxes


@pytest.mark.parametrize(
    "key", [{"box": KEY}, {"mask": mask_of(PAINTED)}, {"mask": mask_of()}], ids=["box", "mask", "empty"]
)
def test_one_slice_that_is_a_key_is_done(a_stack, key):
    found = final(a_stack, roi_of(5, 5), BoxPredictor(), {5: KeySlice(2, 5, **key)})
    assert list(found) == [5]
    np.testing.assert_array_equal(found[5].mask, key["mask"] if "mask" in key else pixels_of(KEY))


def test_keys_at_both_ends_and_in_every_slice(a_stack, capricious):
    ends = {**boxed(2, KEY), **painted(6, PAINTED)}
    found = final(a_stack, roi_of(2, 6), capricious, ends)
    assert list(found) == [2, 3, 4, 5, 6]
    assert not (found[2].mask & ~pixels_of(KEY)).any()
    np.testing.assert_array_equal(found[6].mask, mask_of(PAINTED))
    every = {index: KeySlice(2, index, mask=mask_of(np.s_[10 : 10 + index, 10:20])) for index in range(2, 7)}
    for index, each in final(a_stack, roi_of(2, 6), capricious, every).items():
        np.testing.assert_array_equal(each.mask, every[index].mask, err_msg=str(index))


def test_a_correction_at_the_edge_of_the_slice_works(a_stack):
    # The strict predictor refuses boxes that leave the slice.
    whole = Box(0, 0, COLUMNS - 1, ROWS - 1)
    shifted_right = {**boxed(3, Box(0, 0, 9, 9)), **boxed(6, Box(26, 22, COLUMNS - 1, ROWS - 1))}
    found = final(a_stack, roi_of(0, 9, whole), BoxPredictor(), shifted_right)
    np.testing.assert_array_equal(found[6].mask, pixels_of(Box(26, 22, COLUMNS - 1, ROWS - 1)))


def test_provisional_slices_come_first_also_with_keys(a_stack):
    results = list(propagate_path(a_stack, roi_of(2, 5), BoxPredictor(), EmbeddingCache(), boxed(4, KEY)))
    assert [(each.index, each.final) for each in results] == [
        *((index, False) for index in (3, 4, 5, 2)),
        # What was corrected is shown at once.
        (4, False),
        *((index, True) for index in (2, 3, 4, 5)),
    ]
