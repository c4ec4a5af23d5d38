"""A Segment Editor in which tests use the effect MedSAM by mouse and keys, on a volume whose structure is known."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import slicer
import slicer.util
import vtk

from box_predictor import BoxPredictor, FilledBoxes, Shape
from MedSAMSlicerLib.inference.predictor import Predictor
from MedSAMSlicerLib.mrml.segments import SegmentWriter
from MedSAMSlicerLib.prompts import Box
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache, Window
from MedSAMSlicerLib.volume.files import Volume
from MedSAMSlicerLib.volume.geometry import plane_axes, transform_points
from slicer_gui.gui import Gui

# First and last voxel (IJK) of the bright block in `block_volume`.
FIRST, LAST = (12, 10, 5), (27, 23, 13)
SPACING = (1.0, 1.0, 2.5)
# The views that show the slices of an axis, for voxels along the axes of the patient.
VIEWS = {0: "Yellow", 1: "Green", 2: "Red"}


def block() -> np.ndarray:
    """Mark the bright block: bool (K, J, I)."""
    mask = np.zeros((20, 36, 40), dtype=bool)
    mask[FIRST[2] : LAST[2] + 1, FIRST[1] : LAST[1] + 1, FIRST[0] : LAST[0] + 1] = True
    return mask


def block_slice(axis: int, index: int) -> np.ndarray:
    """Mark what the bright block has in one slice: bool (K, J, I)."""
    mask = block()
    others = [slice(None)] * 3
    for each in range(mask.shape[2 - axis]):
        if each != index:
            others[2 - axis] = each
            mask[tuple(others)] = False
    return mask


def block_volume(ijk_to_ras: np.ndarray | None = None) -> Volume:
    """Make a CT with a bright block in soft tissue; no two slices are alike.

    :param ijk_to_ras: (4, 4); along the axes of the patient by default.
    """
    voxels = np.random.default_rng(3).normal(0, 10, (20, 36, 40))
    voxels[0] = -1000
    voxels[block()] += 230
    return Volume(voxels.astype(np.int16), np.diag([*SPACING, 1.0]) if ijk_to_ras is None else ijk_to_ras, "CT")


@dataclass(frozen=True)
class BrightPixels(Shape):
    """The embedding of `BrightPredictor`."""

    pixels: np.ndarray = field(default_factory=lambda: np.zeros((1, 1), dtype=bool))


class BrightPredictor(BoxPredictor):
    """Segments the bright pixels inside of a box; a test can hold it before it encodes a slice.

    The thread then waits in the middle of a computation, as it does in a slow one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._allowed = math.inf
        self._changed = threading.Condition()
        self.held = threading.Event()

    def hold(self, slices: int = 0) -> None:
        """Let only so many more slices be encoded."""
        with self._changed:
            self._allowed = len(self.encoded) + slices
            self.held.clear()
            self._changed.notify()

    def release(self) -> None:
        """Let all slices be encoded."""
        with self._changed:
            self._allowed = math.inf
            self._changed.notify()

    def encode(self, image: np.ndarray) -> BrightPixels:
        with self._changed:
            if len(self.encoded) >= self._allowed:
                self.held.set()
            assert self._changed.wait_for(lambda: len(self.encoded) < self._allowed, 20), "Held for too long."
        shape = super().encode(image)
        return BrightPixels(shape.rows, shape.columns, pixels=image > 200)

    def decode(self, embedding: BrightPixels, boxes: Sequence[Box], window: Window | None = None) -> FilledBoxes:
        filled = super().decode(embedding, boxes)
        return FilledBoxes(filled.probabilities * embedding.pixels * np.float32(0.95), filled.iou).within(window)


@dataclass
class _Session:
    cache: EmbeddingCache = field(default_factory=EmbeddingCache)


class ModuleLogic:
    """What the effect may use of the module's logic."""

    def __init__(self, predictor: Predictor | BoxPredictor) -> None:
        from MedSAMSlicerLib.app.worker import Worker

        self.predictor: Predictor | BoxPredictor | Exception = predictor
        self.worker = Worker()
        self.session = _Session()

    def loadPredictor(self, model: str | None = None, device: str | None = None) -> Predictor | BoxPredictor:
        assert threading.current_thread() is not threading.main_thread()
        if isinstance(self.predictor, Exception):
            raise self.predictor
        return self.predictor

    def windowFor(self, volumeNode: slicer.vtkMRMLVolumeNode) -> str:
        assert threading.current_thread() is threading.main_thread()
        return "auto"


