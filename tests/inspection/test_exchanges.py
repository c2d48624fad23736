"""What is kept of an exchange."""

from __future__ import annotations

from urllib.parse import urlsplit

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.inspection.exchanges import (
    MAX_FRAMES,
    Body,
    Exchange,
    Frame,
    Frames,
    RequestHead,
    ResponseHead,
)


def exchange(head: bytes, target: str = "http://localhost:3000/") -> Exchange:
    return Exchange("1", "mine", target, "192.0.2.1", 0.0, 0.0, RequestHead(head), Body(), Body())


class BodyTests(SynchronousTestCase):
    """Bodies are kept up to a limit and measured beyond it."""

    @given(st.lists(st.binary(max_size=9), max_size=9), st.integers(0, 40))
    def test_beginning(self, pieces: list[bytes], limit: int) -> None:
        """The beginning of a body is kept, however it comes in pieces."""
        body = Body(limit)
        for piece in pieces:
            body.add(piece)
        whole = b"".join(pieces)
        self.assertEqual(body.data, whole[:limit])
        self.assertEqual((body.size, body.kept), (len(whole), min(len(whole), limit)))
        self.assertEqual(body.truncated, len(whole) > limit)


class HeadTests(SynchronousTestCase):
    """Heads are taken apart when somebody looks."""

    def test_request(self) -> None:
        """A request's line and its fields, in their order and spelling."""
        head = RequestHead(b"GET /a?b HTTP/1.1\r\nhOst: x\r\nA:  1 \r\nA: 2\r\nE:\r\n\r\n")
        self.assertEqual((head.method, head.target, head.version), ("GET", "/a?b", "HTTP/1.1"))
        self.assertEqual(head.fields, [(b"hOst", b"x"), (b"A", b"1"), (b"A", b"2"), (b"E", b"")])
        self.assertEqual((head.field(b"host"), head.field(b"none")), (b"x", b""))

    def test_response(self) -> None:
        """A status with words, with none, and without the space before them."""
        for line, reason in (
            (b"HTTP/1.0 404 Not Found", "Not Found"),
            (b"HTTP/1.0 404 ", ""),
            (b"HTTP/1.0 404", ""),
        ):
            head = ResponseHead(line + b"\r\n\r\n")
            self.assertEqual((head.version, head.status, head.reason), ("HTTP/1.0", 404, reason))

    def test_none(self) -> None:
        """What is no request has no method and no fields."""
        head = RequestHead(b"")
        self.assertEqual((head.method, head.target, head.version, head.fields), ("", "", "", []))


class ExchangeTests(SynchronousTestCase):
    """What follows from what passed."""

    def test_url(self) -> None:
        """The URL is the target's with the request's path; where there is no host, by its Host."""
        head = b"GET /a?b HTTP/1.1\r\nHost: public.example\r\n\r\n"
        self.assertEqual(exchange(head, "https://t:1/x?y").url, "https://t:1/a?b")
        self.assertEqual(exchange(head, "unix:/run/x").url, "http://public.example/a?b")
        self.assertEqual(exchange(b"OPTIONS * HTTP/1.1\r\n\r\n").url, "http://localhost:3000/")

    def test_url_of_odd_host(self) -> None:
        """Of a Host that no URL can have there is nothing in it."""
        for host in (b"[", b"[x]", b"a[b", "℀".encode()):
            url = exchange(b"GET /a HTTP/1.1\r\nHost: %b\r\n\r\n" % host, "unix:/run/x").url
            self.assertEqual(urlsplit(url).path, "/a")
        self.assertEqual(
            exchange(b"GET /a HTTP/1.1\r\nHost: [\r\n\r\n", "").url, "http://localhost/a"
        )

    def test_visitor(self) -> None:
        """The visitor is whom the server names; a stream serves many one after another."""
        named = exchange(b"GET / HTTP/1.1\r\nX-Real-IP: 198.51.100.7\r\n\r\n")
        self.assertEqual(named.visitor, "198.51.100.7")
        self.assertEqual(exchange(b"GET / HTTP/1.1\r\n\r\n").visitor, "192.0.2.1")

    def test_newest_frames(self) -> None:
        """Of a websocket's messages the newest are kept, by number and by bytes."""
        frames = Frames(10)
        for number in range(5):
            frames.add(Frame(True, 1, b"%4d" % number, 4, 0.0))
        self.assertEqual([frame.data for frame in frames], [b"   3", b"   4"])
        self.assertEqual((frames.lost, frames.kept), (3, 8))
        many = Frames()
        for _ in range(MAX_FRAMES + 7):
            many.add(Frame(False, 1, b"", 0, 0.0))
        self.assertEqual((len(many), many.lost), (MAX_FRAMES, 7))
