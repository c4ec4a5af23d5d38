"""The C++ side of an effect: what ``self.scriptedEffect`` offers, on the real vtkSlicerSegmentEditorLogic.

Header: Slicer Modules/Loadable/Segmentations/EditorEffects/qSlicerSegmentEditorAbstractEffect.h, and its .cxx for what
happens when. Where it only prints an error (an unknown parameter), this raises.
"""

from __future__ import annotations

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets

from slicer_gui.effect_parameters import EffectParameters
from slicer_gui.pythonqt import checked_property, held_property, pythonqt, stand_in
from slicer_gui.qt_module import QMessageBox

_Logic = slicer.vtkSlicerSegmentEditorLogic
_MODES = (
    _Logic.ModificationModeSet,
    _Logic.ModificationModeAdd,
    _Logic.ModificationModeRemove,
    _Logic.ModificationModeRemoveAll,
)


@stand_in
class qSlicerSegmentEditorAbstractEffect(EffectParameters, pythonqt(QtCore.QObject)):
    """What the editor and an effect have in common."""

    ModificationModeSet, ModificationModeAdd, ModificationModeRemove, ModificationModeRemoveAll = range(4)
    NotConfirmed, ConfirmedWithoutDialog, ConfirmedWithDialog = range(3)

    def _set_title(self, title: str) -> None:
        self.__title = title

    name = held_property(str, "UnnamedScriptedEffect")
    title = checked_property(str, lambda self: self.__title or self.name, _set_title)
    perSegment = held_property(bool, True)
    requireSegments = held_property(bool, True)
    showEffectCursorInSliceView = held_property(bool, True)
    showEffectCursorInThreeDView = held_property(bool, False)

    def __init__(self, parent: QtCore.QObject | None = None) -> None:
        super().__init__(parent)
        self.__title, self.__active, self.__logic, self.__editor = "", False, None, None
        self.__confirmed_invisible = None
        self.__saved_cursor = QtGui.QCursor(QtCore.Qt.ArrowCursor)
        self.__frame = pythonqt(QtWidgets.QFrame)()
        layout = pythonqt(QtWidgets.QFormLayout)(self.__frame)
        layout.setContentsMargins(4, 4, 4, 4)

    # The options.

    def optionsFrame(self) -> QtWidgets.QFrame:
        return self.__frame

    def optionsLayout(self) -> QtWidgets.QFormLayout:
        return self.__frame.layout()

    def addOptionsWidget(self, newOptionsWidget: QtWidgets.QWidget | QtWidgets.QLayout) -> None:
        self._adopt(newOptionsWidget)
        self.optionsLayout().addRow(newOptionsWidget)

    def addLabeledOptionsWidget(self, label: str, newOptionsWidget: QtWidgets.QWidget | QtWidgets.QLayout):
        self._adopt(newOptionsWidget)
        label_widget = pythonqt(QtWidgets.QLabel)(label)
        self.optionsLayout().addRow(label_widget, newOptionsWidget)
        return label_widget

    # The images, all in the geometry of the segmentation. Each is what the logic holds, brought up to date.

    def modifierLabelmap(self) -> slicer.vtkOrientedImageData:
        return self.__logic.GetModifierLabelmap()

    def defaultModifierLabelmap(self) -> slicer.vtkOrientedImageData | None:
        return self.__logic.GetModifierLabelmap() if self.__logic.ResetModifierLabelmapToDefault() else None

    def sourceVolumeImageData(self) -> slicer.vtkOrientedImageData | None:
        return self.__logic.GetAlignedSourceVolume() if self.__logic.UpdateAlignedSourceVolume() else None

    def selectedSegmentLabelmap(self) -> slicer.vtkOrientedImageData | None:
        return self.__logic.GetSelectedSegmentLabelmap() if self.__logic.UpdateSelectedSegmentLabelmap() else None

    def maskLabelmap(self) -> slicer.vtkOrientedImageData | None:
        return self.__logic.GetMaskLabelmap() if self.__logic.UpdateMaskLabelmap() else None

    def referenceGeometryImage(self) -> slicer.vtkOrientedImageData | None:
        return self.__logic.GetReferenceGeometryImage() if self.__logic.UpdateReferenceGeometryImage() else None

    def saveStateForUndo(self) -> None:
        self.__logic.SaveStateForUndo()

    def modifySelectedSegmentByLabelmap(
        self, modifierLabelmap: slicer.vtkOrientedImageData, modificationMode: int, *arguments: object
    ) -> None:
        """Overloads: (labelmap, mode[, bypassMasking]) and (labelmap, mode, extent[, bypassMasking])."""
        node = self.parameterSetNode()
        segmentation, segment_id = node.GetSegmentationNode(), node.GetSelectedSegmentID() or ""
        self.modifySegmentByLabelmap(segmentation, segment_id, modifierLabelmap, modificationMode, *arguments)

    def modifySegmentByLabelmap(
        self,
        segmentationNode: slicer.vtkMRMLSegmentationNode,
        segmentID: str,
        modifierLabelmap: slicer.vtkOrientedImageData,
        modificationMode: int,
        *arguments: object,
    ) -> None:
        extent = [0, -1, 0, -1, 0, -1]
        if arguments and not isinstance(arguments[0], bool):
            extent, *arguments = arguments
        if len(extent) != 6 or not all(type(value) is int for value in extent):
            raise TypeError(f"The extent must be six int, not {extent!r}.")
        if len(arguments) > 1 or not all(isinstance(value, bool) for value in arguments):
            raise TypeError(f"Unknown arguments {arguments!r} after the extent: only bypassMasking may follow.")
        self.__logic.ModifySegmentByLabelmap(
            segmentationNode,
            segmentID,
            modifierLabelmap,
            _MODES[modificationMode],
            list(extent),
            self.perSegment,
            *(arguments or [False]),
        )

    # The views; viewWidget is a qMRMLSliceWidget or a qMRMLThreeDWidget.

    @staticmethod
    def renderWindow(viewWidget) -> vtk.vtkRenderWindow:
        return viewWidget.viewWidget().renderWindow()

    @staticmethod
    def renderer(viewWidget) -> vtk.vtkRenderer:
        return viewWidget.viewWidget().renderWindow().GetRenderers().GetFirstRenderer()

    @staticmethod
    def viewNode(viewWidget) -> slicer.vtkMRMLAbstractViewNode:
        return viewWidget.mrmlAbstractViewNode()

    @staticmethod
    def scheduleRender(viewWidget) -> None:
        viewWidget.viewWidget().scheduleRender()

    @staticmethod
    def forceRender(viewWidget) -> None:
        viewWidget.viewWidget().forceRender()

    def addActor2D(self, viewWidget, actor: vtk.vtkActor2D) -> None:
        self.renderer(viewWidget).AddViewProp(actor)

    def removeActor2D(self, viewWidget, actor: vtk.vtkActor2D) -> None:
        self.renderer(viewWidget).RemoveViewProp(actor)

    addActor3D, removeActor3D = addActor2D, removeActor2D

    def cursorOff(self, viewWidget) -> None:
        self.__saved_cursor = viewWidget.cursor
        viewWidget.viewWidget().setDefaultViewCursor(QtGui.QCursor(QtCore.Qt.BlankCursor))

    def cursorOn(self, viewWidget) -> None:
        viewWidget.viewWidget().setDefaultViewCursor(self.__saved_cursor)

    @staticmethod
    def rasToXy(ras: QtGui.QVector3D, sliceWidget) -> QtCore.QPoint:
        x, y, _ = sliceWidget.sliceView().convertRASToXYZ(_list(ras))
        return QtCore.QPoint(int(x), int(y))

    @staticmethod
    def xyzToRas(inputXyz: QtGui.QVector3D, sliceWidget) -> QtGui.QVector3D:
        ras = [0.0, 0.0, 0.0]
        _Logic.XyzToRas(_list(inputXyz), ras, sliceWidget.mrmlSliceNode())
        return QtGui.QVector3D(*ras)

    @staticmethod
    def xyToRas(xy: QtCore.QPoint, sliceWidget) -> QtGui.QVector3D:
        return qSlicerSegmentEditorAbstractEffect.xyzToRas(QtGui.QVector3D(xy.x(), xy.y(), 0), sliceWidget)

    @staticmethod
    def xyzToIjk(inputXyz: QtGui.QVector3D, sliceWidget, image, parentTransform=None) -> QtGui.QVector3D:
        ijk = [0, 0, 0]
        _Logic.XyzToIjk(_list(inputXyz), ijk, sliceWidget.mrmlSliceNode(), image, parentTransform)
        return QtGui.QVector3D(*ijk)

    @staticmethod
    def xyToIjk(xy: QtCore.QPoint, sliceWidget, image, parentTransform=None) -> QtGui.QVector3D:
        xyz = QtGui.QVector3D(xy.x(), xy.y(), 0)
        return qSlicerSegmentEditorAbstractEffect.xyzToIjk(xyz, sliceWidget, image, parentTransform)

    @staticmethod
    def sliceSpacing(sliceWidget) -> float:
        return _Logic.GetSliceSpacing(sliceWidget.mrmlSliceNode(), sliceWidget.sliceLogic())

    def segmentationDisplayableInView(self, viewNode: slicer.vtkMRMLAbstractViewNode) -> bool:
        return self.__logic.IsSegmentationDisplayableInView(viewNode)

    # Being chosen.

    def active(self) -> bool:
        return self.__active

    def activate(self) -> None:
        self.__frame.setVisible(True)
        self.__active = True
        self.updateGUIFromMRML()

    def deactivate(self) -> None:
        self.__frame.setVisible(False)
        self.__active = False

    def selectEffect(self, effectName: str) -> None:
        self.__editor.setActiveEffectByName(effectName)

    def confirmCurrentSegmentVisible(self) -> int:
        """Ask whether a hidden segment shall be shown, once for each segment that stays hidden."""
        node = self.parameterSetNode()
        segmentation, segment_id = node.GetSegmentationNode(), node.GetSelectedSegmentID()
        if not segmentation or not segment_id or segment_id == self.__confirmed_invisible:
            return self.ConfirmedWithoutDialog
        display = segmentation.GetDisplayNode()
        if display and display.GetVisibility() and display.GetSegmentVisibility(segment_id):
            return self.ConfirmedWithoutDialog
        answer = QMessageBox.question(
            None,
            "Operate on invisible segment?",
            "The currently selected segment is hidden. Would you like to make it visible?",
            QtWidgets.QMessageBox.Yes | QtWidgets.QMessageBox.No | QtWidgets.QMessageBox.Cancel,
        )
        if answer == QtWidgets.QMessageBox.Cancel:
            return self.NotConfirmed
        if answer == QtWidgets.QMessageBox.Yes:
            display.SetVisibility(True)
            display.SetSegmentVisibility(segment_id, True)
        else:
            self.__confirmed_invisible = segment_id
        return self.ConfirmedWithDialog

    def _attach(self, editor: QtCore.QObject, logic: slicer.vtkSlicerSegmentEditorLogic) -> None:
        self.__editor, self.__logic = editor, logic

    def _adopt(self, options: QtWidgets.QWidget | QtWidgets.QLayout) -> None:
        if isinstance(options, QtWidgets.QWidget):
            options.setParent(self.__frame)


def _list(vector: QtGui.QVector3D) -> list[float]:
    return [vector.x(), vector.y(), vector.z()]
