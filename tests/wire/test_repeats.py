"""Heads that come again: what is remembered of them says what reading them anew would."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.wire.http1 import END, Event, Heads, Limits, Request, RequestParser, ResponseParser

REQUESTS = [
    b"GET / HTTP/1.1\r\nHost: a.b\r\nUser-Agent: me\r\n\r\n",
    b"GET /other HTTP/1.1\r\nHost: a.b\r\nUser-Agent: me\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a.b\r\nContent-Length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a.b\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: a.b\r\n\r\n",
]
#: Heads, and the bodies that follow them where the request was not HEAD.
RESPONSES = [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"hello"),
    (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"hello",
    ),
    (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
]


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data, cut at some of its places."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in zip(places, places[1:], strict=False)]


def read(parser: RequestParser | ResponseParser, data: bytes, cuts: list[int]) -> list[Event]:
    """The events of one message, its body in one piece."""
    events = [event for piece in pieces(data, cuts) for event in parser.receive(piece)]
    body = b"".join(event for event in events if isinstance(event, bytes))
    rest = [event for event in events if not isinstance(event, bytes)]
    return [*rest[:-1], body, *rest[-1:]]


class RepeatTests(SynchronousTestCase):
    """One connection's messages."""

    @given(st.lists(st.tuples(st.sampled_from(REQUESTS), st.lists(st.integers(0, 99), max_size=3))))
    def test_requests(self, messages: list[tuple[bytes, list[int]]]) -> None:
        """A request reads the same whatever came before it, in whatever pieces."""
        parser, heads = RequestParser(Limits()), Heads()
        for data, cuts in messages:
            alone = read(RequestParser(Limits()), data, [])
            self.assertEqual(read(parser, data, cuts), alone)
            self.assertEqual(parser.next_request(), [])
            self.assertEqual(read(RequestParser(Limits(), heads), data, cuts), alone)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(RESPONSES),
                st.sampled_from([b"GET", b"HEAD"]),
                st.lists(st.integers(0, 99), max_size=3),
            )
        )
    )
    def test_responses(self, messages: list[tuple[tuple[bytes, bytes], bytes, list[int]]]) -> None:
        """A response reads the same whatever came before it, in whatever pieces."""
        parser = ResponseParser()
        for (head, body), method, cuts in messages:
            data = head if method == b"HEAD" else head + body
            fresh = ResponseParser()
            for one in (parser, fresh):
                one.expect(method)
            self.assertEqual(read(parser, data, cuts), read(fresh, data, []))

    def test_behind_a_repeat(self) -> None:
        """What comes behind a repeated request is the next one."""
        parser = RequestParser(Limits())
        first = parser.receive(REQUESTS[0])
        self.assertEqual(parser.next_request(), [])
        self.assertEqual(parser.receive(REQUESTS[0] + REQUESTS[1]), first)
        following = parser.next_request()
        assert isinstance(following[0], Request)
        self.assertEqual((following[0].target, following[1]), (b"/other", END))


class HeadsTests(SynchronousTestCase):
    """What connections remember for each other."""

    def remembered(self, head: bytes) -> bool:
        heads = Heads()
        RequestParser(Limits(), heads).receive(head)
        return heads.get(head) is not None

    def test_plain(self) -> None:
        """A head without anything private is read once for all connections."""
        self.assertTrue(self.remembered(REQUESTS[0]))

    def test_private(self) -> None:
        """Nothing that may be a secret outlasts its connection, nor what is large."""
        for field in (
            b"Cookie: a=b",
            b"COOKIE: a=b",
            b"authorization: Bearer x",
            b"Proxy-Authorization: Basic eA==",
            b"X-Api-Key: 1",
            b"X-CSRF-Token: 1",
            b"Referer: http://a.b/?code=1",
            b"X-Large: " + b"a" * 1024,
        ):
            head = b"GET / HTTP/1.1\r\nHost: a.b\r\n%b\r\n\r\n" % field
            self.assertFalse(self.remembered(head), field)
        self.assertFalse(self.remembered(b"GET /?code=1 HTTP/1.1\r\nHost: a.b\r\n\r\n"))

    def test_bounded(self) -> None:
        """However many heads there are, few are remembered."""
        heads = Heads()
        names = [b"GET /%d HTTP/1.1\r\nHost: a.b\r\n\r\n" % number for number in range(1000)]
        for head in names:
            RequestParser(Limits(), heads).receive(head)
        self.assertLess(sum(heads.get(head) is not None for head in names), 300)
