"""What of this project lies on this computer, shown in the module with its sizes, and removed there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer.util
from slicer.i18n import tr as _

from MedSAMSlicerLib.app.worker import Job, Worker
from MedSAMSlicerLib.store.folder import store_folder
from MedSAMSlicerLib.store.inventory import Kept, inventory, remove
from MedSAMSlicerLib.store.transfer import import_from
from MedSAMSlicerLib.store.weights import WeightsStore

if TYPE_CHECKING:
    from MedSAMSlicerLib.app.host import Host


class StorageTable:
    """Lists what is kept, removes what is selected, and takes weights and samples from a folder."""

    def __init__(self, panel: Host) -> None:
        self._panel = panel
        self._worker = Worker()
        self._job: Job | None = None
        self._kept: list[Kept] = []
        self._taken: list[str] = []
        ui = panel.ui
        table = ui.storageTable
        titles = [_("What"), _("Name"), _("Size")]
        table.setColumnCount(len(titles))
        table.setHorizontalHeaderLabels(titles)
        table.verticalHeader().hide()
        table.horizontalHeader().setStretchLastSection(True)
        table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        table.connect("itemSelectionChanged()", self._enable)
        ui.removeStoredButton.connect("clicked(bool)", lambda *args: self._remove())
        ui.importFolderButton.connect("clicked(bool)", lambda *args: self._import())
        ui.modelSection.connect("contentsCollapsed(bool)", lambda collapsed: collapsed or self.show())

    def show(self) -> None:
        """List what is kept now."""
        ui, table = self._panel.ui, self._panel.ui.storageTable
        self._kept = inventory()
        table.setRowCount(len(self._kept))
        kinds = {
            "weights": _("Weights"),
            "samples": _("Samples"),
            "embeddings": _("Embeddings of slices"),
            "models": _("Own model"),
            "runs": _("Training run"),
            "tests": _("Test data"),
        }
        for row, each in enumerate(self._kept):
            for column, text in enumerate((kinds[each.kind], each.name, _megabytes(each.size))):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(str(each.path))
                table.setItem(row, column, item)
        table.resizeColumnsToContents()
        total = _megabytes(sum(each.size for each in self._kept))
        self._tell(_("{size} in {folder}").format(size=total, folder=store_folder()))
        ui.storageLabel.toolTip = _("What was fetched from where and when is in log.txt there.")
        self._enable()

    def close(self) -> None:
        """Stop what runs."""
        self._worker.close()

    def _enable(self) -> None:
        ui = self._panel.ui
        ui.removeStoredButton.enabled = self._job is None and bool(self._selected())
        ui.importFolderButton.enabled = self._job is None

    def _selected(self) -> list[Kept]:
        rows = {index.row() for index in self._panel.ui.storageTable.selectionModel().selectedRows()}
        return [each for row, each in enumerate(self._kept) if row in rows]

    def _remove(self) -> None:
        chosen = self._selected()
        names = "\n".join(f"{each.path} ({_megabytes(each.size)})" for each in chosen)
        text = _("Delete this from the disk?") + f"\n\n{names}"
        if any(each.kind in ("models", "runs") for each in chosen):
            text += "\n\n" + _("A model that was trained here can't be had again.")
        if not slicer.util.confirmOkCancelDisplay(text):
            return
        problem = ""
        try:
            for each in chosen:
                remove(each)
        except (OSError, RuntimeError) as error:
            problem = str(error)
        self._changed(problem)

    def _import(self) -> None:
        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder with weights or samples"))
        if not folder:
            return

        def compute(job: Job) -> Iterator[Any]:
            taken = import_from(Path(folder), WeightsStore(), self._panel.logic.importModel, job.post)
            yield taken

        self._job = self._worker.run(Job(compute, self._on_result, self._on_end))
        self._enable()

    def _on_result(self, result: str | list[str]) -> None:
        if isinstance(result, str):
            self._tell(_("Reading {name}…").format(name=result))
        else:
            self._taken = result

    def _on_end(self, error: BaseException | None) -> None:
        self._job = None
        self._changed(str(error) or type(error).__name__ if error is not None else "")
        if error is None:
            names = ", ".join(self._taken) or _("nothing: all of it is here already")
            self._tell(_("Taken over: {names}.").format(names=names))

    def _changed(self, problem: str) -> None:
        """Show what is there now, here and where models are chosen."""
        self.show()
        if problem:
            self._tell(problem, error=True)
        self._panel.list_models()
        self._panel.update()

    def _tell(self, text: str, *, error: bool = False) -> None:
        self._panel.ui.storageLabel.setText(text)
        self._panel.ui.storageLabel.setStyleSheet("color: #c0392b" if error else "")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
