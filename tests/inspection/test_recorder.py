"""Exchanges read off the bytes that pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.inspection.exchanges import MAX_FRAME, Exchange
from exposr_tx.inspection.recorder import Recorder
from exposr_tx.inspection.recording import CUT, GONE, MAX_WAITING, UNASKED, Recording
from exposr_tx.wire.frames import frame_head, masked

GET = b"GET /a HTTP/1.1\r\nHost: t\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\nfour"
CHUNKS = b"3;x=y\r\none\r\n03\r\ntwo\r\n0\r\nSum: 6\r\n\r\n"
CHUNKED = b"PUT /c HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
UPGRADE = b"GET /ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


class Watching:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.ends: list[Exchange] = []

    def began(self, exchange: Exchange) -> None:
        self.told.append(("began", exchange.id))

    def changed(self, exchange: Exchange) -> None:
        self.told.append(("changed", exchange.id))

    def ended(self, exchange: Exchange) -> None:
        self.told.append(("ended", exchange.id))
        self.ends.append(exchange)


def started(clock: Clock | None = None, **more: Any) -> tuple[Watching, Recording]:
    watching = Watching()
    seconds = (clock or Clock()).seconds
    recorder = Recorder([watching], now=lambda: 1000.0 + seconds(), seconds=seconds, **more)
    return watching, recorder.recording("mine", "http://me:secret@t:80/", "192.0.2.1")


def told(exchange: Exchange) -> tuple[Any, ...]:
    """All that was read, without the moments."""
    response = exchange.response
    return (
        exchange.request.raw,
        exchange.request_body.data,
        exchange.request_wire.data,
        exchange.request_trailers,
        [head.raw for head in exchange.interim],
        response and response.raw,
        exchange.response_body.data,
        exchange.response_trailers,
        [(f.sent, f.opcode, f.data, f.size) for f in exchange.frames],
        exchange.state,
        exchange.error,
    )


def frame(payload: bytes, opcode: int = 1, final: bool = True, mask: bytes = b"") -> bytes:
    head = bytearray(frame_head(len(payload), bool(mask)))
    head[0] = opcode | (0x80 if final else 0)
    return bytes(head) + mask + (masked(payload, mask) if mask else payload)


class RecordingTests(SynchronousTestCase):
    """One connection to a target."""

    def one(self, sent: bytes, received: bytes, error: str = "", **more: Any) -> Exchange:
        watching, recording = started(**more)
        recording.sent(sent)
        recording.received(received)
        recording.ended(error)
        (exchange,) = watching.ends
        return exchange

    def test_exchange(self) -> None:
        """A request and its response, with their bodies."""
        exchange = self.one(POST, OK)
        assert exchange.response is not None
        self.assertEqual((exchange.request.method, exchange.request_body.data), ("POST", b"four"))
        self.assertEqual((exchange.response.status, exchange.response_body.data), (200, b"ok"))
        self.assertEqual((exchange.state, exchange.error), ("complete", ""))
        self.assertEqual(exchange.url, "http://t:80/p")

    def test_watchers_are_told(self) -> None:
        """A watcher hears of the request, of the response's head, and of the end."""
        watching, recording = started()
        recording.sent(GET)
        self.assertEqual(watching.told, [("began", "1")])
        recording.received(OK[:-1])
        self.assertEqual(watching.told[1:], [("changed", "1")])
        recording.received(OK[-1:])
        self.assertEqual(watching.told[2:], [("ended", "1")])

    def test_password_of_the_target(self) -> None:
        """User and password of the target's URL are left out."""
        self.assertEqual(self.one(GET, OK).target, "http://t:80/")

    def test_several(self) -> None:
        """Requests on one connection are told apart, also when they do not wait for answers."""
        watching, recording = started()
        recording.sent(GET + POST + CHUNKED + CHUNKS + GET)
        recording.received(OK + OK.replace(b"200", b"201"))
        recording.received(OK.replace(b"200", b"202") + OK.replace(b"200", b"203"))
        found = [(e.request.method, e.response and e.response.status) for e in watching.ends]
        self.assertEqual(found, [("GET", 200), ("POST", 201), ("PUT", 202), ("GET", 203)])

    def test_chunks(self) -> None:
        """A chunked request is kept as it is meant, and as it was on the wire."""
        exchange = self.one(CHUNKED + CHUNKS, OK)
        self.assertEqual(exchange.request_body.data, b"onetwo")
        self.assertEqual(exchange.request_wire.data, CHUNKS)
        self.assertEqual(exchange.request_trailers, ((b"Sum", b"6"),))

    def test_head(self) -> None:
        """The answer to HEAD has no body, whatever its length says."""
        watching, recording = started()
        recording.sent(GET.replace(b"GET", b"HEAD"))
        recording.received(OK[:-2])
        recording.sent(GET)
        recording.received(OK)
        self.assertEqual([e.response_body.data for e in watching.ends], [b"", b"ok"])

    def test_interim(self) -> None:
        """Interim responses stand beside the final one."""
        exchange = self.one(
            POST, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK
        )
        assert exchange.response is not None
        self.assertEqual([head.status for head in exchange.interim], [100, 103])
        self.assertEqual(exchange.interim[1].fields, [(b"Link", b"x")])
        self.assertEqual(exchange.response.status, 200)

    def test_until_close(self) -> None:
        """A body that ends with the connection is complete when that ends in good order."""
        head = b"HTTP/1.1 200 OK\r\n\r\n"
        self.assertEqual(told(self.one(GET, head + b"all"))[-2:], ("complete", ""))
        broken = self.one(GET, head + b"half", "it broke")
        self.assertEqual(
            (broken.response_body.data, *told(broken)[-2:]), (b"half", "failed", "it broke")
        )

    def test_cut(self) -> None:
        """An answer that is cut short has failed, and so has one that never came."""
        for received in (OK[:-1], OK[:9], b""):
            self.assertEqual(told(self.one(GET, received))[-2:], ("failed", CUT), received)

    def test_visitor_leaves(self) -> None:
        """A visitor who does not wait for the end is named as the reason."""
        watching, recording = started()
        recording.sent(GET)
        recording.left()
        self.assertEqual(told(watching.ends[0])[-2:], ("failed", GONE))

    def test_early_answer(self) -> None:
        """An answer may come before the request has ended."""
        watching, recording = started()
        recording.sent(POST[:-2])
        recording.received(OK)
        self.assertEqual(watching.ends, [])
        recording.sent(POST[-2:])
        self.assertEqual(told(watching.ends[0])[-2:], ("complete", ""))
        self.assertEqual(watching.ends[0].request_body.data, b"four")

    def test_early_answer_and_close(self) -> None:
        """A target may answer and close before the request has ended."""
        exchange = self.one(POST[:-2], OK)
        self.assertEqual(told(exchange)[-2:], ("complete", ""))

    def test_idle_connection_ends(self) -> None:
        """A connection that ends between exchanges is none."""
        watching, recording = started()
        recording.connected()
        recording.sent(GET)
        recording.received(OK)
        recording.ended("reset")
        self.assertEqual([e.state for e in watching.ends], ["complete"])

    def test_no_connection(self) -> None:
        """A target that cannot be connected is told, with the request or without."""
        watching, recording = started()
        recording.sent(GET)
        recording.ended("refused")
        self.assertEqual(
            (watching.ends[0].request.method, watching.ends[0].error), ("GET", "refused")
        )
        watching, recording = started()
        recording.ended("refused")
        self.assertEqual((watching.ends[0].request.method, watching.ends[0].error), ("", "refused"))

    def test_no_http(self) -> None:
        """What is no HTTP is shown as that: in either direction, and before any request."""
        watching, recording = started()
        recording.sent(b"\x16\x03\x01 no request\r\n\r\n")
        recording.sent(b"more")
        (exchange,) = watching.ends
        self.assertEqual((exchange.state, exchange.request.method), ("failed", ""))
        self.assertEqual(exchange.request_body.data, b"\x16\x03\x01 no request\r\n\r\n")
        self.assertIn("does not parse", exchange.error)

        exchange = self.one(GET, b"220 ready\r\n\r\n")
        self.assertEqual((exchange.state, exchange.request.method), ("failed", "GET"))
        self.assertIn("does not parse", exchange.error)

        watching, recording = started()
        recording.received(b"220 ready\r\n")
        self.assertEqual(watching.ends[0].error, UNASKED)
        self.assertEqual(watching.ends[0].response_body.data, b"220 ready\r\n")

    def test_many_waiting(self) -> None:
        """So many requests may wait for answers; then the recording ends."""
        watching, recording = started()
        for _ in range(MAX_WAITING + 3):
            recording.sent(GET)
        self.assertEqual(len(watching.ends), MAX_WAITING)
        self.assertIn(f"more than {MAX_WAITING}", watching.ends[0].error)

    def test_limits(self) -> None:
        """Of long bodies the beginning is kept, whole or not."""
        body = b"x" * 100
        exchange = self.one(
            b"PUT / HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\n" + body,
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + body,
            max_body=10,
        )
        for kept in (exchange.request_body, exchange.response_body):
            self.assertEqual((kept.data, kept.size, kept.truncated), (b"x" * 10, 100, True))

    def test_moments(self) -> None:
        """Each step has its moment; a connection that was there already has none."""
        clock = Clock()
        watching, recording = started(clock)
        steps: list[Callable[[], object]] = [
            lambda: recording.sent(POST[:-4]),
            recording.connected,
            lambda: recording.sent(b"four"),
            lambda: recording.received(OK[:-1]),
            lambda: recording.received(OK[-1:]),
            lambda: recording.sent(GET),
            lambda: recording.received(OK),
        ]
        for step in steps:
            clock.advance(1)
            step()
        one, two = watching.ends
        self.assertEqual((one.started, one.began, one.connecting, one.connected), (1001, 1, 0, 2))
        self.assertEqual((one.requested, one.answered, one.ended), (3, 4, 5))
        self.assertEqual((two.started, two.connecting, two.connected), (1006, None, None))
        self.assertEqual((two.requested, two.answered, two.ended), (6, 7, 7))

    def test_watcher_fails(self) -> None:
        """A watcher that fails is logged, and concerns nobody else."""

        class Bad(Watching):
            def began(self, exchange: Exchange) -> None:
                raise ValueError("bad watcher")

        watching = Watching()
        recording = Recorder([Bad(), watching]).recording("mine", "http://t/")
        recording.sent(GET)
        recording.received(OK)
        self.assertEqual([e.state for e in watching.ends], ["complete"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_replay(self) -> None:
        """A repeated request names the one that it repeats."""
        watching = Watching()
        recording = Recorder([watching]).recording("mine", "http://t/", replay_of="7")
        recording.sent(GET)
        recording.received(OK)
        self.assertEqual(watching.ends[0].replay_of, "7")

    @settings(max_examples=60)
    @given(st.lists(st.integers(0, 999), max_size=12), st.lists(st.integers(0, 999), max_size=12))
    def test_split_anywhere(self, cuts: list[int], other_cuts: list[int]) -> None:
        """However the bytes are cut into pieces, the exchanges are the same."""
        sent = GET + CHUNKED + CHUNKS + POST + b"\r\n" + CHUNKED + CHUNKS + UPGRADE
        sent += frame(b"hello", mask=b"abcd") + frame(b"", 8, mask=b"abcd")
        received = OK + b"HTTP/1.1 100 Continue\r\n\r\n" + OK + OK
        received += b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS
        received += SWITCHING + frame(b"w" * 300) + frame(b"", 8)
        whole = self.all_of([sent], [received])
        self.assertEqual(len(whole), 5)
        self.assertEqual(self.all_of(pieces(sent, cuts), pieces(received, other_cuts)), whole)

    @staticmethod
    def all_of(sent: list[bytes], received: list[bytes]) -> list[tuple[Any, ...]]:
        watching, recording = started()
        for piece in sent:
            recording.sent(piece)
        for piece in received:
            recording.received(piece)
        recording.ended()
        return [
            (*rest, sorted(frames), *state)
            for *rest, frames, state in (
                (*told(e)[:-3], told(e)[-3], told(e)[-2:]) for e in watching.ends
            )
        ]


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % len(data) for cut in cuts), len(data)]
    return [data[a:b] for a, b in zip(places, places[1:], strict=False) if a < b]


