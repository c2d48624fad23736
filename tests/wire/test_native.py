"""The native dialect, without any transport; every rule of docs/protocols/exposr-tx-1.md."""

from __future__ import annotations

import json
import re
import struct
from math import inf
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.errors import LocalProtocolError, RemoteProtocolError
from exposr_tx.wire.native import (
    CONNECTION_WINDOW,
    GROWN_WINDOWS,
    JSON_SIZE,
    MAX_WINDOW,
    MESSAGE_SIZE,
    REASON_SIZE,
    STREAM_WINDOW,
    Attached,
    Attaching,
    Closed,
    Credited,
    Data,
    Detached,
    Ended,
    Event,
    GoAwayCode,
    GoingAway,
    Metadata,
    NativeMux,
    Opened,
    Pinged,
    Ponged,
    Refused,
    Reply,
    ResetCode,
    Tls,
    is_native,
)
from exposr_tx.wire.native.flow import PROOF
from tests.wire import native_peer
from tests.wire.native_peer import Peer, written

PAGE = Path(__file__).resolve().parents[2] / "docs" / "protocols" / "exposr-tx-1.md"
HTTP = Metadata("http")
#: A frame of each type that belongs to a stream, OPEN apart.
OF_STREAMS: list[tuple[str, list[Any]]] = [
    ("DATA", [b"x"]),
    ("END", []),
    ("RESET", [1, ""]),
    ("CREDIT", [1]),
]
KIND = {"kind": "http"}


def fed(mux: NativeMux, *chunks: bytes) -> list[Event]:
    """The events of one message that comes in pieces."""
    mux.message_begin()
    events: list[Event] = []
    for chunk in chunks:
        events += mux.message_data(chunk)
    events += mux.message_end()
    return events


def server(streams: int = 1) -> NativeMux:
    """A server with some open streams: 1, 3, 5 …"""
    mux = NativeMux(is_server=True)
    for _ in range(streams):
        mux.open(HTTP)
    return mux


def client(*numbers: int) -> NativeMux:
    """A client with some open streams."""
    mux = NativeMux(is_server=False)
    for number in numbers:
        assert list(mux.receive(written("OPEN", number, KIND))) == [Opened(number, HTTP)]
    return mux


def frame(kind: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">II", kind << 24 | len(payload), stream) + payload


def blocks(name: str) -> str:
    """All fenced blocks of a name on the page."""
    return "".join(re.findall(rf"^```{name}\n(.*?)^```", PAGE.read_text(), re.M | re.S))


def examples() -> list[tuple[str, str, int, list[Any], bytes]]:
    """End, name, stream, what, bytes."""
    found = []
    for text, lines in re.findall(r"^(\S.*)\n((?:    .*\n)+)", blocks("frames"), re.M):
        words = text.split(" ")
        end = words.pop(0) if words[0] in ("server", "client") else ""
        name = words.pop(0)
        of_stream = name in native_peer.OF_STREAMS | native_peer.OF_BOTH
        stream = int(words.pop(0)) if of_stream else 0
        what: list[Any] = []
        if name in native_peer.WITH_JSON:
            what = [json.loads(" ".join(words))]
        elif name in native_peer.WITH_CODE:
            what = [int(words[0]), json.loads(" ".join(words[1:]))]
        elif name == "CREDIT":
            what = [int(words[0])]
        elif name == "DATA":
            what = [json.loads(words[0]).encode()]
        elif words:
            what = [bytes.fromhex(words[0])]
        found.append((end, name, stream, what, bytes.fromhex(lines)))
    return found


EXAMPLES = examples()


class PageTests(SynchronousTestCase):
    """The page's examples, and its figures, are those of the code."""

    def test_every_type(self) -> None:
        """There is an example in hex of every frame type."""
        names = {name for _, name, *_ in EXAMPLES}
        self.assertEqual(names, set(native_peer.NAMES))

    def test_second_decoder(self) -> None:
        """The second decoder reads and writes each as it stands there."""
        for _, name, stream, what, data in EXAMPLES:
            self.assertEqual(native_peer.read(data), [(name, stream, *what)])
            self.assertEqual(written(name, stream, *what), data)

    def test_ours(self) -> None:
        """Ours writes each as it stands there."""
        ours = server(0)
        theirs = client()
        address = ("203.0.113.9", 51234)
        theirs.attachments._last = 6
        ours.receive(theirs.attachments.attach("my-db", "s3cret")[1])
        attach = dict(attachment=7, tunnel="my-db", token="s3cret")
        expected = {(name, stream, str(what)): data for _, name, stream, what, data in EXAMPLES}

        def check(data: bytes, name: str, stream: int, *what: Any) -> None:
            self.assertEqual(expected.pop((name, stream, str(list(what)))), data)

        check(written("ATTACH", 0, attach), "ATTACH", 0, attach)
        check(ours.attachments.attached(7), "ATTACHED", 0, {"attachment": 7})
        check(ours.open(HTTP)[1], "OPEN", 1, KIND)
        tcp = Metadata("tcp", peer=address, attachment=7)
        check(
            ours.open(tcp)[1],
            "OPEN",
            3,
            {"kind": "tcp", "peer": "203.0.113.9:51234", "attachment": 7},
        )
        deleted = {"attachment": 7, "code": 1008, "reason": "deleted"}
        check(ours.attachments.detach(7, 1008, "deleted"), "DETACH", 0, deleted)
        theirs.receive(written("ATTACHED", 0, {"attachment": 7}))
        (reply, _) = theirs.receive(written("DETACH", 0, deleted))
        assert isinstance(reply, Reply)
        check(reply.message, "DETACH", 0, {"attachment": 7})
        for text in (b"hello", b"ping", b"pong"):
            check(ours.data_head(1, len(text)) + text, "DATA", 1, text)
        check(ours.end(1), "END", 1)
        check(ours.reset(1, ResetCode.NO_ERROR), "RESET", 1, 0, "")
        check(
            ours.reset(3, ResetCode.TARGET_REFUSED, "connection refused"),
            "RESET",
            3,
            2,
            "connection refused",
        )
        eight = bytes(range(1, 9))
        check(ours.ping(eight), "PING", 0, eight)
        (pong,) = ours.receive(frame(5, 0, eight))
        assert isinstance(pong, Reply)
        check(pong.message, "PONG", 0, eight)
        check(ours.goaway(GoAwayCode.DRAINING, "maintenance"), "GOAWAY", 0, 0, "maintenance")
        fresh = server(0)
        fresh.receive(written("ATTACH", 0, attach))
        check(
            fresh.attachments.refused(7, "TUNNEL_NOT_FOUND"),
            "REFUSED",
            0,
            {"attachment": 7, "error": "TUNNEL_NOT_FOUND"},
        )
        mux = client(1)
        for _ in range(2):
            mux.receive(written("DATA", 1, bytes(65536)))
        check(mux.consumed(1, 131072, 0.0), "CREDIT", 1, 131072)
        self.assertEqual(list(expected), [("CREDIT", 0, "[8388608]")])

    def test_exchange(self) -> None:
        """A request and its answer leave nothing behind, at both ends."""
        ends = {"server": NativeMux(True), "client": NativeMux(False)}
        for end, name, _, _, data in EXAMPLES:
            if not end:
                continue
            sender = ends[end]
            if name == "OPEN":
                self.assertEqual(sender.open(HTTP)[1], data)
            elif name == "DATA":
                self.assertEqual(sender.data_head(1, 4), data[:8])
            else:
                self.assertEqual(sender.end(1), data)
            receiver = ends[{"server": "client", "client": "server"}[end]]
            for event in receiver.receive(data):
                if isinstance(event, Data):
                    receiver.consumed(1, len(event.data), 0.0)
        self.assertEqual((len(ends["server"]), len(ends["client"])), (0, 0))

    def test_errors(self) -> None:
        """What the page calls an error is one, to ours and to the second decoder."""
        lines = re.findall(r"^([0-9a-f ]+?)  +(.*)$", blocks("errors"), re.M)
        self.assertGreater(len(lines), 12)
        for text, why in lines:
            data = bytes.fromhex(text)
            with self.assertRaises(RemoteProtocolError, msg=why):
                NativeMux(is_server=True).receive(data)
            for cut in range(len(data) + 1):
                with self.assertRaises(RemoteProtocolError, msg=why):
                    fed(NativeMux(is_server=True), data[:cut], data[cut:])
            if "attachment 7" not in why and "from a client" not in why:  # it keeps no such state
                with self.assertRaises(native_peer.Broken, msg=why):
                    Peer("server").hear(data)

    def test_figures(self) -> None:
        """Limits and windows on the page are the code's."""
        text = PAGE.read_text()
        for figure in (MESSAGE_SIZE, JSON_SIZE, STREAM_WINDOW, MAX_WINDOW, CONNECTION_WINDOW):
            self.assertIn(f"{figure:,}", text)
        self.assertIn(f"0 to {REASON_SIZE} bytes", text)
        for name, code in re.findall(r"^\| (\d) \| ([A-Z_]+) \|", text, re.M):
            self.assertEqual(ResetCode[code], int(name))
        self.assertEqual([code.name for code in ResetCode], native_peer.RESETS)


