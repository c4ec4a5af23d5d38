"""Keys for what the hand does most, while the module is open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import qt
import slicer
import slicer.util
from slicer.i18n import tr as _

if TYPE_CHECKING:
    from MedSAMSlicerLib.app.panel import Panel


class Shortcuts:
    """The module's shortcuts, which work in the whole main window while they are enabled."""

    def __init__(self, panel: Panel) -> None:
        ui = panel.ui
        # Buttons, so that a key does nothing where the button is disabled. None of the keys is taken by Slicer itself.
        self._keys = [
            ("Shift+B", ui.placeROIButton, _("place a box")),
            ("Shift+S", ui.segmentButton, _("segment the ticked boxes")),
            ("Shift+D", ui.drawKeySliceButton, _("draw a box on a slice that is wrong")),
            ("Shift+C", ui.correctSliceButton, _("correct this slice: a box to drag")),
            ("Shift+K", ui.keepPaintedButton, _("keep this painted slice")),
            ("Shift+N", ui.nextDoubtfulButton, _("show the most doubtful slice")),
            ("Shift+Z", ui.undoButton, _("undo")),
            ("Shift+Y", ui.redoButton, _("redo")),
            ("Shift+X", ui.cancelButton, _("cancel")),
        ]
        ui.shortcutsLabel.setText("\n".join(f"{key}: {text}" for key, _button, text in self._keys))
        self._shortcuts: list[Any] = []

    def enable(self, on: bool) -> None:
        """Make the keys work, or not."""
        window = slicer.util.mainWindow()
        if on and not self._shortcuts and window is not None:
            for key, button, _text in self._keys:
                shortcut = qt.QShortcut(qt.QKeySequence(key), window)
                shortcut.connect("activated()", button.click)
                self._shortcuts.append(shortcut)
        for shortcut in self._shortcuts:
            shortcut.enabled = on

    def close(self) -> None:
        """Take the keys away."""
        for shortcut in self._shortcuts:
            shortcut.deleteLater()
        self._shortcuts = []
