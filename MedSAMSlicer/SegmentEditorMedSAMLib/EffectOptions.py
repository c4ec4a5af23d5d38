"""The effect's panel in Segment Editor."""

from __future__ import annotations

import qt
import slicer
from slicer.i18n import tr as _

from SegmentEditorMedSAMLib.Proposer import ADD, SET, SUBTRACT
from SegmentEditorMedSAMLib.SliceRange import DISTANCE, ROI, UNTIL_END, SliceRange


class EffectOptions:
    """Shows the effect's parameters, which Segment Editor keeps in its own node, and changes them.

    :param scriptedEffect: keeps the parameters.
    """

    def __init__(self, scriptedEffect):
        self._effect = scriptedEffect
        self._connections = []

    def setDefaults(self):
        """Give every parameter that has no value yet its default."""
        defaults = {"ThreeD": 1, "PreviewRange": 1, "Range": UNTIL_END, "Distance": 20.0, "Mode": ADD}
        for name, value in defaults.items():
            self._effect.setParameterDefault(name, value)

    @property
    def threeD(self):
        """Return whether a box reaches into the slices beside its own."""
        return bool(self._effect.integerParameter("ThreeD"))

    @property
    def previewsRange(self):
        """Return whether in 3-D all slices are proposed at once, not only when the box's own one is accepted."""
        return bool(self._effect.integerParameter("PreviewRange"))

    @property
    def mode(self):
        """Return SET, ADD or SUBTRACT."""
        return self._effect.parameter("Mode")

    def sliceRange(self, target):
        """Return the SliceRange that is set.

        :param target: an EditTarget.
        :raises ValueError: if it is that of an ROI, and there is none or it has no size.
        """
        from MedSAMSlicerLib.mrml.markups import world_corners
        from MedSAMSlicerLib.volume.geometry import transform_points

        kind = self._effect.parameter("Range")
        corners = None
        if kind == ROI:
            corners = transform_points(target.rasToVoxel, world_corners(self._effect.nodeReference("RangeROI")))
        return SliceRange(kind, self._effect.doubleParameter("Distance"), corners)

    def setup(self, apply, cancel, correct, rangeChanged):
        """Make the panel.

        :param apply: called when the button is clicked, as `cancel` and `correct`.
        :param rangeChanged: called when the user has changed how far a box reaches.
        """
        self._rangeChanged = rangeChanged
        self.threeDCheckBox = qt.QCheckBox(_("3-D"))
        self.threeDCheckBox.toolTip = _("A box in one slice segments the structure in the slices beside it as well.")
        self.previewCheckBox = qt.QCheckBox(_("Preview all slices"))
        self.previewCheckBox.toolTip = _(
            "The whole structure is shown as soon as the box is drawn, and can be corrected by further boxes before it "
            "is applied. Otherwise only the slice of the box is shown, and the others are computed when it is applied."
        )
        boxes = qt.QHBoxLayout()
        boxes.addWidget(self.threeDCheckBox)
        boxes.addWidget(self.previewCheckBox)
        boxes.addStretch(1)
        self._effect.addOptionsWidget(boxes)

        self.rangeComboBox = qt.QComboBox()
        for text, kind in (
            (_("Until the object ends"), UNTIL_END),
            (_("Until the object ends, within a distance"), DISTANCE),
            (_("Ends of an ROI"), ROI),
        ):
            self.rangeComboBox.addItem(text, kind)
        self.rangeComboBox.toolTip = _("How far the box reaches into the slices on both sides of its own.")
        self._effect.addLabeledOptionsWidget(_("Range:"), self.rangeComboBox)

        self.distanceSpinBox = qt.QDoubleSpinBox()
        self.distanceSpinBox.setRange(0.0, 1000.0)
        self.distanceSpinBox.decimals = 1
        self.distanceSpinBox.suffix = " mm"
        # Each digit that is typed would start a computation.
        self.distanceSpinBox.keyboardTracking = False
        self.distanceSpinBox.toolTip = _("The structure is followed up to this distance, to both sides.")
        self.distanceLabel = self._effect.addLabeledOptionsWidget(_("Distance:"), self.distanceSpinBox)

        self.roiSelector = slicer.qMRMLNodeComboBox()
        self.roiSelector.nodeTypes = ["vtkMRMLMarkupsROINode"]
        self.roiSelector.noneEnabled = True
        self.roiSelector.addEnabled = False
        self.roiSelector.removeEnabled = False
        self.roiSelector.setMRMLScene(slicer.mrmlScene)
        self.roiSelector.toolTip = _(
            "The structure is looked for inside of this ROI, from its first to its last slice."
        )
        self.roiLabel = self._effect.addLabeledOptionsWidget(_("ROI:"), self.roiSelector)

        self.modeComboBox = qt.QComboBox()
        for text, mode in ((_("Set"), SET), (_("Add"), ADD), (_("Subtract"), SUBTRACT)):
            self.modeComboBox.addItem(text, mode)
        self.modeComboBox.toolTip = _(
            "Set: the result replaces what the segment holds, in 2-D only in the slice of the box. "
            "Add: it is added to the segment. Subtract: it is taken away from the segment. "
            "The masking settings below hold in all cases."
        )
        self._effect.addLabeledOptionsWidget(_("Mode:"), self.modeComboBox)

        self.keepOutCheckBox = qt.QCheckBox(_("Keep out of other segments"))
        self.keepOutCheckBox.toolTip = _(
            "Voxels that other segments hold stay theirs. It is the choice 'Outside all segments' of the editable area "
            "in the masking settings below, and holds for the other effects, too."
        )
        self._effect.addOptionsWidget(self.keepOutCheckBox)

        self.applyButton = qt.QPushButton(_("Apply"))
        self.applyButton.toolTip = _("Write what is proposed to the segment (Enter).")
        self.cancelButton = qt.QPushButton(_("Cancel"))
        self.cancelButton.toolTip = _("Stop computing and drop what is proposed; the segment stays as it is (Esc).")
        self.correctButton = qt.QPushButton(_("Correct"))
        self.correctButton.toolTip = _(
            "Take up the last result in 3-D again, for corrections by further boxes. "
            "Slices that you have painted or erased since then stay as they are (C)."
        )
        buttons = qt.QHBoxLayout()
        for button in (self.applyButton, self.cancelButton, self.correctButton):
            buttons.addWidget(button)
        self._effect.addOptionsWidget(buttons)

        self.statusLabel = qt.QLabel()
        self.statusLabel.wordWrap = True
        self.statusLabel.toolTip = _("What the effect does, and how certain the model is: from 0 to 1.")
        self._effect.addOptionsWidget(self.statusLabel)
        self.keysLabel = qt.QLabel(
            _(
                "<b>Drag</b> a box in a slice view · <b>Enter</b> apply · <b>Esc</b> drop · "
                "<b>C</b> correct the last result"
            )
        )
        self.keysLabel.wordWrap = True
        self.keysLabel.toolTip = _("Keys while the effect is active; C while the mouse is in a slice view.")
        self._effect.addOptionsWidget(self.keysLabel)

        self._connect(self.threeDCheckBox, "toggled(bool)", self.updateParameters)
        self._connect(self.previewCheckBox, "toggled(bool)", self.updateParameters)
        self._connect(self.rangeComboBox, "currentIndexChanged(int)", self.updateParameters)
        self._connect(self.distanceSpinBox, "valueChanged(double)", self.updateParameters)
        self._connect(self.roiSelector, "currentNodeChanged(vtkMRMLNode*)", self.updateParameters)
        self._connect(self.modeComboBox, "currentIndexChanged(int)", self.updateParameters)
        self._connect(self.keepOutCheckBox, "toggled(bool)", self._setKeepOut)
        self._connect(self.applyButton, "clicked()", apply)
        self._connect(self.cancelButton, "clicked()", cancel)
        self._connect(self.correctButton, "clicked()", correct)

    def updateWidgets(self):
        """Show the parameters as they are."""
        kind = self._effect.parameter("Range")
        values = (
            (self.threeDCheckBox, lambda widget: widget.setChecked(self.threeD)),
            (self.previewCheckBox, lambda widget: widget.setChecked(self.previewsRange)),
            (self.rangeComboBox, lambda widget: widget.setCurrentIndex(widget.findData(kind))),
            (self.distanceSpinBox, lambda widget: widget.setValue(self._effect.doubleParameter("Distance"))),
            (self.roiSelector, lambda widget: widget.setCurrentNode(self._effect.nodeReference("RangeROI"))),
            (self.modeComboBox, lambda widget: widget.setCurrentIndex(widget.findData(self.mode))),
        )
        for widget, show in values:
            wasBlocked = widget.blockSignals(True)
            show(widget)
            widget.blockSignals(wasBlocked)
        self.updateKeepOut()
        for widget in (self.previewCheckBox, self.rangeComboBox, self.distanceSpinBox, self.roiSelector):
            widget.enabled = self.threeD
        for widget in (self.distanceLabel, self.distanceSpinBox):
            widget.visible = kind == DISTANCE
        for widget in (self.roiLabel, self.roiSelector):
            widget.visible = kind == ROI

    def updateKeepOut(self):
        """Show whether the masking settings, which may be changed elsewhere, keep segments out of each other."""
        wasBlocked = self.keepOutCheckBox.blockSignals(True)
        self.keepOutCheckBox.setChecked(self._keepsOut())
        self.keepOutCheckBox.blockSignals(wasBlocked)

    def updateParameters(self, _value=None):
        """Take over what the user has set."""
        before = self._rangeParameters()
        self._effect.setParameter("ThreeD", int(self.threeDCheckBox.checked))
        self._effect.setParameter("PreviewRange", int(self.previewCheckBox.checked))
        self._effect.setParameter("Range", self.rangeComboBox.currentData)
        self._effect.setParameter("Distance", float(self.distanceSpinBox.value))
        self._effect.setParameter("Mode", self.modeComboBox.currentData)
        self._effect.setNodeReference("RangeROI", self.roiSelector.currentNode())
        if self._rangeParameters() != before:
            self._rangeChanged()

    def finishEditing(self):
        """Take over a number that is still being typed."""
        self.distanceSpinBox.interpretText()

    def setPending(self, pending):
        """Enable the buttons that need a proposal."""
        for button in (self.applyButton, self.cancelButton):
            button.enabled = pending

    def tell(self, text):
        """Show a text for the user."""
        self.statusLabel.text = text

    def cleanup(self):
        """Disconnect all signals, or the effect could not be deleted."""
        for widget, signal, slot in self._connections:
            widget.disconnect(signal, slot)
        self._connections = []

    def _keepsOut(self):
        mode = self._effect.parameterSetNode().GetMaskMode()
        return mode == slicer.vtkMRMLSegmentationNode.EditAllowedOutsideAllSegments

    def _setKeepOut(self, on):
        modes = slicer.vtkMRMLSegmentationNode
        mode = modes.EditAllowedOutsideAllSegments if on else modes.EditAllowedEverywhere
        self._effect.parameterSetNode().SetMaskMode(mode)

    def _rangeParameters(self):
        parameters = [self._effect.parameter(name) for name in ("ThreeD", "Range", "Distance")]
        return *parameters, self._effect.nodeReference("RangeROI")

    def _connect(self, widget, signal, slot):
        widget.connect(signal, slot)
        self._connections.append((widget, signal, slot))
