"""Threads beside the reactor, each job with its time limit."""

from __future__ import annotations

from collections.abc import Callable
from queue import Queue
from threading import Event
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.policy.evaluators import Evaluators

PATIENCE = 30.0


class Reactor(Clock):
    """A clock whose thread is the test's."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Queue[Callable[[], Any]] = Queue()

    def callFromThread(self, call: Callable[[], Any]) -> None:
        self.asked.put(call)

    def turn(self) -> None:
        """What a thread has asked for."""
        self.asked.get(timeout=PATIENCE)()


class EvaluatorsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Reactor()
        self.evaluators = Evaluators(self.reactor, 1)

    def test_result(self) -> None:
        """A result comes back in the reactor's thread, a failure as well."""
        done = self.evaluators.run(lambda: 1 + 1, 1, 0)
        self.assertNoResult(done)
        self.reactor.turn()
        self.assertEqual(self.successResultOf(done), 2)
        failing = self.evaluators.run(lambda: 1 // 0, 1, 0)
        self.reactor.turn()
        self.failureResultOf(failing, ZeroDivisionError)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_late(self) -> None:
        """What is late gives what was agreed on, once; what waits behind it and is late as well is
        not begun."""
        go, begun = Event(), Event()

        def hold() -> str:
            go.wait(PATIENCE)
            return "late"

        def begin() -> str:
            begun.set()
            return "late"

        slow = self.evaluators.run(hold, 0.05, "none")
        behind = self.evaluators.run(begin, 0.05, "none")
        self.reactor.advance(0.05)
        self.assertEqual(self.successResultOf(slow), "none")
        self.assertEqual(self.successResultOf(behind), "none")
        go.set()
        after = self.evaluators.run(lambda: "after", 0, "none")
        while not after.called:
            self.reactor.turn()
        self.assertEqual((self.successResultOf(after), begun.is_set()), ("after", False))

    def test_cancelled(self) -> None:
        """A job that nobody waits for any more leaves nothing behind."""
        done = self.evaluators.run(lambda: 1, 0.05, 0)
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
