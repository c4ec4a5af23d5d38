"""The volumes of a folder, one after the other, each with the file of its result beside it."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from MedSAMSlicerLib.mrml.segmentation_file import save_segmentation
from MedSAMSlicerLib.store.claim import Claim
from MedSAMSlicerLib.volume.files import stem
from MedSAMSlicerLib.volume.image_file import is_dicom

_ENDINGS = (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd")
# What other files of masks are called: by Slicer, and by half of the world's datasets.
_MASKS = (".seg.nrrd", "_seg", "-seg", "_label", "-label", "_labels", "_mask")
# So many files tell whether a folder holds a series: reports and directories may stand before the images.
_LOOKED_AT = 5


class Worklist:
    """Goes through the volumes of a folder that have no result yet.

    A case belongs to one Slicer at a time, also on a shared drive (see `store.claim`), and a file that another program
    or person has written is never written over.

    :param folder: its volumes are NRRD, NIfTI and MetaImage files, and folders that hold a DICOM series each; names of
        files that end like masks are left out.
    :raises ValueError: if it holds none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.volumes = _volumes(folder)
        if not self.volumes:
            raise ValueError(
                _("{folder} holds no volume ({endings}, or a folder of DICOM files): choose another folder.").format(
                    folder=folder, endings=", ".join(_ENDINGS)
                )
            )
        self._names = Counter(name_of(path) for path in self.volumes)
        self._at = -1
        self._claim: Claim | None = None

    @property
    def current(self) -> Path | None:
        """Return the volume of the case that is held; None before the first and after the last."""
        return self.volumes[self._at] if self._claim is not None else None

    @property
    def output(self) -> Path:
        """Return the file of the current case's result."""
        return self.output_of(self.volumes[self._at])

    @property
    def done(self) -> int:
        """Return how many volumes have a result."""
        return sum(self.output_of(path).exists() for path in self.volumes)

    def output_of(self, volume: Path) -> Path:
        """Name the result of a volume: ``CT.nii.gz`` -> ``CT.seg.nrrd``, or with its ending where two would be one."""
        name = name_of(volume) if self._names[name_of(volume)] == 1 else volume.name
        return volume.with_name(f"{name}.seg.nrrd")

    def advance(self) -> Path | None:
        """Hold the next case without a result that nobody else has, and return its volume; None if there is none.

        :raises StorageError: if the folder can't be written to.
        """
        self.release()
        for step in range(1, len(self.volumes) + 1):
            at = (self._at + step) % len(self.volumes)
            output = self.output_of(self.volumes[at])
            if output.exists():
                continue
            claim = Claim([output], self.volumes[at].name)
            if not claim.take():
                continue
            self._at, self._claim = at, claim
            return self.volumes[at]
        return None

    def save(self, segmentation: Any) -> Path:
        """Write the result of the current case, whole or not at all; over an older one of its own only.

        :raises ValueError: if somebody else has written a file of this name meanwhile.
        :raises OSError: if it can't be written.
        """
        assert self._claim is not None
        output = self.output
        try:
            self._claim.is_done()
        except ValueError as error:
            raise ValueError(
                _("{path} was written or changed by somebody else: move it away, then save again.").format(path=output)
            ) from error
        self._claim.begin()
        save_segmentation(segmentation, output)
        self._claim.end()
        return output

    def release(self) -> None:
        """Let others have the current case."""
        claim, self._claim = self._claim, None
        if claim is not None:
            with contextlib.suppress(OSError):
                claim.release()


def name_of(volume: Path) -> str:
    """Name the case of a volume's file or DICOM folder."""
    return volume.name if volume.is_dir() else stem(volume)


def _volumes(folder: Path) -> list[Path]:
    """List the volumes of a folder in the order of their names."""
    return [
        path
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".") and (_is_series(path) if path.is_dir() else _is_volume(path))
    ]


def _is_series(folder: Path) -> bool:
    """Tell whether DICOM files are among the first of a folder."""
    return any(is_dicom(path) for path in itertools.islice(sorted(folder.iterdir()), _LOOKED_AT))


def _is_volume(path: Path) -> bool:
    return (
        path.name.lower().endswith(_ENDINGS)
        and not path.name.lower().endswith(".seg.nrrd")
        and not stem(path).lower().endswith(_MASKS)
    )
