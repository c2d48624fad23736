"""The version 2 multiplex protocol, without any transport."""

from __future__ import annotations

import struct
from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.errors import LocalProtocolError, RemoteProtocolError
from exposr_tx.wire.mux import (
    TOLD_SIZE,
    Accepted,
    Closed,
    Data,
    Event,
    MuxV2,
    Opened,
    Paused,
    Rejected,
    Reply,
    Resumed,
)

DATA, OPEN, ACK, CLOSE, PAUSE, RESUME = range(1, 7)


def message(kind: int, dst: int, src: int, payload: bytes = b"", version: int = 2) -> bytes:
    return struct.pack(">HHIII", version, kind, dst, src, len(payload)) + payload


def fed(mux: MuxV2, *chunks: bytes) -> list[Event]:
    """The events of one message that comes in pieces."""
    mux.message_begin()
    events: list[Event] = []
    for chunk in chunks:
        events += mux.message_data(chunk)
    events += mux.message_end()
    return events


def opener(channels: int = 1) -> MuxV2:
    """A server's side with some open channels."""
    mux = MuxV2(opener=True)
    for _ in range(channels):
        number, _ = mux.open()
        assert list(mux.receive(message(ACK, number, number))) == [Accepted(number)]
    return mux


def acceptor(*numbers: int) -> MuxV2:
    """A client's side with some open channels."""
    mux = MuxV2(opener=False)
    for number in numbers:
        mux.receive(message(OPEN, 0, number))
    return mux


class Examples(SynchronousTestCase):
    """The bytes of the protocol page."""

    def test_open_and_acknowledge(self) -> None:
        """An OPEN is answered by an ACK with the same number."""
        server, client = MuxV2(opener=True), MuxV2(opener=False)
        number, opened = server.open()
        self.assertEqual(opened, bytes.fromhex("0002 0002 00000000 00000001 00000000"))
        events = client.receive(opened)
        ack = bytes.fromhex("0002 0003 00000001 00000001 00000000")
        self.assertEqual(list(events), [Reply(ack), Opened(1)])
        self.assertEqual(list(server.receive(ack)), [Accepted(number)])

    def test_data_and_close(self) -> None:
        """DATA and CLOSE carry both numbers."""
        server = opener()
        self.assertEqual(
            server.data_head(1, 2) + b"hi",
            bytes.fromhex("0002 0001 00000001 00000001 00000002 6869"),
        )
        self.assertEqual(server.close(1), bytes.fromhex("0002 0004 00000001 00000001 00000000"))

    def test_rejected(self) -> None:
        """A rejection says why."""
        server = MuxV2(opener=True)
        server.open()
        rejection = bytes.fromhex("0002 0004 00000001 00000000 00000013") + b"ERR_WSM_NO_CHANNELS"
        self.assertEqual(list(server.receive(rejection)), [Rejected(1, "ERR_WSM_NO_CHANNELS")])
        self.assertEqual(len(server), 0)

    def test_rejecting(self) -> None:
        """A client with as many channels as it may have rejects, and says why."""
        client = MuxV2(opener=False, max_channels=1)
        client.receive(message(OPEN, 0, 1))
        self.assertEqual(
            list(client.receive(message(OPEN, 0, 2))),
            [Reply(message(CLOSE, 2, 0, b"ERR_WSM_NO_CHANNELS"))],
        )


