"""Signals that ask a client to end."""

import signal
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.client.interruption import Interruption


class Reactor(MemoryReactorClock):
    """One whose next turn comes at once."""

    def callFromThread(self, function: Any, *arguments: Any) -> None:
        function(*arguments)


class InterruptionTests(SynchronousTestCase):
    """Interruption."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.done: list[object] = []
        self.handlers: dict[int, Any] = {}
        self.interruption = Interruption(
            self.reactor,
            lambda: self.done.append("stop"),
            self.done.append,
            self.handlers.__setitem__,
        )
        self.interruption.catch(signal.SIGINT, signal.SIGTERM)

    def send(self, number: int, after: float = 0.0) -> None:
        self.reactor.advance(after)
        self.handlers[number](number, None)

    def test_second_signal(self) -> None:
        """The first one ends in good order, a second one at once."""
        self.assertFalse(self.interruption.asked)
        self.send(signal.SIGINT)
        self.assertTrue(self.interruption.asked)
        self.assertEqual(self.done, ["stop"])
        self.send(signal.SIGTERM, 0.2)
        self.assertEqual(self.done, ["stop", 0])

    def test_sent_twice(self) -> None:
        """What comes twice within a moment, as from timeout or npm, is one signal."""
        self.send(signal.SIGTERM)
        self.send(signal.SIGTERM, 0.001)
        self.assertEqual(self.done, ["stop"])
