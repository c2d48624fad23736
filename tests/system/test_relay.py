"""The relay does to a connection what it is told, and nothing else."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.system.relay import End, Relay, Relayed, Way


class HalfCloseTransport(StringTransport):
    """A StringTransport that remembers that its write side was closed."""

    finished = False
    aborted = False

    def loseWriteConnection(self) -> None:
        self.finished = True

    def abortConnection(self) -> None:
        self.aborted = True


class RelayedTests(SynchronousTestCase):
    """One relayed connection, on a clock."""

    def relayed(self, up: Way = Way(), down: Way = Way()) -> Relayed:  # noqa: B008
        self.clock = Clock()
        near, far = End(), End()
        self.near, self.far = HalfCloseTransport(), HalfCloseTransport()
        near.makeConnection(self.near)
        far.makeConnection(self.far)
        return Relayed(self.clock, near, far, up, down)

    def test_passes_both_ways(self) -> None:
        """Bytes and the end go through at once by default."""
        relayed = self.relayed()
        relayed.near.dataReceived(b"up")
        relayed.far.dataReceived(b"down")
        relayed.near.readConnectionLost()
        self.assertEqual((self.far.value(), self.near.value()), (b"up", b"down"))
        self.assertEqual((self.far.finished, self.near.finished), (True, False))

    def test_delay(self) -> None:
        """A delayed direction hands on bytes and end later; the other one is not slowed."""
        relayed = self.relayed(up=Way(delay=0.05))
        relayed.near.dataReceived(b"a")
        self.clock.advance(0.03)
        relayed.near.dataReceived(b"b")
        relayed.near.readConnectionLost()
        relayed.far.dataReceived(b"c")
        self.assertEqual((self.far.value(), self.near.value()), (b"", b"c"))
        self.clock.advance(0.02)
        self.assertEqual(self.far.value(), b"a")
        self.clock.advance(0.03)
        self.assertEqual((self.far.value(), self.far.finished), (b"ab", True))

    def test_rate(self) -> None:
        """A limited direction carries as many bytes per second as it may."""
        relayed = self.relayed(down=Way(rate=1000))
        relayed.far.dataReceived(bytes(5000))
        self.clock.pump([0.01] * 100)
        self.assertIn(len(self.near.value()), range(980, 1021))

    def test_slice(self) -> None:
        """A sliced direction writes one byte per turn of the reactor."""
        relayed = self.relayed(up=Way(slice=1))
        relayed.near.dataReceived(b"abc")
        self.assertEqual(self.far.value(), b"a")
        self.clock.pump([0, 0])
        self.assertEqual(self.far.value(), b"abc")

    def test_stall_and_go_on(self) -> None:
        """A stalled direction reads nothing and closes nothing until it is released."""
        relayed = self.relayed()
        relayed.up.change(Way(stalled=True))
        self.assertEqual(self.near.producerState, "paused")
        relayed.near.dataReceived(b"in flight")
        self.assertEqual(self.far.value(), b"")
        relayed.up.change(Way())
        self.clock.advance(0)
        self.assertEqual(self.far.value(), b"in flight")
        self.assertEqual(self.near.producerState, "producing")

    def test_swallowed_fin(self) -> None:
        """With the FIN dropped, the other side never learns that its peer has gone."""
        relayed = self.relayed(up=Way(drop_fin=True))
        relayed.near.readConnectionLost()
        relayed.near.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((self.far.finished, self.far.disconnecting), (False, False))

    def test_close_after(self) -> None:
        """A direction that closes after N bytes hands on exactly N."""
        relayed = self.relayed(down=Way(close_after=4))
        relayed.far.dataReceived(b"123")
        relayed.far.dataReceived(b"456")
        self.assertEqual(self.near.value(), b"1234")
        self.assertEqual((self.near.disconnecting, self.far.disconnecting), (True, True))

    def test_reset(self) -> None:
        """A reset aborts both sockets."""
        self.relayed().reset()
        self.assertEqual((self.near.aborted, self.far.aborted), (True, True))

    def test_slow_sink(self) -> None:
        """A sink that cannot take more gets nothing more until it can."""
        relayed = self.relayed()
        relayed.up.pauseProducing()
        relayed.near.dataReceived(b"later")
        self.assertEqual(self.far.value(), b"")
        relayed.up.resumeProducing()
        self.clock.advance(0)
        self.assertEqual(self.far.value(), b"later")


class Echo(Protocol):
    """Sends back what it gets."""

    def dataReceived(self, data: bytes) -> None:
        cast(Any, self.transport).write(data)


class Caller(Protocol):
    """Waits for so many bytes, and for the end."""

    def __init__(self) -> None:
        self.data = b""
        self.whole: Deferred[bytes] = Deferred()
        self.ended: Deferred[bool] = Deferred()

    def connectionMade(self) -> None:
        cast(Any, self.transport).write(b"x" * 10000)

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        if len(self.data) == 10000:
            self.whole.callback(self.data)

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        self.ended.callback(reason.check(ConnectionDone) is not None)


class RelayTests(TestCase):
    """A relay on real sockets."""

    async def test_round_trip_and_reset(self) -> None:
        """Bytes go to the destination and back; a reset ends the caller's connection uncleanly."""
        from twisted.internet import reactor

        echo = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
            Factory.forProtocol(Echo)
        )
        port = cast(Any, echo.getHost()).port
        relay = Relay(reactor, TCP4ClientEndpoint(reactor, "127.0.0.1", port))
        number = await relay.listen()
        caller: Any = await TCP4ClientEndpoint(reactor, "127.0.0.1", number).connect(
            Factory.forProtocol(Caller)
        )
        self.assertEqual(await caller.whole, b"x" * 10000)
        relay.reset()
        self.assertFalse(await caller.ended)
        await relay.stop()
        await cast("Deferred[None]", echo.stopListening())
