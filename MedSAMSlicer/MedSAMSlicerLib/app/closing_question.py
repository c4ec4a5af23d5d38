"""The question that Slicer asks when it is closed while a training runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import qt
import slicer
import slicer.util
from slicer.i18n import tr as _

if TYPE_CHECKING:
    from MedSAMSlicerLib.app.training_section import TrainingSection


class ClosingQuestion(qt.QObject):
    """Sees that the main window is about to close before the window itself does, and may keep it open.

    It is an event filter, as in Slicer's script repository ("Override application close behavior"). Nothing is asked
    where nobody may be there to answer: without a main window, in testing mode, and when Slicer is ended by
    `slicer.util.exit`, which closes no window. Nor is it asked for a training that an earlier Slicer has let go on, as
    long as the module was not opened in this one.
    """

    def __init__(self, section: TrainingSection) -> None:
        qt.QObject.__init__(self)
        self._section = section
        if slicer.util.mainWindow() is not None:
            slicer.util.mainWindow().installEventFilter(self)

    def close(self) -> None:
        """Ask no more."""
        if slicer.util.mainWindow() is not None:
            slicer.util.mainWindow().removeEventFilter(self)

    def eventFilter(self, window: Any, event: Any) -> bool:
        """Called by Qt before the window gets an event; True keeps the event from it."""
        # A window that is closed already may be told so once more (on macOS).
        if event.type() != qt.QEvent.Close or not window.visible or not self._section.running:
            return False
        if slicer.app.testingEnabled() or self._may_close(window):
            return False
        event.ignore()
        return True

    def _may_close(self, window: Any) -> bool:
        """Ask what becomes of the training, and do it."""
        name = self._section.training.name
        box = qt.QMessageBox(window)
        box.setIcon(qt.QMessageBox.Question)
        box.setWindowTitle(_("A training runs"))
        box.setText(
            _(
                "The training of {name} still runs. It can go on without Slicer; the module shows it again when it is "
                "opened next time."
            ).format(name=name)
        )
        go_on = box.addButton(_("Let it go on"), qt.QMessageBox.AcceptRole)
        stay = box.addButton(_("Stay in Slicer"), qt.QMessageBox.RejectRole)
        # In its first seconds a training can't be stopped yet, as its button tells.
        stop = None
        if self._section.stoppable:
            stop = box.addButton(_("Stop it, keep the best so far"), qt.QMessageBox.DestructiveRole)
        box.setDefaultButton(go_on)
        box.setEscapeButton(stay)
        box.exec_()
        clicked = box.clickedButton()
        box.deleteLater()
        if stop is not None and clicked == stop:
            return self._section.stop()
        return bool(clicked == go_on)