class NegotiationTests(SynchronousTestCase):
    """When both ends speak the native dialect."""

    def test_field(self) -> None:
        """Version 1 in any minor version, and nothing else."""
        for value in ("1", "1.0", "1.3", " 1 ", "1.12345"):
            self.assertTrue(is_native(value), value)
        for value in ("", "2", "11", "1.", "1.x", "1, 2", "exposr-tx.1", "1.3\n", "१"):
            self.assertFalse(is_native(value), value)


class MessageTests(SynchronousTestCase):
    """Messages, and the frames in them."""

    def test_many_frames(self) -> None:
        """A message holds as many frames as the sender likes."""
        mux = client()
        message = written("OPEN", 1, KIND) + written("DATA", 1, b"abc") + written("END", 1)
        self.assertEqual(list(mux.receive(message)), [Opened(1, HTTP), Data(1, b"abc"), Ended(1)])

    def test_split_anywhere(self) -> None:
        """A message in pieces is the same as a whole one."""
        message = (
            written("OPEN", 1, KIND)
            + written("DATA", 1, b"abcdef")
            + frame(99, 7, b"later")
            + written("PING", 0, b"12345678")
            + written("DATA", 1, b"g")
            + written("END", 1)
        )
        whole = [
            Opened(1, HTTP),
            Data(1, b"abcdef"),
            Pinged(written("PONG", 0, b"12345678")),
            Data(1, b"g"),
            Ended(1),
        ]
        for i in range(len(message) + 1):
            for j in (i, i + 1, len(message)):
                events = fed(client(), message[:i], message[i:j], message[j:])
                self.assertEqual(joined(events), whole)
        self.assertEqual(joined(fed(client(), *[bytes([b]) for b in message])), whole)

    def test_data_does_not_wait(self) -> None:
        """Bytes of a long DATA frame are there as they arrive, uncopied."""
        mux = client(1)
        mux.message_begin()
        self.assertEqual(list(mux.message_data(written("DATA", 1, bytes(10))[:8])), [])
        piece = b"12345"
        (event,) = mux.message_data(piece)
        assert isinstance(event, Data)
        self.assertIs(event.data, piece)

    def test_reset_within_a_frame(self) -> None:
        """What still comes of a frame whose stream we have reset is dropped."""
        mux = client(1)
        mux.message_begin()
        self.assertEqual(
            list(mux.message_data(written("DATA", 1, b"12345")[:10])), [Data(1, b"12")]
        )
        mux.reset(1, ResetCode.NO_ERROR)
        self.assertEqual(list(mux.message_data(b"345" + written("END", 1))), [])
        self.assertEqual(len(mux), 0)

    def test_ends_inside_a_frame(self) -> None:
        """A message that ends inside a frame is an error."""
        message = written("DATA", 1, b"abc")
        for i in range(1, len(message)):
            with self.assertRaises(RemoteProtocolError):
                client(1).receive(message[:i])

    def test_empty(self) -> None:
        """An empty message means nothing."""
        self.assertEqual(list(client().receive(b"")), [])
        self.assertEqual(fed(client()), [])

    def test_too_long(self) -> None:
        """A message has a largest size, and so has a frame; the largest passes."""
        largest = frame(99, 0, bytes(MESSAGE_SIZE - 8))
        self.assertEqual(list(client().receive(largest)), [])
        with self.assertRaises(RemoteProtocolError):
            fed(client(), largest, b"x")
        mux = client()
        mux.message_begin()
        with self.assertRaises(RemoteProtocolError):
            mux.message_data(struct.pack(">II", 99 << 24 | MESSAGE_SIZE - 7, 0))

    def test_unknown_types(self) -> None:
        """A frame of an unknown type is ignored, whatever it holds."""
        for kind in (0x0C, 0x7F, 0xFF):
            data = frame(kind, 4_000_000_001, b"\xff" * 5000)
            self.assertEqual(list(client().receive(data)), [])
            self.assertEqual(fed(client(), data[:3], data[3:4000], data[4000:]), [])

    def test_sizes(self) -> None:
        """A payload of a size that its type does not allow is an error, before it is gathered."""
        wrong = {0x00: [0], 0x01: [0, 1, 4097], 0x02: [1], 0x03: [0, 1, 259], 0x04: [0, 3, 5]}
        wrong |= {0x05: [0, 7, 9], 0x06: [7, 9], 0x07: [1, 259], 0x08: [0, 4097], 0x0B: [1, 4097]}
        for kind, sizes in wrong.items():
            for size in sizes:
                data = frame(kind, 1 if kind < 5 else 0, bytes(size))
                with self.assertRaises(RemoteProtocolError):
                    client(1).receive(data)
                mux = client(1)
                mux.message_begin()
                mux.message_data(data[:7])
                with self.assertRaises(RemoteProtocolError):
                    mux.message_data(data[7:8])

    def test_json(self) -> None:
        """JSON is an object in UTF-8 of bounded size and depth."""
        levels = b'{"kind":"http","x":' + b"[" * 7 + b"]" * 7 + b"}"
        self.assertEqual(list(client().receive(frame(1, 1, levels))), [Opened(1, HTTP)])
        brackets = b'{"kind":"http","x":"' + b"[" * 3000 + b'"}'
        self.assertEqual(list(client().receive(frame(1, 1, brackets))), [Opened(1, HTTP)])
        full = b'{"kind":"http"}'.ljust(4096)
        self.assertEqual(list(client().receive(frame(1, 1, full))), [Opened(1, HTTP)])
        twice = b'{"kind":"tcp","kind":"http"}'
        self.assertEqual(list(client().receive(frame(1, 1, twice))), [Opened(1, HTTP)])
        for bad in (
            levels.replace(b"[]", b"[{}]"),
            levels.replace(b"[", b"[" * 280).replace(b"]", b"]" * 280),
            b"[]",
            b'"http"',
            b"nope",
            b'{"kind":"http","x":NaN}',
            b'{"kind":"\xff"}',
            b'\xef\xbb\xbf{"kind":"http"}',
            b'{"kind":"http"} x',
            b'{"kind":"\\ud800"}',
        ):
            with self.assertRaises(RemoteProtocolError, msg=str(bad)):
                client().receive(frame(1, 1, bad))


