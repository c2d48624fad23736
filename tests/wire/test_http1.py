"""The HTTP/1 parsers: what they read, what they refuse, and how little the pieces matter."""

from __future__ import annotations

from typing import Any

import h11
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.errors import LocalProtocolError, RemoteProtocolError
from exposr_tx.wire.http1 import (
    END,
    End,
    Event,
    Limits,
    Request,
    RequestParser,
    Response,
    ResponseParser,
    chunk,
    last_chunk,
)

GET = b"GET /a?b=c HTTP/1.1\r\nHost: Demo.Example.:8080\r\nUser-Agent: me\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a.b\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST / HTTP/1.1\r\nHost: a.b\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;name=value\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 7\r\nContent-Length: 9\r\n\r\n"
)


def merged(events: list[Event]) -> list[Event]:
    """Events with neighbouring pieces of a body made one."""
    out: list[Event] = []
    for event in events:
        if isinstance(event, bytes) and out and isinstance(out[-1], bytes):
            out[-1] = out[-1] + event
        else:
            out.append(event)
    return out


def requests(*pieces: bytes, limits: Limits | None = None) -> list[Event]:
    """All the events of a connection's bytes, in pieces."""
    parser = RequestParser(limits or Limits())
    events: list[Event] = []
    for piece in pieces:
        new = parser.receive(piece)
        while new:
            events += new
            new = parser.next_request() if isinstance(new[-1], End) else []
    return merged(events)


def response(*pieces: bytes, method: bytes = b"GET", eof: bool = False) -> list[Event]:
    """The events of one response, in pieces."""
    parser = ResponseParser()
    parser.expect(method)
    events: list[Event] = []
    for piece in pieces:
        events += parser.receive(piece)
    if eof:
        events += parser.receive_eof()
    return merged(events)


def head(**changes: bytes) -> bytes:
    """A request's head with some of its parts changed."""
    parts = {
        "method": b"GET",
        "target": b"/",
        "version": b"HTTP/1.1",
        "host": b"Host: a.b\r\n",
        "fields": b"",
    }
    parts.update(changes)
    return b"%(method)b %(target)b %(version)b\r\n%(host)b%(fields)b\r\n" % {
        k.encode(): v for k, v in parts.items()
    }


