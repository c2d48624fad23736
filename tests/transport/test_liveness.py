"""Signs of life: what they tell besides."""

from __future__ import annotations

import math

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.transport.liveness import PING_INTERVAL, SECOND_LOOK, Liveness


class DelayTests(SynchronousTestCase):
    """How far away the peer is."""

    def test_delay(self) -> None:
        """It is the shortest time that a ping and its answer have taken."""
        clock, pings = Clock(), list[bytes]()
        liveness = Liveness(clock, pings.append, self.fail)
        liveness.start()
        self.addCleanup(liveness.stop)
        self.assertEqual(liveness.delay, math.inf)
        for took, shortest in ((0.5, 0.5), (0.25, 0.25), (1.0, 0.25)):
            clock.advance(took)
            liveness.heard()
            liveness.pong(pings[-1])
            self.assertEqual(liveness.delay, shortest)
            before = len(pings)
            while len(pings) == before:
                clock.advance(PING_INTERVAL / 1024)
                liveness.heard()

    def look_twice(self, regular: bool) -> tuple[Liveness, Clock, list[bytes]]:
        """The first answer comes late, the second one quickly."""
        clock, pings = Clock(), list[bytes]()
        liveness = Liveness(clock, pings.append, self.fail, regular=regular, measures=True)
        liveness.start()
        for wait, took in ((0.0, 0.04), (SECOND_LOOK, 0.0002)):
            clock.advance(wait)
            ping = pings.pop()
            clock.advance(took)
            liveness.pong(ping)
        return liveness, clock, pings

    def test_second_look(self) -> None:
        """Who pings at the start only does so twice: the first answer may have come late."""
        liveness, clock, pings = self.look_twice(regular=False)
        self.assertAlmostEqual(liveness.delay, 0.0002)
        clock.advance(10 * PING_INTERVAL)
        self.assertEqual((pings, clock.getDelayedCalls()), ([], []))

    def test_regular_second_look(self) -> None:
        """Who pings again and again knows the delay as soon, and goes on."""
        liveness, clock, pings = self.look_twice(regular=True)
        self.assertAlmostEqual(liveness.delay, 0.0002)
        clock.advance(PING_INTERVAL)
        self.assertEqual(len(pings), 1)
        liveness.stop()
        self.assertEqual(clock.getDelayedCalls(), [])


class EndTests(SynchronousTestCase):
    """What is left of it."""

    def test_stopped_by_another(self) -> None:
        """Whom the ping of another has ended in the same moment pings no more, nor later."""
        clock, pings, both = Clock(), list[str](), list[Liveness]()

        def ping(name: str) -> None:
            pings.append(name)
            if len(pings) == 3:
                both[name == "a"].stop()

        for name in ("a", "b"):
            both.append(Liveness(clock, lambda _, name=name: ping(name), self.fail))  # type: ignore[misc]
        for liveness in both:
            liveness.start()
        clock.advance(PING_INTERVAL)
        self.assertEqual(len(pings), 3)
        for liveness in both:
            liveness.stop()
        self.assertEqual(clock.getDelayedCalls(), [])
