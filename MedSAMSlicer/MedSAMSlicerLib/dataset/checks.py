"""Checks of a dataset before a model is trained on it, in the words of those who can mend it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from MedSAMSlicerLib.dataset.case import SPLITS, Case, LoadedCase
from MedSAMSlicerLib.dataset.site import SiteDataset
from MedSAMSlicerLib.store.folder import sha256_of
from MedSAMSlicerLib.volume.geometry import choose_axis
from MedSAMSlicerLib.volume.intensity import resolve_window

# A model learns little from a structure of fewer voxels: LiteMedSAM sees a slice on 256 x 256 pixels.
_TINY_VOXELS = 30
_FEW_SLICES = 3
_FEW_PATIENTS = 12


@dataclass(frozen=True)
class Finding:
    """Tell what is wrong with a case or, without one, with the dataset.

    :param level: "error" (training would fail or its figures mean nothing) or "warning" (worth a look).
    """

    level: str
    case_id: str | None
    text: str


def check(dataset: SiteDataset, progress: Callable[[int, int], object] = lambda done, total: None) -> list[Finding]:
    """Read all cases of a dataset and tell what is wrong with them; errors first.

    :param progress: called with the number of cases that are done and of all.
    """
    findings = [*_check_patients(dataset), *_check_duplicates(dataset), *_check_folders(dataset)]
    for done, case in enumerate(dataset.cases):
        progress(done, len(dataset.cases))
        findings += _check_case(dataset, case)
    progress(len(dataset.cases), len(dataset.cases))
    return sorted(findings, key=lambda finding: finding.level != "error")


def _check_case(dataset: SiteDataset, case: Case) -> Iterator[Finding]:
    try:
        loaded = dataset.load(case)
        resolve_window(case.window, loaded.volume.voxels)
        changed = sha256_of(dataset.labels_path(case)) != case.labels_checksum
    except (ValueError, OSError, MemoryError) as error:
        yield Finding("error", case.id, str(error))
        return
    if changed:
        text = "Its labels were changed since it was added: if nobody corrected them, the file may be damaged."
        yield Finding("warning", case.id, text)
    missing = [name for name in case.labels if name not in loaded.labels]
    if missing:
        text = f"{_names(missing)}: nothing is drawn in its labels any more. Draw it again, or add the case without it."
        yield Finding("error", case.id, text)
    for name, mask in loaded.labels.items():
        yield from _check_label(loaded, name, mask)


def _check_label(loaded: LoadedCase, name: str, mask: np.ndarray) -> Iterator[Finding]:
    case, volume = loaded.case, loaded.volume
    voxels = int(mask.sum())
    if voxels < _TINY_VOXELS:
        milliliters = voxels * abs(float(np.linalg.det(volume.ijk_to_ras[:3, :3]))) / 1000
        yield Finding("warning", case.id, f"{name!r} is tiny: {voxels} voxels, {milliliters:.2g} mL.")
    axis = choose_axis(volume.spacing, volume.dimensions)
    drawn = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != 2 - axis)))
    span = int(drawn[-1] - drawn[0]) + 1
    if len(drawn) < span:
        text = f"{name!r} is drawn on {len(drawn)} of the {span} slices between its ends: were some slices left out?"
        yield Finding("warning", case.id, text)
    elif len(drawn) < min(_FEW_SLICES, volume.dimensions[axis]):
        yield Finding("warning", case.id, f"{name!r} is drawn on {_count(len(drawn), 'slice')} only.")


def _check_patients(dataset: SiteDataset) -> Iterator[Finding]:
    cases, patients = dataset.cases, dataset.patients
    for patient in patients:
        splits = sorted({case.split for case in cases if case.patient == patient})
        if len(splits) > 1:
            text = f"{patient} is in more than one split ({_names(splits)}): move the patient to one of them."
            yield Finding("error", None, text)
    for case in cases:
        if case.split == "test" and dataset.runs(case):
            runs = ", ".join(dataset.runs(case))
            text = f"It is in the test, but was used for training ({runs}): move its patient to another split."
            yield Finding("error", case.id, text)
    if len(patients) < 3:
        text = (
            f"There {'is' if len(patients) == 1 else 'are'} {_count(len(patients), 'patient')}: training, validation "
            "and test need at least one each. Add cases of other patients."
        )
        yield Finding("error", None, text)
    elif len(patients) < _FEW_PATIENTS:
        text = f"There are {len(patients)} patients: dozens are usual, and fewer than 5 in the test prove nothing."
        yield Finding("warning", None, text)
    undealt = [case.id for case in cases if not case.split]
    if undealt:
        yield Finding("warning", None, f"No split yet: {_names(undealt)}. Split the dataset before training.")
        return
    labels = {split: {name for case in cases if case.split == split for name in case.labels} for split in SPLITS}
    for split, purpose in (("validation", "nothing tells when to stop"), ("test", "the report can't tell about it")):
        absent = sorted(labels["train"] - labels[split])
        if absent and labels[split]:
            yield Finding("warning", None, f"{_names(absent)} is in no case of the {split} split: {purpose}.")
    for split in SPLITS:
        if len(patients) >= 3 and not labels[split]:
            yield Finding("error", None, f"No case is in the {split} split: move a patient there, or split again.")


def _check_duplicates(dataset: SiteDataset) -> Iterator[Finding]:
    first: dict[str, Case] = {}
    for case in dataset.cases:
        other = first.setdefault(case.checksum, case)
        if other is not case:
            yield Finding("error", case.id, f"It is the same image as {other.id}, voxel by voxel: remove one of them.")


def _check_folders(dataset: SiteDataset) -> Iterator[Finding]:
    known = {case.id for case in dataset.cases}
    folder = dataset.folder / "cases"
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name not in known:
            text = (
                f"{path} belongs to no case: dataset.json may come from a backup, or an addition was interrupted. Add "
                "its image and labels again, or delete it."
            )
            yield Finding("warning", None, text)


def _names(names: list[str]) -> str:
    shown = [repr(name) if name else "none" for name in names[:5]]
    return ", ".join(shown) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