class Numbers(SynchronousTestCase):
    """Both sides' numbers stay equal, or the websocket is given up."""

    def test_without_gaps(self) -> None:
        """A server counts 1, 2, 3 and uses no number again."""
        server = opener(2)
        server.close(1)
        server.receive(message(ACK, 1, 1))
        self.assertEqual(server.open()[0], 3)

    def test_used_up(self) -> None:
        """The highest number is the last."""
        server = opener(0)
        server._last = 2**32 - 2
        self.assertEqual((server.used_up, server.open()[0]), (False, 2**32 - 1))
        self.assertTrue(server.used_up)
        with self.assertRaises(LocalProtocolError):
            server.open()

    def test_lost_step(self) -> None:
        """An ACK under another number means that the websocket must go."""
        server = MuxV2(opener=True)
        server.open()
        with self.assertRaises(RemoteProtocolError):
            server.receive(message(ACK, 1, 2))

    def test_any_number_is_accepted(self) -> None:
        """A client takes whatever number it is given."""
        client = MuxV2(opener=False)
        events = client.receive(message(OPEN, 7, 4_000_000_000))
        self.assertEqual(
            list(events),
            [Reply(message(ACK, 4_000_000_000, 4_000_000_000)), Opened(4_000_000_000)],
        )

    def test_reuse(self) -> None:
        """An OPEN under a number in use ends the channel that had it."""
        client = acceptor(1)
        self.assertEqual(
            list(client.receive(message(OPEN, 0, 1))),
            [
                Reply(message(CLOSE, 1, 0, b"ERR_WSM_OPEN_CHANNEL_REUSE")),
                Closed(1, "ERR_WSM_OPEN_CHANNEL_REUSE"),
            ],
        )
        self.assertEqual(len(client), 0)

    def test_only_servers_open(self) -> None:
        """A client's OPEN is rejected, and a client cannot open."""
        self.assertEqual(
            list(opener().receive(message(OPEN, 0, 1))),
            [Reply(message(CLOSE, 1, 0, b"ERR_WSM_OPEN_CHANNEL_REJECTED"))],
        )
        with self.assertRaises(LocalProtocolError):
            MuxV2(opener=False).open()

    def test_number_zero(self) -> None:
        """Number 0 is nobody's: an OPEN from it is not answered."""
        self.assertEqual(list(acceptor().receive(message(OPEN, 0, 0))), [])


class Reading(SynchronousTestCase):
    """What a message is."""

    def test_split_anywhere(self) -> None:
        """A message in pieces is the same as a whole one."""
        data = message(DATA, 1, 1, b"some bytes")
        for i in range(len(data) + 1):
            events = fed(acceptor(1), data[:i], data[i:])
            self.assertEqual(b"".join(e.data for e in events if isinstance(e, Data)), b"some bytes")
        close = message(CLOSE, 1, 1, b"ERR_X")
        for i in range(len(close) + 1):
            self.assertEqual(
                fed(acceptor(1), close[:i], close[i:]),
                [Reply(message(ACK, 1, 1)), Closed(1, "ERR_X")],
            )

    def test_data_does_not_wait(self) -> None:
        """Bytes of a long message are there as they arrive."""
        mux = acceptor(1)
        mux.message_begin()
        mux.message_data(message(DATA, 1, 1))
        self.assertEqual(list(mux.message_data(b"first")), [Data(1, b"first")])
        mux.close(1)
        self.assertEqual(list(mux.message_data(b"second")), [])
        self.assertEqual(list(mux.message_end()), [])

    def test_length_is_ignored(self) -> None:
        """The payload is what follows, whatever the length says."""
        wrong = message(DATA, 1, 1)[:12] + b"\x00\x00\xff\xff" + b"abc"
        self.assertEqual(list(acceptor(1).receive(wrong)), [Data(1, b"abc")])

    def test_empty_data(self) -> None:
        """DATA without bytes is tolerated."""
        self.assertEqual(list(acceptor(1).receive(message(DATA, 1, 1))), [])

    def test_short_messages(self) -> None:
        """What is no message is dropped, before its version is looked at."""
        for size in range(16):
            self.assertEqual(list(acceptor(1).receive(b"\xff" * size)), [])
            self.assertEqual(fed(acceptor(1), b"\xff" * size), [])

    def test_versions(self) -> None:
        """Another version ends the websocket, however it arrives."""
        for kind in (DATA, OPEN, 99):
            for payload in (b"", b"x"):
                odd = message(kind, 1, 1, payload, version=3)
                with self.assertRaises(RemoteProtocolError):
                    acceptor(1).receive(odd)
                with self.assertRaises(RemoteProtocolError):
                    fed(acceptor(1), odd[:7], odd[7:])

    def test_unknown_types(self) -> None:
        """Message types of later days are ignored."""
        self.assertEqual(list(acceptor(1).receive(message(7, 1, 1, b"?"))), [])

    def test_reasons_are_bounded(self) -> None:
        """A CLOSE's reason is not kept at any length, and may be any bytes."""
        events = fed(acceptor(1), message(CLOSE, 1, 1), *[b"\xff" * 1000] * 50)
        closed = events[-1]
        assert isinstance(closed, Closed)
        self.assertLess(len(closed.reason), 200)


