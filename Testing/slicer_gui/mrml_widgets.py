"""Stand-ins for the MRML widgets ``slicer.qMRML*``, alive on the real scene.

Headers: Slicer Libs/MRML/Widgets/qMRMLWidget.h, qMRMLNodeComboBox.h (and its .cxx for what is chosen when nodes come
and go), qMRMLSegmentSelectorWidget.h, qMRMLSliderWidget.h. Properties, slots, invokables and signals are those declared
there.
"""

from __future__ import annotations

import slicer
from PySide6 import QtWidgets
from PySide6.QtCore import Signal

from slicer_gui.ctk_widgets import ctkSliderWidget
from slicer_gui.observers import observe
from slicer_gui.pythonqt import checked_property, held_property, pythonqt, stand_in


@stand_in
class qMRMLWidget(pythonqt(QtWidgets.QWidget)):
    """A widget that knows the scene and hands it on."""

    mrmlSceneChanged = Signal(object)
    cpp_signals = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}  # noqa: RUF012
    cpp_slots = ("setMRMLScene(vtkMRMLScene*)",)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.__scene = None

    def mrmlScene(self) -> slicer.vtkMRMLScene | None:
        return self.__scene

    def setMRMLScene(self, scene: slicer.vtkMRMLScene | None) -> None:
        if scene is not self.__scene:
            self.__scene = scene
            self.mrmlSceneChanged.emit(scene)


