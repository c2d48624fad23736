"""Requests rewritten by the client."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.client.rewriting import RequestRewriter, Rules, replacements
from exposr_tx.errors import BadInput, RemoteProtocolError

REWRITE = frozenset({b"host", b"origin", b"referer"})
REQUEST = (
    b"POST /x?y HTTP/1.1\r\nHost: abcd.tun.test\r\nOrigin: https://abcd.tun.test\r\n"
    b"Referer: https://abcd.tun.test/p?q\r\nX-Forwarded-For: 192.0.2.1\r\nCookie: a=b\r\n"
)

#: Requests as servers of ours send them: their ids come last.
AGAIN = [
    head + b"X-Request-Id: %d\r\n\r\n" + body
    for head, body in (
        (b"GET /a HTTP/1.1\r\nHost: abcd.tun.test\r\n", b""),
        (b"GET /b HTTP/1.1\r\nHost: abcd.tun.test\r\nConnection: close\r\n", b""),
        (b"\r\nGET /b HTTP/1.1\r\nHost: abcd.tun.test\r\n", b""),
        (b"GET /c HTTP/1.1\r\nHost: abcd.tun.test\r\nExpect: 100-continue\r\n", b""),
        (b"PUT /d HTTP/1.1\r\nHost: abcd.tun.test\r\nContent-Length: 3\r\n", b"abc"),
        (b"PUT /d HTTP/1.1\r\nHost: a.b\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    )
]


def rewritten(data: bytes, rules: Rules) -> bytes:
    return RequestRewriter(rules).receive(data)


class RequestRewriterTests(SynchronousTestCase):
    """RequestRewriter."""

    rules = Rules(b"http", b"localhost:3000", rewrite=REWRITE)

    def test_names_the_target(self) -> None:
        """Host, Origin and Referer name the target; the rest stays."""
        out = rewritten(REQUEST + b"Content-Length: 2\r\n\r\nhi", self.rules)
        head, _, body = out.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        self.assertEqual(lines[0], b"POST /x?y HTTP/1.1")
        for line in (
            b"Host: localhost:3000",
            b"Origin: http://localhost:3000",
            b"Referer: http://localhost:3000/p?q",
            b"x-forwarded-for: 192.0.2.1",
            b"Cookie: a=b",
            b"Content-Length: 2",
        ):
            self.assertIn(line, lines)
        self.assertEqual(body, b"hi")

    def test_own_query(self) -> None:
        """Requests without a query get the target's; nothing follows the star of OPTIONS."""
        rules = Rules(b"http", b"localhost:3000", query=b"own=1")
        for target, gone in ((b"/", b"/?own=1"), (b"/?x", b"/?x"), (b"*", b"*")):
            out = rewritten(b"OPTIONS %b HTTP/1.1\r\nHost: a.b\r\n\r\n" % target, rules)
            self.assertTrue(out.startswith(b"OPTIONS %b HTTP/1.1\r\n" % gone), out)

    def test_foreign_urls_stay(self) -> None:
        """An Origin of somebody else is not touched."""
        out = rewritten(b"GET / HTTP/1.1\r\nHost: a.b\r\nOrigin: http://other\r\n\r\n", self.rules)
        self.assertIn(b"Origin: http://other\r\n", out)

    def test_replace(self) -> None:
        """-H sets a field in place of what is there, or removes it."""
        rules = Rules(b"http", b"t", replace=replacements("Cookie:,X-Key: a, b,Host: fixed"))
        out = rewritten(REQUEST + b"\r\n", rules)
        self.assertNotIn(b"Cookie", out)
        self.assertIn(b"X-Key: a, b\r\n", out)
        self.assertEqual(out.count(b"Host: "), 1)
        self.assertIn(b"Host: fixed\r\n", out)

    def test_host_header(self) -> None:
        """What a server does not know of hosts is done here."""
        via = b"GET / HTTP/1.1\r\nHost: t:1\r\nX-Forwarded-Host: pub.test\r\n\r\n"
        for value, host in ((b"preserve", b"pub.test"), (b"fixed", b"fixed"), (b"target", b"t:1")):
            out = rewritten(via, Rules(b"http", b"t:1", host_header=value))
            self.assertIn(b"Host: %b\r\n" % host, out)

    def test_websocket(self) -> None:
        """After an upgrade bytes pass as they are, also those sent with the head."""
        head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        rewriter = RequestRewriter(self.rules)
        out = rewriter.receive(head + b"\x81\x00")
        self.assertIn(b"Upgrade: websocket\r\n\r\n\x81\x00", out)
        self.assertEqual(rewriter.receive(b"\x00GET"), b"\x00GET")

    @given(st.lists(st.integers(0, 700), max_size=6))
    def test_split_anywhere(self, cuts: list[int]) -> None:
        """Requests in pieces, one after another, come out as when they arrive whole."""
        body = b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\nT: v\r\n\r\n"
        data = REQUEST + body + REQUEST + b"Content-Length: 2\r\n\r\nhi" + REQUEST + b"\r\n"
        rewriter = RequestRewriter(self.rules)
        out, last = b"", 0
        for cut in [*sorted(cuts), len(data)]:
            out += rewriter.receive(data[last:cut])
            last = max(cut, last)
        self.assertEqual(out, rewritten(data, self.rules))
        self.assertEqual(out.count(b"Host: localhost:3000"), 3)

    @given(st.lists(st.sampled_from(AGAIN), max_size=8), st.lists(st.integers(0, 2000), max_size=4))
    def test_again(self, requests: list[bytes], cuts: list[int]) -> None:
        """A request that comes again with another id comes out as from somebody new."""
        for rules in (self.rules, Rules(b"http", b"t", replace=replacements("X-Request-Id: mine"))):
            data = [request % number for number, request in enumerate(requests)]
            expected = [rewritten(one, rules) for one in data]
            rewriter = RequestRewriter(rules)
            self.assertEqual([rewriter.receive(one) for one in data], expected)
            whole = b"".join(data)
            pieces = [whole[a:b] for a, b in pairwise([0, *sorted(cuts), len(whole)])]
            rewriter = RequestRewriter(rules)
            self.assertEqual(b"".join(map(rewriter.receive, pieces)), b"".join(expected))

    def test_wrong_id(self) -> None:
        """An id that is none is refused where the request before was the same, too."""
        rewriter = RequestRewriter(self.rules)
        rewriter.receive(AGAIN[0] % 1)
        self.assertRaises(RemoteProtocolError, rewriter.receive, AGAIN[0].replace(b"%d", b"\0"))

    @given(st.binary(max_size=200))
    def test_any_bytes(self, data: bytes) -> None:
        """What is no request is an error of the peer's."""
        try:
            out = rewritten(data, self.rules)
        except RemoteProtocolError:
            return
        # A head that is not all there is kept: what comes out is one that was read.
        self.assertEqual(out, b"")

    def test_bad_replacements(self) -> None:
        """What is no header is named; framing is not to be set."""
        for text in ("nonsense", "Content-Length: 3", "A: b\r\nC: d", ": x"):
            self.assertRaises(BadInput, replacements, text)
        self.assertEqual(replacements(""), ())
