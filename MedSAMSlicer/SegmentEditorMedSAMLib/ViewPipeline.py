"""What the effect draws in one slice view: the box, and the proposed mask where the view cuts it."""

from __future__ import annotations

import numpy as np
import vtk

_BOX_COLOR = (1.0, 1.0, 0.0)
_FILL_OPACITY = 0.2


class ViewPipeline:
    """The actors of one view; they belong to it until `remove`.

    :param scriptedEffect: of Segment Editor.
    :param sliceWidget: the view, a qMRMLSliceWidget.
    """

    def __init__(self, scriptedEffect, sliceWidget):
        self._effect = scriptedEffect
        self._widget = sliceWidget
        # The box's corners, (4, 3) in RAS: it stays in its place while the view moves.
        self._corners = None
        self._proposal = None
        self._boxPoints = vtk.vtkPoints()
        self._boxPoints.SetNumberOfPoints(4)
        self._boxActor = _lineActor()
        self._boxActor.GetMapper().SetInputData(_closedLine(self._boxPoints))
        self._boxActor.GetProperty().SetColor(*_BOX_COLOR)

        self._toVoxel = vtk.vtkTransform()
        self._reslice = vtk.vtkImageReslice()
        self._reslice.SetResliceTransform(self._toVoxel)
        self._reslice.SetInterpolationModeToNearestNeighbor()
        self._reslice.SetOutputOrigin(0, 0, 0)
        self._reslice.SetOutputSpacing(1, 1, 1)
        self._colors = vtk.vtkLookupTable()
        self._colors.SetNumberOfTableValues(2)
        self._colors.SetTableRange(0, 1)
        self._colors.SetTableValue(0, 0, 0, 0, 0)
        colored = vtk.vtkImageMapToColors()
        colored.SetLookupTable(self._colors)
        colored.SetOutputFormatToRGBA()
        colored.SetInputConnection(self._reslice.GetOutputPort())
        fillMapper = vtk.vtkImageMapper()
        fillMapper.SetColorWindow(255)
        fillMapper.SetColorLevel(127.5)
        fillMapper.SetInputConnection(colored.GetOutputPort())
        self._fillActor = vtk.vtkActor2D()
        self._fillActor.SetMapper(fillMapper)
        outline = vtk.vtkFlyingEdges2D()
        outline.SetInputConnection(self._reslice.GetOutputPort())
        outline.SetValue(0, 0.5)
        outline.ComputeScalarsOff()
        self._outlineActor = _lineActor()
        self._outlineActor.GetMapper().SetInputConnection(outline.GetOutputPort())

        self._actors = (self._fillActor, self._outlineActor, self._boxActor)
        for actor in self._actors:
            actor.VisibilityOff()
            scriptedEffect.addActor2D(sliceWidget, actor)

    def showBox(self, first, second):
        """Draw the box between two opposite corners, (x, y) in the view's pixels."""
        (x0, y0), (x1, y1) = first, second
        corners = np.array([[x0, y0, 0, 1], [x1, y0, 0, 1], [x1, y1, 0, 1], [x0, y1, 0, 1]], dtype=float)
        self._corners = (corners @ self.xyToRas().T)[:, :3]
        self.update()

    def hideBox(self):
        """Take the box away."""
        self._corners = None
        self.update()

    def showProposal(self, proposal):
        """Draw the mask of a Proposal; None for none."""
        if proposal is not self._proposal:
            self._proposal = proposal
            self._reslice.SetInputData(None if proposal is None else proposal.image)
            if proposal is not None:
                red, green, blue = proposal.target.color()
                self._colors.SetTableValue(1, red, green, blue, _FILL_OPACITY)
                self._outlineActor.GetProperty().SetColor(red, green, blue)
        self.update()

    def update(self):
        """Draw all at the place where the view is now."""
        self._boxActor.SetVisibility(self._placeBox())
        for actor in (self._fillActor, self._outlineActor):
            actor.SetVisibility(self._proposal is not None)
        if self._proposal is not None:
            from MedSAMSlicerLib.mrml.transforms import matrix_from_numpy

            self._toVoxel.SetMatrix(matrix_from_numpy(self._proposal.target.rasToVoxel @ self.xyToRas()))
            width, height, _depth = self._sliceNode().GetDimensions()
            self._reslice.SetOutputExtent(0, width - 1, 0, height - 1, 0, 0)
        self._effect.scheduleRender(self._widget)

    def remove(self):
        """Take all actors out of the view."""
        for actor in self._actors:
            self._effect.removeActor2D(self._widget, actor)

    def xyToRas(self):
        """Return the matrix (4, 4) from the view's pixels to RAS."""
        from MedSAMSlicerLib.mrml.transforms import numpy_from_matrix

        return numpy_from_matrix(self._sliceNode().GetXYToRAS())

    def _sliceNode(self):
        return self._widget.sliceLogic().GetSliceNode()

    def _placeBox(self):
        """Move the box to where the view shows it; return whether it does."""
        if self._corners is None:
            return False
        points = np.c_[self._corners, np.ones(4)] @ np.linalg.inv(self.xyToRas()).T
        for number, (x, y, _z, _one) in enumerate(points):
            self._boxPoints.SetPoint(number, x, y, 0)
        self._boxPoints.Modified()
        # In slices of the view.
        return bool((np.abs(points[:, 2]) < 0.5).all())


def _closedLine(points):
    """Join points to a ring; it moves with them."""
    lines = vtk.vtkCellArray()
    lines.InsertNextCell(points.GetNumberOfPoints() + 1)
    for number in (*range(points.GetNumberOfPoints()), 0):
        lines.InsertCellPoint(number)
    polyData = vtk.vtkPolyData()
    polyData.SetPoints(points)
    polyData.SetLines(lines)
    return polyData


def _lineActor():
    actor = vtk.vtkActor2D()
    actor.SetMapper(vtk.vtkPolyDataMapper2D())
    actor.GetProperty().SetLineWidth(2)
    return actor
