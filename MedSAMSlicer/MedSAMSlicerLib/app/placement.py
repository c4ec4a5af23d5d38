"""Placing one ROI by the mouse: Slicer's own placement mode, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer
import slicer.util

from MedSAMSlicerLib.mrml.boxes import is_placed


class Placement(slicer.util.VTKObservationMixin):
    """Lets the user place one ROI at a time.

    :param ended: called when no placement runs any more, with the ROI that was placed, or None.
    """

    def __init__(self, ended: Callable[[Any], None]) -> None:
        super().__init__()
        self._ended = ended
        self._roi: Any = None

    @property
    def running(self) -> bool:
        """Return whether an ROI is being placed."""
        return self._roi is not None

    def start(self, roi: Any) -> None:
        """Let the user place an ROI by two clicks, in a slice view or a 3-D view."""
        self.cancel()
        self._roi = roi
        interaction = slicer.app.applicationLogic().GetInteractionNode()
        slicer.modules.markups.logic().SetActiveList(roi)
        # (Not by StartPlaceMode, which places points, whatever list is active.)
        interaction.SetPlaceModePersistence(0)
        interaction.SetCurrentInteractionMode(interaction.Place)
        self.addObserver(interaction, interaction.InteractionModeChangedEvent, self._on_mode_changed)

    def cancel(self) -> None:
        """End a placement that runs; its ROI is removed."""
        if self.running:
            slicer.app.applicationLogic().GetInteractionNode().SwitchToViewTransformMode()
            self._finish()

    def close(self) -> None:
        """Forget everything, without a word: the scene is going away."""
        self.removeObservers()
        self._roi = None

    def _on_mode_changed(self, interaction: Any, _event: Any) -> None:
        if interaction.GetCurrentInteractionMode() != interaction.Place:
            self._finish()

    def _finish(self) -> None:
        self.removeObservers()
        roi, self._roi = self._roi, None
        if roi is None:
            return
        placed = roi.GetScene() is not None and is_placed(roi)
        if not placed and roi.GetScene() is not None:
            slicer.mrmlScene.RemoveNode(roi)
        self._ended(roi if placed else None)
