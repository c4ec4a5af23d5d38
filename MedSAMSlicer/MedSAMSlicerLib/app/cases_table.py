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
        titles = [_("Picture"), _("Case"), _("Patient"), _("Split"), _("Labels")]
        table.setColumnCount(len(titles))
        table.setHorizontalHeaderLabels(titles)
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(table.iconSize.height() + 4)
        table.horizontalHeader().setStretchLastSection(True)
        table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        self._cases: tuple[Case, ...] = ()

    @property
    def selected(self) -> Case | None:
        """Return the case of the selected row."""
        row = self._table.currentRow()
        return self._cases[row] if 0 <= row < len(self._cases) else None

    def show(self, dataset: SiteDataset | None) -> None:
        """Show the cases of a dataset as they are now; nothing without one."""
        self._cases = dataset.cases if dataset else ()
        self._table.setRowCount(len(self._cases))
        for row, case in enumerate(self._cases):
            for column, text in enumerate(("", case.id, case.patient, "", ", ".join(case.labels))):
                self._table.setItem(row, column, qt.QTableWidgetItem(text))
            self.show_picture(dataset, case)
            self._table.setCellWidget(row, 3, self._split_combo(case, dataset.runs(case)))
        self._table.resizeColumnsToContents()

    def show_picture(self, dataset: SiteDataset, case: Case) -> None:
        """Show the picture of a case, if it is drawn."""
        if case in self._cases and is_drawn(dataset, case):
            self._table.item(self._cases.index(case), 0).setIcon(qt.QIcon(str(picture_path(dataset, case))))
            self._table.resizeColumnToContents(0)

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