@stand_in
class qMRMLNodeComboBox(pythonqt(QtWidgets.QWidget)):
    """Chooses a node of the scene.

    Without *None* in the list, the first node that comes into an empty list is chosen, and another one when the chosen
    node is removed.
    """

    currentNodeChanged = Signal(object)
    _validity_changed = Signal(bool)
    currentNodeIDChanged = Signal(str)
    nodeActivated = Signal(object)
    nodeAdded = Signal(object)
    nodeAddedByUser = Signal(object)
    nodeAddedByUserAction = Signal(object)
    nodeAboutToBeRemoved = Signal(object)
    currentNodeRenamed = Signal(str)
    cpp_signals = {  # noqa: RUF012
        "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged",
        "currentNodeChanged(bool)": "_validity_changed",
        "nodeActivated(vtkMRMLNode*)": "nodeActivated",
        "nodeAdded(vtkMRMLNode*)": "nodeAdded",
        "nodeAddedByUser(vtkMRMLNode*)": "nodeAddedByUser",
        "nodeAddedByUserAction(vtkMRMLNode*)": "nodeAddedByUserAction",
        "nodeAboutToBeRemoved(vtkMRMLNode*)": "nodeAboutToBeRemoved",
    }
    cpp_slots = (
        "setMRMLScene(vtkMRMLScene*)",
        "setCurrentNode(vtkMRMLNode*)",
        "setCurrentNodeID(QString)",
        "setCurrentNodeIndex(int)",
        "removeCurrentNode()",
    )

    nodeTypes = held_property("QStringList", [], "_refill")
    hideChildNodeTypes = held_property("QStringList", [], "_refill")
    showChildNodeTypes = held_property(bool, True, "_refill")
    showHidden = held_property(bool, False, "_refill")
    noneEnabled = held_property(bool, False, "_refill")
    noneDisplay = held_property(str, "None", "_refill")
    baseName = held_property(str, "")
    addEnabled = held_property(bool, True)
    removeEnabled = held_property(bool, True)
    editEnabled = held_property(bool, False)
    renameEnabled = held_property(bool, False)
    selectNodeUponCreation = held_property(bool, True)
    currentNodeID = checked_property(
        str, lambda self: self.__current, lambda self, node_id: self.setCurrentNodeID(node_id)
    )

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.__scene, self.__observations, self.__attributes = None, [], []
        self.__current, self.__listed, self.__renamed = "", [], None
        self.__box = QtWidgets.QComboBox()
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.__box)
        self.__box.activated.connect(self._activate)
        self.setEnabled(False)

    def mrmlScene(self) -> slicer.vtkMRMLScene | None:
        return self.__scene

    def setMRMLScene(self, scene: slicer.vtkMRMLScene | None) -> None:
        if scene is self.__scene:
            return
        for tag in self.__observations:
            self.__scene.RemoveObserver(tag)
        self.__scene = scene
        events = () if scene is None else (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndBatchProcessEvent)
        self.__observations = [observe(scene, event, self._scene_changed) for event in events]
        self.setEnabled(scene is not None)
        self._refill()

    def addAttribute(self, nodeType: str, attributeName: str, attributeValue: object = None) -> None:
        self.__attributes.append((nodeType, attributeName, attributeValue))
        self._refill()

    def removeAttribute(self, nodeType: str, attributeName: str) -> None:
        self.__attributes = [known for known in self.__attributes if known[:2] != (nodeType, attributeName)]
        self._refill()

    def nodeCount(self) -> int:
        return len(self.__listed)

    def nodeFromIndex(self, index: int) -> slicer.vtkMRMLNode | None:
        return self.__scene.GetNodeByID(self.__listed[index]) if 0 <= index < len(self.__listed) else None

    def currentNode(self) -> slicer.vtkMRMLNode | None:
        return self.__scene.GetNodeByID(self.__current) if self.__scene and self.__current else None

    def setCurrentNode(self, node: slicer.vtkMRMLNode | None) -> None:
        self.setCurrentNodeID(node.GetID() if node else "")

    def setCurrentNodeID(self, nodeID: str) -> None:
        self._choose(nodeID if nodeID in self.__listed else "")

    def setCurrentNodeIndex(self, index: int) -> None:
        self.setCurrentNode(self.nodeFromIndex(index))

    def addNode(self, nodeType: str = "") -> slicer.vtkMRMLNode:
        if nodeType and nodeType not in self.nodeTypes:
            raise ValueError(f"qMRMLNodeComboBox.addNode: {nodeType} is not among {self.nodeTypes}.")
        node_type = nodeType or self.nodeTypes[0]
        node = self.__scene.CreateNodeByClass(node_type)
        node.UnRegister(None)
        node.SetName(self.__scene.GenerateUniqueName(self.baseName or node.GetNodeTagName()))
        for known_type, name, value in self.__attributes:
            if known_type == node_type and value is not None:
                node.SetAttribute(name, str(value))
        self.__scene.AddNode(node)
        if self.selectNodeUponCreation:
            self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node

    def removeCurrentNode(self) -> None:
        self.__scene.RemoveNode(self.currentNode())

    def _activate(self, row: int) -> None:
        self._choose(self.__box.itemData(row) or "")
        self.nodeActivated.emit(self.currentNode())

    def _scene_changed(self, *_: object) -> None:
        if not self.__scene.IsBatchProcessing():
            self._refill()

    def _accepts(self, node: slicer.vtkMRMLNode) -> bool:
        def fits(node_type: str) -> bool:
            return node.IsA(node_type) if self.showChildNodeTypes else node.GetClassName() == node_type

        def has(name: str, value: object) -> bool:
            found = node.GetAttribute(name)
            return found is not None if value is None else found == str(value)

        return (
            (self.showHidden or not node.GetHideFromEditors())
            and any(fits(node_type) for node_type in self.nodeTypes)
            and not any(node.IsA(node_type) for node_type in self.hideChildNodeTypes)
            and all(has(name, value) for node_type, name, value in self.__attributes if node.IsA(node_type))
        )

    def _refill(self) -> None:
        if self.__scene is None:
            return
        before = self.__listed
        nodes = self.__scene.GetNodes()
        accepted = [node for node in map(nodes.GetItemAsObject, range(nodes.GetNumberOfItems())) if self._accepts(node)]
        self.__listed = [node.GetID() for node in accepted]
        self.__box.clear()
        if self.noneEnabled:
            self.__box.addItem(self.noneDisplay, "")
        for node in accepted:
            self.__box.addItem(node.GetName(), node.GetID())
        gone = self.__current and self.__current not in self.__listed
        if gone or (not before and not self.__current):
            self._choose(self.__listed[-1 if gone else 0] if self.__listed and not self.noneEnabled else "")
        self.__box.setCurrentIndex(self.__box.findData(self.__current))
        for node in accepted:
            if node.GetID() not in before:
                self.nodeAdded.emit(node)

    def _choose(self, node_id: str) -> None:
        if node_id == self.__current:
            return
        if self.__renamed:
            self.__renamed[0].RemoveObserver(self.__renamed[1])
        self.__current = node_id
        node = self.currentNode()
        self.__renamed = node and (node, observe(node, "ModifiedEvent", self._update_name))
        self.__box.setCurrentIndex(self.__box.findData(node_id))
        self.currentNodeChanged.emit(node)
        self._validity_changed.emit(node is not None)
        self.currentNodeIDChanged.emit(node_id)

    def _update_name(self, node: slicer.vtkMRMLNode, _event: str) -> None:
        row = self.__box.findData(node.GetID())
        if row >= 0 and self.__box.itemText(row) != node.GetName():
            self.__box.setItemText(row, node.GetName())
            self.currentNodeRenamed.emit(node.GetName())


