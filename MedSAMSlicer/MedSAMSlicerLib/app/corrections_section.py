"""Section Corrections of the module: where the mask may be wrong, and the key slices that put it right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import qt
import slicer
import slicer.util
import vtk
from slicer.i18n import tr as _

from MedSAMSlicerLib.app.placement import Placement
from MedSAMSlicerLib.app.slice_views import LastSliceView, jump_to
from MedSAMSlicerLib.mrml.boxes import (
    bind,
    box_of,
    flatten,
    key_slice_axis,
    key_slices_of,
    new_key_slice,
    place_in_slice,
    slice_in_view,
    structure_of,
)
from MedSAMSlicerLib.mrml.key_slices import key_slice_of, painted_slice
from MedSAMSlicerLib.mrml.segments import segment_slice
from MedSAMSlicerLib.mrml.volumes import dimensions, ijk_to_world
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.geometry import plane_axes

if TYPE_CHECKING:
    from MedSAMSlicerLib.app.host import Host


class CorrectionsSection(slicer.util.VTKObservationMixin):
    """Draws, lists and follows key slices of one segment."""

    def __init__(self, panel: Host) -> None:
        super().__init__()
        self._panel = panel
        self._keys: list[Any] = []
        self._review: list[Any] = []
        # What was painted by hand, by segmentation and segment; unlike boxes it is not kept with the scene.
        self._painted: dict[tuple[Any, str], list[Any]] = {}
        self._view = LastSliceView()
        self._correction = Placement(self._on_correction_placed)
        ui = panel.ui
        for table, titles in ((ui.keySlicesTable, [_("Slice"), _("Box")]), (ui.reviewTable, [_("Slice"), _("Sure")])):
            table.setColumnCount(len(titles))
            table.setHorizontalHeaderLabels(titles)
            table.verticalHeader().hide()
            table.horizontalHeader().setStretchLastSection(True)
            table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
            table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        ui.segmentComboBox.connect("activated(int)", self._on_segment_chosen)
        ui.drawKeySliceButton.connect("clicked(bool)", self.draw)
        ui.correctSliceButton.connect("clicked(bool)", lambda *args: self.correct_current_slice())
        ui.keepPaintedButton.connect("clicked(bool)", lambda *args: self.keep_painted_slice())
        ui.deleteKeySliceButton.connect("clicked(bool)", lambda *args: self.delete())
        ui.nextDoubtfulButton.connect("clicked(bool)", lambda *args: self.show_most_doubtful())
        ui.keySlicesTable.connect("cellClicked(int,int)", lambda row, column: self._show_key(row))
        ui.reviewTable.connect("cellClicked(int,int)", lambda row, column: self._show_review(row))
        self.addObserver(slicer.mrmlScene, slicer.vtkMRMLScene.NodeRemovedEvent, self._on_node_removed)

    @property
    def _segment(self) -> str | None:
        """Return the ID of the segment that is corrected."""
        parameters = self._panel.parameters
        if parameters is None or parameters.segmentation is None:
            return None
        segment_id = parameters.segmentID
        return segment_id if segment_id and parameters.segmentation.GetSegmentation().GetSegment(segment_id) else None

    def draw(self, start: bool = True) -> None:
        """Let the user draw a key slice of the segment in any slice view; again to leave it."""
        if not start or self._segment is None or self._correction.running:
            self._correction.cancel()
        else:
            name = slicer.mrmlScene.GenerateUniqueName(_("Corrected slice"))
            self._correction.start(new_key_slice(slicer.mrmlScene, name))
        self._panel.update()

    def correct_current_slice(self) -> None:
        """Put a key slice around what the segment holds in the slice that the user looks at."""
        self._attempt(self._correct_current_slice)

    def keep_painted_slice(self) -> None:
        """Make what the segment holds in the slice that the user looks at a key slice."""
        self._attempt(self._keep_painted_slice)

    def delete(self) -> None:
        """Delete the key slice that is selected in the list; the segment is made again without it."""
        row = self._panel.ui.keySlicesTable.currentRow()
        if 0 <= row < len(self._keys):
            slicer.mrmlScene.RemoveNode(self._keys[row])

    def show_most_doubtful(self) -> None:
        """Show the slice where a correction promises most."""
        if self._review:
            self._show_review(0)

    def painted(self, segmentation: Any, segment_id: str) -> list[Any]:
        """Return the key slices of a segment that were painted by hand."""
        return list(self._painted.get((segmentation, segment_id), ()))

    def slice_in_view(self) -> tuple[int, int] | None:
        """Return the slice of the volume that the user looks at, (axis, index); None if there is none."""
        try:
            return slice_in_view(self._view.node, self._panel.parameters.inputVolume)
        except ValueError:
            return None

    def update(self) -> None:
        """Show the segment's key slices, and its slices by doubt."""
        ui, parameters = self._panel.ui, self._panel.parameters
        self._fill_segments()
        segment_id, segmentation = self._segment, parameters.segmentation
        self._follow([] if segment_id is None else key_slices_of(segmentation, segment_id))
        self._review = [] if segment_id is None else self._panel.logic.slicesToReview(segmentation, segment_id)
        ui.keySlicesTable.setRowCount(len(self._keys))
        for row, roi in enumerate(self._keys):
            place = self._place_of(roi)
            ui.keySlicesTable.setItem(row, 0, qt.QTableWidgetItem(_slice_name(*place) if place else _("outside")))
            ui.keySlicesTable.setItem(row, 1, qt.QTableWidgetItem(roi.GetName()))
        ui.reviewTable.setRowCount(len(self._review))
        for row, each in enumerate(self._review):
            ui.reviewTable.setItem(row, 0, qt.QTableWidgetItem(_slice_name(each.axis, each.index)))
            ui.reviewTable.setItem(row, 1, qt.QTableWidgetItem(f"{each.confidence:.0%}"))
        volume = parameters.inputVolume
        for button in (ui.drawKeySliceButton, ui.correctSliceButton, ui.keepPaintedButton):
            button.enabled = volume is not None and segment_id is not None
        ui.drawKeySliceButton.checked = self._correction.running
        ui.deleteKeySliceButton.enabled = bool(self._keys)
        ui.nextDoubtfulButton.enabled = bool(self._review)

    def leave(self) -> None:
        """End a placement that runs."""
        self._correction.cancel()

    def forget(self) -> None:
        """Forget the nodes of a scene that is closed."""
        self._follow([])
        self._review = []
        self._painted.clear()

    def close(self) -> None:
        """Follow no node any more."""
        self._correction.close()
        self._view.close()
        self.forget()
        self.removeObservers()

    def _attempt(self, action: Any) -> None:
        try:
            action()
        except ValueError as error:
            self._panel.tell(str(error), error=True)

    def _correct_current_slice(self) -> None:
        volume, segmentation, segment_id = self._chosen()
        axis, index = slice_in_view(self._view.node, volume)
        mask = segment_slice(segmentation, segment_id, volume, axis, index)
        if not mask.any():
            raise ValueError(
                _("The segment holds nothing in slice {slice}: draw a box there instead.").format(
                    slice=_slice_name(axis, index)
                )
            )
        rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
        roi = new_key_slice(slicer.mrmlScene, slicer.mrmlScene.GenerateUniqueName(_("Corrected slice")))
        place_in_slice(roi, volume, axis, index, Box(*map(float, (columns[0], rows[0], columns[-1], rows[-1]))))
        self._belong(roi, segment_id)
        self._panel.update()

    def _belong(self, roi: Any, segment_id: str) -> None:
        """Make an ROI a key slice of a segment; the structure's own box, whose handles lie over it, is hidden."""
        segmentation = self._panel.parameters.segmentation
        bind(roi, segmentation, segment_id)
        box = box_of(segmentation, segment_id)
        if box is not None and box.GetDisplayNode() is not None:
            box.GetDisplayNode().SetVisibility(False)

    def _keep_painted_slice(self) -> None:
        volume, segmentation, segment_id = self._chosen()
        axis, index = slice_in_view(self._view.node, volume)
        kept = painted_slice(segmentation, segment_id, volume, axis, index)
        others = self._painted.setdefault((segmentation, segment_id), [])
        others[:] = [each for each in others if (each.axis, each.index) != (axis, index)] + [kept]
        self._again(segment_id)

    def _chosen(self) -> tuple[Any, Any, str]:
        parameters = self._panel.parameters
        if parameters.inputVolume is None or self._segment is None:
            raise ValueError(_("Choose a volume and a segment first."))
        return parameters.inputVolume, parameters.segmentation, self._segment

    def _again(self, segment_id: str) -> None:
        """Segment a structure anew with the key slices that it has now."""
        segmentation, volume = self._panel.parameters.segmentation, self._panel.parameters.inputVolume

        painted = self.painted(segmentation, segment_id)
        self._panel.segment(lambda: [(None, structure_of(segmentation, segment_id, volume, painted))])

    def _on_correction_placed(self, roi: Any) -> None:
        if roi is not None and self._flatten(roi) and self._segment is not None:
            self._belong(roi, self._segment)
            self._again(self._segment)
        self._panel.update()

    def _flatten(self, roi: Any) -> bool:
        """Make a newly placed ROI a box in one slice; False, without the ROI, where this can't be."""
        try:
            axis, _index = slice_in_view(self._view.node, self._panel.parameters.inputVolume)
            flatten(roi, self._panel.parameters.inputVolume, axis)
        except ValueError as error:
            slicer.mrmlScene.RemoveNode(roi)
            self._panel.tell(str(error), error=True)
            return False
        return True

    def _follow(self, rois: list[Any]) -> None:
        for roi in self._keys:
            if roi not in rois:
                self.removeObserver(roi, roi.PointEndInteractionEvent, self._on_dragged)
        for roi in rois:
            if roi not in self._keys:
                self.addObserver(roi, roi.PointEndInteractionEvent, self._on_dragged)
        self._keys = rois

    def _on_dragged(self, roi: Any, _event: Any) -> None:
        volume = self._panel.parameters.inputVolume
        if volume is None or self._segment is None:
            return
        try:
            # A handle of the third direction may have made it thick.
            flatten(roi, volume, key_slice_axis(roi, volume))
        except ValueError as error:
            self._panel.tell(str(error), error=True)
            return
        self._again(self._segment)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_node_removed(self, scene: Any, _event: Any, node: Any) -> None:
        if node in self._keys and not scene.IsClosing() and self._segment is not None:
            self._keys.remove(node)
            self.removeObserver(node, node.PointEndInteractionEvent, self._on_dragged)
            self._again(self._segment)

    def _fill_segments(self) -> None:
        combo, parameters = self._panel.ui.segmentComboBox, self._panel.parameters
        content = parameters.segmentation.GetSegmentation() if parameters.segmentation is not None else None
        ids = list(content.GetSegmentIDs()) if content is not None else []
        if self._segment is None and ids:
            parameters.segmentID = ids[-1]
        combo.clear()
        for segment_id in ids:
            combo.addItem(content.GetSegment(segment_id).GetName(), segment_id)
        combo.setCurrentIndex(combo.findData(parameters.segmentID))

    def _on_segment_chosen(self, index: int) -> None:
        self._panel.parameters.segmentID = self._panel.ui.segmentComboBox.itemData(index)
        self._panel.update()

    def _place_of(self, roi: Any) -> tuple[int, int] | None:
        try:
            key = key_slice_of(roi, self._panel.parameters.inputVolume)
        except ValueError:
            return None
        return key.axis, key.index

    def _show_key(self, row: int) -> None:
        if row < len(self._keys):
            jump_to(self._keys[row].GetCenterWorld())

    def _show_review(self, row: int) -> None:
        parameters, segment_id = self._panel.parameters, self._segment
        if row >= len(self._review) or parameters.inputVolume is None or segment_id is None:
            return
        volume, axis, index = parameters.inputVolume, self._review[row].axis, self._review[row].index
        mask = segment_slice(parameters.segmentation, segment_id, volume, axis, index)
        jump_to(_middle_of(mask, volume, axis, index))


def _middle_of(mask: np.ndarray, volume: Any, axis: int, index: int) -> np.ndarray:
    """Find the middle (RAS) of a mask in a slice of a volume; of the slice where the mask is empty."""
    voxel = (np.array(dimensions(volume)) - 1) / 2
    voxel[axis] = index
    if mask.any():
        rows, columns = mask.nonzero()
        voxel[list(plane_axes(axis))] = columns.mean(), rows.mean()
    return (ijk_to_world(volume) @ [*voxel, 1.0])[:3]


def _slice_name(axis: int, index: int) -> str:
    return f"{'IJK'[axis]} {index}"
