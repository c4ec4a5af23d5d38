"""The worklist in section Inputs of the module: a folder, the next case, and its result saved on its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
import slicer.util
from slicer.i18n import tr as _

from MedSAMSlicerLib.app.worklist import Worklist, name_of
from MedSAMSlicerLib.mrml.boxes import is_key_slice, is_ticked, segment_of
from MedSAMSlicerLib.mrml.segments import segment_part
from MedSAMSlicerLib.mrml.volumes import add_volume
from MedSAMSlicerLib.volume.files import read_volume

if TYPE_CHECKING:
    from MedSAMSlicerLib.app.host import Host


class WorklistSection:
    """Opens one case after the other; what was made of a case is saved beside its volume, then its nodes go.

    Nodes that were in the scene before, and those of other volumes, stay.
    """

    def __init__(self, panel: Host) -> None:
        self._panel = panel
        self._list: Worklist | None = None
        self._volume: Any = None
        self._segmentation: Any = None
        self._before: set[str] = set()
        ui = panel.ui
        ui.worklistButton.connect("clicked(bool)", lambda *args: self._choose())
        ui.nextCaseButton.connect("clicked(bool)", lambda *args: self.next())
        ui.worklistLabel.visible = False

    def next(self) -> None:
        """Save the case that is open, and open the next one; where it can't be saved, it stays."""
        if self._list is None or not self.save():
            return
        self._remove_nodes()
        try:
            path = self._list.advance()
            if path is None:
                self._panel.tell(_("No case without a result is left."))
            else:
                self._open(path)
        except (OSError, RuntimeError, ValueError) as error:
            self._list.release()
            self._panel.tell(str(error), error=True)
        self._panel.update()

    def save(self) -> bool:
        """Write what was made of the case so far, if anything; False, and a word to the user, where that fails."""
        self._look()
        if self._list is None or self._list.current is None or not _holds_something(self._segmentation, self._volume):
            return True
        try:
            self._list.save(self._segmentation)
        except (OSError, ValueError) as error:
            self._panel.tell(str(error), error=True)
            return False
        return True

    def update(self) -> None:
        """Show where the worklist is."""
        self._look()
        ui = self._panel.ui
        ui.worklistButton.enabled = not self._panel.running
        ui.nextCaseButton.enabled = self._list is not None and not self._panel.running
        ui.worklistLabel.visible = self._list is not None
        if self._list is None:
            return
        done = _("{done} of {count} in {folder} have a result.").format(
            done=self._list.done, count=len(self._list.volumes), folder=self._list.folder
        )
        current = self._list.current
        case = (
            _("Case {name}, saved as {output}.").format(name=current.name, output=self._list.output.name)
            if current
            else ""
        )
        ui.worklistLabel.setText(f"{case} {done}".strip())

    def forget(self) -> None:
        """Let go of the case's nodes, before the scene is closed: its result is saved first."""
        self.save()
        self._volume = self._segmentation = None
        if self._list is not None:
            self._list.release()

    def _look(self) -> None:
        """See which segmentation the case has now; while another volume is chosen it is the last one."""
        parameters = self._panel.parameters
        if None not in (self._volume, parameters) and parameters.inputVolume is self._volume:
            self._segmentation = parameters.segmentation

    def _choose(self) -> None:
        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder of volumes"))
        if not folder or not self.save():
            return
        try:
            chosen = Worklist(Path(folder))
        except (OSError, ValueError) as error:
            self._panel.tell(str(error), error=True)
            return
        self._remove_nodes()
        if self._list is not None:
            self._list.release()
        self._list = chosen
        self.next()

    def _open(self, path: Path) -> None:
        """Load a volume, and make it the module's; a result will be new."""
        self._before = {roi.GetID() for roi in slicer.util.getNodesByClass("vtkMRMLMarkupsROINode")}
        self._before |= {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")}
        with slicer.util.WaitCursor():
            self._volume = _load_series(path) if path.is_dir() else slicer.util.loadVolume(str(path))
        # Slicer numbers names that were in use once.
        self._volume.SetName(name_of(path))
        parameters = self._panel.parameters
        parameters.inputVolume, parameters.segmentation = self._volume, None
        self._panel.tell("")

    def _remove_nodes(self) -> None:
        """Take the case that was saved out of the scene: its volume, segmentation and boxes."""
        volume, segmentation = self._volume, self._segmentation
        self._volume = self._segmentation = None
        if volume is None:
            return
        rois = slicer.util.getNodesByClass("vtkMRMLMarkupsROINode")
        # ROIs that serve something else stay.
        boxes = [
            roi for roi in rois if is_ticked(roi) or is_key_slice(roi) or segment_of(roi, segmentation) is not None
        ]
        for node in (*boxes, segmentation, volume):
            if node is not None and node.GetScene() is not None and node.GetID() not in self._before:
                slicer.mrmlScene.RemoveNode(node)


def _load_series(folder: Path) -> Any:
    """Load a DICOM series and show it, as `loadVolume` does with a file; Slicer's DICOM database has no part in it."""
    volume = add_volume(slicer.mrmlScene, read_volume(folder))
    logic = slicer.app.applicationLogic()
    logic.GetSelectionNode().SetActiveVolumeID(volume.GetID())
    logic.PropagateVolumeSelection()
    return volume


def _holds_something(segmentation: Any, volume: Any) -> bool:
    """Return whether a segmentation that is still in the scene has a voxel."""
    if segmentation is None or None in (segmentation.GetScene(), volume.GetScene()):
        return False
    ids = segmentation.GetSegmentation().GetSegmentIDs()
    return any(segment_part(segmentation, segment_id, volume)[0].any() for segment_id in ids)
