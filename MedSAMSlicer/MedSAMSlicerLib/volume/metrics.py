"""How well a segment agrees with a reference, computed by SimpleITK."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from MedSAMSlicerLib.volume.geometry import bounding_box

# In millimeters: distances are in single precision, and the edge of the tolerance is within.
_ROUNDING = 1e-4


@dataclass(frozen=True)
class Agreement:
    """Agreement of two masks, both figures in [0, 1]."""

    dice: float
    surface_dice: float


def agreement(
    prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, float, float], *, tolerance: float = 2.0
) -> Agreement:
    """Compare two masks of one grid.

    ``dice`` is the Dice similarity coefficient. ``surface_dice`` is the normalized surface distance (Nikolov et al.
    2018, arXiv:1809.04430): the share of both surfaces that lies within the tolerance of the other one. The surface of
    a mask is its voxels that have a neighbor by face outside of it; every one counts the same, so that small
    differences to implementations that weigh by surface area are to be expected.

    :param prediction: (K, J, I), nonzero inside.
    :param reference: (K, J, I), nonzero inside.
    :param spacing: in millimeters, IJK order.
    :param tolerance: in millimeters.
    :raises ValueError: if the shapes differ or both masks are empty.
    """
    if prediction.shape != reference.shape:
        raise ValueError(
            f"The masks have different shapes, {prediction.shape} and {reference.shape}: resample one first."
        )
    prediction, reference = prediction != 0, reference != 0
    if not prediction.any() and not reference.any():
        raise ValueError("Both masks are empty: there is nothing to compare.")
    if not prediction.any() or not reference.any():
        return Agreement(0.0, 0.0)
    first, last = bounding_box(prediction | reference)
    crop = tuple(slice(first[axis], last[axis] + 1) for axis in (2, 1, 0))
    images = [_image(mask[crop], spacing) for mask in (prediction, reference)]
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*images)
    contours = [sitk.BinaryContour(image, fullyConnected=False) for image in images]
    surfaces = [sitk.GetArrayFromImage(contour) != 0 for contour in contours]
    distances = [
        np.abs(
            sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(contour, squaredDistance=False, useImageSpacing=True))
        )
        for contour in contours
    ]
    near = sum(int((distances[1 - side][surfaces[side]] <= tolerance + _ROUNDING).sum()) for side in (0, 1))
    return Agreement(overlap.GetDiceCoefficient(), near / sum(int(surface.sum()) for surface in surfaces))


def _image(mask: np.ndarray, spacing: tuple[float, float, float]) -> sitk.Image:
    # A mask that touches the border has its surface there, so the border must be outside.
    image = sitk.GetImageFromArray(np.pad(mask, 1).astype(np.uint8))
    image.SetSpacing(spacing)
    return image
