"""Section Site training of the module: a model is fine-tuned on a site's own cases, beside a usable Slicer."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
from slicer.i18n import tr as _

from MedSAMSlicerLib.app.closing_question import ClosingQuestion
from MedSAMSlicerLib.app.dataset_section import DatasetSection
from MedSAMSlicerLib.app.learning_curves import LearningCurves
from MedSAMSlicerLib.app.python_process import PythonProcess, last_words
from MedSAMSlicerLib.app.settings import remember, setting
from MedSAMSlicerLib.app.training_process import TrainingProcess, TrainingRequest
from MedSAMSlicerLib.store.folder import store_folder

if TYPE_CHECKING:
    from MedSAMSlicerLib.app.host import Host

_LOOK_EVERY_MS = 500
_STEPS = 1000


class TrainingSection:
    """Starts a training and follows it by what it writes into its folder; finds the last one again."""

    def __init__(self, panel: Host) -> None:
        self._panel = panel
        self.dataset = DatasetSection(panel)
        self.training: TrainingProcess | None = None
        """The run that is shown."""
        self._followed = False
        self._progress: dict[str, Any] = {}
        self._log: list[dict[str, Any]] = []
        self._report: PythonProcess | None = None
        self._curves = LearningCurves()
        self._closing = ClosingQuestion(self)
        self._timer = qt.QTimer()
        self._timer.setInterval(_LOOK_EVERY_MS)
        self._timer.connect("timeout()", self._look)
        ui = panel.ui
        for depth, name, tip in (
            ("decoder", _("Decoder"), _("The mask decoder only: minutes on a laptop. Begin with this one.")),
            (
                "adapter",
                _("Adapter"),
                _("Small matrices in the image encoder, and the mask decoder: a file of a few MB."),
            ),
            ("full", _("Full"), _("Image encoder and mask decoder: for many cases, and a large graphics card.")),
        ):
            ui.depthComboBox.addItem(name, depth)
            ui.depthComboBox.setItemData(ui.depthComboBox.count - 1, tip, qt.Qt.ToolTipRole)
        ui.trainingSection.connect("contentsCollapsed(bool)", self._on_collapsed)
        ui.modelNameLineEdit.connect("textChanged(QString)", lambda text: panel.update())
        ui.trainButton.connect("clicked(bool)", lambda *args: self.train())
        ui.stopTrainingButton.connect("clicked(bool)", lambda *args: self.stop())
        ui.showCurvesButton.connect("clicked(bool)", lambda *args: self._show_curves())
        ui.reportButton.connect("clicked(bool)", lambda *args: self.report())
        ui.useModelButton.connect("clicked(bool)", lambda *args: self.use())
        self._find()

    @property
    def running(self) -> bool:
        """Return whether a training runs, as it was seen last."""
        return self._followed

    @property
    def stoppable(self) -> bool:
        """Return whether a training runs that hears a request to stop."""
        # What was asked before the training has begun would be taken for an old request.
        return self.running and bool(self._progress)

    def train(self) -> None:
        """Start a training of the dataset, from the model that is chosen in section Model."""
        ui, name = self._panel.ui, self._panel.ui.modelNameLineEdit.text.strip()
        request = TrainingRequest(
            data=str(self.dataset.dataset.folder),
            base=setting("model"),
            depth=str(ui.depthComboBox.currentData),
            device=setting("device"),
            output=str(store_folder() / "models" / f"{name}.pth"),
        )
        try:
            training = TrainingProcess.start(request)
        except (ValueError, RuntimeError, OSError) as error:
            self.tell(str(error), error=True)
            return
        remember("trainingRun", str(training.folder))
        self._follow(training)

    def stop(self) -> bool:
        """End the training after the current batch; the best model so far is kept. False if that can't be asked."""
        try:
            self.training.stop()
        except OSError as error:
            self.tell(str(error), error=True)
            return False
        self.tell(_("Stopping after the current step…"))
        return True

    def report(self) -> None:
        """Compare the new model with its base on the test cases, in a process of its own, and open the page."""
        request, folder = self.training.request, self.training.folder
        arguments = ["report", f"--data={request.data}", f"--model={request.output}", f"--base={request.base}"]
        arguments += [f"--log={folder / 'log.jsonl'}", f"--device={request.device}", f"--output={self._page}"]
        try:
            self._report = PythonProcess("MedSAMSlicerLib", arguments, folder / "report.txt")
        except (RuntimeError, OSError) as error:
            self.tell(str(error), error=True)
            return
        self.tell(_("The model and its base segment the test cases…"))
        self._panel.ui.trainingProgressBar.maximum = 0
        self._timer.start()
        self._panel.update()

    def use(self) -> None:
        """Make the new model the one that segments."""
        remember("model", str(self.training.model))
        self._panel.list_models()
        self._panel.update()
        self.tell(_("{name} is the module's model now.").format(name=self.training.name))

    def update(self) -> None:
        """Enable what can be done."""
        ui = self._panel.ui
        if ui.trainingSection.collapsed:
            return
        self.dataset.update()
        missing = self._missing()
        ui.trainButton.enabled = not missing
        ui.trainButton.toolTip = missing or _("Train a model in the background, from the model of section Model.")
        training = self.training
        ui.stopTrainingButton.enabled = self.stoppable
        made = training is not None and not self.running and training.model is not None
        ui.useModelButton.enabled = made
        ui.useModelButton.toolTip = self._use_tip if made else _("Train a model first.")
        ui.reportButton.enabled = made and self._report is None
        ui.showCurvesButton.enabled = bool(self._log)
        ui.baseModelLabel.setText(ui.modelComboBox.currentText)

    def tell(self, text: str, *, error: bool = False) -> None:
        """Show a line of text below the progress bar of the training."""
        self._panel.ui.trainingLabel.setText(text)
        self._panel.ui.trainingLabel.setStyleSheet("color: #c0392b" if error else "")

    def close(self) -> None:
        """Follow nothing any more; a training goes on, and is found again when the module is opened next time."""
        self._timer.stop()
        self._closing.close()
        self.dataset.close()
        self._curves.close()
        if self.running:
            logging.info("The training of %s goes on: %s", self.training.name, self.training.folder)

    @property
    def _use_tip(self) -> str:
        """Say what the model may be expected to gain, before it is used."""
        tip = _("Segment with {name} from now on.").format(name=self.training.name)
        return f"{tip} {self.training.end()[1]}"

    @property
    def _page(self) -> Path:
        return self.training.folder / "report.html"

    def _missing(self) -> str:
        """Say what has to be given before a model can be trained; empty if nothing."""
        if self.running:
            return _("A training runs: wait for it, or stop it.")
        if self._report is not None:
            return _("A report is being made: wait for it.")
        if not self._panel.ready:
            return _("The model is not installed: see the top of this panel.")
        if self.dataset.dataset is None:
            return _("Choose a folder for the dataset first.")
        splits = {case.split for case in self.dataset.dataset.cases}
        if not {"train", "validation"} <= splits:
            return _("Add cases of at least two patients and split them first: training and validation need one each.")
        if self.dataset.busy:
            return _("Wait until the cases are written or checked.")
        if not re.fullmatch(r"\w[\w .-]*", self._panel.ui.modelNameLineEdit.text.strip()):
            return _("Give the new model a name of letters, digits, spaces, dots and hyphens.")
        return ""

    def _find(self) -> None:
        """Show the run that an earlier Slicer has started; if it still runs, open the section."""
        folder = setting("trainingRun")
        try:
            training = TrainingProcess(Path(folder)) if folder else None
        except (OSError, ValueError):
            # Whoever has deleted the folder knows.
            return
        if training is not None:
            self._panel.ui.modelNameLineEdit.setText(training.name)
            self._follow(training)
            self._panel.ui.trainingSection.collapsed = not self.running

    def _follow(self, training: TrainingProcess) -> None:
        self.training, self._followed = training, True
        self._timer.start()
        self._look()

    def _on_collapsed(self, collapsed: bool) -> None:
        if not collapsed:
            self.dataset.read()
            self._panel.update()

    def _look(self) -> None:
        """Called by the timer: show how far everything is."""
        if self._followed:
            running = self.training.running
            self._progress, self._log = self.training.progress(), self.training.log()
            self._curves.draw(self.training.name, self._log)
            if running:
                self._show_progress()
            else:
                self._followed = False
                self._on_training_ended()
        if self._report is not None and not self._report.running:
            self._on_report_ended()
        if not self._followed and self._report is None:
            self._timer.stop()
        # Not the whole panel: its tables are being edited meanwhile.
        if self._panel.parameters is not None:
            self.update()

    def _show_curves(self) -> None:
        # The scene may have been closed since they were drawn.
        self._curves.draw(self.training.name, self._log)
        self._curves.show()

    def _show_progress(self) -> None:
        bar, progress = self._panel.ui.trainingProgressBar, self._progress
        state, epoch, epochs = (progress.get(key) for key in ("state", "epoch", "of"))
        batch, batches = progress.get("batch", 0), progress.get("batches", 0)
        part = f" {batch}/{batches}" if batches else ""
        text = {
            None: _("Starting…"),
            "preparing": _("Reading the cases…"),
            "encoding": _("Epoch {epoch} of {epochs}: encoding slices{part}"),
            "training": _("Epoch {epoch} of {epochs}: training{part}"),
            "validating": _("Epoch {epoch} of {epochs}: validating"),
        }.get(state, _("Finishing…"))
        text = text.format(epoch=epoch, epochs=epochs, part=part)
        if progress.get("best") is not None:
            text += _(", best Dice so far {best}").format(best=f"{progress['best']:.3f}")
        if progress.get("seconds_left") is not None:
            text += _(", about {minutes} min left").format(minutes=max(round(progress["seconds_left"] / 60), 1))
        if (self.training.folder / "stop").exists():
            text = _("Stopping after the current step…")
        within = batch / batches if batches and state == "training" else float(state == "validating")
        bar.maximum = _STEPS if epoch and epochs else 0
        bar.value = round(_STEPS * (epoch - 1 + within) / epochs) if epoch and epochs else 0
        self.tell(text)

    def _on_training_ended(self) -> None:
        well, text = self.training.end()
        bar = self._panel.ui.trainingProgressBar
        bar.maximum, bar.value = _STEPS, _STEPS if well else 0
        self.tell(text, error=not well)
        self._panel.list_models()
        if not self._panel.ui.trainingSection.collapsed:
            self.dataset.read()

    def _on_report_ended(self) -> None:
        report, self._report = self._report, None
        bar = self._panel.ui.trainingProgressBar
        bar.maximum = bar.value = _STEPS
        if not report.succeeded:
            self.tell(last_words(report.output), error=True)
            return
        figures = json.loads(self._page.with_suffix(".json").read_text(encoding="utf-8"))
        self.tell(figures["verdict"]["text"])
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self._page)))
