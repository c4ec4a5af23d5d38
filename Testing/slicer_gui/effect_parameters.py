"""The parameters of an effect, which live in the segment editor's node and so are saved with the scene.

Header: Slicer Modules/Loadable/Segmentations/EditorEffects/qSlicerSegmentEditorAbstractEffect.h, and its .cxx.
"""

from __future__ import annotations

import slicer


class EffectParameters:
    """The functions of an effect that read and write parameters; a name is first looked up as the effect's own."""

    def parameterSetNode(self) -> slicer.vtkMRMLSegmentEditorNode | None:
        return self.__dict__.get("parameter_set_node")

    def setParameterSetNode(self, node: slicer.vtkMRMLSegmentEditorNode | None) -> None:
        self.__dict__["parameter_set_node"] = node

    def scene(self) -> slicer.vtkMRMLScene | None:
        node = self.parameterSetNode()
        return node.GetScene() if node else None

    def parameterDefined(self, name: str) -> bool:
        return self.commonParameterDefined(self._own(name))

    def commonParameterDefined(self, name: str) -> bool:
        return bool(self.parameterSetNode().GetAttribute(name))

    def parameter(self, name: str) -> str:
        """Return a parameter.

        :raises KeyError: if there is none; Slicer would print an error and return "".
        """
        for key in (self._own(name), name):
            value = self.parameterSetNode().GetAttribute(key)
            if value is not None:
                return value
        raise KeyError(f"The effect {self.name} has no parameter {name!r}; setMRMLDefaults must set it.")

    def integerParameter(self, name: str) -> int:
        return int(self.parameter(name))

    def doubleParameter(self, name: str) -> float:
        return float(self.parameter(name))

    def setParameter(self, name: str, value: str | int | float) -> None:
        self.setCommonParameter(self._own(name), value)

    def setParameterDefault(self, name: str, value: str | int | float) -> None:
        if not self.parameterDefined(name):
            self.setParameter(name, value)

    def setCommonParameter(self, name: str, value: str | int | float) -> None:
        """Set a parameter, as Qt writes it: a float with six digits."""
        if not isinstance(value, (str, int, float)):
            raise TypeError(f"The parameter {name} can't be {value!r}: PythonQt takes str, int and float.")
        # PythonQt chooses the overload for int for a bool.
        text = value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(int(value))
        node = self.parameterSetNode()
        if (node.GetAttribute(name) or "") == text:
            return
        disabled = node.GetDisableModifiedEvent()
        node.SetDisableModifiedEvent(1)
        node.SetAttribute(name, text)
        node.SetDisableModifiedEvent(disabled)
        node.InvokeCustomModifiedEvent(node.EffectParameterModified)

    def setCommonParameterDefault(self, name: str, value: str | int | float) -> None:
        if not self.commonParameterDefined(name):
            self.setCommonParameter(name, value)

    def nodeReference(self, name: str) -> slicer.vtkMRMLNode | None:
        node = self.parameterSetNode()
        return node.GetNodeReference(self._own(name)) or node.GetNodeReference(name)

    def setNodeReference(self, name: str, node: slicer.vtkMRMLNode | None) -> None:
        self.setCommonNodeReference(self._own(name), node)

    def setCommonNodeReference(self, name: str, node: slicer.vtkMRMLNode | None) -> None:
        parameters = self.parameterSetNode()
        if parameters.GetNodeReference(name) is not node:
            parameters.SetNodeReferenceID(name, node.GetID() if node else None)
            parameters.InvokeCustomModifiedEvent(parameters.EffectParameterModified)

    def _own(self, name: str) -> str:
        return f"{self.name}.{name}"
