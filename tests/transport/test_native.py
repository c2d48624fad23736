"""Sessions and streams that speak the native dialect."""

from __future__ import annotations

from itertools import product
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from exposr_tx.errors import StreamLimit, TargetFailed, TargetRefused, TargetReset, UpstreamGone
from exposr_tx.interfaces import Origin, Tls
from exposr_tx.transport.liveness import LAST_LOOK, PING_INTERVAL
from exposr_tx.transport.session import Session
from exposr_tx.transport.stream import Stream
from exposr_tx.transport.websocket import ClientConnection, WebsocketEndpoint, connect
from exposr_tx.wire.native import (
    CONNECTION_WINDOW,
    MAX_WINDOW,
    STREAM_WINDOW,
    Metadata,
    NativeMux,
    ResetCode,
)
from tests.transport.pair import (
    ORIGIN,
    Broken,
    Kept,
    Link,
    Pair,
    Producer,
    Recorder,
    Recorders,
    drain,
)
from tests.transport.test_websocket import URL, Admission, Dialling, Wire, accept, head

MIB = 1024 * 1024

#: A frame of an unknown type that fills a message.
UNKNOWN_FRAME = b"\x7f" + (MIB - 8).to_bytes(3, "big") + bytes(4) + bytes(MIB - 8)

#: What a server may say of a stream or two, or of nothing, in hex.
FRAMES = [
    bytes.fromhex(frame)
    for frame in (
        "01 00000f 00000001 7b226b696e64223a2268747470227d",
        "01 00000f 00000003 7b226b696e64223a2268747470227d",
        "00 000001 00000001 61",
        "00 000001 00000003 62",
        "02 000000 00000001",
        "02 000000 00000003",
        "03 000002 00000001 0000",
        "03 000002 00000003 0002",
        "04 000004 00000001 00000001",
        "04 000004 00000000 00000001",
        "05 000008 00000000 0000000000000000",
        "07 000002 00000000 0000",
        "0b 000010 00000000 7b226174746163686d656e74223a307d",
    )
]


class NativePair(Pair):
    """A server's session and a client's that speak the native dialect, on one clock."""

    def __init__(self, max_streams: int = 100, **server: Any) -> None:
        self.clock = Clock()
        self.targets = Recorders()
        self.visitors = Recorders()
        self.here, self.there = Link(), Link()
        self.here.peer, self.there.peer = self.there, self.here
        self.mux = NativeMux(is_server=True)
        self.server = Session(self.here, self.mux, self.clock, max_streams=max_streams, **server)
        self.left: list[bool] = []
        self.client = Session(
            self.there,
            NativeMux(is_server=False),
            self.clock,
            self.targets,
            watches_server=True,
            on_going=lambda: self.left.append(True),
        )
        self.here.session, self.there.session = self.server, self.client
        self.server.start()
        self.client.start()
        self.pump()

    def pump(self) -> None:
        """Carry messages, turn for turn, until both sides are silent."""
        for _ in range(2):
            self.clock.advance(0)
            while self.here.outbox or self.there.outbox:
                super().pump()
                self.clock.advance(0)


@implementer(IHalfCloseableProtocol)
class Half(Recorder):
    """A recorder that goes on when its peer's half has ended."""

    read_lost = write_lost = False

    def readConnectionLost(self) -> None:
        self.read_lost = True

    def writeConnectionLost(self) -> None:
        self.write_lost = True


class Unready(Recorder):
    """A protocol that fails at once."""

    def connectionMade(self) -> None:
        raise ZeroDivisionError


class HalfRecorders(Recorders):
    def buildProtocol(self, addr: Any) -> Recorder:
        self.built.append(Half())
        return self.built[-1]


