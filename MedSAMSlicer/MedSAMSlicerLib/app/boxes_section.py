"""Section Boxes of the module: the ROIs of the scene, which of them are segmented, and new ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import qt
import slicer
import slicer.util
import vtk
from slicer.i18n import tr as _

from MedSAMSlicerLib.app.placement import Placement
from MedSAMSlicerLib.app.slice_views import jump_to, slice_node_under_mouse
from MedSAMSlicerLib.mrml.boxes import (
    box_of,
    flatten,
    is_ticked,
    new_box,
    segment_of,
    slice_clicked,
    slice_in_middle,
    structure_boxes,
    structure_of,
    tick,
)
from MedSAMSlicerLib.mrml.diameters import box_of_diameter, diameters, new_lines
from MedSAMSlicerLib.mrml.slice_boxes import is_on_slice, lay, make_3d
from MedSAMSlicerLib.mrml.structure import Structure

if TYPE_CHECKING:
    from MedSAMSlicerLib.app.host import Host

# The columns of the table.
_BOX, _DEPTH, _SEGMENT = range(3)


class BoxesSection(slicer.util.VTKObservationMixin):
    """Lists the ROI nodes of the scene and follows them."""

    def __init__(self, panel: Host) -> None:
        super().__init__()
        self._panel = panel
        self._rows: list[Any] = []
        self._filling = False
        self._placement = Placement(self._on_placed)
        table = panel.ui.boxesTable
        table.setColumnCount(3)
        table.setHorizontalHeaderLabels([_("Box"), _("Depth"), _("Segment")])
        table.verticalHeader().hide()
        table.horizontalHeader().setStretchLastSection(True)
        table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        table.connect("cellChanged(int,int)", self._on_cell_changed)
        table.connect("cellClicked(int,int)", lambda row, column: self._show(row))
        panel.ui.placeROIButton.connect("clicked(bool)", self.place)
        panel.ui.boxesOfLinesButton.connect("clicked(bool)", lambda *args: self.take_lines())
        for event in (slicer.vtkMRMLScene.NodeAddedEvent, slicer.vtkMRMLScene.NodeRemovedEvent):
            self.addObserver(slicer.mrmlScene, event, lambda *args: panel.update())

    def place(self, start: bool = True) -> None:
        """Let the user place a box; again to leave it."""
        if not start or self._placement.running:
            self._placement.cancel()
        else:
            roi = new_box(slicer.mrmlScene, slicer.mrmlScene.GenerateUniqueName(_("Structure")))
            tick(roi, True)
            self._placement.start(roi)
        self._panel.update()

    def take_lines(self) -> None:
        """Make a ticked box of each measured diameter that has none; a line that can't be one is told."""
        panel, volume = self._panel, self._panel.parameters.inputVolume
        lines, problem = [], ""
        for line in new_lines(slicer.mrmlScene):
            try:
                diameters([line], volume)
                lines.append(line)
            except ValueError as error:
                problem = str(error)
        made = [box_of_diameter(each, volume) for each in diameters(lines, volume)]
        for roi in made:
            tick(roi, True)
        if made:
            jump_to(made[-1].GetCenterWorld())
            panel.tell(problem or _("Boxes made of lines: {count}.").format(count=len(made)), error=bool(problem))
        else:
            none = _("There is no line without a box: measure a diameter with a line (Markups) first.")
            panel.tell(problem or none, error=True)
        panel.update()
        if made and panel.parameters.autoUpdate:
            panel.segment(lambda: [self._structure(roi) for roi in made])

    def read(self) -> list[tuple[Any, Structure]]:
        """Read the structures of all ticked boxes, each with its key slices."""
        return [self._structure(roi) for roi in self._rows if roi.GetScene() is not None and is_ticked(roi)]

    @property
    def ticked(self) -> int:
        """Return how many boxes are ticked."""
        return sum(is_ticked(roi) for roi in self._rows)

    def update(self) -> None:
        """Show the boxes as they are."""
        self._panel.ui.placeROIButton.checked = self._placement.running
        # (A line is there before its ends are.)
        lines = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLMarkupsLineNode")
        self._panel.ui.boxesOfLinesButton.enabled = self._panel.parameters.inputVolume is not None and lines > 0
        self._follow(structure_boxes(slicer.mrmlScene))
        table, segmentation = self._panel.ui.boxesTable, self._panel.parameters.segmentation
        self._filling = True
        table.setRowCount(len(self._rows))
        for row, roi in enumerate(self._rows):
            name = qt.QTableWidgetItem(roi.GetName())
            name.setCheckState(qt.Qt.Checked if is_ticked(roi) else qt.Qt.Unchecked)
            segment_id = segment_of(roi, segmentation)
            made = segmentation.GetSegmentation().GetSegment(segment_id) if segment_id else None
            segment = qt.QTableWidgetItem(made.GetName() if made else _("new"))
            segment.setFlags(segment.flags() ^ qt.Qt.ItemIsEditable)
            if made:
                segment.setForeground(qt.QBrush(qt.QColor.fromRgbF(*made.GetColor())))
            on_slice = is_on_slice(roi)
            depth = qt.QTableWidgetItem(_("one slice") if on_slice else _("3-D box"))
            depth.setCheckState(qt.Qt.Checked if on_slice else qt.Qt.Unchecked)
            depth.setFlags(depth.flags() ^ qt.Qt.ItemIsEditable)
            depth.setToolTip(
                _(
                    "Ticked: a box on one slice. The structure is followed from there until it ends, and the box takes "
                    "the depth that was found. Otherwise a 3-D box: the structure is looked for from its first to its "
                    "last slice."
                )
            )
            table.setItem(row, _BOX, name)
            table.setItem(row, _DEPTH, depth)
            table.setItem(row, _SEGMENT, segment)
        table.resizeColumnsToContents()
        self._filling = False

    def leave(self) -> None:
        """End a placement that runs."""
        self._placement.cancel()

    def close(self) -> None:
        """Follow no node any more."""
        self._placement.close()
        self._rows = []
        self.removeObservers()

    def _structure(self, roi: Any) -> tuple[Any, Structure]:
        volume, segmentation = self._panel.parameters.inputVolume, self._panel.parameters.segmentation
        segment_id = segment_of(roi, segmentation)
        if segment_id is not None and box_of(segmentation, segment_id) is roi:
            painted = self._panel.painted(segmentation, segment_id)
            return roi, structure_of(segmentation, segment_id, volume, painted)
        return roi, Structure.of_roi(volume, roi)

    def _show(self, row: int) -> None:
        """Show a box, which may have been hidden by a correction, and its middle in all slice views."""
        if row < len(self._rows):
            self._rows[row].GetDisplayNode().SetVisibility(True)
            jump_to(self._rows[row].GetCenterWorld())

    def _switch(self, roi: Any, on_slice: bool) -> None:
        """Make a box one on a slice, the one in its middle, or a 3-D box."""
        if on_slice:
            self._lay(roi, lambda volume: slice_in_middle(roi, volume))
        else:
            make_3d(roi)

    def _lay(self, roi: Any, find: Callable[[Any], tuple[int, int]]) -> None:
        """Make a box one on a slice, or say why it can't be.

        :param find: called with the volume; returns the axis and index of the slice.
        """
        volume = self._panel.parameters.inputVolume
        try:
            if volume is None:
                raise ValueError(_("Choose a volume first."))
            lay(roi, volume, *find(volume))
        except ValueError as error:
            self._panel.tell(_("{problem} The box is a 3-D box.").format(problem=error), error=True)

    def _follow(self, rois: list[Any]) -> None:
        """Observe the boxes that are there, and those only."""
        for roi in self._rows:
            if roi not in rois:
                self.removeObserver(roi, roi.PointEndInteractionEvent, self._on_dragged)
                self.removeObserver(roi, vtk.vtkCommand.ModifiedEvent, self._on_modified)
        for roi in rois:
            if roi not in self._rows:
                self.addObserver(roi, roi.PointEndInteractionEvent, self._on_dragged)
                self.addObserver(roi, vtk.vtkCommand.ModifiedEvent, self._on_modified)
        self._rows = rois

    def _on_modified(self, _roi: Any, _event: Any) -> None:
        self._panel.update()

    def _on_placed(self, roi: Any) -> None:
        view = slice_node_under_mouse()
        if roi is not None and view is not None:

            def clicked(volume: Any) -> tuple[int, int]:
                axis, index = slice_clicked(roi, view, volume)
                flatten(roi, volume, axis)
                return axis, index

            self._lay(roi, clicked)
        if roi is not None:
            jump_to(roi.GetCenterWorld())
        self._panel.update()
        if roi is not None and self._panel.parameters.autoUpdate:
            self._panel.segment(lambda: [self._structure(roi)])

    def _on_dragged(self, roi: Any, _event: Any) -> None:
        if self._panel.parameters is not None and self._panel.parameters.autoUpdate and is_ticked(roi):
            self._panel.segment(lambda: [self._structure(roi)])

    def _on_cell_changed(self, row: int, column: int) -> None:
        if self._filling or column == _SEGMENT or row >= len(self._rows):
            return
        roi, item = self._rows[row], self._panel.ui.boxesTable.item(row, column)
        segmentation = self._panel.parameters.segmentation
        checked = item.checkState() == qt.Qt.Checked
        if column == _DEPTH:
            if checked != is_on_slice(roi):
                self._switch(roi, checked)
            self._panel.update()
            return
        tick(roi, checked)
        if item.text() and item.text() != roi.GetName():
            roi.SetName(item.text())
            if (segment_id := segment_of(roi, segmentation)) is not None:
                segmentation.GetSegmentation().GetSegment(segment_id).SetName(item.text())
        self._panel.update()
