"""How far a box in one slice reaches into the slices beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from slicer.i18n import tr as _

UNTIL_END, DISTANCE, ROI = "end", "distance", "roi"


@dataclass(frozen=True, eq=False)
class SliceRange:
    """The slices that a proposal may fill.

    :param kind: UNTIL_END of the object, until its end within a DISTANCE to both sides, or ROI.
    :param distance: in millimeters.
    :param corners: (8, 3) of the ROI, in voxels of the volume.
    """

    kind: str
    distance: float = 0.0
    corners: np.ndarray | None = None

    @property
    def reach(self):
        """Return how far the structure is followed to both sides, in millimeters; None for until it ends."""
        return self.distance if self.kind == DISTANCE else None

    def boxes(self, key, dimensions):
        """Give each slice its box: slice index -> box; none where the end has to be found.

        :param key: the first key slice that was drawn; the slices are cut along its axis.
        :param dimensions: number of voxels, IJK order.
        :raises ValueError: if the ROI lies outside of the volume.
        """
        from MedSAMSlicerLib.volume.geometry import roi_boxes

        if self.kind != ROI:
            return {}
        boxes = roi_boxes(self.corners, dimensions, key.axis)
        if not boxes:
            raise ValueError(_("The ROI lies outside of the volume: move it over the structure."))
        return boxes
