"""Long computations beside a responsive Slicer: one thread that computes, a timer that takes its results."""

from __future__ import annotations

import contextlib
import gc
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import qt

# Slicer's main thread keeps Python's lock while it waits for events, so that other Python threads run only while
# Python code of the main thread waits: the timer's slot does, this long each time that no event is left, in seconds.
_PATIENCE = 0.02
# How long the thread may take to leave its slice, in seconds.
_PARTING = 10.0
# After how many new objects the main thread collects garbage while a job runs.
_GARBAGE = 10_000


class StoppedError(Exception):
    """Leaves a computation that was told to stop."""


@dataclass(eq=False)
class Job:
    """A computation on its way.

    :param compute: runs in the thread, a generator of results, which may `post` others; it must touch neither Qt nor
        MRML.
    :param take: called with each result in the main thread.
    :param end: called once in the main thread, after the last result: with the error that ended it, or None; whether
        it was stopped tells `stopped`.
    :param total: how much there is to do, as far as that is known before.
    """

    compute: Callable[[Job], Iterator[Any]]
    take: Callable[[Any], None]
    end: Callable[[BaseException | None], None]
    total: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _post: Callable[[Any], None] = lambda result: None

    @property
    def stopped(self) -> bool:
        """Return whether the job was told to stop."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Tell the computation to end; no result is taken any more."""
        self._stop.set()

    def post(self, result: Any) -> None:
        """Give a result from within the computation, as a callback can; leaves it if the job was told to stop."""
        self.raise_if_stopped()
        self._post(result)

    def raise_if_stopped(self) -> None:
        """Leave the computation if it was told to stop; called in the thread, often."""
        if self.stopped:
            raise StoppedError


class Stoppable:
    """Any object, usable until a job is told to stop: every access to it asks for that first."""

    def __init__(self, wrapped: Any, job: Job) -> None:
        self._wrapped = wrapped
        self._job = job

    def __getattr__(self, name: str) -> Any:
        self._job.raise_if_stopped()
        return getattr(self._wrapped, name)


class Worker:
    """Runs one job after the other in a thread of its own (what CUDA prepares is kept per thread).

    Python collects garbage in whatever thread happens to make the next object, but Qt's and VTK's objects must die in
    the main one: while a job runs, only the timer's slot collects.

    Usage example::

        worker = Worker()
        job = worker.run(Job(compute=lambda job: (n * n for n in range(3)), take=print, end=print))
        job.stop()
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[Job, bool, Any]] = queue.SimpleQueue()
        self._open: list[Job] = []
        self._thread: threading.Thread | None = None
        self._timer = qt.QTimer()
        # Zero: whenever there is no event to handle.
        self._timer.setInterval(0)
        self._timer.connect("timeout()", self._poll)
        self._collects = False

    @property
    def busy(self) -> bool:
        """Return whether a job has not ended yet."""
        return bool(self._open)

    def run(self, job: Job) -> Job:
        """Start a job, after those that run already, and return it."""
        if self._thread is None:
            # A daemon: Slicer can always exit.
            self._thread = threading.Thread(target=self._loop, name="MedSAM", daemon=True)
            self._thread.start()
        job._post = lambda result: self._results.put((job, False, result))
        if gc.isenabled():
            gc.disable()
            self._collects = True
        self._open.append(job)
        self._jobs.put(job)
        self._timer.start()
        return job

    def stop(self) -> None:
        """Tell all jobs to stop; their ends are still called."""
        for job in self._open:
            job.stop()

    def close(self) -> None:
        """Stop everything for good, without calling any end: what the jobs belong to is going away.

        Waits for the thread for some seconds: a process that exits while torch computes in another thread crashes.
        """
        self.stop()
        self._open.clear()
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(_PARTING)
            self._thread = None
        self._rest()

    def _loop(self) -> None:
        while (job := self._jobs.get()) is not None:
            error: BaseException | None = None
            try:
                job.raise_if_stopped()
                with contextlib.closing(job.compute(job)) as results:  # type: ignore[type-var]
                    for result in results:
                        job.post(result)
            except StoppedError:
                pass
            except BaseException as caught:  # whatever it is, the main thread has to hear of it
                error = caught
            self._results.put((job, True, error))

    def _poll(self) -> None:
        """Called by the timer, in the main thread; takes one result, so that the views get their turn."""
        with contextlib.suppress(queue.Empty):
            self._handle(*self._results.get(timeout=_PATIENCE))
        if gc.get_count()[0] > _GARBAGE:
            gc.collect(1)
        if not self._open:
            self._rest()

    def _rest(self) -> None:
        """Let everything be as it is without a job."""
        self._timer.stop()
        if self._collects:
            gc.enable()
            self._collects = False

    def _handle(self, job: Job, ended: bool, result: Any) -> None:
        if job not in self._open:
            return
        if not ended:
            if not job.stopped:
                try:
                    job.take(result)
                except Exception as error:
                    # The end comes once, and tells the first error.
                    job.stop()
                    self._open.remove(job)
                    job.end(error)
            return
        self._open.remove(job)
        job.end(result)
