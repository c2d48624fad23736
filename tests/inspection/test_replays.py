"""What is sent when a request is repeated."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.errors import BadInput
from exposr_tx.inspection.exchanges import Exchange
from exposr_tx.inspection.recorder import Recorder
from exposr_tx.inspection.replays import Edit, NotReplayable, replay_bytes
from exposr_tx.inspection.ring import Ring

CHUNKED = (
    b"POST /hook?a=%2f&b HTTP/1.1\r\nhost: x\r\nX-Odd:  two\tspaces\r\n"
    b"Transfer-Encoding: chunked\r\nx-odd: again\r\n\r\n"
    b"004;why=not\r\nbody\r\n0\r\nX-Trailer: t\r\n\r\n"
)
LENGTH = b"PUT /it HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nX-A: 1\r\n\r\nbody"
WEBSOCKET = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def recorded(data: bytes, max_body: int = 1000) -> Exchange:
    """The exchange whose request these bytes are."""
    ring = Ring()
    recording = Recorder([ring], max_body=max_body).recording("t", "http://localhost:1/")
    recording.connected()
    recording.sent(data)
    (exchange,) = ring
    return exchange


class ReplayTests(SynchronousTestCase):
    """replay_bytes."""

    def test_exact(self) -> None:
        """An unchanged request is repeated to the byte: spelling, spaces, chunks and trailers."""
        for data in (CHUNKED, LENGTH, b"GET / HTTP/1.0\r\n\r\n"):
            self.assertEqual(replay_bytes(recorded(data)), data)

    def test_changed_body(self) -> None:
        """A changed body gets its length; all other fields stay as they were."""
        self.assertEqual(
            replay_bytes(recorded(CHUNKED), Edit(body=b"longer than it was")),
            b"POST /hook?a=%2f&b HTTP/1.1\r\nhost: x\r\nX-Odd: two\tspaces\r\nx-odd: again\r\n"
            b"Content-Length: 18\r\n\r\nlonger than it was",
        )

    def test_changed_head(self) -> None:
        """A changed head keeps the body, without its chunks; a missing Host is the old one."""
        edit = Edit("PATCH", "/näh?x=1 2", ((b"X-New", b"n"), (b"Transfer-Encoding", b"chunked")))
        self.assertEqual(
            replay_bytes(recorded(CHUNKED), edit),
            b"PATCH /n%C3%A4h?x=1%202 HTTP/1.1\r\nHost: x\r\nX-New: n\r\n"
            b"Content-Length: 4\r\n\r\nbody",
        )

    def test_no_body(self) -> None:
        """A GET gets no length, a POST without a body has one of zero."""
        self.assertEqual(
            replay_bytes(recorded(LENGTH), Edit("GET", body=b"")),
            b"GET /it HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n\r\n",
        )
        self.assertIn(b"Content-Length: 0\r\n", replay_bytes(recorded(LENGTH), Edit(body=b"")))

    def test_not_kept(self) -> None:
        """A request whose body was not kept whole is refused, unless it gets another body."""
        exchange = recorded(LENGTH, max_body=3)
        refusal = self.assertRaises(NotReplayable, replay_bytes, exchange)
        self.assertIn("of its body of 4 bytes only the first 3 were kept", str(refusal))
        self.assertRaises(NotReplayable, replay_bytes, exchange, Edit("GET"))
        self.assertIn(b"\r\n\r\nnew", replay_bytes(exchange, Edit(body=b"new")))

    def test_not_possible(self) -> None:
        """Websockets, requests that are under way, and what does not parse are refused."""
        for data, why in (
            (WEBSOCKET, "opens a websocket"),
            (LENGTH[:-1], "not come to its end"),
            (b"nonsense\r\n\r\n", "does not parse"),
        ):
            refusal = self.assertRaises(NotReplayable, replay_bytes, recorded(data))
            self.assertIn(why, str(refusal))

    def test_wrong_edits(self) -> None:
        """What would be another request than it says, or two, is refused by name."""
        for edit, name in (
            (Edit("GET /x HTTP/1.1\r\nA:"), "method"),
            (Edit(target="http://elsewhere/"), "target"),
            (Edit(target="/\r\nHost: y"), "target"),
            (Edit(fields=((b"A b", b"c"),)), "headers"),
            (Edit(fields=((b"A", b"b\r\nC: d"),)), "headers"),
        ):
            refusal = self.assertRaises(BadInput, replay_bytes, recorded(LENGTH), edit)
            self.assertIn(name, str(refusal))
