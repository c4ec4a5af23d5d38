"""Pictures inside of a page: a slice and outlines in it, as PNG in the page's own text."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

# After Okabe and Ito (2008), which all eyes tell apart.
EXPERT, BEFORE, AFTER = (0, 158, 115), (230, 159, 0), (86, 180, 233)
_EDGE = 260
_GAP = 4


def outlined(image: np.ndarray, masks: list[tuple[np.ndarray, tuple[int, int, int]]], aspect: float) -> np.ndarray:
    """Draw outlines of masks into an enlarged slice.

    :param image: uint8 (rows, columns) or (rows, columns, 3).
    :param masks: pairs of a mask, bool (rows, columns), and the color of its outline.
    :param aspect: height of a pixel divided by its width.
    :return: uint8 (rows, columns, 3), of square pixels, the longer edge about 260 pixels.
    """
    rows, columns = image.shape[:2]
    scale = _EDGE / max(rows * aspect, columns)
    y = np.minimum((np.arange(max(round(rows * aspect * scale), 1)) / (aspect * scale)).astype(int), rows - 1)
    x = np.minimum((np.arange(max(round(columns * scale), 1)) / scale).astype(int), columns - 1)
    places = np.ix_(y, x)
    picture = np.repeat(image[places][..., None], 3, axis=2) if image.ndim == 2 else image[places].copy()
    for mask, color in masks:
        picture[_outline(mask[places])] = color
    return picture


def side_by_side(pictures: list[np.ndarray]) -> np.ndarray:
    """Put pictures of one height into a row."""
    gap = np.full((pictures[0].shape[0], _GAP, 3), 255, dtype=np.uint8)
    parts = [part for picture in pictures for part in (picture, gap)]
    return np.concatenate(parts[:-1], axis=1)


def png(picture: np.ndarray) -> bytes:
    """Write a picture, uint8 (rows, columns, 3), as a PNG file (https://www.w3.org/TR/png-3/)."""
    rows, columns, _ = picture.shape
    header = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    # Every row begins with its filter, 0 for none.
    lines = np.concatenate([np.zeros((rows, 1), np.uint8), picture.reshape(rows, -1)], axis=1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def inline(picture: np.ndarray) -> str:
    """Return the address by which a page shows a picture that it holds itself."""
    return f"data:image/png;base64,{base64.b64encode(png(picture)).decode('ascii')}"


def _outline(mask: np.ndarray) -> np.ndarray:
    """Find the pixels of a mask that are within two pixels of its edge."""
    inner = mask.copy()
    for _ in range(2):
        padded = np.pad(inner, 1)
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner
