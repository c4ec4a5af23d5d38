"""Stand-ins for the application: ``slicer.app``, its module manager, main window, and scripted modules.

Headers: Slicer Base/QTCore/qSlicerCoreApplication.h, qSlicerModuleManager.h, qSlicerAbstractCoreModule.h,
Base/QTCore/qSlicerCoreIOManager.h, Base/QTGUI/qSlicerApplication.h, qSlicerScriptedLoadableModule.h,
qSlicerScriptedLoadableModuleWidget.h, qSlicerAbstractModuleWidget.h, qSlicerModuleSelectorToolBar.h,
Base/QTApp/qSlicerMainWindow.h.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from pathlib import Path

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Signal

from slicer_gui.extensions import qSlicerExtensionsManagerModel
from slicer_gui.mrml_widgets import qMRMLWidget
from slicer_gui.pythonqt import checked_property, held_property, pythonqt, stand_in
from slicer_gui.qt_module import QMessageBox, QSettings


@stand_in
class qSlicerModuleSelectorToolBar(pythonqt(QtWidgets.QToolBar)):
    """Where the user chooses a module."""

    def __init__(self) -> None:
        super().__init__()
        self.__selected = ""

    def selectModule(self, moduleName: str) -> None:
        if moduleName == self.__selected:
            return
        manager = slicer.app.moduleManager()
        if manager.module(self.__selected) is not None:
            manager.module(self.__selected).widgetRepresentation().exit()
        self.__selected = moduleName
        if moduleName:
            manager.module(moduleName).widgetRepresentation().enter()


@stand_in
class qSlicerMainWindow(pythonqt(QtWidgets.QMainWindow)):
    """The main window: its status bar and module selector, and what it asks when it is closed (qSlicerMainWindow.cxx).

    Slicer ends a moment after its window has closed; here the test does that.
    """

    def __init__(self) -> None:
        super().__init__()
        self.__closing = False
        self.setObjectName("qSlicerMainWindow")
        self.setStatusBar(pythonqt(QtWidgets.QStatusBar)())
        self.__selector = qSlicerModuleSelectorToolBar()

    def moduleSelector(self) -> qSlicerModuleSelectorToolBar:
        return self.__selector

    def closeEvent(self, event: QtGui.QCloseEvent) -> None:
        if self.__closing:
            return
        self.__closing = True
        if self.__confirmed():
            self.__selector.selectModule("")
            event.accept()
        else:
            event.ignore()
            self.__closing = False

    def __confirmed(self) -> bool:
        modified = [
            slicer.mrmlScene.GetStorableNodesModifiedSinceRead(vtk.vtkCollection()),
            slicer.mrmlScene.GetModifiedSinceRead(vtk.vtkCollection()),
        ]
        if not any(modified):
            # Of CTK, ctkMessageBox::confirmExit.
            buttons = QtWidgets.QMessageBox.Ok | QtWidgets.QMessageBox.Cancel
            return QMessageBox.question(self, "", "Do you want to exit?", buttons) == QtWidgets.QMessageBox.Ok
        box = QMessageBox(self)
        box.setIcon(QtWidgets.QMessageBox.Warning)
        box.windowTitle = "Save before exit?"
        box.text = "The scene has been modified. Do you want to save it before exit?"
        box.addButton("Save", QtWidgets.QMessageBox.AcceptRole)
        leave = box.addButton("Exit (discard modifications)", QtWidgets.QMessageBox.DestructiveRole)
        stay = box.addButton("Cancel exit", QtWidgets.QMessageBox.RejectRole)
        box.exec_()
        if box.clickedButton() not in (leave, stay):
            raise NotImplementedError("The harness can't save scenes.")
        return box.clickedButton() is leave


class qSlicerLoadableModule:
    """A module written in C++."""

    __slots__ = ("_logic", "name")

    def __init__(self, name: str, logic: slicer.vtkMRMLAbstractLogic) -> None:
        self.name, self._logic = name, logic

    def logic(self) -> slicer.vtkMRMLAbstractLogic:
        return self._logic


@stand_in
class qSlicerScriptedLoadableModuleWidget(qMRMLWidget):
    """The widget that holds a scripted module's Python widget."""

    isEntered = checked_property(bool, lambda self: self.__entered)

    def __init__(self, path: str) -> None:
        super().__init__()
        self.__path, self.__entered, self.__self = path, False, None
        self.setLayout(pythonqt(QtWidgets.QVBoxLayout)())
        self.setMRMLScene(slicer.mrmlScene)

    def self(self) -> object:
        return self.__self

    def setup(self) -> None:
        """Create the Python widget and let it build its controls."""
        name = Path(self.__path).stem
        self.__self = getattr(sys.modules[name], f"{name}Widget")(self)
        setattr(slicer.modules, f"{name}Widget", self.__self)
        self.__self.setup()

    reload = setup

    def enter(self) -> None:
        self.__entered = True
        self._call("enter")

    def exit(self) -> None:
        self.__entered = False
        self._call("exit")

    def _call(self, method: str) -> None:
        # Each of them may be left out.
        if hasattr(self.__self, method):
            getattr(self.__self, method)()


