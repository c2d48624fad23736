"""Streams and their targets."""

from errno import EMFILE
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectBindError,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    DNSLookupError,
)
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.client.forward import Forward
from exposr_tx.client.rewriting import Rules
from exposr_tx.errors import StreamLimit, TargetFailed, TargetRefused, TargetReset
from exposr_tx.inspection.exchanges import Exchange
from exposr_tx.interfaces import Origin
from tests.inspection.test_recorder import GET, OK, started
from tests.transport.pair import ORIGIN, Pair
from tests.transport.test_native import HalfRecorders, NativePair


class Transport(StringTransport):
    """A connection that tells its protocol when it is closed."""

    protocol: Any = None
    aborted = False
    half_closed = False

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def abortConnection(self) -> None:
        self.aborted = True
        self.disconnecting = True


class ForwardTests(SynchronousTestCase):
    """Forward."""

    def setUp(self) -> None:
        self.connecting: list[tuple[Any, Deferred[Any]]] = []
        self.cancelled = 0
        self.failures: list[str] = []

    def connect(self, factory: IProtocolFactory) -> Deferred[Any]:
        def cancel(_: object) -> None:
            self.cancelled += 1

        waiting: Deferred[Any] = Deferred(cancel)
        self.connecting.append((factory, waiting))
        return waiting

    def stream(self, **more: Any) -> tuple[Any, Transport]:
        forward = Forward(self.connect, lambda why: self.failures.append(str(why.value)), **more)
        protocol, transport = forward.buildProtocol(None), Transport()
        protocol.makeConnection(transport)
        return protocol, transport

    def connected(self) -> Transport:
        factory, waiting = self.connecting.pop()
        target, transport = factory.buildProtocol(None), Transport()
        target.makeConnection(transport)
        transport.protocol = target
        waiting.callback(target)
        return transport

    def test_both_ways(self) -> None:
        """What comes out of one goes into the other, unchanged."""
        stream, visitor = self.stream()
        target = self.connected()
        stream.dataReceived(b"\x00ask")
        target.protocol.dataReceived(b"answer\xff")
        self.assertEqual((target.value(), visitor.value()), (b"\x00ask", b"answer\xff"))

    def test_waits_for_the_target(self) -> None:
        """While the target is being connected the stream is paused, and nothing is lost."""
        stream, visitor = self.stream()
        self.assertEqual(visitor.producerState, "paused")
        stream.dataReceived(b"early")
        target = self.connected()
        self.assertEqual(target.value(), b"early")
        self.assertEqual(visitor.producerState, "producing")

    def test_back_pressure(self) -> None:
        """A target that does not read pauses the stream, and a visitor the target."""
        _stream, visitor = self.stream()
        target = self.connected()
        for one, other in ((visitor, target), (target, visitor)):
            assert other.producer is not None
            other.producer.pauseProducing()
            self.assertEqual(one.producerState, "paused")

    def test_target_fails(self) -> None:
        """A target that cannot be connected closes the stream; it is told once, not each time."""
        for _ in range(3):
            _stream, visitor = self.stream()
            self.connecting.pop()[1].errback(ConnectionRefusedError("nobody there"))
            self.assertTrue(visitor.aborted)
        self.assertIn("nobody there", self.failures[0])
        forward = Forward(self.connect, lambda why: self.failures.append(str(why.value)))
        self.failures.clear()
        for _ in range(2):
            protocol = forward.buildProtocol(None)
            protocol.makeConnection(Transport())
            self.connecting.pop()[1].errback(ConnectionRefusedError("x"))
        self.assertEqual(len(self.failures), 1)

    def test_target_resets(self) -> None:
        """A target whose connection breaks is told from one that has closed it."""
        for why, said in ((ConnectionLost(), [TargetReset]), (ConnectionDone(), [ConnectionDone])):
            pair = NativePair()
            forward = Forward(self.connect, lambda why: None)
            pair.server.open_stream(pair.visitors, ORIGIN)
            assert pair.client.native is not None
            pair.client.native._factories[0] = forward
            pair.pump()
            target = self.connected()
            target.protocol.dataReceived(b"half")
            target.protocol.connectionLost(Failure(why))
            pair.pump()
            (visitor,) = pair.visitors.built
            self.assertEqual((visitor.received, visitor.reasons), (b"half", said))

    def test_halves(self) -> None:
        """Who ends his half behind a question gets the answer, also one that has to wait."""
        for connected_first in (True, False):
            pair = NativePair()
            pair.visitors = HalfRecorders()
            assert pair.client.native is not None
            pair.client.native._factories[0] = Forward(self.connect, lambda why: None)
            pair.server.open_stream(pair.visitors, Origin("http", ORIGIN.peer))
            pair.pump()
            (visitor,) = pair.visitors.built
            target: Any = None
            if connected_first:
                target = self.connected()
            visitor.stream.write(b"ping")
            visitor.stream.loseWriteConnection()
            pair.pump()
            target = target or self.connected()
            self.assertEqual((target.value(), target.half_closed), (b"ping", True))
            target.protocol.dataReceived(b"pong")
            target.protocol.readConnectionLost()
            pair.pump()
            self.assertEqual((visitor.received, visitor.reasons), (b"pong", [ConnectionDone]))
            self.assertTrue(target.disconnecting)

    def test_target_refuses(self) -> None:
        """Why there is no connection to the target is told too."""
        for why, said in (
            (ConnectionRefusedError("x"), TargetRefused),
            (DNSLookupError("x"), TargetFailed),
            (ConnectBindError(EMFILE, "Too many open files"), StreamLimit),
        ):
            pair = NativePair()
            pair.server.open_stream(pair.visitors, ORIGIN)
            assert pair.client.native is not None
            pair.client.native._factories[0] = Forward(self.connect, lambda why: None)
            pair.pump()
            self.connecting.pop()[1].errback(why)
            pair.pump()
            self.assertEqual(pair.visitors.built[0].reasons, [said])

    def test_visitor_leaves_first(self) -> None:
        """A stream that ends before the target is there stops the attempt."""
        stream, _visitor = self.stream()
        stream.connectionLost(Failure(ConnectionAbortedError()))
        self.assertEqual(self.cancelled, 1)
        self.assertEqual(self.failures, [])

    def test_still_streams_end(self) -> None:
        """Towards a server that speaks v2 a stream is idle when nothing has moved for a second;
        a native server ends what is idle itself."""
        for pair, ends in ((Pair(), True), (NativePair(), False)):
            streams: Any = pair.client._channels
            forward = Forward(self.connect, lambda why: None)
            streams._factory, streams._factories = forward, {0: forward}
            pair.dial()
            pair.pump()
            (opened,) = streams._streams.values()
            target = self.connected()
            for _ in range(15):
                opened.protocol.end_idle()
            target.protocol.dataReceived(b"more")
            for _ in range(20):
                opened.protocol.end_idle()
            pair.advance(0.1)
            (visitor,) = pair.visitors.built
            self.assertEqual((visitor.received, visitor.reasons), (b"more", []))
            opened.protocol.end_idle()
            pair.advance(0.1)
            self.assertEqual(visitor.reasons, [ConnectionDone] if ends else [])

    def test_rules(self) -> None:
        """Requests are rewritten where that is asked for."""
        rules = Rules(b"http", b"t:1", rewrite=frozenset({b"host"}))
        stream, _visitor = self.stream(rules=lambda: rules)
        stream.dataReceived(b"GET / HTTP/1.1\r\nHost: pub")
        stream.dataReceived(b"lic\r\n\r\n")
        self.assertEqual(self.connected().value(), b"GET / HTTP/1.1\r\nHost: t:1\r\n\r\n")

    def test_no_http(self) -> None:
        """What is no HTTP ends the stream where requests are to be rewritten."""
        stream, visitor = self.stream(rules=lambda: Rules(b"http", b"t:1"))
        stream.dataReceived(b"\x16\x03\x01\r\n\r\n")
        self.assertTrue(visitor.aborted)