class StreamTests(SynchronousTestCase):
    """Streams of the native dialect."""

    def setUp(self) -> None:
        self.pair = NativePair()
        self.visitor, self.target = self.pair.open()

    def test_both_ways(self) -> None:
        """What one end writes the other gets, whole and in order."""
        self.visitor.stream.write(b"ask")
        self.visitor.stream.writeSequence([b" ", b"more"])
        self.target.stream.write(b"answer")
        self.pair.pump()
        self.assertEqual((self.target.received, self.visitor.received), (b"ask more", b"answer"))

    def test_opens_at_once(self) -> None:
        """A stream may be written to before its peer has heard of it."""
        opened = self.successResultOf(self.pair.dial())
        opened.transport.write(b"early")
        self.pair.pump()
        self.assertEqual(self.pair.targets.built[-1].received, b"early")

    def test_the_visitor_is_known(self) -> None:
        """On the client a stream's peer is the visitor."""
        self.assertEqual(self.target.stream.getPeer(), ORIGIN.peer)
        for address in (IPv6Address("TCP", "2001:db8::1", 7), IPv4Address("TCP", "10.0.0.1", 0)):
            self.pair.server.open_stream(self.pair.visitors, Origin("http", address))
            self.pair.pump()
            self.assertEqual(self.pair.targets.built[-1].stream.getPeer(), address)

    def test_where_it_comes_from(self) -> None:
        """What the server knows of a stream its protocol on the client can see."""
        peer, host = (
            IPv6Address("TCP", "::ffff:10.0.0.1", 7),
            IPv6Address("TCP", "2001:db8::2", 443),
        )
        for tls in (None, Tls(), Tls("blog.example", "TLSv1.3")):
            origin = Origin("http", peer, "https://blog.example", host, tls)
            self.pair.server.open_stream(self.pair.visitors, origin)
            self.pair.pump()
            seen = self.pair.targets.built[-1].stream.origin
            told = Origin("http", IPv4Address("TCP", "10.0.0.1", 7), "", host, tls)
            self.assertEqual(seen, told)
        self.assertEqual(self.target.stream.origin, ORIGIN)

    def test_an_address_that_is_none(self) -> None:
        """What a proxy calls a visitor's address may be anything; then it is not told."""
        nonsense = IPv4Address("TCP", "unknown", 1)
        self.pair.server.open_stream(self.pair.visitors, Origin("http", nonsense))
        self.pair.pump()
        stream = self.pair.targets.built[-1].stream
        self.assertEqual(stream.getPeer(), self.pair.there.get_peer())

    @given(st.lists(st.binary(min_size=1, max_size=600_000), max_size=8), st.booleans())
    @settings(max_examples=15)
    def test_everything_arrives(self, pieces: list[bytes], paused: bool) -> None:
        """However it is written, and though the reader stops now and then; then the end."""
        pair = NativePair()
        visitor, target = pair.open()
        for piece in pieces:
            if paused:
                target.stream.pauseProducing()
            visitor.stream.write(piece)
            pair.pump()
            target.stream.resumeProducing()
        visitor.stream.loseConnection()
        pair.pump()
        self.assertEqual(target.received, b"".join(pieces))
        self.assertEqual(target.reasons, [ConnectionDone])
        self.assertEqual((len(pair.server), len(pair.client), len(pair.mux)), (0, 0, 0))

    def test_a_stopped_reader(self) -> None:
        """The receiver keeps no more than the window, the sender's producer is paused."""
        producer = Producer()
        self.visitor.stream.registerProducer(producer, True)
        self.target.stream.pauseProducing()
        written = 0
        while not producer.paused:
            self.visitor.stream.write(bytes(10_000))
            written += 10_000
            self.pair.pump()
        self.assertLess(written, STREAM_WINDOW + 20_000)
        self.assertLessEqual(self.target.stream._received_size, STREAM_WINDOW)
        self.assertLess(self.visitor.stream._unsent_size, 20_000)
        self.target.stream.resumeProducing()
        self.pair.pump()
        self.assertFalse(producer.paused)
        self.assertEqual(len(self.target.received), written)

    def test_a_reader_that_stops_after_a_while(self) -> None:
        """A window that has grown is bounded too."""
        producer = Producer()
        self.visitor.stream.registerProducer(producer, True)
        for _ in range(1024):
            self.visitor.stream.write(bytes(64 * 1024))
            self.pair.pump()
        self.target.stream.pauseProducing()
        while not producer.paused:
            self.visitor.stream.write(bytes(64 * 1024))
            self.pair.pump()
        self.assertLessEqual(self.target.stream._received_size, MAX_WINDOW)

    def test_others_flow(self) -> None:
        """A stopped reader holds up nobody else."""
        self.target.stream.pauseProducing()
        self.visitor.stream.write(bytes(2 * MIB))
        other, its_target = self.pair.open()
        other.stream.write(bytes(40 * MIB))
        self.pair.pump()
        self.assertEqual(len(its_target.received), 40 * MIB)

    def test_a_full_transport(self) -> None:
        """While the connection is full nothing is given to it; then streams take turns."""
        assert self.pair.here.producer is not None
        self.pair.here.producer.pauseProducing()
        self.visitor.stream.write(b"later")
        self.pair.pump()
        self.assertEqual(self.target.received, b"")
        self.pair.here.producer.resumeProducing()
        self.pair.pump()
        self.assertEqual(self.target.received, b"later")

    def test_a_close_is_an_end(self) -> None:
        """What was written before is complete, though its reader has paused; no time passes."""
        self.target.stream.pauseProducing()
        self.visitor.stream.write(b"x" * 100_000)
        self.visitor.stream.loseConnection()
        self.pair.pump()
        self.assertEqual((self.visitor.reasons, self.target.reasons), ([ConnectionDone], []))
        self.target.stream.resumeProducing()
        self.assertEqual(len(self.target.received), 100_000)
        self.assertEqual(self.target.reasons, [ConnectionDone])
        self.assertEqual((len(self.pair.server), len(self.pair.client)), (0, 0))

    def test_a_target_that_connects_late(self) -> None:
        """What a visitor has sent before he left is handed on: his end stops no producer before."""
        producer = Producer()
        self.target.stream.pauseProducing()
        self.visitor.stream.write(b"last words")
        self.visitor.stream.loseConnection()
        self.pair.pump()
        self.target.stream.registerProducer(producer, True)
        self.target.stream.resumeProducing()
        self.assertEqual((self.target.received, producer.calls), (b"last words", []))

    def test_an_abort_is_a_cut(self) -> None:
        """The peer sees that the connection broke."""
        self.target.stream.write(b"half of it")
        self.target.stream.abortConnection()
        self.pair.pump()
        self.assertEqual(self.visitor.reasons, [ConnectionLost])
        self.assertEqual(len(self.pair.mux), 0)

    def test_why(self) -> None:
        """What stopped the client is told to the server."""
        for error in (TargetRefused, TargetReset, TargetFailed, StreamLimit, UpstreamGone):
            visitor, target = self.pair.open()
            target.stream.fail(error("it is so"))
            self.pair.pump()
            self.assertEqual(visitor.reasons, [error])
            self.assertIn(b"it is so", b"".join(self.pair.there.sent))
            self.pair.there.sent.clear()

    def test_a_failing_protocol(self) -> None:
        """Its stream ends, as one that broke; the others do not."""

        def fail(_: Recorder) -> None:
            raise ZeroDivisionError

        self.target.on_data = fail
        self.visitor.stream.write(b"x")
        self.pair.pump()
        self.assertEqual(self.visitor.reasons, [ConnectionLost])
        self.assertIn(b"the stream's protocol failed", b"".join(self.pair.there.sent))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertTrue(self.pair.server.is_open)

    def test_one_that_fails_at_once(self) -> None:
        """A protocol that fails when it is connected ends its stream, too, and no other."""
        self.pair.targets.protocol = Unready
        failing, target = self.pair.open()
        self.visitor.stream.write(b"goes on")
        self.pair.pump()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(failing.reasons, [ConnectionLost])
        self.assertEqual(target.reasons, [ZeroDivisionError])
        self.assertEqual(self.target.received, b"goes on")

    def test_no_bytes(self) -> None:
        """Who writes a text hears of it himself; other streams' bytes go on."""
        _, other = self.pair.open()
        for nonsense in ("text", 5, ["a"]):
            self.assertRaises(TypeError, self.target.stream.write, nonsense)
        self.target.stream.write(bytearray(b"bytes of "))
        self.target.stream.write(memoryview(b"another kind"))
        other.stream.write(b"fine")
        self.pair.pump()
        self.assertEqual(self.visitor.received, b"bytes of another kind")
        self.assertEqual(self.pair.visitors.built[-1].received, b"fine")

    def test_a_failing_producer(self) -> None:
        """A producer that fails when it may go on loses its stream, and no other."""
        self.target.stream.pauseProducing()
        self.visitor.stream.registerProducer(Broken("resumeProducing"), True)
        self.visitor.stream.write(bytes(300_000))
        self.pair.pump()
        other, its_target = self.pair.open()
        self.target.stream.resumeProducing()
        other.stream.write(b"goes on")
        self.pair.pump()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.visitor.reasons, [ZeroDivisionError])
        self.assertEqual((its_target.received, other.reasons), (b"goes on", []))

    def test_a_producer_that_cannot_stop(self) -> None:
        """When the connection is lost every stream hears of it, whatever the others do."""
        self.visitor.stream.registerProducer(Broken("stopProducing"), True)
        other, _ = self.pair.open()
        self.pair.server.lost("the line is cut")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((self.visitor.reasons, other.reasons), ([ConnectionLost],) * 2)

    def test_nobody_wants_the_rest(self) -> None:
        """What was kept for readers who have gone is forgotten, whoever goes first and however."""
        ways = (Stream.loseConnection, Stream.abortConnection)
        for swapped, size, *going in product((False, True), (100_000, 400_000), ways, ways):
            if size > STREAM_WINDOW and going[1] is Stream.loseConnection:
                continue  # it waits for its reader, as it must
            ends = [end.stream for end in self.pair.open()]
            for stream in ends:
                stream.pauseProducing()
                stream.write(bytes(size))
            self.pair.pump()
            for go, stream in zip(going, reversed(ends) if swapped else ends, strict=True):
                go(stream)
                self.pair.pump()
        self.assertEqual((len(self.pair.mux), self.pair.mux.held), (1, 0))

    def test_half_close(self) -> None:
        """Who can read on after its own end does, and what it gets is complete."""
        self.pair.visitors, self.pair.targets = HalfRecorders(), HalfRecorders()
        assert self.pair.client.native is not None
        self.pair.client.native._factories[0] = self.pair.targets
        visitor, target = self.pair.open()
        assert isinstance(visitor, Half) and isinstance(target, Half)
        visitor.stream.write(b"question")
        visitor.stream.loseWriteConnection()
        visitor.stream.write(b"never")
        self.pair.pump()
        self.assertEqual((target.received, target.read_lost), (b"question", True))
        self.assertTrue(visitor.write_lost)
        target.stream.write(b"a" * 600_000)
        target.stream.loseConnection()
        self.pair.pump()
        self.assertEqual(len(visitor.received), 600_000)
        self.assertEqual((visitor.reasons, target.reasons), ([ConnectionDone], [ConnectionDone]))
        self.assertEqual(len(self.pair.mux), 1)  # the one of setUp

    def test_an_end_without_half_close(self) -> None:
        """A protocol that knows no half-closed connections loses it, after all data."""
        self.target.stream.pauseProducing()
        self.visitor.stream.write(b"last words")
        self.visitor.stream.loseWriteConnection()
        self.pair.pump()
        self.assertEqual(self.target.reasons, [])
        self.target.stream.resumeProducing()
        self.pair.pump()
        self.assertEqual(
            (self.target.received, self.target.reasons), (b"last words", [ConnectionDone])
        )
        self.assertEqual(self.visitor.reasons, [ConnectionDone])

    def test_pull_producer(self) -> None:
        """It is asked for more as long as there is credit."""
        stream = self.visitor.stream

        class Pulled:
            left = 40

            def resumeProducing(self) -> None:
                self.left -= 1
                if self.left:
                    stream.write(bytes(50_000))
                else:
                    stream.unregisterProducer()
                    stream.loseConnection()

            def stopProducing(self) -> None: ...

        stream.registerProducer(Pulled(), False)
        self.pair.pump()
        self.assertEqual(len(self.target.received), 39 * 50_000)


