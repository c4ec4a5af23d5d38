"""What the base model was good at before: the sample cases, on which a tuned model must not get worse."""

from __future__ import annotations

from pathlib import Path

from MedSAMSlicerLib.dataset.case import Case, LoadedCase
from MedSAMSlicerLib.store.samples import SampleMissing, sample_path
from MedSAMSlicerLib.volume.files import read_volume
from MedSAMSlicerLib.volume.labels import read_labels

# Image and labels of TotalSegmentator's samples, the window, and organs in them.
_ORGANS = ("spleen", "right kidney", "left kidney", "liver", "stomach", "aorta")
_SAMPLES = (
    ("example_ct_sm.nii.gz", "example_seg.nii.gz", "abdomen", "ct", (1, 2, 3, 5, 6, 52)),
    ("example_mr_sm.nii.gz", "example_seg_mr.nii.gz", "mr", "mr", (1, 2, 3, 5, 6, 23)),
)


def sample_cases(folder: Path | None = None) -> list[LoadedCase]:
    """Load the sample cases with the outlines of six organs; none if they are not on this computer.

    :param folder: of the samples, by default that of the store.
    """
    found = []
    for image, labels, window, modality, values in _SAMPLES:
        try:
            volume, drawn = read_volume(sample_path(image, folder)), read_labels(sample_path(labels, folder))
        except SampleMissing:
            return []
        masks = {organ: drawn.mask(value) for organ, value in zip(_ORGANS, values, strict=True)}
        slices, rows, columns = volume.voxels.shape
        case = Case(
            f"sample {modality}", f"sample {modality}", "", _ORGANS, window, modality, volume.spacing,
            (columns, rows, slices), "NIfTI", "", "", "",
        )  # fmt: skip
        found.append(LoadedCase(case, volume, masks, window))
    return found
