"""A volume shown in the views as the model sees it, by its display alone."""

from __future__ import annotations

from typing import Any

from MedSAMSlicerLib.mrml.windows import window_of


class WindowPreview:
    """Shows one volume through a window, and gives it back its own window and level afterwards."""

    def __init__(self) -> None:
        self._volume: Any = None
        self._window = ""
        self._own: tuple[bool, float, float] | None = None

    def show(self, volume: Any, window: str) -> str:
        """Show a volume through a window (see `volume.intensity.resolve_window`); None ends the preview.

        :return: why there is no preview, told once; empty if all is well.
        """
        if volume is self._volume and window == self._window:
            return ""
        self._restore()
        self._volume, self._window = volume, window
        display = volume.GetScalarVolumeDisplayNode() if volume is not None else None
        if display is None:
            return ""
        try:
            seen = window_of(volume, window)
        except ValueError as error:
            return str(error)
        self._own = (bool(display.GetAutoWindowLevel()), display.GetWindow(), display.GetLevel())
        display.SetAutoWindowLevel(False)
        display.SetWindowLevelMinMax(seen.lower, seen.upper)
        return ""

    def _restore(self) -> None:
        volume, own, self._own = self._volume, self._own, None
        if own is None or volume.GetScene() is None or volume.GetScalarVolumeDisplayNode() is None:
            return
        automatic, window, level = own
        volume.GetScalarVolumeDisplayNode().SetWindowLevel(window, level)
        volume.GetScalarVolumeDisplayNode().SetAutoWindowLevel(automatic)