def joined(events: list[Event]) -> list[Event]:
    """The same with neighbouring pieces of a stream's data in one."""
    found: list[Event] = []
    for event in events:
        last = found[-1] if found else None
        if isinstance(event, Data) and isinstance(last, Data) and last.channel == event.channel:
            found[-1] = Data(event.channel, last.data + event.data)
        else:
            found.append(event)
    return found


class MetadataTests(SynchronousTestCase):
    """What the opener says of a stream."""

    def test_round_trip(self) -> None:
        """The acceptor learns what the opener knows."""
        for metadata in (
            Metadata("tls"),
            Metadata("tcp", peer=("203.0.113.9", 51234)),
            Metadata(
                "http", ("2001:db8::1", 1), ("198.51.100.7", 443), Tls("a.example", "TLSv1.3")
            ),
            Metadata("http", tls=Tls()),
            Metadata("http", tls=Tls(sni="bücher.example")),
        ):
            number, data = server(0).open(metadata)
            self.assertEqual(list(client().receive(data)), [Opened(number, metadata)])

    def test_zone(self) -> None:
        """The zone of a link-local address is left out: it means nothing elsewhere."""
        _, data = server(0).open(Metadata("tcp", peer=("fe80::1%eth0", 7)))
        self.assertIn(b'"[fe80::1]:7"', data)

    def test_unknown_and_null(self) -> None:
        """Unknown keys are ignored, and null is as good as nothing."""
        fields = {**KIND, "peer": None, "host": None, "tls": None, "attachment": None, "x": [1]}
        self.assertEqual(list(client().receive(written("OPEN", 1, fields))), [Opened(1, HTTP)])
        tls = {**KIND, "tls": {"sni": None, "alpn": "h2"}}
        self.assertEqual(
            list(client().receive(written("OPEN", 1, tls))),
            [Opened(1, Metadata("http", tls=Tls()))],
        )

    def test_wrong(self) -> None:
        """A value of another form than the page says is an error."""
        addresses: list[object] = [7, "", "203.0.113.9", "203.0.113.9:", "203.0.113.9:65536"]
        addresses += ["name:80", "::1:80", "[::1]", "[203.0.113.9]:80", "203.0.113.9:-1"]
        addresses += ["[fe80::1%1]:2", "1.2.3.4:१"]
        wrong: list[dict[str, object]] = [{"peer": each} for each in addresses]
        wrong += [{"host": each} for each in addresses]
        wrong += [{"tls": True}, {"tls": {"sni": 7}}, {"attachment": True}, {"attachment": 65536}]
        wrong += [{"attachment": -1}, {"attachment": 0.0}, {"attachment": "1"}, {"kind": 7}]
        for each in wrong:
            with self.assertRaises(RemoteProtocolError, msg=str(each)):
                client().receive(written("OPEN", 1, {**KIND, **each}))
        with self.assertRaises(RemoteProtocolError):
            client().receive(written("OPEN", 1, {}))

    def test_too_large(self) -> None:
        """What would not fit is refused here, and costs no number."""
        mux = server(0)
        with self.assertRaises(LocalProtocolError):
            mux.open(Metadata("http", tls=Tls(sni="x" * 4096)))
        self.assertEqual(mux.open(HTTP)[0], 1)

    def test_unknown_kind(self) -> None:
        """A stream of a kind that is not known is reset, and the rest of it ignored."""
        mux = client()
        (reply,) = mux.receive(written("OPEN", 1, {"kind": "udp"}) + written("DATA", 1, b"x"))
        self.assertEqual(reply, Reply(written("RESET", 1, ResetCode.UNSUPPORTED, "")))
        self.assertEqual(len(mux), 0)


