"""``slicer.ScriptedLoadableModule``: the base classes of a scripted module.

Names, signatures and behavior as in Slicer Base/Python/slicer/ScriptedLoadableModule.py; nothing is copied from it.
"""

from __future__ import annotations

import unittest
from pathlib import Path

import slicer
import slicer.util

__all__ = [
    "ScriptedLoadableModule",
    "ScriptedLoadableModuleLogic",
    "ScriptedLoadableModuleTest",
    "ScriptedLoadableModuleWidget",
]


class ScriptedLoadableModule:
    """Describes a module to Slicer; made once, at the start."""

    def __init__(self, parent) -> None:
        import qt

        self.parent = parent
        self.moduleName = type(self).__name__
        icons = [Path(self.resourcePath(f"Icons/{self.moduleName}{ending}")) for ending in (".svg", ".png")]
        icon = next((icon for icon in icons if icon.is_file()), None)
        if icon:
            parent.icon = qt.QIcon(str(icon))

    def resourcePath(self, filename: str) -> str:
        return str(Path(self.parent.path).parent / "Resources" / filename)

    def getDefaultModuleDocumentationLink(self, docPage: str | None = None) -> str:
        return f'<p>See the <a href="{docPage or self.moduleName}">online documentation</a>.</p>'


class ScriptedLoadableModuleWidget:
    """Builds a module's controls; made when the user opens the module for the first time."""

    def __init__(self, parent=None) -> None:
        if parent is None:
            raise ValueError("The harness makes module widgets only as Slicer does, by opening the module.")
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = False
        self.parent = parent
        self.layout = parent.layout()
        slicer.app.moduleManager().connect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def resourcePath(self, filename: str) -> str:
        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / filename)

    def setup(self) -> None:
        """Called before the derived class builds its controls; the developer's section is not shown."""

    def cleanup(self) -> None:
        """Called before the module is unloaded."""

    def onReload(self) -> None:
        slicer.util.reloadScriptedModule(self.moduleName)

    def _onModuleAboutToBeUnloaded(self, moduleName: str) -> None:
        if moduleName == self.moduleName:
            slicer.app.moduleManager().disconnect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)
            self.cleanup()


class ScriptedLoadableModuleLogic:
    """Computes; keeps its parameters in a node of the scene."""

    def __init__(self, parent=None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self) -> slicer.vtkMRMLScriptedModuleNode:
        """Return the module's parameter node; it is made if there is none."""
        known = self.getAllParameterNodes()
        if self.isSingletonParameterNode:
            singleton = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
            known = [singleton] if singleton else []
        if not known:
            return slicer.mrmlScene.AddNode(self.createParameterNode())
        # Closing the scene may have removed the attribute.
        known[0].SetAttribute("ModuleName", self.moduleName)
        return known[0]

    def getAllParameterNodes(self) -> list[slicer.vtkMRMLScriptedModuleNode]:
        nodes = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
        return [node for node in nodes if node.GetAttribute("ModuleName") == self.moduleName]

    def createParameterNode(self) -> slicer.vtkMRMLScriptedModuleNode:
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        if self.isSingletonParameterNode:
            node.SetSingletonTag(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """A test case that the user may run by "Reload and Test"."""

    def delayDisplay(self, message: str, requestedDelay: int | None = None, msec: int | None = None) -> None:
        """Tell what is being tested, and let Slicer's main loop run once."""
        slicer.app.processEvents()
