"""Weights and samples on a folder or a USB stick, for a computer without a network."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from MedSAMSlicerLib.store.catalog import SAMPLE_ARCHIVE, SAMPLES, ArchiveMember
from MedSAMSlicerLib.store.folder import replacing, sha256_of
from MedSAMSlicerLib.store.samples import SampleMissing, import_samples, sample_path
from MedSAMSlicerLib.store.weights import WeightsStore

SUMS = "SHA256SUMS"
"""The file of checksums beside the others, as `sha256sum` writes and checks it."""

ImportWeights = Callable[[str, Path], Path]
"""Takes over weights of a name from a file, see `loading.import_weights`."""


def export_to(folder: Path, store: WeightsStore) -> list[Path]:
    """Copy the weights and samples that are here, and sound, to a folder, with a file of their checksums.

    :raises ValueError: if there is nothing to copy.
    :raises StorageError: if a file can't be written.
    """
    found = [stored.path for stored in store.entries() if stored.state == "present"]
    for sample in SAMPLES:
        try:
            found.append(sample_path(sample.name))
        except SampleMissing:
            continue
    if not found:
        raise ValueError("There are no weights and no samples here yet: fetch or import some first.")
    sums = _read_sums(folder)
    for path in found:
        with replacing(folder / path.name) as draft:
            shutil.copyfile(path, draft)
            sums[path.name] = sha256_of(path)
            if sha256_of(draft) != sums[path.name]:
                raise ValueError(f"{path} changes while it is copied: wait until it is complete and try again.")
    with replacing(folder / SUMS) as draft:
        draft.write_text("".join(f"{sums[name]}  {name}\n" for name in sorted(sums)), encoding="utf-8")
    return [folder / path.name for path in found]


def import_from(
    folder: Path, store: WeightsStore, import_weights: ImportWeights, tell: Callable[[str], object] = lambda name: None
) -> list[str]:
    """Take over the weights and samples that lie in a folder, or one folder below, under their publishers' names.

    What is here already and sound is left as it is. Files of other names are not looked at.

    :param tell: called with the name of each file before it is read; may raise to cancel.
    :return: the names of the files that were taken over.
    :raises ValueError: if nothing in the folder is known, or a file is not what its name or checksum says; those
        before it are taken over then.
    """
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}: give the one with the weights.")
    known, taken = False, []
    here = {stored.weights.name for stored in store.entries() if stored.state == "present"}
    for path in _candidates(folder):
        for name in _weights_in(path, store):
            known = True
            if name not in here:
                tell(path.name)
                _check_sum(path)
                import_weights(name, path)
                taken.append(path.name)
        if path.name == SAMPLE_ARCHIVE.filename or path.name in {sample.name for sample in SAMPLES}:
            known = True
            tell(path.name)
            _check_sum(path)
            if import_samples(path):
                taken.append(path.name)
    if not known:
        names = ", ".join(weights.filename for weights in store.catalog)
        raise ValueError(
            f"{folder} holds no weights or samples under a name that is known here ({names}, {SAMPLES[0].name}, …): "
            "give a folder that was written by `medsam-slicer cache export`, or keep the publishers' names."
        )
    return taken


def _candidates(folder: Path) -> Iterator[Path]:
    """List the files of a folder and of the folders in it, in the order of their names."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from (each for each in sorted(path.iterdir()) if each.is_file())
        elif path.is_file():
            yield path


def _weights_in(path: Path, store: WeightsStore) -> list[str]:
    """Name the weights that a file holds, by its own name: the checkpoint, or the archive with it."""
    return [
        weights.name
        for weights in store.catalog
        if path.name == weights.filename
        or any(isinstance(each, ArchiveMember) and each.archive.filename == path.name for each in weights.sources)
    ]


def _check_sum(path: Path) -> None:
    """Compare a file with the checksum that lies beside it, if there is one.

    :raises ValueError: if they differ.
    """
    expected = _read_sums(path.parent).get(path.name)
    if expected is not None and sha256_of(path) != expected:
        raise ValueError(f"{path} is damaged: its SHA-256 is not the one in {SUMS} beside it; copy it again.")


def _read_sums(folder: Path) -> dict[str, str]:
    """Read the checksums of a folder, name -> SHA-256; none where there is no such file."""
    path = folder / SUMS
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    pairs = [line.split(maxsplit=1) for line in lines]
    return {pair[1].lstrip("*"): pair[0].lower() for pair in pairs if len(pair) == 2}
