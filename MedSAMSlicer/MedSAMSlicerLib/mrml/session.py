"""A volume and an ROI in, a segment out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer

from MedSAMSlicerLib.mrml.key_slices import key_slice_of
from MedSAMSlicerLib.mrml.markups import slice_boxes
from MedSAMSlicerLib.mrml.segments import SegmentWriter, add_segment, require_labelmaps
from MedSAMSlicerLib.mrml.volumes import voxels
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.geometry import slice_of
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.propagation import propagation_named
from MedSAMSlicerLib.volume.review import SliceReview, review
from MedSAMSlicerLib.volume.segmentation import segment_structure
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
        self._reviews: dict[tuple[slicer.vtkMRMLSegmentationNode, str], list[SliceReview]] = {}

    def segment(
        self,
        volume: slicer.vtkMRMLVolumeNode,
        roi: slicer.vtkMRMLMarkupsROINode | None,
        segmentation: slicer.vtkMRMLSegmentationNode,
        segment_id: str | None = None,
        **options: Any,
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
        roi: slicer.vtkMRMLMarkupsROINode | None,
        segmentation: slicer.vtkMRMLSegmentationNode,
        segment_id: str | None = None,
        *,
        key_slices: Sequence[KeySlice | slicer.vtkMRMLMarkupsROINode] = (),
        axis: str = "auto",
        window: str = "auto",
        propagation: str = "path",
    ) -> Iterator[Step]:
        """Segment what an ROI holds, slice by slice.

        The segment grows while the steps are taken. A caller who stops early (closes the generator) keeps the slices
        that are done; after an error the segmentation is as it was before. Nothing happens before the first step.

        To correct a segment, call this again for it with key slices; to take one back, without it. What was decoded
        before is not decoded again. The segment stays as it is until the correction is complete; stopped early, there
        is none.

        :param roi: the box around the structure; without it the structure is followed from the first key slice to both
            sides until it ends.
        :param segment_id: the segment whose content is replaced; by default a new one with the ROI's name.
        :param key_slices: flat ROIs, or what `mrml.key_slices.painted_slice` makes of a slice painted by hand.
        :param axis: of the slices, "i", "j", "k" or "auto", see `volume.geometry.choose_axis`; without an ROI "auto" is
            the first key slice's.
        :param window: see `volume.intensity.resolve_window`.
        :param propagation: a name in `volume.propagation.PROPAGATIONS`.
        :raises ValueError: if a node is missing or can't be used, the ROI or a key slice lies outside of the volume, or
            an option is unknown.
        """
        values = voxels(volume)
        keys = [each if isinstance(each, KeySlice) else key_slice_of(each, volume) for each in key_slices]
        if roi is None and keys and axis == "auto":
            axis = "ijk"[keys[0].axis]
        stack = SliceStack(values, volume.GetSpacing(), axis=axis, window=window)
        boxes = {} if roi is None and keys else slice_boxes(roi, volume, stack.axis)
        require_labelmaps(segmentation)
        if segment_id is not None and segmentation.GetSegmentation().GetSegment(segment_id) is None:
            raise ValueError(
                f"The segmentation {segmentation.GetName()!r} has no segment {segment_id!r}: "
                "give the ID of one, or none for a new one."
            )
        propagation_named(propagation)
        history = self._history(segmentation)
        history.SaveState()
        replaces, corrects = segment_id is not None, segment_id is not None and bool(keys)
        try:
            if segment_id is None:
                segment_id = add_segment(segmentation, _name(roi, key_slices))
            if segmentation.GetDisplayNode() is None:
                segmentation.CreateDefaultDisplayNodes()
            writer = SegmentWriter(segmentation, segment_id, volume)
            pending = _PendingSlices(stack, writer, replaces=replaces, at_once=corrects)
            results: dict[int, SliceMask] = {}
            try:
                for result in segment_structure(stack, boxes, self.predictor, self.cache, keys, propagation):
                    if result.final or not corrects:
                        pending.add(result)
                    results[result.index] = result
                    yield Step(segment_id, len(results), max(len(boxes), len(results)), result)
                if corrects:
                    # Only a whole correction takes the place of what was there.
                    pending.write()
            finally:
                if not corrects:
                    pending.write()
            self._reviews[segmentation, segment_id] = review(stack.axis, results.values())
        except Exception:
            history.RestorePreviousState()
            raise

    def review(self, segmentation: slicer.vtkMRMLSegmentationNode, segment_id: str) -> list[SliceReview]:
        """List the slices of a segment, those first where a correction promises most.

        That is where most voxels are expected to be wrong, see `volume.review.review`. Key slices come last.

        :return: as the segment was last made in this session; empty for any other segment.
        """
        return list(self._reviews.get((segmentation, segment_id), ()))

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
        self._reviews = {key: review for key, review in self._reviews.items() if key[0].GetScene()}
        if segmentation not in self._histories:
            history = slicer.vtkSegmentationHistory()
            history.SetSegmentation(segmentation.GetSegmentation())
            self._histories[segmentation] = history
        return self._histories[segmentation]


def _name(roi: slicer.vtkMRMLMarkupsROINode | None, key_slices: Sequence[Any]) -> str:
    """Name a segment after its ROI, or else after the node of its first key slice."""
    node = roi or key_slices[0]
    return "Segment" if isinstance(node, KeySlice) else node.GetName()


class _PendingSlices:
    """Finished slices that are not in the segment yet.

    Writing a slice makes Slicer update the views and the 3-D surface, which can take longer than the slice itself:
    slices are written together, so that writing takes a small share of the time.

    :param replaces: the first slices that are written take the place of all that the segment holds.
    :param at_once: write only when told to, all slices together.
    """

    _SHARE = 0.1

    def __init__(self, stack: SliceStack, writer: SegmentWriter, *, replaces: bool, at_once: bool) -> None:
        self._stack = stack
        self._writer = writer
        self._replaces = replaces
        self._at_once = at_once
        self._pending: dict[int, np.ndarray] = {}
        self._written: dict[int, np.ndarray] = {}
        self._next_write = 0.0

    def add(self, result: SliceMask) -> None:
        """Take a slice; one that came before is replaced."""
        self._pending[result.index] = result.mask
        if not self._at_once and time.monotonic() >= self._next_write:
            self.write()

    def write(self) -> None:
        """Write all pending slices, each run of neighbors at once."""
        start = time.monotonic()
        if not self._pending:
            return
        if self._replaces or self._pending.keys() & self._written.keys():
            self._pending = self._written | self._pending
            self._writer.replace(self._blocks())
            self._replaces = False
        else:
            for block, first in self._blocks():
                self._writer.add(block, first)
        self._written |= self._pending
        self._pending = {}
        end = time.monotonic()
        self._next_write = end + (end - start) / self._SHARE

    def _blocks(self) -> Iterator[tuple[np.ndarray, tuple[int, int, int]]]:
        """Put neighboring slices together: blocks (K, J, I) and the voxel of the volume, IJK, that each begins at."""
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
            yield block, (first[0], first[1], first[2])
            indices = indices[len(run) :]
