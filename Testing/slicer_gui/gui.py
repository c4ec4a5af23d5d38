"""The application of one test: what the fixture ``gui`` gives."""

from __future__ import annotations

import gc
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from PySide6 import QtCore, QtGui, QtTest, QtWidgets

from MedSAMSlicerLib.headless.scene import HeadlessScene
from slicer_gui import abstract_effect, application, i18n, parameter_node, scripted_effect, scripted_module
from slicer_gui.ctk_widgets import ctk_module
from slicer_gui.dialogs import Dialogs, dialogs
from slicer_gui.extensions import Packages, PyTorchExtension, SampleDataLogic, qSlicerExtensionsManagerModel
from slicer_gui.mouse import Mouse
from slicer_gui.mrml_widgets import WIDGETS as MRML_WIDGETS
from slicer_gui.observers import forget_all
from slicer_gui.qt_module import keep_settings_in, qt_module
from slicer_gui.segment_editor import qMRMLSegmentEditorWidget
from slicer_gui.ui_loader import QUiLoader
from slicer_gui.views import qMRMLSliceWidget, qMRMLThreeDWidget, qSlicerLayoutManager

# What the offscreen platform says to each window.
_HARMLESS = ("This plugin does not support propagateSizeHints()", "This plugin does not support raise()")
# Qt allows one application in a process.
_application: application.qSlicerApplication | None = None