class RecordedTests(ForwardTests):
    """The same, and all that is above, with a recording beside it."""

    def stream(self, **more: Any) -> tuple[Any, Transport]:
        self.watching, self.recording = started()
        return super().stream(record=lambda visitor: self.recording, **more)

    def ended(self) -> Exchange:
        (exchange,) = self.watching.ends
        return exchange

    def test_recorded(self) -> None:
        """An exchange is recorded as the target sees it, and when it was connected."""
        rules = Rules(b"http", b"t:1", rewrite=frozenset({b"host"}))
        stream, visitor = self.stream(rules=lambda: rules)
        stream.dataReceived(GET.replace(b"Host: t", b"Host: public"))
        target = self.connected()
        target.protocol.dataReceived(OK)
        self.assertEqual(visitor.value(), OK)
        exchange = self.ended()
        self.assertEqual(exchange.request.raw, target.value())
        self.assertEqual(exchange.request.field(b"Host"), b"t:1")
        self.assertEqual(exchange.response_body.data, b"ok")
        self.assertIsNotNone(exchange.connected)

    def test_target_breaks(self) -> None:
        """A connection that breaks, or ends too early, is told as the reason."""
        for why, said in ((ConnectionLost(), "connection broke"), (ConnectionDone(), "closed")):
            stream, _visitor = self.stream()
            target = self.connected()
            stream.dataReceived(GET)
            target.protocol.dataReceived(OK[:-1])
            target.protocol.connectionLost(Failure(why))
            self.assertIn(said, self.ended().error)

    def test_visitor_leaves(self) -> None:
        """A visitor who leaves is told as the reason."""
        stream, _visitor = self.stream()
        self.connected()
        stream.dataReceived(GET)
        stream.connectionLost(Failure(ConnectionDone()))
        self.assertIn("visitor left", self.ended().error)

    def test_request_that_found_no_target(self) -> None:
        """A request that waits in its stream is shown when the target cannot be connected."""
        watching, recording = started()
        pair = NativePair()
        pair.server.open_stream(pair.visitors, ORIGIN)
        assert pair.client.native is not None
        pair.client.native._factories[0] = Forward(
            self.connect, lambda why: None, record=lambda visitor: recording
        )
        pair.pump()
        visitor: Any = pair.visitors.built[0]
        visitor.transport.write(GET)
        pair.pump()
        self.connecting.pop()[1].errback(ConnectionRefusedError("nobody there"))
        pair.pump()
        (exchange,) = watching.ends
        self.assertEqual(exchange.request.raw, GET)
        self.assertIn("nobody there", exchange.error)

    def test_not_recorded(self) -> None:
        """A stream may be left out; then nothing stands beside it."""
        forward = Forward(self.connect, lambda why: None, record=lambda visitor: None)
        plain = Forward(self.connect, lambda why: None)
        self.assertIs(type(forward.buildProtocol(None)), type(plain.buildProtocol(None)))
