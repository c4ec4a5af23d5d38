"""Section Model of the module: which model, where it runs, and what is missing for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
import slicer.util
from slicer.i18n import tr as _

from MedSAMSlicerLib.app.requirements import (
    can_be_fetched,
    can_be_imported,
    install_torch,
    missing_torch,
    missing_weights,
)
from MedSAMSlicerLib.app.settings import remember, setting
from MedSAMSlicerLib.app.speed_test import SpeedTest
from MedSAMSlicerLib.app.storage_table import StorageTable
from MedSAMSlicerLib.app.worker import Job, Worker
from MedSAMSlicerLib.store.catalog import WEIGHTS
from MedSAMSlicerLib.store.folder import store_folder
from MedSAMSlicerLib.volume.embedding_store import EmbeddingStore

if TYPE_CHECKING:
    from MedSAMSlicerLib.app.host import Host


class ModelSection:
    """Chooses the model and installs what it needs, when it is asked to."""

    def __init__(self, panel: Host) -> None:
        self._panel = panel
        # Its own: a download must not keep a segmentation with another model waiting.
        self._worker = Worker()
        self._job: Job | None = None
        self._missing = [""]
        self._outcome = ""
        self._speed = SpeedTest(panel)
        self._storage = StorageTable(panel)
        ui = panel.ui
        for name, text in (("auto", _("Automatic")), ("cuda", "CUDA"), ("mps", "MPS (Apple)"), ("cpu", "CPU")):
            ui.deviceComboBox.addItem(text, name)
        ui.deviceComboBox.setCurrentIndex(ui.deviceComboBox.findData(setting("device")))
        ui.deviceComboBox.connect("activated(int)", lambda index: self._remember("device", ui.deviceComboBox, index))
        self.list_models()
        ui.modelComboBox.connect("activated(int)", lambda index: self._remember("model", ui.modelComboBox, index))
        ui.otherModelButton.connect("clicked(bool)", lambda *args: self._choose_file())
        ui.cacheSpinBox.value = int(setting("cacheMebibytes"))
        ui.cacheSpinBox.connect("valueChanged(int)", self._set_cache)
        ui.diskCacheCheckBox.checked = setting("diskCache") == "true"
        ui.diskCacheCheckBox.connect("toggled(bool)", self._set_disk_cache)
        ui.clearCacheButton.connect("clicked(bool)", lambda *args: self._clear_cache())
        ui.installButton.connect("clicked(bool)", self._on_install_clicked)
        ui.importWeightsButton.connect("clicked(bool)", lambda *args: self._import())
        self._set_cache(ui.cacheSpinBox.value)
        self._set_disk_cache(ui.diskCacheCheckBox.checked)

    @property
    def ready(self) -> bool:
        """Return whether the model can be loaded, as of the last update."""
        return not any(self._missing)

    def install(self) -> None:
        """Install PyTorch and fetch the weights, whichever is missing; to call this is to agree to it."""
        self._outcome = ""
        model = setting("model")
        if missing_torch():
            self._panel.ui.installLabel.setText(_("Installing PyTorch: this takes some minutes…"))
            slicer.app.processEvents()
            try:
                with slicer.util.WaitCursor():
                    install_torch()
            except Exception as error:  # whatever pip or the extension raise, the user shall read it and try again
                self._outcome = str(error) or type(error).__name__
        if not self._outcome and can_be_fetched(model) and missing_weights(model):
            self._start(lambda job: self._panel.logic.fetchModel(model, lambda done, total: job.post((done, total))))
        self._panel.update()

    def update(self) -> None:
        """Show what is missing, or nothing."""
        ui, model = self._panel.ui, setting("model")
        torch, weights = self._missing = [missing_torch(), missing_weights(model)]
        ui.installPanel.visible = not self.ready
        ui.installLabel.setText("\n\n".join(text for text in (torch, weights, self._outcome) if text))
        ui.installButton.text = _("Install") if self._job is None else _("Cancel")
        ui.installButton.enabled = bool(self._job or torch or can_be_fetched(model))
        ui.importWeightsButton.enabled = self._job is None and bool(weights) and can_be_imported(model)
        ui.installProgressBar.visible = self._job is not None

    def list_models(self) -> None:
        """List the models that there are now: the known ones, the fine-tuned ones, and the user's own file."""
        combo = self._panel.ui.modelComboBox
        combo.clear()
        for weights in WEIGHTS:
            combo.addItem(weights.title, weights.name)
        for path in sorted((store_folder() / "models").glob("*.pth")):
            combo.addItem(path.stem, str(path))
        model = setting("model")
        if combo.findData(model) < 0:
            combo.addItem(Path(model).name, model)
        combo.setCurrentIndex(combo.findData(model))

    def close(self) -> None:
        """Stop what runs, for good; what has arrived of a download is kept, and the next one goes on from there."""
        self._worker.close()
        self._speed.close()
        self._storage.close()

    def _on_install_clicked(self, *_arguments: Any) -> None:
        if self._job is None:
            self.install()
        else:
            self._job.stop()

    def _remember(self, name: str, combo: Any, index: int) -> None:
        remember(name, combo.itemData(index))
        self._outcome = ""
        self._panel.update()

    def _choose_file(self) -> None:
        path = qt.QFileDialog.getOpenFileName(
            None, _("Model file"), "", _("Checkpoints") + " (*.pth *.pt *.bin *.safetensors)"
        )
        if path:
            remember("model", path)
            self._outcome = ""
            self.list_models()
            self._panel.update()

    def _import(self) -> None:
        model = setting("model")
        path = qt.QFileDialog.getOpenFileName(None, _("File of weights"), "", _("All files") + " (*)")
        if path:
            self._start(lambda job: self._panel.logic.importModel(model, path))
            self._panel.update()

    def _set_cache(self, mebibytes: int) -> None:
        remember("cacheMebibytes", str(mebibytes))
        self._panel.logic.session.cache.budget = mebibytes << 20

    def _set_disk_cache(self, on: bool) -> None:
        remember("diskCache", "true" if on else "false")
        self._panel.logic.session.cache.store = _disk_cache() if on else None

    def _clear_cache(self) -> None:
        self._panel.logic.session.cache.clear()
        _disk_cache().clear()

    def _start(self, work: Callable[[Job], object]) -> None:
        """Bring weights here in the background."""

        def compute(job: Job) -> Iterator[Any]:
            work(job)
            yield from ()

        self._outcome = ""
        self._panel.ui.installProgressBar.maximum = 0  # busy, until the first progress is known
        self._job = self._worker.run(Job(compute, self._on_progress, self._on_end))

    def _on_progress(self, progress: tuple[int, int]) -> None:
        done, total = progress
        bar = self._panel.ui.installProgressBar
        bar.maximum, bar.value = 1000, 1000 * done // max(total, 1)

    def _on_end(self, error: BaseException | None) -> None:
        self._job = None
        if error is not None:
            self._outcome = _("That failed: {reason}").format(reason=str(error) or type(error).__name__)
        self._panel.update()


def _disk_cache() -> EmbeddingStore:
    return EmbeddingStore(store_folder() / "slices")