class Closing(SynchronousTestCase):
    """A channel ends once, whoever ends it."""

    def test_by_the_peer(self) -> None:
        """A CLOSE is acknowledged, unless it says that nobody waits for that."""
        self.assertEqual(
            list(acceptor(1).receive(message(CLOSE, 1, 1))),
            [Reply(message(ACK, 1, 1)), Closed(1, "")],
        )
        self.assertEqual(
            list(acceptor(1).receive(message(CLOSE, 1, 0, b"ERR_WSM_CHANNEL_NOT_OPEN"))),
            [Closed(1, "ERR_WSM_CHANNEL_NOT_OPEN")],
        )

    def test_by_us(self) -> None:
        """After our CLOSE data is dropped in silence, until the ACK."""
        mux = acceptor(1)
        mux.close(1)
        self.assertEqual(list(mux.receive(message(DATA, 1, 1, b"late"))), [])
        self.assertEqual(list(mux.receive(message(PAUSE, 1, 1))), [])
        self.assertEqual(list(mux.receive(message(ACK, 1, 1))), [])
        self.assertEqual(len(mux), 0)

    def test_at_the_same_time(self) -> None:
        """When both close, both acknowledge, and nothing is left."""
        server, client = opener(), acceptor(1)
        ours, theirs = server.close(1), client.close(1)
        (to_client,) = server.receive(theirs)
        (to_server,) = client.receive(ours)
        assert isinstance(to_client, Reply)
        assert isinstance(to_server, Reply)
        self.assertEqual(list(client.receive(to_client.message)), [])
        self.assertEqual(list(server.receive(to_server.message)), [])
        self.assertEqual((len(server), len(client)), (0, 0))

    def test_destination_zero(self) -> None:
        """The answer of a peer whose CLOSE met our data changes nothing but is acknowledged."""
        mux = acceptor(1)
        mismatch = message(CLOSE, 0, 1, b"ERR_WSM_CHANNEL_MISMATCH")
        self.assertEqual(list(mux.receive(mismatch)), [Reply(message(ACK, 1, 0))])
        self.assertEqual(list(mux.receive(message(DATA, 1, 1, b"x"))), [Data(1, b"x")])

    def test_unknown_channel(self) -> None:
        """A CLOSE of what is closed is acknowledged all the same."""
        self.assertEqual(
            list(acceptor().receive(message(CLOSE, 9, 9))), [Reply(message(ACK, 9, 9))]
        )
        self.assertEqual(list(acceptor().receive(message(CLOSE, 9, 0))), [])

    def test_forgotten(self) -> None:
        """A CLOSE that nobody acknowledges leaves nothing once it is forgotten."""
        mux = acceptor(1)
        mux.forget(1)
        self.assertEqual(len(mux), 1)  # it is open: not to be forgotten
        mux.close(1)
        mux.forget(1)
        self.assertEqual(len(mux), 0)

    def test_late_acknowledgement(self) -> None:
        """An ACK that comes after we gave up makes the peer close its side."""
        mux = MuxV2(opener=True)
        mux.open()
        mux.forget(1)
        not_open = Reply(message(CLOSE, 1, 0, b"ERR_WSM_CHANNEL_NOT_OPEN"))
        self.assertEqual(list(mux.receive(message(ACK, 1, 1))), [not_open])
        with self.assertRaises(RemoteProtocolError):
            mux.receive(message(ACK, 1, 2))

    def test_acknowledgement_of_nothing(self) -> None:
        """An ACK for a channel that was never opened is ignored."""
        self.assertEqual(list(opener().receive(message(ACK, 2, 2))), [])
        self.assertEqual(list(opener().receive(message(ACK, 0, 2))), [])
        self.assertEqual(list(acceptor().receive(message(ACK, 2, 2))), [])


