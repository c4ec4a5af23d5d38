"""The table of a dataset's cases in the module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
from slicer.i18n import tr as _

from MedSAMSlicerLib.app.case_picture import is_drawn, picture_path
from MedSAMSlicerLib.dataset.case import SPLITS, Case
from MedSAMSlicerLib.dataset.site import SiteDataset

_CHOICES = ("", *SPLITS)


class CasesTable:
    """Shows cases with picture, pseudonym, labels and split.

    :param table: a QTableWidget.
    :param assign: called with the id of a case and the split that the user has chosen for it.
    """

    def __init__(self, table: Any, assign: Callable[[str, str], None]) -> None:
        self._table, self._assign = table, assign
        titles = [_("Picture"), _("Case"), _("Patient"), _("Labels"), _("Split")]
        table.setColumnCount(len(titles))
        table.setHorizontalHeaderLabels(titles)
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(table.iconSize.height() + 4)
        table.horizontalHeader().setStretchLastSection(True)
        table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        self._cases: tuple[Case, ...] = ()
        self._shown: Any = None

    @property
    def selected(self) -> Case | None:
        """Return the case of the selected row."""
        row = self._table.currentRow()
        return self._cases[row] if 0 <= row < len(self._cases) else None

    def show(self, dataset: SiteDataset | None) -> None:
        """Show the cases of a dataset as they are now; nothing without one."""
        self._cases = dataset.cases if dataset else ()
        shown = [(case, dataset.runs(case), is_drawn(dataset, case)) for case in self._cases]
        if shown == self._shown:
            return
        self._shown = shown
        self._table.setRowCount(len(shown))
        for row, (case, runs, drawn) in enumerate(shown):
            picture = qt.QTableWidgetItem(qt.QIcon(str(picture_path(dataset, case))) if drawn else qt.QIcon(), "")
            self._table.setItem(row, 0, picture)
            for column, text in enumerate((case.id, case.patient, ", ".join(case.labels)), start=1):
                self._table.setItem(row, column, qt.QTableWidgetItem(text))
            self._table.setCellWidget(row, 4, self._split_combo(case, runs))
        self._table.resizeColumnsToContents()

    def forget(self) -> None:
        """Make the next `show` fill the table in any case, as after a choice that was refused."""
        self._shown = None

    def _split_combo(self, case: Case, runs: tuple[str, ...]) -> Any:
        combo = qt.QComboBox()
        for text in (_("none yet"), _("training"), _("validation"), _("test")):
            combo.addItem(text)
        combo.setCurrentIndex(_CHOICES.index(case.split))
        tip = _("Where all cases of this patient serve.")
        if runs:
            tip += " " + _("Used for training by {runs}, so they can't be tested on.").format(runs=", ".join(runs))
        combo.toolTip = tip
        combo.connect("activated(int)", lambda index: self._assign(case.id, _CHOICES[index]))
        return combo
