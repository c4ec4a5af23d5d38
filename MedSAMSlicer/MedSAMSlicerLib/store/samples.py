"""The sample images with known organ labels, taken from the test data of TotalSegmentator."""

from __future__ import annotations

import shutil
from pathlib import Path

from MedSAMSlicerLib.store.archive import extract
from MedSAMSlicerLib.store.catalog import SAMPLE_ARCHIVE, SAMPLES
from MedSAMSlicerLib.store.download import Progress, download
from MedSAMSlicerLib.store.folder import is_sound, replacing, store_folder
from MedSAMSlicerLib.store.lock import exclusive
from MedSAMSlicerLib.store.log import note


class SampleMissing(RuntimeError):
    """A sample file is absent or damaged; the text names the remedy."""


def sample_path(name: str, folder: Path | None = None) -> Path:
    """Return a sample file that is here and sound; needs no network.

    :param name: such as ``example_ct_sm.nii.gz``.
    :param folder: where the files lie, by default ``samples`` in the folder of the store.
    :raises SampleMissing: the file is absent or damaged.
    :raises ValueError: there is no sample of that name.
    """
    sample = next((sample for sample in SAMPLES if sample.name == name), None)
    if sample is None:
        raise ValueError(f"No sample is called {name!r}: choose one of {', '.join(s.name for s in SAMPLES)}.")
    path = _folder(folder) / sample.name
    if not is_sound(path, sample.size, sample.sha256):
        state = "damaged" if path.exists() else "absent"
        raise SampleMissing(f"The sample {name} is {state} ({path}). Run: medsam-slicer demo")
    return path


def fetch_samples(progress: Progress | None = None, folder: Path | None = None) -> list[Path]:
    """Bring all sample files here unless they are, and return them in the catalog's order.

    :raises DownloadError: the archive that contains them cannot be fetched.
    :raises StorageError: a file cannot be written.
    """
    target = _folder(folder)
    archive = target / SAMPLE_ARCHIVE.filename
    members = [(sample.member, target / sample.name, sample.size, sample.sha256) for sample in SAMPLES]
    # One lock around all of it, or a process that waited would find the archive gone and fetch it again.
    with exclusive(target / "samples"):
        if not all(is_sound(path, size, sha256) for _, path, size, sha256 in members):
            download(
                [SAMPLE_ARCHIVE],
                archive,
                size=SAMPLE_ARCHIVE.size,
                sha256=SAMPLE_ARCHIVE.sha256,
                remedy=f"Check the network and try again, or put {SAMPLE_ARCHIVE.filename} into {target} by hand.",
                progress=progress,
            )
            extract(archive, members)
            for _, path, _, _ in members:
                note("unpacked", path, SAMPLE_ARCHIVE)
            archive.unlink()
    return [path for _, path, _, _ in members]


def import_samples(path: Path) -> list[Path]:
    """Take over a sample file, or all of them from the archive, and return those that were not here.

    :raises ValueError: if the file is neither.
    """
    target = _folder(None)
    with exclusive(target / "samples"):
        missing = [each for each in SAMPLES if not is_sound(target / each.name, each.size, each.sha256)]
        if path.name == SAMPLE_ARCHIVE.filename:
            extract(path, [(each.member, target / each.name, each.size, each.sha256) for each in missing])
        else:
            missing = [each for each in missing if each.name == path.name]
            for sample in missing:
                if not is_sound(path, sample.size, sample.sha256):
                    raise ValueError(f"{path} is not the sample {sample.name}: its SHA-256 is not {sample.sha256}.")
                with replacing(target / sample.name) as draft:
                    shutil.copyfile(path, draft)
    for sample in missing:
        note("imported", target / sample.name, path)
    return [target / sample.name for sample in missing]


def _folder(folder: Path | None) -> Path:
    """Return the folder of the sample files."""
    return folder if folder is not None else store_folder() / "samples"
