"""Coarse time limits."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.deadlines import NEVER, TICK, Deadlines


class Member:
    """Something with a time limit."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.times = 0

    def timed_out(self) -> None:
        self.times += 1
        self.deadline = NEVER


class DeadlinesTests(SynchronousTestCase):
    def test_time_limits(self) -> None:
        """Each member is told once its time has come, within a tick; the others are not."""
        clock = Clock()
        deadlines = Deadlines(clock)
        soon, late = Member(1.0), Member(5.0)
        deadlines.add(soon)
        deadlines.add(late)
        clock.pump([TICK] * 3)
        self.assertEqual((soon.times, late.times), (1, 0))
        deadlines.remove(late)
        clock.pump([TICK] * 20)
        self.assertEqual(late.times, 0)

    def test_rest(self) -> None:
        """Without members no timer runs, and a later member's time is right."""
        clock = Clock()
        deadlines = Deadlines(clock)
        member = Member(NEVER)
        deadlines.add(member)
        deadlines.remove(member)
        self.assertEqual(clock.getDelayedCalls(), [])
        clock.advance(100)
        deadlines.add(member)
        self.assertEqual(deadlines.now, 100)
