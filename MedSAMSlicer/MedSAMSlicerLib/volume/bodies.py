"""Bodies: the connected parts of a 3-D mask, and which of them are the structure."""

from __future__ import annotations

from collections.abc import Collection
from types import EllipsisType

import numpy as np

from MedSAMSlicerLib.volume.candidates import grown

# A body that begins beside the others and fills slices which they leave empty belongs to the structure if it is not
# smaller than this part of the largest one. (An organ with two arms, or a tumor of two nodes. One that begins where the
# others have ended is what comes next in the box.)
_LEAST_PART = 0.1


def structure_bodies(
    masks: np.ndarray, named: np.ndarray, gap: int, known: np.ndarray | None = None, *, may_return: bool = False
) -> tuple[np.ndarray, int]:
    """Keep the bodies that belong to a structure.

    These are the ones that hold something of what is named, or where nothing is, the largest one; and those that begin
    beside them and without which slices of the structure were empty.

    :param masks: bool (n, rows, columns), neighboring slices.
    :param named: bool (n, rows, columns), what prompts say is the structure's.
    :param gap: in pixels; what is not farther apart, seen along the slices, is one body: in thick slices a
        structure may have moved on by the next one.
    :param known: bool (n, rows, columns), where the structure was found before: of the bodies without which slices were
        empty those that were known stay, wherever they begin. None if nothing is known yet.
    :param may_return: whether a body may also begin where the others have ended, as a model that remembers the
        structure knows it again.
    :return: the masks without the other bodies, and how many these were.
    """
    labels = _labels(masks, gap)
    sizes = np.bincount(labels[masks])
    if len(sizes) <= 2:
        return masks, 0
    sizes[0] = 0
    kept = set(np.unique(labels[masks & named]).tolist()) - {0} or {int(sizes.argmax())}
    largest = max(sizes[label] for label in kept)
    for label in np.argsort(-sizes).tolist():
        if sizes[label] < max(_LEAST_PART * largest, 1):
            break
        filled = _of(labels, kept).any(axis=(1, 2))
        body = labels == label
        slices = body.any(axis=(1, 2))
        begins = may_return or known is not None or slices[filled].any()
        if begins and slices[~filled].any() and (known is None or (body & known).any()):
            kept.add(label)
    return masks & _of(labels, kept), int(np.count_nonzero(sizes)) - len(kept)


def _of(labels: np.ndarray, kept: Collection[int]) -> np.ndarray:
    """Mark what has one of some labels."""
    chosen = np.zeros(int(labels.max()) + 1, dtype=bool)
    chosen[list(kept)] = True
    return chosen[labels]


def largest_part(mask: np.ndarray) -> np.ndarray:
    """Keep the largest connected part of a mask, bool (rows, columns)."""
    # By runs of pixels, of which there are few; all rows are one, with an empty pixel between them.
    rows, columns = mask.shape
    pitch = columns + 1
    flat = np.zeros(rows * pitch + 1, dtype=bool)
    flat[1:].reshape(rows, pitch)[:, :columns] = mask
    starts, stops = np.flatnonzero(flat[1:] != flat[:-1]).reshape(-1, 2).T
    # A run touches those of the next row from `first` to before `last`, by an edge or a corner.
    first, last = np.searchsorted(stops, starts + pitch - 1, "right"), np.searchsorted(starts, stops + pitch + 1)
    counts = np.maximum(last - first, 0)
    runs = np.repeat(np.arange(len(starts)), counts)
    touched = np.arange(len(runs)) + np.repeat(first - np.cumsum(counts) + counts, counts)
    # Each part has the number of its first run: roots that touch are hooked, then all take their root's number.
    parts = np.arange(len(starts))
    while (parts[runs] != parts[touched]).any():
        pairs = np.sort([parts[runs], parts[touched]], axis=0)
        np.minimum.at(parts, pairs[1], pairs[0])
        while (parts != parts[parts]).any():
            parts = parts[parts]
    if not parts.any():
        return mask
    kept = parts == np.bincount(parts, weights=stops - starts).argmax()
    turns = np.zeros(flat.size, dtype=np.int8)
    turns[1 + starts[kept]], turns[1 + stops[kept]] = 1, -1
    return np.cumsum(turns, dtype=np.int8)[1:].reshape(rows, pitch)[:, :columns].astype(bool)


def _labels(masks: np.ndarray, gap: int) -> np.ndarray:
    """Number the bodies of masks from 1; neighbors by a face, an edge or a corner are of one body."""
    # Only here: the command line asks for the names of propagations, and must not wait for it.
    import SimpleITK as sitk

    wide = grown(masks, gap // 2) if gap > 1 else masks
    labels = np.zeros(wide.shape, dtype=np.uint32)
    part = _occupied(wide)
    image = sitk.GetImageFromArray(wide[part].astype(np.uint8))
    if image.GetNumberOfPixels():
        numbering = sitk.ConnectedComponentImageFilter()
        numbering.FullyConnectedOn()
        # To start threads takes several times as long as to number the parts of a slice.
        numbering.SetNumberOfWorkUnits(1)
        labels[part] = sitk.GetArrayFromImage(numbering.Execute(image))
    return labels


def _occupied(masks: np.ndarray) -> tuple[EllipsisType, slice, slice]:
    """Find the rows and columns of masks, bool (..., rows, columns), that are not empty."""
    flat = np.logical_or.reduce(masks.reshape(-1, *masks.shape[-2:]))
    rows, columns = (np.flatnonzero(each) for each in (flat.any(axis=1), flat.any(axis=0)))
    if not rows.size:
        return np.s_[..., 0:0, 0:0]
    return np.s_[..., rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