@stand_in
class qMRMLSliderWidget(ctkSliderWidget):
    """A slider for a quantity such as "length"; units are not shown."""

    cpp_slots = ("setMRMLScene(vtkMRMLScene*)", "setQuantity(QString)")
    quantity = held_property(str, "")

    def setQuantity(self, quantity: str) -> None:
        self.quantity = quantity

    def setMRMLScene(self, scene: slicer.vtkMRMLScene | None) -> None:
        """The scene would only tell the unit."""


@stand_in
class qMRMLSegmentSelectorWidget(qMRMLWidget):
    """Chooses a segmentation and one of its segments."""

    currentNodeChanged = Signal(object)
    _validity_changed = Signal(bool)
    currentSegmentChanged = Signal(str)
    cpp_signals = {  # noqa: RUF012
        "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged",
        "currentNodeChanged(bool)": "_validity_changed",
    }
    cpp_slots = ("setCurrentNode(vtkMRMLNode*)", "setCurrentNodeID(QString)", "setCurrentSegmentID(QString)")
    noneEnabled = held_property(bool, False, "_allow_none")
    editEnabled = held_property(bool, False)
    horizontalLayout = held_property(bool, False)
    selectNodeUponCreation = held_property(bool, True)
    segmentationNodeSelectorVisible = checked_property(
        bool, lambda self: not self.__nodes.isHidden(), lambda self, shown: self.__nodes.setVisible(shown)
    )

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.__nodes, self.__segments = qMRMLNodeComboBox(), QtWidgets.QComboBox()
        self.__nodes.nodeTypes = ["vtkMRMLSegmentationNode"]
        self.__observed: tuple | None = None
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.__nodes)
        column.addWidget(self.__segments)
        self.mrmlSceneChanged.connect(self.__nodes.setMRMLScene)
        self.__nodes.currentNodeChanged.connect(self._node_changed)
        self.__segments.currentIndexChanged.connect(self._segment_changed)

    def currentNode(self) -> slicer.vtkMRMLSegmentationNode | None:
        return self.__nodes.currentNode()

    def currentNodeID(self) -> str:
        return self.__nodes.currentNodeID

    def currentSegmentID(self) -> str:
        return self.__segments.currentData() or ""

    def segmentIDs(self) -> list[str]:
        return [
            self.__segments.itemData(row) for row in range(self.__segments.count()) if self.__segments.itemData(row)
        ]

    def setCurrentNode(self, node: slicer.vtkMRMLNode | None) -> None:
        self.__nodes.setCurrentNode(node)

    def setCurrentNodeID(self, nodeID: str) -> None:
        self.__nodes.setCurrentNodeID(nodeID)

    def setCurrentSegmentID(self, segmentID: str) -> None:
        row = self.__segments.findData(segmentID)
        if row < 0:
            raise ValueError(f"qMRMLSegmentSelectorWidget.setCurrentSegmentID: no segment {segmentID!r}.")
        self.__segments.setCurrentIndex(row)

    def _allow_none(self) -> None:
        self.__nodes.noneEnabled = self.noneEnabled
        self._list_segments()

    def _node_changed(self, node: slicer.vtkMRMLSegmentationNode | None) -> None:
        if self.__observed:
            for tag in self.__observed[1]:
                self.__observed[0].RemoveObserver(tag)
        self.__observed = None
        if node:
            kinds = (slicer.vtkSegmentation.SegmentAdded, slicer.vtkSegmentation.SegmentRemoved)
            events = (*kinds, slicer.vtkSegmentation.SegmentModified)
            self.__observed = node, [observe(node, event, self._list_segments) for event in events]
        self._list_segments()
        self.currentNodeChanged.emit(node)
        self._validity_changed.emit(node is not None)

    def _list_segments(self, *_: object) -> None:
        chosen, node = self.currentSegmentID(), self.currentNode()
        segmentation = node.GetSegmentation() if node else None
        self.__segments.blockSignals(True)
        self.__segments.clear()
        if self.noneEnabled:
            self.__segments.addItem("None", "")
        for segment_id in segmentation.GetSegmentIDs() if segmentation else ():
            self.__segments.addItem(segmentation.GetSegment(segment_id).GetName(), segment_id)
        self.__segments.setCurrentIndex(max(self.__segments.findData(chosen), 0 if self.__segments.count() else -1))
        self.__segments.blockSignals(False)
        if self.currentSegmentID() != chosen:
            self._segment_changed()

    def _segment_changed(self, *_: object) -> None:
        self.currentSegmentChanged.emit(self.currentSegmentID())


WIDGETS = {
    kind.__name__: kind for kind in (qMRMLNodeComboBox, qMRMLSegmentSelectorWidget, qMRMLSliderWidget, qMRMLWidget)
}
