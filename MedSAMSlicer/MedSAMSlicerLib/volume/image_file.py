"""One image file as ITK reads it: what is wrong with it told in a sentence, and nothing else printed."""

from __future__ import annotations

import contextlib
import gzip
import logging
import math
import os
import re
import struct
import tempfile
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import SimpleITK as sitk

# Held while the standard error stream is turned away: two threads at once would lose it.
_STREAM = threading.RLock()


class FileError(ValueError):
    """A file that can't be read as what was asked for; the text says which, why and what to do."""


def read_image(path: Path) -> sitk.Image:
    """Read a file as ITK does.

    :raises FileError: if there is no such file, it is empty, or no image.
    """
    if not path.exists():
        raise FileError(f"{path} does not exist: check the path.")
    if path.stat().st_size == 0:
        raise FileError(f"{path} is empty: copy or download it again.")
    if path.name.lower().endswith((".nii", ".nii.gz")):
        _check_nifti(path)
    try:
        with quiet():
            return sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise FileError(
            f"{path} can't be read as an image ({reason(error)}): "
            "it is damaged, or no NRRD, NIfTI, MetaImage or DICOM file."
        ) from error


def is_dicom(path: Path) -> bool:
    """Tell whether a file has DICOM's magic word."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep off the screen what ITK and the libraries below it print of a file; it is logged for debugging."""
    with _STREAM, contextlib.ExitStack() as stack:
        try:
            screen = os.dup(2)
        except OSError:  # no standard error stream, as in a program with windows
            yield
            return
        stack.callback(os.close, screen)
        kept = stack.enter_context(tempfile.TemporaryFile())
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(screen, 2)
            kept.seek(0)
            if text := kept.read().decode(errors="replace").strip():
                logging.getLogger(__name__).debug(text)


def reason(error: RuntimeError) -> str:
    """Find the sentence that matters in one of ITK's multi-line errors."""
    # "Reason:" is the system's last error, which is often an older one.
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith("Reason:")]
    if not lines:
        return "no reason given"
    return re.sub("^(sitk::ERROR|ITK ERROR): ", "", lines[-1]).split("): ")[-1].rstrip(".")[:200]


def _check_nifti(path: Path) -> None:
    """Refuse a NIfTI file that is cut off or damaged: ITK says nothing and puts zeros where voxels are missing."""
    with path.open("rb") as plain:
        compressed = plain.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path, "rb") if compressed else path.open("rb") as file:
            header = file.read(348)
            size = file.seek(0, os.SEEK_END)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FileError(f"{path} is cut off or damaged ({error}): copy or download it again.") from error
    # NIfTI-1 as nifti1.h lays it out, in either byte order; ITK itself tells what is no NIfTI file.
    for order in "<>":
        if len(header) == 348 and struct.unpack_from(f"{order}i", header)[0] == 348:
            count, *sizes = struct.unpack_from(f"{order}8h", header, 40)
            (bits,) = struct.unpack_from(f"{order}h", header, 72)
            (start,) = struct.unpack_from(f"{order}f", header, 108)
            if not 0 <= start <= size:
                raise FileError(
                    f"{path} is damaged: its voxels begin at byte {start:g} of {size} (vox_offset). "
                    "Copy or download it again."
                )
            expected = int(start) + math.prod(sizes[:count]) * bits // 8
            if header[344:347] == b"n+1" and size < expected:
                raise FileError(f"{path} is cut off: it has {size} of {expected} bytes. Copy or download it again.")
