"""The windows of volume nodes: their voxels are looked at once, however many boxes are drawn in them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

import numpy as np
import slicer

from MedSAMSlicerLib.mrml.volumes import voxels
from MedSAMSlicerLib.volume.intensity import IntensityRange, guess_modality, resolve_window
from MedSAMSlicerLib.volume.slice_stack import seen_channels

_Found = TypeVar("_Found")
# The last answers of this process; none of them holds a voxel.
_LIMIT = 64
_found: OrderedDict[Hashable, object] = OrderedDict()


def window_of(volume: slicer.vtkMRMLVolumeNode, window: str) -> IntensityRange:
    """Look up the range of values that a window means in a volume.

    :param window: see `volume.intensity.resolve_window`.
    :raises ValueError: if the volume has no voxels or the window does not fit them.
    """
    return _once(volume, window, lambda values: resolve_window(window, values))


def modality_of(volume: slicer.vtkMRMLVolumeNode) -> str:
    """Guess what a volume is: "ct", "mr", or "display" for bytes and colors.

    :raises ValueError: if the volume has no voxels.
    """
    return _once(volume, None, lambda values: "display" if values.ndim == 4 else guess_modality(values))


def _once(volume: slicer.vtkMRMLVolumeNode, question: Hashable, answer: Callable[[np.ndarray], _Found]) -> _Found:
    """Answer a question about a volume's voxels, again only after they have changed."""
    values = seen_channels(voxels(volume))
    scalars = volume.GetImageData().GetPointData().GetScalars()
    # VTK counts changes over all objects, so that another array at the same place has another time.
    key = (scalars.GetAddressAsString(""), scalars.GetMTime(), values.shape, question)
    if key not in _found:
        _found[key] = answer(values)
        if len(_found) > _LIMIT:
            _found.popitem(last=False)
    _found.move_to_end(key)
    return _found[key]  # type: ignore[return-value]
