"""The files that a run writes: none of them may be one that it reads, none may be named twice."""

from __future__ import annotations

import os
import tempfile
import unicodedata
from collections.abc import Iterable
from pathlib import Path

_Place = tuple[str | int, ...]


class RunFiles:
    """All files of a run, told apart by what they are on the disk instead of how their paths are spelled.

    Name what is read first, then what is written. Usage example::

        files = RunFiles()
        files.reads("volume", volume)
        files.writes("output", output)
    """

    def __init__(self) -> None:
        self._known: dict[_Place, list[tuple[str, Path]]] = {}
        self._folders: dict[Path, str] = {}

    def reads(self, what: str, path: Path) -> None:
        """Name a file that is read, or a folder.

        Of a folder the DICOM files are read; so they are beside one file of a series.
        """
        self._known.setdefault(_place(path), []).append((what, path))
        for beside in _voxels_of(path):
            self._known.setdefault(_place(beside), []).append((f"voxels of the {what}", beside))
        self._folders.setdefault((path if path.is_dir() else path.parent).resolve(), what)

    def reads_dataset(self, folder: Path) -> None:
        """Name the dataset that is read: its index, its key and all of its cases."""
        for name in ("dataset.json", "patients.key"):
            self.reads("dataset's file", folder / name)
        for path in (folder / "cases").rglob("*"):
            self._known.setdefault(_place(path), []).append(("case's file", path))

    def reads_model(self, what: str, model: str) -> None:
        """Name a model, if it is a file."""
        if Path(model).is_file():
            self.reads(what, Path(model))

    def writes(self, what: str, path: Path) -> None:
        """Name a file that is written.

        :raises ValueError: if it is the same file as another one of the run.
        """
        place = _place(path)
        for other_what, other in self._known.get(place, []):
            if path.exists() or _one_name(path, other):
                raise ValueError(
                    f"The {what} {path} is the same file as the {other_what} {other}: give it another path."
                )
        source = self._folders.get(path.resolve().parent)
        if source and _is_dicom(path):
            raise ValueError(f"The {what} {path} is a DICOM file of the {source}: give it another path.")
        self._known.setdefault(place, []).append((what, path))


def check_output(what: str, path: Path, endings: Iterable[str]) -> None:
    """Refuse a file that can't be written, before the work; where the command fails later, no folder is left behind.

    :raises ValueError: if it has none of the endings, or is no file.
    :raises OSError: if its folder, or the one that this would be made in, can't be written to.
    """
    if not path.name.endswith(tuple(endings)):
        letters = ", in small letters" if path.name.lower().endswith(tuple(endings)) else ""
        raise ValueError(f"The {what} {path} must end with {' or '.join(endings)}{letters}.")
    if path.is_dir():
        raise ValueError(f"The {what} {path} is a folder: give the path of a file.")
    if path.exists() and not path.is_file():
        raise ValueError(f"The {what} {path} is no file but a device or the like: give the path of a file.")
    check_folder("output folder", path.absolute().parent)


def check_folder(what: str, path: Path) -> None:
    """Refuse a folder that can neither be written to nor made, before the work.

    :raises OSError: if it, or the one that it would be made in, can't be written to or is a file.
    """
    folder = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"The {what} {folder} can't be written to ({error.strerror}): give another one.") from error


def check_json(files: RunFiles, target: str | None) -> None:
    """Refuse a file of figures that can't be written, or is one of the run's other files; "-" is none."""
    if target is not None and target != "-":
        check_output("JSON file", Path(target), (".json",))
        files.writes("JSON file", Path(target))


def _place(path: Path) -> _Place:
    """Tell where a path leads to: the system's number of the file; of one to be made, that of the folder and its names.

    Names are told apart without the case of letters, see `_one_name`.
    """
    try:
        there, names = path.resolve(), list[str]()
        there.exists()
    except (RuntimeError, OSError) as error:
        raise ValueError(f"{path} can't be found ({error}): give another path.") from error
    while not there.exists():
        names.append(unicodedata.normalize("NFC", there.name).casefold())
        there = there.parent
    status = there.stat()
    return status.st_dev, status.st_ino, *names


def _one_name(path: Path, other: Path) -> bool:
    """Tell whether two files to be made that differ at most in the case of letters are one in this file system."""
    path, other = path.resolve(), other.resolve()
    if path == other:
        return True
    folder = next(folder for folder in path.parents if folder.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".medsam-a") as probe:
            return Path(probe.name).with_name(Path(probe.name).name.upper()).exists()
    except OSError:
        # Where nothing can be written, this is told by whoever tries.
        return False


def files_of(volume: Path) -> list[Path]:
    """List the files that a volume is read from: all DICOM files of its folder, or its own and those that it names."""
    if volume.is_dir() or _is_dicom(volume):
        folder = volume if volume.is_dir() else volume.resolve().parent
        return [each for each in sorted(folder.iterdir()) if _is_dicom(each)]
    return [volume, *_voxels_of(volume)]


def _voxels_of(path: Path) -> list[Path]:
    """List the files beside a header that it names: the voxels of .nhdr and .mhd files lie apart."""
    if path.suffix.lower() not in (".nhdr", ".mhd") or not path.is_file():
        return []
    header = path.read_bytes()[: 1 << 16]
    return [each for each in path.parent.iterdir() if each != path and os.fsencode(each.name) in header]


def _is_dicom(path: Path) -> bool:
    """Tell whether there is a file with DICOM's magic word; without ITK, which `volume.files` would bring."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"