class SessionTests(SynchronousTestCase):
    """Sessions of the native dialect."""

    def test_batching(self) -> None:
        """What is written in one turn is one message."""
        pair = NativePair()
        visitors = [pair.open()[0] for _ in range(20)]
        pair.pump()
        pair.here.sent.clear()
        for visitor in visitors:
            visitor.stream.write(b"together")
        self.assertEqual(len(pair.here.sent), 0)
        pair.pump()
        self.assertEqual(len(pair.here.sent), 1)
        self.assertTrue(all(t.received.endswith(b"together") for t in pair.targets.built))

    def test_a_large_write_keeps_its_place(self) -> None:
        """It is not gathered, and what was gathered goes before it."""
        pair = NativePair()
        visitor, target = pair.open()
        data = [b"a", b"b" * 10, b"c" * 50_000, b"d"]
        for piece in data:
            visitor.stream.write(piece)
        pair.pump()
        self.assertEqual(target.received, b"".join(data))

    def test_messages_are_bounded(self) -> None:
        """Whatever one turn makes, no message is larger than the dialect allows."""
        pair = NativePair()
        visitors = [pair.open()[0] for _ in range(50)]
        for visitor in visitors:
            for _ in range(10):
                visitor.stream.write(bytes(15_000))
        pair.pump()
        self.assertLessEqual(max(map(len, pair.here.sent)), MIB)
        self.assertTrue(all(len(t.received) == 150_000 for t in pair.targets.built))

    def test_limit(self) -> None:
        """One stream too many fails, and nothing is sent for it."""
        pair = NativePair(max_streams=1)
        pair.open()
        self.failureResultOf(pair.dial(), StreamLimit)

    def test_limit_of_the_client(self) -> None:
        """Of more streams than the client takes, the one too many is told so, and ends alone."""
        pair = NativePair()
        assert pair.client.native is not None
        pair.client.native._max_streams = 1
        visitor, _ = pair.open()
        self.successResultOf(pair.dial())
        pair.pump()
        self.assertEqual(pair.visitors.built[-1].reasons, [StreamLimit])
        self.assertEqual((visitor.reasons, len(pair.targets.built)), ([], 1))

    def test_credit_of_the_connection(self) -> None:
        """What all streams send together waits for the connection's credit, and then goes on."""
        pair = NativePair()
        streams = CONNECTION_WINDOW // STREAM_WINDOW + 6
        opened = [pair.open() for _ in range(streams)]
        for visitor, _ in opened:
            visitor.stream.write(bytes(STREAM_WINDOW))
        self.assertEqual(sum(v.stream._sent for v, _ in opened), CONNECTION_WINDOW)
        pair.pump()
        self.assertEqual({len(target.received) for _, target in opened}, {STREAM_WINDOW})

    def test_pings(self) -> None:
        """Both sides ping in the dialect, and stay connected as long as they are answered."""
        pair = NativePair()
        pair.advance(60)
        self.assertTrue(pair.server.is_open and pair.client.is_open)
        self.assertEqual({kind for kind, _ in pair.here.outbox}, set())
        answer = pair.server.probe()
        pair.pump()
        self.assertTrue(self.successResultOf(answer))

    def test_delay(self) -> None:
        """An answer counts from its own ping, be it one of the regular ones, which all peers are
        sent alike, or a probe; one that is overtaken by a later ping does not count."""
        clock, link = Clock(), Link()
        session = Session(link, NativeMux(is_server=True), clock)
        session.start()
        self.addCleanup(session.close, 1000, "")

        def answer(ping: bytes) -> float:
            session.heard()
            session.message(b"\x06" + ping[1:])
            return session.delay

        def regular() -> bytes:
            link.sent.clear()
            while not link.sent:
                clock.advance(1 / 64)
                session.heard()
            return link.sent[-1]

        regular()  # the second look
        clock.advance(2)
        self.assertAlmostEqual(answer(link.sent[-1]), 2)
        overtaken = regular()
        clock.advance(1.5)
        session.probe()
        probe = link.sent[-1]
        clock.advance(0.25)
        self.assertAlmostEqual(answer(overtaken), 2)
        clock.advance(0.25)
        self.assertAlmostEqual(answer(probe), 0.5)
        asked = regular()
        clock.advance(0.125)
        self.assertAlmostEqual(answer(asked), 0.125)
        self.assertEqual(session.delay, answer(asked))

    def test_pong_goes_first(self) -> None:
        """A ping is answered at once, whatever waits for the end of the turn."""
        pair = NativePair()
        visitors = [pair.open()[0] for _ in range(3)]
        pair.clock.advance(0.001)
        for visitor in visitors:
            visitor.stream.write(b"some of it waits")
        pair.here.sent.clear()
        pair.server.message(bytes.fromhex("0500000800000000") + b"12345678")
        self.assertEqual(pair.here.sent, [bytes.fromhex("0600000800000000") + b"12345678"])

    def test_pongs_that_nobody_reads(self) -> None:
        """A peer that asks for answers without end, and reads none, is given up."""
        pair = NativePair()
        assert pair.here.producer is not None
        pair.here.producer.pauseProducing()
        ping = bytes.fromhex("0500000800000000") + b"12345678"
        for _ in range(100):
            pair.server.message(ping * 1000)
        self.assertIn("does not read", pair.here.aborted or "")

    def test_a_dead_client(self) -> None:
        """One that says nothing is given up after 18 s at most."""
        pair = NativePair()
        for _ in range(4):
            pair.clock.advance(PING_INTERVAL)
        pair.clock.advance(LAST_LOOK)
        self.assertIsNotNone(pair.here.aborted)

    def test_going_away(self) -> None:
        """The client learns it before the connection is closed, and running streams go on."""
        pair = NativePair()
        visitor, target = pair.open()
        pair.server.go_away("bye")
        pair.pump()
        self.assertEqual(pair.left, [True])
        visitor.stream.write(b"still here")
        pair.pump()
        self.assertEqual(target.received, b"still here")

    def test_a_client_that_goes(self) -> None:
        """It gets no more streams."""
        left: list[bool] = []
        pair = NativePair(on_going=lambda: left.append(True))
        pair.client.go_away("bye")
        pair.pump()
        self.assertEqual(left, [True])
        self.failureResultOf(pair.dial(), UpstreamGone)

    def test_what_is_kept_when_a_client_goes(self) -> None:
        """Streams that wait for another request end at once; it need not wait for them."""
        pair = NativePair(max_streams=2)
        running, _ = pair.open()
        pair.visitors.protocol = Kept
        kept, _ = pair.open()
        pair.client.go_away("bye")
        pair.pump()
        self.assertEqual((running.reasons, kept.reasons), ([], [ConnectionDone]))

    def test_close(self) -> None:
        """Streams end as cut, on both sides, and waiting bytes are sent before the goodbye."""
        pair = NativePair()
        visitor, target = pair.open()
        visitor.stream.write(b"one")
        visitor.stream.write(b"two")
        pair.server.close(1001, "bye")
        pair.pump()
        self.assertEqual(target.received, b"onetwo")
        self.assertEqual((visitor.reasons, target.reasons), ([ConnectionLost], [ConnectionLost]))

    def test_nonsense(self) -> None:
        """A peer that breaks the protocol is told so, and loses the connection."""
        pair = NativePair()
        visitor, _ = pair.open()
        pair.server.message(bytes.fromhex("00000001000000ff61"))
        assert pair.here.closed is not None
        self.assertEqual(pair.here.closed[0], 1002)
        self.assertEqual(visitor.reasons, [ConnectionLost])

    @settings(max_examples=200)
    @given(st.lists(st.sampled_from(FRAMES), max_size=8))
    def test_in_one_message(self, frames: list[bytes]) -> None:
        """Frames that come in one message are worth as much as in one each."""
        ends = list[object]()
        for messages in (frames, [b"".join(frames)]):
            pair, targets = NativePair(), HalfRecorders()
            assert pair.client.native is not None
            pair.client.native._factories[0] = targets
            for message in messages:
                pair.client.message(message)
            pair.clock.advance(0)
            heard = [(target.received, target.reasons) for target in targets.built]
            # After a fault nothing is known of what came before it, and a stream that was
            # abandoned at once may never have been there.
            ends.append(
                [target for target in heard if target[0]]
                if pair.there.closed is None
                else pair.there.closed[0]
            )
        self.assertEqual(ends[0], ends[1])

    def test_gone_as_it_comes(self) -> None:
        """A stream whose RESET comes in the message of its OPEN harms nothing else."""
        pair = NativePair()
        _, target = pair.open()
        frames = pair.mux.open(Metadata("tcp"))[1] + pair.mux.open(Metadata("tcp"))[1]
        pair.client.message(frames + pair.mux.reset(3, ResetCode.NO_ERROR))
        self.assertEqual((len(pair.targets.built), target.reasons), (2, []))
        self.assertTrue(pair.client.is_open)

    def test_attach(self) -> None:
        """A session whose owner has one tunnel only says so, and nothing else breaks."""
        pair = NativePair()
        mux = pair.client._mux
        assert isinstance(mux, NativeMux)
        _, frame = mux.attachments.attach("other", "token")
        pair.server.message(frame)
        pair.clock.advance(0)
        self.assertIn(b"TUNNEL_NOT_FOUND", b"".join(pair.here.sent))
        self.assertTrue(pair.server.is_open)


