"""A structure is followed from known slices to all others by memory, with a strict stand-in for the network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from MedSAMSlicerLib.inference.predictor import Predictor
from MedSAMSlicerLib.model import build_model
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.memory_propagation import propagate_memory
from MedSAMSlicerLib.volume.slice_stack import SliceStack

AXIS = 2


@dataclass(frozen=True)
class FakeMemory:
    index: int
    nbytes: int = 1000


@dataclass(frozen=True)
class FakeSighting:
    probability: np.ndarray
    memory: FakeMemory
    presence: float = 0.9
    iou: float = 0.8


class FakeTracker:
    """Finds the bright pixels of a slice, and is strict about what it is given to remember.

    A slice's first two pixels tell its index, so that memories can be checked for their distances.
    """

    key = "fake"

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.asked: dict[int, tuple[list[tuple[int, int]], list[int]]] = {}

    def encode(self, image: np.ndarray) -> np.ndarray:
        return _Embedded(image)

    def decode(self, embedding: object, boxes: list[Box], window: object = None) -> object:
        raise AssertionError("A slice is followed by memory, not by boxes.")

    def box_around(self, mask: np.ndarray) -> Box | None:
        raise AssertionError("A slice is followed by memory, not by boxes.")

    def see_box(self, embedding: np.ndarray, box: Box) -> FakeSighting:
        return self._look(embedding.image)

    def see_mask(self, embedding: np.ndarray, mask: np.ndarray) -> FakeSighting:
        assert mask.shape == embedding.image.shape
        return self._look(embedding.image)

    def follow(self, embedding, keys, past, length) -> FakeSighting:
        index = index_of(embedding.image)
        assert all(isinstance(memory, FakeMemory) for memory in (*past, *(memory for _, memory in keys)))
        assert 1 <= len(keys) <= 2
        assert len(past) <= 15
        near = min(keys, key=lambda each: abs(each[1].index - index) if each[0] > 0 else 999)
        way = 1 if index > near[1].index else -1
        for distance, memory in keys:
            assert distance == way * (index - memory.index)
        # The slices right before, the nearest first, up to the known one that all began with.
        assert [memory.index for memory in past] == [index - way * age for age in range(1, len(past) + 1)]
        assert near[1].index not in [memory.index for memory in past]
        assert length == self.length
        self.asked[index] = ([(distance, memory.index) for distance, memory in keys], [m.index for m in past])
        return self._look(embedding.image)

    def _look(self, image: np.ndarray) -> FakeSighting:
        index = index_of(image)
        self.seen.append(index)
        return FakeSighting((image == 200).astype(np.float32), FakeMemory(index))


@dataclass(frozen=True)
class _Embedded:
    image: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.image.nbytes


def index_of(image: np.ndarray) -> int:
    return int(image[0, 0]) + 200 * int(image[0, 1])


def stack_of(shown: range, length: int = 40) -> SliceStack:
    """A structure of 4 x 5 pixels in some slices."""
    voxels = np.zeros((length, 10, 12), dtype=np.uint8)
    voxels[shown.start : shown.stop, 3:7, 4:9] = 200
    voxels[:, 0, 1], voxels[:, 0, 0] = np.divmod(np.arange(length), 200)
    # So that the window leaves all values as they are.
    voxels[:, 9, 11] = 255
    return SliceStack(voxels, (1, 1, 5), axis="k", window="full")


BOX = Box(3, 2, 9, 7)


def run(stack, boxes, keys=(), cache=None, tracker=None, **options):
    tracker = tracker or FakeTracker()
    tracker.length = len(stack)
    by_index = {key.index: key for key in keys}
    cache = EmbeddingCache() if cache is None else cache
    results = list(propagate_memory(stack, boxes, tracker, cache, by_index, **options))
    first, last = results[: len(results) // 2], results[len(results) // 2 :]
    assert not any(result.final for result in first)
    assert all(result.final for result in last)
    indices = [result.index for result in last]
    assert indices == sorted({result.index for result in first}) == list(range(indices[0], indices[-1] + 1))
    return tracker, last


def painted(index: int, empty: bool = False) -> KeySlice:
    mask = np.zeros((10, 12), dtype=bool)
    mask[3:7, 4:9] = not empty
    return KeySlice(AXIS, index, mask=mask)


def found(results) -> list[int]:
    return sorted(result.index for result in results if result.mask.any())


def test_the_middle_slice_of_a_3d_box_begins_and_all_follow() -> None:
    stack = stack_of(range(0, 40))
    tracker, results = run(stack, dict.fromkeys(range(10, 31), BOX))
    assert tracker.seen == [20, *range(21, 31), *range(19, 9, -1)]
    assert found(results) == list(range(10, 31))
    # Both ways begin anew from the known slice: nothing of the other way is remembered.
    assert tracker.asked[21] == ([(1, 20)], [])
    assert tracker.asked[30] == ([(10, 20)], list(range(29, 20, -1)))
    assert tracker.asked[17] == ([(3, 20)], [18, 19])


def test_the_memory_is_bounded_whatever_the_number_of_slices() -> None:
    tracker, _ = run(stack_of(range(0, 200), 200), {}, [painted(2), painted(5)])
    assert tracker.asked[199] == ([(194, 5)], list(range(198, 183, -1)))


def test_masks_end_at_the_roi() -> None:
    stack = stack_of(range(0, 40))
    _, results = run(stack, {index: Box(6, 4, 9, 5) for index in range(10, 13)})
    assert [result.mask.sum() for result in results] == [2 * 3] * 3
    assert results[0].mask[4:6, 6:9].all()


def test_eight_slices_without_the_structure_end_it_and_the_rest_of_the_roi_comes_empty() -> None:
    stack = stack_of(range(18, 23))
    tracker, results = run(stack, dict.fromkeys(range(0, 40), BOX))
    assert sorted(tracker.seen) == list(range(10, 31))
    assert sorted(result.index for result in results) == list(range(40))
    assert found(results) == list(range(18, 23))


def test_a_gap_of_seven_slices_is_crossed() -> None:
    stack = stack_of(range(10, 31))
    stack.voxels[22:29, 3:7, 4:9] = 0
    _, results = run(stack, dict.fromkeys(range(0, 40), BOX))
    assert found(results) == [*range(10, 22), 29, 30]


def test_without_a_box_the_structure_is_followed_to_its_ends_and_no_farther() -> None:
    _, results = run(stack_of(range(5, 25)), {}, [KeySlice(AXIS, 12, box=BOX)])
    assert sorted(result.index for result in results) == list(range(5, 25))


def test_without_a_box_a_distance_bounds_it() -> None:
    tracker, results = run(stack_of(range(0, 40)), {}, [painted(12), painted(10)], farthest=3)
    assert sorted(tracker.seen) == list(range(9, 16)) == found(results)
    # A key slice beyond it moves the end there, and no farther.
    tracker, results = run(stack_of(range(0, 40)), {}, [painted(12), painted(17)], farthest=3)
    assert sorted(tracker.seen) == list(range(9, 18)) == found(results)


def test_key_slices_condition_what_lies_between_them_from_both_sides() -> None:
    tracker, results = run(stack_of(range(0, 40)), {}, [painted(10), painted(15)], farthest=0)
    assert found(results) == list(range(10, 16))
    assert tracker.asked == {
        11: ([(1, 10), (-4, 15)], []),
        12: ([(2, 10), (-3, 15)], [11]),
        14: ([(-4, 10), (1, 15)], []),
        13: ([(-3, 10), (2, 15)], [14]),
    }
    assert [results[0].confidence, results[-1].confidence] == [1, 1]
    assert all(result.confidence == pytest.approx(0.9) for result in results[1:-1])


def test_a_correction_looks_only_at_what_lies_up_to_the_next_known_slices() -> None:
    stack, cache, boxes = stack_of(range(0, 40)), EmbeddingCache(), dict.fromkeys(range(5, 36), BOX)
    run(stack, boxes, cache=cache)
    tracker, results = run(stack, boxes, [painted(30)], cache=cache)
    assert sorted(tracker.seen) == list(range(21, 36))
    again, _ = run(stack, boxes, [painted(30)], cache=cache)
    assert again.seen == []
    second, more = run(stack, boxes, [painted(30), painted(10)], cache=cache)
    assert sorted(second.seen) == list(range(5, 20))
    assert found(results) == found(more) == list(range(5, 36))
    # Taking a correction back costs nothing either: what was there before it is still known.
    back, _ = run(stack, boxes, [painted(10)], cache=cache)
    assert back.seen == []


def test_an_empty_key_slice_keeps_off_what_lies_beyond_it() -> None:
    stack = stack_of(range(0, 40))
    tracker, results = run(stack, dict.fromkeys(range(10, 31), BOX), [painted(25, empty=True)])
    assert found(results) == list(range(10, 25))
    assert sorted(result.index for result in results) == list(range(10, 31))
    assert tracker.asked[24] == ([(4, 20), (-1, 25)], [23, 22, 21])
    assert {26, 30}.isdisjoint(tracker.seen)


def test_between_two_empty_key_slices_nothing_is_looked_for() -> None:
    keys = [painted(5), painted(20, empty=True), painted(30, empty=True)]
    tracker, results = run(stack_of(range(0, 40)), {}, keys)
    assert set(range(21, 40)).isdisjoint({*tracker.seen} - {30})
    assert found(results) == list(range(0, 20))


def test_a_key_slice_counts_though_the_rois_box_shows_nothing() -> None:
    stack = stack_of(range(0, 40))
    stack.voxels[19:22, 3:7, 4:9] = 0
    _, results = run(stack, dict.fromkeys(range(10, 31), BOX), [painted(25)])
    assert found(results) == [*range(10, 19), *range(22, 31)]


def test_what_was_found_is_looked_for_again_once_a_slice_before_it_has_changed() -> None:
    stack, cache, boxes = stack_of(range(0, 40)), EmbeddingCache(), dict.fromkeys(range(10, 31), BOX)
    run(stack, boxes, cache=cache)
    stack.voxels[25, 3, 4] = 0
    tracker, _ = run(stack, boxes, cache=cache)
    assert tracker.seen == list(range(25, 31))


@pytest.mark.parametrize(
    ("shown", "boxes", "keys", "text"),
    [
        (range(0, 40), {}, [], "There is nothing to follow: give an ROI"),
        (range(0, 5), {}, [KeySlice(AXIS, 20, box=BOX)], "Nothing was found in slice 20: draw the box around"),
        (range(0, 40), {}, [painted(3, empty=True), painted(9, empty=True)], "Nothing was found in slice 3, 9"),
    ],
)
def test_nothing_to_follow_is_told(shown, boxes, keys, text) -> None:
    with pytest.raises(ValueError, match=text):
        run(stack_of(shown), boxes, keys)


def test_a_3d_box_in_whose_middle_nothing_is_comes_empty_and_without_a_look_at_the_rest() -> None:
    tracker, results = run(stack_of(range(0, 5)), dict.fromkeys(range(0, 40), BOX))
    assert tracker.seen == [19]
    assert found(results) == []
    assert len(results) == 40


def with_fragments(length: int = 40) -> SliceStack:
    """The structure, and beside it, up to slice 15 and from 24 on, something else of a few pixels."""
    stack = stack_of(range(0, length), length)
    stack.voxels[:16, 8, 10] = stack.voxels[24:, 8, 10] = 200
    return SliceStack(stack.voxels, (1, 1, 1), axis="k", window="full")


def test_what_hangs_together_with_nothing_is_dropped_and_counted() -> None:
    stack, tracker = with_fragments(), FakeTracker()
    tracker.length = len(stack)
    boxes = dict.fromkeys(range(10, 31), Box(2, 2, 11, 9))
    *results, dropped = outcome_of(propagate_memory(stack, boxes, tracker, EmbeddingCache()))
    assert dropped == 2
    assert all(result.mask.sum() == 4 * 5 for result in results if result.final)
    assert len(results) == 2 * 21


def outcome_of(results):
    """Yield all that a generator yields, and last what it returns."""
    yield (yield from results)


def test_what_a_key_slice_shows_stays_and_so_does_what_lies_beyond_it() -> None:
    stack, boxes = with_fragments(), dict.fromkeys(range(5, 36), Box(2, 2, 11, 9))
    mask = stack.voxels[27] == 200
    _, results = run(stack, boxes, [KeySlice(AXIS, 27, mask=mask)])
    by_index = {result.index: result.mask.sum() for result in results}
    assert [by_index[index] for index in (5, 15, 20, 24, 27, 30, 35)] == [20, 20, 20, 21, 21, 21, 21]
    # An own key slice beyond: what was decided on this side of the first one is not decided again.
    _, again = run(stack, boxes, [KeySlice(AXIS, 27, mask=mask), painted(31)])
    assert [result.mask.sum() for result in again[:23]] == [result.mask.sum() for result in results[:23]]


def test_a_thousand_slices_are_followed_and_little_is_kept() -> None:
    cache = EmbeddingCache(budget=100_000)
    _, results = run(stack_of(range(100, 900), 1000), {}, [painted(500)], cache=cache)
    assert found(results) == list(range(100, 900))
    assert cache.nbytes <= 100_000


@pytest.mark.parametrize("length", [1, 2])
def test_few_slices_are_no_problem(length) -> None:
    _, results = run(stack_of(range(0, length), length), dict.fromkeys(range(length), BOX))
    assert found(results) == list(range(length))


def test_a_model_without_a_memory_is_refused() -> None:
    plain = Predictor(build_model("tiny"), device="cpu")
    with pytest.raises(ValueError, match="remembers no slices: choose MedSAM2"):
        next(propagate_memory(stack_of(range(3)), {1: BOX}, plain, EmbeddingCache()))
