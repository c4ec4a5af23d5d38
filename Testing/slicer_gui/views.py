"""Stand-ins for the view widgets of Slicer's layout, around the real offscreen views.

Headers: Slicer Libs/MRML/Widgets/qMRMLSliceWidget.h, qMRMLSliceView.h, qMRMLThreeDWidget.h, qMRMLThreeDView.h,
qMRMLLayoutManager.h.
"""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Signal

from MedSAMSlicerLib.headless.scene import HeadlessScene
from MedSAMSlicerLib.headless.views import SliceView, ThreeDView
from slicer_gui.mrml_widgets import qMRMLWidget
from slicer_gui.pythonqt import checked_property, held_property, pythonqt, stand_in

_SLICE_VIEWS = {"Red": "Axial", "Green": "Coronal", "Yellow": "Sagittal"}
_SIZE = (300, 300)


class _ViewWidget(pythonqt(QtWidgets.QWidget)):
    """What qMRMLSliceView and qMRMLThreeDView have in common."""

    def __init__(self, headless_view: SliceView | ThreeDView) -> None:
        super().__init__()
        self.__view = headless_view
        self.__cursor = self.__default_cursor = QtGui.QCursor(QtCore.Qt.ArrowCursor)

    def renderWindow(self) -> vtk.vtkRenderWindow:
        return self.__view.window

    def interactor(self) -> vtk.vtkRenderWindowInteractor:
        return self.__view.interactor

    def interactorStyle(self) -> slicer.vtkMRMLViewInteractorStyle:
        return self.__view._style

    interactorObserver = interactorStyle

    def scheduleRender(self) -> None:
        """Nothing is on a screen; a picture is drawn when a test asks for it."""

    def forceRender(self) -> None:
        self.__view.interactor.Render()

    def setDefaultViewCursor(self, cursor: QtGui.QCursor) -> None:
        self.__default_cursor = self.__cursor = cursor
        self.setCursor(cursor)

    def setViewCursor(self, cursor: QtGui.QCursor) -> None:
        self.__cursor = cursor
        self.setCursor(cursor)

    def unsetViewCursor(self) -> None:
        self.setViewCursor(self.__default_cursor)


@stand_in
class qMRMLSliceView(_ViewWidget):
    """The slice view proper."""

    def __init__(self, headless_view: SliceView) -> None:
        super().__init__(headless_view)
        self.__node = headless_view.node

    def mrmlSliceNode(self) -> slicer.vtkMRMLSliceNode:
        return self.__node

    def convertXYZToRAS(self, xyz: list[float]) -> list[float]:
        return list(self.__node.GetXYToRAS().MultiplyPoint([*xyz, 1.0])[:3])

    def convertRASToXYZ(self, ras: list[float]) -> list[float]:
        inverse = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(self.__node.GetXYToRAS(), inverse)
        return list(inverse.MultiplyPoint([*ras, 1.0])[:3])


@stand_in
class qMRMLSliceWidget(qMRMLWidget):
    """A slice view with its controller."""

    def __init__(self, headless_view: SliceView, name: str) -> None:
        super().__init__()
        self.__headless, self.__name = headless_view, name
        self.__view = qMRMLSliceView(headless_view)
        self.setMRMLScene(headless_view.node.GetScene())

    sliceViewName = checked_property(str, lambda self: self.__name)

    def sliceLogic(self) -> slicer.vtkMRMLSliceLogic:
        return self.__headless.logic

    logic = sliceLogic

    def sliceView(self) -> qMRMLSliceView:
        return self.__view

    viewWidget = sliceView

    def mrmlSliceNode(self) -> slicer.vtkMRMLSliceNode:
        return self.__headless.node

    mrmlAbstractViewNode = mrmlSliceNode

    def mrmlSliceCompositeNode(self) -> slicer.vtkMRMLSliceCompositeNode:
        return self.__headless.logic.GetSliceCompositeNode()

    def interactorStyle(self) -> slicer.vtkMRMLSliceViewInteractorStyle:
        return self.__view.interactorStyle()

    def fitSliceToBackground(self) -> None:
        self.__headless.logic.FitSliceToBackground()

    def _picture(self) -> np.ndarray:
        return self.__headless.image()

    def _close(self) -> None:
        self.__headless.close()


@stand_in
class qMRMLThreeDView(_ViewWidget):
    """The 3-D view proper."""

    def __init__(self, headless_view: ThreeDView) -> None:
        super().__init__(headless_view)
        self.__headless = headless_view

    def mrmlViewNode(self) -> slicer.vtkMRMLViewNode:
        return self.__headless.node

    def resetFocalPoint(self) -> None:
        self.__headless.renderer.ResetCamera()

    def resetCamera(self) -> None:
        self.__headless.renderer.ResetCamera()


@stand_in
class qMRMLThreeDWidget(qMRMLWidget):
    """A 3-D view with its controller."""

    def __init__(self, headless_view: ThreeDView) -> None:
        super().__init__()
        self.__headless = headless_view
        self.__view = qMRMLThreeDView(headless_view)
        self.setMRMLScene(headless_view.node.GetScene())

    def threeDView(self) -> qMRMLThreeDView:
        return self.__view

    viewWidget = threeDView

    def mrmlViewNode(self) -> slicer.vtkMRMLViewNode:
        return self.__headless.node

    mrmlAbstractViewNode = mrmlViewNode

    def viewLogic(self) -> slicer.vtkMRMLViewLogic:
        return self.__headless.logic

    logic = viewLogic

    def _picture(self) -> np.ndarray:
        return self.__headless.image()

    def _close(self) -> None:
        self.__headless.close()


@stand_in
class qSlicerLayoutManager(pythonqt(QtCore.QObject)):
    """The layout "Four-Up": Red, Green, Yellow and one 3-D view."""

    layoutChanged = Signal(int)
    layout = held_property(int, slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView, "_tell")
    threeDViewCount = checked_property(int, lambda self: 1)

    def __init__(self, headless: HeadlessScene) -> None:
        super().__init__()
        self.__slices = {
            name: qMRMLSliceWidget(SliceView(headless, name, orientation, _SIZE), name)
            for name, orientation in _SLICE_VIEWS.items()
        }
        self.__three_d = qMRMLThreeDWidget(ThreeDView(headless, "1", _SIZE))

    def sliceViewNames(self) -> list[str]:
        return list(self.__slices)

    def sliceWidget(self, name: str) -> qMRMLSliceWidget:
        return self.__slices[name]

    def threeDWidget(self, index: int) -> qMRMLThreeDWidget:
        if index != 0:
            raise IndexError(f"The layout has one 3-D view, not a view {index!r}.")
        return self.__three_d

    def mrmlSliceLogics(self) -> vtk.vtkCollection:
        return slicer.app.applicationLogic().GetSliceLogics()

    def setLayout(self, layout: int) -> None:
        self.layout = layout

    def resetSliceViews(self) -> None:
        for widget in self.__slices.values():
            widget.fitSliceToBackground()

    def resetThreeDViews(self) -> None:
        self.__three_d.threeDView().resetFocalPoint()

    def _tell(self) -> None:
        self.layoutChanged.emit(self.layout)

    def _close(self) -> None:
        """Release the render windows."""
        for widget in (*self.__slices.values(), self.__three_d):
            widget._close()
