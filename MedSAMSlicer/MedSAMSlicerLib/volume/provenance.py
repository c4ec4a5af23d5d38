"""Where a segment comes from, in short texts that are saved with it: enough to make it again, and nothing of a patient.

A volume is told by the checksum of its voxels, a model by that of its file; no path and no name of a volume is kept.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np

from MedSAMSlicerLib import __version__
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.geometry import AXES, box_corners
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.review import SliceReview

PREFIX = "MedSAM."
# Every text that a run leaves, by its name. "Reservation" says why the run alone does not make the segment.
FIELDS = (
    *("Model", "ModelSHA256", "Base", "BaseSHA256", "Volume", "Prompts", "Window", "Propagation"),
    *("Doubt", "Reservation", "Earlier", "Version", "Date"),
)


@dataclass(frozen=True, eq=False)
class Prompts:
    """What a structure was segmented from, in continuous voxel indices.

    :param space: what the indices count: "IJK" of the volume, or "IJK of the segmentation" where it has another grid.
    :param axis: along which the slices were cut, "i", "j" or "k".
    :param corners: (8, 3) of the 3-D box; None without one.
    :param start: the box on one slice; None without one.
    :param boxes: slice index -> box, where each slice has its own.
    :param limit: how far the structure was followed to either side, in millimeters; None for until its end.
    :param first: the slice that was begun with; None where none was chosen.
    """

    axis: str
    corners: np.ndarray | None = None
    start: KeySlice | None = None
    boxes: Mapping[int, Box] | None = None
    key_slices: Sequence[KeySlice] = ()
    limit: float | None = None
    first: int | None = None
    space: str = "IJK"

    def to_text(self) -> str:
        """Write them as one line of JSON; ``edges`` are those of a box along the axes, first and last (I, J, K)."""
        told: dict[str, Any] = {"space": self.space, "axis": self.axis}
        if self.corners is not None:
            edges = [*self.corners.min(axis=0).tolist(), *self.corners.max(axis=0).tolist()]
            straight = np.array_equal(self.corners, box_corners(np.array(edges[:3]), np.array(edges[3:])))
            told |= {"edges": edges} if straight else {"corners": self.corners.tolist()}
        if self.start is not None:
            told["slice_box"] = _key_content(self.start)
        if self.boxes:
            told["boxes"] = {str(index): _numbers(box) for index, box in self.boxes.items()}
        if self.key_slices:
            told["key_slices"] = [_key_content(key) for key in self.key_slices]
        told |= {} if self.limit is None else {"limit": self.limit}
        told |= {} if self.first is None else {"first": self.first}
        return json.dumps(told)

    @classmethod
    def from_text(cls, text: str) -> Prompts:
        """Read what `to_text` has written.

        :raises ValueError: if it is something else.
        """
        try:
            told = json.loads(text)
            corners = np.array(told["corners"], dtype=float) if "corners" in told else None
            if "edges" in told:
                corners = box_corners(np.array(told["edges"][:3], float), np.array(told["edges"][3:], float))
            boxes = {int(index): Box(*box) for index, box in told.get("boxes", {}).items()}
            return cls(
                axis="ijk"[AXES[told["axis"]]],
                corners=corners,
                start=_key_slice(told["slice_box"]) if "slice_box" in told else None,
                boxes=boxes or None,
                key_slices=tuple(_key_slice(key) for key in told.get("key_slices", ())),
                limit=told.get("limit"),
                first=told.get("first"),
                space=told["space"],
            )
        except (LookupError, TypeError, ValueError, AttributeError, zlib.error) as error:
            raise ValueError(
                f"The prompts {text[:60]!r} can't be read: they were not written by this program."
            ) from error


def run_fields(
    source: Mapping[str, str],
    prompts: Prompts,
    *,
    volume: str,
    window: str,
    propagation: str,
    review: Sequence[SliceReview],
    reservation: str = "",
) -> dict[str, str]:
    """Tell of one run, by the names of `FIELDS`; what there is nothing to say of is left out.

    :param source: "Model" and so on, see `loading.load_model`.
    :param volume: see `volume_text`.
    """
    fields = {
        **source,
        "Volume": volume,
        "Prompts": prompts.to_text(),
        "Window": window,
        "Propagation": propagation,
        "Doubt": _doubt(review),
        "Reservation": reservation,
        "Version": __version__,
        "Date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    # (In a file a bar ends a tag, and a new line all of them.)
    return {name: " ".join(text.replace("|", "/").split()) for name, text in fields.items() if text}


def fields_in(tags: str) -> dict[str, str]:
    """Read what a segment tells of its run from its tags in a file, see `labels.Labels`."""
    pairs = (tag.partition(":")[::2] for tag in tags.split("|"))
    return {name.removeprefix(PREFIX): text for name, text in pairs if name.startswith(PREFIX) and text}


def added_to(earlier: Mapping[str, str], fields: Mapping[str, str]) -> dict[str, str]:
    """Tell of a run that has changed what an earlier one had made; that one is told, too."""
    runs = json.loads(earlier["Earlier"]) if "Earlier" in earlier else []
    last: dict[str, Any] = {name: text for name, text in earlier.items() if name != "Earlier"}
    if not last:
        return dict(fields)
    # As content, not as text: there is no quotation within another.
    last["Prompts"] = json.loads(last["Prompts"])
    return {**fields, "Earlier": json.dumps([*runs, last], ensure_ascii=False)}


def voxels_sha256(voxels: np.ndarray) -> str:
    """Return the SHA-256 of a volume's voxels, their type and their number."""
    digest = hashlib.sha256(f"{voxels.dtype.kind}{voxels.dtype.itemsize} {voxels.shape}".encode())
    digest.update(np.ascontiguousarray(voxels).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def volume_text(dimensions: Sequence[int], spacing: Sequence[float], sha256: str) -> str:
    """Tell a volume by what it is: the number of voxels, their size, and their checksum."""
    millimeters = "x".join(f"{size:.4g}" for size in spacing)
    return f"{'x'.join(map(str, dimensions))} voxels of {millimeters} mm, SHA-256 {sha256}"


def same_volume(one: str, other: str) -> bool:
    """Return whether two texts of `volume_text` tell of the same voxels; sizes may differ by rounding."""
    words, others = one.split(), other.split()
    if len(words) != len(others) or words[0] != others[0] or words[-1] != others[-1]:
        return False
    sizes, other_sizes = ([float(size) for size in each[3].split("x")] for each in (words, others))
    return bool(np.allclose(sizes, other_sizes, rtol=1e-3))


def _doubt(review: Sequence[SliceReview]) -> str:
    """Say how sure the slices are, the least certain one by name."""
    if not review:
        return ""
    least = min(review, key=lambda each: each.confidence)
    mean = sum(each.confidence for each in review) / len(review)
    return f"confidence {mean:.3f} on average, {least.confidence:.3f} in slice {'IJK'[least.axis]} {least.index}"


def _numbers(box: Box) -> list[float]:
    return [float(edge) for edge in astuple(box)]


def _key_content(key: KeySlice) -> dict[str, Any]:
    content: dict[str, Any] = {"axis": "ijk"[key.axis], "index": int(key.index)}
    if key.box is not None:
        return {**content, "box": _numbers(key.box)}
    assert key.mask is not None
    packed = base64.b64encode(zlib.compress(np.packbits(key.mask).tobytes(), 9)).decode("ascii")
    return {**content, "shape": list(key.mask.shape), "mask": packed}


def _key_slice(content: Mapping[str, Any]) -> KeySlice:
    axis, index = AXES[content["axis"]], int(content["index"])
    if "box" in content:
        return KeySlice(axis, index, Box(*content["box"]))
    rows, columns = content["shape"]
    bits = np.frombuffer(zlib.decompress(base64.b64decode(content["mask"])), dtype=np.uint8)
    mask = np.unpackbits(bits, count=rows * columns).reshape(rows, columns).astype(bool)
    return KeySlice(axis, index, mask=mask)