class StreamTests(SynchronousTestCase):
    """Numbers, and the life of a stream."""

    def test_numbers(self) -> None:
        """A server counts 1, 3, 5, a client 2, 4, 6."""
        mux = server(0)
        self.assertEqual([mux.open(HTTP)[0] for _ in range(3)], [1, 3, 5])
        both = NativeMux(is_server=False, both_ways=True)
        self.assertEqual([both.open(HTTP)[0] for _ in range(3)], [2, 4, 6])

    def test_order(self) -> None:
        """Numbers may be left out, but not used again or out of order."""
        for number in (1, 5, 7):
            with self.assertRaises(RemoteProtocolError):
                client(1, 7).receive(written("OPEN", number, KIND))
        self.assertEqual(list(client(1, 7).receive(written("END", 5))), [])

    def test_parity(self) -> None:
        """Each end has its own numbers to give, and 0 is nobody's."""
        for number in (0, 2):
            with self.assertRaises(RemoteProtocolError):
                client().receive(written("OPEN", number, KIND))
        for number in (0, 1):
            with self.assertRaises(RemoteProtocolError):
                server(0).receive(written("OPEN", number, KIND))

    def test_used_up(self) -> None:
        """When numbers run out no more streams are opened."""
        mux = server(0)
        mux._next = 2**32 - 1
        self.assertFalse(mux.used_up)
        number, data = mux.open(HTTP)
        self.assertTrue(mux.used_up)
        self.assertEqual(list(client().receive(data)), [Opened(number, HTTP)])
        with self.assertRaises(LocalProtocolError):
            mux.open(HTTP)

    def test_client_opens(self) -> None:
        """A server resets what a client opens, and a client does not."""
        (reply,) = server(0).receive(written("OPEN", 2, KIND))
        self.assertEqual(reply, Reply(written("RESET", 2, ResetCode.UNSUPPORTED, "")))
        with self.assertRaises(LocalProtocolError):
            client().open(HTTP)

    def test_too_many(self) -> None:
        """Streams beyond the limit are reset, and not opened."""
        mux = NativeMux(is_server=False, max_streams=1)
        mux.receive(written("OPEN", 1, KIND))
        (reply,) = mux.receive(written("OPEN", 3, KIND))
        self.assertEqual(reply, Reply(written("RESET", 3, ResetCode.LIMIT, "")))
        with self.assertRaises(LocalProtocolError):
            NativeMux(is_server=True, max_streams=0).open(HTTP)

    def test_half_close(self) -> None:
        """After END the other half goes on, until it ends too."""
        mux = client(1)
        self.assertEqual(list(mux.receive(written("END", 1))), [Ended(1)])
        self.assertEqual(mux.data_head(1, 1), struct.pack(">II", 1, 1))
        self.assertEqual(mux.end(1), written("END", 1))
        self.assertEqual(len(mux), 0)

    def test_after_our_end(self) -> None:
        """After our END nothing can be sent, but everything received."""
        mux = server()
        mux.end(1)
        self.assertEqual(mux.sendable(1), 0)
        for call in (lambda: mux.data_head(1, 1), lambda: mux.end(1)):
            with self.assertRaises(LocalProtocolError):
                call()
        self.assertEqual(list(mux.receive(written("CREDIT", 1, 9))), [])
        self.assertEqual(list(mux.receive(written("DATA", 1, b"x"))), [Data(1, b"x")])

    def test_after_their_end(self) -> None:
        """After END more DATA and another END are errors, CREDIT is not."""
        for data in (written("DATA", 1, b"x"), written("END", 1)):
            mux = client(1)
            mux.receive(written("END", 1))
            with self.assertRaises(RemoteProtocolError):
                mux.receive(data)
        mux = client(1)
        mux.receive(written("END", 1))
        self.assertEqual(list(mux.receive(written("CREDIT", 1, 9))), [Credited(1)])

    def test_reset_by_the_peer(self) -> None:
        """RESET ends both halves, and says why."""
        mux = server()
        self.assertEqual(
            list(mux.receive(written("RESET", 1, 2, "refused"))),
            [Closed(1, ResetCode.TARGET_REFUSED, "refused")],
        )
        self.assertEqual((len(mux), mux.sendable(1)), (0, 0))

    def test_codes(self) -> None:
        """An unknown code is an internal error; a reason that is no text does not matter."""
        (event,) = server().receive(frame(3, 1, b"\x99\x99\xff!"))
        self.assertEqual(event, Closed(1, ResetCode.INTERNAL, "\ufffd!"))

    def test_long_reason(self) -> None:
        """A reason that is too long is cut, between two characters."""
        data = server().reset(1, ResetCode.INTERNAL, "x" + "ü" * 200)
        self.assertEqual(native_peer.read(data), [("RESET", 1, 1, "x" + "ü" * 127)])

    def test_gone(self) -> None:
        """What crosses a RESET is ignored."""
        for kind, what in OF_STREAMS:
            mux = server()
            mux.reset(1, ResetCode.NO_ERROR)
            self.assertEqual(list(mux.receive(written(kind, 1, *what))), [])

    def test_gone_but_held(self) -> None:
        """It is ignored too while a consumer still takes what came before the stream's end."""
        for kind, what in OF_STREAMS:
            mux = server()
            mux.end(1)
            mux.receive(written("DATA", 1, b"abc") + written("END", 1))
            self.assertEqual(list(mux.receive(written(kind, 1, *what))), [])
            self.assertEqual(len(mux), 1)
            self.assertEqual(mux.consumed(1, 3, 0.0), b"")
            self.assertEqual(len(mux), 0)

    def test_never_opened(self) -> None:
        """Frames of streams that were never opened are errors, whoever would number them."""
        for mux in (server, lambda: client(1)):
            for number in (2, 3, 2**32 - 1):
                for kind, what in OF_STREAMS:
                    with self.assertRaises(RemoteProtocolError):
                        mux().receive(written(kind, number, *what))

    def test_end_then_reset(self) -> None:
        """END and RESET behind one another close a stream both ways, with all that was sent."""
        mux = client(1)
        message = written("DATA", 1, b"all") + written("END", 1) + written("RESET", 1, 0, "")
        self.assertEqual(
            list(mux.receive(message)),
            [Data(1, b"all"), Ended(1), Closed(1, ResetCode.NO_ERROR, "")],
        )
        mux.consumed(1, 3, 0.0)
        self.assertEqual(len(mux), 0)

    def test_reset_throws_away(self) -> None:
        """A stream that is reset, or given up after its end, holds nothing any more."""
        mux = client(1, 3)
        mux.receive(written("DATA", 1, b"abc") + written("RESET", 1, 0, ""))
        mux.receive(written("DATA", 3, b"abc"))
        self.assertEqual(mux.held, 6)
        self.assertEqual(mux.reset(1, ResetCode.NO_ERROR), b"")
        self.assertEqual(mux.reset(3, ResetCode.TIMEOUT), written("RESET", 3, 7, ""))
        self.assertEqual((len(mux), mux.held), (0, 0))
        self.assertEqual(mux.consumed(3, 3, 0.0), b"")  # somebody had not heard of it
        self.assertEqual(mux.reset(3, ResetCode.TIMEOUT), b"")


