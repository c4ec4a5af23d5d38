"""Where the frames of a multi-frame DICOM file lie, which SimpleITK does not tell.

The format: DICOM PS3.5, 7.1 Data Elements, 7.5 Nesting of Data Sets and A.4 Encapsulation of Encoded Pixel Data; PS3.3,
C.7.6.16 Multi-frame Functional Groups.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_Tag = tuple[int, int]
# What a file or an item of a sequence holds: values as bytes, sequences as lists of items.
_Items = dict[_Tag, Any]

# Value representations whose length is told in four bytes.
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_UNDEFINED = 0xFFFFFFFF
_ITEM, _END_OF_ITEM, _END_OF_SEQUENCE = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_TRANSFER_SYNTAX, _PIXELS = (0x0002, 0x0010), (0x7FE0, 0x0010)
_SHARED, _PER_FRAME = (0x5200, 0x9229), (0x5200, 0x9230)
# By implicit value representation, where a file does not tell what is a sequence.
_SEQUENCES = {
    _SHARED,
    _PER_FRAME,
    _POSITION := (0x0020, 0x9113),
    _ORIENTATION := (0x0020, 0x9116),
    _MEASURES := (0x0028, 0x9110),
    _RESCALE := (0x0028, 0x9145),
}
_IMPLICIT = b"1.2.840.10008.1.2"
_UNREADABLE = {b"1.2.840.10008.1.2.2": "big-endian", b"1.2.840.10008.1.2.1.99": "deflated"}


@dataclass(frozen=True)
class Frame:
    """What a file tells of one frame; None where it doesn't.

    :param position: (x, y, z) of the first pixel's center in millimeters, LPS.
    :param orientation: the directions along a row and along a column.
    :param spacing: millimeters between rows, then between columns.
    :param rescale: slope and intercept.
    """

    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    rescale: tuple[float, ...] | None


def read_frames(path: Path) -> tuple[list[Frame], int]:
    """Read where the frames of a file lie, in their order.

    :return: the frames, none if the file has no functional groups; and for how many its pixels suffice.
    :raises ValueError: if the file is damaged, or encoded in a way that can't be read; the text says how.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            if content[128:132] != b"DICM":
                raise ValueError("it lacks the preamble of DICOM files")
            walk = _Walk(content)
            syntax = walk.elements(len(content), only_meta=True).get(_TRANSFER_SYNTAX, b"").rstrip(b"\0 ")
            if syntax in _UNREADABLE:
                raise ValueError(f"its encoding is {_UNREADABLE[syntax]}, of which only single frames can be read")
            walk.explicit = syntax != _IMPLICIT
            items = walk.elements(len(content))
            shared = (items.get(_SHARED) or [{}])[0]
            return [_frame(own, shared) for own in items.get(_PER_FRAME, [])], _whole_frames(items)
        except (struct.error, IndexError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError("its header is damaged or cut off") from error


def _frame(own: _Items, shared: _Items) -> Frame:
    """Look a frame's place up, in its own groups before those that all frames share."""

    def numbers(group: _Tag, *tags: _Tag) -> tuple[float, ...] | None:
        for groups in (own, shared):
            if found := groups.get(group):
                values = [found[0][tag].decode("ascii").split("\\") for tag in tags if tag in found[0]]
                return tuple(float(value) for each in values for value in each) or None
        return None

    return Frame(
        numbers(_POSITION, (0x0020, 0x0032)),
        numbers(_ORIENTATION, (0x0020, 0x0037)),
        numbers(_MEASURES, (0x0028, 0x0030)),
        numbers(_RESCALE, (0x0028, 0x1053), (0x0028, 0x1052)),
    )


def _whole_frames(items: _Items) -> int:
    """Tell how many frames the pixels suffice for: by their bytes, or compressed by the pieces that they are in."""
    pixels = items.get(_PIXELS, 0)
    if isinstance(pixels, list):
        return len(pixels) - 1  # the first item is a table
    rows, columns, bits = (
        struct.unpack("<H", items.get((0x0028, tag), b"\0\0")[:2])[0] for tag in (0x0010, 0x0011, 0x0100)
    )
    (samples,) = struct.unpack("<H", items.get((0x0028, 0x0002), b"\1\0")[:2])
    # Its two colors are told for every other pixel only.
    halved = items.get((0x0028, 0x0004), b"").strip(b"\0 ") == b"YBR_FULL_422"
    return int(pixels * 8 // max(rows * columns * bits * (2 if halved else samples), 1))


class _Walk:
    """A walk through the elements of a file, little-endian, past its preamble."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._at = 132
        self.explicit = True

    def elements(self, end: int, *, only_meta: bool = False) -> _Items:
        """Read elements up to a byte or the end of an item; of the pixels their length, or a list of their pieces.

        :param only_meta: stop after group 2, which tells how the others are encoded.
        """
        found: _Items = {}
        while self._at < end:
            tag = struct.unpack_from("<HH", self._content, self._at)
            if only_meta and tag[0] != _TRANSFER_SYNTAX[0]:
                break
            kind, length = self._kind_and_length()
            if tag in (_END_OF_ITEM, _END_OF_SEQUENCE):
                break
            if tag == _PIXELS:
                found[tag] = self._sequence(end, pieces=True) if length == _UNDEFINED else min(length, end - self._at)
                break
            if kind == b"SQ" or length == _UNDEFINED or (not self.explicit and tag in _SEQUENCES):
                explicit, self.explicit = self.explicit, self.explicit and kind != b"UN"
                found[tag] = self._sequence(end if length == _UNDEFINED else self._at + length)
                self.explicit = explicit
            else:
                found[tag] = self._content[self._at : self._at + length]
                self._at += length
        return found

    def _kind_and_length(self) -> tuple[bytes, int]:
        """Read the rest of an element's head, after which its value begins."""
        kind = self._content[self._at + 4 : self._at + 6]
        short = self.explicit and kind.isalpha() and kind not in _LONG
        wide = self.explicit and kind in _LONG
        form, start = ("<H", 6) if short else ("<I", 8 if wide else 4)
        (length,) = struct.unpack_from(form, self._content, self._at + start)
        self._at += 12 if wide else 8
        return kind, int(length)

    def _sequence(self, end: int, *, pieces: bool = False) -> list[Any]:
        """Read the items of a sequence, or the lengths of the pieces of compressed pixels."""
        items: list[Any] = []
        while self._at < end:
            *tag, length = struct.unpack_from("<HHI", self._content, self._at)
            self._at += 8
            if tuple(tag) != _ITEM:
                break
            last = end if length == _UNDEFINED else self._at + length
            if pieces:
                if last > end:
                    break  # a piece that is cut off
                items.append(length)
                self._at = last
            else:
                items.append(self.elements(last))
        return items
