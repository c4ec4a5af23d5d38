"""Keys for what the hand does most, while the module is open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import qt
import slicer
import slicer.util
from slicer.i18n import tr as _

if TYPE_CHECKING:
    from MedSAMSlicerLib.app.host import Host


class Shortcuts:
    """The module's shortcuts, which work in the whole main window while they are enabled."""

    def __init__(self, panel: Host) -> None:
        ui = panel.ui
        # Buttons, so that a key does nothing where the button is disabled. None of the keys is taken by Slicer itself,
        # and the left hand reaches them all while the right one is at the mouse.
        self._keys = [
            ("Shift+B", ui.placeROIButton, _("place a box")),
            ("Shift+R", ui.boxesOfLinesButton, _("boxes from measured lines (RECIST)")),
            ("Shift+S", ui.segmentButton, _("segment the ticked boxes")),
            ("Shift+E", ui.nextDoubtfulButton, _("examine the most doubtful slice")),
            ("Shift+D", ui.drawKeySliceButton, _("draw a box on a slice that is wrong")),
            ("Shift+C", ui.correctSliceButton, _("correct this slice: a box to drag")),
            ("Shift+F", ui.keepPaintedButton, _("fix this slice as it was painted")),
            ("Shift+Z", ui.undoButton, _("undo")),
            ("Shift+A", ui.redoButton, _("redo: again what was undone")),
            ("Shift+W", ui.nextCaseButton, _("next case of the worklist")),
            ("Shift+X", ui.cancelButton, _("cancel")),
        ]
        ui.shortcutsLabel.setText("\n".join(f"{key}: {text}" for key, _button, text in self._keys))
        self._shortcuts: list[Any] = []

    def name_keys(self) -> None:
        """Let each button's tooltip end with its key; called after tooltips have changed."""
        for key, button, _text in self._keys:
            if not button.toolTip.endswith(f"({key})"):
                button.toolTip = f"{button.toolTip} ({key})"

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
