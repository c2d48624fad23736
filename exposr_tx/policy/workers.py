"""The processes that evaluate policies, as the server sees them.

Each of them (:mod:`worker`) has the whole set. One of them is asked at the end of a
round; what is asked while it works is gathered until it has answered, and goes to it
in one message: a message costs 250 µs, a question in it 10 besides its evaluation.
Where it takes long, another one is asked. A process that ends is replaced; what it was
asked is denied.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from exposr_tx.direct import read_directly, writer_of
from exposr_tx.interfaces import Decision
from exposr_tx.policy.compiled import Outline
from exposr_tx.policy.process import Process, start
from exposr_tx.policy.sources import Source, read_sources
from exposr_tx.policy.verdict import FAILED, LATE
from exposr_tx.policy.worker import Frames, decision_of, frame
from exposr_tx.rounds import rounds_of

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["PROCESSES", "Workers", "load"]

#: How many: a slow evaluation must not hold up all others.
PROCESSES: Final = 2
#: Questions in one message, at most.
SHARE: Final = 64
#: Seconds after which a process that works is not waited for, and another one is asked; a tenth of
#: the time to decide, where that is less. Waiting for it makes fewer and larger messages.
PATIENCE: Final = 0.002
#: Questions that there may be; more are denied as late at once.
MAX_ASKED: Final = 4096
#: Seconds between the starts of two processes that replace ones that have ended.
RESTART: Final = 1.0


def load(reactor: Any, paths: Sequence[str], budget: float) -> Deferred[Workers]:
    """Processes for policies, as they are in their files now; errbacks with PolicyInvalid. May be
    cancelled: a server that ends does not wait for policies that take their time to compile.

    :param budget: see Workers.
    """
    started: list[Process] = []

    def give_up(_loading: Deferred[Workers]) -> None:
        for process in started:
            process.kill()

    def begin() -> tuple[Sequence[Source], Outline]:
        sources = read_sources(paths)
        if loading.called:
            raise CancelledError
        return sources, start(sources, PROCESSES, started)[1]

    def ready(found: tuple[Sequence[Source], Outline]) -> None:
        if not loading.called:
            loading.callback(Workers(reactor, found[0], started, found[1], budget))
            return
        for process in started:
            process.stop()

    def failed(failure: Failure) -> None:
        if not loading.called:
            loading.errback(failure)

    loading: Deferred[Workers] = Deferred(give_up)
    deferToThreadPool(reactor, reactor.getThreadPool(), begin).addCallbacks(ready, failed)
    return loading


class _Worker(Protocol):
    """The connection to one of the processes.

    :ivar asked: numbers of what it has not answered.
    :ivar since: when it was asked.
    :ivar write: sends it a message.
    """

    transport: Any
    write: Callable[[bytes], None]

    def __init__(self, workers: Workers, process: Process) -> None:
        self.asked: set[int] = set()
        self.since = 0.0
        self.process = process
        self._workers = workers
        self._frames = Frames()

    def connectionMade(self) -> None:
        self.write = writer_of(self.transport)
        read_directly(self.transport, self.dataReceived)

    def dataReceived(self, data: bytes) -> None:
        answered = self._workers.answered
        for answers in self._frames.receive(data):
            for number, *members in answers:
                self.asked.discard(number)
                answered(number, decision_of(members))
        if not self.asked:
            self._workers.give(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._workers.ended(self)


class Workers:
    """Processes that evaluate one set of policies.

    :param sources: for processes that replace others.
    :param processes: which have compiled them.
    :param budget: seconds that there are to decide.
    :ivar outline: what is to be known of the set.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        sources: Sequence[Source],
        processes: Iterable[Process],
        outline: Outline,
        budget: float,
    ) -> None:
        self.outline = outline
        self._reactor = reactor
        self._sources = sources
        self._budget = budget
        self._patience = min(PATIENCE, budget / 10)
        self._workers: list[_Worker] = []
        self._starting: list[list[Process]] = []  # what compiles, to replace others
        self._number = 0
        # By number, and so by time: all have as long.
        self._asked: dict[int, tuple[float, Callable[[Decision], object]]] = {}
        self._gathered: list[tuple[int, str, Mapping[str, Any]]] = []
        self._timer: IDelayedCall | None = None
        self._flushing = False
        self._closed = False
        for process in processes:
            self._adopt(process)

    def __repr__(self) -> str:
        return f"<Workers {len(self._workers)} processes, {len(self._asked)} questions>"

    def _adopt(self, process: Process) -> None:
        if self._closed:
            process.stop()
            return
        worker = _Worker(self, process)
        self._workers.append(worker)
        factory = Factory.forProtocol(lambda: worker)
        factory.noisy = False
        process.connection.setblocking(False)
        descriptor = process.connection.fileno()
        self._reactor.adoptStreamConnection(descriptor, socket.AF_UNIX, factory)
        process.connection.close()
        self.give(worker)

    def ask(
        self, package: str, document: Mapping[str, Any], told: Callable[[Decision], object]
    ) -> None:
        """Evaluate.

        :param told: called with the decision, once, within the budget.
        """
        if not self._workers:
            told(FAILED)
            return
        if len(self._asked) >= MAX_ASKED:
            told(LATE)
            return
        self._number = number = self._number + 1
        self._asked[number] = (self._reactor.seconds() + self._budget, told)
        self._gathered.append((number, package, document))
        if not self._flushing:
            self._look()
        if self._timer is None:
            self._timer = self._reactor.callLater(self._budget, self._expire)

    def _look(self) -> None:
        """See to it that somebody is asked: who is idle, when the round is over; but where another
        one has only begun, it may well be done first, and takes all there is."""
        busy = [worker.since for worker in self._workers if worker.asked]
        if len(busy) < len(self._workers):
            delay = max(busy) + self._patience - self._reactor.seconds() if busy else 0.0
            self._flushing = True
            if delay > 0.0:
                self._reactor.callLater(delay, self._flush)
            else:
                rounds_of(self._reactor).at_end(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        now = self._reactor.seconds()
        if all(worker.since <= now - self._patience for worker in self._workers if worker.asked):
            idle = next((worker for worker in self._workers if not worker.asked), None)
            if idle is not None:
                self.give(idle)
        if self._gathered:
            self._look()

    def give(self, worker: _Worker) -> None:
        """Ask an idle process what has been gathered."""
        wanted = [question for question in self._gathered if question[0] in self._asked]  # in time
        share, self._gathered = wanted[:SHARE], wanted[SHARE:]
        if share:
            worker.since = self._reactor.seconds()
            worker.asked.update(number for number, _, _ in share)
            worker.write(frame((time.monotonic() + self._budget, share)))

    def answered(self, number: int, decision: Decision) -> None:
        """There is a decision; that it was too late has been told where nobody waits for it."""
        asked = self._asked.pop(number, None)
        if asked is not None:
            asked[1](decision)

    def _deny(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.answered(number, FAILED)

    def _expire(self) -> None:
        """One timer for all: they have the same time, so the first is over first."""
        self._timer = None
        now = self._reactor.seconds()
        late = []
        for number, (limit, _) in self._asked.items():
            if limit > now:
                self._timer = self._reactor.callLater(limit - now, self._expire)
                break
            late.append(number)
        for number in late:
            self.answered(number, LATE)

    def ended(self, worker: _Worker) -> None:
        """A process is gone: deny what it was asked, and start another one."""
        self._workers.remove(worker)
        status = worker.process.stop()
        self._deny(worker.asked)
        if not self._closed:
            self.log.error(
                "a process that evaluates policies has ended with status {status} (-27: an "
                "evaluation took too long; -6: it took more than 256 MB, or the engine fails), and "
                "is replaced; {count} questions are denied",
                event="policy",
                status=status,
                count=len(worker.asked),
            )
            self._reactor.callLater(RESTART, self._replace)

    def _replace(self) -> None:
        if self._closed:
            return
        pool = self._reactor.getThreadPool()
        started: list[Process] = []
        self._starting.append(started)
        starting = deferToThreadPool(self._reactor, pool, start, self._sources, 1, started)
        starting.addBoth(self._started, started)
        starting.addCallbacks(lambda _: self._adopt(started[0]), self._not_replaced)

    def _started(self, result: Any, started: list[Process]) -> Any:
        self._starting.remove(started)
        return result

    def _not_replaced(self, failure: Failure) -> None:
        if not self._closed:
            self.log.failure("no process for policies could be started", failure, event="policy")
            self._reactor.callLater(RESTART, self._replace)

    def close(self) -> None:
        """End the processes; what they are asked is denied."""
        self._closed = True
        for started in self._starting:
            for process in started:
                process.kill()
        for worker in list(self._workers):
            worker.transport.abortConnection()
