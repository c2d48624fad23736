"""Threads beside the reactor, in which policies are evaluated, each within a time limit.

A request costs one call into a thread and a part of one back: whatever the
threads have finished meanwhile comes back in one turn of the reactor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

__all__ = ["THREADS", "Evaluators"]

T = TypeVar("T")

#: How many: a slow evaluation must not hold up all others.
THREADS: Final = 2


class _Job(Generic[T]):
    """Something to work out.

    :ivar given_up: whether nobody waits for it any more.
    """

    __slots__ = ("given_up", "late", "result", "waiting", "work")

    def __init__(self, work: Callable[[], T]) -> None:
        self.work = work
        self.waiting: Deferred[T] = Deferred(self._cancelled)
        self.given_up = False
        self.late: Any = None
        self.result: Any = None

    def _cancelled(self, _: Deferred[T]) -> None:
        self.finish()

    def finish(self) -> bool:
        """End it, once: whether it had not ended before."""
        if self.given_up:
            return False
        self.given_up = True
        if self.late is not None and self.late.active():
            self.late.cancel()
        return True


class Evaluators:
    """The threads. They start with the first job, and end with the process.

    :param reactor: provides IReactorFromThreads and IReactorTime.
    """

    def __init__(self, reactor: Any, threads: int = THREADS) -> None:
        self._reactor = reactor
        self._threads = threads
        self._jobs: SimpleQueue[_Job[Any]] = SimpleQueue()
        self._done: deque[_Job[Any]] = deque()
        self._started = False
        self._called = False

    def __repr__(self) -> str:
        return f"<Evaluators {self._jobs.qsize()} waiting>"

    def run(self, work: Callable[[], T], seconds: float, otherwise: T) -> Deferred[T]:
        """Call ``work`` in a thread.

        :return: fires with its result; with ``otherwise`` when it is not there in time; errbacks
            with what it raises.
        """
        if not self._started:
            self._start()
        job = _Job(work)
        if seconds:
            job.late = self._reactor.callLater(seconds, self._give_up, job, otherwise)
        self._jobs.put(job)
        return job.waiting

    def _start(self) -> None:
        self._started = True
        for number in range(self._threads):
            Thread(target=self._work, name=f"policy-{number}", daemon=True).start()

    def _give_up(self, job: _Job[T], otherwise: T) -> None:
        if job.finish():
            job.waiting.callback(otherwise)

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job.given_up:
                continue
            try:
                job.result = job.work()
            except Exception:
                job.result = Failure()
            self._done.append(job)
            if not self._called:
                # Otherwise a call is on its way, which has not yet looked at what is done.
                self._called = True
                self._reactor.callFromThread(self._deliver)

    def _deliver(self) -> None:
        self._called = False
        while self._done:
            job = self._done.popleft()
            if job.finish():
                if isinstance(job.result, Failure):
                    job.waiting.errback(job.result)
                else:
                    job.waiting.callback(job.result)