class UpgradeTests(SynchronousTestCase):
    """How a server's and a client's websockets agree on a dialect."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.admission = Admission()
        self.endpoint = WebsocketEndpoint(self.admission, self.clock)

    def answer(self, *offers: tuple[bytes, bytes]) -> bytes:
        """The head of the server's answer to an upgrade request."""
        fields = [(name.lower(), value) for name, value in offers]
        target = b"/v1/tunnel/my-tunnel/ws-endpoint?t=good"
        protocol: Any = self.successResultOf(self.endpoint.admit(target, fields, ORIGIN))
        wire = Wire()
        protocol.makeConnection(wire)
        lines = [f"{name.decode()}: {value.decode()}" for name, value in offers]
        protocol.dataReceived(head(*lines))
        return wire.taken().partition(b"\r\n\r\n")[0] + b"\r\n"

    def client(self, extra: str, native: bool = True) -> tuple[ClientConnection, bytes]:
        """A client that got a 101 with further fields, and its request."""
        wire = Wire()
        endpoint: Any = Dialling(wire)
        connecting = connect(endpoint, URL, Recorders(), self.clock, offers_native=native)
        request = wire.value()
        endpoint.protocol.dataReceived(
            accept(wire).replace(b"\r\n\r\n", extra.encode() + b"\r\n\r\n")
        )
        return self.successResultOf(connecting), request

    def test_server(self) -> None:
        """Who offers it gets both fields, nobody else gets either."""
        offer = b"Sec-WebSocket-Protocol"
        for offers in (
            [(offer, b"exposr-tx.1")],
            [(offer, b"mqtt, exposr-tx.1")],
            [(offer, b"exposr-tx.1"), (b"Exposr-Dialect", b"1.7")],
        ):
            answer = self.answer(*offers)
            self.assertIn(b"\r\nSec-WebSocket-Protocol: exposr-tx.1\r\n", answer)
            self.assertIn(b"\r\nExposr-Dialect: 1\r\n", answer)
        for offers in (
            [],
            [(offer, b"mqtt")],
            [(offer, b"exposr-tx.2")],
            [(offer, b"exposr-tx.1"), (b"Exposr-Dialect", b"2")],
        ):
            answer = self.answer(*offers).lower()
            self.assertIn(b"101", answer)
            self.assertNotIn(b"protocol:", answer)
            self.assertNotIn(b"dialect", answer)

    def test_client(self) -> None:
        """Only both fields make it native; an exposrd that echoes the offer gets version 2."""
        echo = "\r\nSec-WebSocket-Protocol: exposr-tx.1"
        for extra, native in (
            (echo + "\r\nExposr-Dialect: 1", True),
            (echo + "\r\nexposr-dialect: 1.12", True),
            (echo, False),
            (echo + "\r\nExposr-Dialect: 2", False),
            ("\r\nExposr-Dialect: 1", False),
            ("", False),
        ):
            connection, request = self.client(extra)
            self.assertIn(b"\r\nSec-WebSocket-Protocol: exposr-tx.1\r\n", request)
            self.assertIs(isinstance(connection.session._mux, NativeMux), native, extra)

    def test_not_offered(self) -> None:
        """A client whose server does not list the dialect does not mention it."""
        connection, request = self.client("\r\nExposr-Dialect: 1", native=False)
        self.assertNotIn(b"Protocol", request)
        self.assertNotIsInstance(connection.session._mux, NativeMux)

    def test_a_message_too_long(self) -> None:
        """More than the dialect allows is answered with 1009."""
        whole = b"\x82\x7f" + (1024 * 1024 + 1).to_bytes(8, "big")
        pieces = b"\x02\x7f" + (1024 * 1024).to_bytes(8, "big") + UNKNOWN_FRAME + b"\x80\x01x"
        for data in (whole, pieces):
            connection, _ = self.client(
                "\r\nSec-WebSocket-Protocol: exposr-tx.1\r\nExposr-Dialect: 1"
            )
            carrier: Any = connection.session.connection
            carrier.dataReceived(data)
            carrier.dataReceived(b"\x82\x01y")  # nothing more is read
            self.assertEqual(carrier.localCloseCode, 1009)
            self.assertFalse(connection.session.is_open)

    def test_a_text_message(self) -> None:
        """It is a protocol error, whole, in pieces, or behind a good message."""
        text = b"\x81\x05hello"
        for data in (text, b"\x82\x00" + text, b"\x01\x05hello\x80\x00"):
            connection, _ = self.client(
                "\r\nSec-WebSocket-Protocol: exposr-tx.1\r\nExposr-Dialect: 1"
            )
            carrier: Any = connection.session.connection
            carrier.dataReceived(data)
            self.assertEqual(carrier.localCloseCode, 1002)
            self.assertFalse(connection.session.is_open)

    def test_draining(self) -> None:
        """The client is told with GOAWAY, then 1001 follows the last stream."""
        target = b"/v1/tunnel/my-tunnel/ws-endpoint?t=good"
        offer = (b"sec-websocket-protocol", b"exposr-tx.1")
        protocol: Any = self.successResultOf(self.endpoint.admit(target, [offer], ORIGIN))
        wire = Wire()
        protocol.makeConnection(wire)
        protocol.dataReceived(head("Sec-WebSocket-Protocol: exposr-tx.1"))
        visitors = Recorders()
        self.successResultOf(self.admission.plugged[-1].connect(visitors, ORIGIN))
        self.clock.advance(0)
        wire.taken()
        drained = drain(self.endpoint)
        self.clock.advance(0)
        self.assertIn(b"\x07\x00\x00\x16\x00\x00\x00\x00\x00\x00Server", wire.taken())
        self.assertNoResult(drained)
        visitors.built[-1].stream.loseConnection()
        self.clock.advance(0)
        self.successResultOf(drained)
        self.assertIn(b"\x03\xe9Server shutting down", wire.taken())
