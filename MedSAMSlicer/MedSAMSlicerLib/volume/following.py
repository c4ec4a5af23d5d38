"""Where a structure ends: followed from one slice to both sides until it is no more there."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace

import numpy as np

from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.bodies import largest_part
from MedSAMSlicerLib.volume.box_track import bounds, sides_of
from MedSAMSlicerLib.volume.candidates import CandidateDecoder, Candidates, grown
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.embedding_model import ALIKE, CONFIDENCE_POWER, EmbeddingModel
from MedSAMSlicerLib.volume.intensity_model import intensity_odds
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.path_propagation import Keys, propagate_path
from MedSAMSlicerLib.volume.slice_masks import NothingFound, Predictor, SliceMask, soft_dice
from MedSAMSlicerLib.volume.slice_stack import SliceStack
from MedSAMSlicerLib.volume.solution import fixed
from MedSAMSlicerLib.volume.viterbi import agreement

# The structure has ended where every mask's intensities look like what surrounds it (mean log odds), or it does not
# look like the structure to the image encoder (soft Dice), or it jumps to something else (Dice with its neighbor), or
# little is left of it (part of its largest area). Testing/Benchmarks/README.md tells how wide the choice is.
_LEAST_ODDS, _LEAST_LIKENESS, _LEAST_OVERLAP, _LEAST_AREA = -1.0, 0.25, 0.25, 0.02
# From slice to slice a box is tried as it is and larger or smaller by these parts on every side.
_STEPS = (0.0, 0.1, -0.1, -0.2)
# A mask may grow by this part of its size from slice to slice, or as far as these are apart; the final box is as
# much wider than what was found.
_GROWTH = 0.15
# The first mask teaches as much as so many certain ones.
_FIRST_WEIGHT = 15.0
# Width of the surroundings to compare with, in pixels.
_SURROUNDINGS = 6


def propagate_until_end(
    stack: SliceStack,
    key: KeySlice,
    predictor: Predictor,
    cache: EmbeddingCache,
    keys: Keys | None = None,
    reach: float | None = None,
) -> Generator[SliceMask, None, int]:
    """Segment a structure from one slice: follow it to both sides until it ends, then segment what was found as a 3-D
    box.

    Yields the followed slices, which are not final, then all slices from end to end as
    `path_propagation.propagate_path` does with the key slice given.

    :param key: along the stack's axis, with a box or a mask.
    :param keys: slice index -> further key slices along this axis.
    :param reach: how far it is followed to either side, in millimeters; None for no limit.
    :raises NothingFound: if nothing is found in the key slice.
    """
    boxes: dict[int, Box] = {}
    for result in follow(stack, key, predictor, cache, reach):
        yield result
        edges = bounds(result.mask)
        assert edges is not None
        boxes[result.index] = _widened(edges, stack)
    return (yield from propagate_path(stack, boxes, predictor, cache, keys, start=key))


def follow(
    stack: SliceStack, key: KeySlice, predictor: Predictor, cache: EmbeddingCache, reach: float | None = None
) -> Iterator[SliceMask]:
    """Follow a structure slice by slice from a key slice, first upward, then downward, until it ends.

    Every slice is prompted with boxes around its neighbor's mask; of the masks that may still be the structure, the one
    that is stable, well set off and overlaps the neighbor's best is carried on.
    """
    rows, columns = stack.shape
    whole = Box(0, 0, columns - 1, rows - 1)

    def decoder_of(index: int, structure: list[Box] | None = None) -> CandidateDecoder:
        return CandidateDecoder(stack, {index: whole}, predictor, cache, deviation=deviation, structure=structure)

    deviation: float | None = None
    # All follows from the first mask: it is worth a second look, which would take as long again in every slice.
    start = decoder_of(key.index, None if key.box is None else [key.box])
    image = start.images[key.index]
    known = fixed(start, key)
    first, box = known.masks[0], known.boxes[0]
    if not first.any():
        drawn = " ".join(f"{side:g}" for side in sides_of(box))
        raise NothingFound(f"Nothing was found in the box {drawn} of slice {key.index}: draw it around the structure.")
    deviation = max(float(image[start.pixels_of(box)].std()), 1.0)
    odds = intensity_odds(image[first], image[grown(first, _SURROUNDINGS) & ~first])
    model = EmbeddingModel(stack.shape, start.frame)
    model.see(key.index, start.features(key.index), box)
    model.learn(key.index, first, _FIRST_WEIGHT)
    yield SliceMask(key.index, first, box, 1.0, soft_dice(known.probabilities[0], first), final=False)
    largest = int(first.sum())
    farthest = len(stack) if reach is None else int(reach / stack.thickness + 1e-6)
    for step in (1, -1):
        mask, index = first, key.index + step
        while 0 <= index < len(stack) and abs(index - key.index) <= farthest:
            decoder = decoder_of(index)
            candidates, score, likeness = _next(decoder, model, mask, index, stack)
            typical, least_area = odds(decoder.images[index]), _LEAST_AREA * largest
            still = [
                number
                for number, found in enumerate(candidates.masks)
                if _still(found, mask, least_area, typical, likeness)
            ]
            if not still:
                break
            choice = max(still, key=score.__getitem__)
            found = candidates.masks[choice]
            largest = max(largest, int(found.sum()))
            confidence = soft_dice(candidates.probabilities[choice], found)
            model.learn(index, found, confidence**CONFIDENCE_POWER)
            yield SliceMask(
                index, found, candidates.boxes[choice], float(candidates.iou[choice]), confidence, final=False
            )
            mask = found
            index += step


def _next(
    decoder: CandidateDecoder, model: EmbeddingModel, mask: np.ndarray, index: int, stack: SliceStack
) -> tuple[Candidates, np.ndarray, np.ndarray | None]:
    """Decode a slice from boxes around its neighbor's mask and what looks alike.

    :return: the candidates, where the structure may be; how good each is, (N,); and the likeness there, if any.
    """
    edges = bounds(mask)
    assert edges is not None
    model.see(index, decoder.features(index), edges)
    reach = _reach(mask, decoder.gap)
    likeness = model.likenesses([index]).get(index)
    # Not less than a pixel of LiteMedSAM's input, as the structure may be small.
    least = max(stack.shape) / 256
    prompts = [_scaled(edges, part, least if part >= 0 else 0.0, decoder.gap, stack.shape) for part in _STEPS]
    if likeness is not None:
        likeness *= reach
        alike = bounds(largest_part(likeness > ALIKE))
        if alike is not None:
            prompts.append(decoder.as_trained(alike))
    candidates = decoder.decode(index, prompts)
    candidates = replace(candidates, probabilities=candidates.probabilities * reach)
    judged = candidates if likeness is None else candidates.like(likeness)
    score = judged.score + agreement(candidates.masks, mask[None])[:, 0]
    return candidates, score, likeness


def _still(
    found: np.ndarray, neighbor: np.ndarray, least_area: float, typical: np.ndarray, likeness: np.ndarray | None
) -> bool:
    """Tell whether a mask may still be the structure.

    :param found: bool (h, w), as that of its neighbor.
    :param typical: log odds of every pixel's intensity, (h, w).
    :param likeness: of every pixel, (h, w), if there is one.
    """
    area = np.count_nonzero(found)
    if not area or area < least_area:
        return False
    if 2 * np.count_nonzero(found & neighbor) < _LEAST_OVERLAP * (area + np.count_nonzero(neighbor)):
        return False
    if typical[found].mean() < _LEAST_ODDS:
        return False
    return likeness is None or soft_dice(likeness, found) >= _LEAST_LIKENESS


def _scaled(edges: Box, part: float, least: float, gap: int, shape: tuple[int, int]) -> Box:
    """Move every side of a box outward by a part of its size, within the slice."""
    x, y = part * (edges.x1 - edges.x0) + least, part * (edges.y1 - edges.y0) + least
    if part > 0:
        x, y = max(x, gap), max(y, gap)
    rows, columns = shape
    return Box(max(edges.x0 - x, 0), max(edges.y0 - y, 0), min(edges.x1 + x, columns), min(edges.y1 + y, rows))


def _widened(edges: Box, stack: SliceStack) -> Box:
    """Give the pixels of a mask's box, wider by what a mask may grow."""
    rows, columns = stack.shape
    gap = stack.thickness / stack.pixel
    x, y = (max(2.0, gap, _GROWTH * size) for size in (edges.x1 - edges.x0, edges.y1 - edges.y0))
    return Box(
        int(max(edges.x0 - x, 0)),
        int(max(edges.y0 - y, 0)),
        int(min(edges.x1 + x, columns) - 1),
        int(min(edges.y1 + y, rows) - 1),
    )


def _reach(mask: np.ndarray, gap: int) -> np.ndarray:
    """Mark where the structure may be in the next slice."""
    edges = bounds(mask)
    assert edges is not None
    return grown(mask, max(2, gap, int(_GROWTH * max(edges.x1 - edges.x0, edges.y1 - edges.y0))))
