"""Archives (wheels and source distributions) from which a few known files are taken."""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from MedSAMSlicerLib.store.folder import replacing

_Opener = Callable[[str], IO[bytes] | None]


def extract(archive: Path, members: Sequence[tuple[str, Path, int, str]]) -> None:
    """Write members of a .whl, .zip or .tar.gz file, each only when it is exactly the expected one.

    Nothing in the archive chooses where a file is written, so a hostile path in it does no harm.

    :param members: for each file its name in the archive, the file to write, its size in bytes and its SHA-256.
    :raises ValueError: a member is missing or differs from what is expected.
    """
    with _opened(archive) as open_member:
        for member, target, size, sha256 in members:
            try:
                file = open_member(member)
            except KeyError:
                file = None
            if file is None:
                raise ValueError(f"{archive.name} has no file {member}: delete it and fetch it again.")
            with file:
                content = file.read(size + 1)
            actual = hashlib.sha256(content).hexdigest()
            if actual != sha256:
                raise ValueError(
                    f"{member} in {archive.name} has the SHA-256 {actual} instead of {sha256}: "
                    f"delete {archive} and fetch it again."
                )
            with replacing(target) as draft:
                draft.write_bytes(content)


@contextmanager
def _opened(archive: Path) -> Iterator[_Opener]:
    """Open either kind of archive and yield the function that opens a member by its name."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            yield wheel.open
    else:
        with tarfile.open(archive, "r:gz") as source:
            yield source.extractfile
