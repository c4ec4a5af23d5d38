"""The small picture of a case in the list of a dataset: its middle labelled slice, with the expert's outline."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np

from MedSAMSlicerLib.dataset.case import Case
from MedSAMSlicerLib.dataset.site import SiteDataset
from MedSAMSlicerLib.evaluation.pictures import EXPERT, outlined, png
from MedSAMSlicerLib.volume.geometry import choose_axis, plane_axes, slice_of
from MedSAMSlicerLib.volume.intensity import IntensityRange, resolve_window

# Gray values up to this one are taken for what is around the patient.
_BACKGROUND = 10


def picture_path(dataset: SiteDataset, case: Case) -> Path:
    """Name the file of a case's picture, which lies beside its image; it need not be there."""
    return dataset.image_path(case).with_name("thumbnail.png")


def is_drawn(dataset: SiteDataset, case: Case) -> bool:
    """Tell whether a case has a picture that is not older than its labels."""
    with contextlib.suppress(OSError):
        return picture_path(dataset, case).stat().st_mtime >= dataset.labels_path(case).stat().st_mtime
    return False


def draw(dataset: SiteDataset, case: Case) -> None:
    """Draw the picture of a case; may be called in any thread.

    :raises ValueError: if the case can't be read.
    :raises OSError: if the picture can't be written.
    """
    loaded = dataset.load(case)
    volume = loaded.volume
    axis = choose_axis(volume.spacing, volume.dimensions)
    labelled = np.any(list(loaded.labels.values()), axis=0)
    slices = np.flatnonzero(labelled.any(axis=tuple(other for other in range(3) if other != 2 - axis)))
    middle = int(slices[len(slices) // 2])
    x_axis, y_axis = plane_axes(axis)
    values = slice_of(volume.voxels, axis, middle)
    image = _narrowed(resolve_window(loaded.window, volume.voxels), values).apply(values)
    part = _shown(image if image.ndim == 2 else image.max(axis=2), slice_of(labelled, axis, middle))
    picture = outlined(
        image[part],
        [(slice_of(mask, axis, middle)[part], EXPERT) for mask in loaded.labels.values()],
        volume.ijk_to_ras[:3, [y_axis, x_axis]].T,
    )
    path = picture_path(dataset, case)
    # Without `atomic_output`, which would make the folder anew if the case has been removed meanwhile.
    draft = path.with_suffix(".new")
    draft.write_bytes(png(picture))
    draft.replace(path)


def _shown(image: np.ndarray, labelled: np.ndarray) -> tuple[slice, slice]:
    """Find the part of a slice, (rows, columns), that is more than background: heads are small in their field of view.

    :param image: uint8 (rows, columns).
    """
    holds = (image > _BACKGROUND) | labelled
    rows, columns = (np.flatnonzero(holds.any(axis=across)) for across in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _narrowed(window: IntensityRange, values: np.ndarray) -> IntensityRange:
    """Narrow a volume's window to the values of one slice, which is dark where the bright tissues are elsewhere."""
    held = values[values > window.lower]
    upper = min(window.upper, float(np.percentile(held, 98))) if held.size else window.upper
    return IntensityRange(window.lower, upper) if upper > window.lower else window
