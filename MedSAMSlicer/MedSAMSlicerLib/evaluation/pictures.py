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


def outlined(image: np.ndarray, masks: list[tuple[np.ndarray, tuple[int, int, int]]], steps: np.ndarray) -> np.ndarray:
    """Draw outlines of masks into an enlarged slice, as radiologists look at it.

    The patient's right is on the left; anterior, in coronal and sagittal slices superior, is on top.

    :param image: uint8 (rows, columns) or (rows, columns, 3).
    :param masks: pairs of a mask, bool (rows, columns), and the color of its outline.
    :param steps: (2, 3), from a row to the next one and from a column to the next one, RAS in millimeters.
    :return: uint8 (rows, columns, 3), of square pixels, the longer edge 260 pixels.
    """
    image = _upright(image, steps)
    spacing = np.linalg.norm(steps[::-1] if _lies_down(steps) else steps, axis=1)
    sizes = image.shape[:2] * spacing
    height, width = np.maximum(np.rint(_EDGE * sizes / sizes.max()), 1).astype(int)
    places = np.ix_(np.arange(height) * image.shape[0] // height, np.arange(width) * image.shape[1] // width)
    picture = np.repeat(image[places][..., None], 3, axis=2) if image.ndim == 2 else image[places]
    for mask, color in masks:
        picture[_outline(_upright(mask, steps)[places])] = color
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


def _upright(plane: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Flip and turn a slice so that its rows count to posterior or inferior and its columns to left or posterior."""
    for axis, step in enumerate(steps):
        if step[np.abs(step).argmax()] > 0:
            plane = np.flip(plane, axis)
    return plane.swapaxes(0, 1) if _lies_down(steps) else plane


def _lies_down(steps: np.ndarray) -> bool:
    """Tell whether the rows and columns of a slice have to change places: right and left go across."""
    down, across = np.abs(steps).argmax(axis=1)
    return bool(across > down)


def _outline(mask: np.ndarray) -> np.ndarray:
    """Find the pixels of a mask that are within two pixels of its edge."""
    inner = mask.copy()
    for _ in range(2):
        padded = np.pad(inner, 1)
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner
