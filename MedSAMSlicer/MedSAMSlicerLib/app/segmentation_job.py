"""A segmentation in the worker: the model is loaded and run in the thread, slices are written in the main one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from MedSAMSlicerLib.app.worker import Job, Stoppable
from MedSAMSlicerLib.mrml.task import SegmentationTask, Step
from MedSAMSlicerLib.volume.embedding_cache import EmbeddingCache

if TYPE_CHECKING:
    from MedSAMSlicerLib.volume.slice_masks import Outcome, Predictor

Load = Callable[[str | None], "Predictor"]


def segmentation_job(
    task: SegmentationTask,
    load: Load,
    cache: EmbeddingCache,
    *,
    onStep: Callable[[Step], None],
    onMessage: Callable[[str], None],
    onEnd: Callable[[BaseException | None, Mapping[str, Outcome]], None],
    keepOnStop: Callable[[], bool],
) -> Job:
    """Make a job of a task.

    :param load: returns the model on a device ("cpu", ...; None for the chosen one); called in the thread.
    :param onStep: called after every slice.
    :param onMessage: called with what the user should know meanwhile.
    :param onEnd: called when the segments are as they stay: with the error, or None, and by segment ID what the user
        should know of each.
    :param keepOnStop: whether slices that are done when the job is stopped stay, or all is as before.
    """

    def compute(job: Job) -> Iterator[Any]:
        from MedSAMSlicerLib.inference.enduring_predictor import EnduringPredictor

        yield from task.compute(Stoppable(EnduringPredictor(load, cache.clear, job.post), job), cache)

    def take(result: Any) -> None:
        if isinstance(result, str):
            onMessage(result)
        else:
            onStep(task.take(*result))

    def end(error: BaseException | None) -> None:
        try:
            if error is None and not job.stopped:
                task.finish()
            elif error is None and keepOnStop():
                task.keep()
            else:
                task.roll_back()
        except Exception as failed:
            task.roll_back()
            error = error or failed
        onEnd(error, task.outcomes)

    job = Job(compute, take, end, task.total)
    return job
