"""Data frames, against an independent websocket implementation (wsproto)."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, Ping, TextMessage

from exposr_tx.wire.frames import FrameReader, Piece, frame_head, masked

LIMIT = 100_000
MASK = b"\x01\xfe\x00\x80"


def frame(first: int, payload: bytes, mask: bytes = MASK) -> bytes:
    """A frame whose first octet is given, with the shortest length."""
    size = len(payload)
    bit = 0x80 if mask else 0
    if size < 126:
        head = bytes([first, size | bit])
    elif size < 65536:
        head = struct.pack(">BBH", first, 126 | bit, size)
    else:
        head = struct.pack(">BBQ", first, 127 | bit, size)
    turned = bytes(octet ^ mask[i % 4] for i, octet in enumerate(payload)) if mask else payload
    return head + mask + turned


class Buffer:
    """A reader, and what it has not used yet: as a protocol drives it."""

    def __init__(self, peer_masks: bool = True, limit: int = LIMIT) -> None:
        self.reader = FrameReader(peer_masks, limit)
        self.left = b""
        self.pieces: list[Piece] = []

    def feed(self, data: bytes) -> None:
        if not self.left and (message := self.reader.whole(data)) is not None:
            self.pieces.append((message, True, True))
            return
        self.left += data
        pieces, used = self.reader.receive(self.left)
        self.left = self.left[used:]
        self.pieces += pieces

    @property
    def messages(self) -> list[bytes]:
        """The messages, put together; each begins where the one before has ended."""
        whole: list[bytes] = []
        begun = False
        for data, first, last in self.pieces:
            assert first is not begun, "a piece is out of order"
            if first:
                whole.append(b"")
            whole[-1] += data
            begun = not last
        assert not begun, "a message has no end"
        return whole


FRAGMENTS = st.lists(
    st.one_of(
        st.lists(st.binary(max_size=200), min_size=1, max_size=4),
        st.integers(0, 70_000).map(lambda size: [b"m" * size]),
        st.text(max_size=50),
    ),
    max_size=6,
)


class ReaderTests(SynchronousTestCase):
    """What a peer sends."""

    @settings(max_examples=150)
    @given(st.booleans(), FRAGMENTS, st.lists(st.integers(0, 1 << 17), max_size=6))
    def test_any_messages(
        self, masks: bool, script: list[list[bytes] | str], cuts: list[int]
    ) -> None:
        """Messages of another implementation are the same however they are cut."""
        peer = Connection(ConnectionType.CLIENT if masks else ConnectionType.SERVER)
        stream, expected = b"", []
        for step in script:
            if isinstance(step, str):
                stream += peer.send(TextMessage(step))
                expected.append(step.encode())
                continue
            for i, data in enumerate(step):
                stream += peer.send(BytesMessage(data, message_finished=i == len(step) - 1))
            expected.append(b"".join(step))
        buffer = Buffer(masks, 1 << 20)
        edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
        for start, stop in zip(edges, edges[1:], strict=False):
            buffer.feed(stream[start:stop])
        self.assertEqual((buffer.messages, buffer.left), (expected, b""))

    @settings(max_examples=300)
    @given(
        st.booleans(),
        st.sampled_from([0x82, 0x82, 0x02, 0x81, 0x80, 0x89, 0xC2]),
        st.integers(0, 300),
        st.tuples(st.integers(0, 13), st.integers(0, 255)),
        st.integers(-3, 3),
    )
    def test_whole(
        self, masks: bool, first: int, size: int, spoilt: tuple[int, int], more: int
    ) -> None:
        """What is taken for one whole message is one, whatever has become of its bytes."""
        data = bytearray(frame(first, b"m" * size, MASK if masks else b""))
        if spoilt[0] < len(data):
            data[spoilt[0]] = spoilt[1]
        sent = bytes(data[: len(data) + min(more, 0)]) + b"\x82" * max(more, 0)
        reader = FrameReader(masks, 256)
        message = reader.whole(sent)
        self.assertEqual(repr(reader), repr(FrameReader(masks, 256)))
        pieces, used = reader.receive(sent)
        if message is not None:
            self.assertEqual((pieces, used), ([(message, True, True)], len(sent)))
        elif len(sent) > 8:
            self.assertFalse(
                used == len(sent) and sent[0] == 0x82 and [p[1:] for p in pieces] == [(True, True)]
            )

    def test_every_split(self) -> None:
        """A few frames, cut once at every position, and byte by byte."""
        for mask in (MASK, b""):
            stream = (
                frame(0x82, b"whole", mask)
                + frame(0x02, b"", mask)
                + frame(0x00, b"frag", mask)
                + frame(0x80, b"ments", mask)
                + frame(0x81, b"x" * 130, mask)
                + frame(0x82, b"", mask)
            )
            expected = [b"whole", b"fragments", b"x" * 130, b""]
            for cut in range(len(stream)):
                buffer = Buffer(bool(mask))
                buffer.feed(stream[:cut])
                buffer.feed(stream[cut:])
                self.assertEqual(buffer.messages, expected)
            buffer = Buffer(bool(mask))
            for i in range(len(stream)):
                buffer.feed(stream[i : i + 1])
            self.assertEqual(buffer.messages, expected)

    def test_nothing_is_gathered(self) -> None:
        """Bytes of a large frame are given as they arrive."""
        buffer = Buffer()
        stream = frame(0x82, b"0123456789")
        buffer.feed(stream[:9])
        self.assertEqual(buffer.pieces, [(b"012", True, False)])
        buffer.feed(stream[9:12])
        self.assertEqual(buffer.pieces[1:], [(b"345", False, False)])
        buffer.feed(stream[12:])
        self.assertEqual(buffer.pieces[2:], [(b"6789", False, True)])

    def test_others_are_left(self) -> None:
        """Control frames, and frames that are none, stay where they are, with what follows."""
        good = frame(0x82, b"good")
        for bad in (
            Connection(ConnectionType.CLIENT).send(Ping(b"ping")),
            b"\x88\x80" + MASK,  # a close frame
            b"\x82\x03abc",  # not masked
            frame(0xC2, b""),  # reserved bits
            frame(0xA2, b""),
            frame(0x92, b""),
            frame(0x83, b""),  # a reserved opcode
            frame(0x80, b""),  # a continuation of nothing
            b"\x82\xfe\x00\x7d" + MASK,  # lengths that are not minimal, or impossible
            b"\x82\xff" + struct.pack(">Q", 65535) + MASK,
            b"\x82\xff" + struct.pack(">Q", 1 << 63) + MASK,
        ):
            buffer = Buffer()
            buffer.feed(good + bad + good)
            self.assertEqual(buffer.messages, [b"good"], bad)
            self.assertEqual(buffer.left, bad + good)
            buffer.feed(b"")
            self.assertEqual(buffer.left, bad + good)

    def test_inside_a_message(self) -> None:
        """Whether the next frame must continue a message is known, for who reads the others."""
        buffer = Buffer()
        buffer.feed(frame(0x02, b"begin"))
        self.assertTrue(buffer.reader.inside_message)
        buffer.feed(frame(0x82, b"another"))
        self.assertEqual(buffer.left, frame(0x82, b"another"))
        buffer.left = b""
        buffer.feed(frame(0x80, b"end"))
        self.assertFalse(buffer.reader.inside_message)
        self.assertEqual(buffer.messages, [b"beginend"])

    def test_too_large(self) -> None:
        """A message over the limit is noticed by its head, in one frame or in several."""
        for stream in (
            frame(0x82, bytes(11)),
            frame(0x02, bytes(6)) + frame(0x00, bytes(5)),
            frame(0x02, bytes(10)) + frame(0x80, b"x"),
        ):
            buffer = Buffer(limit=10)
            buffer.feed(frame(0x82, bytes(10)) + frame(0x82, bytes(10)))
            self.assertFalse(buffer.reader.too_large)
            buffer.feed(stream)
            self.assertTrue(buffer.reader.too_large)

    @settings(max_examples=200)
    @given(st.booleans(), st.binary(max_size=400), st.integers(0, 400))
    def test_any_bytes(self, masks: bool, data: bytes, cut: int) -> None:
        """Whatever comes, nothing fails, and a cut changes nothing."""
        whole, cut_in_two = Buffer(masks), Buffer(masks)
        whole.feed(data)
        cut_in_two.feed(data[:cut])
        cut_in_two.feed(data[cut:])
        self.assertEqual(whole.left, cut_in_two.left)
        joined = [b"".join(piece[0] for piece in each.pieces) for each in (whole, cut_in_two)]
        self.assertEqual(*joined)


class WriterTests(SynchronousTestCase):
    """What we send."""

    @settings(max_examples=60)
    @given(
        st.one_of(st.binary(max_size=300), st.integers(0, 70_000).map(lambda n: b"m" * n)),
        st.binary(min_size=4, max_size=4),
        st.booleans(),
    )
    def test_read_by_another(self, payload: bytes, mask: bytes, masks: bool) -> None:
        """Another implementation reads the head, and one whole message behind it."""
        peer = Connection(ConnectionType.SERVER if masks else ConnectionType.CLIENT)
        sent = frame_head(len(payload), masks)
        peer.receive_data(sent + mask + masked(payload, mask) if masks else sent + payload)
        events: list[Any] = list(peer.events())
        self.assertEqual([bytes(event.data) for event in events], [payload])
        self.assertTrue(events[0].message_finished)
