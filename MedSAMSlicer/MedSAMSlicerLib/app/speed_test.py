"""How fast this computer segments: measured beside Slicer, in a process that knows nothing of the scene."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
from slicer.i18n import tr as _

from MedSAMSlicerLib.app.python_process import PythonProcess, last_words
from MedSAMSlicerLib.app.settings import setting

if TYPE_CHECKING:
    from MedSAMSlicerLib.app.host import Host

_LOOK_MS = 500
# How the command begins the lines that tell how far it is.
_PROGRESS = "bench ["


class SpeedTest:
    """Runs the command ``bench`` for the chosen model and device, and shows its table, to be copied into an issue."""

    def __init__(self, panel: Host) -> None:
        self._panel = panel
        self._process: PythonProcess | None = None
        self._folder: Path | None = None
        self._timer = qt.QTimer()
        self._timer.setInterval(_LOOK_MS)
        self._timer.connect("timeout()", self._look)
        ui = panel.ui
        ui.speedButton.connect("clicked(bool)", self._on_clicked)
        ui.copySpeedButton.connect("clicked(bool)", self._copy)
        ui.speedText.visible = ui.copySpeedButton.visible = ui.speedLabel.visible = False

    def close(self) -> None:
        """End a measurement: it is of no use without the panel."""
        self._timer.stop()
        if self._process is not None:
            self._process.end()
            self._process = None
        self._clean()

    def _on_clicked(self, *_arguments: Any) -> None:
        if self._process is None:
            self._start()
        else:
            self.close()
            self._tell(_("Stopped."))

    def _start(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="medsam-bench"))
        arguments = ["bench", f"--model={setting('model')}", f"--device={setting('device')}"]
        try:
            self._process = PythonProcess("MedSAMSlicerLib", arguments, self._folder / "output.txt")
        except (RuntimeError, OSError) as error:
            self._clean()
            self._tell(str(error), error=True)
            return
        self._tell(_("Starting…"))
        self._panel.ui.speedText.visible = self._panel.ui.copySpeedButton.visible = False
        self._timer.start()

    def _look(self) -> None:
        """Called by the timer: show how far it is, or the table."""
        process = self._process
        if process is None:
            return
        running = process.running
        lines = process.output.read_text(encoding="utf-8", errors="replace").splitlines()
        if running:
            if lines and lines[-1].startswith(_PROGRESS):
                self._tell(lines[-1].partition("] ")[2])
            return
        self._timer.stop()
        self._process = None
        if process.succeeded:
            ui = self._panel.ui
            ui.speedText.setPlainText("\n".join(line for line in lines if not line.startswith(_PROGRESS)).strip())
            ui.speedText.visible = ui.copySpeedButton.visible = True
            self._tell(_("Done."))
        else:
            self._tell(last_words(process.output), error=True)
        self._clean()

    def _copy(self, *_arguments: Any) -> None:
        self._panel.ui.speedText.selectAll()
        self._panel.ui.speedText.copy()

    def _tell(self, text: str, *, error: bool = False) -> None:
        ui = self._panel.ui
        ui.speedButton.text = _("Measure speed") if self._process is None else _("Cancel")
        ui.speedLabel.visible = True
        ui.speedLabel.setText(text)
        ui.speedLabel.setStyleSheet("color: #c0392b" if error else "")

    def _clean(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
