"""What the header of a NIfTI-1 file, or pair, tells that ITK passes over: damaged voxels, and places it can't hold.

The format: nifti1.h of the NIfTI Data Format Working Group.
"""

from __future__ import annotations

import gzip
import math
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np

# By how much sides may be off the right angle, and voxel sizes off those told beside them: rounded decimals.
_TOLERANCE = 1e-3


def has_plain_place(path: Path) -> bool:
    """Check a file, and tell whether its sform, if it has one, is a turned grid of voxels of the size told.

    Else the sform is sheared or scaled: ITK refuses it, or takes the qform instead without a word.

    :raises ValueError: if the file or the other one of its pair is cut off or damaged; the text says how.
    """
    header, size = _content(_one_of_pair(path, "hdr"))
    voxels = _one_of_pair(path, "img")
    if voxels != _one_of_pair(path, "hdr"):
        _, size = _content(voxels)
    # In either byte order; ITK itself tells what is no NIfTI file.
    for order in "<>":
        if len(header) == 348 and struct.unpack_from(f"{order}i", header)[0] == 348:
            if header[344:347] not in (b"n+1", b"ni1"):
                raise ValueError(
                    "no NIfTI file but one of ANALYZE 7.5, which does not tell left from right, or damaged. Save it as "
                    "NIfTI from the program that made it."
                )
            _check_size(header, order, size)
            return _check_place(header, order)
    return True


def _one_of_pair(path: Path, kind: str) -> Path:
    """Find the file of header or voxels, "hdr" or "img"; the file itself where it holds both, or its pair is alone."""
    name = re.sub(r"(hdr|img)(\.gz)?$", kind, path.name.lower())
    if path.name.lower().startswith(name):
        return path
    # (So that the other one may be compressed, or written in capital letters.)
    beside = (each for each in sorted(path.parent.iterdir()) if each.name.lower() in (name, f"{name}.gz"))
    return next(beside, path)


def _content(path: Path) -> tuple[bytes, int]:
    """Read the first bytes of a file, as many as a header has, and how many it has unpacked; reads all of it."""
    with path.open("rb") as plain:
        compressed = plain.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path, "rb") if compressed else path.open("rb") as file:
            return file.read(348), file.seek(0, os.SEEK_END)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"cut off or damaged ({error}): copy or download it again.") from error


def _check_size(header: bytes, order: str, size: int) -> None:
    count, *sizes = struct.unpack_from(f"{order}8h", header, 40)
    (bits,) = struct.unpack_from(f"{order}h", header, 72)
    (start,) = struct.unpack_from(f"{order}f", header, 108)
    if not 0 <= start <= size:
        raise ValueError(f"damaged: its voxels begin at byte {start:g} of {size} (vox_offset). Get it again.")
    expected = int(start) + math.prod(sizes[: max(count, 0)]) * bits // 8
    if size < expected:
        raise ValueError(f"cut off: it has {size} of {expected} bytes. Copy or download it again.")


def _check_place(header: bytes, order: str) -> bool:
    q_code, s_code = struct.unpack_from(f"{order}2h", header, 252)
    sizes = np.array(struct.unpack_from(f"{order}3f", header, 80))
    q_form = np.array(struct.unpack_from(f"{order}6f", header, 256))
    s_form = np.array(struct.unpack_from(f"{order}12f", header, 280)).reshape(3, 4)
    remedy = "Repair its header, or save it again from the program that made it."
    if s_code > 0:
        if not np.isfinite(s_form).all() or abs(np.linalg.det(s_form[:, :3])) < 1e-12:
            raise ValueError(f"damaged: its place in space (sform) is {s_form.ravel().tolist()}. {remedy}")
        lengths = np.linalg.norm(s_form[:, :3], axis=0)
        axes = s_form[:, :3] / lengths
        right_angled = np.allclose(axes.T @ axes, np.eye(3), atol=_TOLERANCE)
        return right_angled and np.allclose(lengths, sizes, rtol=_TOLERANCE)
    if q_code > 0 and not np.isfinite(q_form).all():
        raise ValueError(f"damaged: its place in space (qform) is {q_form.tolist()}. {remedy}")
    return True
