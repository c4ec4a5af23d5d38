"""Section Result of the module: start, follow, stop, undo, and show what comes out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import slicer
import slicer.util
from slicer.i18n import tr as _

from MedSAMSlicerLib.app.segment_editor import segment_editor_node
from MedSAMSlicerLib.app.settings import remember, setting
from MedSAMSlicerLib.mrml.boxes import belong
from MedSAMSlicerLib.mrml.editing_rules import outside_others
from MedSAMSlicerLib.mrml.history import Undone
from MedSAMSlicerLib.mrml.outcomes import told
from MedSAMSlicerLib.mrml.structure import Structure
from MedSAMSlicerLib.store.pace import remember_pace, seconds_for
from MedSAMSlicerLib.store.pace import told as told_time
from MedSAMSlicerLib.volume.slice_masks import Outcome

if TYPE_CHECKING:
    from MedSAMSlicerLib.app.host import Host

Read = Callable[[], Sequence[tuple[Any, Structure]]]


class ResultSection(slicer.util.VTKObservationMixin):
    """Runs segmentations and shows how far they are."""

    def __init__(self, panel: Host) -> None:
        super().__init__()
        self._panel = panel
        self._segmentation: Any = None
        self._made: dict[Any, tuple[Any, str]] = {}
        self._job: Any = None
        self._next: Read | None = None
        self._start = self._first_step = 0.0
        self._embedded = 0
        ui = panel.ui
        ui.cancelButton.connect("clicked(bool)", lambda *args: self.cancel())
        ui.undoButton.connect("clicked(bool)", lambda *args: self.undo())
        ui.redoButton.connect("clicked(bool)", lambda *args: self.redo())
        ui.show3DButton.connect("clicked(bool)", self._show_3d)
        ui.keepOnCancelCheckBox.checked = setting("keepOnCancel") == "true"
        ui.keepOnCancelCheckBox.connect(
            "toggled(bool)", lambda checked: remember("keepOnCancel", "true" if checked else "false")
        )

    @property
    def running(self) -> bool:
        """Return whether a segmentation runs."""
        return self._job is not None

    def segment(self, read: Read) -> None:
        """Segment structures; what runs already is stopped first, and its slices are taken back."""
        if self._job is not None:
            self._next = read
            self._job.stop()
            return
        panel, parameters = self._panel, self._panel.parameters
        try:
            volume, segmentation = parameters.inputVolume, panel.segmentation()
            pairs = read()
            self._job = panel.logic.startSegmentation(
                volume,
                segmentation,
                [structure for _roi, structure in pairs],
                {
                    "onStep": lambda step: self._on_step(step, pairs, segmentation),
                    "onMessage": panel.tell,
                    "onEnd": lambda error, outcomes: self._on_end(error, outcomes, volume, segmentation),
                    "keepOnStop": lambda: self._next is None and setting("keepOnCancel") == "true",
                },
                model=setting("model"),
                device=setting("device"),
                window=parameters.window,
                first=panel.slice_in_view(),
                limit=parameters.limit or None,
                editor_node=_rules(parameters),
            )
        except (ValueError, RuntimeError, OSError) as error:
            panel.tell(str(error), error=True)
            return
        self._start, self._first_step = time.monotonic(), 0.0
        self._embedded = len(panel.logic.session.cache)
        panel.ui.progressBar.maximum = 0  # busy, until the first slice is there
        panel.tell(_("Loading the model and reading the first slice…") + self._foretold(pairs))
        panel.update()

    def cancel(self) -> None:
        """Stop what runs; what is done stays or not, as the user has chosen."""
        self._next = None
        if self._job is not None:
            self._job.stop()
            self._panel.tell(_("Stopping after the current slice…"))

    def undo(self) -> None:
        """Take the last segmentation back."""
        self._revert(self._panel.logic.undo, _("Undone: {names}."))

    def redo(self) -> None:
        """Bring back what was undone."""
        self._revert(self._panel.logic.redo, _("Brought back: {names}."))

    def update(self, missing: str) -> None:
        """Enable what can be done.

        :param missing: what has to be given before anything can be segmented; empty if nothing.
        """
        ui, segmentation = self._panel.ui, self._panel.parameters.segmentation
        self._follow(segmentation)
        ui.segmentButton.enabled = not missing and not self.running
        ui.segmentButton.toolTip = missing or _("Segment what the ticked boxes hold.")
        ui.cancelButton.enabled = self.running
        # The masking section says itself where segments may go.
        ui.keepOutCheckBox.enabled = not self._panel.parameters.useEditingRules
        session = self._panel.logic.session
        for button, outlook, can, nothing in (
            (ui.undoButton, session.undoable, _("Take back: {names}."), _("There is no segmentation to take back.")),
            (ui.redoButton, session.redoable, _("Bring back: {names}."), _("There is nothing to bring back.")),
        ):
            undone = outlook(segmentation) if segmentation is not None and not self.running else Undone()
            button.enabled = bool(undone)
            button.toolTip = _said(undone, can) or nothing
        ui.show3DButton.enabled = segmentation is not None and segmentation.GetSegmentation().GetNumberOfSegments() > 0
        surface = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
        ui.show3DButton.checked = segmentation is not None and segmentation.GetSegmentation().ContainsRepresentation(
            surface
        )

    def close(self) -> None:
        """Stop what runs and follow no node any more; what it belongs to is going away."""
        self._follow(None)
        self._next = None
        if self._job is not None:
            self._job.stop()

    def _follow(self, segmentation: Any) -> None:
        """Observe what is done to a segmentation elsewhere: it decides on what can be undone."""
        if segmentation is self._segmentation:
            return
        self.removeObservers(self._on_segments_changed)
        self._segmentation = segmentation
        events = slicer.vtkSegmentation
        for event in (
            events.SegmentAdded,
            events.SegmentRemoved,
            events.SegmentModified,
            events.RepresentationModified,
        ):
            if segmentation is not None:
                self.addObserver(segmentation, event, self._on_segments_changed)

    def _on_segments_changed(self, _segmentation: Any, _event: Any) -> None:
        if not self.running:
            self._panel.update()

    def _on_step(self, step: Any, pairs: Sequence[tuple[Any, Structure]], segmentation: Any) -> None:
        if (roi := pairs[step.structure][0]) is not None:
            self._made[roi] = (segmentation, step.segment_id)
        self._first_step = self._first_step or time.monotonic()
        bar = self._panel.ui.progressBar
        bar.maximum, bar.value = step.total, step.done
        if pairs[step.structure][1].is_followed and not step.result.final:
            bar.maximum = 0  # how many slices there are is to be found
            self._panel.tell(
                _("Following {name}: slice {slice}").format(name=pairs[step.structure][1].name, slice=step.result.index)
            )
        elif step.done < step.total:
            left = (time.monotonic() - self._start) / step.done * (step.total - step.done)
            self._panel.tell(
                _("Slice {done} of {total}, about {left} s left").format(
                    done=step.done, total=step.total, left=round(left)
                )
            )
        else:
            self._panel.tell(_("Fitting the slices together…"))

    def _on_end(
        self, error: BaseException | None, outcomes: Mapping[str, Outcome], volume: Any, segmentation: Any
    ) -> None:
        job, self._job = self._job, None
        stopped = job is not None and job.stopped
        self._bind(volume)
        bar = self._panel.ui.progressBar
        bar.maximum, bar.value = 100, 0 if error or stopped else 100
        if error is not None:
            self._panel.tell(str(error) or type(error).__name__, error=True)
        elif stopped:
            self._panel.tell(_("Stopped."))
        else:
            self._remember_pace(job.total)
            sentences = [_("Done in {seconds} s.").format(seconds=round(time.monotonic() - self._start, 1))]
            for segment_id, outcome in outcomes.items():
                if said := " ".join(told(outcome)):
                    name = segmentation.GetSegmentation().GetSegment(segment_id).GetName()
                    sentences.append(f"{name}: {said}")
            self._panel.tell(" ".join(sentences))
        self._panel.save_case()
        self._panel.update()
        following, self._next = self._next, None
        if following is not None and self._panel.parameters is not None:
            self.segment(following)

    def _foretold(self, pairs: Sequence[tuple[Any, Structure]]) -> str:
        """Say how long the run will take, where a like one was measured and its slices are known."""
        seconds = seconds_for(_kind(), self._job.total)
        if seconds is None or any(structure.is_followed for _roi, structure in pairs):
            return ""
        return " " + _("{count} slices take about {time}, less where they were segmented before.").format(
            count=self._job.total, time=told_time(seconds)
        )

    def _remember_pace(self, total: int) -> None:
        # From the first mask on: before that the model was loaded. Slices that were embedded before tell nothing.
        if self._first_step and 2 * (len(self._panel.logic.session.cache) - self._embedded) > total:
            remember_pace(_kind(), total - 1, time.monotonic() - self._first_step)

    def _revert(self, revert: Callable[[Any], Undone], done: str) -> None:
        segmentation = self._panel.parameters.segmentation
        if self.running or segmentation is None:
            return
        try:
            if undone := revert(segmentation):
                self._panel.tell(_said(undone, done))
        except ValueError as error:
            self._panel.tell(str(error), error=True)
        self._panel.update()

    def _bind(self, volume: Any) -> None:
        """Let each box belong to the segment that was made from it, if the run has left it there."""
        made, self._made = self._made, {}
        for roi, (segmentation, segment_id) in made.items():
            segment = segmentation.GetSegmentation().GetSegment(segment_id)
            if None not in (segment, roi.GetScene(), segmentation.GetScene(), volume.GetScene()):
                belong(roi, volume, segmentation, segment_id)

    def _show_3d(self, show: bool) -> None:
        segmentation = self._panel.parameters.segmentation
        if show:
            segmentation.CreateClosedSurfaceRepresentation()
        else:
            segmentation.RemoveClosedSurfaceRepresentation()
        self._panel.update()


def _rules(parameters: Any) -> Any:
    """Return the settings of a Segment Editor that hold for the result; None if there are none."""
    if parameters.useEditingRules:
        return segment_editor_node()
    return outside_others() if parameters.keepOut else None


def _kind() -> str:
    """Name what the time of a slice depends on."""
    return f"module {setting('model')} {setting('device')}"


def _said(undone: Undone, text: str) -> str:
    """Say which segments an undo is about, and which it leaves as they are."""
    names = text.format(names=", ".join(undone.names)) if undone else ""
    return f"{names} {undone.left[:1].upper()}{undone.left[1:]}".strip()
