"""What MedSAM proposes for a segment: masks of slices that the user has not accepted yet."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import vtk
from vtk.util.numpy_support import numpy_to_vtk


class Proposal:
    """The boxes that a user has drawn, and the masks that follow from them.

    `computeSlice` and `computeRange` run in the worker thread and change nothing that the main thread reads; what they
    yield goes to `takeSlice` and `takeOfRange` in the main thread.

    :param target: an EditTarget.
    :param window: of the intensities, see `MedSAMSlicerLib.volume.intensity.resolve_window`.
    """

    def __init__(self, target, window):
        self.target = target
        self.window = window
        # In the order in which they were drawn: the first one tells the axis of the slices.
        self.keys = ()
        self.mask = np.zeros(target.voxels.shape, dtype=np.uint8)
        # The same voxels, for the views.
        self.image = vtk.vtkImageData()
        self.image.SetDimensions(*target.dimensions)
        self.image.GetPointData().SetScalars(numpy_to_vtk(self.mask.ravel()))
        # Whether the whole range is there, not only the slices that boxes were drawn in.
        self.propagated = False
        # What the user should know of the range beyond its masks, an Outcome of `MedSAMSlicerLib.volume.slice_masks`.
        self.outcome = None
        # What the segment told of its origin before the proposal was first accepted.
        self.earlier = None
        self._source, self._propagation = {}, ""
        self._stack = None
        self._reach, self._boxed = None, False
        # The slices, (axis, index), in which the mask may not be empty.
        self._shown = set()
        # Slice index -> final mask: those of the last range, and those of the one on its way.
        self._final, self._coming = {}, {}
        self._comingOutcome = None
        self._before = self._after = None

    @property
    def axis(self):
        """Return the axis of the slices, 0 = I, 1 = J, 2 = K."""
        return self.keys[0].axis

    @property
    def empty(self):
        """Return whether nothing was found so far."""
        return not any(self._sliceOf(axis, index).any() for axis, index in self._shown)

    def add(self, key):
        """Take a key slice; it replaces one of the same slice."""
        places = [(each.axis, each.index) for each in self.keys]
        keys = list(self.keys)
        if (key.axis, key.index) in places:
            keys[places.index((key.axis, key.index))] = key
        else:
            keys.append(key)
        self.keys = tuple(keys)

    def computeSlice(self, key, predictor, cache):
        """Segment the slice of one box, as it will be among the others, and return its SliceMask."""
        from MedSAMSlicerLib.volume.candidates import outline
        from MedSAMSlicerLib.volume.segmentation import segment_structure
        from MedSAMSlicerLib.volume.slice_masks import soft_dice

        stack = self._stackAlong(key.axis)
        *_others, result = segment_structure(stack, {key.index: key.box}, predictor, cache, (key,))
        # A key slice counts as certain; here the user wants to know how sure the model was.
        probabilities, _iou = cache.prediction(predictor, stack.image(key.index), [outline(key.box)])
        return replace(result, confidence=soft_dice(probabilities[0], result.mask))

    def computeRange(self, keys, boxes, reach, predictor, cache):
        """Segment all slices of a range: yields SliceMasks.

        :param boxes: see `SliceRange.boxes`.
        :param reach: see `SliceRange.reach`.
        """
        from MedSAMSlicerLib.volume.segmentation import segment_structure

        stack = self._stackAlong(keys[0].axis)
        self._reach, self._boxed = reach, bool(boxes)
        # (Read only after the last slice has come.)
        self._comingOutcome = yield from segment_structure(stack, boxes, predictor, cache, keys, reach=reach)

    def know(self, predictor):
        """Keep what is told of the model and the volume later on; called in the thread, as it reads all voxels."""
        from MedSAMSlicerLib.mrml.provenance import source_of
        from MedSAMSlicerLib.volume.propagation import AUTO, propagation_for

        self._source, self._propagation = source_of(predictor), propagation_for(AUTO, predictor)
        self.target.digest.sha256()

    def takeSlice(self, key, result):
        """Show the slice of one box."""
        self._show(key.axis, result)

    def takeOfRange(self, result):
        """Show a slice of the range; what is shown already stays until the final masks of a correction come."""
        if result.final:
            self._coming[result.index] = result
        if result.final or not self.propagated:
            self._show(self.axis, result)

    def begin(self):
        """Prepare for the slices of a range, which may be those of a correction."""
        self._coming = {}

    def finish(self):
        """Make the slices that have come the result, nothing else is shown; return them in order."""
        self._final, self.outcome = self._coming, self._comingOutcome
        self.propagated = True
        self._showResult()
        return [self._final[index] for index in sorted(self._final)]

    def revert(self, keys):
        """Show the last result again; it came from these key slices."""
        self.keys = keys
        self._showResult()

    def drawnOver(self, held):
        """Return what a segment holds with the slices replaced that boxes were drawn in.

        :param held: bool (K, J, I); it is changed.
        """
        from MedSAMSlicerLib.volume.geometry import slice_of

        for key in self.keys:
            slice_of(held, key.axis, key.index)[:] = self._sliceOf(key.axis, key.index)
        return held

    def remember(self, before, after):
        """Keep what the segment held before and after the proposal was accepted, for its correction: (K, J, I)."""
        if self._before is None:
            self._before = np.packbits(before)
        self._after = np.packbits(after)

    @property
    def base(self):
        """Return what the segment held before the proposal was first accepted: bool (K, J, I); None before that."""
        return None if self._before is None else self._unpacked(self._before)

    def reopen(self, held):
        """Make key slices of all slices that were changed by hand since the proposal was accepted.

        If that was undone as a whole, there are none.

        :param held: bool (K, J, I), what the segment holds now.
        """
        from MedSAMSlicerLib.volume.geometry import slice_of
        from MedSAMSlicerLib.volume.key_slices import KeySlice

        before, after = self.base, self._unpacked(self._after)
        if np.array_equal(held, before):
            return
        changed = (held != after).any(axis=tuple(other for other in range(3) if other != 2 - self.axis))
        for index in np.flatnonzero(changed).tolist():
            painted = slice_of(held, self.axis, index)
            self.add(KeySlice(self.axis, index, mask=painted.copy()))
            slice_of(before, self.axis, index)[:] = painted
        self._before = np.packbits(before)

    def origin(self, reservation):
        """Tell where the mask comes from, see `MedSAMSlicerLib.volume.provenance.run_fields`."""
        from MedSAMSlicerLib.volume.provenance import Prompts, run_fields, volume_text
        from MedSAMSlicerLib.volume.review import review

        target, values = self.target, self._stack.range
        own = target.isVolumesOwn()
        start, corrections = (self.keys[0], self.keys[1:]) if self.propagated else (None, self.keys)
        if not reservation and self._boxed:
            reservation = "It was looked for from end to end of an ROI."
        if not reservation and not own:
            reservation = "It was made on the segmentation's own voxels, not the volume's."
        return run_fields(
            self._source,
            Prompts(
                axis="ijk"[self.axis],
                start=start,
                key_slices=corrections,
                limit=self._reach,
                space="IJK" if own else "IJK of the segmentation",
            ),
            volume=volume_text(target.dimensions, target.spacing, target.digest.sha256()),
            window=f"{self.window} ({values.lower:g} to {values.upper:g})",
            propagation=self._propagation,
            review=review(self.axis, self._final.values()),
            reservation=reservation,
        )

    def _unpacked(self, bits):
        return np.unpackbits(bits, count=self.mask.size).reshape(self.mask.shape).astype(bool)

    def _showResult(self):
        for axis, index in self._shown:
            self._sliceOf(axis, index)[:] = 0
        self._shown = set()
        for result in self._final.values():
            self._show(self.axis, result)

    def _show(self, axis, result):
        self._sliceOf(axis, result.index)[:] = result.mask
        self._shown.add((axis, result.index))
        self.image.GetPointData().GetScalars().Modified()

    def _sliceOf(self, axis, index):
        from MedSAMSlicerLib.volume.geometry import slice_of

        return slice_of(self.mask, axis, index)

    def _stackAlong(self, axis):
        """Return the volume cut into slices; made in the thread, as the window takes a look at all voxels."""
        from MedSAMSlicerLib.volume.slice_stack import SliceStack

        if self._stack is None:
            self._stack = SliceStack(self.target.voxels, self.target.spacing, window=self.window)
        return self._stack.along(axis)
