"""``slicer.qMRMLSegmentEditorWidget``: the editor that effects live in, without its own controls.

Header: Slicer Modules/Loadable/Segmentations/Widgets/qMRMLSegmentEditorWidget.h, and its .cxx for what happens when:
which events reach the active effect, when effects are activated and told of changes.
"""

from __future__ import annotations

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets

from slicer_gui.effect import qSlicerSegmentEditorAbstractEffect
from slicer_gui.mrml_widgets import qMRMLWidget
from slicer_gui.observers import observe
from slicer_gui.pythonqt import checked_property, held_property, pythonqt, stand_in
from slicer_gui.scripted_effect import qSlicerSegmentEditorEffectFactory

_BUTTONS = [
    f"{button}Button{action}Event"
    for button in ("Left", "Right", "Middle")
    for action in ("Press", "Release", "DoubleClick")
]
_OTHERS = ["MouseMove", "MouseWheelForward", "MouseWheelBackward", "MouseWheelLeft", "MouseWheelRight"]
_OTHERS += ["KeyPress", "KeyRelease", "Enter", "Leave"]
_INTERACTIONS = _BUTTONS + [f"{event}Event" for event in _OTHERS]


@stand_in
class qMRMLSegmentEditorWidget(qMRMLWidget):
    """Gives the active effect its events, its images and its undo."""

    currentSegmentIDChanged = QtCore.Signal(str)
    sourceVolumeNodeChanged = QtCore.Signal(object)
    segmentationNodeChanged = QtCore.Signal(object)
    cpp_signals = {  # noqa: RUF012
        "sourceVolumeNodeChanged(vtkMRMLVolumeNode*)": "sourceVolumeNodeChanged",
        "segmentationNodeChanged(vtkMRMLSegmentationNode*)": "segmentationNodeChanged",
    }
    autoShowSourceVolumeNode = held_property(bool, True)
    maximumNumberOfUndoStates = checked_property(
        int,
        lambda self: self.__logic.GetMaximumNumberOfUndoStates(),
        lambda self, count: self.__logic.SetMaximumNumberOfUndoStates(count),
    )

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.__logic = slicer.vtkSlicerSegmentEditorLogic()
        self.__effects: dict[str, qSlicerSegmentEditorAbstractEffect] = {}
        self.__active: qSlicerSegmentEditorAbstractEffect | None = None
        self.__node, self.__segmentation, self.__volume, self.__interaction = None, None, None, None
        self.__view_observations: list[tuple[vtk.vtkObject, int]] = []
        self.__node_observations: list[tuple[vtk.vtkObject, int]] = []
        self.__updating = False
        pythonqt(QtWidgets.QVBoxLayout)(self)
        self.updateEffectList()

    def setMRMLScene(self, scene: slicer.vtkMRMLScene) -> None:
        if scene is self.mrmlScene():
            return
        super().setMRMLScene(scene)
        self.__logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        self.__logic.SetMRMLScene(scene)
        self.__interaction = scene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
        if self.__interaction:
            self._observe(self.__node_observations, self.__interaction, "ModifiedEvent", self._interaction_changed)
        for event in (scene.EndCloseEvent, scene.EndBatchProcessEvent):
            self._observe(self.__node_observations, scene, event, self._scene_replaced)

    def mrmlSegmentEditorNode(self) -> slicer.vtkMRMLSegmentEditorNode | None:
        return self.__node

    def setMRMLSegmentEditorNode(self, node: slicer.vtkMRMLSegmentEditorNode) -> None:
        self.__node = node
        self.__logic.SetSegmentEditorNode(node)
        self._observe(self.__node_observations, node, "ModifiedEvent", self._update)
        self._observe(self.__node_observations, node, node.EffectParameterModified, self._parameter_changed)
        self._initialize_effects()
        self._update()

    def segmentationNode(self) -> slicer.vtkMRMLSegmentationNode | None:
        return self.__logic.GetSegmentationNode()

    def setSegmentationNode(self, node: slicer.vtkMRMLSegmentationNode | None) -> None:
        if node is not self.segmentationNode():
            self.__logic.SetSegmentationNode(node)
            self.setActiveEffect(None)

    def sourceVolumeNode(self) -> slicer.vtkMRMLScalarVolumeNode | None:
        return self.__logic.GetSourceVolumeNode()

    def setSourceVolumeNode(self, node: slicer.vtkMRMLScalarVolumeNode | None) -> None:
        self.__logic.SetSourceVolumeNode(node)

    def currentSegmentID(self) -> str:
        return self.__node.GetSelectedSegmentID() or ""

    def setCurrentSegmentID(self, segmentID: str) -> None:
        self.__node.SetSelectedSegmentID(segmentID)
        self.currentSegmentIDChanged.emit(segmentID)

    def updateEffectList(self) -> None:
        """Clone the registered effects that are not here yet."""
        for effect in qSlicerSegmentEditorEffectFactory.instance().registeredEffects():
            if effect.name in self.__effects:
                continue
            own = self.__effects[effect.name] = effect.clone()
            own._attach(self, self.__logic)
            if self.__node:
                own.setParameterSetNode(self.__node)
                own.setMRMLDefaults()
            own.setupOptionsFrame()
            own.optionsFrame().setVisible(False)
            self.layout().addWidget(own.optionsFrame())

    def availableEffectNames(self) -> list[str]:
        return list(self.__effects)

    def effectByName(self, name: str) -> qSlicerSegmentEditorAbstractEffect | None:
        return self.__effects.get(name)

    def activeEffect(self) -> qSlicerSegmentEditorAbstractEffect | None:
        return self.__active

    def setActiveEffect(self, effect: qSlicerSegmentEditorAbstractEffect | None) -> None:
        self.__node.SetActiveEffectName(effect.name if effect else "")

    def setActiveEffectByName(self, effectName: str) -> None:
        if effectName and effectName not in self.__effects:
            raise ValueError(f"There is no effect {effectName!r}, only {', '.join(self.__effects) or 'none'}.")
        self.setActiveEffect(self.effectByName(effectName))

    def saveStateForUndo(self) -> None:
        self.__logic.SaveStateForUndo()

    def undo(self) -> None:
        self.__logic.Undo()

    def redo(self) -> None:
        self.__logic.Redo()

    def removeViewObservations(self) -> None:
        self._release(self.__view_observations)

    def setupViewObservations(self) -> None:
        """Let the active effect see the events of all views before anybody else does."""
        self.removeViewObservations()
        layout = slicer.app.layoutManager()
        widgets = [layout.sliceWidget(name) for name in layout.sliceViewNames()]
        widgets += [layout.threeDWidget(index) for index in range(layout.threeDViewCount)]
        for widget in widgets:
            if self.__logic.IsSegmentationDisplayableInView(widget.mrmlAbstractViewNode()):
                for event in _INTERACTIONS:
                    self._forward(widget, widget.viewWidget().interactor(), event)
                self._forward(widget, widget.mrmlAbstractViewNode(), "ModifiedEvent")

    def _forward(self, widget: qMRMLWidget, source: vtk.vtkObject, event: str) -> None:
        event_id = vtk.vtkCommand.GetEventIdFromString(event)

        def pass_on(caller: vtk.vtkObject, _event: str) -> None:
            if self.__active is None or self.mrmlScene().IsClosing():
                return
            # The effect may end itself, and this observer with it.
            command = caller.GetCommand(tag)
            if caller.IsA("vtkMRMLAbstractViewNode"):
                self.__active.processViewNodeEvents(caller, event_id, widget)
            elif self.__active.processInteractionEvents(caller, event_id, widget):
                command.SetAbortFlag(1)

        tag = source.AddObserver(event, pass_on, 1.0)
        self.__view_observations.append((source, tag))

    def _update(self, *_: object) -> None:
        """Follow the editor's node; what changes in the node meanwhile is told at the end."""
        scene = self.mrmlScene()
        if self.__updating or scene is None or scene.IsClosing() or scene.IsBatchProcessing() or self.__node is None:
            return
        self.__updating = True
        changing = self.__node.StartModify()
        try:
            self._follow_segmentation()
            self._follow_volume()
            self._follow_effect()
        finally:
            self.__updating = False
            self.__node.EndModify(changing)

    def _follow_segmentation(self) -> None:
        segmentation = self.__logic.GetSegmentationNode()
        if segmentation is self.__segmentation:
            return
        self.__segmentation = segmentation
        if segmentation:
            role = segmentation.GetReferenceImageGeometryReferenceRole()
            self.__logic.SetSourceVolumeNode(segmentation.GetNodeReference(role))
            segmentation.CreateDefaultDisplayNodes()
            segment_ids = segmentation.GetSegmentation().GetSegmentIDs()
            if segment_ids:
                self.__node.SetSelectedSegmentID(segment_ids[0])
        self.segmentationNodeChanged.emit(segmentation)

    def _follow_volume(self) -> None:
        volume = self.__logic.GetSourceVolumeNode()
        if self.__segmentation is None or volume is self.__volume:
            return
        self.__volume = volume
        layout = slicer.app.layoutManager()
        for name in layout.sliceViewNames() if volume and self.autoShowSourceVolumeNode else ():
            composite = layout.sliceWidget(name).mrmlSliceCompositeNode()
            if volume.GetID() not in (composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID()):
                composite.SetBackgroundVolumeID(volume.GetID())
        self.sourceVolumeNodeChanged.emit(volume)
        for effect in self.__effects.values():
            effect.sourceVolumeNodeChanged()
            effect.masterVolumeNodeChanged()

    def _follow_effect(self) -> None:
        effect = self.effectByName(self.__node.GetActiveEffectName())
        if effect is self.__active:
            return
        if self.__active:
            self.__active.deactivate()
        if effect and not self.__logic.TrivialSetSourceRepresentationToBinaryLabelmap():
            raise RuntimeError("The harness edits segmentations only if binary label maps are their source.")
        if effect:
            self.setupViewObservations()
            if self.__interaction:
                self.__interaction.SetCurrentInteractionMode(self.__interaction.ViewTransform)
            effect.activate()
        else:
            self.removeViewObservations()
        self._set_cursor(effect)
        self.__active = effect

    def _set_cursor(self, effect: qSlicerSegmentEditorAbstractEffect | None) -> None:
        layout = slicer.app.layoutManager()
        for name in layout.sliceViewNames():
            widget = layout.sliceWidget(name)
            shown = effect and effect.showEffectCursorInSliceView
            widget.sliceView().setDefaultViewCursor(effect.createCursor(widget) if shown else QtGui.QCursor())

    def _initialize_effects(self) -> None:
        for effect in self.__effects.values():
            effect.setParameterSetNode(self.__node)
            effect.setMRMLDefaults()

    def _parameter_changed(self, *_: object) -> None:
        for effect in self.__effects.values():
            effect.updateGUIFromMRML()

    def _interaction_changed(self, *_: object) -> None:
        if self.__active:
            self.__active.interactionNodeModified(self.__interaction)

    def _scene_replaced(self, *_: object) -> None:
        if self.__node:
            self._initialize_effects()
            self._update()

    def _close(self) -> None:
        """Deactivate and clean up all effects, as the destructor does."""
        if self.__active:
            self.__active.deactivate()
        self.__active = None
        self.removeViewObservations()
        self._release(self.__node_observations)
        for effect in self.__effects.values():
            effect.cleanup()

    @staticmethod
    def _observe(kept: list[tuple[vtk.vtkObject, int]], source: vtk.vtkObject, event: object, slot: object) -> None:
        kept.append((source, observe(source, event, slot)))

    @staticmethod
    def _release(kept: list[tuple[vtk.vtkObject, int]]) -> None:
        for source, tag in kept:
            source.RemoveObserver(tag)
        kept.clear()
