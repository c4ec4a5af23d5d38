"""What ITK passes over in a MetaImage file: that its compressed voxels are damaged.

The format: https://itk.org/Wiki/ITK/MetaIO/Documentation.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path

_BLOCK = 1 << 20
_LONGEST_LINE = 1 << 16
# What zlib takes for "either of its own format or of gzip's".
_EITHER = 32 + zlib.MAX_WBITS


def check_compressed(path: Path) -> None:
    """Unpack the voxels of a file, if they are compressed, and compare their checksum; a file that is none passes.

    :raises ValueError: if they are damaged or cut off; the text says how.
    """
    with path.open("rb") as file:
        fields: dict[bytes, bytes] = {}
        while b"ElementDataFile" not in fields:
            name, equals, value = file.readline(_LONGEST_LINE).partition(b"=")
            if not equals:
                return
            fields[name.strip()] = value.strip()
        if fields.get(b"CompressedData", b"").lower() != b"true":
            return
        place = fields[b"ElementDataFile"]
        if place.upper() != b"LOCAL":
            beside = path.parent / os.fsdecode(place)
            if not beside.is_file():
                return  # ITK itself tells what is missing
            with beside.open("rb") as voxels:
                _unpack(voxels.read)
        else:
            _unpack(file.read)


def _unpack(read: Callable[[int], bytes]) -> None:
    unpacking = zlib.decompressobj(_EITHER)
    try:
        while not unpacking.eof:
            block = unpacking.unconsumed_tail or read(_BLOCK)
            if not block:
                raise ValueError("cut off: its compressed voxels have no end. Copy or download it again.")
            unpacking.decompress(block, _BLOCK)
    except zlib.error as error:
        raise ValueError(f"damaged ({error}): copy or download it again.") from error