class WebsocketTests(SynchronousTestCase):
    """After a 101 messages are read."""

    def setUp(self) -> None:
        self.watching, self.recording = started()
        self.recording.sent(UPGRADE)
        self.recording.received(SWITCHING)

    def frames(self) -> list[tuple[bool, int, bytes]]:
        self.recording.ended()
        (exchange,) = self.watching.ends
        self.assertTrue(exchange.is_websocket)
        return [(f.sent, f.opcode, f.data) for f in exchange.frames]

    def test_messages(self) -> None:
        """Messages of both sides, those in parts as one, with control frames between them."""
        self.recording.sent(frame(b"hello", 1, True, b"mask"))
        self.recording.received(frame(b"wor", 2, False) + frame(b"?", 9) + frame(b"ld", 0))
        self.assertEqual(
            self.frames(), [(True, 1, b"hello"), (False, 9, b"?"), (False, 2, b"world")]
        )

    def test_running(self) -> None:
        """It is running until one side ends it, and complete then."""
        self.assertEqual(self.watching.ends, [])
        self.recording.left()
        self.assertEqual([(e.state, e.error) for e in self.watching.ends], [("complete", "")])

    def test_long_message(self) -> None:
        """Of a long message the beginning is kept, and its length."""
        self.recording.sent(frame(b"ab" * MAX_FRAME, 2, True, b"mask"))
        self.recording.sent(frame(b"short", 1, True, b"mask"))
        self.recording.ended()
        long, short = self.watching.ends[0].frames
        self.assertEqual((long.data, long.size), (b"ab" * (MAX_FRAME // 2), 2 * MAX_FRAME))
        self.assertEqual(short.data, b"short")

    def test_no_frames(self) -> None:
        """What are no frames ends the recording, with a reason."""
        self.recording.received(frame(b"x", 0))
        self.assertIn("does not parse", self.watching.ends[0].error)

    def test_refused(self) -> None:
        """A request for a websocket that is answered otherwise is a request like others."""
        watching, recording = started()
        recording.sent(UPGRADE + GET)
        recording.received(OK + OK)
        self.assertEqual([e.request.target for e in watching.ends], ["/ws", "/a"])