class EffectEditor:
    """A Segment Editor with the effect MedSAM chosen, and what a user does with it.

    :param predictor: takes the place of the model.
    :param logic: the module's; by default a `ModuleLogic` takes its place.
    """

    def __init__(
        self, gui: Gui, monkeypatch: pytest.MonkeyPatch, predictor: object, volume: Volume, logic: object = None
    ) -> None:
        self.gui, self.predictor = gui, predictor
        self.logic = logic or ModuleLogic(predictor)
        monkeypatch.setattr(slicer.util, "getModuleLogic", {"MedSAMSlicer": self.logic}.__getitem__)
        from MedSAMSlicerLib.app.effect_registration import registerEditorEffect

        registerEditorEffect()
        self.volume = gui.headless.add_volume(volume)
        self.segmentation = gui.headless.add_segmentation("Segmentation", self.volume)
        self.segment = self.add_segment("structure", (0.0, 1.0, 0.0))
        self.widget = slicer.qMRMLSegmentEditorWidget()
        self.widget.setMRMLScene(gui.scene)
        self.node = gui.scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
        self.widget.setMRMLSegmentEditorNode(self.node)
        self.widget.setSegmentationNode(self.segmentation)
        self.widget.setSourceVolumeNode(self.volume)
        self.node.SetOverwriteMode(self.node.OverwriteNone)
        self.widget.setActiveEffectByName("MedSAM")
        self.effect = self.widget.activeEffect().self()
        self.options = self.effect.options
        gui.layout_manager.resetSliceViews()

    def close(self) -> None:
        self.widget._close()
        self.logic.worker.close()

    def add_segment(self, name: str, color: tuple[float, float, float], mask: np.ndarray | None = None) -> str:
        segment_id = self.segmentation.GetSegmentation().AddEmptySegment(name, name, color)
        if mask is not None:
            self.put(segment_id, mask)
        return segment_id

    def put(self, segment_id: str, mask: np.ndarray) -> None:
        """Make a mask (K, J, I) all that a segment holds, as painting would."""
        SegmentWriter(self.segmentation, segment_id, self.volume).replace([(mask, (0, 0, 0))])

    def held(self, segment_id: str | None = None) -> np.ndarray:
        """Return what a segment holds: bool (K, J, I)."""
        held = slicer.util.arrayFromSegmentBinaryLabelmap(self.segmentation, segment_id or self.segment, self.volume)
        i, j, k = self.volume.GetImageData().GetDimensions()
        return np.zeros((k, j, i), dtype=bool) if held is None else held != 0

    def proposed(self) -> np.ndarray | None:
        """Return what is proposed: bool (K, J, I)."""
        proposal = self.effect.proposer.proposal
        return None if proposal is None else proposal.mask != 0

    @property
    def status(self) -> str:
        return self.options.statusLabel.text

    def show(self, axis: int, index: int) -> None:
        """Let the view of an axis show one slice."""
        ijk = np.array(self.volume.GetImageData().GetDimensions()) // 2
        ijk[axis] = index
        node = self.gui.layout_manager.sliceWidget(VIEWS[axis]).mrmlSliceNode()
        node.JumpSliceByOffsetting(*self._ras(ijk))

    def turn(self, axis: int, degrees: float) -> None:
        """Turn the view of an axis about its horizontal direction."""
        node = self.gui.layout_manager.sliceWidget(VIEWS[axis]).mrmlSliceNode()
        turned = vtk.vtkTransform()
        turned.SetMatrix(node.GetSliceToRAS())
        turned.RotateX(degrees)
        node.GetSliceToRAS().DeepCopy(turned.GetMatrix())
        node.UpdateMatrices()

    def draw(self, axis: int, index: int, first: Sequence[float], last: Sequence[float]) -> None:
        """Drag a box in the view of an axis between two pixels of one slice (x, y), without waiting for its mask."""
        self.show(axis, index)
        mouse = self.gui.mouse(VIEWS[axis])
        points = []
        for x, y in (first, last):
            ijk = np.zeros(3)
            ijk[axis] = index
            ijk[list(plane_axes(axis))] = x, y
            points.append(mouse.ras_to_xy(self._ras(ijk)))
        mouse.drag(*points)

    def draw_around(self, axis: int, index: int, margin: int = 2) -> None:
        """Drag a box around the bright block in one slice, and wait for what becomes of it."""
        edges = plane_axes(axis)
        self.draw(axis, index, [FIRST[edge] - margin for edge in edges], [LAST[edge] + margin for edge in edges])
        self.settle()

    def settle(self) -> None:
        """Wait until nothing is computed any more."""
        self.gui.pump(until=lambda: not self.logic.worker.busy, at_most=120)

    def accept(self) -> None:
        """Press Enter in the last view, and wait."""
        self.gui.mouse("Red").key("Return")
        self.settle()

    def set(self, **parameters: object) -> None:
        """Set the effect's options as the user does, by the widgets of its panel."""
        for name, value in parameters.items():
            widget = getattr(self.options, name)
            if hasattr(widget, "findData"):
                widget.setCurrentIndex(widget.findData(value))
            elif hasattr(widget, "setChecked"):
                widget.setChecked(value)
            elif hasattr(widget, "setCurrentNode"):
                widget.setCurrentNode(value)
            else:
                widget.setValue(value)

    def color_at(self, axis: int, ijk: Sequence[int]) -> np.ndarray:
        """Draw the view of an axis and return its color at a voxel: red, green, blue."""
        mouse = self.gui.mouse(VIEWS[axis])
        x, y = mouse.ras_to_xy(self._ras(np.array(ijk)))
        return self.picture(axis)[::-1][round(y), round(x)].astype(int)

    def picture(self, axis: int) -> np.ndarray:
        """Draw the view of an axis: uint8 (rows, columns, 3)."""
        widget = self.gui.layout_manager.sliceWidget(VIEWS[axis])
        return widget._qMRMLSliceWidget__headless.image()

    def _ras(self, ijk: np.ndarray) -> np.ndarray:
        matrix = slicer.util.arrayFromVTKMatrix(_ijk_to_ras(self.volume))
        return transform_points(matrix, np.asarray(ijk, dtype=float)[None])[0]


def _ijk_to_ras(volume: slicer.vtkMRMLVolumeNode) -> vtk.vtkMatrix4x4:
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return matrix
