"""Section Model of the module: which model, where it runs, and what is missing for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
from slicer.i18n import tr as _

from MedSAMSlicerLib.app.requirements import install_torch, missing_torch, missing_weights
from MedSAMSlicerLib.app.settings import remember, setting
from MedSAMSlicerLib.app.worker import Job
from MedSAMSlicerLib.store.folder import store_folder
from MedSAMSlicerLib.store.weights import WeightsStore

if TYPE_CHECKING:
    from MedSAMSlicerLib.app.panel import Panel


class ModelSection:
    """Chooses the model and installs what it needs, when it is asked to."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self._job: Job | None = None
        self._failure = ""
        ui = panel.ui
        for name, text in (("auto", _("Automatic")), ("cuda", "CUDA"), ("mps", "MPS (Apple)"), ("cpu", _("Processor"))):
            ui.deviceComboBox.addItem(text, name)
        ui.deviceComboBox.setCurrentIndex(ui.deviceComboBox.findData(setting("device")))
        ui.deviceComboBox.connect("activated(int)", lambda index: self._remember("device", ui.deviceComboBox, index))
        self.list_models()
        ui.modelComboBox.connect("activated(int)", lambda index: self._remember("model", ui.modelComboBox, index))
        ui.otherModelButton.connect("clicked(bool)", lambda *args: self._choose_file())
        ui.cacheSpinBox.value = int(setting("cacheMebibytes"))
        ui.cacheSpinBox.connect("valueChanged(int)", self._set_cache)
        ui.clearCacheButton.connect("clicked(bool)", lambda *args: self._panel.logic.session.cache.clear())
        ui.installButton.connect("clicked(bool)", lambda *args: self.install())
        ui.importWeightsButton.connect("clicked(bool)", lambda *args: self._import())
        self._set_cache(ui.cacheSpinBox.value)

    @property
    def ready(self) -> bool:
        """Return whether the model can be loaded."""
        return missing_torch() is None and missing_weights(setting("model")) is None

    def install(self) -> None:
        """Install PyTorch and fetch the weights, whichever is missing; to call this is to agree to it."""
        self._failure = ""
        try:
            if missing_torch() is not None:
                install_torch()
        except Exception as error:  # whatever pip or the extension manager raise, the user shall read it and try again
            self._failure = str(error) or type(error).__name__
        name = setting("model")
        if not self._failure and missing_weights(name) is not None:
            self._job = self._panel.logic.worker.run(
                Job(lambda job: _fetch(job, name), self._on_progress, self._on_end)
            )
        self._panel.update()

    def update(self) -> None:
        """Show what is missing, or nothing."""
        ui = self._panel.ui
        wanted = [text for text in (missing_torch(), missing_weights(setting("model"))) if text]
        ui.installPanel.visible = bool(wanted)
        text = "\n\n".join(wanted)
        if self._failure:
            text += "\n\n" + _("The last attempt failed: {reason}").format(reason=self._failure)
        ui.installLabel.setText(text)
        ui.installButton.enabled = self._job is None
        ui.importWeightsButton.enabled = self._job is None and missing_weights(setting("model")) is not None
        ui.installProgressBar.visible = self._job is not None

    def close(self) -> None:
        """Stop a download; what has arrived is kept, and the next one goes on from there."""
        if self._job is not None:
            self._job.stop()

    def list_models(self) -> None:
        """List the models that there are now: the known ones, the fine-tuned ones, and the user's own file."""
        combo = self._panel.ui.modelComboBox
        combo.clear()
        for stored in WeightsStore().entries():
            combo.addItem(stored.weights.title, stored.weights.name)
        for path in sorted((store_folder() / "models").glob("*.pth")):
            combo.addItem(path.stem, str(path))
        model = setting("model")
        if combo.findData(model) < 0:
            combo.addItem(Path(model).name, model)
        combo.setCurrentIndex(combo.findData(model))

    def _remember(self, name: str, combo: Any, index: int) -> None:
        remember(name, combo.itemData(index))
        self._failure = ""
        self._panel.update()

    def _choose_file(self) -> None:
        path = qt.QFileDialog.getOpenFileName(
            None, _("Model file"), "", _("Checkpoints") + " (*.pth *.pt *.bin *.safetensors)"
        )
        if path:
            remember("model", path)
            self.list_models()
            self._panel.update()

    def _import(self) -> None:
        path = qt.QFileDialog.getOpenFileName(None, _("File of weights"), "", _("All files") + " (*)")
        if not path:
            return
        try:
            self._panel.logic.importModel(setting("model"), path)
            self._failure = ""
        except (ValueError, OSError) as error:
            self._failure = str(error)
        self._panel.update()

    def _set_cache(self, mebibytes: int) -> None:
        remember("cacheMebibytes", str(mebibytes))
        self._panel.logic.session.cache.budget = mebibytes << 20

    def _on_progress(self, progress: tuple[int, int]) -> None:
        done, total = progress
        self._panel.ui.installProgressBar.maximum = 1000
        self._panel.ui.installProgressBar.value = 1000 * done // max(total, 1)

    def _on_end(self, error: BaseException | None) -> None:
        self._job = None
        self._failure = "" if error is None else str(error) or type(error).__name__
        self._panel.update()


def _fetch(job: Job, name: str) -> Iterator[Any]:
    WeightsStore().fetch(name, lambda done, total: job.post((done, total)))
    yield from ()
