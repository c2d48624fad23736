"""What an operator reads of clients."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.errors import PermissionDenied
from exposr_tx.transport.journal import MAX_REFUSALS, Journal

PEER = IPv4Address("TCP", "192.0.2.7", 4711)


class JournalTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.journal = Journal(self.clock)
        self.logged: list[Any] = []
        observer: Any = self.logged.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def test_addresses(self) -> None:
        """Addresses of all kinds are shown as one writes them."""
        mapped = IPv6Address("TCP", "::ffff:192.0.2.7", 4711)
        for peer in (PEER, mapped, IPv6Address("TCP", "2001:db8::1", 443), UNIXAddress("/x")):
            self.journal.connected("demo", peer, 1)
        shown = [event["peer"] for event in self.logged]
        self.assertEqual(shown, ["192.0.2.7:4711"] * 2 + ["[2001:db8::1]:443", "UNIXAddress"])

    def test_again(self) -> None:
        """A tunnel is away from the loss of its last connection on."""
        self.journal.connected("demo", PEER, 2)
        self.journal.lost("demo", PEER, 1, clean=False, code=1006, reason="lost")
        self.journal.connected("demo", PEER, 2)
        self.journal.lost("demo", PEER, 0, clean=True, code=1000, reason="")
        self.clock.advance(1.25)
        self.journal.connected("other", PEER, 1)
        self.journal.connected("demo", PEER, 1)
        self.journal.connected("demo", PEER, 2)
        self.assertEqual([event.get("away") for event in self.logged[4:]], [None, 1.2, None])

    def test_many_refusals(self) -> None:
        """Who knocks without end does not fill the log: the others are counted."""
        for _ in range(MAX_REFUSALS + 40):
            self.journal.refused("demo" * 100, PEER, PermissionDenied("wrong"))
        self.assertEqual(len(self.logged), MAX_REFUSALS)
        self.assertEqual(self.logged[0]["tunnel"], "demo" * 16)
        self.clock.advance(60)
        self.journal.refused("demo", PEER, PermissionDenied("wrong"))
        self.assertEqual([e.get("count") for e in self.logged[MAX_REFUSALS:]], [40, None])
