"""The worker: computations in one thread, results in the main one, and nothing lost whatever ends them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest


class Followed:
    """A job and what came of it.

    :param compute: a generator of results; it is given the job.
    """

    def __init__(self, worker: Any, compute: Callable) -> None:
        from MedSAMSlicerLib.app.worker import Job

        self.taken: list[object] = []
        self.ends: list[BaseException | None] = []
        self.job = worker.run(Job(compute, self._take, self._end))

    def _take(self, result: object) -> None:
        assert threading.current_thread() is threading.main_thread()
        self.taken.append(result)

    def _end(self, error: BaseException | None) -> None:
        assert threading.current_thread() is threading.main_thread()
        self.ends.append(error)


@pytest.fixture
def worker(gui) -> Iterator[Any]:
    from MedSAMSlicerLib.app.worker import Worker

    worker = Worker()
    yield worker
    worker.close()


def test_results_arrive_in_order_and_the_end_once_after_the_last(gui, worker):
    followed = Followed(worker, lambda job: (number for number in range(1000)))
    assert worker.busy
    gui.pump(until=lambda: not worker.busy)
    assert followed.taken == list(range(1000))
    assert followed.ends == [None]


def test_between_two_results_the_views_get_their_turn(gui, worker):
    from MedSAMSlicerLib.app.worker import Job

    order: list[object] = []
    computed = threading.Event()

    def compute(job):
        yield from range(5)
        computed.set()

    def take(number):
        order.append(number)
        gui.qt.QTimer.singleShot(0, lambda: order.append("drawn"))

    worker.run(Job(compute, take, lambda error: None))
    assert computed.wait(5), "all results are there before the first one is taken"
    gui.pump(until=lambda: not worker.busy)
    assert order[:9] == [0, "drawn", 1, "drawn", 2, "drawn", 3, "drawn", 4]


def test_jobs_run_one_after_the_other_in_one_thread_that_is_not_the_main_one(gui, worker):
    def compute(job):
        yield threading.current_thread()
        time.sleep(0.01)
        yield threading.current_thread()

    jobs = [Followed(worker, compute) for _ in range(3)]
    gui.pump(until=lambda: not worker.busy)
    threads = {thread for followed in jobs for thread in followed.taken}
    assert len(threads) == 1
    assert threads != {threading.main_thread()}
    assert all(followed.ends == [None] for followed in jobs)


def test_an_error_of_the_computation_reaches_the_end_and_the_next_job_runs(gui, worker):
    def compute(job):
        yield 1
        raise ValueError("No such slice.")

    broken, sound = Followed(worker, compute), Followed(worker, lambda job: (result for result in [2]))
    gui.pump(until=lambda: not worker.busy)
    assert broken.taken == [1]
    assert [str(error) for error in broken.ends] == ["No such slice."]
    assert (sound.taken, sound.ends) == ([2], [None])


def test_an_error_in_taking_a_result_stops_the_computation_and_reaches_the_end(gui, worker):
    from MedSAMSlicerLib.app.worker import Job

    computed, ends = [], []

    def compute(job):
        for number in range(1000):
            computed.append(number)
            yield number
            time.sleep(0.001)

    def take(result):
        raise RuntimeError("The segment is gone.")

    worker.run(Job(compute, take, ends.append))
    gui.pump(until=lambda: not worker.busy)
    sound = Followed(worker, lambda job: (result for result in [1]))
    gui.pump(until=lambda: not worker.busy)
    assert [str(error) for error in ends] == ["The segment is gone."]
    assert len(computed) < 1000
    assert sound.taken == [1]


def test_a_stopped_job_takes_no_result_any_more_cleans_up_and_ends_without_an_error(gui, worker):
    cleaned = threading.Event()

    def compute(job):
        try:
            while True:
                yield 0
                time.sleep(0.001)
        finally:
            cleaned.set()

    followed = Followed(worker, compute)
    gui.pump(until=lambda: len(followed.taken) > 3)
    followed.job.stop()
    count = len(followed.taken)
    gui.pump(until=lambda: not worker.busy)
    assert len(followed.taken) == count
    assert followed.ends == [None]
    assert followed.job.stopped
    assert cleaned.is_set()


def test_a_job_that_is_stopped_before_its_turn_computes_nothing(gui, worker):
    go_on = threading.Event()
    first = Followed(worker, lambda job: (result for result in [go_on.wait(5)]))
    second = Followed(worker, lambda job: (result for result in [2]))
    second.job.stop()
    go_on.set()
    gui.pump(until=lambda: not worker.busy)
    assert first.taken == [True]
    assert (second.taken, second.ends) == ([], [None])


def test_stopping_the_worker_stops_all_jobs(gui, worker):
    def compute(job):
        while True:
            yield 0
            time.sleep(0.001)

    jobs = [Followed(worker, compute) for _ in range(2)]
    worker.stop()
    gui.pump(until=lambda: not worker.busy)
    assert [followed.ends for followed in jobs] == [[None], [None]]


def test_a_callback_deep_in_the_computation_can_post_and_is_left_when_the_job_stops(gui, worker):
    from MedSAMSlicerLib.app.worker import StoppedError

    left = threading.Event()

    def compute(job):
        def report(number):
            try:
                job.post(number)
            except StoppedError:
                left.set()
                raise

        for number in range(10_000):
            report(number)
            time.sleep(0.001)
        yield "all"

    followed = Followed(worker, compute)
    gui.pump(until=lambda: len(followed.taken) > 3)
    followed.job.stop()
    gui.pump(until=lambda: not worker.busy)
    assert followed.taken == list(range(len(followed.taken)))
    assert left.is_set()


def test_what_is_stoppable_works_until_the_job_stops(gui):
    from MedSAMSlicerLib.app.worker import Job, Stoppable, StoppedError

    job = Job(lambda job: iter([]), lambda result: None, lambda error: None)
    text = Stoppable("slice", job)
    assert text.upper() == "SLICE"
    with pytest.raises(AttributeError, match="no_such"):
        text.no_such  # noqa: B018 (the access is what is tested)
    job.stop()
    with pytest.raises(StoppedError):
        text.upper()


def test_a_closed_worker_calls_nobody_and_its_thread_is_gone(gui, worker):
    def compute(job):
        while True:
            yield 0
            time.sleep(0.001)

    followed = Followed(worker, compute)
    gui.pump(until=lambda: followed.taken)
    thread = worker._thread
    worker.close()
    assert not thread.is_alive()
    count = len(followed.taken)
    gui.pump(0.1)
    assert len(followed.taken) == count
    assert followed.ends == []
    assert not worker.busy
    # It can be used again.
    again = Followed(worker, lambda job: (result for result in [1]))
    gui.pump(until=lambda: not worker.busy)
    assert again.taken == [1]


def test_the_main_thread_waits_for_results_where_it_leaves_python_to_the_computation(gui, worker, monkeypatch):
    # Slicer's main thread keeps Python's lock in its event loop; only a wait in Python code gives it away.
    waits = []

    class Results:
        """The queue of results, and the waits at it."""

        put = staticmethod(worker._results.put)
        take = staticmethod(worker._results.get)

        def get(self, timeout: float) -> object:
            waits.append(timeout)
            return self.take(timeout=timeout)

    monkeypatch.setattr(worker, "_results", Results())
    followed = Followed(worker, lambda job: (result for result in [sum(range(1_000_000))]))
    gui.pump(until=lambda: not worker.busy)
    assert len(followed.taken) == 1
    assert waits
    assert min(waits) > 0
