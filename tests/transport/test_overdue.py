"""Time limits for many things with one timer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.transport.overdue import Overdue


class OverdueTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.late: list[str] = []
        self.overdue: Overdue[str] = Overdue(self.clock, 5, self.late.append)

    def test_each_has_its_time(self) -> None:
        """What comes later is late later; one timer does for all."""
        self.overdue.add("a")
        self.clock.advance(2)
        self.overdue.add("b")
        self.assertEqual((len(self.overdue), len(self.clock.getDelayedCalls())), (2, 1))
        self.clock.advance(3)
        self.assertEqual(self.late, ["a"])
        self.clock.advance(2)
        self.assertEqual((self.late, self.clock.getDelayedCalls()), (["a", "b"], []))

    def test_in_time(self) -> None:
        """What is there in time, or begins anew, is not late."""
        self.overdue.add("a")
        self.overdue.add("b")
        self.clock.advance(4)
        self.overdue.discard("a")
        self.overdue.add("b")
        self.clock.advance(4)
        self.assertEqual(self.late, [])
        self.clock.advance(1)
        self.assertEqual(self.late, ["b"])

    def test_end(self) -> None:
        """Nothing is late after the end, and no timer is left."""
        self.overdue.add("a")
        self.overdue.clear()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.overdue.add("b")
        self.clock.advance(5)
        self.assertEqual(self.late, ["b"])

    def test_more_while_it_tells(self) -> None:
        """Who is told may begin, discard and end others."""

        def told(thing: str) -> None:
            self.late.append(thing)
            if thing == "a":
                overdue.discard("b")
                overdue.add("c")
                overdue.add("d")
            elif thing == "c":
                overdue.clear()

        overdue = Overdue(self.clock, 5, told)
        overdue.add("a")
        overdue.add("b")
        self.clock.advance(5)
        self.assertEqual((self.late, len(self.clock.getDelayedCalls())), (["a"], 1))
        self.clock.advance(5)
        self.assertEqual((self.late, self.clock.getDelayedCalls()), (["a", "c"], []))

    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8), st.booleans())))
    def test_as_a_timer_each(self, steps: list[tuple[int, int, bool]]) -> None:
        """The same things are late at the same times as with a timer for each."""
        clock = Clock()
        late: list[tuple[float, str]] = []
        expected: list[tuple[float, str]] = []
        overdue: Overdue[str] = Overdue(clock, 5, lambda t: late.append((clock.seconds(), t)))
        due: dict[str, float] = {}
        for passed, which, begins in [*steps, (10, 0, False)]:
            for _ in range(passed):
                clock.advance(1)
                for thing in [thing for thing, at in due.items() if at <= clock.seconds()]:
                    expected.append((clock.seconds(), thing))
                    del due[thing]
            thing = f"thing {which}"
            due.pop(thing, None)
            if begins:
                due[thing] = clock.seconds() + 5
                overdue.add(thing)
            else:
                overdue.discard(thing)
        self.assertEqual(late, expected)