class CreditTests(SynchronousTestCase):
    """Who may send how much."""

    def test_at_first(self) -> None:
        """A stream takes its window at once, and then waits for credit."""
        mux = server()
        self.assertEqual(mux.sendable(1), STREAM_WINDOW)
        mux.data_head(1, STREAM_WINDOW)
        self.assertEqual(mux.sendable(1), 0)
        with self.assertRaises(LocalProtocolError):
            mux.data_head(1, 1)
        self.assertEqual(list(mux.receive(written("CREDIT", 1, 5))), [Credited(1)])
        self.assertEqual(mux.sendable(1), 5)

    def test_connection(self) -> None:
        """All streams together take the connection's window, and then wait for its credit."""
        mux = server(65)
        for number in range(1, 129, 2):
            mux.data_head(number, STREAM_WINDOW)
        self.assertEqual(mux.sendable(129), 0)
        with self.assertRaises(LocalProtocolError):
            mux.data_head(129, 1)
        self.assertEqual(list(mux.receive(written("CREDIT", 0, 7))), [Credited(0)])
        self.assertEqual(mux.sendable(129), 7)

    def test_misuse(self) -> None:
        """DATA without bytes, or larger than a message, is refused here."""
        mux = server()
        mux.receive(written("CREDIT", 1, MAX_WINDOW))
        for size in (0, -1, MESSAGE_SIZE - 7):
            with self.assertRaises(LocalProtocolError):
                mux.data_head(1, size)
        mux.data_head(1, MESSAGE_SIZE - 8)
        with self.assertRaises(LocalProtocolError):
            mux.consumed(1, 1, 0.0)

    def test_beyond(self) -> None:
        """DATA beyond the credit of its stream or the connection is an error."""
        mux = client(1)
        mux.receive(written("DATA", 1, bytes(STREAM_WINDOW)))
        with self.assertRaises(RemoteProtocolError):
            mux.receive(written("DATA", 1, b"x"))
        numbers = range(1, 131, 2)
        mux = NativeMux(is_server=False, max_held=0)
        for number in numbers:
            mux.receive(written("OPEN", number, KIND))
        for number in numbers[:64]:
            mux.receive(written("DATA", number, bytes(STREAM_WINDOW)))
        with self.assertRaises(RemoteProtocolError):
            mux.receive(written("DATA", 129, b"x"))

    def test_31_bits(self) -> None:
        """Credit of more than 31 bits is an error."""
        for number, most in ((1, 2**31 - 1 - STREAM_WINDOW), (0, 2**31 - 1 - CONNECTION_WINDOW)):
            mux = server()
            mux.receive(written("CREDIT", number, most))
            with self.assertRaises(RemoteProtocolError):
                mux.receive(written("CREDIT", number, 1))

    def test_granted_in_halves(self) -> None:
        """Credit is given when half of a window was taken, and then for all of it."""
        mux = client(1)
        mux.receive(written("DATA", 1, bytes(STREAM_WINDOW)))
        half = STREAM_WINDOW // 2
        self.assertEqual(mux.consumed(1, half - 1, 0.0), b"")
        self.assertEqual(mux.consumed(1, 1, 0.0), written("CREDIT", 1, half))
        mux.receive(written("END", 1))
        self.assertEqual(mux.consumed(1, half, 0.0), b"")  # nothing more will come

    def test_arrival_credits_the_connection(self) -> None:
        """Readers that stop do not use up the connection: others go on."""
        mux = client(*range(1, 401, 2))
        granted = 0
        for number in range(1, 401, 2):
            for event in mux.receive(written("DATA", number, bytes(STREAM_WINDOW))):
                if isinstance(event, Reply):
                    ((name, stream, size),) = native_peer.read(event.message)
                    self.assertEqual((name, stream), ("CREDIT", 0))
                    granted += size
        self.assertGreater(CONNECTION_WINDOW + granted - 200 * STREAM_WINDOW, STREAM_WINDOW)

    def test_ignored_data_is_credited(self) -> None:
        """DATA for streams that are gone does not use up the connection either."""
        mux = server()
        mux.reset(1, ResetCode.NO_ERROR)
        replies = [e for _ in range(40) for e in mux.receive(written("DATA", 1, bytes(1 << 19)))]
        self.assertEqual(len(replies), 2)

    def test_withheld(self) -> None:
        """When all streams together hold too much the connection waits for their consumers."""
        mux = NativeMux(is_server=False, max_held=STREAM_WINDOW)
        numbers = range(1, 129, 2)
        for number in numbers:
            mux.receive(written("OPEN", number, KIND))
            self.assertEqual(
                [
                    e
                    for e in mux.receive(written("DATA", number, bytes(STREAM_WINDOW)))
                    if isinstance(e, Reply)
                ],
                [],
            )
        told = b"".join(mux.reset(number, ResetCode.NO_ERROR) for number in numbers)
        self.assertIn(written("CREDIT", 0, CONNECTION_WINDOW), told)

    def test_withheld_until_taken(self) -> None:
        """What was withheld is given as soon as enough was taken, though it was taken at once."""
        mux = NativeMux(is_server=False, max_held=STREAM_WINDOW // 2)
        numbers = range(1, 129, 2)
        for number in numbers:
            mux.receive(written("OPEN", number, KIND))
            mux.receive(written("DATA", number, bytes(STREAM_WINDOW)))
        told = []
        for number in numbers:
            self.assertTrue(mux.flow(number).take(STREAM_WINDOW))
            told.append(mux.grant(number, 0.0))
        credit = written("CREDIT", 0, CONNECTION_WINDOW)
        self.assertEqual([frame.count(credit) for frame in told], [0] * 63 + [1])

    def test_grows(self) -> None:
        """The window of a consumer that keeps up grows to its largest, with few frames."""
        pipe = Pipe()
        pipe.carry(1, 64 * 1024 * 1024, takes=lambda held: held)
        self.assertEqual(pipe.receiver._flows[1].window, MAX_WINDOW)
        self.assertLess(pipe.grants, 64)

    def test_slow_from_the_start(self) -> None:
        """The window of a consumer that never keeps up does not grow."""
        pipe = Pipe()
        pipe.carry(1, 4 * 1024 * 1024, takes=lambda held: max(held // 2, 1))
        self.assertEqual(pipe.receiver._flows[1].window, STREAM_WINDOW)

    def test_near_and_quick(self) -> None:
        """With a near peer the window grows as well, once much was taken in a short time."""
        pipe = Pipe(delay=0.001)
        pipe.carry(1, PROOF - MAX_WINDOW, takes=lambda held: held)
        self.assertEqual(pipe.receiver._flows[1].window, STREAM_WINDOW)
        pipe.carry(1, 64 * 1024 * 1024, takes=lambda held: held)
        self.assertEqual(pipe.receiver._flows[1].window, MAX_WINDOW)

    def test_near_and_slow(self) -> None:
        """With a near peer it does not while the consumer takes little, be it all at once."""
        pipe = Pipe(delay=0.001)
        for _ in range(160):
            pipe.now += 0.1
            pipe.carry(1, 400_000, takes=lambda held: held)
        self.assertEqual(pipe.receiver._flows[1].window, STREAM_WINDOW)

    def test_near_and_slow_by_and_by(self) -> None:
        """A consumer that was quick loses what its window has grown, though it never lags."""
        pipe = Pipe(delay=0.001)
        pipe.carry(1, 64 * 1024 * 1024, takes=lambda held: held)
        for _ in range(160):
            pipe.now += 0.1
            pipe.carry(1, 400_000, takes=lambda held: held)
        self.assertEqual(pipe.receiver._flows[1].window, STREAM_WINDOW)
        self.assertEqual(pipe.receiver._grown, 0)

    def test_stops(self) -> None:
        """A consumer that was fast and stops holds its window, which shrinks as it lags."""
        pipe = Pipe()
        pipe.carry(1, 64 * 1024 * 1024, takes=lambda held: held)
        pipe.carry(1, 64 * 1024 * 1024, takes=lambda held: 0)
        flow = pipe.receiver._flows[1]
        self.assertEqual(pipe.sender.sendable(1), 0)
        self.assertLessEqual(flow.held, MAX_WINDOW)
        pipe.carry(1, 32 * 1024 * 1024, takes=lambda held: max(held // 4, 1))
        self.assertEqual(flow.window, STREAM_WINDOW)
        self.assertEqual(pipe.receiver._grown, 0)

    def test_growth_is_shared(self) -> None:
        """All windows together grow by so much, and what a stream had is free when it ends."""
        pipe = Pipe(10)
        for number in range(1, 21, 2):
            pipe.carry(number, 16 * 1024 * 1024, takes=lambda held: held)
        flows = pipe.receiver._flows
        self.assertEqual(sum(f.window - STREAM_WINDOW for f in flows.values()), GROWN_WINDOWS)
        self.assertEqual(flows[19].window, STREAM_WINDOW)
        pipe.receiver.reset(1, ResetCode.NO_ERROR)
        pipe.carry(19, 16 * 1024 * 1024, takes=lambda held: held)
        self.assertEqual(flows[19].window, MAX_WINDOW)


class Pipe:
    """A server that sends as much as it may, and a client whose consumers take it."""

    now = 0.0

    def __init__(self, streams: int = 1, delay: float = inf) -> None:
        self.sender, self.receiver = NativeMux(True), NativeMux(False)
        self.receiver.delay = delay
        self.grants = 0
        for _ in range(streams):
            self.receiver.receive(self.sender.open(HTTP)[1])

    def carry(self, number: int, size: int, takes: Any) -> None:
        """Carry so many bytes, or until nothing moves; ``takes`` says how many of those held."""
        zeros = bytes(65536)
        while size > 0:
            part = min(self.sender.sendable(number), len(zeros), size)
            size -= part
            if part:
                data = self.sender.data_head(number, part) + zeros[:part]
                for event in self.receiver.receive(data):
                    if isinstance(event, Reply):
                        self.sender.receive(event.message)
                if self.sender.sendable(number) and size:
                    continue
            taken = takes(self.receiver._flows[number].held)
            grant = self.receiver.consumed(number, taken, self.now)
            self.grants += bool(grant)
            self.sender.receive(grant)
            if not (part or taken):
                return


class ConnectionTests(SynchronousTestCase):
    """Pings, and going away."""

    def test_ping(self) -> None:
        """A PING is answered with its bytes, which the asker learns."""
        asked, answers = server(), client()
        (reply,) = answers.receive(asked.ping(b"\x00to12345"))
        assert isinstance(reply, Reply)
        self.assertEqual(list(asked.receive(reply.message)), [Ponged(b"\x00to12345")])
        with self.assertRaises(LocalProtocolError):
            asked.ping(b"short")

    def test_of_the_connection(self) -> None:
        """PING, PONG, GOAWAY and the frames of attachments belong to no stream."""
        for kind, payload in (
            (5, bytes(8)),
            (6, bytes(8)),
            (7, bytes(2)),
            (9, b'{"attachment":1}'),
        ):
            mux = client(1)
            mux.attachments.attach("t", "s")
            with self.assertRaises(RemoteProtocolError):
                mux.receive(frame(kind, 1, payload))

    def test_goaway_received(self) -> None:
        """After GOAWAY its receiver opens and attaches nothing; what is there goes on."""
        mux = server()
        self.assertEqual(
            list(mux.receive(written("GOAWAY", 0, 1, "newer") * 2)),
            [GoingAway(GoAwayCode.REPLACED, "newer")] * 2,
        )
        with self.assertRaises(LocalProtocolError):
            mux.open(HTTP)
        mux.data_head(1, 1)
        theirs = client()
        (event,) = theirs.receive(written("GOAWAY", 0, 77, ""))
        self.assertEqual(event, GoingAway(GoAwayCode.DRAINING, ""))
        with self.assertRaises(LocalProtocolError):
            theirs.attachments.attach("t", "s")

    def test_goaway_sent(self) -> None:
        """Who has said GOAWAY resets what is opened after it, and may open streams himself."""
        mux = client(1)
        mux.goaway(GoAwayCode.DRAINING)
        (reply,) = mux.receive(written("OPEN", 3, KIND))
        self.assertEqual(reply, Reply(written("RESET", 3, ResetCode.GOING_AWAY, "")))
        self.assertEqual(list(mux.receive(written("END", 1))), [Ended(1)])
        ours = server(0)
        ours.goaway(GoAwayCode.DRAINING)
        ours.open(HTTP)

    def test_repr(self) -> None:
        """It shows what it is, and no token."""
        self.assertEqual(repr(server(3)), "<NativeMux server 3 streams>")
        self.assertNotIn("s3cret", repr(Attaching(1, "t", "s3cret")))


class AttachmentTests(SynchronousTestCase):
    """Several tunnels on one connection."""

    def attached(self) -> tuple[NativeMux, NativeMux, int]:
        ours, theirs = server(0), client()
        number, data = theirs.attachments.attach("my-db", "s3cret")
        self.assertEqual(list(ours.receive(data)), [Attaching(number, "my-db", "s3cret")])
        answer = ours.attachments.attached(number)
        self.assertEqual(list(theirs.receive(answer)), [Attached(number)])
        return ours, theirs, number

    def test_attached(self) -> None:
        """Once a tunnel is attached, streams are opened for it."""
        ours, theirs, number = self.attached()
        metadata = Metadata("tcp", attachment=number)
        stream, data = ours.open(metadata)
        self.assertEqual(list(theirs.receive(data)), [Opened(stream, metadata)])

    def test_not_attached(self) -> None:
        """A stream for a tunnel that is not attached is not opened, and is reset where it comes."""
        with self.assertRaises(LocalProtocolError):
            server().open(Metadata("tcp", attachment=1))
        (reply,) = client().receive(written("OPEN", 1, {"kind": "tcp", "attachment": 1}))
        self.assertEqual(reply, Reply(written("RESET", 1, ResetCode.GOING_AWAY, "")))

    def test_refused(self) -> None:
        """A refusal names the error, and frees the number."""
        ours, theirs = server(), client()
        number, data = theirs.attachments.attach("x", "y")
        ours.receive(data)
        answer = ours.attachments.refused(number, "TUNNEL_NOT_FOUND")
        self.assertEqual(list(theirs.receive(answer)), [Refused(number, "TUNNEL_NOT_FOUND")])
        self.assertEqual((len(ours.attachments), len(theirs.attachments)), (1, 1))
        ours.receive(data)

    def test_detached(self) -> None:
        """Either end detaches; the other answers, and the number is free."""
        for index in range(2):
            ours, theirs, number = self.attached()
            one, other = (theirs, ours) if index else (ours, theirs)
            reply, event = other.receive(one.attachments.detach(number, 1008, "deleted"))
            self.assertEqual(event, Detached(number, 1008, "deleted"))
            assert isinstance(reply, Reply)
            self.assertEqual(list(one.receive(reply.message)), [])
            self.assertEqual((len(one.attachments), len(other.attachments)), (1, 1))
            with self.assertRaises(LocalProtocolError):
                one.attachments.detach(number)

    def test_detached_without_a_reason(self) -> None:
        """What a DETACH does not say, or says with null, is a goodbye."""
        for more in ({}, {"code": None, "reason": None}, {"more": 7}):
            ours, _, number = self.attached()
            _, event = ours.receive(written("DETACH", 0, {"attachment": number, **more}))
            self.assertEqual(event, Detached(number, 1000, ""))

    def test_the_first(self) -> None:
        """The tunnel of the upgrade request can be detached too; the others go on."""
        ours, theirs, number = self.attached()
        reply, event = theirs.receive(ours.attachments.detach(0, 1008, "disabled"))
        self.assertEqual(event, Detached(0, 1008, "disabled"))
        assert isinstance(reply, Reply)
        self.assertEqual(list(ours.receive(reply.message)), [])
        with self.assertRaises(LocalProtocolError):
            ours.open(Metadata("tcp"))
        self.assertIsInstance(
            theirs.receive(ours.open(Metadata("tcp", attachment=number))[1])[0], Opened
        )

    def test_detached_by_both(self) -> None:
        """When both detach at once each is the other's answer."""
        ours, theirs, number = self.attached()
        to_client, to_server = ours.attachments.detach(number), theirs.attachments.detach(number)
        self.assertEqual(list(theirs.receive(to_client)), [])
        self.assertEqual(list(ours.receive(to_server)), [])
        self.assertEqual((len(ours.attachments), len(theirs.attachments)), (1, 1))

    def test_wrong(self) -> None:
        """What does not fit the state of a number is an error."""
        attach = {"attachment": 1, "tunnel": "t", "token": "s"}
        for mux, data in (
            (server(), written("ATTACH", 0, attach) * 2),
            (server(), written("ATTACH", 0, {**attach, "attachment": 0})),
            (server(), written("ATTACH", 0, {"attachment": 1, "tunnel": "t"})),
            (server(), written("ATTACHED", 0, {"attachment": 1})),
            (server(), written("DETACH", 0, {"attachment": 1})),
            (server(), written("ATTACH", 0, attach) + written("DETACH", 0, {"attachment": 1})),
            (server(), written("DETACH", 0, {"attachment": 0}) * 2),
            (server(), written("DETACH", 0, {"attachment": 0, "code": 99})),
            (server(), written("DETACH", 0, {"attachment": 0, "code": "1008"})),
            (server(), written("DETACH", 0, {"attachment": 0, "reason": 7})),
            (client(), written("ATTACH", 0, attach)),
            (client(), written("ATTACHED", 0, {"attachment": 1})),
            (client(), written("REFUSED", 0, {"attachment": 1, "error": "x"})),
        ):
            with self.assertRaises(RemoteProtocolError):
                mux.receive(data)

    def test_misuse(self) -> None:
        """What the state of a number does not allow is refused here."""
        for call in (
            lambda: server().attachments.attach("t", "s"),
            lambda: server().attachments.attached(1),
            lambda: server().attachments.refused(1, "x"),
            lambda: client().attachments.attached(1),
            lambda: server().attachments.detach(1),
            lambda: client().attachments.attach("t", "s" * 5000),
        ):
            with self.assertRaises(LocalProtocolError):
                call()

    def test_numbers(self) -> None:
        """A client uses numbers that are free, and at last there are none."""
        attachments = client().attachments
        self.assertEqual([attachments.attach("t", "s")[0] for _ in range(3)], [1, 2, 3])
        attachments._last = 65535
        self.assertEqual(attachments.attach("t", "s")[0], 4)
        for number in range(5, 65536):
            attachments._states[number] = attachments._states[1]
        with self.assertRaises(LocalProtocolError):
            attachments.attach("t", "s")


#: Sizes that end a window, or do not.
SIZES = st.sampled_from([1, 100, 65_536, 131_072, 262_144])
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["open", "data", "data", "end", "reset", "take", "take", "ping", "pump"]),
        st.booleans(),
        st.integers(1, 6),
        SIZES,
    ),
    max_size=60,
)
TEXT = bytes(range(251)) * 1100


def text(offset: int, size: int) -> bytes:
    """What a stream carries: each place differs from those around it."""
    return TEXT[offset % 251 : offset % 251 + size]


class End:
    """One end of the model: a mux, and what its user knows."""

    def __init__(self, is_server: bool, mux: NativeMux | None = None) -> None:
        self.mux = mux or NativeMux(is_server, both_ways=True)
        self.outbox: list[bytes] = []
        self.sent: dict[int, int] = {}
        self.received: dict[int, int] = {}
        self.held: dict[int, int] = {}
        self.sending: set[int] = set()
        self.ended: list[int] = []
        self.closed: list[int] = []
        self.reset: set[int] = set()
        self.pongs = 0

    def take(self, message: bytes, cuts: list[int]) -> None:
        edges = [0, *sorted(cut % (len(message) + 1) for cut in cuts), len(message)]
        pieces = [message[i:j] for i, j in zip(edges, edges[1:], strict=False)]
        for event in fed(self.mux, *pieces):
            self.act(event)

    def begin(self, number: int) -> None:
        assert number not in self.sent
        self.sent[number] = self.received[number] = self.held[number] = 0
        self.sending.add(number)

    def act(self, event: Event) -> None:
        if isinstance(event, Reply):
            self.outbox.append(event.message)
        elif isinstance(event, Opened):
            self.begin(event.channel)
        elif isinstance(event, Data):
            number = event.channel
            if number in self.reset:
                return
            assert number not in self.ended
            assert event.data == text(self.received[number], len(event.data))
            self.received[number] += len(event.data)
            self.held[number] += len(event.data)
        elif isinstance(event, Ended):
            self.ended.append(event.channel)
        elif isinstance(event, Closed):
            self.closed.append(event.channel)
            self.sending.discard(event.channel)
        elif isinstance(event, Ponged):
            self.pongs += 1
        else:
            assert isinstance(event, Credited)

    def step(self, action: str, number: int, size: int) -> None:
        if action == "open":
            number, opened = self.mux.open(HTTP)
            self.begin(number)
            self.outbox.append(opened)
        elif action == "ping":
            self.outbox.append(self.mux.ping(bytes(8)))
        elif number not in self.sent or number in self.reset:
            return
        elif action == "take":
            size = min(size, self.held[number])
            self.held[number] -= size
            self.outbox.append(self.mux.consumed(number, size, 0.0))
        elif action == "reset":
            self.reset.add(number)
            self.sending.discard(number)
            self.outbox.append(self.mux.reset(number, ResetCode.NO_ERROR))
            self.held[number] = 0
        elif number not in self.sending:
            assert self.mux.sendable(number) == 0
        elif action == "end":
            self.sending.discard(number)
            self.outbox.append(self.mux.end(number))
        else:
            size = min(size, self.mux.sendable(number))
            if size:
                payload = text(self.sent[number], size)
                self.outbox.append(self.mux.data_head(number, size) + payload)
                self.sent[number] += size

    def messages(self, count: int) -> list[bytes]:
        """Some of the frames that wait, several in a message where they fit."""
        found = [b""]
        for data in self.outbox[:count]:
            if len(found[-1]) + len(data) > MESSAGE_SIZE:
                found.append(b"")
            found[-1] += data
        del self.outbox[:count]
        return found

    def check(self) -> None:
        """Memory is within its bounds, and sums are sums."""
        flows = self.mux._flows.values()
        assert self.mux.held == sum(flow.held for flow in flows)
        assert (
            self.mux._grown == sum(flow.window - STREAM_WINDOW for flow in flows) <= GROWN_WINDOWS
        )
        for number, flow in self.mux._flows.items():
            assert 0 <= flow.held == self.held[number]
            assert flow.held + flow.room <= flow.window <= MAX_WINDOW
            assert flow.room >= 0
        assert 0 <= self.mux._room <= CONNECTION_WINDOW


class ModelTests(SynchronousTestCase):
    """Two ends of a lossless pipe, doing anything in any order."""

    @settings(max_examples=150)
    @given(STEPS, st.lists(st.integers(0, 1 << 20), max_size=4))
    def test_interleavings(self, steps: list[tuple[str, bool, int, int]], cuts: list[int]) -> None:
        """Bytes arrive in order within the credit, an end is seen once, no state is left."""
        one, other = End(True), End(False)
        pairs = ((one, other), (other, one))

        def pump(count: int) -> None:
            for end, far in pairs:
                for message in end.messages(count):
                    far.take(message, cuts)
                far.check()

        for action, by_server, number, size in steps:
            if action == "pump":
                pump(number * 3)
            else:
                (one if by_server else other).step(action, number, size)
        while one.outbox or other.outbox:
            pump(1000)
        for end, far in pairs:
            self.assertEqual(end.mux._credit, far.mux._room)
            self.assertEqual(len(end.ended), len(set(end.ended)))
            self.assertEqual(len(end.closed), len(set(end.closed)))
            for number in end.sent:
                if number not in far.reset:
                    if number not in end.reset and number not in end.closed:
                        self.assertEqual(end.sent[number], far.received[number])
                    self.assertLessEqual(far.received[number], end.sent[number])
                if number in end.sending:
                    flow = end.mux._flows[number]
                    self.assertEqual(flow.credit, far.mux._flows[number].room)
        for end, _ in pairs:
            for number in list(end.sent):
                end.step("take", number, 1 << 30)
                if number in end.sending:
                    end.step("end", number, 0)
        while one.outbox or other.outbox:
            pump(1000)
        self.assertEqual((len(one.mux), len(other.mux)), (0, 0))
        self.assertEqual((one.mux.held, one.mux._grown), (0, 0))

    @settings(max_examples=100)
    @given(st.booleans(), STEPS, st.lists(st.integers(0, 1 << 20), max_size=3))
    def test_second_peer(
        self, is_server: bool, steps: list[tuple[str, bool, int, int]], cuts: list[int]
    ) -> None:
        """Ours and the peer written from the page alone find no fault with each other."""
        ours = End(is_server, NativeMux(is_server))
        peer = Peer("client" if is_server else "server")
        spoken: dict[int, int] = {}
        pings = 0

        def pump() -> None:
            while ours.outbox or peer.out:
                for message in ours.messages(1000):
                    peer.hear(message)
                out, peer.out[:] = b"".join(peer.out), []
                ours.take(out, cuts)
                ours.check()

        for action, by_us, number, size in steps:
            number = 2 * number - 1  # noqa: PLW2901
            if action == "pump":
                pump()
            elif action == "open":
                pump()
                if is_server:
                    ours.step("open", 0, 0)
                else:
                    peer.say("OPEN", peer.highest[1] + 2 - (not peer.highest[1]), KIND)
            elif by_us or action == "take":
                pings += action == "ping"
                ours.step(action, number, size)
            elif action == "ping":
                peer.say("PING", 0, bytes(8))
            elif number in peer.open and action == "reset":
                peer.say("RESET", number, 0, "")
            elif "out" in peer.open.get(number, ()):
                size = min(size, peer.may_send[0], peer.may_send[number])  # noqa: PLW2901
                if action == "end":
                    peer.say("END", number)
                elif size and sum(map(len, peer.out)) < MESSAGE_SIZE // 2:
                    peer.say("DATA", number, text(spoken.get(number, 0), size))
                    spoken[number] = spoken.get(number, 0) + size
        pump()
        self.assertEqual(ours.pongs, pings)
        self.assertEqual(ours.mux._credit, peer.may_hear[0])
        self.assertEqual(ours.mux._room, peer.may_send[0])
        heard: dict[int, bytes] = {}
        for name, stream, *what in peer.facts:
            if name == "DATA":
                heard[stream] = heard.get(stream, b"") + what[0]
        for number, got in heard.items():
            offset = 0
            for part in (got[i : i + 251] for i in range(0, len(got), 251)):
                self.assertEqual(part, text(offset, len(part)))
                offset += len(part)
            if number not in ours.closed and number not in ours.reset:
                self.assertEqual(len(got), ours.sent[number])
        for number, halves in peer.open.items():
            if number not in ours.reset:
                self.assertEqual(spoken.get(number, 0), ours.received[number])
            self.assertEqual("in" in halves, number in ours.sending)

    @settings(max_examples=300)
    @given(
        st.booleans(),
        st.lists(
            st.one_of(
                st.binary(max_size=20),
                st.builds(frame, st.integers(0, 12), st.integers(0, 4), st.binary(max_size=10)),
                st.builds(
                    written,
                    st.sampled_from(sorted(native_peer.WITH_JSON)),
                    st.integers(0, 5),
                    st.dictionaries(
                        st.sampled_from(["kind", "peer", "attachment", "tls", "tunnel", "error"]),
                        st.sampled_from(["http", 1, 7, None, {}, "1.2.3.4:5", {"sni": "x"}]),
                    ),
                ),
            ),
            max_size=12,
        ),
        st.lists(st.integers(0, 200), max_size=3),
    )
    def test_anything(self, is_server: bool, parts: list[bytes], cuts: list[int]) -> None:
        """Whatever a peer sends, in pieces or not, means the same and is survived."""
        whole = server(2) if is_server else client(1, 3)
        pieces = server(2) if is_server else client(1, 3)
        message = b"".join(parts)
        edges = [0, *sorted(cut % (len(message) + 1) for cut in cuts), len(message)]
        chunks = [message[i:j] for i, j in zip(edges, edges[1:], strict=False)]
        try:
            expected = list(whole.receive(message))
        except RemoteProtocolError:
            with self.assertRaises(RemoteProtocolError):
                fed(pieces, *chunks)
            return
        self.assertEqual(joined(fed(pieces, *chunks)), joined(expected))
        self.assertEqual(
            (pieces.held, pieces._room, len(pieces)), (whole.held, whole._room, len(whole))
        )

    @settings(max_examples=300)
    @given(
        st.booleans(),
        st.lists(
            st.builds(
                frame,
                st.sampled_from([0, 2, 3, 4, 5, 6, 7, 99]),
                st.integers(0, 6),
                st.sampled_from([b"", b"\0\1", b"\0\0\0\1", b"\x7f\0\0\0", bytes(8), b"x" * 300]),
            ),
            max_size=6,
        ),
    )
    def test_same_judgement(self, is_server: bool, parts: list[bytes]) -> None:
        """What ours calls an error the second peer does too, and the other way round."""
        ours = server(2) if is_server else client(1, 3)
        peer = Peer("server" if is_server else "client")
        if is_server:
            peer.say("OPEN", 1, KIND)
            peer.say("OPEN", 3, KIND)
        else:
            peer.hear(written("OPEN", 1, KIND) + written("OPEN", 3, KIND))
        message = b"".join(parts)
        try:
            peer.hear(message)
        except native_peer.Broken:
            with self.assertRaises(RemoteProtocolError):
                ours.receive(message)
        else:
            ours.receive(message)
