"""Slicer's slice and 3-D views, drawn offscreen by its own displayable managers."""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from MedSAMSlicerLib.headless.scene import HeadlessScene

_SLICE_MANAGERS = (
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
)
_3D_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLMarkupsDisplayableManager",
)


class _View:
    """A render window with a group of displayable managers, as qMRMLSliceView and qMRMLThreeDView set them up."""

    def __init__(
        self,
        headless: HeadlessScene,
        size: tuple[int, int],
        factory: slicer.vtkMRMLDisplayableManagerFactory,
        managers: tuple[str, ...],
        style: slicer.vtkMRMLViewInteractorStyle,
    ) -> None:
        self._application_logic = headless.application_logic
        self.renderer = vtk.vtkRenderer()
        self.window = vtk.vtkRenderWindow()
        self.window.ShowWindowOff()
        self.window.SetOffScreenRendering(1)
        self.window.SetMultiSamples(8)
        self.window.AddRenderer(self.renderer)
        self.interactor = vtk.vtkRenderWindowInteractor()
        self.interactor.SetRenderWindow(self.window)
        self.interactor.Initialize()
        factory.SetMRMLApplicationLogic(headless.application_logic)
        for manager in managers:
            if not factory.IsDisplayableManagerRegistered(manager):
                factory.RegisterDisplayableManager(manager)
        self._managers = slicer.vtkMRMLDisplayableManagerGroup()
        self._managers.SetRenderer(self.renderer)
        self._managers.Initialize(factory, self.renderer)
        self._style = style
        style.SetDisplayableManagers(self._managers)
        self.interactor.UpdateSize(*size)
        self.window.SetSize(*size)

    def image(self) -> np.ndarray:
        """Draw the view: uint8 (rows, columns, 3), the first row on top."""
        self.interactor.Render()
        grabber = vtk.vtkWindowToImageFilter()
        grabber.SetInput(self.window)
        grabber.ReadFrontBufferOff()
        grabber.Update()
        image = grabber.GetOutput()
        width, height, _ = image.GetDimensions()
        return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)[::-1, :, :3].copy()

    def _close(self, logic: vtk.vtkObject, logics: vtk.vtkCollection, nodes: tuple[slicer.vtkMRMLNode, ...]) -> None:
        scene = logic.GetMRMLScene()
        logic.RemoveAllObservers()
        self._managers.SetMRMLDisplayableNode(None)
        self._style.SetInteractor(None)
        logic.SetMRMLScene(None)
        logics.RemoveItem(logic)
        # Else the next view of this name would find them and show nothing.
        for node in nodes:
            scene.RemoveNode(node)
        self.window.Finalize()


class SliceView(_View):
    """A slice view.

    :param orientation: "Axial", "Sagittal" or "Coronal".
    """

    def __init__(self, headless: HeadlessScene, name: str, orientation: str, size: tuple[int, int]) -> None:
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        super().__init__(headless, size, factory, _SLICE_MANAGERS, slicer.vtkMRMLSliceViewInteractorStyle())
        self.renderer.GetActiveCamera().ParallelProjectionOn()
        # The slice image must be the first prop in the renderer, or overlays blend against black.
        self._mapper = vtk.vtkImageMapper()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        self._actor = vtk.vtkActor2D()
        self._actor.SetMapper(self._mapper)
        self._actor.GetProperty().SetDisplayLocationToBackground()
        self._actor.VisibilityOff()
        self.renderer.AddViewProp(self._actor)
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(headless.application_logic)
        headless.application_logic.GetSliceLogics().AddItem(self.logic)
        self._style.SetSliceLogic(self.logic)
        self.interactor.SetInteractorStyle(vtk.vtkInteractorStyleUser())
        self._style.SetInteractor(self.interactor)
        self.logic.SetMRMLScene(headless.scene)
        self.node = self.logic.AddSliceNode(name)
        self._managers.SetMRMLDisplayableNode(self.node)
        self.node.SetOrientation(orientation)
        self.logic.ResizeSliceNode(*size)
        self._connection = None
        self.logic.AddObserver("ModifiedEvent", self._connect_image)

    def show(self, volume: slicer.vtkMRMLVolumeNode, center: np.ndarray, extent: tuple[float, float]) -> None:
        """Show the slice of a volume through a point.

        :param center: RAS, the middle of the view.
        :param extent: millimeters that must be in view, horizontally and vertically.
        """
        self.logic.GetSliceCompositeNode().SetBackgroundVolumeID(volume.GetID())
        self.logic.FitSliceToBackground()
        width, height = self.window.GetSize()
        scale = max(extent[0] / width, extent[1] / height)
        self.node.SetFieldOfView(width * scale, height * scale, self.node.GetFieldOfView()[2])
        self.node.JumpSliceByCentering(*center)

    def close(self) -> None:
        """Release the window and leave the scene."""
        nodes = (self.node, self.logic.GetSliceCompositeNode())
        self._close(self.logic, self._application_logic.GetSliceLogics(), nodes)

    def _connect_image(self, *_: object) -> None:
        connection = self.logic.GetImageDataConnection()
        if connection is not self._connection:
            self._connection = connection
            self._mapper.SetInputConnection(connection)
            self._actor.SetVisibility(bool(connection))


class ThreeDView(_View):
    """A 3-D view."""

    def __init__(self, headless: HeadlessScene, name: str, size: tuple[int, int]) -> None:
        factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
        super().__init__(headless, size, factory, _3D_MANAGERS, slicer.vtkMRMLThreeDViewInteractorStyle())
        self._style.SetInteractor(self.interactor)
        self.interactor.SetInteractorStyle(vtk.vtkInteractorStyle3D())
        self.logic = slicer.vtkMRMLViewLogic()
        self.logic.SetMRMLApplicationLogic(headless.application_logic)
        headless.application_logic.GetViewLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(headless.scene)
        self.node = self.logic.AddViewNode(name)
        self._managers.SetMRMLDisplayableNode(self.node)
        self.node.SetBoxVisible(False)
        self.node.SetAxisLabelsVisible(False)

    def look_from_front(self, lower: np.ndarray, upper: np.ndarray) -> None:
        """Look at the box between two RAS corners from the front, a little from above and the side."""
        camera = self.renderer.GetActiveCamera()
        center = (lower + upper) / 2
        camera.SetFocalPoint(*center)
        camera.SetPosition(*(center + np.array([-150.0, 450.0, 160.0])))
        camera.SetViewUp(0, 0, 1)
        self.renderer.ResetCamera(lower[0], upper[0], lower[1], upper[1], lower[2], upper[2])
        camera.Zoom(1.15)
        self.renderer.ResetCameraClippingRange()

    def name_segments(self, segmentation: slicer.vtkMRMLSegmentationNode) -> None:
        """List the segments' names in their colors, in the upper left corner."""
        content = segmentation.GetSegmentation()
        height = self.window.GetSize()[1]
        for line, segment_id in enumerate(content.GetSegmentIDs()):
            segment = content.GetSegment(segment_id)
            text = vtk.vtkTextActor()
            text.SetInput(segment.GetName())
            style = text.GetTextProperty()
            style.SetColor(*segment.GetColor())
            style.SetFontSize(16)
            style.BoldOn()
            style.ShadowOn()
            text.SetPosition(12, height - 28 - 22 * line)
            self.renderer.AddViewProp(text)

    def close(self) -> None:
        """Release the window and leave the scene."""
        self._close(self.logic, self._application_logic.GetViewLogics(), (self.node,))
