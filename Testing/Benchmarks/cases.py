"""Labelled real volumes that benchmarks run on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from MedSAMSlicerLib.store.samples import fetch_samples, sample_path
from MedSAMSlicerLib.volume.files import Volume, read_volume

_SAMPLES = {
    "CT": ("example_ct_sm.nii.gz", "example_seg.nii.gz", "abdomen"),
    "MRI": ("example_mr_sm.nii.gz", "example_seg_mr.nii.gz", "mr"),
}
# Structure -> its label in the sample CT and in the sample MRI.
_STRUCTURES = {
    "spleen": (1, 1),
    "right kidney": (2, 2),
    "left kidney": (3, 3),
    "liver": (5, 5),
    "stomach": (6, 6),
    "aorta": (52, 23),
}


@dataclass(frozen=True)
class Case:
    """One structure: a volume, the expert's mask (K, J, I) of it, and the window to look at it with."""

    name: str
    volume: Volume
    expert: np.ndarray
    window: str


def labelled_cases(folder: Path | None = None) -> list[Case]:
    """List the organs of TotalSegmentator's sample CT and MRI, and what a folder of the user's adds.

    :param folder: holds pairs ``NAME_image.*`` and ``NAME_label.*``; every label in it that is not 0 becomes a case.
    """
    fetch_samples()
    cases = []
    for modality, (image, labels, window) in _SAMPLES.items():
        volume, values = read_volume(sample_path(image)), read_volume(sample_path(labels)).voxels
        for structure, (ct, mri) in _STRUCTURES.items():
            expert = values == (ct if modality == "CT" else mri)
            cases.append(Case(f"{modality} {structure}", volume, expert, window))
    for path in sorted(folder.glob("*_image.*")) if folder else []:
        volume = read_volume(path)
        values = read_volume(path.with_name(path.name.replace("_image.", "_label."))).voxels
        for value in np.unique(values[values != 0]):
            cases.append(Case(f"{path.name.split('_image.')[0]} {value}", volume, values == value, "auto"))
    return cases
