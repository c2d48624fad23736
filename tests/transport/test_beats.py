"""Timers that fire together: when, in what number, and what ends them."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.transport.beats import TOGETHER, Beats, beats_of


class BeatsTests(SynchronousTestCase):
    """Who is called, and when."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.01)
        self.beats = Beats()
        self.called: list[str] = []

    def add(self, delay: float, call: Callable[[], object]) -> int:
        return self.beats.add(self.clock, self.clock.seconds(), delay, call)

    def call(self, name: str) -> None:
        self.called.append(name)

    def test_together(self) -> None:
        """Who asks within a moment is called at once with others, by one timer, and once."""
        for name in ("a", "b", "c"):
            self.add(6.0, lambda name=name: self.call(name))  # type: ignore[misc]
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(6.0 - 2 * TOGETHER)
        self.assertEqual(self.called, [])
        self.clock.advance(2 * TOGETHER)
        self.assertEqual(sorted(self.called), ["a", "b", "c"])
        self.clock.advance(60.0)
        self.assertEqual((len(self.called), self.clock.getDelayedCalls()), (3, []))

    def test_never_late(self) -> None:
        """The beat is not after the time that was asked for, however short that is."""
        for delay in (0.0, 0.01, TOGETHER, 1.0):
            due = self.clock.seconds() + delay
            self.add(delay, lambda due=due: self.call(str(due)))  # type: ignore[misc]
            self.clock.advance(delay)
            self.assertEqual(self.called[-1:], [str(due)])

    def test_removed(self) -> None:
        """Who is removed is not called; where nobody is left the timer goes, too."""
        first, second = (lambda: self.call("first")), (lambda: self.call("second"))
        beats = [self.add(6.0, call) for call in (first, second)]
        self.beats.remove(beats[0], first)
        self.clock.advance(6.0)
        self.assertEqual(self.called, ["second"])
        beat = self.add(6.0, first)
        self.beats.remove(beat, first)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.beats.remove(beat, first)  # a second time is no error

    def test_failure(self) -> None:
        """One that fails is logged, and the others are called all the same."""

        def fail() -> None:
            self.call("fails")
            raise ValueError("as it must")

        for call in (fail, lambda: self.call("one"), lambda: self.call("two")):
            self.add(6.0, call)
        self.clock.advance(6.0)
        self.assertEqual(sorted(self.called), ["fails", "one", "two"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_one_for_a_clock(self) -> None:
        """Everybody who counts by a clock has the same beats."""
        self.assertIs(beats_of(self.clock), beats_of(self.clock))
        self.assertIsNot(beats_of(self.clock), beats_of(Clock()))
