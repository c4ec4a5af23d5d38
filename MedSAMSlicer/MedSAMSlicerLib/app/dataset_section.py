"""The upper part of section Site training: the dataset of the site, and its cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer.util
from slicer.i18n import tr as _

from MedSAMSlicerLib.app.case_picture import draw, is_drawn
from MedSAMSlicerLib.app.cases_table import CasesTable
from MedSAMSlicerLib.app.settings import remember, setting
from MedSAMSlicerLib.app.worker import Job
from MedSAMSlicerLib.dataset.case import Case
from MedSAMSlicerLib.dataset.checks import Finding, check
from MedSAMSlicerLib.dataset.site import SiteDataset
from MedSAMSlicerLib.mrml.cases import case_from_scene

if TYPE_CHECKING:
    from MedSAMSlicerLib.app.host import Host


class DatasetSection:
    """Shows a dataset, adds what is in the scene to it, and changes it."""

    def __init__(self, panel: Host) -> None:
        self._panel = panel
        self.dataset: SiteDataset | None = None
        """The dataset that is shown; None until one is chosen, and as long as the section was never open."""
        self._job: Job | None = None
        self._drawing: Job | None = None
        self._undrawable: set[str] = set()
        self._segments: list[tuple[str, str]] = []
        self._stale = False
        ui = panel.ui
        self._table = CasesTable(ui.casesTable, self.assign)
        ui.chooseDatasetButton.connect("clicked(bool)", lambda *args: self._choose())
        ui.addCaseButton.connect("clicked(bool)", lambda *args: self.add())
        ui.removeCaseButton.connect("clicked(bool)", lambda *args: self.remove())
        ui.checkDatasetButton.connect("clicked(bool)", lambda *args: self.check())
        ui.splitDatasetButton.connect("clicked(bool)", lambda *args: self.split())
        ui.casesTable.connect("itemSelectionChanged()", panel.update)

    @property
    def busy(self) -> bool:
        """Return whether a case is being added, or the cases are being checked."""
        return self._job is not None

    def read(self) -> None:
        """Read the dataset that was chosen at last; also called when another process may have changed it."""
        self.dataset = None
        if setting("siteDataset"):
            self._open(SiteDataset.open, Path(setting("siteDataset")))

    def add(self) -> None:
        """Make a case of the module's volume and the ticked segments."""
        panel, dataset = self._panel, self.dataset
        parameters = panel.parameters
        try:
            volume, labels = case_from_scene(parameters.inputVolume, parameters.segmentation, self._ticked())
        except ValueError as error:
            self.tell(str(error), error=True)
            return
        # The node may change or go while the thread writes.
        volume = replace(volume, voxels=volume.voxels.copy())
        patient, window = panel.ui.patientLineEdit.text.strip() or None, parameters.window
        self._run(
            lambda job: dataset.add(volume, labels, patient=patient, window=window, source="Slicer scene"),
            self._on_added,
            _("Writing the case…"),
        )

    def remove(self) -> None:
        """Delete the selected case, after a question."""
        case = self._table.selected
        if case is not None and slicer.util.confirmOkCancelDisplay(
            _("Delete {case} with its image and labels from the dataset?").format(case=case.id)
        ):
            self._change(lambda: self.dataset.remove(case.id), _("{case} is removed.").format(case=case.id))

    def split(self) -> None:
        """Deal the patients that have no split yet; where all have one, all of them anew, after a question."""
        keep = not all(case.split for case in self.dataset.cases)
        if keep or slicer.util.confirmOkCancelDisplay(
            _("Each patient has a split. Deal all of them anew? What was chosen by hand is lost.")
        ):
            self._change(lambda: self.dataset.split(keep=keep), _("Each patient has a split."))

    def assign(self, case_id: str, split: str) -> None:
        """Move the patient of a case to a split, with all cases."""
        self._change(lambda: self.dataset.assign(case_id, split), "")

    def check(self) -> None:
        """Tell what is wrong with the cases."""
        dataset = self.dataset
        self._run(
            lambda job: check(dataset, lambda done, total: job.post((done, total))),
            self._on_checked,
            _("Reading the cases…"),
        )

    def update(self) -> None:
        """Show the dataset, and the segments of the scene."""
        ui, parameters = self._panel.ui, self._panel.parameters
        if self._stale:
            self._stale = False
            self._table.show(self.dataset)
        self._list_segments(parameters.segmentation)
        ui.datasetFolderLabel.setText(str(self.dataset.folder) if self.dataset else _("none chosen"))
        missing = self._missing(parameters)
        ui.addCaseButton.enabled = not missing and not self.busy
        ui.addCaseButton.toolTip = missing or _("Make a case of the module's volume and the ticked segments.")
        ui.findingsText.visible = bool(ui.findingsText.plainText)
        usable = self.dataset is not None and bool(self.dataset.cases) and not self.busy
        for button in (ui.checkDatasetButton, ui.splitDatasetButton):
            button.enabled = usable
        ui.removeCaseButton.enabled = usable and self._table.selected is not None
        ui.casesTable.enabled = ui.chooseDatasetButton.enabled = not self.busy

    def tell(self, text: str, *, error: bool = False) -> None:
        """Show a line of text below the cases."""
        self._panel.ui.datasetLabel.setText(text)
        self._panel.ui.datasetLabel.setStyleSheet("color: #c0392b" if error else "")

    def close(self) -> None:
        """Stop what runs."""
        for job in (self._job, self._drawing):
            if job is not None:
                job.stop()

    def _missing(self, parameters: Any) -> str:
        """Say what has to be given before a case can be added; empty if nothing."""
        if self.dataset is None:
            return _("Choose a folder for the dataset first.")
        if parameters.inputVolume is None:
            return _("Choose a volume in section Inputs first.")
        if parameters.segmentation is None or not self._ticked():
            return _("Choose the expert's segmentation in section Result, and tick its segments here.")
        return ""

    def _choose(self) -> None:
        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder of the dataset"), setting("siteDataset"))
        if not folder:
            return
        known = (Path(folder) / "dataset.json").exists()
        if self._open(SiteDataset.open if known else SiteDataset.create, Path(folder)):
            remember("siteDataset", folder)
            self._panel.ui.findingsText.clear()
            self._undrawable.clear()
            self.tell("")

    def _open(self, how: Callable[[Path], SiteDataset], folder: Path) -> bool:
        """Show the dataset of a folder; if there is none, tell it and return False."""
        self._stale = True
        self._panel.update()
        try:
            self.dataset = how(folder)
        except (ValueError, OSError) as error:
            self.tell(str(error), error=True)
            return False
        self._draw_next()
        return True

    def _change(self, change: Callable[[], object], text: str) -> None:
        """Change the dataset at once; what it refuses is told."""
        self._panel.ui.findingsText.clear()
        try:
            change()
            self.tell(text)
        except (ValueError, OSError) as error:
            self.tell(str(error), error=True)
        self._stale = True
        self._panel.update()

    def _run(self, compute: Callable[[Job], Any], take: Callable[[Any], None], text: str) -> None:
        """Compute something in the thread, and take it."""

        def results(job: Job) -> Iterator[Any]:
            yield compute(job)

        def end(error: BaseException | None) -> None:
            self._job = None
            if error is not None:
                self.tell(str(error) or type(error).__name__, error=True)
            self.read()

        self.tell(text)
        self._job = self._panel.logic.worker.run(Job(results, take, end))
        self._panel.update()

    def _on_added(self, case: Case) -> None:
        self._panel.ui.patientLineEdit.clear()
        self.tell(_("{case} is added.").format(case=case.id))

    def _on_checked(self, result: tuple[int, int] | list[Finding]) -> None:
        if isinstance(result, tuple):
            self.tell(_("{done} of {total} cases are read…").format(done=result[0], total=result[1]))
            return
        lines = [f"{each.level}: {each.case_id + ': ' if each.case_id else ''}{each.text}" for each in result]
        self._panel.ui.findingsText.setPlainText("\n".join(lines))
        errors = sum(each.level == "error" for each in result)
        if errors:
            self.tell(_("Errors: {count}. Mend them before the training.").format(count=errors), error=True)
        else:
            self.tell(_("No errors; see the warnings.") if lines else _("Nothing is wrong with the cases."))

    def _draw_next(self) -> None:
        """Draw the next missing picture: one at a time, so that a segmentation does not wait for all of them."""
        if self._drawing is not None or self.dataset is None:
            return
        dataset = self.dataset
        for case in dataset.cases:
            if case.id not in self._undrawable and not is_drawn(dataset, case):
                break
        else:
            return

        def results(job: Job) -> Iterator[Any]:
            draw(dataset, case)
            yield case

        def end(error: BaseException | None) -> None:
            self._drawing = None
            # Without a picture a case is as good; what is wrong with it tells the check.
            self._undrawable.add(case.id)
            self._table.show_picture(dataset, case)
            self._draw_next()

        self._drawing = self._panel.logic.worker.run(Job(results, lambda drawn: None, end))

    def _list_segments(self, segmentation: Any) -> None:
        """List the segments, the new ones ticked."""
        segments = []
        if segmentation is not None:
            content = segmentation.GetSegmentation()
            segments = [
                (segment_id, content.GetSegment(segment_id).GetName()) for segment_id in content.GetSegmentIDs()
            ]
            segments = [(f"{segmentation.GetID()} {segment_id}", name) for segment_id, name in segments]
        if segments == self._segments:
            return
        widget = self._panel.ui.caseSegmentsList
        unticked = {self._segments[row][0] for row in range(widget.count) if not self._is_ticked(row)}
        widget.clear()
        for key, name in segments:
            item = qt.QListWidgetItem(name)
            item.setCheckState(qt.Qt.Unchecked if key in unticked else qt.Qt.Checked)
            widget.addItem(item)
        self._segments = segments

    def _is_ticked(self, row: int) -> bool:
        return self._panel.ui.caseSegmentsList.item(row).checkState() == qt.Qt.Checked

    def _ticked(self) -> list[str]:
        """Return the IDs of the ticked segments."""
        return [key.split(" ", 1)[1] for row, (key, _name) in enumerate(self._segments) if self._is_ticked(row)]
