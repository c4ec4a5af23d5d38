"""The index of a dataset: its file ``dataset.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from MedSAMSlicerLib.dataset.case import Case
from MedSAMSlicerLib.volume.files import atomic_output

FORMAT = "MedSAMSlicer site dataset"
VERSION = 1


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

        :raises OSError: if it can't be written.
        """
        content = {"format": FORMAT, "version": VERSION, **asdict(self)}
        try:
            with atomic_output(path) as draft:
                draft.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise OSError(
                f"{path} can't be written ({error.strerror or error}): free some disk space or make the folder "
                "writable, and try again. The dataset is as it was."
            ) from error

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
                return cls(**content)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{path} is no index of a dataset, or damaged ({error}): restore it from a backup."
            ) from error
        raise ValueError(f"{path} has the version {version}, this program reads {VERSION}: update MedSAMSlicer.")
