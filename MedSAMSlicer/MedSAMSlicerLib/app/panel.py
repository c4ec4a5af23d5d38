"""The module's panel: its sections, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import qt
import slicer
import slicer.util
import vtk
from slicer.i18n import tr as _

from MedSAMSlicerLib.app.boxes_section import BoxesSection
from MedSAMSlicerLib.app.corrections_section import CorrectionsSection
from MedSAMSlicerLib.app.inputs_section import InputsSection
from MedSAMSlicerLib.app.model_section import ModelSection
from MedSAMSlicerLib.app.result_section import ResultSection
from MedSAMSlicerLib.app.shortcuts import Shortcuts
from MedSAMSlicerLib.app.training_section import TrainingSection
from MedSAMSlicerLib.app.worklist_section import WorklistSection
from MedSAMSlicerLib.mrml.structure import Structure
from MedSAMSlicerLib.mrml.volumes import is_image


class Panel(slicer.util.VTKObservationMixin):
    """Keeps the sections in step: what one of them changes, the others show.

    :param ui: the widgets of the .ui file, by name.
    :param logic: a MedSAMSlicerLogic.
    """

    def __init__(self, ui: Any, logic: Any) -> None:
        super().__init__()
        self.ui = ui
        self.logic = logic
        self.parameters: Any = None
        """The parameter node that is shown; None while the module is not open, and while the scene closes."""
        self._connection: Any = None
        self._offered: Any = None
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(0)
        self._timer.connect("timeout()", self._update)
        self.inputs = InputsSection(self)
        self.worklist = WorklistSection(self)
        self.boxes = BoxesSection(self)
        self.result = ResultSection(self)
        self.corrections = CorrectionsSection(self)
        self.model = ModelSection(self)
        self.training = TrainingSection(self)
        self.shortcuts = Shortcuts(self)
        self.addObserver(slicer.mrmlScene, slicer.vtkMRMLScene.NodeAddedEvent, self._on_node_added)
        ui.segmentButton.connect("clicked(bool)", lambda *args: self.segment(self.boxes.read))

    def show(self, parameters: Any) -> None:
        """Show the parameters of the scene; the first volume is chosen if there is none yet."""
        self._disconnect()
        self.parameters = parameters
        self._connection = parameters.connectGui(self.ui)
        self.addObserver(parameters, vtk.vtkCommand.ModifiedEvent, self._on_parameters_modified)
        if parameters.inputVolume is None:
            volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
            parameters.inputVolume = next(filter(is_image, volumes), None)
        self.update()

    def enter(self) -> None:
        """Make the keys work; the module was opened."""
        self.shortcuts.enable(True)
        self.model.list_models()

    def leave(self) -> None:
        """Give mouse and keys back; another module is opened. What runs goes on."""
        self.shortcuts.enable(False)
        self.boxes.leave()
        self.corrections.leave()
        self._disconnect()

    def forget(self) -> None:
        """Let go of all nodes, before the scene is closed."""
        self.worklist.forget()
        self.result.close()
        self.boxes.leave()
        self.corrections.leave()
        self.corrections.forget()
        self._disconnect()

    def close(self) -> None:
        """Let go of everything."""
        self._timer.stop()
        self.worklist.forget()
        self._disconnect()
        self.removeObservers()
        for section in (self.training, self.model, self.result, self.corrections, self.boxes, self.shortcuts):
            section.close()

    def update(self) -> None:
        """Show the new state in all sections, once this event has been handled."""
        self._timer.start()

    def tell(self, text: str, *, error: bool = False) -> None:
        """Show a line of text below the progress bar."""
        self.ui.statusLabel.setText(text)
        self.ui.statusLabel.setStyleSheet("color: #c0392b" if error else "")

    def segment(self, read: Callable[[], Sequence[tuple[Any, Structure]]]) -> None:
        """Segment structures; what runs already is stopped first.

        :param read: returns pairs of the ROI that the structure's segment shall belong to, or None, and the structure.
        """
        self.result.segment(read)

    def segmentation(self) -> Any:
        """Return the segmentation of the result, a new one if none is chosen."""
        if self.parameters.segmentation is None:
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", _("Segmentation"))
            node.CreateDefaultDisplayNodes()
            self.parameters.segmentation = node
        return self.parameters.segmentation

    def slice_in_view(self) -> tuple[int, int] | None:
        """Return the slice of the volume that the user looks at, (axis, index); None if there is none."""
        return self.corrections.slice_in_view()

    @property
    def running(self) -> bool:
        """Return whether a segmentation runs."""
        return self.result.running

    def save_case(self) -> None:
        """Save what was made of the worklist's case; nothing without one."""
        self.worklist.save()

    def list_models(self) -> None:
        """Show the models that are there now."""
        self.model.list_models()

    @property
    def ready(self) -> bool:
        """Return whether the chosen model can be used."""
        return self.model.ready

    def painted(self, segmentation: Any, segment_id: str) -> list[Any]:
        """Return the key slices of a segment that were painted by hand."""
        return self.corrections.painted(segmentation, segment_id)

    def _disconnect(self) -> None:
        if self.parameters is not None:
            self.parameters.disconnectGui(self._connection)
            self.removeObserver(self.parameters, vtk.vtkCommand.ModifiedEvent, self._on_parameters_modified)
            self.inputs.close()
        self.parameters = self._offered = None

    def _on_parameters_modified(self, _parameters: Any, _event: Any) -> None:
        self.update()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_node_added(self, _scene: Any, _event: Any, node: Any) -> None:
        if is_image(node):
            # Chosen once this event has been handled: it has no voxels yet, and who loads it may choose himself.
            self._offered = node
            self.update()

    def _update(self) -> None:
        if self.parameters is None:
            return
        offered, self._offered = self._offered, None
        if self.parameters.inputVolume is None and offered is not None and offered.GetScene() is not None:
            self.parameters.inputVolume = offered
        for section in (self.inputs, self.worklist, self.boxes, self.corrections, self.model, self.training):
            section.update()
        self.result.update(self._missing())
        self.shortcuts.name_keys()

    def _missing(self) -> str:
        """Say what has to be given before anything can be segmented; empty if nothing."""
        if not self.model.ready:
            return _("The model is not installed: see the top of this panel.")
        if self.parameters.inputVolume is None:
            return _("Choose a volume first.")
        if not self.boxes.ticked:
            return _("Place a box around a structure, or tick one, first.")
        return ""
