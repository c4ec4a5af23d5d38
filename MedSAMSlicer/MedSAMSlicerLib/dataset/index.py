"""The index of a dataset: its file ``dataset.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from MedSAMSlicerLib.dataset.case import Case, is_patient
from MedSAMSlicerLib.store.folder import replacing

FORMAT = "MedSAMSlicer site dataset"
VERSION = 1
# Ids of cases have at most nine digits.
_MOST = 10**8


@dataclass(frozen=True)
class Use:
    """Remember that a training run has seen a case, even when the case is removed: by its patient and its voxels."""

    run: str
    patient: str
    checksum: str


@dataclass(frozen=True)
class Index:
    """The content of dataset.json; numbers of cases and patients are given once."""

    created: str
    next_case: int = 1
    next_patient: int = 1
    cases: tuple[Case, ...] = ()
    used: tuple[Use, ...] = ()

    def dealt(self, splits: Mapping[str, str]) -> Index:
        """Return the same with other splits.

        :param splits: patient -> split; patients that it lacks stay where they are.
        """
        cases = tuple(replace(case, split=splits.get(case.patient, case.split)) for case in self.cases)
        return replace(self, cases=cases)

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all.

        :raises StorageError: if it can't be written; the dataset is as it was.
        """
        content = {"format": FORMAT, "version": VERSION, **asdict(self)}
        with replacing(path) as draft:
            draft.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Index:
        """Read the file.

        :raises ValueError: if there is none, or it is damaged or of a later version.
        """
        if not path.is_file():
            raise ValueError(f"{path.parent} is no dataset: it has no {path.name}. Give the folder of one.")
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT!r}")
            version = content.pop("version")
            if version == VERSION:
                content["cases"] = tuple(Case.from_json(entry) for entry in content["cases"])
                content["used"] = tuple(Use(**entry) for entry in content["used"])
                index = cls(**content)
                index._check()
                return index
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{path} is no index of a dataset, or damaged ({error}): restore it from a backup."
            ) from error
        raise ValueError(f"{path} has the version {version!r}, this program reads {VERSION}: update MedSAMSlicer.")

    def _check(self) -> None:
        """Refuse what no program of ours writes.

        :raises ValueError: the text names what is wrong.
        """
        for name in ("next_case", "next_patient"):
            if type(number := getattr(self, name)) is not int or not 0 < number < _MOST:
                raise ValueError(f"{name} is {number!r} instead of a number from 1 to {_MOST - 1}")
        ids = [case.id for case in self.cases]
        if twice := [each for each in ids if ids.count(each) > 1]:
            raise ValueError(f"{twice[0]} is there twice")
        for use in self.used:
            if not (is_patient(use.patient) and isinstance(use.run, str) and isinstance(use.checksum, str)):
                raise ValueError(f"{use.patient!r} is no patient whom a training can have seen")