class Strays(SynchronousTestCase):
    """Messages for channels that are not open."""

    def test_told_once(self) -> None:
        """A peer that goes on sending to a closed channel is told so once."""
        mux = acceptor()
        not_open = Reply(message(CLOSE, 5, 0, b"ERR_WSM_CHANNEL_NOT_OPEN"))
        self.assertEqual(list(mux.receive(message(DATA, 5, 5, b"x"))), [not_open])
        for kind in (DATA, PAUSE, RESUME):
            self.assertEqual(list(mux.receive(message(kind, 5, 5, b"x"))), [])
        self.assertEqual(list(mux.receive(message(DATA, 6, 0, b"x"))), [])

    def test_what_is_remembered_is_bounded(self) -> None:
        """A flood of strays costs no memory, and a number told of can be opened later."""
        mux = acceptor()
        for number in range(1, 3 * TOLD_SIZE):
            mux.receive(message(DATA, number, number, b"x"))
        self.assertLessEqual(len(mux._told), TOLD_SIZE)
        self.assertIn(Opened(1), mux.receive(message(OPEN, 0, 1)))

    def test_mismatch(self) -> None:
        """Data under two numbers ends the channel that it hits."""
        mux = acceptor(1)
        self.assertEqual(
            list(mux.receive(message(DATA, 1, 2, b"x"))),
            [
                Reply(message(CLOSE, 1, 1, b"ERR_WSM_CHANNEL_MISMATCH")),
                Closed(1, "ERR_WSM_CHANNEL_MISMATCH"),
            ],
        )

    def test_before_the_acknowledgement(self) -> None:
        """Data on a channel that was not accepted yet fails the channel."""
        mux = MuxV2(opener=True)
        mux.open()
        events = fed(mux, message(DATA, 1, 1, b"x" * 1000))
        self.assertEqual(events[-1], Rejected(1, "ERR_WSM_CHANNEL_NOT_OPEN"))


class FlowControl(SynchronousTestCase):
    """PAUSE and RESUME."""

    def test_by_the_peer(self) -> None:
        """What the peer repeats is told once, and nothing can be sent while it pauses us."""
        mux = acceptor(1)
        self.assertEqual(list(mux.receive(message(PAUSE, 1, 1))), [Paused(1)])
        self.assertEqual(list(mux.receive(message(PAUSE, 1, 1))), [])
        with self.assertRaises(LocalProtocolError):
            mux.data_head(1, 1)
        self.assertEqual(list(mux.receive(message(DATA, 1, 1, b"in"))), [Data(1, b"in")])
        self.assertEqual(list(mux.receive(message(RESUME, 1, 1))), [Resumed(1)])
        self.assertEqual(list(mux.receive(message(RESUME, 1, 1))), [])
        mux.data_head(1, 1)

    def test_by_us(self) -> None:
        """Peers count PAUSEs, so a second one is not made."""
        mux = acceptor(1)
        self.assertEqual(mux.pause(1), message(PAUSE, 1, 1))
        with self.assertRaises(LocalProtocolError):
            mux.pause(1)
        self.assertEqual(list(mux.receive(message(DATA, 1, 1, b"in"))), [Data(1, b"in")])
        self.assertEqual(mux.resume(1), message(RESUME, 1, 1))
        with self.assertRaises(LocalProtocolError):
            mux.resume(1)

    def test_misuse(self) -> None:
        """What a channel's state does not allow is refused here, not by the peer."""
        mux = MuxV2(opener=True)
        mux.open()
        for number in (1, 2):
            with self.assertRaises(LocalProtocolError):
                mux.data_head(number, 1)
            with self.assertRaises(LocalProtocolError):
                mux.close(number)
            with self.assertRaises(LocalProtocolError):
                mux.pause(number)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["open", "data", "close", "pause", "resume", "pump"]),
        st.booleans(),
        st.integers(1, 6),
        st.binary(min_size=1, max_size=5),
    ),
    max_size=60,
)