@stand_in
class qSlicerScriptedLoadableModule(pythonqt(QtCore.QObject)):
    """A scripted module: what its Python class gets as ``parent``."""

    title = held_property(str, "")
    categories = held_property("QStringList", [])
    contributors = held_property("QStringList", [])
    dependencies = held_property("QStringList", [])
    associatedNodeTypes = held_property("QStringList", [])
    helpText = held_property(str, "")
    acknowledgementText = held_property(str, "")
    hidden = held_property(bool, False)
    index = held_property(int, -1)
    path = checked_property(str, lambda self: self.__path)

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.__path, self.__widget, self.__icon = str(path), None, QtGui.QIcon()
        self.setObjectName(path.stem)

    @property
    def icon(self) -> QtGui.QIcon:
        return self.__icon

    @icon.setter
    def icon(self, icon: QtGui.QIcon) -> None:
        self.__icon = icon

    def widgetRepresentation(self) -> qSlicerScriptedLoadableModuleWidget:
        if self.__widget is None:
            self.__widget = qSlicerScriptedLoadableModuleWidget(self.__path)
            self.__widget.setup()
        return self.__widget

    def createNewWidgetRepresentation(self) -> qSlicerScriptedLoadableModuleWidget:
        widget = qSlicerScriptedLoadableModuleWidget(self.__path)
        widget.setup()
        return widget


@stand_in
class qSlicerModuleManager(pythonqt(QtCore.QObject)):
    """Knows the modules by name."""

    moduleLoaded = Signal(str)
    moduleAboutToBeUnloaded = Signal(str)
    moduleUnloaded = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.__modules: dict[str, object] = {}

    def module(self, name: str) -> object | None:
        return self.__modules.get(name)

    def modulesNames(self) -> list[str]:
        return list(self.__modules)

    def _add(self, name: str, module: object) -> None:
        self.__modules[name] = module
        setattr(slicer.modules, name.lower(), module)
        self.moduleLoaded.emit(name)

    def _load(self, path: Path) -> types.ModuleType:
        """Load a scripted module as Slicer does at its start."""
        name = path.stem
        spec = importlib.util.spec_from_file_location(name, path)
        source = importlib.util.module_from_spec(spec)
        sys.modules[name] = source
        spec.loader.exec_module(source)
        parent = qSlicerScriptedLoadableModule(path)
        self._add(name, parent)
        setattr(slicer.modules, f"{name}Instance", getattr(source, name)(parent))
        return source

    def _unload_all(self) -> None:
        """Unload the scripted modules, as when Slicer exits."""
        for name, module in self.__modules.items():
            if isinstance(module, qSlicerScriptedLoadableModule):
                self.moduleAboutToBeUnloaded.emit(name)
                sys.modules.pop(name, None)
        self.__modules.clear()


@stand_in
class qSlicerCoreIOManager(pythonqt(QtCore.QObject)):
    """Loads volumes, as Modules/Loadable/Volumes/qSlicerVolumesReader.cxx does; other files it refuses."""

    def loadNodes(
        self,
        fileType: str,
        parameters: dict,
        loadedNodes: vtk.vtkCollection,
        userMessages: slicer.vtkMRMLMessageCollection,
    ) -> bool:
        if fileType != "VolumeFile" or parameters.keys() - {"fileName", "name", "show"}:
            raise NotImplementedError(f"The harness can't load a {fileType} with {sorted(parameters)}.")
        path = Path(parameters["fileName"])
        node = slicer.modules.volumes.logic().AddArchetypeVolume(str(path), parameters.get("name", path.stem), 0)
        if node is None:
            return False
        loadedNodes.AddItem(node)
        if parameters.get("show", True):
            logic = slicer.app.applicationLogic()
            logic.GetSelectionNode().SetActiveVolumeID(node.GetID())
            logic.PropagateVolumeSelection()
        return True


@stand_in
class qSlicerApplication(pythonqt(QtWidgets.QApplication)):
    """``slicer.app``. A test's scene, views and modules are attached to it."""

    startupCompleted = Signal()
    majorVersion = checked_property(int, lambda self: 5)
    minorVersion = checked_property(int, lambda self: 12)
    temporaryPath = checked_property(str, lambda self: QtCore.QDir.tempPath())
    # As the launcher has set it.
    slicerHome = checked_property(str, lambda self: os.environ["SLICER_HOME"])

    def __init__(self) -> None:
        super().__init__(["Slicer"])
        self.applicationName = "Slicer"
        self.__parts: types.SimpleNamespace | None = None

    def mrmlScene(self) -> slicer.vtkMRMLScene:
        return slicer.mrmlScene

    def applicationLogic(self) -> slicer.vtkSlicerApplicationLogic:
        return self.__parts.headless.application_logic

    def layoutManager(self) -> QtCore.QObject:
        return self.__parts.layout

    def moduleManager(self) -> qSlicerModuleManager:
        return self.__parts.modules

    def mainWindow(self) -> qSlicerMainWindow:
        return self.__parts.window

    def extensionsManagerModel(self) -> qSlicerExtensionsManagerModel:
        return self.__parts.extensions

    def coreIOManager(self) -> qSlicerCoreIOManager:
        return self.__parts.files

    def testingEnabled(self) -> bool:
        """False: what the user would see is shown, and tests look at it."""
        return False

    def settings(self) -> QSettings:
        return QSettings()

    userSettings = settings

    def pauseRender(self) -> None:
        """Nothing is on a screen."""

    resumeRender = pauseRender

    def _attach(self, **parts: object) -> None:
        self.__parts = types.SimpleNamespace(**parts)
        # Modules of an earlier test don't hear of this one's start.
        if self.receivers(QtCore.SIGNAL("startupCompleted()")):
            self.startupCompleted.disconnect()
