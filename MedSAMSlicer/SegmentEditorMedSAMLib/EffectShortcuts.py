"""Keys that work anywhere in Slicer's main window while there is something to apply or drop."""

from __future__ import annotations

import qt
import slicer


class EffectShortcuts:
    """Enter and Esc; away with them by `remove`.

    Segment Editor has its own Esc, which leaves the effect. Qt would call neither of two shortcuts of the same key, so
    that one waits while ours is enabled.

    :param apply: called for Enter.
    :param drop: called for Esc.
    """

    def __init__(self, apply, drop):
        self._shortcuts = []
        self._waiting = []
        self._enabled = False
        window = slicer.util.mainWindow()
        if window is None:
            return
        for key, slot in ((qt.Qt.Key_Return, apply), (qt.Qt.Key_Enter, apply), (qt.Qt.Key_Escape, drop)):
            shortcut = qt.QShortcut(qt.QKeySequence(key), window)
            shortcut.setEnabled(False)
            shortcut.connect("activated()", slot)
            self._shortcuts.append((shortcut, slot))

    def setEnabled(self, enabled):
        """Take the keys, or give them back."""
        if enabled == self._enabled:
            return
        self._enabled = enabled
        own = [shortcut for shortcut, _slot in self._shortcuts]
        # Looked for each time: Segment Editor makes and deletes its own when it is opened and left.
        others = [each for each in _allShortcuts() if each not in own]
        if enabled:
            self._waiting = [each for each in others if each.enabled and each.key == qt.QKeySequence(qt.Qt.Key_Escape)]
        for shortcut in others:
            if shortcut in self._waiting:
                shortcut.setEnabled(not enabled)
        for shortcut in own:
            shortcut.setEnabled(enabled)

    def remove(self):
        """Give the keys back for good."""
        self.setEnabled(False)
        for shortcut, slot in self._shortcuts:
            shortcut.disconnect("activated()", slot)
            shortcut.deleteLater()
        self._shortcuts = []


def _allShortcuts():
    window = slicer.util.mainWindow()
    return window.findChildren(qt.QShortcut) if window is not None else []
