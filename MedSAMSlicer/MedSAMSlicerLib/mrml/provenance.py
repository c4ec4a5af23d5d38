"""The tags that tell where a segment comes from; Slicer saves them with the segmentation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import slicer
import vtk

from MedSAMSlicerLib.volume.provenance import FIELDS, PREFIX, voxels_sha256

# Of the volumes that were last asked for.
_LIMIT = 16
_digests: OrderedDict[tuple[object, ...], str] = OrderedDict()


class VoxelsDigest:
    """The checksum of a volume's voxels: made in the main thread, computed in any, once as long as they stay.

    :param voxels: the array of the scalars.
    """

    def __init__(self, scalars: vtk.vtkDataArray, voxels: np.ndarray) -> None:
        # VTK counts changes over all objects, so that another array at the same place has another time.
        self._key = (scalars.GetAddressAsString(""), scalars.GetMTime(), voxels.shape)
        self._voxels = voxels

    def sha256(self) -> str:
        """Return the checksum, see `volume.provenance.voxels_sha256`."""
        found = _digests.get(self._key)
        if found is None:
            found = _digests[self._key] = voxels_sha256(self._voxels)
            if len(_digests) > _LIMIT:
                _digests.popitem(last=False)
        return found


def read_fields(segment: slicer.vtkSegment) -> dict[str, str]:
    """Read what a segment tells of its run, by the names of `FIELDS`; empty if it tells nothing."""
    fields = {}
    for name in FIELDS:
        text = vtk.reference("")
        if segment.GetTag(PREFIX + name, text):
            fields[name] = str(text)
    return fields


def write_fields(segment: slicer.vtkSegment, fields: Mapping[str, str]) -> None:
    """Let a segment tell of a run, and of no other; all other tags stay."""
    held = read_fields(segment)
    for name in FIELDS:
        if name in fields and fields[name] != held.get(name):
            segment.SetTag(PREFIX + name, fields[name])
        elif name in held and name not in fields:
            segment.RemoveTag(PREFIX + name)


def source_of(predictor: Any) -> Mapping[str, str]:
    """Return what tells a predictor's model: its file, or if it was not loaded from one, the digest of its weights."""
    return getattr(predictor, "source", None) or {"Model": f"no file; weights {predictor.key}"}
