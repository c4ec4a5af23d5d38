"""One image file as ITK reads it: what is wrong with it told in a sentence, and nothing else printed."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import SimpleITK as sitk

from MedSAMSlicerLib.volume.meta_image import check_compressed
from MedSAMSlicerLib.volume.nifti_header import has_plain_place

_SHEARED = (
    "has voxels that are sheared, or of another size in its sform than beside it: programs place such a file "
    "differently. Save it as NRRD from the program that made it."
)
# Of a file in another format that is damaged or cut off ITK returns what is left, without a word.
_FORMATS = ("NrrdImageIO", "NiftiImageIO", "MetaImageIO", "PNGImageIO")
# Held while the standard error stream is turned away: two threads at once would lose it.
_STREAM = threading.RLock()


class FileError(ValueError):
    """A file that can't be read as what was asked for; the text says which, why and what to do."""


def read_image(path: Path) -> sitk.Image:
    """Read a file as ITK does.

    :raises FileError: if there is no such file, it is a folder, empty, damaged, or no image in a format of which damage
        is noticed.
    """
    if not path.exists():
        raise FileError(f"{path} does not exist: check the path.")
    if path.is_dir():
        raise FileError(f"{path} is a folder: give one file.")
    if path.stat().st_size == 0:
        raise FileError(f"{path} is empty: copy or download it again.")
    with quiet():
        kind = sitk.ImageFileReader.GetImageIOFromFileName(str(path))
    if kind and kind not in _FORMATS:
        name = kind.removesuffix("ImageIO").replace("GDCM", "DICOM")
        raise FileError(
            f"{path} is a {name} file: give NRRD, NIfTI, MetaImage or PNG; Slicer and other programs save these."
        )
    plain = True
    try:
        # (One whose first bytes are damaged ITK takes for none.)
        if kind == "NiftiImageIO" or path.name.lower().endswith((".nii", ".nii.gz")):
            plain = has_plain_place(path)
        elif kind == "MetaImageIO":
            check_compressed(path)
    except ValueError as error:
        raise FileError(f"{path} is {error}") from error
    try:
        with quiet():
            image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        what = (
            f"can't be read as an image ({reason(error)}): it is damaged, or no NRRD, NIfTI, MetaImage or DICOM file."
        )
        raise FileError(f"{path} {_SHEARED if not plain and 'orthonormal' in str(error) else what}") from error
    if not plain and image.GetDimension() > 2:
        raise FileError(f"{path} {_SHEARED}")
    return image


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
