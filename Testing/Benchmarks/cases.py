"""Labelled real volumes that benchmarks run on."""

from __future__ import annotations

import re
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
# Further ones of the same volumes, to see what becomes of structures that nothing was chosen by.
_FURTHER = {
    "gallbladder": (4, 4),
    "pancreas": (7, 7),
    "duodenum": (18, None),
    "colon": (20, None),
    "vertebra L2": (30, None),
    "vertebra L1": (31, None),
    "vertebra T12": (32, None),
    "inferior vena cava": (63, 24),
    "spinal cord": (79, None),
    "left autochthon": (86, 46),
    "right autochthon": (87, 47),
    "vertebrae": (None, 19),
}


@dataclass(frozen=True)
class Case:
    """One structure: a volume, the expert's mask (K, J, I) of it, and the window to look at it with."""

    name: str
    volume: Volume
    expert: np.ndarray
    window: str

    @property
    def patient(self) -> str:
        """Name the patient: the sample, or a file's name up to its first number, or all of it without one."""
        source = self.name.rsplit(" ", 1)[0] if self.window == "auto" else self.name.split(" ")[0]
        return re.sub(r"(\d+).*", r"\1", source)


def labelled_cases(folder: Path | None = None, *, further: bool = False) -> list[Case]:
    """List the organs of TotalSegmentator's sample CT and MRI, and what a folder of the user's adds.

    :param further: the other structures of the samples instead.
    :param folder: holds pairs ``NAME_image.*`` and ``NAME_label.*``; every label in it that is not 0 becomes a case.
    """
    fetch_samples()
    cases = []
    for modality, (image, labels, window) in _SAMPLES.items():
        volume, values = read_volume(sample_path(image)), read_volume(sample_path(labels)).voxels
        for structure, labels_of in (_FURTHER if further else _STRUCTURES).items():
            label = labels_of[0 if modality == "CT" else 1]
            if label is not None:
                cases.append(Case(f"{modality} {structure}", volume, values == label, window))
    for path in sorted(folder.glob("*_image.*")) if folder else []:
        volume = read_volume(path)
        values = read_volume(path.with_name(path.name.replace("_image.", "_label."))).voxels
        for value in np.unique(values[values != 0]):
            cases.append(Case(f"{path.name.split('_image.')[0]} {value}", volume, values == value, "auto"))
    return cases
