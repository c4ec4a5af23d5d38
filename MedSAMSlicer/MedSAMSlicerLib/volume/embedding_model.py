"""What the embeddings of slices tell of a structure: which places look like it, and which like what surrounds it.

An image encoder gives every place of a slice some hundred numbers that tell of its tissue and of what is around. A
ridge regression learns from some masks of one structure how much of a place it fills, and finds it in the other slices,
which no box had to be drawn in. It takes milliseconds, as it has one unknown for each of these numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

from MedSAMSlicerLib.prompts import Box

# Penalty on the weights, as a part of the mean variance, and the width of the surroundings to learn from, as a
# part of the box's size. Testing/Benchmarks/README.md tells how flat the choice is.
_PENALTY = 0.05
_SURROUNDINGS = 0.3
# What looks alike to at least this degree has a box. A mask teaches by this power of its confidence.
ALIKE, CONFIDENCE_POWER = 0.5, 4
# Places of a slice that are learned from at most: more of them tell little else.
_MOST_PLACES = 900
# Regressions are solved to within so much of what a place is filled, or as well as so many steps do.
_TOLERANCE, _MOST_STEPS = 1e-5, 50
_LEAST_COUNT = 1e-9


@dataclass(frozen=True)
class Features:
    """What an image encoder makes of a slice.

    :param values: float32 (C, h, w), the first place at the slice's first row and column.
    :param scale: places per pixel of the slice, along rows and columns.
    """

    values: np.ndarray
    scale: tuple[float, float]


class EmbeddingModel:
    """Learns from masks and tells the likeness of every pixel of a slice.

    :param shape: of a slice, (rows, columns).
    :param frame: the rows and columns that masks and likenesses are cut to.
    """

    def __init__(self, shape: tuple[int, int], frame: tuple[slice, slice]) -> None:
        self._shape, self._frame = shape, frame
        self._slices: dict[int, _Places] = {}
        self._learned: dict[int, _Lesson] = {}
        # Of all lessons, as far as there is one.
        self._total: _Sums | None = None

    def see(self, index: int, features: Features, box: Box) -> None:
        """Take a slice's features around a box, in slice pixels; the others are not kept."""
        self._slices[index] = _Places.around(box, features, self._shape, self._frame)

    def learn(self, index: int, mask: np.ndarray, weight: float) -> None:
        """Learn from the mask of a slice that was seen, in place of one that was learned before.

        :param mask: bool (h, w), cut to the frame.
        :param weight: of the slice against others.
        """
        places = self._slices[index]
        products = (places.rows_to_learn.T @ places.filled(mask)).astype(np.float64)
        if self._total is None:
            self._total = _Sums(np.zeros(places.moments.shape), np.zeros(products.shape))
        if index in self._learned:
            self._total.add(self._learned[index], -1)
        self._learned[index] = _Lesson(weight, places.moments, products)
        self._total.add(self._learned[index])

    @property
    def nbytes(self) -> int:
        """Return what was seen and learned takes, in bytes."""
        total = 0 if self._total is None else self._total.moments.nbytes
        return total + sum(each.nbytes for each in self._slices.values())

    def __contains__(self, index: int) -> bool:
        return index in self._slices

    def taught(
        self, seen: Mapping[int, tuple[Features, Box]], masks: Mapping[int, np.ndarray], weight: float
    ) -> EmbeddingModel:
        """Return a model that has seen further slices and learned further masks; this one stays as it is."""
        other = copy.copy(self)
        other._slices, other._learned = dict(self._slices), dict(self._learned)
        other._total = copy.deepcopy(self._total)
        for index, (features, box) in seen.items():
            other.see(index, features, box)
        for index, mask in masks.items():
            other.learn(index, mask, weight)
        return other

    def likenesses(self, indices: Collection[int]) -> Mapping[int, np.ndarray]:
        """Tell how much each pixel of slices looks like the structure: float32 (h, w) from 0 to 1, 0 far from its box.

        What was learned of a slice itself does not count in it, unless there is nothing else. None are told of if all
        their places are alike.
        """
        if not any(np.ptp(self._slices[index].rows, axis=0).any() for index in indices):
            return {}
        assert self._total is not None
        own = {index: self._learned[index] for index in indices if index in self._learned and len(self._learned) > 1}
        weights = dict(zip(own, self._total.weights_without(list(own.values())), strict=True)) if own else {}
        if len(own) < len(indices):
            weights = dict.fromkeys(indices, self._total.weights()) | weights
        return _Likenesses({index: (self._slices[index], weights[index]) for index in indices})