class Gui:
    """A Slicer without a screen: scene, views, modules, and what a user does with them.

    ``dialogs`` answers dialogs and tells what they said, ``packages`` are the Python packages of this Slicer.
    ``extensions`` is the manager of its extensions.
    """

    def __init__(self, settings_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        global _application
        self._monkeypatch = monkeypatch
        self._errors: list[str] = []
        self.dialogs: Dialogs = dialogs
        self.packages = Packages()
        self._collect_errors()
        keep_settings_in(settings_file)
        self.qt, self.ctk = qt_module(), ctk_module()
        self.qt.QUiLoader = lambda: QUiLoader(self.qt)
        if _application is None:
            _application = application.qSlicerApplication()
        self.app = _application
        self.headless = HeadlessScene()
        # The application's own node, in which the views say where the mouse is.
        crosshair = slicer.vtkMRMLCrosshairNode()
        crosshair.SetCrosshairName("default")
        crosshair.SetSingletonTag("default")
        self.headless.scene.AddNode(crosshair)
        self._editors: list[qMRMLSegmentEditorWidget] = []
        self._install()
        # (Slicer's own looks through all top-level windows, of which earlier tests have left dead ones.)
        monkeypatch.setattr(slicer.util, "mainWindow", lambda: self.main_window)
        self.layout_manager = qSlicerLayoutManager(self.headless)
        self.module_manager = application.qSlicerModuleManager()
        self.main_window = application.qSlicerMainWindow()
        self.extensions = qSlicerExtensionsManagerModel()
        self.app._attach(
            headless=self.headless,
            layout=self.layout_manager,
            modules=self.module_manager,
            window=self.main_window,
            extensions=self.extensions,
            files=application.qSlicerCoreIOManager(),
        )
        logics = self.headless.application_logic
        logics.SetModuleLogic("Colors", logics.GetColorLogic())
        self._cameras = slicer.vtkSlicerCamerasModuleLogic()
        self._cameras.SetMRMLScene(self.scene)
        logics.SetModuleLogic("Cameras", self._cameras)
        for name in ("Cameras", "Colors", "Markups", "Segmentations", "Volumes"):
            logic = logics.GetModuleLogic(name)
            self.module_manager._add(name, application.qSlicerLoadableModule(name, logic))

    @property
    def scene(self) -> slicer.vtkMRMLScene:
        """The scene, ``slicer.mrmlScene``."""
        return self.headless.scene

    def load_module(self, path: Path) -> types.ModuleType:
        """Load a scripted module as Slicer does when it starts, and return its Python module."""
        return self.module_manager._load(path)

    def start_up(self) -> None:
        """Say that the start is completed, as Slicer does when all modules are loaded."""
        self.app.startupCompleted.emit()
        self.pump()

    def open_module(self, name: str) -> object:
        """Open a loaded module as a user does from the menu, and return its Python widget."""
        representation = self.module_manager.module(name).widgetRepresentation()
        representation.show()
        representation.enter()
        self.pump()
        return representation.self()

    def leave_module(self, name: str) -> None:
        """Go to another module."""
        self.module_manager.module(name).widgetRepresentation().exit()
        self.pump()

    def segment_editor(
        self, segmentation: slicer.vtkMRMLSegmentationNode, volume: slicer.vtkMRMLScalarVolumeNode
    ) -> qMRMLSegmentEditorWidget:
        """Open a segment editor with the registered effects, as the Segment Editor module does."""
        editor = qMRMLSegmentEditorWidget()
        editor.maximumNumberOfUndoStates = 10
        self._editors.append(editor)
        self._monkeypatch.setattr(
            slicer.modules, "SegmentEditorWidget", types.SimpleNamespace(editor=editor), raising=False
        )
        editor.setMRMLScene(self.scene)
        node = self.scene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.vtkMRMLSegmentEditorNode()
            node.SetSingletonTag("SegmentEditor")
            node = self.scene.AddNode(node)
        editor.setMRMLSegmentEditorNode(node)
        editor.setSegmentationNode(segmentation)
        editor.setSourceVolumeNode(volume)
        return editor

    def add_pytorch_extension(self, **state: object) -> PyTorchExtension:
        """Install the PyTorch extension; without it ``import PyTorchUtils`` fails. See `PyTorchExtension`."""
        extension = PyTorchExtension(**state)
        self._monkeypatch.setitem(sys.modules, "PyTorchUtils", extension.module())
        return extension

    def mouse(self, view: str = "Red") -> Mouse:
        """Take the mouse into a view: "Red", "Green", "Yellow" or "3D"."""
        widget = self.layout_manager.threeDWidget(0) if view == "3D" else self.layout_manager.sliceWidget(view)
        return Mouse(widget)

    def picture(self, view: str = "Red") -> np.ndarray:
        """Draw a view: uint8 (rows, columns, 3), the first row on top."""
        return self.mouse(view).widget._picture()

    def shortcut(self, widget: QtWidgets.QWidget, keys: str) -> None:
        """Type a key combination such as "Ctrl+Z" while a widget has the focus."""
        widget.window().activateWindow()
        widget.setFocus()
        self.app.processEvents()
        QtTest.QTest.keySequence(widget, QtGui.QKeySequence(keys))
        # As who lets go of Shift: Qt takes it for pressed until a key says otherwise, and a row that is then selected
        # in a table for one that is added.
        QtTest.QTest.keyRelease(widget, QtCore.Qt.Key.Key_Shift)
        self.pump()

    def pump(self, seconds: float = 0.0, *, until: Callable[[], bool] | None = None, at_most: float = 20.0) -> None:
        """Run Qt's event loop, and fail on what went wrong in slots, timers, observers and threads.

        :param seconds: for how long; once through all waiting events if 0.
        :param until: stop when it returns True; AssertionError if it does not within ``at_most`` seconds.
        """
        end = time.monotonic() + (at_most if until else seconds)
        while True:
            self._run_events()
            self.check()
            late = time.monotonic() >= end
            if until and until():
                return
            if late and until:
                raise AssertionError(f"Not within {at_most} s: {until}")
            if late:
                return
            time.sleep(0.001)

    def check(self) -> None:
        """Raise AssertionError if anything went wrong where PythonQt would only print it."""
        errors = self.take_errors()
        assert not errors, "\n".join(errors)

    def take_errors(self) -> list[str]:
        """Return what went wrong since the last call, for tests that expect some."""
        errors, self._errors[:] = list(self._errors), []
        return errors

    def close(self) -> None:
        """End Slicer, and check that nothing is left behind."""
        for editor in self._editors:
            editor._close()
        self.module_manager._unload_all()
        scripted_effect.qSlicerSegmentEditorEffectFactory.instance()._forget()
        self._run_events()
        forget_all()
        self.layout_manager._close()
        # Else the next test finds it, until Python happens to collect it.
        self.main_window.delete()
        # What is left of Qt and VTK dies here and now, not in a later test's thread.
        gc.collect()
        QtCore.qInstallMessageHandler(None)
        vtk.vtkOutputWindow.SetInstance(self._vtk_window_before)
        left_over = self.dialogs.left_over()
        self.check()
        assert not left_over, left_over

    def _run_events(self) -> None:
        self.app.processEvents()
        self.app.sendPostedEvents(None, QtCore.QEvent.DeferredDelete)

    def _install(self) -> None:
        modules = types.ModuleType("slicer.modules")
        modules.sampleDataSources, modules.sampleDataSourceCategories = {}, {}
        sample_data = types.ModuleType("SampleData")
        sample_data.SampleDataLogic = SampleDataLogic
        for name, module in {
            "qt": self.qt,
            "ctk": self.ctk,
            "SampleData": sample_data,
            "SegmentEditorEffects": abstract_effect,
            "qSlicerSegmentationsEditorEffectsPythonQt": scripted_effect,
            "slicer.ScriptedLoadableModule": scripted_module,
            "slicer.i18n": i18n,
            "slicer.modules": modules,
            "slicer.packaging": self.packages.module(),
            "slicer.parameterNodeWrapper": parameter_node,
        }.items():
            self._monkeypatch.setitem(sys.modules, name, module)
            package, _, attribute = name.rpartition(".")
            if package:
                self._monkeypatch.setattr(slicer, attribute, module, raising=False)
        for name, value in {
            **MRML_WIDGETS,
            "app": self.app,
            "mrmlScene": self.headless.scene,
            "qMRMLSegmentEditorWidget": qMRMLSegmentEditorWidget,
            "qMRMLSliceWidget": qMRMLSliceWidget,
            "qMRMLThreeDWidget": qMRMLThreeDWidget,
            "qSlicerSegmentEditorAbstractEffect": scripted_effect.qSlicerSegmentEditorAbstractEffect,
            "qSlicerSegmentEditorEffectFactory": scripted_effect.qSlicerSegmentEditorEffectFactory,
            "qSlicerScriptedLoadableModule": application.qSlicerScriptedLoadableModule,
            "qSlicerScriptedLoadableModuleWidget": application.qSlicerScriptedLoadableModuleWidget,
        }.items():
            self._monkeypatch.setattr(slicer, name, value, raising=False)

    def _collect_errors(self) -> None:
        def remember(kind: type, error: BaseException, trace: types.TracebackType | None) -> None:
            self._errors.append("".join(traceback.format_exception(kind, error, trace)))

        self._monkeypatch.setattr(sys, "excepthook", remember)
        self._monkeypatch.setattr(threading, "excepthook", lambda failure: remember(*failure[:3]))

        def hear(kind: QtCore.QtMsgType, _context: QtCore.QMessageLogContext, text: str) -> None:
            if kind != QtCore.QtMsgType.QtDebugMsg and text not in _HARMLESS:
                self._errors.append(f"Qt: {text}")

        QtCore.qInstallMessageHandler(hear)
        window = vtk.vtkStringOutputWindow()

        @vtk.calldata_type(vtk.VTK_STRING)
        def note(_window: vtk.vtkObject, _event: str, text: str) -> None:
            self._errors.append(f"VTK: {text}")

        window.AddObserver("ErrorEvent", note)
        self._vtk_window_before = vtk.vtkOutputWindow.GetInstance()
        vtk.vtkOutputWindow.SetInstance(window)
