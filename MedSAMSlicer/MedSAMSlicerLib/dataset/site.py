"""The dataset of a site: a folder of cases that a person understands.

It holds ``dataset.json`` and for each case ``cases/<id>/image.nrrd`` and ``labels.seg.nrrd``, which Slicer opens.
"""

from __future__ import annotations

import contextlib
import datetime
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from MedSAMSlicerLib.dataset.case import SPLITS, Case, LoadedCase, checksum_of, is_case_id, modality_of
from MedSAMSlicerLib.dataset.index import Index, Use
from MedSAMSlicerLib.dataset.masks import read_masks, write_masks
from MedSAMSlicerLib.dataset.patients import Pseudonyms
from MedSAMSlicerLib.dataset.split import SHARES, split_patients
from MedSAMSlicerLib.store.folder import sha256_of, writing_to
from MedSAMSlicerLib.store.lock import exclusive
from MedSAMSlicerLib.volume.files import FileError, Volume, read_volume, write_labelmap
from MedSAMSlicerLib.volume.intensity import resolve_window

_INDEX = "dataset.json"
_KEY = "patients.key"
_DRAFT = ".medsam-"


class AlreadyAdded(ValueError):
    """The image of a new case is in the dataset already, as that of ``case``."""

    def __init__(self, case: Case) -> None:
        super().__init__(
            f"The same image is in the dataset already, as {case.id}: to change its labels, remove that case first."
        )
        self.case = case


