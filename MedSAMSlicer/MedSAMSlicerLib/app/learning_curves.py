"""Learning curves in Slicer's own plot view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer
import slicer.util
from slicer.i18n import tr as _

# Column of the log, and the color of its curve, after Okabe and Ito (2008).
_COLORS = {
    "train_loss": (0.84, 0.37, 0.0),
    "validation_dice": (0.0, 0.62, 0.45),
    "validation_one_slice_dice": (0.8, 0.47, 0.65),
    "validation_per_slice_dice": (0.34, 0.71, 0.91),
}
# Slicer draws the legend into the upper right corner: that part of the axis, beside the epochs, stays free for it.
_ROOM = 0.6


class LearningCurves:
    """Keeps a table, its series and their chart in the scene; they are not saved with it."""

    def __init__(self) -> None:
        self._table: Any = None
        self._chart: Any = None
        self._rows: list[dict[str, Any]] = []

    def draw(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        """Show the log of a run so far, see `evaluation.curves.read_log`; nothing as long as it is empty."""
        rows = list(rows)
        if not rows or (rows == self._rows and self._chart is not None and self._chart.GetScene() is not None):
            return
        self._rows = rows
        if self._chart is None or self._chart.GetScene() is None:
            self._make()
        self._chart.SetTitle(name)
        columns = [[row.get(key, np.nan) for row in rows] for key in ("epoch", *_COLORS)]
        slicer.util.updateTableFromArray(self._table, np.array(columns, dtype=float).T, ["epoch", *_COLORS])
        first, last = min(columns[0]), max(columns[0])
        self._chart.SetXAxisRange(first, last + max(1.0, _ROOM * (last - first)))

    def show(self) -> None:
        """Show the chart in the views; without a chart, nothing."""
        if self._chart is None or self._chart.GetScene() is None:
            return
        slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotView)
        logic = slicer.app.applicationLogic()
        logic.GetSelectionNode().SetActivePlotChartID(self._chart.GetID())
        logic.PropagatePlotChartSelection()

    def close(self) -> None:
        """Let go of all nodes."""
        self._table = self._chart = None

    def _make(self) -> None:
        names = (
            _("Training loss"),
            _("Validation Dice, a 3-D box"),
            _("Validation Dice, a box on one slice"),
            _("Validation Dice, a box per slice"),
        )
        self._table, self._chart = (
            _add(kind, _("MedSAM training")) for kind in ("vtkMRMLTableNode", "vtkMRMLPlotChartNode")
        )
        # The series refer to columns, which must be there.
        slicer.util.updateTableFromArray(self._table, np.zeros((1, 1 + len(_COLORS))), ["epoch", *_COLORS])
        for (column, color), name in zip(_COLORS.items(), names, strict=True):
            series = _add("vtkMRMLPlotSeriesNode", name)
            series.SetAndObserveTableNodeID(self._table.GetID())
            series.SetPlotType(series.PlotTypeScatter)
            series.SetXColumnName("epoch")
            series.SetYColumnName(column)
            series.SetColor(*color)
            self._chart.AddAndObservePlotSeriesNodeID(series.GetID())
        self._chart.XAxisRangeAutoOff()
        self._chart.SetXAxisTitle(_("epoch"))


def _add(kind: str, name: str) -> Any:
    node = slicer.mrmlScene.AddNewNodeByClass(kind, name)
    node.SetSaveWithScene(False)
    return node
