"""A case of a site: what its dataset knows of an image and its labels, without anything that identifies the patient."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from MedSAMSlicerLib.volume.files import Volume
from MedSAMSlicerLib.volume.intensity import IntensityRange, guess_modality

SPLITS = ("train", "validation", "test")

_CASE_ID = re.compile(r"case-[0-9]{4,9}")
_PATIENT = re.compile(r"P[0-9]{4,9}")


@dataclass(frozen=True)
class Case:
    """Describe one case of a dataset.

    :param id: such as ``case-0001``, never used again after the case is removed.
    :param patient: a pseudonym such as ``P0001``.
    :param split: "train", "validation", "test", or "" as long as it has none.
    :param labels: the names of its labels.
    :param window: text as `volume.intensity.resolve_window` takes it.
    :param modality: "ct", "mr", "display" (0..255 already) or "color", as guessed from the values.
    :param spacing: in millimeters, IJK order.
    :param dimensions: number of voxels, IJK order.
    :param source: the kind of file or scene that the case came from, such as "NIfTI".
    :param added: the date, such as "2026-01-31".
    :param checksum: of the image's voxels, see `checksum_of`.
    :param labels_checksum: the SHA-256 of the file of its labels as it was written.
    """

    id: str
    patient: str
    split: str
    labels: tuple[str, ...]
    window: str
    modality: str
    spacing: tuple[float, float, float]
    dimensions: tuple[int, int, int]
    source: str
    added: str
    checksum: str
    labels_checksum: str

    def to_json(self) -> dict[str, Any]:
        """Return the case as it stands in dataset.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Case:
        """Read a case from dataset.json.

        :raises ValueError: if the entry is not one; the text names what is wrong with it.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(entry, dict) or set(entry) != names:
            wrong = ", ".join(sorted(names.symmetric_difference(entry))) if isinstance(entry, dict) else repr(entry)
            raise ValueError(f"an entry of its cases lacks or has too much of: {wrong}")
        # Ids become names of folders, which may be deleted: nothing but an id will do.
        for value, pattern in ((entry["id"], _CASE_ID), (entry["patient"], _PATIENT)):
            if not isinstance(value, str) or not pattern.fullmatch(value):
                raise ValueError(f"{value!r} is no id of a case or patient")
        if entry["split"] not in ("", *SPLITS):
            raise ValueError(f"{entry['id']} has the unknown split {entry['split']!r}: give one of {', '.join(SPLITS)}")
        for name in ("window", "modality", "source", "added", "checksum", "labels_checksum"):
            if not isinstance(entry[name], str):
                raise ValueError(f"the {name} of {entry['id']} is {entry[name]!r} instead of a text")
        lists = {name: entry[name] for name in ("labels", "spacing", "dimensions")}
        if not all(isinstance(value, list) for value in lists.values()):
            raise ValueError(f"the labels, spacing or dimensions of {entry['id']} are no lists")
        labels, spacing, dimensions = lists.values()
        if not (labels and all(isinstance(name, str) and name for name in labels) and len(set(labels)) == len(labels)):
            raise ValueError(f"the labels of {entry['id']} are {labels!r} instead of different names")
        if not (len(spacing) == 3 and all(type(each) in (int, float) and 0 < each < math.inf for each in spacing)):
            raise ValueError(f"the spacing of {entry['id']} is {spacing!r} instead of three lengths")
        if not (len(dimensions) == 3 and all(type(each) is int and each > 0 for each in dimensions)):
            raise ValueError(f"the dimensions of {entry['id']} are {dimensions!r} instead of three numbers of voxels")
        return cls(**{**entry, **{name: tuple(value) for name, value in lists.items()}})


@dataclass(frozen=True)
class LoadedCase:
    """Hold a case's voxels.

    :param labels: name -> bool (K, J, I) in the voxels of the volume.
    :param window: text as `volume.intensity.resolve_window` takes it, or what it returned.
    """

    case: Case
    volume: Volume
    labels: dict[str, np.ndarray]
    window: str | IntensityRange


def checksum_of(voxels: np.ndarray) -> str:
    """Digest an image's voxels, whatever type of number they are stored as: 32 hexadecimal digits."""
    digest = hashlib.blake2b(str(voxels.shape).encode(), digest_size=16)
    for image in voxels:
        digest.update(np.ascontiguousarray(image, dtype="<f8").data)
    return digest.hexdigest()


def modality_of(voxels: np.ndarray) -> str:
    """Guess what kind of image this is, see `Case.modality`."""
    return "color" if voxels.ndim == 4 else guess_modality(voxels)


def is_case_id(text: str) -> bool:
    """Tell whether a text is the id of a case."""
    return bool(_CASE_ID.fullmatch(text))


def is_patient(text: object) -> bool:
    """Tell whether a value is a pseudonym of ours."""
    return isinstance(text, str) and bool(_PATIENT.fullmatch(text))