class SiteDataset:
    """Labelled cases of a site, split by patient.

    Every change is written at once, whole or not at all; of several processes that change a dataset one waits for the
    other. Usage example::

        dataset = SiteDataset.create(folder)
        case = dataset.add(volume, {"liver": mask}, patient="hospital number 12345")
        dataset.split()
        loaded = dataset.load(case)
    """

    def __init__(self, folder: Path, index: Index) -> None:
        """Use `create` or `open`."""
        self.folder = folder
        self._index = index

    @classmethod
    def create(cls, folder: Path) -> SiteDataset:
        """Make an empty dataset in a folder that is new or empty.

        :raises ValueError: if something is in the folder already.
        """
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(
                f"{folder} is not empty: give a new folder for the dataset, or open the one that is there."
            )
        dataset = cls(folder, Index(created=_today()))
        dataset._write(dataset._index)
        return dataset

    def discard(self) -> None:
        """Delete a dataset to which no case was ever added, with its folder unless something else is in it."""
        with self._changing() as index:
            if index.cases or index.next_case > 1:
                return
            for name in (_INDEX, _KEY):
                (self.folder / name).unlink(missing_ok=True)
            # (Windows deletes no file that is open, as the lock is.)
            with contextlib.suppress(OSError):
                (self.folder / f".{_INDEX}.lock").unlink(missing_ok=True)
                for folder in (self.folder / "cases", self.folder):
                    if folder.exists():
                        folder.rmdir()

    @classmethod
    def open(cls, folder: Path) -> SiteDataset:
        """Open a dataset.

        :raises ValueError: if the folder holds none, or its dataset.json is damaged or of a later version.
        """
        folder = Path(folder)
        return cls(folder, Index.read(folder / _INDEX))

    @property
    def cases(self) -> tuple[Case, ...]:
        """List the cases in the order in which they were added, as this object has last read or written them."""
        return self._index.cases

    @property
    def patients(self) -> tuple[str, ...]:
        """List the pseudonyms of all patients."""
        return tuple(dict.fromkeys(case.patient for case in self.cases))

    def case(self, case_id: str) -> Case:
        """Look up a case.

        :raises ValueError: if there is none of this id.
        """
        for case in self.cases:
            if case.id == case_id:
                return case
        raise ValueError(f"{self.folder} has no case {case_id!r}: it has {_range(self.cases)}.")

    def image_path(self, case: Case) -> Path:
        """Name the file of a case's image."""
        return self.folder / "cases" / case.id / "image.nrrd"

    def labels_path(self, case: Case) -> Path:
        """Name the file of a case's labels."""
        return self.folder / "cases" / case.id / "labels.seg.nrrd"

    def add(
        self,
        volume: Volume,
        labels: Mapping[str, np.ndarray],
        *,
        patient: str | None = None,
        pseudonym: str | None = None,
        window: str = "auto",
        source: str = "",
    ) -> Case:
        """Add a case; nothing of the volume but its voxels and their place in the scanner is kept.

        :param labels: name -> bool (K, J, I), in the voxels of the volume.
        :param patient: the site's own identifier, of which only a keyed hash is kept, whatever it looks like (see
            `patients.Pseudonyms`); None for a patient of whom no other case will come.
        :param pseudonym: in its place that of a patient who has a case in this dataset, such as "P0003".
        :param source: the kind of file or scene that the case comes from, such as "NIfTI".
        :raises ValueError: if the case can't be right: no label, an empty one or one of another shape, an image without
            contrast in this window, or no patient of this pseudonym.
        :raises AlreadyAdded: if the image is in the dataset already.
        """
        labels = {name: np.asarray(mask, dtype=bool) for name, mask in labels.items()}
        _check_labels(volume, labels)
        volume = _finite(volume)
        resolve_window(window, volume.voxels)
        checksum = checksum_of(volume.voxels)
        with self._changing() as index:
            for other in index.cases:
                if other.checksum == checksum:
                    raise AlreadyAdded(other)
            pseudonym = self._pseudonym(index, patient, pseudonym)
            number = self._next_case(index)
            case = Case(
                id=f"case-{number:04d}",
                patient=pseudonym,
                split=next((other.split for other in index.cases if other.patient == pseudonym), ""),
                labels=tuple(labels),
                window=window,
                modality=modality_of(volume.voxels),
                spacing=volume.spacing,
                dimensions=volume.dimensions,
                source=source,
                added=_today(),
                checksum=checksum,
                labels_checksum="",
            )
            folder = self.image_path(case).parent
            with writing_to(folder), self._staged(case) as draft:
                write_labelmap(draft / "image.nrrd", volume.voxels, volume.ijk_to_ras)
                write_masks(draft / "labels.seg.nrrd", labels, volume.ijk_to_ras)
                case = replace(case, labels_checksum=sha256_of(draft / "labels.seg.nrrd"))
                draft.replace(folder)
                try:
                    following = max(index.next_patient, int(pseudonym[1:]) + 1)
                    cases = (*index.cases, case)
                    self._write(replace(index, next_case=number + 1, next_patient=following, cases=cases))
                except BaseException:
                    folder.replace(draft)
                    raise
        return case

    def remove(self, case_id: str) -> None:
        """Remove a case and its files."""
        with self._changing() as index:
            case = self.case(case_id)
            self._write(replace(index, cases=tuple(other for other in index.cases if other != case)))
            shutil.rmtree(self.image_path(case).parent, ignore_errors=True)

    def load(self, case: Case) -> LoadedCase:
        """Read the image and the labels of a case.

        :raises FileError: if a file is missing or damaged, or the labels don't lie on the image.
        """
        volume = read_volume(self.image_path(case))
        if checksum_of(volume.voxels) != case.checksum:
            raise FileError(
                f"{self.image_path(case)} is damaged, or not the image that was added as {case.id}: restore it from a "
                "backup, or remove the case and add it again."
            )
        labels, _ = read_masks(self.labels_path(case), volume)
        return LoadedCase(case, replace(volume, name=case.id), labels, case.window)

    def split(self, shares: tuple[float, float, float] = SHARES, *, seed: int = 0, keep: bool = False) -> None:
        """Deal all patients to train, validation and test (see `split.split_patients`).

        Patients whom a model was trained on never go to test.

        :param keep: leave the patients that have a split where they are, and deal only the others.
        """
        with self._changing() as index:
            fixed = {case.patient: case.split for case in index.cases if keep and case.split}
            used = {case.patient for case in index.cases if self.runs(case)}
            self._write(index.dealt(split_patients(self.patients, shares, seed, never_test=used, fixed=fixed)))

    def assign(self, case_or_patient: str, split: str) -> tuple[Case, ...]:
        """Move a patient to a split, always with all cases; return them.

        :param case_or_patient: the id of a case or the pseudonym of its patient.
        :raises ValueError: if there is none of this name, or a patient is to be tested on whom a model was trained.
        """
        with self._changing() as index:
            patient = self.check_move(case_or_patient, split)
            self._write(index.dealt({patient: split}))
        return tuple(case for case in self.cases if case.patient == patient)

    def check_move(self, case_or_patient: str, split: str) -> str:
        """Return the pseudonym of a patient who may be moved to a split.

        :raises ValueError: as `assign` does.
        """
        if split not in SPLITS:
            raise ValueError(f"The split {split!r} is unknown: give one of {', '.join(SPLITS)}.")
        known = case_or_patient in self.patients
        patient = case_or_patient if known else self.case(case_or_patient).patient
        runs = sorted({run for case in self.cases if case.patient == patient for run in self.runs(case)})
        if split == "test" and runs:
            raise ValueError(
                f"{patient} was used for training ({', '.join(runs)}), so a report on {case_or_patient} would "
                "flatter: choose another patient for the test, or add cases that no model has seen."
            )
        return patient

    def mark_used(self, case_ids: Collection[str], run: str) -> None:
        """Remember that a training run has seen cases, so that they never serve for a report.

        :param run: a name for the run.
        """
        with self._changing() as index:
            uses = [Use(run, case.patient, case.checksum) for case in map(self.case, case_ids)]
            self._write(replace(index, used=(*index.used, *(use for use in uses if use not in index.used))))

    def runs(self, case: Case) -> tuple[str, ...]:
        """List the training runs that have seen a case, its image under another id, or another case of its patient."""
        used = (use.run for use in self._index.used if case.patient == use.patient or case.checksum == use.checksum)
        return tuple(dict.fromkeys(used))

    @contextlib.contextmanager
    def _changing(self) -> Iterator[Index]:
        """Hold the dataset's lock, and give what its file says now."""
        with exclusive(self.folder / _INDEX):
            self._index = Index.read(self.folder / _INDEX)
            self._clean()
            yield self._index

    @contextlib.contextmanager
    def _staged(self, case: Case) -> Iterator[Path]:
        """Give a folder for the files of a new case; whatever is still there in the end is deleted."""
        cases = self.image_path(case).parent.parent
        cases.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cases, prefix=_DRAFT) as folder:
            draft = Path(folder) / case.id
            draft.mkdir()
            try:
                yield draft
            except FileError as error:
                # The place of the draft means nothing to anybody.
                raise FileError(str(error).replace(str(draft), str(cases / case.id))) from error

    def _clean(self) -> None:
        """Delete what a process that was killed has left half-written; only who holds the lock may."""
        cases = self.folder / "cases"
        for draft in (*cases.glob(f"{_DRAFT}*"), *cases.glob(f"*/{_DRAFT}*")):
            shutil.rmtree(draft, ignore_errors=True)
        for name in (_INDEX, _KEY):
            for draft in self.folder.glob(f"{name}.*.new"):
                draft.unlink(missing_ok=True)

    def _next_case(self, index: Index) -> int:
        """Number a new case above all that ever were: an index from a backup may not know the latest."""
        known = [case.id for case in index.cases]
        known += [path.name for path in (self.folder / "cases").glob("*") if is_case_id(path.name)]
        return max([index.next_case, *(int(each.partition("-")[2]) + 1 for each in known)])

    def _write(self, index: Index) -> None:
        index.write(self.folder / _INDEX)
        self._index = index

    def _pseudonym(self, index: Index, patient: str | None, pseudonym: str | None) -> str:
        """Find or make the pseudonym of a patient."""
        known = {case.patient for case in index.cases}
        if pseudonym is not None:
            if pseudonym not in known or patient is not None:
                raise ValueError(
                    f"{self.folder} has no patient {pseudonym!r}: give the pseudonym of one who has a case, or instead "
                    "of it the site's own identifier."
                )
            return pseudonym
        if patient is not None and not patient.strip():
            raise ValueError("The patient is empty: give an identifier, or none.")
        pseudonyms = Pseudonyms.read(self.folder / _KEY)
        found = pseudonyms.of(patient) if patient else None
        if found:
            return found
        known |= {use.patient for use in index.used}
        new = pseudonyms.following(max([index.next_patient, *(int(each[1:]) + 1 for each in known)]))
        if patient:
            pseudonyms.give(patient, new)
        return new