class _Likenesses(Mapping[int, np.ndarray]):
    """Likenesses of slices, each of which is computed when it is asked for.

    :param known: slice index -> its places, and what they weigh.
    """

    def __init__(self, known: Mapping[int, tuple[_Places, np.ndarray]]) -> None:
        self._known = known
        self._made: dict[int, np.ndarray] = {}

    def __getitem__(self, index: int) -> np.ndarray:
        if index not in self._made:
            places, weights = self._known[index]
            self._made[index] = places.spread(weights)
        return self._made[index]

    def __iter__(self) -> Iterator[int]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


@dataclass(frozen=True, eq=False)
class _Lesson:
    """What was learned of one slice.

    :param weight: against other slices.
    :param moments: float32 (C + 1, C + 1), products of the features, and a 1, with one another.
    :param products: (C + 1,), of these with what the structure fills.
    """

    weight: float
    moments: np.ndarray
    products: np.ndarray


@dataclass(eq=False)
class _Sums:
    """Weighted sums of lessons, in double precision: all that a ridge regression depends on."""

    moments: np.ndarray
    products: np.ndarray

    def add(self, lesson: _Lesson, sign: int = 1) -> None:
        """Add a lesson, or take it away."""
        self.moments += np.float32(sign * lesson.weight) * lesson.moments
        self.products += sign * lesson.weight * lesson.products

    def weights(self) -> np.ndarray:
        """Solve the ridge regression: float32 (C + 1,), the last one the constant."""
        equations, mean = self._equations()
        share = self.products[-1] / self._count
        weights = np.linalg.solve(equations, self.products[:-1] - self.products[-1] * mean)
        return np.append(weights, share - weights @ mean).astype(np.float32)

    def weights_without(self, lessons: Sequence[_Lesson]) -> np.ndarray:
        """Solve as many ridge regressions, each of which leaves out one lesson: float32 (n, C + 1).

        All side by side by conjugate gradients, which the regression that leaves out none preconditions: after some
        five steps they differ from what `weights` gives by less than 0.00001 of what a place is filled.
        """
        column = np.array([each.weight for each in lessons])[:, None]
        moments = [each.moments[:-1, :-1] for each in lessons]
        ends = self.moments[-1] - column * np.array([each.moments[-1] for each in lessons])
        products = self.products - column * np.array([each.products for each in lessons])
        counts = np.maximum(ends[:, -1:], _LEAST_COUNT)
        means, shares = ends[:, :-1] / counts, products[:, -1:] / counts
        squares = np.trace(self.moments[:-1, :-1]) - column * np.array([[np.trace(each)] for each in moments])
        penalties = _penalty(squares - counts * (means**2).sum(axis=1, keepdims=True), means.shape[1], counts)

        inverse = np.linalg.inv(self._equations()[0].astype(np.float32))
        total, means, penalties, counted, column = (
            each.astype(np.float32) for each in (self.moments[:-1, :-1], means, penalties, counts * means, column)
        )

        def equations(weights: np.ndarray) -> np.ndarray:
            own = np.array([moment @ each for moment, each in zip(moments, weights, strict=True)])
            spread = weights @ total - column * own - counted * (means * weights).sum(axis=1, keepdims=True)
            return spread + penalties * weights

        rest = (products[:, :-1] - products[:, -1:] * means).astype(np.float32)
        weights = np.zeros_like(rest)
        step = before = None
        for _ in range(_MOST_STEPS):
            toward = rest @ inverse
            size = (rest * toward).sum(axis=1, keepdims=True)
            if (size <= _TOLERANCE**2 * counts).all():
                break
            step = toward if step is None else toward + size / before * step
            change = equations(step)
            length = size / np.maximum((step * change).sum(axis=1, keepdims=True), _LEAST_COUNT)
            weights += length * step
            rest -= length * change
            before = np.maximum(size, _LEAST_COUNT)
        return np.append(weights, shares - (weights * means).sum(axis=1, keepdims=True), axis=1).astype(np.float32)

    @property
    def _count(self) -> float:
        return max(self.moments[-1, -1], _LEAST_COUNT)

    def _equations(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the matrix of the normal equations, (C, C), and the features' mean, (C,)."""
        mean = self.moments[-1, :-1] / self._count
        equations = self.moments[:-1, :-1] - self.moments[-1, :-1, None] * mean
        equations[np.diag_indices_from(equations)] += _penalty(np.trace(equations), len(mean), self._count)
        return equations, mean


Numbers = TypeVar("Numbers", float, np.ndarray)


def _penalty(variance: Numbers, features: int, count: Numbers) -> Numbers:
    """Return what is added to the diagonal of the normal equations.

    :param variance: summed over all features and places.
    """
    return _PENALTY * variance / features + 1e-9 * count


@dataclass(frozen=True, eq=False)
class _Places:
    """The places around a box in one slice.

    :param rows: float32 (n, C + 1), one place each, and a 1.
    :param shape: (h, w) of the places, of which there are n.
    :param within: (h, rows of the frame) and (columns of the frame, w): the part of each place that each pixel covers.
    :param between: (rows of the frame, h) and (w, columns of the frame): what each pixel takes of each place.
    """

    rows: np.ndarray
    shape: tuple[int, int]
    within: tuple[np.ndarray, np.ndarray]
    between: tuple[np.ndarray, np.ndarray]

    @classmethod
    def around(cls, box: Box, features: Features, shape: tuple[int, int], frame: tuple[slice, slice]) -> _Places:
        spans = []
        for low, high, scale, pixels, count in (
            (box.y0, box.y1, features.scale[0], shape[0], features.values.shape[1]),
            (box.x0, box.x1, features.scale[1], shape[1], features.values.shape[2]),
        ):
            margin = _SURROUNDINGS * (high - low + 1) + 2
            first = int(max(low - margin, 0) * scale)
            last = int(np.ceil(min(high + 1 + margin, pixels) * scale))
            spans.append(slice(min(first, count - 1), max(min(last, count), min(first, count - 1) + 1)))
        values = features.values[:, spans[0], spans[1]]
        rows = np.empty((values[0].size, len(values) + 1), dtype=np.float32)
        # As the encoder leaves them in memory: the numbers of a place side by side.
        rows.reshape(*values.shape[1:], -1)[..., :-1] = np.moveaxis(values, 0, -1)
        rows[:, -1] = 1
        overlaps = [_overlap(*each) for each in zip(spans, frame, features.scale, strict=True)]
        between = [_interpolation(*each) for each in zip(spans, frame, features.scale, strict=True)]
        return cls(
            rows,
            (values.shape[1], values.shape[2]),
            (overlaps[0], overlaps[1].T),
            (between[0], between[1].T),
        )

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes + self.moments.nbytes + sum(each.nbytes for each in (*self.within, *self.between))

    @property
    def _step(self) -> int:
        return -(-len(self.rows) // _MOST_PLACES)

    @property
    def rows_to_learn(self) -> np.ndarray:
        return self.rows[:: self._step]

    @cached_property
    def moments(self) -> np.ndarray:
        """Return the products of what is to be learned from with one another: float32 (C + 1, C + 1)."""
        rows = self.rows_to_learn
        return rows.T @ rows

    def filled(self, mask: np.ndarray) -> np.ndarray:
        """Return the part of each place to learn that a mask fills: float32 (m,)."""
        parts = self.within[0] @ mask.astype(np.float32) @ self.within[1]
        return parts.reshape(-1)[:: self._step]

    def spread(self, weights: np.ndarray) -> np.ndarray:
        found = (self.rows @ weights).reshape(self.shape)
        pixels = self.between[0] @ found @ self.between[1]
        return np.clip(pixels, 0, 1, out=pixels)


def _overlap(places: slice, pixels: slice, scale: float) -> np.ndarray:
    """Compute which part of each place each pixel covers: float32 (places, pixels)."""
    edges = np.arange(places.start, places.stop + 1) / scale
    starts = np.arange(pixels.start, pixels.stop)
    length = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    return (np.maximum(length, 0) * scale).astype(np.float32)


def _interpolation(places: slice, pixels: slice, scale: float) -> np.ndarray:
    """Compute linear weights that take pixels from the places around their middles: float32 (pixels, places).

    Pixels farther than one place from all of them get nothing.
    """
    middles = (np.arange(pixels.start, pixels.stop) + 0.5) * scale - 0.5
    count = places.stop - places.start
    position = middles - places.start
    weights = np.maximum(1 - np.abs(np.clip(position, 0, count - 1)[:, None] - np.arange(count)), 0)
    weights[(position < -1) | (position > count)] = 0
    return weights.astype(np.float32)
