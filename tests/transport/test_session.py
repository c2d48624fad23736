"""Streams of one connection, and how a dead one is found out."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.errors import StreamLimit, TargetFailed, UpstreamGone
from exposr_tx.transport.channels import CLOSE_TIMEOUT
from exposr_tx.transport.liveness import LAST_LOOK, PING_INTERVAL, SERVER_SILENCE
from exposr_tx.transport.openings import ACK_TIMEOUT
from exposr_tx.transport.session import MAX_UNREAD_REPLIES, Session
from exposr_tx.wire.mux import MuxV2
from tests.transport.pair import ORIGIN, Link, Pair, Producer, Recorders


class Opening(SynchronousTestCase):
    """From OPEN to a protocol."""

    def test_accepted(self) -> None:
        """The protocol is connected when the client has accepted, not before."""
        pair = Pair()
        opened = pair.dial()
        self.assertNoResult(opened)
        self.assertEqual(pair.visitors.built, [])
        pair.pump()
        self.assertIs(self.successResultOf(opened), pair.visitors.built[0])
        self.assertEqual((len(pair.server), len(pair.client)), (1, 1))
        self.assertEqual((pair.server.streams_opened, pair.client.streams_opened), (1, 1))

    def test_silence(self) -> None:
        """A client that does not accept in time fails the stream, and its ACK is too late."""
        pair = Pair()
        opened = pair.dial()
        pair.clock.advance(ACK_TIMEOUT)
        self.failureResultOf(opened, TargetFailed)
        self.assertEqual(len(pair.server), 0)
        pair.pump()
        self.assertEqual(pair.targets.built[0].reasons, [ConnectionLost])
        self.assertEqual(len(pair.client), 0)

    def test_rejected(self) -> None:
        """A client that refuses a stream fails it."""
        pair = Pair()
        opened = pair.dial()
        pair.here.take("message", bytes.fromhex("0002 0004 00000001 00000000 00000000"))
        self.failureResultOf(opened, TargetFailed)

    def test_connection_lost(self) -> None:
        """A connection that is lost meanwhile, or before, has no stream to give."""
        pair = Pair()
        opened = pair.dial()
        pair.server.lost("gone")
        self.failureResultOf(opened, UpstreamGone)
        self.failureResultOf(pair.dial(), UpstreamGone)

    def test_limit(self) -> None:
        """There are as many streams as there may be, those included that are opening."""
        pair = Pair(max_streams=2)
        pair.open()
        pair.dial()
        self.failureResultOf(pair.dial(), StreamLimit)
        pair.pump()
        pair.visitors.built[0].stream.loseConnection()
        pair.pump()
        pair.open()

    def test_cancelled(self) -> None:
        """A stream that nobody waits for any more is closed at the client, too."""
        pair = Pair()
        opened = pair.dial()
        opened.cancel()
        self.failureResultOf(opened, CancelledError)
        self.assertEqual(len(pair.server), 0)
        pair.advance(0.1)
        self.assertEqual(pair.visitors.built, [])
        self.assertEqual(len(pair.targets.built[0].reasons), 1)
        self.assertEqual(len(pair.client), 0)

    def test_nobody_there(self) -> None:
        """A factory that has no protocol to give closes the stream, on either side."""
        pair = Pair()
        nobody: Any = Factory()
        nobody.buildProtocol = lambda _: None
        opened = pair.server.open_stream(nobody, ORIGIN)
        pair.pump()
        self.failureResultOf(opened, TargetFailed)
        pair.targets.buildProtocol = lambda _: None  # type: ignore[assignment, method-assign, return-value]
        visitor = pair.dial()
        pair.advance(0.1)
        self.assertEqual(len(self.successResultOf(visitor).reasons), 1)
        self.assertEqual((len(pair.server), len(pair.client)), (0, 0))

    def test_lost_step(self) -> None:
        """A client that answers with another number is told, and has to connect anew."""
        pair = Pair()
        opened = pair.dial()
        pair.here.take("message", bytes.fromhex("0002 0003 00000001 00000002 00000000"))
        self.failureResultOf(opened, UpstreamGone)
        self.assertEqual(1002, pair.here.closed and pair.here.closed[0])

    def test_pieces(self) -> None:
        """Messages in pieces are acted upon as they arrive."""
        pair = Pair()
        _, target = pair.open()
        data = bytes.fromhex("0002 0001 00000001 00000001 00000000") + b"abcdef"
        pair.client.message_begin()
        for i in range(len(data)):
            pair.client.message_data(data[i : i + 1])
        self.assertEqual(target.received, b"abcdef")
        pair.client.message_end()
        pair.client.message_begin()
        pair.client.message_data(b"\x00\x03" + bytes(14))
        self.assertEqual(1002, pair.there.closed and pair.there.closed[0])


class Ending(SynchronousTestCase):
    """What is left when a session ends: nothing."""

    def test_closed(self) -> None:
        """Closing ends the streams on both sides, then says goodbye."""
        ended: list[str] = []
        pair = Pair(on_end=ended.append)
        visitor, target = pair.open()
        pair.server.close(1008, "deleted")
        self.assertEqual(pair.here.closed, (1008, "deleted"))
        self.assertEqual(visitor.reasons, [ConnectionLost])
        pair.pump()
        self.assertEqual(len(target.reasons), 1)
        pair.server.close(1001, "again")
        pair.server.lost("again")
        self.assertEqual(pair.here.closed, (1008, "deleted"))
        self.assertEqual(ended, ["deleted"])
        pair.clock.advance(0)
        self.assertEqual(pair.clock.getDelayedCalls(), [])

    def test_lost(self) -> None:
        """A lost connection is an error to its streams, and stops their producers."""
        pair = Pair()
        visitor, _ = pair.open()
        producer = Producer()
        visitor.stream.registerProducer(producer, True)
        pair.server.lost("gone")
        pair.client.lost("gone")
        self.assertEqual((visitor.reasons, producer.calls), ([ConnectionLost], ["stop"]))
        self.assertFalse(pair.server.is_open)
        self.assertEqual(pair.clock.getDelayedCalls(), [])

    def test_drained(self) -> None:
        """Who waits for the last stream is told when it has ended."""
        pair = Pair()
        self.successResultOf(pair.server.drained())
        visitor, _ = pair.open()
        opening = pair.dial()
        drained = pair.server.drained()
        visitor.stream.loseConnection()
        pair.pump()
        self.assertNoResult(drained)
        self.successResultOf(opening).stream.abortConnection()
        self.successResultOf(drained)

    def test_unacknowledged_closes(self) -> None:
        """A CLOSE that nobody acknowledges is forgotten."""
        pair = Pair()
        for _ in range(3):
            visitor, _ = pair.open()
            visitor.stream.loseConnection()
        pair.here.outbox.clear()
        pair.clock.advance(CLOSE_TIMEOUT)
        self.assertEqual(len(pair.server._mux), 0)  # type: ignore[arg-type]

    def test_messages_after_the_end(self) -> None:
        """What still arrives after the end is dropped."""
        pair = Pair()
        pair.client.close(1000, "")
        sent = len(pair.there.sent)
        pair.there.take("message", bytes.fromhex("0002 0002 00000000 00000001 00000000"))
        self.assertEqual((pair.targets.built, len(pair.there.sent)), ([], sent))


class Sharing(SynchronousTestCase):
    """A connection that is full is shared fairly."""

    def test_small_streams_do_not_wait(self) -> None:
        """Behind a stream with much to send, small ones have their turn."""
        pair = Pair()
        big, _ = pair.open()
        small = [pair.open()[0] for _ in range(3)]
        pair.server.pauseProducing()
        big.stream.write(bytes(1_000_000))
        for visitor in small:
            visitor.stream.write(b"small")
        sent = len(pair.here.sent)
        pair.server.resumeProducing()
        first = [message[11] for message in pair.here.sent[sent : sent + 4]]
        self.assertEqual(first, [1, 2, 3, 4])

    def test_full_again(self) -> None:
        """When the transport fills in the middle, the others go first next time."""
        pair = Pair()
        visitors = [pair.open()[0] for _ in range(3)]
        pair.server.pauseProducing()
        for visitor in visitors:
            visitor.stream.write(bytes(500_000))
        send, turns = pair.here.send, []

        def fill(head: bytes, payload: bytes = b"") -> None:
            turns.append(head[11])
            send(head, payload)
            pair.server.pauseProducing()

        pair.here.send = fill  # type: ignore[method-assign]
        for _ in range(6):
            pair.server.resumeProducing()
        self.assertEqual(turns, [1, 2, 3, 1, 2, 3])

    def test_one_paused_stream(self) -> None:
        """A stream whose reader has stopped does not hold up another one."""
        pair = Pair()
        slow, slow_target = pair.open()
        fast, fast_target = pair.open()
        slow_target.stream.pauseProducing()
        slow.stream.write(bytes(500_000))
        pair.pump()
        fast.stream.write(bytes(500_000))
        pair.pump()
        self.assertEqual(len(fast_target.received), 500_000)
        self.assertEqual(len(slow_target.received), 0)

    def test_answers_that_nobody_reads(self) -> None:
        """A peer that asks for answers and does not read them loses its connection."""
        pair = Pair()
        pair.client.pauseProducing()
        close = bytes.fromhex("0002 0004 00000009 00000009 00000000")
        for _ in range(MAX_UNREAD_REPLIES // 16 + 1):
            pair.there.take("message", close)
        self.assertIsNotNone(pair.there.aborted)

    def test_answers_that_are_read_late(self) -> None:
        """Who reads now and then may ask for as much as he likes."""
        pair = Pair()
        close = bytes.fromhex("0002 0004 00000009 00000009 00000000")
        for _ in range(3):
            pair.client.pauseProducing()
            for _ in range(MAX_UNREAD_REPLIES // 32):
                pair.there.take("message", close)
            pair.client.resumeProducing()
        self.assertIsNone(pair.there.aborted)

    @settings(max_examples=40)
    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(1, 90_000))))
    def test_anything_in_any_order(self, steps: list[tuple[int, int, int]]) -> None:
        """Whatever pauses and fills meanwhile, every byte arrives, in order."""
        pair = Pair()
        streams = [pair.open() for _ in range(4)]
        sent = [b""] * 4
        counter = 0
        for which, action, size in steps:
            visitor, target = streams[which]
            if action <= 1:
                counter += 1
                data = (b"%d," % counter) * (size // 4 + 1)
                sent[which] += data
                visitor.stream.write(data)
            elif action == 2:
                target.stream.pauseProducing()
            elif action == 3:
                target.stream.resumeProducing()
            elif action == 4:
                pair.server.pauseProducing()
            else:
                pair.server.resumeProducing()
                pair.pump()
        pair.server.resumeProducing()
        for visitor, target in streams:
            visitor.stream.loseConnection()
            target.stream.resumeProducing()
        pair.advance(1)
        for data, (visitor, target) in zip(sent, streams, strict=True):
            self.assertEqual(target.received, data)
            self.assertEqual((len(visitor.reasons), len(target.reasons)), (1, 1))
        pair.advance(2)
        self.assertEqual((len(pair.server._mux), len(pair.client._mux)), (0, 0))  # type: ignore[arg-type]


class Life(SynchronousTestCase):
    """Signs of life, and their absence."""

    def alone(self, **options: Any) -> tuple[Clock, Link, Session]:
        """A session whose peer says nothing by itself."""
        clock, link = Clock(), Link()
        is_client = options.get("watches_server", False)
        session = Session(link, MuxV2(opener=not is_client), clock, Recorders(), **options)
        link.session = session
        session.start()
        return clock, link, session

    def pings(self, link: Link) -> list[bytes]:
        return [payload for kind, payload in link.outbox if kind == "ping"]

    def silence(self, clock: Clock, link: Link, limit: float) -> float:
        """Seconds until the session is given up."""
        start = clock.seconds()
        while link.aborted is None and clock.seconds() - start < limit:
            clock.advance(0.25)
        return clock.seconds() - start

    def test_first_ping(self) -> None:
        """Both sides ping at once, then every six seconds."""
        clock, link, _ = self.alone()
        self.assertEqual(len(self.pings(link)), 1)
        clock.advance(PING_INTERVAL)
        self.assertEqual(len(self.pings(link)), 2)

    def test_a_live_peer(self) -> None:
        """Two sessions that answer each other live on."""
        pair = Pair()
        pair.advance(120)
        self.assertTrue(pair.server.is_open)
        self.assertTrue(pair.client.is_open)

    def test_a_dead_client(self) -> None:
        """A client that falls silent is given up within 18 s, whenever it does."""
        for offset in (0.0, 0.5, 5.75, 6.0, 6.25, 11.5):
            clock, link, session = self.alone()
            while clock.seconds() < offset:
                clock.advance(0.25)
            session.heard()
            took = self.silence(clock, link, 60)
            self.assertGreater(took, 2 * PING_INTERVAL - 0.5)
            self.assertLessEqual(took, 18.5)
            self.assertEqual(clock.getDelayedCalls(), [])

    def test_data_is_life(self) -> None:
        """A client whose pongs do not come but whose data does is alive."""
        clock, link, session = self.alone()
        for _ in range(30):
            clock.advance(5)
            session.heard()
        self.assertIsNone(link.aborted)

    def test_read_before_judged(self) -> None:
        """What lies unread when the time is over still counts."""
        clock, link, session = self.alone()
        clock.advance(PING_INTERVAL)
        clock.advance(PING_INTERVAL)
        clock.advance(PING_INTERVAL)
        session.heard()  # the reactor reads meanwhile
        clock.advance(LAST_LOOK)
        self.assertIsNone(link.aborted)
        self.assertLessEqual(self.silence(clock, link, 60), 18.5)

    def test_stopped_and_continued(self) -> None:
        """After this process stood still, the peer gets time to answer."""
        for watches_server in (False, True):
            clock, link, session = self.alone(watches_server=watches_server)
            clock.advance(100)  # SIGSTOP … SIGCONT: all timers are late
            clock.advance(LAST_LOOK)
            self.assertIsNone(link.aborted)
            session.heard()
            session.ping_received()
            clock.advance(PING_INTERVAL)
            clock.advance(LAST_LOOK)
            self.assertIsNone(link.aborted)
            self.assertLess(self.silence(clock, link, 60), 30)

    def test_a_silent_server(self) -> None:
        """A client gives up a server that does not ping for 21 s, exactly."""
        clock, link, session = self.alone(watches_server=True)
        clock.advance(3)
        session.heard()
        session.ping_received()
        took = self.silence(clock, link, 60)
        self.assertEqual(took, SERVER_SILENCE + 0.25)  # in steps of a quarter
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_a_zombie_server(self) -> None:
        """A server that only answers pings has stopped serving the connection."""
        clock, link, session = self.alone(watches_server=True)
        for _ in range(4):
            clock.advance(5.5)
            session.heard()
            session.pong_received(self.pings(link)[-1])
        clock.advance(LAST_LOOK)
        self.assertIsNotNone(link.aborted)

    def test_messages_of_the_server_are_life(self) -> None:
        """A server that sends data needs no pings."""
        clock, link, session = self.alone(watches_server=True)
        for i in range(1, 20):
            clock.advance(10)
            session.heard()
            session.message(bytes.fromhex("0002 0002 00000000") + i.to_bytes(4, "big") + bytes(4))
        self.assertIsNone(link.aborted)

    def test_probe(self) -> None:
        """A probe is answered by a pong, or by its absence."""
        pair = Pair()
        probe = pair.server.probe()
        pair.pump()
        self.assertTrue(self.successResultOf(probe))
        probe = pair.server.probe()
        pair.here.outbox.clear()
        pair.clock.advance(1)
        self.assertFalse(self.successResultOf(probe))
        probe = pair.server.probe()
        pair.server.lost("gone")
        self.assertFalse(self.successResultOf(probe))
        self.assertFalse(self.successResultOf(pair.server.probe()))

    def test_pongs_that_nobody_asked_for(self) -> None:
        """Only the answer to the probe's own ping is an answer."""
        clock, link, session = self.alone()
        early = self.pings(link)[-1]
        probe = session.probe()
        for payload in (early, b"", b"\xff\xff\xff\xff", b"something"):
            session.pong_received(payload)
        self.assertNoResult(probe)
        session.pong_received(self.pings(link)[-1])
        self.assertTrue(self.successResultOf(probe))
        self.assertEqual(len(clock.getDelayedCalls()), 1)

    def test_alive_at(self) -> None:
        """When the peer was last heard is told in epoch milliseconds."""
        now = [1000.0]
        clock, _, session = self.alone(wall_clock=lambda: now[0])
        clock.advance(2)
        session.heard()
        clock.advance(3)
        now[0] += 5
        self.assertEqual(session.alive_at, 1_002_000)
