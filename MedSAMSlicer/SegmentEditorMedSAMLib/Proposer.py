"""The way of a proposal: computed in the worker thread, corrected, and at last written to its segment or dropped."""

from __future__ import annotations

import logging

import numpy as np
import slicer
from slicer.i18n import tr as _

from SegmentEditorMedSAMLib.EditTarget import EditTarget
from SegmentEditorMedSAMLib.Proposal import Proposal

SET, ADD, SUBTRACT = "set", "add", "subtract"


class _NoModelError(RuntimeError):
    """The model can't be loaded; the text says why."""


class Proposer:
    """Holds one proposal at a time; all is called in the main thread.

    :param options: with ``threeD``, ``previewsRange``, ``mode`` and ``sliceRange(target)``, see EffectOptions.
    :param changed: called when the proposal looks different, or there is another one or none.
    :param tell: called with a text for the user.
    """

    def __init__(self, scriptedEffect, options, changed, tell):
        self._effect = scriptedEffect
        self._options = options
        self._changed = changed
        self._tell = tell
        self.proposal = None
        # Waits for corrections after it was accepted.
        self._accepted = None
        self._job = None
        self._acceptAtEnd = False
        # The mask that was on show when a range was accepted before it was complete.
        self._seen = None

    def target(self):
        """Return the target of the proposal, or of a new one if there is none or it is outdated.

        :raises ValueError: see `EditTarget`.
        """
        if self.proposal is not None and self.proposal.target.isCurrent():
            return self.proposal.target
        return EditTarget(self._effect)

    def propose(self, target, key):
        """Propose the mask of a box; an earlier proposal is corrected by it in 3-D, and accepted in 2-D.

        :param target: as `target` returned it.
        :param key: the box's KeySlice.
        """
        unfinished = self._job is not None
        self._stop()
        if self.proposal is not None and (
            self.proposal.target is not target or (unfinished and not self._options.threeD)
        ):
            self.drop()
        if self.proposal is not None and not self._options.threeD:
            self._write()
        if self.proposal is None:
            self.proposal = Proposal(target, _logic().windowFor(target.volumeNode))
        keysBefore = self.proposal.keys
        self.proposal.add(key)
        wholeRange = self._options.threeD and (self._options.previewsRange or self.proposal.propagated)
        self._compute(key, wholeRange, keysBefore)

    def accept(self):
        """Write the proposal; what is not there yet is computed first.

        Of a range that is previewed only what was seen is written: where the result turns out to be another than what
        is on show now, it is shown and has to be accepted again.
        """
        if self.proposal is None or not self.dropIfOutdated():
            return
        if self._job is not None:
            self._acceptAtEnd = True
            if self._options.threeD and (self._options.previewsRange or self.proposal.propagated):
                self._seen = self.proposal.mask.copy()
            self._tell(_("The result will be written as soon as it is there, if it is what you see. Esc drops it."))
        elif self._options.threeD and not self.proposal.propagated:
            self._acceptAtEnd = True
            self._compute(None, True, self.proposal.keys)
        else:
            self._write()

    def refresh(self):
        """Compute the proposed range again, as the user has set it now."""
        if self.proposal is not None and self.proposal.propagated and self._options.threeD:
            self._stop()
            self._compute(None, True, self.proposal.keys)

    def correct(self):
        """Take up the last accepted proposal again; slices that were changed by hand since then stay as they are."""
        accepted = self._accepted
        if self.proposal is not None:
            self._tell(_("Draw a box in a slice where the proposal is wrong, then apply it."))
        elif accepted is None or not self._options.threeD or not accepted.target.isCurrent():
            self._tell(_("There is nothing to correct: apply a result in 3-D first."))
        else:
            accepted.reopen(accepted.target.segmentVoxels())
            self.proposal = accepted
            self._compute(None, True, accepted.keys)

    def drop(self, reason=""):
        """Forget the proposal; the segment stays as it is."""
        self._stop()
        if self.proposal is not None:
            self.proposal = None
            self._changed()
            self._tell(reason)

    def dropIfOutdated(self):
        """Forget the proposal if its segment or volume is not what it was made for; return whether it is."""
        if self.proposal is not None and not self.proposal.target.isCurrent():
            self.drop(_("The segment or the volume has changed: draw a new box."))
            return False
        return True

    def forget(self):
        """Drop the proposal, and what could be corrected."""
        self.drop()
        self._accepted = None

    def _stop(self):
        self._acceptAtEnd, self._seen = False, None
        if self._job is not None:
            self._job.stop()
            self._job = None

    def _compute(self, key, wholeRange, keysBefore):
        """Start the job: the slice of a new box first, then the range.

        :param keysBefore: the key slices to return to if nothing comes of it.
        """
        from MedSAMSlicerLib.app.worker import Job, Stoppable

        proposal, keys, logic = self.proposal, self.proposal.keys, _logic()
        boxes, reach, done = {}, None, set()
        if wholeRange:
            try:
                sliceRange = self._options.sliceRange(proposal.target)
                boxes, reach = sliceRange.boxes(keys[0], proposal.target.dimensions), sliceRange.reach
            except ValueError as error:
                self._fail(error, keysBefore)
                return
            proposal.begin()

        def compute(job):
            from MedSAMSlicerLib.inference.enduring_predictor import EnduringPredictor

            def load(instead):
                return logic.loadPredictor(device=instead)

            try:
                predictor = Stoppable(EnduringPredictor(load, logic.session.cache.clear, job.post), job)
            except (RuntimeError, ImportError, OSError) as error:
                raise _NoModelError(str(error)) from error
            if key is not None:
                yield key, proposal.computeSlice(key, predictor, logic.session.cache)
            if wholeRange:
                for result in proposal.computeRange(keys, boxes, reach, predictor, logic.session.cache):
                    yield None, result
            proposal.know(predictor)

        def take(step):
            if job is self._job and isinstance(step, str):
                self._tell(step)
            elif job is self._job and self.dropIfOutdated():
                self._take(*step, done, len(boxes))

        def end(error):
            if job is self._job:
                self._job = None
                self._end(error, wholeRange, keysBefore)

        self._tell(_("Computing…"))
        job = self._job = Job(compute, take, end)
        logic.worker.run(job)

    def _take(self, key, result, done, total):
        """Show a slice, and tell how many of how many are done; where an end has to be found, that is not known."""
        if key is not None:
            self.proposal.takeSlice(key, result)
            text = _("Slice {slice}: confidence {confidence:.2f}.")
        else:
            self.proposal.takeOfRange(result)
            done.add(result.index)
            text = _("{done} of {total} slices …") if total else _("{done} slices …")
            if not result.final:
                text += " " + _("What is shown may still change.")
        values = {"slice": result.index, "confidence": result.confidence, "done": len(done), "total": total}
        self._tell(text.format(**values))
        self._changed()

    def _end(self, error, wholeRange, keysBefore):
        if error is not None:
            self._fail(error, keysBefore)
            return
        if wholeRange:
            results = self.proposal.finish()
            self._changed()
        if self.proposal.empty:
            self.drop(_("Nothing was found in the box: draw it around the structure."))
            return
        accepted, seen = self._acceptAtEnd, self._seen
        self._acceptAtEnd, self._seen = False, None
        if accepted and (seen is None or np.array_equal(seen, self.proposal.mask)):
            self.accept()
        elif wholeRange:
            doubtful = min(results, key=lambda result: result.confidence)
            text = _("{count} slices; least certain is slice {slice} (confidence {confidence:.2f}).")
            sentences = [
                text.format(count=len(results), slice=doubtful.index, confidence=doubtful.confidence),
                *_told(self.proposal),
                _("A box in any slice and view corrects it."),
            ]
            if accepted:
                sentences.insert(0, _("Not written: it is not what you saw when you accepted it. Accept it again."))
            self._tell(" ".join(sentences))

    def _fail(self, error, keysBefore):
        """Tell an error; a proposal that was there before stays without the box that has failed."""
        text = str(error) or type(error).__name__
        if isinstance(error, _NoModelError):
            text += " " + _("Open the module MedSAM to install what is missing.")
        elif not isinstance(error, ValueError):
            logging.error("MedSAM could not segment the box", exc_info=error)
        self._acceptAtEnd, self._seen = False, None
        if self.proposal.propagated:
            self.proposal.revert(keysBefore)
            self._changed()
        else:
            self.drop()
        self._tell(text)

    def _write(self):
        proposal, mode = self.proposal, self._options.mode
        # What corrections and single slices have to know.
        before = proposal.target.segmentVoxels()
        if proposal.earlier is None:
            proposal.earlier = proposal.target.told()
        modes = slicer.qSlicerSegmentEditorAbstractEffect
        if mode == SUBTRACT:
            proposal.target.write(proposal.mask, modes.ModificationModeRemove)
        elif mode == SET:
            # Of single slices only these are set: the rest of the segment stays.
            mask = proposal.mask if proposal.propagated else proposal.drawnOver(before)
            proposal.target.write(mask, modes.ModificationModeSet)
        elif proposal.base is not None:
            # Accepted before: what is no longer proposed has to go.
            proposal.target.write(proposal.base | (proposal.mask != 0), modes.ModificationModeSet)
        else:
            proposal.target.write(proposal.mask, modes.ModificationModeAdd)
        after = proposal.target.segmentVoxels()
        self._tellOrigin(proposal, mode, before, after)
        self.proposal = self._accepted = None
        if proposal.propagated and mode != SUBTRACT:
            proposal.remember(before, after)
            self._accepted = proposal
        self._changed()
        self._tell(" ".join([_("Written to the segment."), *_told(proposal), _("Undo takes it back.")]))

    def _tellOrigin(self, proposal, mode, before, after):
        """Let the segment tell where what was written comes from, and what it was added to.

        :param before: what the segment held, bool (K, J, I); what it holds now is ``after``.
        """
        from MedSAMSlicerLib.mrml.editing_rules import cut_told
        from MedSAMSlicerLib.volume.provenance import added_to

        if np.array_equal(before, after):
            return
        held = proposal.base if proposal.base is not None else before
        replaces = proposal.propagated and (mode == SET or (mode == ADD and not held.any()))
        if mode == SUBTRACT:
            reservation = "It was taken away from what the segment held."
        elif not proposal.propagated:
            reservation = "Single slices of the segment were made so."
        elif not replaces:
            reservation = "It was added to what the segment held."
        elif np.array_equal(after, proposal.mask != 0):
            reservation = ""
        else:
            reservation = cut_told(self._effect.parameterSetNode())
        fields = proposal.origin(reservation)
        proposal.target.tell(fields if replaces else added_to(proposal.earlier, fields))


def _told(proposal):
    """Say what the user should know of a range beyond its masks."""
    from MedSAMSlicerLib.mrml.outcomes import told

    return told(proposal.outcome) if proposal.propagated else []


def _logic():
    return slicer.util.getModuleLogic("MedSAMSlicer")
