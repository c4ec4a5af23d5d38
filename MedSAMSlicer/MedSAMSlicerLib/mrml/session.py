"""A volume and an ROI in, a segment out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import slicer

from MedSAMSlicerLib.mrml.markups import slice_boxes
from MedSAMSlicerLib.mrml.segments import SegmentWriter, add_segment, clear_segment, require_labelmaps
from MedSAMSlicerLib.mrml.volumes import voxels
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.geometry import slice_of
from MedSAMSlicerLib.volume.propagation import propagation_named
from MedSAMSlicerLib.volume.stack import SliceStack
from MedSAMSlicerLib.volume.steps import Predictor, SliceMask


@dataclass(frozen=True)
class Step:
    """One slice is done: of which segment, how many of how many slices, and the slice's result."""

    segment_id: str
    done: int
    total: int
    result: SliceMask


class SegmentationSession:
    """Segments structures of volume nodes into segmentation nodes with one model.

    Slices that were segmented before are not encoded again. Every call of `segment` or `segment_by_slice` is one step
    of `undo`. The source volume and all other segments stay as they are.

    Usage example::

        session = SegmentationSession(Predictor(load_checkpoint(path)))
        segment_id = session.segment(volume_node, roi_node, segmentation_node)
        session.undo(segmentation_node)

    :param predictor: the model, see `inference.predictor.Predictor`.
    :param cache: where slice embeddings are kept; give one to share it between sessions.
    """

    def __init__(self, predictor: Predictor, cache: EmbeddingCache | None = None) -> None:
        self.predictor = predictor
        # Not "or": a cache that is still empty is false.
        self.cache = EmbeddingCache() if cache is None else cache
        self._histories: dict[slicer.vtkMRMLSegmentationNode, slicer.vtkSegmentationHistory] = {}

    def segment(
        self,
        volume: slicer.vtkMRMLVolumeNode,
        roi: slicer.vtkMRMLMarkupsROINode,
        segmentation: slicer.vtkMRMLSegmentationNode,
        segment_id: str | None = None,
        **options: str,
    ) -> str:
        """Segment what an ROI holds, at once, and return the segment's ID; see `segment_by_slice`."""
        for step in self.segment_by_slice(volume, roi, segmentation, segment_id, **options):
            segment_id = step.segment_id
        if segment_id is None:
            raise RuntimeError("The propagation returned no slice.")
        return segment_id

    def segment_by_slice(
        self,
        volume: slicer.vtkMRMLVolumeNode,
        roi: slicer.vtkMRMLMarkupsROINode,
        segmentation: slicer.vtkMRMLSegmentationNode,
        segment_id: str | None = None,
        *,
        axis: str = "auto",
        window: str = "auto",
        propagation: str = "path",
    ) -> Iterator[Step]:
        """Segment what an ROI holds, slice by slice.

        The segment grows while the steps are taken. A caller who stops early (closes the generator) keeps the slices
        that are done; after an error the segmentation is as it was before. Nothing happens before the first step.

        :param segment_id: the segment whose content is replaced; by default a new one with the ROI's name.
        :param axis: of the slices, "i", "j", "k" or "auto", see `volume.geometry.choose_axis`.
        :param window: see `volume.intensity.resolve_window`.
        :param propagation: a name in `volume.propagation.PROPAGATIONS`.
        :raises ValueError: if a node is missing or can't be used, the ROI lies outside of the volume, or an option is
            unknown.
        """
        propagate = propagation_named(propagation)
        stack = SliceStack(voxels(volume), volume.GetSpacing(), axis=axis, window=window)
        boxes = slice_boxes(roi, volume, stack.axis)
        require_labelmaps(segmentation)
        if segment_id is not None and segmentation.GetSegmentation().GetSegment(segment_id) is None:
            raise ValueError(
                f"The segmentation {segmentation.GetName()!r} has no segment {segment_id!r}: "
                "give the ID of one, or none for a new one."
            )
        history = self._history(segmentation)
        history.SaveState()
        try:
            if segment_id is None:
                segment_id = add_segment(segmentation, roi.GetName())
            else:
                clear_segment(segmentation, segment_id)
            if segmentation.GetDisplayNode() is None:
                segmentation.CreateDefaultDisplayNodes()
            pending = _PendingSlices(stack, SegmentWriter(segmentation, segment_id, volume))
            done: set[int] = set()
            try:
                for result in propagate(stack, boxes, self.predictor, self.cache):
                    pending.add(result)
                    done.add(result.index)
                    yield Step(segment_id, len(done), len(boxes), result)
            finally:
                pending.write()
        except Exception:
            history.RestorePreviousState()
            raise

    def undo(self, segmentation: slicer.vtkMRMLSegmentationNode) -> bool:
        """Take the last segmentation back; False if there is none."""
        history = self._history(segmentation)
        return bool(history.IsRestorePreviousStateAvailable() and history.RestorePreviousState())

    def redo(self, segmentation: slicer.vtkMRMLSegmentationNode) -> bool:
        """Bring back what was undone; False if there is nothing."""
        history = self._history(segmentation)
        return bool(history.IsRestoreNextStateAvailable() and history.RestoreNextState())

    def _history(self, segmentation: slicer.vtkMRMLSegmentationNode) -> slicer.vtkSegmentationHistory:
        # A node that left its scene can't be undone any more; its history would only hold memory.
        self._histories = {node: history for node, history in self._histories.items() if node.GetScene()}
        if segmentation not in self._histories:
            history = slicer.vtkSegmentationHistory()
            history.SetSegmentation(segmentation.GetSegmentation())
            self._histories[segmentation] = history
        return self._histories[segmentation]


class _PendingSlices:
    """Finished slices that are not in the segment yet.

    Writing a slice makes Slicer update the views and the 3-D surface, which can take longer than the slice itself:
    slices are written together, so that writing takes a small share of the time.
    """

    _SHARE = 0.1

    def __init__(self, stack: SliceStack, writer: SegmentWriter) -> None:
        self._stack = stack
        self._writer = writer
        self._pending: dict[int, np.ndarray] = {}
        self._written: dict[int, np.ndarray] = {}
        self._next_write = 0.0

    def add(self, result: SliceMask) -> None:
        """Take a slice; one that came before is replaced."""
        self._pending[result.index] = result.mask
        if time.monotonic() >= self._next_write:
            self.write()

    def write(self) -> None:
        """Write all pending slices, each run of neighbors at once."""
        start = time.monotonic()
        if self._pending.keys() & self._written.keys():
            # A segment can only grow here; to take voxels away it is emptied and written again.
            self._writer.clear()
            self._pending = self._written | self._pending
        indices = sorted(self._pending)
        while indices:
            run = [index for count, index in enumerate(indices) if index == indices[0] + count]
            shape = list(self._stack.voxels.shape[:3])
            shape[2 - self._stack.axis] = len(run)
            block = np.zeros(shape, dtype=bool)
            first = [0, 0, 0]
            first[self._stack.axis] = run[0]
            for count, index in enumerate(run):
                slice_of(block, self._stack.axis, count)[:] = self._pending[index]
            self._writer.add(block, (first[0], first[1], first[2]))
            indices = indices[len(run) :]
        self._written |= self._pending
        self._pending = {}
        end = time.monotonic()
        self._next_write = end + (end - start) / self._SHARE
