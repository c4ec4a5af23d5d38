"""The Segment Editor effect MedSAM: a box drawn in a slice view becomes a part of the selected segment."""

from __future__ import annotations

from pathlib import Path

import qt
import slicer
import vtk
from SegmentEditorEffects import AbstractScriptedSegmentEditorEffect
from slicer.i18n import tr as _

from SegmentEditorMedSAMLib.DrawnBox import drawnBox
from SegmentEditorMedSAMLib.EffectOptions import EffectOptions
from SegmentEditorMedSAMLib.EffectShortcuts import EffectShortcuts
from SegmentEditorMedSAMLib.Proposer import Proposer
from SegmentEditorMedSAMLib.ViewPipeline import ViewPipeline

# A box with a shorter side was a click, in pixels of the view.
_SMALLEST_BOX = 3


class SegmentEditorEffect(AbstractScriptedSegmentEditorEffect):
    """What Segment Editor calls; it leaves the work to a Proposer and shows its proposal in the slice views."""

    def __init__(self, scriptedEffect):
        # Modules find effects by name: it is not translated.
        scriptedEffect.name = "MedSAM"
        scriptedEffect.title = _("MedSAM")
        scriptedEffect.perSegment = True
        scriptedEffect.requireSegments = True
        AbstractScriptedSegmentEditorEffect.__init__(self, scriptedEffect)
        self.options = EffectOptions(scriptedEffect)
        self.proposer = Proposer(scriptedEffect, self.options, self.showProposal, self.options.tell)
        # By slice widget.
        self.pipelines = {}
        self.shortcuts = None
        # The slice widget in which a box is being drawn, and the corner where it began.
        self._drawing = None
        self._observed = None

    def clone(self):
        """Return a new effect of this kind; each Segment Editor has its own."""
        import qSlicerSegmentationsEditorEffectsPythonQt as effects

        clonedEffect = effects.qSlicerSegmentEditorScriptedEffect(None)
        clonedEffect.setPythonSource(Path(__file__).as_posix())
        return clonedEffect

    def icon(self):
        """Return the icon of the effect's button."""
        return qt.QIcon(str(Path(__file__).with_suffix(".png")))

    def helpText(self):
        """Return what the effect's help box shows; its first line is always visible."""
        return "<html>" + _(
            "Segment a structure by a box drawn in a slice view<br>."
            "<p>Drag a box around the structure with the left mouse button, in any slice view. MedSAM shows what it "
            "finds; nothing is written before you apply it."
            "<ul><li><b>Enter</b> or <b>Apply</b>: write it to the selected segment. In 2-D the next box does so, too."
            "<li><b>Esc</b> or <b>Cancel</b>: drop it."
            "<li><b>3-D</b>: the structure is followed through the slices until it ends. Where it is wrong, draw "
            "another box in any slice and any view: it is corrected up to the next box. Only what was shown is written."
            "<li><b>Correct</b>: take up the last result again; slices that you have painted since then stay.</ul>"
            "<p>The computation runs on this computer; no image leaves it."
        )

    def setupOptionsFrame(self):
        """Make the panel."""
        self.options.setup(self.onApply, self.onCancel, self.proposer.correct, self.proposer.refresh)

    def setMRMLDefaults(self):
        """Give the parameters their defaults; called again after the scene was closed."""
        self.proposer.forget()
        self.options.setDefaults()

    def updateGUIFromMRML(self):
        """Show the parameters."""
        self.options.updateWidgets()

    def updateMRMLFromGUI(self):
        """Take over what the user has set."""
        self.options.updateParameters()

    def activate(self):
        """Begin to draw in the slice views."""
        self.layoutChanged()
        self.shortcuts = EffectShortcuts(self.onApply, self.onCancel)
        node = self.scriptedEffect.parameterSetNode()
        # Tells when another segment, segmentation or volume is selected.
        self._observed = node, node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._onSelectionChanged)
        self.options.tell(_("Drag a box around a structure in a slice view."))

    def deactivate(self):
        """Drop the proposal and leave the views as they were."""
        self.proposer.drop()
        self._drawing = None
        if self._observed is not None:
            node, tag = self._observed
            node.RemoveObserver(tag)
            self._observed = None
        if self.shortcuts is not None:
            self.shortcuts.remove()
            self.shortcuts = None
        self._removePipelines()

    def cleanup(self):
        """Called before the effect is deleted."""
        self.deactivate()
        self.proposer.forget()
        self.options.cleanup()

    def layoutChanged(self):
        """Draw in the slice views that there are now."""
        self._removePipelines()
        layoutManager = slicer.app.layoutManager()
        if not self.scriptedEffect.active() or layoutManager is None:
            return
        for name in layoutManager.sliceViewNames():
            sliceWidget = layoutManager.sliceWidget(name)
            self.pipelines[sliceWidget] = ViewPipeline(self.scriptedEffect, sliceWidget)
        self.showProposal()

    def sourceVolumeNodeChanged(self):
        """Another volume is segmented: what was proposed from the last one is void."""
        self.proposer.forget()

    def referenceGeometryChanged(self):
        """The voxels of the segmentation are others."""
        self.proposer.forget()

    def createCursor(self, widget):
        """Return the cursor for views: a cross, whose middle tells where the box will begin."""
        return qt.QCursor(qt.Qt.CrossCursor)

    def processInteractionEvents(self, callerInteractor, eventId, viewWidget):
        """Handle what the user does in a view; return whether nobody else shall."""
        if viewWidget.className() != "qMRMLSliceWidget" or viewWidget not in self.pipelines:
            return False
        if eventId == vtk.vtkCommand.KeyPressEvent:
            return self._onKey(callerInteractor.GetKeySym())
        position = callerInteractor.GetEventPosition()
        if eventId == vtk.vtkCommand.LeftButtonPressEvent:
            if callerInteractor.GetShiftKey() or callerInteractor.GetControlKey() or callerInteractor.GetAltKey():
                return False
            # A dialog has taken the release of the button: there would be no end of the box.
            if self.scriptedEffect.confirmCurrentSegmentVisible() == self.scriptedEffect.ConfirmedWithoutDialog:
                self._drawing = viewWidget, position
            return True
        if self._drawing is None or self._drawing[0] != viewWidget:
            return False
        if eventId == vtk.vtkCommand.MouseMoveEvent:
            self.pipelines[viewWidget].showBox(self._drawing[1], position)
            return True
        if eventId == vtk.vtkCommand.LeftButtonReleaseEvent:
            first, self._drawing = self._drawing[1], None
            self._onBox(viewWidget, first, position)
            return True
        return False

    def processViewNodeEvents(self, callerViewNode, eventId, viewWidget):
        """Follow a view that was moved."""
        if viewWidget in self.pipelines:
            self.pipelines[viewWidget].update()

    def showProposal(self):
        """Show in all views what is proposed now."""
        proposal = self.proposer.proposal
        for pipeline in self.pipelines.values():
            pipeline.showProposal(proposal)
            if proposal is None:
                pipeline.hideBox()
        self.options.setPending(proposal is not None)
        if self.shortcuts is not None:
            self.shortcuts.setEnabled(proposal is not None)

    def onApply(self):
        """Write the proposal."""
        self.options.finishEditing()
        self.proposer.accept()

    def onCancel(self):
        """Drop the proposal, or the box that is being drawn."""
        if self._drawing is not None:
            self.pipelines[self._drawing[0]].hideBox()
            self._drawing = None
        self.proposer.drop(_("Dropped; the segment is as it was."))

    def _onKey(self, key):
        if key in ("c", "C") and self.scriptedEffect.active():
            self.proposer.correct()
            return True
        if self.proposer.proposal is None and self._drawing is None:
            return False
        if key in ("Return", "KP_Enter"):
            self.onApply()
            return True
        if key == "Escape":
            self.onCancel()
            return True
        return False

    def _onBox(self, viewWidget, first, second):
        """Propose what a box holds, once its second corner is there."""
        pipeline = self.pipelines[viewWidget]
        if min(abs(first[0] - second[0]), abs(first[1] - second[1])) < _SMALLEST_BOX:
            pipeline.hideBox()
            return
        try:
            target = self.proposer.target()
            key = drawnBox(first, second, pipeline.xyToRas(), target.rasToVoxel, target.dimensions)
        except ValueError as error:
            pipeline.hideBox()
            self.options.tell(str(error))
            return
        self.proposer.propose(target, key)
        pipeline.showBox(first, second)
        self.showProposal()

    def _onSelectionChanged(self, _caller, _event):
        self.options.updateKeepOut()
        self.proposer.dropIfOutdated()

    def _removePipelines(self):
        for pipeline in self.pipelines.values():
            pipeline.remove()
        self.pipelines = {}
