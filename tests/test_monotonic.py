"""Timers and the wall clock."""

from __future__ import annotations

import time

from twisted.internet.base import ReactorBase
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.monotonic import use_monotonic_time


class Reactor(ReactorBase):
    """Twisted's own timers, by a wall clock that can be set, and nothing else."""

    wall = 2_000_000_000.0

    def __init__(self) -> None:
        super().__init__()
        self.seconds = lambda: self.wall

    def installWaker(self) -> None:
        """Nothing wakes it."""


class MonotonicTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Reactor()
        self.fired: list[str] = []

    def test_clock_set_back(self) -> None:
        """A timer fires in time when the clock is set back by an hour meanwhile."""
        use_monotonic_time(self.reactor)
        self.reactor.callLater(0, self.fired.append, "timer")
        self.reactor.wall -= 3600
        self.reactor.runUntilCurrent()
        self.assertEqual(self.fired, ["timer"])

    def test_clock_set_forward(self) -> None:
        """A timer does not fire early when the clock is set forward."""
        use_monotonic_time(self.reactor)
        call = self.reactor.callLater(60, self.fired.append, "timer")
        self.reactor.wall += 3600
        self.reactor.runUntilCurrent()
        self.assertEqual(self.fired, [])
        self.assertLess(call.getTime() - time.monotonic(), 61)
        call.cancel()

    def test_timers_that_run(self) -> None:
        """Timers that were set before are not lost: their reactor keeps its clock."""
        self.reactor.callLater(1, self.fired.append, "timer")
        use_monotonic_time(self.reactor)
        self.reactor.wall += 1
        self.reactor.runUntilCurrent()
        self.assertEqual(self.fired, ["timer"])
