"""What the base model was good at before: slices of the sample cases, on which a tuned model must not get worse."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.store.samples import SampleMissing, sample_path
from MedSAMSlicerLib.volume.embedding_cache import Decoder, EmbeddingCache
from MedSAMSlicerLib.volume.files import read_volume
from MedSAMSlicerLib.volume.geometry import slice_of
from MedSAMSlicerLib.volume.labels import read_labels
from MedSAMSlicerLib.volume.stack import SliceStack

# Image and labels of TotalSegmentator's samples, the window, and spleen, kidneys, liver, stomach and aorta in them.
_SAMPLES = (
    ("example_ct_sm.nii.gz", "example_seg.nii.gz", "abdomen", (1, 2, 3, 5, 6, 52)),
    ("example_mr_sm.nii.gz", "example_seg_mr.nii.gz", "mr", (1, 2, 3, 5, 6, 23)),
)


@dataclass(frozen=True)
class KnownSlice:
    """A windowed slice, uint8 (rows, columns), and an expert's mask in it, bool (rows, columns)."""

    image: np.ndarray
    mask: np.ndarray


def sample_slices(folder: Path | None = None) -> list[KnownSlice]:
    """Take the slice of the largest area of every organ of the sample cases; none if they are not on this computer.

    :param folder: of the samples, by default that of the store.
    """
    found = []
    for image, labels, window, values in _SAMPLES:
        try:
            volume, drawn = read_volume(sample_path(image, folder)), read_labels(sample_path(labels, folder))
        except SampleMissing:
            return []
        stack = SliceStack(volume.voxels, volume.spacing, axis="k", window=window)
        for value in values:
            mask = drawn.mask(value)
            index = int(mask.sum(axis=(1, 2)).argmax())
            found.append(KnownSlice(stack.image(index), slice_of(mask, stack.axis, index)))
    return found


def mean_slice_dice(slices: list[KnownSlice], predictor: Decoder, cache: EmbeddingCache) -> float:
    """Compute the mean Dice of slices that are each segmented from the box around the expert's mask."""
    dice = []
    for known in slices:
        rows, columns = np.flatnonzero(known.mask.any(axis=1)), np.flatnonzero(known.mask.any(axis=0))
        box = Box(float(columns[0]), float(rows[0]), float(columns[-1]), float(rows[-1]))
        found = cache.prediction(predictor, known.image, [box])[0][0] > 0.5
        dice.append(2 * (found & known.mask).sum() / (found.sum() + known.mask.sum()))
    return float(np.mean(dice))
