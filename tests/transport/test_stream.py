"""One channel as a transport."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IPushProducer, ITransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from exposr_tx.transport.channels import LINGER
from exposr_tx.transport.stream import HIGH_WATER, QUANTUM, RECEIVE_LIMIT, SEND_LIMIT
from tests.transport.pair import ORIGIN, Broken, Pair, Producer, Recorder

PAUSE, RESUME, CLOSE, DATA = 5, 6, 4, 1


class Transport(SynchronousTestCase):
    """What any protocol finds."""

    def setUp(self) -> None:
        self.pair = Pair()
        self.visitor, self.target = self.pair.open()

    def test_interfaces(self) -> None:
        """A stream is a transport, a producer and a consumer."""
        for interface in (ITransport, IPushProducer, IConsumer):
            self.assertTrue(verifyObject(interface, self.visitor.stream))

    def test_addresses(self) -> None:
        """On the server the peer is the visitor, on the client the server."""
        self.assertEqual(self.visitor.stream.getPeer(), ORIGIN.peer)
        self.assertEqual(self.visitor.stream.origin, ORIGIN)
        self.assertIsInstance(self.target.stream.getPeer(), IPv4Address)
        self.assertIsInstance(self.target.stream.getHost(), IPv4Address)

    def test_tcp_habits(self) -> None:
        """What protocols call on TCP transports does no harm."""
        stream = self.visitor.stream
        stream.setTcpNoDelay(True)
        stream.setTcpKeepAlive(True)
        self.assertTrue(stream.getTcpNoDelay())
        self.assertTrue(stream.connected)
        self.assertIn("OPEN", repr(stream))

    def test_both_ways(self) -> None:
        """Bytes go both ways, in order."""
        self.visitor.stream.write(b"GET")
        self.visitor.stream.writeSequence([b" ", b"/"])
        self.target.stream.write(b"200")
        self.pair.pump()
        self.assertEqual((self.target.received, self.visitor.received), (b"GET /", b"200"))

    def test_large_writes(self) -> None:
        """A large write arrives whole, in messages that let others in between."""
        data = bytes(range(256)) * 4000
        self.visitor.stream.write(data)
        self.assertLessEqual(max(map(len, self.pair.here.sent)), QUANTUM + 16)
        self.pair.pump()
        self.assertEqual(self.target.received, data)

    def test_a_failing_protocol(self) -> None:
        """A protocol that raises loses its own stream and nothing else."""

        def fail(_: Recorder) -> None:
            raise RuntimeError("a bug")

        _, other = self.pair.open()
        self.target.on_data = fail
        self.visitor.stream.write(b"x")
        self.pair.pump()
        self.pair.advance(0.1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.target.reasons, [RuntimeError])
        self.assertEqual(self.visitor.reasons, [ConnectionDone])
        self.assertEqual(other.reasons, [])

    def test_a_failing_producer(self) -> None:
        """A producer that fails when it is to pause loses its own stream and nothing else."""
        other, its_target = self.pair.open()
        self.visitor.stream.registerProducer(Broken("pauseProducing"), True)
        self.target.stream.pauseProducing()
        self.visitor.stream.write(b"x" * (HIGH_WATER + 1))
        self.pair.pump()
        other.stream.write(b"goes on")
        self.pair.advance(0.1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.visitor.reasons, [ZeroDivisionError])
        self.assertEqual((its_target.received, other.reasons), (b"goes on", []))

    def test_no_bytes(self) -> None:
        """Who writes a text hears of it himself."""
        self.assertRaises(TypeError, self.visitor.stream.write, "text")
        self.visitor.stream.write(b"bytes")
        self.pair.pump()
        self.assertEqual(self.target.received, b"bytes")


class Closing(SynchronousTestCase):
    """How a stream ends."""

    def setUp(self) -> None:
        self.pair = Pair()
        self.visitor, self.target = self.pair.open()

    def test_lose_connection(self) -> None:
        """Both ends see a clean end, once, and never from inside their own call."""
        self.visitor.stream.loseConnection()
        self.assertEqual(self.visitor.reasons, [])
        self.pair.advance(0.1)
        self.assertEqual(self.visitor.reasons, [ConnectionDone])
        self.assertEqual(self.target.reasons, [ConnectionDone])
        self.visitor.stream.loseConnection()
        self.visitor.stream.abortConnection()
        self.visitor.stream.write(b"late")
        self.pair.advance(2)
        self.assertEqual(len(self.visitor.reasons), 1)
        self.assertEqual((len(self.pair.server), len(self.pair.client)), (0, 0))

    def test_what_was_written_goes_first(self) -> None:
        """A close waits a moment after the last data, so that a slow peer loses none."""
        self.visitor.stream.write(b"last words")
        self.visitor.stream.loseConnection()
        self.visitor.stream.write(b"too late")
        self.pair.pump()
        self.assertEqual(self.target.received, b"last words")
        self.assertNotIn(CLOSE, self.pair.here.types())
        self.pair.clock.advance(LINGER)
        self.pair.pump()
        self.assertEqual(self.target.reasons, [ConnectionDone])

    def test_close_is_held_while_paused(self) -> None:
        """While the peer pauses us our CLOSE waits, as it would throw data away."""
        self.target.stream.pauseProducing()
        self.visitor.stream.write(b"x" * (HIGH_WATER + 1))
        self.visitor.stream.loseConnection()
        self.pair.advance(3)
        self.assertNotIn(CLOSE, self.pair.here.types())
        self.target.stream.resumeProducing()
        self.pair.pump()
        self.assertNotIn(CLOSE, self.pair.here.types())
        self.pair.advance(0.1)
        self.assertEqual(self.target.reasons, [ConnectionDone])
        self.assertEqual(len(self.target.received), HIGH_WATER + 1)

    def test_close_waits_for_a_pong_after_much(self) -> None:
        """After much data the close waits until the peer has seen all of it."""
        self.visitor.stream.write(b"x" * 100_000)
        self.visitor.stream.loseConnection()
        self.pair.clock.advance(1)
        self.assertNotIn(CLOSE, self.pair.here.types())
        self.pair.pump()
        self.pair.advance(0.1)
        self.assertIn(CLOSE, self.pair.here.types())

    def test_abort(self) -> None:
        """An abort is at once; the other end sees the stream end."""
        self.target.stream.pauseProducing()
        self.visitor.stream.write(b"x" * 100_000)
        self.pair.pump()
        self.visitor.stream.write(b"held")
        self.visitor.stream.abortConnection()
        self.pair.clock.advance(0)
        self.assertEqual(self.visitor.reasons, [ConnectionAborted])
        self.assertEqual(self.pair.here.types()[-1], CLOSE)

    def test_what_has_arrived_is_delivered(self) -> None:
        """A protocol that has paused gets everything before it hears of the end."""
        self.target.stream.pauseProducing()
        self.visitor.stream.write(b"all of it")
        self.visitor.stream.loseConnection()
        self.pair.advance(0.1)
        self.assertEqual((self.target.received, self.target.reasons), (b"", []))
        self.target.stream.resumeProducing()
        self.assertEqual(self.target.received, b"all of it")
        self.assertEqual(self.target.reasons, [ConnectionDone])

    def test_close_while_both_wait(self) -> None:
        """What was kept for one who closes is forgotten with the stream; calls that come late do
        nothing."""
        self.target.stream.pauseProducing()
        self.visitor.stream.write(b"unread")
        self.pair.pump()
        self.target.stream.registerProducer(Producer(), True)
        self.target.stream.loseConnection()  # waits for its producer
        self.visitor.stream.abortConnection()
        self.pair.advance(0.1)
        self.target.stream.resumeProducing()
        self.assertEqual((self.target.received, len(self.target.reasons)), (b"", 1))

    def test_close_instead_of_reading(self) -> None:
        """A paused protocol whose peer has gone may close without reading on."""
        self.target.stream.pauseProducing()
        self.visitor.stream.write(b"unread")
        self.visitor.stream.loseConnection()
        self.pair.advance(0.1)
        self.target.stream.loseConnection()
        self.pair.advance(0.1)
        self.assertEqual((self.target.received, self.target.reasons), (b"", [ConnectionDone]))

    def test_an_error_is_no_end(self) -> None:
        """A CLOSE with a reason is a loss."""
        close = bytes.fromhex("0002 0004 00000001 00000000 00000005") + b"ERR_X"
        self.pair.there.take("message", close)
        self.assertEqual(self.target.reasons, [ConnectionLost])

    def test_with_a_producer(self) -> None:
        """A close waits for a registered producer, which may still write."""
        producer = Producer()
        self.visitor.stream.registerProducer(producer, True)
        self.visitor.stream.loseConnection()
        self.visitor.stream.write(b"more")
        self.pair.advance(1)
        self.assertEqual((self.target.received, self.target.reasons), (b"more", []))
        self.visitor.stream.unregisterProducer()
        self.pair.advance(0.1)
        self.assertEqual(self.target.reasons, [ConnectionDone])

    def test_close_inside_data_received(self) -> None:
        """A protocol may close, and abort, while it is given data."""
        self.target.on_data = lambda target: target.stream.loseConnection()
        self.visitor.on_data = lambda visitor: visitor.stream.abortConnection()
        self.visitor.stream.write(b"x")
        self.target.stream.write(b"y")
        self.pair.advance(0.2)
        self.assertEqual(len(self.target.reasons), 1)
        self.assertEqual(len(self.visitor.reasons), 1)
        self.assertEqual((len(self.pair.server), len(self.pair.client)), (0, 0))


class Sending(SynchronousTestCase):
    """Back pressure on who writes."""

    def setUp(self) -> None:
        self.pair = Pair()
        self.visitor, self.target = self.pair.open()
        self.stream: Any = self.visitor.stream

    def test_a_slow_peer(self) -> None:
        """A producer is paused while the peer pauses us, and goes on after."""
        producer = Producer()
        self.stream.registerProducer(producer, True)
        self.target.stream.pauseProducing()
        self.stream.write(b"x" * (HIGH_WATER + 1))
        self.pair.pump()
        self.assertEqual(producer.calls, ["pause"])
        self.stream.write(b"held")
        self.pair.pump()
        self.target.stream.resumeProducing()
        self.assertNotIn(b"held", self.target.received)
        self.pair.pump()
        self.assertEqual(producer.calls, ["pause", "resume"])
        self.assertTrue(self.target.received.endswith(b"held"))

    def test_a_full_connection(self) -> None:
        """What is written while the connection is full is kept, its producer paused."""
        producer = Producer()
        self.stream.registerProducer(producer, True)
        self.pair.server.pauseProducing()
        self.stream.write(b"one ")
        self.stream.write(b"two")
        self.pair.pump()
        self.assertEqual((self.target.received, producer.calls), (b"", ["pause"]))
        self.pair.server.resumeProducing()
        self.pair.pump()
        self.assertEqual((self.target.received, producer.calls), (b"one two", ["pause", "resume"]))

    def test_pull_producers(self) -> None:
        """A pull producer is asked for as much as there is room for."""
        stream = self.stream
        pair = self.pair

        class Pull:
            left = 10

            def resumeProducing(self) -> None:
                if self.left == 5:
                    pair.server.pauseProducing()
                if self.left:
                    self.left -= 1
                    stream.write(b"%d" % self.left)
                else:
                    stream.unregisterProducer()
                    stream.loseConnection()

            def stopProducing(self) -> None: ...

        pull = Pull()
        stream.registerProducer(pull, False)
        self.assertEqual(pull.left, 4)
        pair.server.resumeProducing()
        pair.advance(0.2)
        self.assertEqual(self.target.received, b"9876543210")
        self.assertEqual(self.target.reasons, [ConnectionDone])

    def test_a_second_producer(self) -> None:
        """There is one producer at a time."""
        self.stream.registerProducer(Producer(), True)
        with self.assertRaises(RuntimeError):
            self.stream.registerProducer(Producer(), True)

    def test_a_producer_too_late(self) -> None:
        """A producer that comes after the end is stopped, and so is one that sees it."""
        early, late = Producer(), Producer()
        self.stream.registerProducer(early, True)
        self.target.stream.loseConnection()
        self.pair.pump()
        self.stream.registerProducer(late, True)
        self.assertEqual((early.calls, late.calls), (["stop"], ["stop"]))

    def test_without_a_producer(self) -> None:
        """Who writes without end and cannot be paused loses the stream."""
        self.pair.server.pauseProducing()
        block = bytes(1024 * 1024)
        for _ in range(SEND_LIMIT // len(block) + 1):
            self.stream.write(block)
        self.pair.clock.advance(0)
        self.assertEqual(self.visitor.reasons, [ConnectionAborted])


class Receiving(SynchronousTestCase):
    """Back pressure on the peer."""

    def setUp(self) -> None:
        self.pair = Pair()
        self.visitor, self.target = self.pair.open()

    def test_pause_comes_late(self) -> None:
        """A short pause costs no messages; beyond the high-water mark there is one PAUSE."""
        self.target.stream.pauseProducing()
        self.visitor.stream.write(b"x" * HIGH_WATER)
        self.pair.pump()
        self.assertNotIn(PAUSE, self.pair.there.types())
        for _ in range(3):
            self.pair.there.take("message", self.pair.here.sent[-1])
        self.assertEqual(self.pair.there.types().count(PAUSE), 1)
        self.assertEqual(self.target.received, b"")
        self.target.stream.resumeProducing()
        self.assertEqual(self.pair.there.types()[-1], RESUME)
        self.assertEqual(len(self.target.received), 4 * HIGH_WATER)
        self.target.stream.resumeProducing()
        self.assertEqual(self.pair.there.types().count(RESUME), 1)

    def test_pause_inside_data_received(self) -> None:
        """A protocol that pauses after each piece gets one piece at a time, in order."""
        self.target.on_data = lambda target: target.stream.pauseProducing()
        for piece in (b"a", b"b", b"c"):
            self.visitor.stream.write(piece)
        self.pair.pump()
        seen = [self.target.received]
        for _ in range(2):
            self.target.stream.resumeProducing()
            seen.append(self.target.received)
        self.assertEqual(seen, [b"a", b"ab", b"abc"])

    def test_resume_inside_data_received(self) -> None:
        """A protocol that resumes while it is given data is not called twice at a time."""
        depth: list[int] = []

        def on_data(target: Recorder) -> None:
            depth.append(1)
            self.assertEqual(len(depth), 1)
            target.stream.pauseProducing()
            target.stream.resumeProducing()
            depth.pop()

        self.target.stream.pauseProducing()
        for piece in (b"a", b"b", b"c"):
            self.visitor.stream.write(piece)
        self.pair.pump()
        self.target.on_data = on_data
        self.target.stream.resumeProducing()
        self.assertEqual(self.target.received, b"abc")

    def test_a_peer_that_ignores_pause(self) -> None:
        """A peer that goes on without end loses the stream, and the memory is free."""
        self.target.stream.pauseProducing()
        self.visitor.stream.write(b"x" * HIGH_WATER)
        self.pair.pump()
        message = self.pair.here.sent[-1]
        for _ in range(RECEIVE_LIMIT // HIGH_WATER + 1):
            self.pair.there.take("message", message)
        self.pair.clock.advance(0)
        self.assertEqual(self.target.reasons, [ConnectionLost])
        self.assertEqual(self.pair.there.types()[-1], CLOSE)

    def test_stop(self) -> None:
        """Stopping a stream as a producer closes it."""
        self.target.stream.stopProducing()
        self.pair.advance(0.1)
        self.assertEqual(self.visitor.reasons, [ConnectionDone])
