"""A volume and an ROI in, a segment out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import slicer

from MedSAMSlicerLib.mrml.boxes import fit_depths
from MedSAMSlicerLib.mrml.history import History, Undone
from MedSAMSlicerLib.mrml.segment_state import PackedMask, SegmentState
from MedSAMSlicerLib.mrml.structure import Structure
from MedSAMSlicerLib.mrml.task import SegmentationTask, Step
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache
from MedSAMSlicerLib.volume.key_slices import KeySlice
from MedSAMSlicerLib.volume.review import SliceReview
from MedSAMSlicerLib.volume.slice_masks import Predictor


class SegmentationSession:
    """Segments structures of volume nodes into segmentation nodes with one model.

    Slices that were segmented before are not encoded again. Every call of `segment` or `segment_by_slice` is one step
    of `undo`, of which the last ten are kept. The source volume and all other segments stay as they are.

    Usage example::

        session = SegmentationSession(Predictor(load_checkpoint(path)))
        segment_id = session.segment(volume_node, roi_node, segmentation_node)
        session.undo(segmentation_node)

    :param predictor: the model, see `inference.predictor.Predictor`; may be given later, before anything is computed.
    :param cache: where slice embeddings are kept; give one to share it between sessions.
    :param save_state: called with a segmentation right before it is changed, for a history that others keep.
    """

    def __init__(
        self,
        predictor: Predictor | None = None,
        cache: EmbeddingCache | None = None,
        save_state: Callable[[slicer.vtkMRMLSegmentationNode], object] = lambda segmentation: None,
    ) -> None:
        self.predictor = predictor
        # Not "or": a cache that is still empty is false.
        self.cache = EmbeddingCache() if cache is None else cache
        self._save_state = save_state
        self._histories: dict[slicer.vtkMRMLSegmentationNode, History] = {}
        self._reviews: dict[tuple[slicer.vtkMRMLSegmentationNode, str], list[SliceReview]] = {}
        # By segment: the masks that were made, and the review of each.
        self._reviewed: dict[
            tuple[slicer.vtkMRMLSegmentationNode, str], list[tuple[PackedMask, list[SliceReview]]]
        ] = {}

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
        **options: Any,
    ) -> Iterator[Step]:
        """Segment what an ROI holds, slice by slice; from one that is a box on one slice, it is followed until it ends.

        The segment grows while the steps are taken. A caller who stops early (closes the generator) keeps the slices
        that are done; after an error the segmentation is as it was before. Nothing happens before the first step.

        To correct a segment, call this again for it with key slices; to take one back, without it. What was decoded
        before is not decoded again. The segment stays as it is until the correction is complete; stopped early, there
        is none.

        :param roi: the box around the structure; without it the structure is followed from the first key slice to both
            sides until it ends.
        :param segment_id: the segment whose content is replaced; by default a new one with the ROI's name.
        :param key_slices: flat ROIs, or what `mrml.key_slices.painted_slice` makes of a slice painted by hand.
        :param options: see `begin`.
        :raises ValueError: if a node is missing or can't be used, the ROI or a key slice lies outside of the volume, or
            an option is unknown.
        """
        structure = Structure.of_roi(volume, roi, segment_id, key_slices)
        yield from self.run(self.begin(volume, segmentation, [structure], **options))

    def begin(
        self,
        volume: slicer.vtkMRMLVolumeNode,
        segmentation: slicer.vtkMRMLSegmentationNode,
        structures: Sequence[Structure],
        *,
        axis: str = "auto",
        window: str = "auto",
        propagation: str = "auto",
        first: tuple[int, int] | None = None,
        limit: float | None = None,
        editor_node: slicer.vtkMRMLSegmentEditorNode | None = None,
    ) -> SegmentationTask:
        """Read all that the segmentation of structures needs of their nodes; nothing is changed yet.

        :param axis: of the slices, "i", "j", "k" or "auto", see `volume.geometry.choose_axis`; without an ROI "auto" is
            the first key slice's, and a box on one slice is always followed along its own.
        :param window: see `volume.intensity.resolve_window`.
        :param propagation: a name in `volume.propagation.PROPAGATIONS`, by default the one that suits the model.
        :param first: the slice to begin with, (axis, index), see `task.SegmentationTask`.
        :param limit: how far a structure without a 3-D box is followed to either side, in millimeters; by default until
            it ends.
        :param editor_node: a Segment Editor's settings, for its masking and overwrite rules to hold; by default the
            segments may overlap others, which stay as they are.
        :raises ValueError: if a node is missing or can't be used, a structure lies outside of the volume, or an option
            is unknown.
        """
        return SegmentationTask(
            volume,
            segmentation,
            structures,
            save_state=lambda: self._save_state(segmentation),
            record=lambda edit: self._history(segmentation).add(edit),
            remember=lambda segment_id, slices: self._remember(segmentation, segment_id, slices),
            axis=axis,
            window=window,
            propagation=propagation,
            first=first,
            limit=limit,
            editor_node=editor_node,
        )

    def run(self, task: SegmentationTask, predictor: Predictor | None = None) -> Iterator[Step]:
        """Carry a task out in this thread, slice by slice; closed early, it keeps what is done.

        :param predictor: instead of the session's.
        """
        predictor = predictor or self.predictor
        if predictor is None:
            raise RuntimeError("The session has no model yet: set its predictor.")
        try:
            try:
                for number, result in task.compute(predictor, self.cache):
                    yield task.take(number, result)
                task.finish()
            except GeneratorExit:
                task.keep()
        except BaseException:
            task.roll_back()
            raise

    def review(self, segmentation: slicer.vtkMRMLSegmentationNode, segment_id: str) -> list[SliceReview]:
        """List the slices of a segment, those first where a correction promises most.

        That is where most voxels are expected to be wrong, see `volume.review.review`. Key slices come last.

        :return: as the segment was last made in this session, or made before where that was undone; empty for any
            other segment.
        """
        return list(self._reviews.get((segmentation, segment_id), ()))

    def undoable(self, segmentation: slicer.vtkMRMLSegmentationNode) -> Undone:
        """Tell what `undo` would do; if that is nothing, ``left`` says why, or is empty where no run is left."""
        return self._history(segmentation).undoable()

    def redoable(self, segmentation: slicer.vtkMRMLSegmentationNode) -> Undone:
        """Tell what `redo` would do, see `undoable`."""
        return self._history(segmentation).redoable()

    def undo(self, segmentation: slicer.vtkMRMLSegmentationNode) -> Undone:
        """Take the last run back.

        Only what it wrote, and only in segments that nobody has changed since: what was edited, renamed, added or
        deleted stays. Boxes on one slice get the depth of the segment that is there afterwards.

        :return: what was done, and what was left and why; false if there is no run to take back.
        :raises ValueError: if all that is left of the run was changed since.
        """
        return self._revert(segmentation, self.undoable(segmentation), self._history(segmentation).undo)

    def redo(self, segmentation: slicer.vtkMRMLSegmentationNode) -> Undone:
        """Bring back what was undone last, as `undo` takes it back."""
        return self._revert(segmentation, self.redoable(segmentation), self._history(segmentation).redo)

    def _revert(
        self, segmentation: slicer.vtkMRMLSegmentationNode, outlook: Undone, revert: Callable[[], Undone]
    ) -> Undone:
        if outlook:
            self._save_state(segmentation)
        undone = revert()
        for segment_id in undone.segment_ids:
            key, state = (segmentation, segment_id), SegmentState.of(segmentation, segment_id)
            known, shown = self._reviewed.get(key, []), self._reviews.get(key)
            same = (each for mask, each in reversed(known) if state and mask.equals(state.mask))
            # Painted between two runs: what the first one was reviewed as is nearest.
            before = next((number for number, (_, each) in enumerate(known) if each is shown), 0)
            nearest = known[before - 1][1] if state and before else []
            self._reviews[key] = next(same, nearest)
        fit_depths(segmentation)
        return undone

    def _remember(
        self, segmentation: slicer.vtkMRMLSegmentationNode, segment_id: str, slices: list[SliceReview]
    ) -> None:
        """Keep the review of a segment that was made, also for when it is undone and comes back."""
        key = (segmentation, segment_id)
        self._reviews[key] = slices
        state = self._history(segmentation).left(segment_id) or SegmentState.of(segmentation, segment_id)
        if state is not None:
            self._reviewed[key] = [*self._reviewed.get(key, ()), (state.mask, slices)][-History.LENGTH - 1 :]

    def _history(self, segmentation: slicer.vtkMRMLSegmentationNode) -> History:
        if segmentation is None:
            raise ValueError("No segmentation is given: choose the one whose segmentations are to be undone.")
        # A node that left its scene can't be undone any more; its history would only hold memory.
        self._histories = {node: history for node, history in self._histories.items() if node.GetScene()}
        self._reviews = {key: review for key, review in self._reviews.items() if key[0].GetScene()}
        self._reviewed = {key: known for key, known in self._reviewed.items() if key[0].GetScene()}
        return self._histories.setdefault(segmentation, History(segmentation))