def _check_labels(volume: Volume, labels: Mapping[str, np.ndarray]) -> None:
    if not labels:
        raise ValueError("The case has no label: give at least one structure that an expert has drawn.")
    for name, mask in labels.items():
        # Names stand in the text header of a file.
        if not name.strip() or not name.isprintable() or "\\" in name:
            raise ValueError(f"The label name {name!r} can't be stored: use letters, digits, spaces and hyphens.")
        if mask.shape != volume.voxels.shape[:3]:
            raise ValueError(
                f"The label {name!r} has {_size(mask)} voxels, the image {_size(volume.voxels)}: it was not drawn on "
                "this image. Resample it to the image."
            )
        if not mask.any():
            raise ValueError(f"The label {name!r} is empty: draw it, or leave it out of the case.")


def _finite(volume: Volume) -> Volume:
    """Put the ends of the range in the place of what is no number, as the model would see it anyway."""
    if volume.voxels.dtype.kind != "f" or np.isfinite(volume.voxels).all():
        return volume
    found = volume.voxels[np.isfinite(volume.voxels)]
    if not found.size:
        raise ValueError("No voxel of the image has a finite value (all are NaN or infinite).")
    low, high = found.min(), found.max()
    return replace(volume, voxels=np.nan_to_num(volume.voxels, nan=low, posinf=high, neginf=low))


def _range(cases: tuple[Case, ...]) -> str:
    return f"{cases[0].id} to {cases[-1].id}" if cases else "none yet"


def _size(array: np.ndarray) -> str:
    return " x ".join(map(str, array.shape[2::-1]))


def _today() -> str:
    return datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
