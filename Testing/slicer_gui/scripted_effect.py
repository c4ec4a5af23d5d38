"""Effects written in Python as C++ sees them, and the factory: ``qSlicerSegmentationsEditorEffectsPythonQt``.

Headers: Slicer Modules/Loadable/Segmentations/EditorEffects/qSlicerSegmentEditorScriptedEffect.h and
qSlicerSegmentEditorEffectFactory.h, and their .cxx for what happens when.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import slicer
from PySide6 import QtCore, QtGui

from slicer_gui.effect import qSlicerSegmentEditorAbstractEffect
from slicer_gui.pythonqt import pythonqt, stand_in


@stand_in
class qSlicerSegmentEditorScriptedEffect(qSlicerSegmentEditorAbstractEffect):
    """An effect whose behavior is a Python object."""

    def __init__(self, parent: QtCore.QObject | None = None) -> None:
        super().__init__(parent)
        self.__self, self.__path = None, ""

    def pythonSource(self) -> str:
        return self.__path

    def setPythonSource(self, newPythonSource: str) -> bool:
        """Take the effect's class from a file, by Slicer's rule of names.

        The module is named after the folder, the class after the file; a module of that name that is already imported
        and has the class is used, else the file takes its place.
        """
        path = Path(newPythonSource)
        if not isinstance(newPythonSource, str) or path.suffix not in (".py", ".pyc"):
            raise ValueError(f"setPythonSource: {newPythonSource!r} is not the path of a Python file.")
        folder = path.parent.name
        class_name = path.stem if path.stem.endswith("Effect") else f"{path.stem}Effect"
        if not hasattr(sys.modules.get(folder), class_name):
            spec = importlib.util.spec_from_file_location(folder, path)
            sys.modules[folder] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[folder])
        self.__self = getattr(sys.modules[folder], class_name)(self)
        self.__path = newPythonSource
        setattr(slicer, folder, self.__self)
        return True

    def self(self) -> object:
        return self.__self

    def clone(self) -> qSlicerSegmentEditorScriptedEffect:
        copy = self.__self.clone()
        if not isinstance(copy, qSlicerSegmentEditorAbstractEffect) or copy is self:
            raise TypeError(f"{self.name}: clone() must return a new effect, not {copy!r}.")
        return copy

    def icon(self) -> QtGui.QIcon:
        return self._call("icon") or QtGui.QIcon()

    def helpText(self) -> str:
        return self._call("helpText") or ""

    def activate(self) -> None:
        super().activate()
        self._call("activate")

    def deactivate(self) -> None:
        super().deactivate()
        self._call("deactivate")

    def setupOptionsFrame(self) -> None:
        self._call("setupOptionsFrame")

    def setMRMLDefaults(self) -> None:
        self._call("setMRMLDefaults")

    def createCursor(self, viewWidget) -> QtGui.QCursor:
        return self._call("createCursor", viewWidget) or QtGui.QCursor(QtCore.Qt.ArrowCursor)

    def processInteractionEvents(self, callerInteractor, eid: int, viewWidget) -> bool:
        if not hasattr(self.__self, "processInteractionEvents"):
            return False
        abort = self._call("processInteractionEvents", callerInteractor, eid, viewWidget)
        if not isinstance(abort, bool):
            raise TypeError(f"{self.name}: processInteractionEvents must return a bool, not {abort!r}.")
        return abort

    def processViewNodeEvents(self, callerViewNode, eid: int, viewWidget) -> None:
        self._call("processViewNodeEvents", callerViewNode, eid, viewWidget)

    def sourceVolumeNodeChanged(self) -> None:
        self._call("sourceVolumeNodeChanged")

    def masterVolumeNodeChanged(self) -> None:
        self._call("masterVolumeNodeChanged")

    def referenceGeometryChanged(self) -> None:
        self._call("referenceGeometryChanged")

    def layoutChanged(self) -> None:
        self._call("layoutChanged")

    def interactionNodeModified(self, interactionNode: slicer.vtkMRMLInteractionNode) -> None:
        if hasattr(self.__self, "interactionNodeModified"):
            self._call("interactionNodeModified", interactionNode)
        elif interactionNode.GetCurrentInteractionMode() != interactionNode.ViewTransform:
            self.selectEffect("")

    def updateGUIFromMRML(self) -> None:
        if self.active():
            self._call("updateGUIFromMRML")

    def updateMRMLFromGUI(self) -> None:
        self._call("updateMRMLFromGUI")

    def cleanup(self) -> None:
        self._call("cleanup")

    def _call(self, method: str, *arguments: object) -> object:
        # All methods but `clone` may be left out.
        return getattr(self.__self, method)(*arguments) if hasattr(self.__self, method) else None


@stand_in
class qSlicerSegmentEditorEffectFactory(pythonqt(QtCore.QObject)):
    """Keeps the effects that segment editors offer."""

    effectRegistered = QtCore.Signal(str)
    _instance: qSlicerSegmentEditorEffectFactory | None = None

    def __init__(self) -> None:
        super().__init__()
        self.__effects: list[qSlicerSegmentEditorAbstractEffect] = []

    @staticmethod
    def instance() -> qSlicerSegmentEditorEffectFactory:
        if qSlicerSegmentEditorEffectFactory._instance is None:
            qSlicerSegmentEditorEffectFactory._instance = qSlicerSegmentEditorEffectFactory()
        return qSlicerSegmentEditorEffectFactory._instance

    def registerEffect(self, effect: qSlicerSegmentEditorAbstractEffect) -> bool:
        if effect.name in ("", "UnnamedScriptedEffect"):
            raise ValueError("registerEffect: the effect has no name.")
        if any(known.name == effect.name for known in self.__effects):
            return False
        self.__effects.append(effect)
        self.effectRegistered.emit(effect.name)
        return True

    def registeredEffects(self) -> list[qSlicerSegmentEditorAbstractEffect]:
        return list(self.__effects)

    def _forget(self) -> None:
        """Forget all effects, as when Slicer exits."""
        for effect in self.__effects:
            effect.cleanup()
            folder = Path(effect.pythonSource()).parent.name
            delattr(slicer, folder)
        self.__effects.clear()
