"""An effect that fills the box dragged in a slice view, to try the harness with."""

import qt
import slicer
import vtk
from SegmentEditorEffects import AbstractScriptedSegmentEditorEffect
from vtk.util.numpy_support import vtk_to_numpy


class SegmentEditorEffect(AbstractScriptedSegmentEditorEffect):
    def __init__(self, scriptedEffect):
        scriptedEffect.name = "MadeUp"
        scriptedEffect.title = "Made up"
        super().__init__(scriptedEffect)
        self.first = None
        self.actors = {}

    def clone(self):
        import qSlicerSegmentationsEditorEffectsPythonQt as effects

        clonedEffect = effects.qSlicerSegmentEditorScriptedEffect(None)
        clonedEffect.setPythonSource(__file__)
        return clonedEffect

    def setupOptionsFrame(self):
        self.slicesSpinBox = qt.QSpinBox()
        self.slicesSpinBox.connect("valueChanged(int)", self.updateMRMLFromGUI)
        self.scriptedEffect.addLabeledOptionsWidget("Slices:", self.slicesSpinBox)

    def setMRMLDefaults(self):
        self.scriptedEffect.setParameterDefault("Slices", 1)

    def updateGUIFromMRML(self):
        self.slicesSpinBox.value = self.scriptedEffect.integerParameter("Slices")

    def updateMRMLFromGUI(self):
        self.scriptedEffect.setParameter("Slices", self.slicesSpinBox.value)

    def deactivate(self):
        for viewWidget, actor in self.actors.items():
            self.scriptedEffect.removeActor2D(viewWidget, actor)
        self.actors.clear()

    def processInteractionEvents(self, callerInteractor, eventId, viewWidget):
        if viewWidget.className() != "qMRMLSliceWidget":
            return False
        if eventId == vtk.vtkCommand.KeyPressEvent and callerInteractor.GetKeySym() == "Escape":
            self.scriptedEffect.selectEffect("")
            return True
        image = self.scriptedEffect.sourceVolumeImageData()
        ijk = self.xyToIjk(callerInteractor.GetEventPosition(), viewWidget, image)
        if eventId == vtk.vtkCommand.LeftButtonPressEvent:
            if not self.scriptedEffect.confirmCurrentSegmentVisible():
                return False
            self.first = ijk
            if viewWidget not in self.actors:
                self.actors[viewWidget] = vtk.vtkTextActor()
                self.scriptedEffect.addActor2D(viewWidget, self.actors[viewWidget])
            return True
        if eventId == vtk.vtkCommand.LeftButtonReleaseEvent and self.first:
            self.fill(self.first, ijk)
            self.first = None
            return True
        return False

    def fill(self, first, last):
        labelmap = self.scriptedEffect.defaultModifierLabelmap()
        voxels = vtk_to_numpy(labelmap.GetPointData().GetScalars()).reshape(labelmap.GetDimensions()[::-1])
        ranges = [slice(min(pair), max(pair) + 1) for pair in zip(first, last, strict=True)]
        voxels[tuple(reversed(ranges))] = 1
        labelmap.Modified()
        self.scriptedEffect.saveStateForUndo()
        mode = slicer.qSlicerSegmentEditorAbstractEffect.ModificationModeAdd
        self.scriptedEffect.modifySelectedSegmentByLabelmap(labelmap, mode)