class RequestTests(SynchronousTestCase):
    """What a visitor sends."""

    def assert_refused(self, status: int, *pieces: bytes, limits: Limits | None = None) -> None:
        with self.assertRaises(RemoteProtocolError) as caught:
            requests(*pieces, limits=limits)
        self.assertEqual(caught.exception.http_status, status, pieces[0][:200])

    def one(self, data: bytes) -> Request:
        request = requests(data)[0]
        assert isinstance(request, Request)
        return request

    def test_simple(self) -> None:
        """A plain request is read: its host in lower case, its fields as they were written."""
        request, end = requests(GET)
        assert isinstance(request, Request)
        self.assertEqual((request.method, request.target, request.minor), (b"GET", b"/a?b=c", 1))
        self.assertEqual(
            (request.host, request.authority), (b"demo.example", b"Demo.Example.:8080")
        )
        self.assertEqual(request.fields, [(b"User-Agent", b"me")])
        self.assertTrue(request.keep_alive)
        self.assertIs(end, END)

    def test_split_anywhere(self) -> None:
        """A request that arrives in two pieces is the same as one that arrives whole."""
        for data in (GET, POST, CHUNKED, GET + POST + CHUNKED + GET):
            whole = requests(data)
            for i in range(len(data)):
                self.assertEqual(requests(data[:i], data[i:]), whole)

    def test_byte_by_byte(self) -> None:
        """A request that arrives byte by byte is the same, too."""
        data = GET + POST + CHUNKED + GET
        self.assertEqual(requests(*[data[i : i + 1] for i in range(len(data))]), requests(data))

    def test_bodies(self) -> None:
        """A body is measured by its length or its chunks; trailers that would frame are dropped."""
        self.assertEqual(requests(POST)[1:], [b"hello", END])
        self.assertEqual(requests(CHUNKED)[1:], [b"hello!", End(((b"X-Sum", b"7"),))])

    def test_pipelined(self) -> None:
        """Requests behind one another wait until the one before is done with."""
        parser = RequestParser(Limits())
        self.assertEqual(len(parser.receive(POST + GET)), 3)
        self.assertEqual(len(parser.rest), len(GET))
        self.assertEqual(parser.take_rest(), GET)
        with self.assertRaises(LocalProtocolError):
            RequestParser(Limits()).next_request()

    def test_hosts(self) -> None:
        """There must be one valid Host, and an absolute target wins over it."""
        for value, host in (
            (b"a.b", b"a.b"),
            (b"A.B:80", b"a.b"),
            (b"a.b.", b"a.b"),
            (b"a.b:", b"a.b"),
            (b"[::1]:8080", b"[::1]"),
            (b"xn--nxasmq6b.b", b"xn--nxasmq6b.b"),
        ):
            self.assertEqual(self.one(head(host=b"Host: " + value + b"\r\n")).host, host)
        for value in (
            b"",
            b"a b",
            b"a/b",
            b"a@b",
            b"a.b:99999",
            b"a:b:c",
            b"\xfc.b",
            b"a,b",
            b"a#",
        ):
            self.assert_refused(400, head(host=b"Host: " + value + b"\r\n"))
        self.assert_refused(400, head(host=b""))
        self.assert_refused(400, head(host=b"Host: a.b\r\nHost: a.b\r\n"))
        self.assertEqual(self.one(head(host=b"", version=b"HTTP/1.0")).host, b"")
        absolute = self.one(head(target=b"HTTP://C.d:81?x"))
        self.assertEqual((absolute.host, absolute.target), (b"c.d", b"/?x"))

    def test_targets(self) -> None:
        """Only the forms of RFC 9112 section 3.2 that make sense here are taken."""
        self.assertEqual(self.one(head(method=b"OPTIONS", target=b"*")).target, b"*")
        self.assertEqual(self.one(head(method=b"OPTIONS", target=b"http://a.b")).target, b"*")
        for target in (
            b"a",
            b"*",
            b"ftp://a.b/",
            b"http://u@a.b/",
            b"/a#b",
            b"/\x7f",
        ):
            self.assert_refused(400, head(target=target))
        self.assert_refused(501, head(method=b"CONNECT", target=b"a.b:443"))

    def test_targets_beyond_ascii(self) -> None:
        """A target that was typed with other letters, and sent so, is percent-encoded."""
        for target, encoded in (
            (b"/\xc3\xbc?q=\xe9%20", b"/%C3%BC?q=%E9%20"),
            (b"http://a.b/\xc3\xbc", b"/%C3%BC"),
        ):
            self.assertEqual(self.one(head(target=target)).target, encoded)
            again = requests(GET, head(target=target, host=b"Host: a.b\r\n"), head(target=target))
            targets = [event.target for event in again if isinstance(event, Request)]
            self.assertEqual(targets, [b"/a?b=c", encoded, encoded])
        self.assert_refused(400, head(target=b"http://\xc3\xbc.b/"))
        self.assert_refused(400, head(target=b"\xc3\xbc"))

    def test_request_lines(self) -> None:
        """A request line that is none is refused; another version is named."""
        for line in (
            b"GET /",
            b"GET  / HTTP/1.1",
            b"GET / http/1.1",
            b"G(T / HTTP/1.1",
            b"GET / X",
        ):
            self.assert_refused(400, line + b"\r\nHost: a.b\r\n\r\n")
        self.assert_refused(400, b"GET / HTTP/1.1\nHost: a.b\n\n")
        self.assert_refused(505, head(version=b"HTTP/1.2"))
        self.assert_refused(505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self.assertEqual(requests(b"\r\n" + GET), requests(GET))
        self.assert_refused(400, b"\r\n\r\n" + GET)

    def test_fields(self) -> None:
        """Folded, nameless, spaced and control-laden fields are refused; white space is trimmed."""
        for line in (
            b" a: b",
            b": b",
            b"a : b",
            b"a\x00: b",
            b"a: b\x00",
            b"a: b\x0bc",
            b"a",
            b"a: \r",
        ):
            self.assert_refused(400, head(fields=line + b"\r\n"))
        self.assert_refused(400, head(fields=b"a: b\r\n c\r\n"))
        request = self.one(head(fields=b"a:\t b  c \t\r\nD:\r\n"))
        self.assertEqual(request.fields, [(b"a", b"b  c"), (b"D", b"")])

    def test_framing(self) -> None:
        """Two ways to measure a body, or a doubtful one, are refused."""
        for fields in (
            b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            b"Content-Length: 5\r\nContent-Length: 5\r\n",
            b"Content-Length: 5, 5\r\n",
            b"Content-Length: +5\r\n",
            b"Content-Length: -1\r\n",
            b"Content-Length: 5 5\r\n",
            b"Content-Length: 0x5\r\n",
            b"Content-Length: \r\n",
            b"Transfer-Encoding: chunked, chunked\r\n",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: chunked, gzip\r\n",
            b"Transfer-Encoding: xchunked\r\n",
            b"Transfer-Encoding: identity\r\n",
            b"Transfer-Encoding: \r\n",
            b"Content_Length: 5\r\nContent-Length: 5, 6\r\n",
        ):
            self.assert_refused(400, head(method=b"POST", fields=fields))
        self.assert_refused(501, head(fields=b"Transfer-Encoding: gzip, chunked\r\n"))
        self.assert_refused(
            400, head(version=b"HTTP/1.0", fields=b"Transfer-Encoding: chunked\r\n")
        )
        self.assert_refused(413, head(fields=b"Content-Length: 9999999999999999999\r\n"))

    def test_chunks(self) -> None:
        """Chunks that are not exactly as they should be are refused."""
        start = head(method=b"POST", fields=b"Transfer-Encoding: chunked\r\n")
        for body in (
            b"5\nhello\r\n",
            b"5 \r\nhello\r\n",
            b"+5\r\nhello\r\n",
            b"0x5\r\nhello\r\n",
            b"5_0\r\nhello\r\n",
            b"\r\nhello\r\n",
            b"5\r\nhelloX\r\n",
            b"5\r\nhello\n",
            b"5\r\nhello\rX",
            b"11111111111111111\r\n",
            b"ffffffffffffffff\r\n",
            b"5;" + b"x" * 300 + b"\r\n",
            b"5;\x00\r\n",
            b"0\r\nbad trailer\r\n\r\n",
            b"0\r\na: b\n\r\n",
        ):
            self.assert_refused(400, start + body)
        self.assert_refused(431, start + b"0\r\na: " + b"b" * 9000 + b"\r\n\r\n")

    def test_limits(self) -> None:
        """Each limit has its status, and what is within it passes."""
        self.one(head(target=b"/" + b"a" * 7990))
        self.assert_refused(414, head(target=b"/" + b"a" * 8192))
        self.assert_refused(414, b"GET /" + b"a" * 9000)
        self.one(head(fields=b"".join(b"x-%d: y\r\n" % i for i in range(199))))
        self.assert_refused(431, head(fields=b"".join(b"x-%d: y\r\n" % i for i in range(201))))
        self.one(head(fields=b"".join(b"x: %b\r\n" % (b"y" * 4000) for i in range(8))))
        self.assert_refused(431, head(fields=b"x: " + b"y" * 33000 + b"\r\n"))
        self.assert_refused(431, b"GET / HTTP/1.1\r\nHost: a.b\r\nx: " + b"y" * 33000)
        limits = Limits(body=4)
        self.assert_refused(413, POST, limits=limits)
        self.assert_refused(413, CHUNKED, limits=limits)

    def test_what_cannot_become_a_head_is_refused_at_once(self) -> None:
        """Bare line ends and control characters are not waited out."""
        self.assert_refused(400, b"GET / HTTP/1.1\nHost")
        self.assert_refused(400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")
        self.assert_refused(400, b"GET / HTTP/1.1\r\nHo", b"st: a\n")
        self.assert_refused(400, b"GET / HTTP/1.1\rHost: a.b\r\n")

    def test_connection(self) -> None:
        """What concerns this hop only is taken out, with what Connection names; some never."""
        request = self.one(
            head(
                fields=b"Connection: Close, X-Hop, Authorization, host\r\nX-Hop: 1\r\n"
                b"Keep-Alive: 5\r\nTE: trailers\r\nProxy-Connection: x\r\nAuthorization: y\r\n"
                b"HTTP2-Settings: z\r\nX-Forwarded-For: 1.1.1.1\r\nX_Forwarded_For: 2.2.2.2\r\n"
                b"Origin: http://a.b\r\nContent_Length: 5\r\n"
            )
        )
        self.assertEqual(request.fields, [(b"Authorization", b"y"), (b"Origin", b"http://a.b")])
        self.assertEqual(request.referring, [1])
        self.assertEqual(request.forwarding, {b"x-forwarded-for": [b"1.1.1.1", b"2.2.2.2"]})
        self.assertFalse(request.keep_alive)
        self.assertTrue(request.trailers_wanted)
        self.assertFalse(self.one(head(version=b"HTTP/1.0")).keep_alive)

    def test_requests_with_the_same_fields(self) -> None:
        """Fields that were read before are read the same again, whatever the first line says."""
        fields = b"HTTP/1.1\r\nHost: a.b\r\nX: y\r\nContent-Length: 1\r\n\r\n"
        first, second = (
            [b"POST /1 " + fields, b"PUT /2 " + fields],
            [b"PUT /2 " + fields, b"POST /1 " + fields],
        )
        self.assertEqual(
            requests(b"z".join(first) + b"z")[3:], requests(b"z".join(second) + b"z")[:3]
        )
        plain = b"HTTP/1.1\r\nHost: a.b\r\n\r\n"
        for line in (b"GET /# ", b"GET  / ", b"GET x ", b"GET /" + b"a" * 8190 + b" "):
            with self.assertRaises(RemoteProtocolError):
                requests(b"GET / " + plain + line + plain)
        self.assert_refused(501, b"GET / " + plain + b"CONNECT a.b:1 " + plain)
        self.assert_refused(505, b"GET / " + plain + b"GET / HTTP/2.0" + plain[8:])
        absolute = requests(b"GET / " + plain + b"GET http://c.d/ " + plain + b"GET / " + plain)
        self.assertEqual([e.host for e in absolute[::2]], [b"a.b", b"c.d", b"a.b"])  # type: ignore[union-attr]
        old = requests(b"GET / " + plain + b"GET / HTTP/1.0" + plain[8:])[2]
        assert isinstance(old, Request)
        self.assertEqual((old.minor, old.keep_alive), (0, False))
        new = requests(b"GET / HTTP/1.0" + plain[8:] + b"GET / " + plain)[2]
        assert isinstance(new, Request)
        self.assertEqual((new.minor, new.keep_alive), (1, True))

    def test_upgrades(self) -> None:
        """Only a proper websocket handshake counts as an upgrade."""
        good = b"Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
        self.assertTrue(self.one(head(fields=good)).websocket)
        for request in (
            head(fields=b"Connection: Upgrade\r\nUpgrade: h2c\r\n"),
            head(fields=b"Upgrade: websocket\r\n"),
            head(fields=b"Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n"),
            head(method=b"POST", fields=good),
            head(version=b"HTTP/1.0", fields=good),
            head(fields=good + b"Content-Length: 1\r\n") + b"x",
        ):
            self.assertFalse(self.one(request).websocket)

    def test_expectations(self) -> None:
        """100-continue is understood, nothing else."""
        expect = b"Expect: 100-Continue\r\n"
        self.assertTrue(self.one(head(fields=expect + b"Content-Length: 1\r\n")).expect_continue)
        self.assertFalse(self.one(head(fields=expect)).expect_continue)
        self.assert_refused(417, head(fields=b"Expect: pie\r\n"))
        self.assertFalse(
            self.one(head(version=b"HTTP/1.0", fields=b"Expect: pie\r\n")).expect_continue
        )

    @settings(max_examples=300)
    @given(st.binary(max_size=200), st.data())
    def test_anything(self, data: bytes, draw: st.DataObject) -> None:
        """Whatever arrives, in whatever pieces, is read the same way or refused the same way."""

        def outcome(*pieces: bytes) -> object:
            try:
                return requests(*pieces)
            except RemoteProtocolError as error:
                return error.http_status

        start = draw.draw(st.sampled_from([b"", GET, CHUNKED, POST, GET[:30], CHUNKED[:80]]))
        data = start + data
        cut = draw.draw(st.integers(0, len(data)))
        whole = outcome(data)
        pieces = outcome(data[:cut], data[cut:])
        if isinstance(whole, int) or isinstance(pieces, int):
            # What comes before the fault may have been read; that it is refused is the same.
            self.assertEqual(isinstance(whole, int), isinstance(pieces, int))
        else:
            self.assertEqual(pieces, whole)

    @settings(max_examples=200)
    @given(
        st.sampled_from([b"GET", b"POST", b"DELETE", b"M-SEARCH"]),
        st.lists(
            st.tuples(
                st.from_regex(rb"\Ax-[a-zA-Z0-9\-]{1,10}\Z"),
                st.from_regex(rb"\A[!-~]([ -~]{0,20}[!-~])?\Z"),
            ),
            max_size=10,
        ),
        st.lists(st.binary(min_size=1, max_size=50), max_size=5),
        st.booleans(),
    )
    def test_as_h11_reads_it(
        self, method: bytes, fields: list[tuple[bytes, bytes]], body: list[bytes], chunks: bool
    ) -> None:
        """Another implementation reads the same from the same bytes."""
        lines = b"".join(b"%b: %b\r\n" % pair for pair in fields)
        framing = (
            b"Transfer-Encoding: chunked\r\n"
            if chunks
            else b"Content-Length: %d\r\n" % len(b"".join(body))
        )
        payload = b"".join(map(chunk, body)) + last_chunk(()) if chunks else b"".join(body)
        data = head(method=method, fields=lines + framing) + payload
        peer: Any = h11.Connection(h11.SERVER)
        peer.receive_data(data)
        theirs = peer.next_event()
        read = b""
        while not isinstance(event := peer.next_event(), h11.EndOfMessage):
            read += event.data
        ours = requests(data)
        request = ours[0]
        assert isinstance(request, Request)
        self.assertEqual(request.method, theirs.method)
        self.assertEqual(
            [(n.lower(), v) for n, v in request.fields],
            [(n, v) for n, v in theirs.headers if n.startswith(b"x-")],
        )
        self.assertEqual(b"".join(e for e in ours if isinstance(e, bytes)), read)


class ResponseTests(SynchronousTestCase):
    """What a target sends."""

    LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: y\r\n\r\nabc"
    CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: u\r\n\r\n"

    def assert_refused(self, *pieces: bytes, eof: bool = False) -> None:
        with self.assertRaises(RemoteProtocolError):
            response(*pieces, eof=eof)

    def test_split_anywhere(self) -> None:
        """A response that arrives in pieces is the same as one that arrives whole."""
        for data in (self.LENGTH, self.CHUNKS, b"HTTP/1.1 100 Go\r\n\r\n" + self.CHUNKS):
            whole = response(data)
            for i in range(len(data)):
                self.assertEqual(response(data[:i], data[i:]), whole)

    def test_lengths(self) -> None:
        """A response ends by its length, its last chunk, or with the connection."""
        first, body, end = response(self.LENGTH)
        assert isinstance(first, Response)
        self.assertEqual((first.status, first.reason, first.length), (200, b"OK", 3))
        self.assertEqual((body, end), (b"abc", END))
        self.assertEqual(response(self.CHUNKS)[1:], [b"abc", End(((b"T", b"u"),))])
        until = response(b"HTTP/1.1 200\r\n\r\nabc", eof=True)
        assert isinstance(until[0], Response)
        self.assertTrue(until[0].until_close)
        self.assertFalse(until[0].keep_alive)
        self.assertEqual(until[1:], [b"abc", END])

    def test_no_body(self) -> None:
        """HEAD, 204 and 304 have no body, whatever their head says."""
        for data, method in (
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"HEAD"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"HEAD"),
            (b"HTTP/1.1 204 No\r\n\r\n", b"GET"),
            (b"HTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\n", b"GET"),
        ):
            self.assertEqual(response(data, method=method)[1:], [END])

    def test_cut_short(self) -> None:
        """A response that breaks off is a fault, never a shorter response."""
        for data in (self.LENGTH, self.CHUNKS):
            for i in range(len(data)):
                self.assert_refused(data[:i], eof=True)

    def test_nonsense(self) -> None:
        """A response whose framing can be read in two ways is a fault."""
        for data in (
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 999 OK\r\n\r\n",
            b"HTTP/1.1 20 OK\r\n\r\n",
            b"HTTP/2 200\r\n\r\n",
            b"HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n",
            b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc",
            b"\r\nHTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            b"HTTP/1.1 100 Go\r\n\r\n" * 17,
        ):
            self.assert_refused(data)

    def test_another_protocol(self) -> None:
        """What cannot become a response is refused at once: its line may never end."""
        for data in (b"hello", b"SSH-2.0-OpenSSH_9.2\r\n", b"+", b"HTTP/2", b"220 mail"):
            self.assert_refused(data)
        self.assertEqual(response(b"H", b"TTP/1"), [])

    def test_space_before_a_colon(self) -> None:
        """Some devices write a space before the colon: it is removed."""
        spaced = self.LENGTH.replace(b":", b" \t:")
        self.assertEqual(response(spaced), response(self.LENGTH))
        self.assert_refused(self.LENGTH.replace(b"X", b" "))

    def test_bytes_behind_the_end(self) -> None:
        """What follows a response is not taken for another one."""
        parser = ResponseParser()
        parser.expect(b"GET")
        parser.receive(self.LENGTH + self.LENGTH)
        self.assertEqual(len(parser.rest), len(self.LENGTH))
        with self.assertRaises(LocalProtocolError):
            parser.expect(b"GET")

    def test_switching(self) -> None:
        """Behind a 101 the bytes are no longer HTTP."""
        parser = ResponseParser()
        parser.expect(b"GET")
        events = parser.receive(
            b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x00"
        )
        assert isinstance(events[0], Response)
        self.assertEqual(events[0].upgrade, b"websocket")
        self.assertEqual(parser.take_rest(), b"\x81\x00")

    def test_keep_alive(self) -> None:
        """Whether a connection may be used again is as the target says."""
        for data, keep, limit in (
            (b"HTTP/1.1 204 No\r\nKeep-Alive: timeout=5, max=9\r\n\r\n", True, 5),
            (b"HTTP/1.1 204 No\r\nConnection: close\r\n\r\n", False, None),
            (b"HTTP/1.0 204 No\r\n\r\n", False, None),
            (b"HTTP/1.0 204 No\r\nConnection: Keep-Alive\r\n\r\n", True, None),
        ):
            first = response(data)[0]
            assert isinstance(first, Response)
            self.assertEqual((first.keep_alive, first.idle_limit), (keep, limit))