class Side:
    """One end of the model: a mux, and what its user knows."""

    def __init__(self, opener: bool) -> None:
        self.mux = MuxV2(opener=opener)
        self.outbox: deque[bytes] = deque()
        self.open: set[int] = set()
        self.held: set[int] = set()
        self.paused: set[int] = set()
        self.sent: dict[int, bytes] = {}
        self.received: dict[int, bytes] = {}
        self.ended: list[int] = []
        self.closed: set[int] = set()

    def take(self, data: bytes, cuts: list[int]) -> None:
        at = sorted(cut % (len(data) + 1) for cut in cuts)
        edges = [0, *at, len(data)]
        pieces = [data[i:j] for i, j in zip(edges, edges[1:], strict=False)]
        for event in fed(self.mux, *pieces) if cuts else self.mux.receive(data):
            self.act(event)

    def act(self, event: Event) -> None:
        if isinstance(event, Reply):
            self.outbox.append(event.message)
        elif isinstance(event, Opened | Accepted):
            assert event.channel not in self.open
            self.open.add(event.channel)
        elif isinstance(event, Data):
            assert event.channel in self.open
            self.received[event.channel] = self.received.get(event.channel, b"") + event.data
        elif isinstance(event, Paused):
            self.held.add(event.channel)
        elif isinstance(event, Resumed):
            self.held.remove(event.channel)
        elif isinstance(event, Closed):
            self.open.remove(event.channel)
            self.ended.append(event.channel)
        else:
            raise AssertionError(event)

    def step(self, action: str, number: int, data: bytes) -> None:
        if action == "open":
            self.outbox.append(self.mux.open()[1])
        elif number not in self.open:
            return
        elif action == "data" and number not in self.held:
            self.sent[number] = self.sent.get(number, b"") + data
            self.outbox.append(self.mux.data_head(number, len(data)) + data)
        elif action == "close" and number not in self.held:
            self.outbox.append(self.mux.close(number))
            self.open.remove(number)
            self.closed.add(number)
        elif action == "pause" and number not in self.paused:
            self.paused.add(number)
            self.outbox.append(self.mux.pause(number))
        elif action == "resume" and number in self.paused:
            self.paused.remove(number)
            self.outbox.append(self.mux.resume(number))


class Model(SynchronousTestCase):
    """Two sides of a lossless pipe, doing anything in any order."""

    @settings(max_examples=150)
    @given(STEPS, st.lists(st.integers(0, 40), max_size=3))
    def test_interleavings(
        self, steps: list[tuple[str, bool, int, bytes]], cuts: list[int]
    ) -> None:
        """Bytes arrive in order, an end is seen once, and no state is left."""
        server, client = Side(opener=True), Side(opener=False)

        def pump(limit: int) -> None:
            for side, other in ((server, client), (client, server)):
                for _ in range(min(limit, len(side.outbox))):
                    other.take(side.outbox.popleft(), cuts)

        for action, by_server, number, data in steps:
            if action == "pump":
                pump(number)
            elif by_server or action == "open":
                server.step(action, number, data)
            else:
                client.step(action, number, data)
        while server.outbox or client.outbox:
            pump(1000)
        for side, other in ((server, client), (client, server)):
            for number, received in side.received.items():
                self.assertTrue(other.sent[number].startswith(received))
                if number not in side.closed:
                    self.assertEqual(other.sent[number], received)
            self.assertEqual(len(side.ended), len(set(side.ended)))
            self.assertEqual(side.open, other.open)
            for number in list(side.open):
                side.held.discard(number)
                side.step("close", number, b"")
                other.open.discard(number)
                other.open.add(number)
                pump(1000)
        while server.outbox or client.outbox:
            pump(1000)
        self.assertEqual((len(server.mux), len(client.mux)), (0, 0))

    @settings(max_examples=200)
    @given(
        st.booleans(),
        st.lists(
            st.one_of(
                st.binary(max_size=20),
                st.builds(
                    message,
                    st.integers(0, 8),
                    st.integers(0, 3),
                    st.integers(0, 3),
                    st.binary(max_size=4),
                ),
            ),
            max_size=20,
        ),
        st.integers(0, 20),
    )
    def test_anything(self, is_opener: bool, messages: list[bytes], cut: int) -> None:
        """Whatever a peer sends, in pieces or not, means the same and is survived."""
        whole = opener(2) if is_opener else acceptor(1, 2)
        pieces = opener(2) if is_opener else acceptor(1, 2)
        for each in messages:
            try:
                expected = list(whole.receive(each))
            except RemoteProtocolError:
                with self.assertRaises(RemoteProtocolError):
                    fed(pieces, each[:cut], each[cut:])
                return
            events = fed(pieces, each[:cut], each[cut:])
            self.assertEqual(
                [event for event in events if not isinstance(event, Data)],
                [event for event in expected if not isinstance(event, Data)],
            )
            self.assertEqual(
                b"".join(event.data for event in events if isinstance(event, Data)),
                b"".join(event.data for event in expected if isinstance(event, Data)),
            )
