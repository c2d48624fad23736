"""Two connections joined."""

from __future__ import annotations

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import INegotiated
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from exposr_tx.splice import Side, Splice
from tests.ingress.visiting import Wire


def connected() -> Wire:
    """A side on a transport."""
    wire = Wire()
    wire.protocol = Side()
    wire.protocol.makeConnection(wire)
    return wire


class Socket(Wire):
    """A transport with an option of TCP's."""

    no_delay = False

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled


class SideTests(SynchronousTestCase):
    def test_no_delay(self) -> None:
        """A body goes out at once, and not when the other end has acknowledged the head."""
        wire = Socket()
        Side().makeConnection(wire)
        self.assertTrue(wire.no_delay)


class SpliceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.a, self.b = connected(), connected()
        self.ended = 0

    def end(self) -> None:
        self.ended += 1

    def start(self, halves: bool = False) -> None:
        Splice(self.a.protocol, self.b.protocol, self.end, halves=halves).start()

    def test_bytes_pass_both_ways(self) -> None:
        """What comes out of one goes into the other, from the first byte on."""
        self.assertEqual(self.a.producerState, "paused")
        self.a.protocol.dataReceived(b"early")
        self.start()
        self.assertEqual(self.b.taken(), b"early")
        self.assertEqual(self.a.producerState, "producing")
        self.b.protocol.dataReceived(b"back")
        self.assertEqual(self.a.taken(), b"back")
        self.assertEqual((self.a.protocol.received, self.b.protocol.received), (5, 4))

    def test_back_pressure(self) -> None:
        """A side that takes no more pauses the other."""
        self.start()
        self.assertIs(self.a.producer, self.b.protocol)
        assert self.a.producer is not None
        self.a.producer.pauseProducing()
        self.assertEqual(self.b.producerState, "paused")
        self.a.producer.resumeProducing()
        self.assertEqual(self.b.producerState, "producing")

    def test_a_clean_end(self) -> None:
        """One side's end closes the other after what was written; then the splice is over."""
        self.start()
        self.b.protocol.pauseProducing()
        self.a.end(ConnectionDone())
        self.assertTrue(self.b.disconnected)
        self.assertFalse(self.b.reset)
        self.assertEqual(self.ended, 1)

    def test_a_goodbye_is_heard(self) -> None:
        """A side that was paused reads on when it is closed: over TLS its peer is to answer."""
        self.start()
        self.b.protocol.pauseProducing()
        self.a.end(ConnectionDone())
        self.assertEqual(self.b.producerState, "producing")

    def test_a_broken_end(self) -> None:
        """A side that breaks resets the other: a cut must not look like an end."""
        self.start()
        self.b.end(ConnectionLost())
        self.assertTrue(self.a.reset)
        self.assertEqual(self.ended, 1)

    def test_a_half_that_ends(self) -> None:
        """A side that says no more is still told the rest; it is over when both are silent."""
        for early in (False, True):
            self.setUp()
            if early:
                self.a.protocol.provide_halves()
                self.a.protocol.readConnectionLost()
            self.start(halves=True)
            if not early:
                self.assertFalse(self.b.half_closed)
                self.a.protocol.readConnectionLost()
            self.assertTrue(self.b.half_closed)
            self.b.protocol.dataReceived(b"the answer")
            self.assertEqual(self.a.taken(), b"the answer")
            self.assertEqual((self.a.disconnected, self.b.disconnected, self.ended), (False,) * 3)
            self.b.protocol.readConnectionLost()
            self.assertEqual((self.a.disconnected, self.b.disconnected, self.ended), (True,) * 3)
            self.assertEqual((self.a.reset, self.b.reset), (False, False))

    def test_a_half_that_cannot_be_passed_on(self) -> None:
        """Where the other transport ends as a whole, the end of a half is the end."""
        for early in (False, True):
            self.setUp()
            directlyProvides(self.b, INegotiated)  # TLS
            self.a.protocol.provide_halves()
            if early:
                self.a.protocol.readConnectionLost()
            self.start(halves=True)
            if not early:
                self.a.protocol.readConnectionLost()
            self.assertEqual((self.a.disconnected, self.b.disconnected, self.ended), (True,) * 3)
            self.assertFalse(self.b.half_closed)

    def test_a_half_that_breaks(self) -> None:
        """One that is silent and then breaks resets the other."""
        self.start(halves=True)
        self.a.protocol.readConnectionLost()
        self.a.end(ConnectionLost())
        self.assertTrue(self.b.reset)
        self.assertEqual(self.ended, 1)

    def test_one_side_is_gone_before_the_start(self) -> None:
        """Whichever it is, the other one is closed."""
        for first in (True, False):
            self.setUp()
            (self.a if first else self.b).end(ConnectionDone())
            self.start()
            self.assertTrue((self.b if first else self.a).disconnected)
            self.assertEqual(self.ended, 1)

    def test_both_are_gone_before_the_start(self) -> None:
        """The splice is over at once."""
        self.a.end(ConnectionDone())
        self.b.end(ConnectionDone())
        self.start()
        self.assertEqual(self.ended, 1)
