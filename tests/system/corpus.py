"""Odd and malformed requests and responses, as data, with what must come of them.

Expectations come from RFC 9110 and RFC 9112 and from what this project promises
about framing: refuse what could be read in two ways, write anew what is passed
on, never show a visitor bytes that are not his. They do not come from what the
code does. Where both answers are right, both are in the set.

Requests are sent to the ingress for a tunnel ``corpus`` under ``localhost``
whose target answers every well-formed request with 200 and its request target
as the body. Responses are what that target sends instead, byte for byte.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

HOST = b"corpus.localhost"
H = b"Host: corpus.localhost\r\n"
END = b"\r\n"
# What a smuggled second request asks for: the target must never see it.
SMUGGLED = b"GET /smuggled HTTP/1.1\r\n" + H + END
# What a response must never bring to a visitor.
INJECTED = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nINJECTED"


# What visitors send to get a response; ``{path}`` is filled in.
GET = b"GET {path} HTTP/1.1\r\n" + H + END


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Bytes of a visitor, and what must come of them.

    :ivar pieces: the bytes, one write each.
    :ivar answers: for each final response, the statuses that are right.
    :ivar closed: whether the server closes afterwards; None where either is right.
    :ivar forwarded: complete requests that the target gets; None where any number is right.
    :ivar has: lower-case bytes that the target's requests contain.
    :ivar lacks: lower-case bytes that they do not contain.
    :ivar methods: of the requests that are answered, where they are not all GET.
    :ivar bodies: the bodies of the responses, where they tell something.
    :ivar interim: whether a 100 arrives before the second piece is sent (True), or never (False).
    :ivar ends: whether the visitor sends a FIN after the last piece.
    :ivar absent: whether closing without an answer is right too.
    :ivar slow: whether a deadline must pass first; only tried in long runs.
    """

    name: str
    pieces: tuple[bytes, ...]
    answers: tuple[frozenset[int], ...]
    closed: bool | None = None
    forwarded: int | None = None
    has: tuple[bytes, ...] = ()
    lacks: tuple[bytes, ...] = ()
    methods: tuple[bytes, ...] = ()
    bodies: tuple[bytes, ...] = ()
    interim: bool | None = None
    ends: bool = False
    absent: bool = False
    slow: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """Bytes of a target, and what the visitor must get.

    :ivar pieces: the bytes, one write each.
    :ivar ends: what the target does then: ``keep``, ``close`` or ``reset``.
    :ivar outcomes: the right ones: a status, and whether the response is complete.
    :ivar body: its body when it is complete and no error; None where it does not matter.
    :ivar lacks: lower-case bytes that the visitor never sees.
    :ivar has: lower-case bytes that the visitor sees.
    :ivar request: what the visitor sends; ``{path}`` is the request's path.
    :ivar dropped: whether the server must close the target's connection, never to use it again.
    """

    name: str
    pieces: tuple[bytes, ...]
    outcomes: frozenset[tuple[int, bool]]
    ends: str = "keep"
    body: bytes | None = None
    lacks: tuple[bytes, ...] = (b"injected",)
    has: tuple[bytes, ...] = ()
    request: bytes = GET
    dropped: bool = False


def good(
    name: str,
    *pieces: bytes,
    status: int | set[int] = 200,
    closed: bool | None = False,
    has: tuple[bytes, ...] = (),
    lacks: tuple[bytes, ...] = (),
    method: bytes = b"GET",
    interim: bool | None = None,
) -> Request:
    """One request that is passed on, once, and answered."""
    return Request(
        name=name,
        pieces=pieces,
        answers=(frozenset({status} if isinstance(status, int) else status),),
        closed=closed,
        forwarded=1 if status == 200 else None,
        has=has,
        lacks=(b"/smuggled", *lacks),
        methods=(method,),
        interim=interim,
    )


def bad(
    name: str,
    *pieces: bytes,
    status: int | set[int] = 400,
    closed: bool | None = True,
    ends: bool = False,
    absent: bool = False,
    slow: bool = False,
    method: bytes = b"GET",
) -> Request:
    """One request that is refused; the target gets no complete request of it."""
    return Request(
        name=name,
        pieces=pieces,
        answers=(frozenset({status} if isinstance(status, int) else status),),
        closed=closed,
        forwarded=0,
        lacks=(b"/smuggled",),
        methods=(method,),
        interim=False,
        ends=ends,
        absent=absent,
        slow=slow,
    )


def either(
    name: str,
    *pieces: bytes,
    status: set[int],
    lacks: tuple[bytes, ...] = (),
    method: bytes = b"GET",
) -> Request:
    """One request that may be refused or passed on, but nothing is smuggled past with it."""
    return Request(
        name=name,
        pieces=pieces,
        answers=(frozenset(status),),
        lacks=(b"/smuggled", *lacks),
        methods=(method,),
    )


def get(fields: bytes, target: bytes = b"/", version: bytes = b"HTTP/1.1") -> bytes:
    """A GET whose Host is right, with more fields."""
    return b"GET " + target + b" " + version + END + H + fields + END


def post(fields: bytes, body: bytes, target: bytes = b"/") -> bytes:
    """A POST whose Host is right, with more fields and a body."""
    return b"POST " + target + b" HTTP/1.1\r\n" + H + fields + END + body


def chunked(body: bytes) -> bytes:
    """A POST with a chunked body, framed by hand."""
    return post(b"Transfer-Encoding: chunked\r\n", body)


def hosted(host: bytes) -> bytes:
    """A GET with this Host field value."""
    return b"GET / HTTP/1.1\r\nHost: " + host + END + END


FIVE = b"5\r\nhello\r\n0\r\n\r\n"
P = b"POST"
REFUSED_CODING = {400, 501}
REFUSED_VERSION = {400, 505}

# RFC 9112 sections 6.1 to 6.3: one way to read the length, or none.
FRAMING = (
    good("plain GET", get(b""), has=(b"get / http/1.1",)),
    good("GET byte by byte", *(bytes((byte,)) for byte in get(b"X-A: b\r\n")), has=(b"x-a: b",)),
    good("POST with a length", post(b"Content-Length: 5\r\n", b"hello"), method=P, has=(b"hello",)),
    good("body in pieces", post(b"Content-Length: 5\r\n", b"he"), b"l", b"lo", method=P),
    good("length zero", post(b"Content-Length: 0\r\n", b""), method=P),
    good("length with leading zeros", post(b"Content-Length: 005\r\n", b"hello"), method=P),
    good("length with white space around", post(b"Content-Length: \t5 \t\r\n", b"hello"), method=P),
    good("GET with a body", get(b"Content-Length: 5\r\n") + b"hello", has=(b"hello",)),
    good("POST without a length", post(b"", b""), method=P, status={200, 411}),
    bad("CL and TE", post(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", FIVE), method=P),
    bad("TE and CL", post(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", FIVE), method=P),
    bad(
        "CL.TE with a request inside",
        post(b"Content-Length: 44\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n" + SMUGGLED),
        method=P,
    ),
    bad(
        "TE.CL with a request inside",
        post(
            b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
            b"%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED),
        ),
        method=P,
    ),
    bad("CL zero and TE", post(b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", FIVE)),
    bad("two CL that differ", post(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello!")),
    bad("two CL that agree", post(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello")),
    bad("two CL in other cases", post(b"Content-Length: 0\r\ncontent-length: 44\r\n", SMUGGLED)),
    bad("CL list that agrees", post(b"Content-Length: 5, 5\r\n", b"hello")),
    bad("CL list that differs", post(b"Content-Length: 5, 44\r\n", b"hello" + SMUGGLED)),
    bad("CL with plus", post(b"Content-Length: +5\r\n", b"hello")),
    bad("CL negative", post(b"Content-Length: -5\r\n", b"hello")),
    bad("CL minus zero", post(b"Content-Length: -0\r\n", b"")),
    bad("CL hexadecimal", post(b"Content-Length: 0x5\r\n", b"hello")),
    bad("CL with underscore", post(b"Content-Length: 0_5\r\n", b"hello")),
    bad("CL with a decimal point", post(b"Content-Length: 5.0\r\n", b"hello")),
    bad("CL with exponent", post(b"Content-Length: 5e0\r\n", b"hello")),
    bad("CL with inner space", post(b"Content-Length: 5 5\r\n", b"hello")),
    bad("CL with vertical tab", post(b"Content-Length: 5\x0b\r\n", b"hello")),
    bad("CL with form feed", post(b"Content-Length: \x0c5\r\n", b"hello")),
    bad("CL with no-break space", post(b"Content-Length: \xa05\r\n", b"hello")),
    bad("CL quoted", post(b'Content-Length: "5"\r\n', b"hello")),
    bad("CL with parameter", post(b"Content-Length: 5;a=b\r\n", b"hello")),
    bad("CL empty", post(b"Content-Length:\r\n", b"hello")),
    bad("CL of other digits", post("Content-Length: ５\r\n".encode(), b"hello")),
    bad("CL of latin-1 digits", post(b"Content-Length: \xb2\r\n", b"he")),
    bad(
        "CL beyond 64 bits",
        post(b"Content-Length: 18446744073709551621\r\n", b"hello"),
        status={400, 413},
    ),
    bad(
        "CL of 5,000 digits", post(b"Content-Length: " + b"9" * 5000 + END, b"x"), status={400, 413}
    ),
    bad("CL with space before colon", post(b"Content-Length : 5\r\n", b"hello")),
    good("TE chunked", chunked(FIVE), method=P, has=(b"hello",)),
    good("TE in capitals", post(b"TRANSFER-ENCODING: CHUNKED\r\n", FIVE), method=P),
    good("TE after a tab", post(b"Transfer-Encoding:\tchunked\r\n", FIVE), method=P),
    good("TE GET with chunks", get(b"Transfer-Encoding: chunked\r\n") + FIVE, has=(b"hello",)),
    *(
        bad(
            f"TE {name}",
            post(b"Transfer-Encoding: " + value + END, b"0\r\n\r\n" + SMUGGLED),
            status=REFUSED_CODING,
        )
        for name, value in (
            ("gzip", b"gzip"),
            ("identity", b"identity"),
            ("gzip then chunked", b"gzip, chunked"),
            ("chunked twice", b"chunked, chunked"),
            ("chunked then identity", b"chunked, identity"),
            ("identity then chunked", b"identity, chunked"),
            ("chunked then gzip", b"chunked, gzip"),
            ("with another letter", b"xchunked"),
            ("cut", b"chunke"),
            ("with a parameter", b"chunked;a=b"),
            ("quoted", b'"chunked"'),
            ("with a comma", b"chunked,"),
            ("after a comma", b",chunked"),
            ("with vertical tab", b"\x0bchunked"),
            ("with NUL", b"chunked\x00"),
            ("with high bytes", b"chunked\xa0"),
            ("with long s", "chunꞰed".encode()),
            ("empty", b""),
        )
    ),
    bad("two TE", post(b"Transfer-Encoding: chunked\r\n" * 2, FIVE), status=REFUSED_CODING),
    bad(
        "two TE that differ",
        post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", FIVE),
        status=REFUSED_CODING,
    ),
    bad("TE with space before colon", post(b"Transfer-Encoding : chunked\r\n", FIVE)),
    bad("TE folded", post(b"Transfer-Encoding:\r\n chunked\r\n", FIVE)),
    bad(
        "TE on HTTP/1.0",
        b"POST / HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n" + FIVE,
        status=REFUSED_CODING,
    ),
    bad("TE as a folded line", post(b"X-A: b\r\n Transfer-Encoding: chunked\r\n", FIVE)),
    bad(
        "CL and TE at the API",
        b"POST /v1/account HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n" + FIVE,
        method=P,
    ),
    bad(
        "visitor ends in the body",
        post(b"Content-Length: 10\r\n", b"hello"),
        ends=True,
        absent=True,
        status={400, 502},
        closed=None,
    ),
    bad(
        "visitor ends in a chunk",
        chunked(b"a\r\nhello"),
        ends=True,
        absent=True,
        status={400, 502},
        closed=None,
    ),
    bad("visitor ends in the head", b"GET / HTTP/1.1\r\nHost: cor", ends=True, absent=True),
)

# RFC 9112 section 7.1.
CHUNKS = (
    good(
        "chunk size in upper case",
        chunked(b"A\r\n0123456789\r\n0\r\n\r\n"),
        method=P,
        has=(b"0123456789",),
    ),
    good("chunk size with zeros", chunked(b"0005\r\nhello\r\n000\r\n\r\n"), method=P),
    good("chunks byte by byte", *(bytes((byte,)) for byte in chunked(FIVE)), method=P),
    good(
        "chunk extension",
        chunked(b"5;secret-extension\r\nhello\r\n0;x=y\r\n\r\n"),
        method=P,
        has=(b"hello",),
        lacks=(b"secret-extension",),
    ),
    good("chunk extension quoted", chunked(b'5;a="b c";d\r\nhello\r\n0\r\n\r\n'), method=P),
    good("no chunk at all", chunked(b"0\r\n\r\n"), method=P),
    good("trailer", chunked(b"5\r\nhello\r\n0\r\nX-Check: sum\r\n\r\n"), method=P),
    good(
        "trailer of a length",
        chunked(b"0\r\nContent-Length: 44\r\n\r\n"),
        method=P,
        lacks=(b"content-length: 44",),
        status={200, 400},
    ),
    good(
        "trailer of a host",
        chunked(b"0\r\nHost: evil.test\r\n\r\n"),
        method=P,
        lacks=(b"evil.test",),
        status={200, 400},
    ),
    good(
        "trailer of an authorisation",
        chunked(b"0\r\nAuthorization: Basic ZXZpbA==\r\n\r\n"),
        method=P,
        lacks=(b"zxzpba==",),
        status={200, 400},
    ),
    *(
        bad(f"chunk {name}", chunked(body), method=P)
        for name, body in (
            ("size with plus", b"+5\r\nhello\r\n0\r\n\r\n"),
            ("size negative", b"-5\r\nhello\r\n0\r\n\r\n"),
            ("size with 0x", b"0x5\r\nhello\r\n0\r\n\r\n"),
            ("size with underscore", b"0_5\r\nhello\r\n0\r\n\r\n"),
            ("size after a space", b" 5\r\nhello\r\n0\r\n\r\n"),
            ("size before a space", b"5 \r\nhello\r\n0\r\n\r\n"),
            ("size before a tab", b"5\t\r\nhello\r\n0\r\n\r\n"),
            ("size empty", b"\r\nhello\r\n0\r\n\r\n"),
            ("size of no digits", b"g\r\nhello\r\n0\r\n\r\n"),
            ("size beyond 64 bits", b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
            ("size of many zeros", b"0" * 400 + b"5\r\nhello\r\n0\r\n\r\n"),
            ("size with NUL", b"5\x00\r\nhello\r\n0\r\n\r\n"),
            ("size list", b"5,5\r\nhello\r\n0\r\n\r\n"),
            ("size line ends in LF", b"5\nhello\r\n0\r\n\r\n"),
            ("size line ends in CR", b"5\rhello\r\n0\r\n\r\n"),
            ("data ends in LF", b"5\r\nhello\n0\r\n\r\n"),
            ("data without an end", b"5\r\nhello0\r\n\r\n"),
            ("data too long", b"5\r\nhello!\r\n0\r\n\r\n"),
            ("data followed by a space", b"5\r\nhello \r\n0\r\n\r\n"),
            ("data too short", b"5\r\nhell\r\n0\r\n\r\n"),
            ("last one ends in LF", b"0\n\n"),
            ("extension with LF", b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
            ("extension with CR", b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
            ("extension with NUL", b"5;a\x00b\r\nhello\r\n0\r\n\r\n"),
            ("extension too long", b"5;" + b"a" * 20000 + b"\r\nhello\r\n0\r\n\r\n"),
            ("trailer with NUL", b"0\r\nX: a\x00b\r\n\r\n"),
            ("trailer with a bare CR", b"0\r\nX: a\rb\r\n\r\n"),
            ("trailer ends in LF", b"0\r\nX: a\n\r\n"),
            ("trailer folded", b"0\r\nX: a\r\n b\r\n\r\n"),
            ("trailer without colon", b"0\r\n" + SMUGGLED),
            ("trailer with space before colon", b"0\r\nX : a\r\n\r\n"),
        )
    ),
    bad(
        "trailers too long",
        chunked(b"0\r\nX: " + b"a" * 70000 + b"\r\n\r\n"),
        method=P,
        status={400, 431},
    ),
    bad("endless chunk size line", chunked(b"5;" + b"a" * 70000), method=P),
)

# RFC 9112 sections 2.2 and 5.
FIELDS = (
    bad("LF ends every line", b"GET / HTTP/1.1\nHost: corpus.localhost\n\n"),
    bad("LF ends the request line", b"GET / HTTP/1.1\n" + H + END),
    bad("LF ends a field", get(b"X-A: b\n")),
    bad("LF ends the head", b"GET / HTTP/1.1\r\n" + H + b"\n"),
    bad("LF hides a field", get(b"X-A: b\nContent-Length: 44\r\n") + SMUGGLED),
    bad("CR ends every line", b"GET / HTTP/1.1\rHost: corpus.localhost\r\r\r\n\r\n"),
    bad("CR in a value", get(b"X-A: b\rc\r\n")),
    bad("CR hides a field", get(b"X-A: b\rTransfer-Encoding: chunked\r\n")),
    bad("CR CR LF", get(b"X-A: b\r\r\n")),
    bad("NUL in a value", get(b"X-A: b\x00c\r\n")),
    bad("NUL in a name", get(b"X\x00A: b\r\n")),
    bad("NUL at the start", b"\x00" + get(b"")),
    bad("folded with a space", get(b"X-A: b\r\n c\r\n")),
    bad("folded with a tab", get(b"X-A: b\r\n\tc\r\n")),
    bad("folded to nothing", get(b"X-A: b\r\n \r\n")),
    bad("folded first field", b"GET / HTTP/1.1\r\n X-A: b\r\n" + H + END),
    bad("folded host", b"GET / HTTP/1.1\r\nHost:\r\n corpus.localhost\r\n\r\n"),
    bad("no colon", get(b"X-A b\r\n")),
    bad("empty name", get(b": b\r\n")),
    bad("space before colon", get(b"X-A : b\r\n")),
    bad("tab before colon", get(b"X-A\t: b\r\n")),
    bad("space in a name", get(b"X A: b\r\n")),
    bad("name with parentheses", get(b"X(A): b\r\n")),
    bad("name with a slash", get(b"X/A: b\r\n")),
    bad("name with at", get(b"X@A: b\r\n")),
    bad("name with braces", get(b"{X}: b\r\n")),
    bad("name with quotes", get(b'"X": b\r\n')),
    bad("name with high bytes", get(b"X-\xe9: b\r\n")),
    bad("name with DEL", get(b"X\x7f: b\r\n")),
    good("name of all token characters", get(b"!#$%&'*+-.^_`|~09az: b\r\n")),
    good("empty value", get(b"X-A:\r\n"), has=(b"x-a:",)),
    good("value of white space", get(b"X-A: \t \r\n")),
    good("tab in a value", get(b"X-A: b\tc\r\n"), has=(b"x-a: b\tc",)),
    good("high bytes in a value", get(b"X-A: caf\xe9 \xff\r\n"), has=(b"x-a: caf\xe9 \xff",)),
    good("no space after colon", get(b"X-A:b\r\n"), has=(b"x-a: b",)),
    good("same field twice", get(b"X-A: b\r\nX-A: c\r\n"), has=(b"b", b"c")),
    either("BEL in a value", get(b"X-A: b\x07c\r\n"), status={200, 400}),
    either("DEL in a value", get(b"X-A: b\x7fc\r\n"), status={200, 400}),
    either("ESC in a value", get(b"X-A: \x1b[31m\r\n"), status={200, 400}),
    either(
        "underscore twin of TE",
        post(b"Transfer_Encoding: chunked\r\n", b""),
        status={200, 400},
        method=P,
    ),
    good("CRLF before the request", b"\r\n" + get(b"")),
    good("CRLF after a body", post(b"Content-Length: 5\r\n", b"hello"), b"\r\n", method=P),
    bad("LF before the request", b"\n" + get(b"")),
    bad("CR before the request", b"\r" + get(b"")),
    good("CRLF in two pieces", b"GET / HTTP/1.1\r", b"\n" + H + b"\r", b"\n"),
)

# RFC 9112 section 3.2, RFC 9110 sections 4.2 and 7.2.
HOSTS = (
    good("host in capitals", hosted(b"CORPUS.LocalHost")),
    good("host with a port", hosted(b"corpus.localhost:8080")),
    good("host with a trailing dot", hosted(b"corpus.localhost.")),
    good("host between white space", hosted(b" \tcorpus.localhost \t")),
    good("host last", b"GET / HTTP/1.1\r\nX-A: b\r\n" + H + END),
    bad("no host", b"GET / HTTP/1.1\r\n\r\n"),
    bad("two hosts", b"GET / HTTP/1.1\r\n" + H + H + END),
    bad("two hosts that differ", b"GET / HTTP/1.1\r\n" + H + b"Host: evil.test\r\n\r\n"),
    bad("two hosts in other cases", b"GET / HTTP/1.1\r\n" + H + b"hOST: evil.test\r\n\r\n"),
    bad("two hosts at the API", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: 127.0.0.1\r\n\r\n"),
    bad("two hosts on HTTP/1.0", b"GET / HTTP/1.0\r\n" + H + H + END),
    *(
        bad(f"host {name}", hosted(value))
        for name, value in (
            ("empty", b""),
            ("with a space", b"corpus localhost"),
            ("with a tab", b"corpus\tlocalhost"),
            ("list", b"corpus.localhost, evil.test"),
            ("with a slash", b"corpus.localhost/"),
            ("with a path", b"corpus.localhost/evil"),
            ("with a backslash", b"corpus.localhost\\evil"),
            ("with a user", b"user@corpus.localhost"),
            ("with a question mark", b"corpus.localhost?x"),
            ("with a fragment", b"corpus.localhost#x"),
            ("as a URL", b"http://corpus.localhost"),
            ("with a port of letters", b"corpus.localhost:abc"),
            ("with a port too large", b"corpus.localhost:99999"),
            ("with a negative port", b"corpus.localhost:-1"),
            ("with two ports", b"corpus.localhost:80:80"),
            ("with high bytes", b"corp\xc3\xbcs.localhost"),
            ("with NUL", b"corpus.localhost\x00.evil.test"),
            ("quoted", b'"corpus.localhost"'),
            ("with angle brackets", b"<corpus.localhost>"),
            ("with an open bracket", b"[::1"),
            ("with half a bracket", b"::1]"),
            ("of only a port", b":80"),
        )
    ),
    either("host with an empty port", hosted(b"corpus.localhost:"), status={200, 400}),
    *(
        Request(
            name=f"host {name}",
            pieces=(hosted(value),),
            answers=(frozenset(statuses),),
            forwarded=0,
        )
        for name, value, statuses in (
            ("unknown", b"nobody.localhost", {404}),
            ("deeper", b"deep.corpus.localhost", {404}),
            ("of another domain", b"corpus.evil.test", {404}),
            ("with a prefix", b"xcorpus.localhost", {404}),
            ("of the bare domain", b"localhost", {404}),
            ("with two dots", b"corpus..localhost", {400, 404}),
            ("with two trailing dots", b"corpus.localhost..", {400, 404}),
            ("with a leading dot", b".corpus.localhost", {400, 404}),
            ("per cent encoded", b"%63orpus.localhost", {400, 404}),
            ("wildcard", b"*.localhost", {400, 404}),
            ("IPv6", b"[::1]:8080", {404}),
            ("of 300 characters", b"a" * 300 + b".localhost", {400, 404}),
        )
    ),
    good(
        "absolute form",
        b"GET http://corpus.localhost/abs?x=1 HTTP/1.1\r\n" + H + END,
        has=(b"get /abs?x=1 http/1.1",),
    ),
    good(
        "absolute form beats Host",
        b"GET http://corpus.localhost/abs HTTP/1.1\r\nHost: nobody.localhost\r\n\r\n",
        has=(b"get /abs http/1.1",),
        lacks=(b"nobody.localhost",),
    ),
    good(
        "absolute form without path",
        b"GET http://corpus.localhost HTTP/1.1\r\n" + H + END,
        has=(b"get / http/1.1",),
    ),
    good(
        "absolute form with query only",
        b"GET http://corpus.localhost?x=1 HTTP/1.1\r\n" + H + END,
        has=(b"get /?x=1 http/1.1",),
    ),
    good(
        "absolute form in capitals",
        b"GET HTTP://CORPUS.LOCALHOST/a HTTP/1.1\r\n" + H + END,
        has=(b"get /a http/1.1",),
    ),
    good(
        "absolute form with a port",
        b"GET http://corpus.localhost:80/a HTTP/1.1\r\n" + H + END,
        has=(b"get /a http/1.1",),
    ),
    bad("absolute form without Host", b"GET http://corpus.localhost/ HTTP/1.1\r\n\r\n"),
    bad(
        "absolute form of nobody",
        b"GET http://nobody.localhost/ HTTP/1.1\r\n" + H + END,
        status=404,
        closed=None,
    ),
    bad("absolute form with a user", b"GET http://u:p@corpus.localhost/ HTTP/1.1\r\n" + H + END),
    bad("absolute form of no authority", b"GET http:///a HTTP/1.1\r\n" + H + END),
    bad(
        "absolute form of ftp",
        b"GET ftp://corpus.localhost/ HTTP/1.1\r\n" + H + END,
        status={400, 404, 421},
        closed=None,
    ),
    bad("absolute form with a fragment", b"GET http://corpus.localhost/#x HTTP/1.1\r\n" + H + END),
    either(
        "absolute form of https",
        b"GET https://corpus.localhost/ HTTP/1.1\r\n" + H + END,
        status={200, 400, 404, 421},
    ),
    bad("authority form", b"GET corpus.localhost:80 HTTP/1.1\r\n" + H + END),
    bad(
        "CONNECT",
        b"CONNECT corpus.localhost:80 HTTP/1.1\r\nHost: corpus.localhost:80\r\n\r\n",
        status={400, 405, 501},
    ),
    bad("CONNECT with a path", b"CONNECT / HTTP/1.1\r\n" + H + END, status={400, 405, 501}),
    bad(
        "CONNECT and a request behind it",
        b"CONNECT corpus.localhost:80 HTTP/1.1\r\n" + H + END + SMUGGLED,
        status={400, 405, 501},
    ),
    either("asterisk", b"OPTIONS * HTTP/1.1\r\n" + H + END, status={200, 204}, method=b"OPTIONS"),
    bad("asterisk of a GET", b"GET * HTTP/1.1\r\n" + H + END),
    good(
        "transport endpoint's path on a tunnel",
        get(b"", b"/v1/tunnel/corpus/ws-endpoint?t=x"),
        has=(b"/v1/tunnel/corpus/ws-endpoint?t=x",),
    ),
    good("API path on a tunnel", get(b"", b"/v1/tunnel"), has=(b"get /v1/tunnel http/1.1",)),
)

# RFC 9112 section 3, RFC 9110 sections 2.5 and 9.1.
LINES = (
    *(
        good(f"path {name}", get(b"", path), has=(b"get " + path.lower() + b" http/1.1",))
        for name, path in (
            ("with two slashes", b"//evil.test/a"),
            ("with dots", b"/a/../b/./c"),
            ("with an encoded slash", b"/a%2Fb"),
            ("with an encoded NUL", b"/a%00b"),
            ("with an encoded CRLF", b"/a%0d%0aX:%20y"),
            ("with a broken escape", b"/a%zz%"),
            ("with two question marks", b"/a?b?c"),
            ("with a semicolon", b"/a;b=c?d;e"),
            ("with a colon", b"/a:80"),
            ("with a pipe and braces", b"/a|b{c}?[d]^`"),
            ("with a URL", b"/http://evil.test/"),
        )
    ),
    good("target with UTF-8", get(b"", "/é".encode()), has=(b"get /%c3%a9 http/1.1",)),
    good("target with latin-1", get(b"", b"/\xe9"), has=(b"get /%e9 http/1.1",)),
    *(
        bad(f"target {name}", b"GET " + target + b" HTTP/1.1\r\n" + H + END)
        for name, target in (
            ("empty", b""),
            ("without slash", b"foo"),
            ("of a query", b"?a=b"),
            ("with a space", b"/a b"),
            ("with a tab", b"/a\tb"),
            ("with a fragment", b"/a#b"),
            ("of a fragment", b"#"),
            ("with NUL", b"/a\x00b"),
            ("with a bare CR", b"/a\rb"),
            ("with DEL", b"/a\x7fb"),
            ("with ESC", b"/\x1b[31m"),
            ("with an injected version", b"/ HTTP/1.1 x"),
        )
    ),
    *(
        bad(f"version {name}", b"GET / " + version + END + H + END, status=REFUSED_VERSION)
        for name, version in (
            ("0.9", b"HTTP/0.9"),
            ("1.2", b"HTTP/1.2"),
            ("1.10", b"HTTP/1.10"),
            ("1.1.1", b"HTTP/1.1.1"),
            ("01.1", b"HTTP/01.1"),
            ("2.0", b"HTTP/2.0"),
            ("2", b"HTTP/2"),
            ("3.0", b"HTTP/3.0"),
            ("without dot", b"HTTP/11"),
            ("cut", b"HTTP/1."),
            ("without number", b"HTTP/"),
            ("in lower case", b"http/1.1"),
            ("of another protocol", b"ICY/1.1"),
            ("with letters behind", b"HTTP/1.1x"),
            ("with a space behind", b"HTTP/1.1 "),
            ("of other digits", "HTTP/１.1".encode()),
        )
    ),
    bad("no version", b"GET /\r\n" + H + END, status=REFUSED_VERSION),
    bad("HTTP/0.9 request", b"GET /\r\n\r\n", status=REFUSED_VERSION),
    bad("method only", b"GET\r\n" + H + END),
    bad("two spaces before the target", b"GET  / HTTP/1.1\r\n" + H + END),
    bad("two spaces before the version", b"GET /  HTTP/1.1\r\n" + H + END),
    bad("tabs between", b"GET\t/\tHTTP/1.1\r\n" + H + END),
    bad("space before the method", b" " + get(b"")),
    bad("no method", b" / HTTP/1.1\r\n" + H + END),
    bad("method with parentheses", b"GE(T / HTTP/1.1\r\n" + H + END),
    bad("method with a colon", b"GET: / HTTP/1.1\r\n" + H + END),
    bad("method with NUL", b"G\x00T / HTTP/1.1\r\n" + H + END),
    bad("method with high bytes", b"G\xcbT / HTTP/1.1\r\n" + H + END),
    bad("a response", b"HTTP/1.1 200 OK\r\n" + H + END),
    bad("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", status=REFUSED_VERSION),
    bad("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    bad("SSH hello", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    bad("PROXY line", b"PROXY TCP4 6.6.6.6 127.0.0.1 1 2\r\n" + get(b"")),
    either("method in lower case", b"get / HTTP/1.1\r\n" + H + END, status={200, 400, 405, 501}),
    good(
        "method of one's own",
        b"PURGE / HTTP/1.1\r\n" + H + END,
        method=b"PURGE",
        has=(b"purge / http/1.1",),
    ),
    good("method with a hyphen", b"M-SEARCH / HTTP/1.1\r\n" + H + END, method=b"M-SEARCH"),
    good("OPTIONS with a path", b"OPTIONS /a HTTP/1.1\r\n" + H + END, method=b"OPTIONS"),
    good(
        "DELETE with a body",
        b"DELETE /a HTTP/1.1\r\n" + H + b"Content-Length: 5\r\n\r\nhello",
        method=b"DELETE",
        has=(b"hello",),
    ),
    good("HEAD", b"HEAD /head HTTP/1.1\r\n" + H + END, method=b"HEAD"),
    either("TRACE", b"TRACE / HTTP/1.1\r\n" + H + END, status={200, 405, 501}, method=b"TRACE"),
)

# HTTP/1.0 visitors: no chunks, no interim answers (RFC 9112 section 9.3, RFC 9110 section 15.2).
OLD = (
    good("1.0 with a host", get(b"", version=b"HTTP/1.0"), closed=True),
    good(
        "1.0 that would stay", get(b"Connection: keep-alive\r\n", version=b"HTTP/1.0"), closed=None
    ),
    good(
        "1.0 with a body",
        b"POST / HTTP/1.0\r\n" + H + b"Content-Length: 5\r\n\r\nhello",
        method=P,
        closed=True,
        has=(b"hello",),
    ),
    good(
        "1.0 that expects",
        b"POST / HTTP/1.0\r\n" + H + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        method=P,
        closed=True,
        interim=False,
    ),
    good(
        "1.0 absolute form",
        b"GET http://corpus.localhost/a HTTP/1.0\r\n\r\n",
        closed=True,
        has=(b"get /a http/1.1",),
    ),
    good(
        "1.0 that would upgrade",
        get(b"Connection: Upgrade\r\nUpgrade: websocket\r\n", version=b"HTTP/1.0"),
        closed=True,
        lacks=(b"upgrade: websocket",),
    ),
    bad("1.0 without a host", b"GET / HTTP/1.0\r\n\r\n", status={400, 404}),
)

WEBSOCKET = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
UPGRADED = (b"upgrade: websocket",)

# RFC 9110 sections 7.6 to 7.8 and 10.1.1. The target does not agree to any upgrade here.
OPTIONS = (
    good(
        "expects 100",
        post(b"Expect: 100-continue\r\nContent-Length: 5\r\n", b""),
        b"hello",
        method=P,
        interim=True,
        has=(b"hello",),
    ),
    good(
        "expects 100 in capitals",
        post(b"Expect: 100-Continue\r\nContent-Length: 5\r\n", b""),
        b"hello",
        method=P,
        interim=True,
    ),
    good(
        "expects 100 with chunks",
        post(b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n", b""),
        FIVE,
        method=P,
        interim=True,
    ),
    good(
        "expects 100 but does not wait",
        post(b"Expect: 100-continue\r\nContent-Length: 5\r\n", b"hello"),
        method=P,
    ),
    good("expects 100 without a body", get(b"Expect: 100-continue\r\n")),
    bad("expects something else", get(b"Expect: 200-ok\r\n"), status=417, closed=None),
    bad("expects two things", get(b"Expect: 100-continue, other\r\n"), status=417, closed=None),
    bad(
        "expects with a body",
        post(b"Expect: tea\r\nContent-Length: 44\r\n", b""),
        status=417,
        method=P,
        closed=None,
    ),
    bad(
        "expects 100 of nobody",
        b"POST / HTTP/1.1\r\nHost: nobody.localhost\r\nExpect: 100-continue\r\n"
        b"Content-Length: 5\r\n\r\n",
        status=404,
        method=P,
        closed=None,
    ),
    good("websocket that the target declines", get(WEBSOCKET), closed=None, has=UPGRADED),
    good(
        "websocket of another version",
        get(WEBSOCKET.replace(b"13", b"8")),
        closed=None,
        status={200, 400, 426},
    ),
    good("websocket in capitals", get(WEBSOCKET.replace(b"websocket", b"WebSocket")), closed=None),
    good(
        "websocket of a POST",
        post(WEBSOCKET + b"Content-Length: 5\r\n", b"hello"),
        method=P,
        closed=None,
        lacks=UPGRADED,
        status={200, 400},
    ),
    good(
        "websocket with a body",
        get(WEBSOCKET + b"Content-Length: 5\r\n") + b"hello",
        closed=None,
        lacks=UPGRADED,
        status={200, 400},
    ),
    good(
        "websocket with chunks",
        get(WEBSOCKET + b"Transfer-Encoding: chunked\r\n") + FIVE,
        closed=None,
        lacks=UPGRADED,
        status={200, 400},
    ),
    good(
        "websocket without Connection",
        get(WEBSOCKET.replace(b"Connection: Upgrade\r\n", b"")),
        closed=None,
        lacks=UPGRADED,
    ),
    Request(
        name="websocket and a request behind it",
        pieces=(get(WEBSOCKET) + get(b"", b"/behind"),),
        answers=(frozenset({200}),),
        bodies=(b"/",),
        has=UPGRADED,
    ),
    good(
        "websocket or h2c",
        get(WEBSOCKET.replace(b": websocket", b": websocket, h2c")),
        closed=None,
        lacks=(b", h2c",),
    ),
    good(
        "h2c",
        get(
            b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
        ),
        closed=None,
        lacks=(b"upgrade: h2c", b"http2-settings"),
    ),
    good(
        "h2c settings that Connection does not name",
        get(b"Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"),
        closed=None,
        lacks=(b"upgrade: h2c", b"http2-settings"),
    ),
    good(
        "upgrade to TLS",
        get(b"Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n"),
        closed=None,
        lacks=(b"tls/1.0",),
    ),
    good(
        "upgrade to nothing",
        get(b"Connection: upgrade\r\n"),
        closed=None,
        lacks=(b"connection: upgrade",),
    ),
    good("Connection: close", get(b"Connection: close\r\n"), closed=True),
    good("Connection: close in a list", get(b"Connection: x-a ,, CLOSE\r\n"), closed=True),
    good("Connection names Host", get(b"Connection: keep-alive, Host\r\n"), has=(b"host: ",)),
    good(
        "Connection names Content-Length",
        post(b"Connection: Content-Length\r\nContent-Length: 5\r\n", b"hello"),
        method=P,
        has=(b"hello",),
    ),
    good(
        "Connection names Transfer-Encoding",
        post(b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n", FIVE),
        method=P,
        has=(b"hello",),
    ),
    good(
        "Connection names Authorization",
        get(b"Connection: Authorization\r\nAuthorization: Basic YTpi\r\n"),
        has=(b"ytpi",),
    ),
    good("Connection names Cookie", get(b"Connection: Cookie\r\nCookie: a=b\r\n"), has=(b"a=b",)),
    good(
        "Connection names X-Forwarded-For",
        get(b"Connection: X-Forwarded-For\r\nX-Forwarded-For: 6.6.6.6\r\n"),
        has=(b"x-forwarded-for: 127.0.0.1",),
        lacks=(b"6.6.6.6",),
    ),
    good(
        "Connection names a field",
        get(b"Connection: X-Secret\r\nX-Secret: value\r\n"),
        lacks=(b"x-secret",),
    ),
    good(
        "hop-by-hop fields",
        get(b"Keep-Alive: timeout=9\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\n"),
        lacks=(b"timeout=9", b"proxy-connection"),
    ),
)

# Fields that only a trusted proxy may set.
FORGED = (
    good(
        "forged addresses",
        get(b"X-Forwarded-For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n"),
        has=(b"x-forwarded-for: 127.0.0.1",),
        lacks=(b"6.6.6.6",),
    ),
    good(
        "forged Forwarded",
        get(b"Forwarded: for=6.6.6.6;host=evil.test;proto=https\r\n"),
        lacks=(b"6.6.6.6", b"evil.test"),
    ),
    good(
        "forged host and scheme",
        get(
            b"X-Forwarded-Host: evil.test\r\nX-Forwarded-Proto: gopher\r\n"
            b"X-Forwarded-Port: 66666\r\n"
        ),
        lacks=(b"evil.test", b"gopher", b"66666"),
    ),
    good("forged twin with underscores", get(b"X_Forwarded_For: 6.6.6.6\r\n"), lacks=(b"6.6.6.6",)),
    good("forged twin of the address", get(b"X_Real_IP: 6.6.6.6\r\n"), lacks=(b"6.6.6.6",)),
    good("forged request id", get(b"X-Request-Id: evil-request\r\n"), lacks=(b"evil-request",)),
    good("a foreign node's mark", get(b"Exposr-Via: 0123456789abcdef\r\n")),
)

# Limits: 8 KiB of request line (8,000 pass), 32 KiB of head, 200 fields pass.
LIMITS = (
    good("request line of 8,000", get(b"", b"/" + b"a" * 7986)),
    bad("request line of 9,000", get(b"", b"/" + b"a" * 8986), status=414),
    bad("request line without end", b"GET /" + b"a" * 40000, status=414),
    good("200 fields", get(b"".join(b"X-%d: y\r\n" % n for n in range(199))), has=(b"x-198: y",)),
    good("field of 30 KiB", get(b"X-A: " + b"b" * 30720 + END)),
    bad("head of 33 KiB", get(b"X-A: " + b"b" * 33792 + END), status=431),
    bad("head of 33 KiB in small fields", get(b"X-A: 0123456789abcdef\r\n" * 1500), status=431),
    bad("head without end", b"GET / HTTP/1.1\r\n" + H + b"X-A: " + b"b" * 70000, status=431),
    bad("name without end", b"GET / HTTP/1.1\r\n" + H + b"b" * 70000, status={400, 431}),
    either(
        "method of 1,000",
        b"A" * 1000 + b" / HTTP/1.1\r\n" + H + END,
        status={200, 400, 405, 501},
        method=b"A" * 1000,
    ),
    bad("head that stops", b"GET / HTTP/1.1\r\nHost: corpus", status=408, slow=True),
    bad("request line that stops", b"GET / HT", status=408, slow=True),
)


def several(
    name: str, *pieces: bytes, answers: tuple[int | set[int], ...], bodies: tuple[bytes, ...] = (),
    closed: bool | None = False, forwarded: int | None = None, methods: tuple[bytes, ...] = (),
    lacks: tuple[bytes, ...] = (),
) -> Request:  # fmt: skip
    """Several requests on one connection, without waiting for answers."""
    return Request(
        name=name,
        pieces=pieces,
        answers=tuple(frozenset({a} if isinstance(a, int) else a) for a in answers),
        bodies=bodies,
        closed=closed,
        forwarded=forwarded,
        methods=methods,
        lacks=lacks,
    )


# RFC 9112 section 9.3.2: answered in order, and nothing after a close.
PIPELINES = (
    several(
        "three requests",
        get(b"", b"/1") + get(b"", b"/2") + get(b"", b"/3"),
        answers=(200, 200, 200),
        bodies=(b"/1", b"/2", b"/3"),
        forwarded=3,
    ),
    several(
        "ten requests in odd pieces",
        (get(b"", b"/1") * 10)[:77],
        (get(b"", b"/1") * 10)[77:],
        answers=(200,) * 10,
        forwarded=10,
    ),
    several(
        "a body, then a request",
        post(b"Content-Length: 5\r\n", b"hello", b"/1") + get(b"", b"/2"),
        answers=(200, 200),
        bodies=(b"/1", b"/2"),
        methods=(P, b"GET"),
        forwarded=2,
    ),
    several(
        "chunks, then a request",
        chunked(FIVE) + get(b"", b"/2"),
        answers=(200, 200),
        bodies=(b"/", b"/2"),
        methods=(P, b"GET"),
        forwarded=2,
    ),
    several(
        "HEAD, then GET",
        b"HEAD /1 HTTP/1.1\r\n" + H + END + get(b"", b"/2"),
        answers=(200, 200),
        bodies=(b"", b"/2"),
        methods=(b"HEAD", b"GET"),
        forwarded=2,
    ),
    several(
        "a request, then a bad one",
        get(b"", b"/1") + get(b"X : y\r\n", b"/2"),
        answers=(200, 400),
        closed=True,
        forwarded=1,
    ),
    several(
        "a request, then garbage",
        get(b"", b"/1") + b"\x00\x01\x02\r\n\r\n" + SMUGGLED,
        answers=(200, 400),
        closed=True,
        forwarded=1,
        lacks=(b"/smuggled",),
    ),
    several(
        "a bad one, then a request",
        get(b"X : y\r\n") + SMUGGLED,
        answers=(400,),
        closed=True,
        forwarded=0,
        lacks=(b"/smuggled",),
    ),
    several(
        "close, then a request",
        get(b"Connection: close\r\n") + SMUGGLED,
        answers=(200,),
        closed=True,
        forwarded=1,
        lacks=(b"/smuggled",),
    ),
    several(
        "1.0, then a request",
        get(b"", version=b"HTTP/1.0") + SMUGGLED,
        answers=(200,),
        closed=True,
        forwarded=1,
        lacks=(b"/smuggled",),
    ),
    several(
        "nobody's between two",
        get(b"", b"/1") + hosted(b"nobody.localhost") + get(b"", b"/3"),
        answers=(200, 404, 200),
        forwarded=2,
    ),
    several(
        "the API's between two",
        get(b"", b"/1") + b"GET /none HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" + get(b"", b"/3"),
        answers=(200, 404, 200),
        forwarded=2,
    ),
    several(
        "CRLF between two", get(b"", b"/1") + END + get(b"", b"/2"), answers=(200, 200), forwarded=2
    ),
    several(
        "a length of zero hides nothing",
        post(b"Content-Length: 0\r\n", b"") + get(b"", b"/2"),
        answers=(200, 200),
        methods=(P, b"GET"),
        bodies=(b"/", b"/2"),
        forwarded=2,
    ),
)

REQUESTS: tuple[Request, ...] = (
    *FRAMING, *CHUNKS, *FIELDS, *HOSTS, *LINES, *OLD, *OPTIONS, *FORGED, *LIMITS, *PIPELINES,
)  # fmt: skip


WHOLE = frozenset({(200, True)})
FAILED = frozenset({(502, True)})
# Broken off in the body: told at once, or visible as a body that does not end.
BROKEN = frozenset({(502, True), (200, False)})
# Tolerated or refused, but not passed on as it was.
MENDED = frozenset({(502, True), (200, True)})
OK = b"HTTP/1.1 200 OK\r\n"
HELLO = b"Content-Length: 5\r\n\r\nhello"
CODED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
HEAD = b"HEAD {path} HTTP/1.1\r\n" + H + END
OLD_GET = b"GET {path} HTTP/1.0\r\n" + H + END
ASKS_WEBSOCKET = b"GET {path} HTTP/1.1\r\n" + H + WEBSOCKET + END


def whole(
    name: str, *pieces: bytes, body: bytes | None = b"hello", ends: str = "keep",
    status: int = 200, lacks: tuple[bytes, ...] = (), has: tuple[bytes, ...] = (),
    request: bytes = GET,
) -> Response:  # fmt: skip
    """A response that reaches the visitor complete."""
    return Response(
        name=name, pieces=pieces, outcomes=frozenset({(status, True)}), body=body, ends=ends,
        lacks=(b"injected", *lacks), has=has, request=request,
    )  # fmt: skip


def failed(
    name: str, *pieces: bytes, ends: str = "keep",
    outcomes: frozenset[tuple[int, bool]] = FAILED, lacks: tuple[bytes, ...] = (),
    request: bytes = GET,
) -> Response:  # fmt: skip
    """A response that the visitor must not take for a good one."""
    return Response(
        name=name, pieces=pieces, outcomes=outcomes, ends=ends,
        lacks=(b"injected", *lacks), request=request,
    )  # fmt: skip


# RFC 9112 sections 4 to 7, RFC 9110 section 15: what a target may do.
GOOD_RESPONSES = (
    whole("length", OK + HELLO),
    whole("length, byte by byte", *(bytes((byte,)) for byte in OK + HELLO)),
    whole("length, then close", OK + HELLO, ends="close"),
    whole("length with white space", OK + b"Content-Length: \t5 \r\n\r\nhello"),
    whole("length of zero", OK + b"Content-Length: 0\r\n\r\n", body=b""),
    whole("chunks", CODED + FIVE),
    whole("chunks, byte by byte", *(bytes((byte,)) for byte in CODED + FIVE)),
    whole("chunks in capitals", OK + b"Transfer-Encoding: Chunked\r\n\r\n" + FIVE),
    whole(
        "chunks with an extension",
        CODED + b"5;secret-ext\r\nhello\r\n0\r\n\r\n",
        lacks=(b"secret-ext",),
    ),
    whole("chunks with a trailer", CODED + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"),
    whole(
        "trailer of a length",
        CODED + b"5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n",
        lacks=(b"content-length: 9",),
    ),
    whole("until close", OK + b"\r\nhello", ends="close"),
    whole("1.0 with a length", b"HTTP/1.0 200 OK\r\n" + HELLO, ends="close"),
    whole("1.0 until close", b"HTTP/1.0 200 OK\r\n\r\nhello", ends="close"),
    whole("1.0 visitor gets no chunks", CODED + FIVE, request=OLD_GET, lacks=(b"chunked",)),
    whole(
        "1.0 visitor gets no hints",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK + HELLO,
        request=OLD_GET,
        lacks=(b" 103 ",),
    ),
    whole("empty reason", b"HTTP/1.1 200 \r\n" + HELLO),
    whole("reason of high bytes", b"HTTP/1.1 200 \xe9\r\n" + HELLO),
    whole("unknown status", b"HTTP/1.1 299 What\r\n" + HELLO, status=299),
    whole("status 599", b"HTTP/1.1 599 What\r\n" + HELLO, status=599),
    whole("204", b"HTTP/1.1 204 No Content\r\n\r\n", status=204, body=b""),
    whole(
        "304 with a length",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        status=304,
        body=b"",
    ),
    whole(
        "HEAD with a length",
        OK + b"Content-Length: 5\r\n\r\n",
        body=b"",
        request=HEAD,
        has=(b"content-length: 5",),
    ),
    whole("HEAD with chunks", CODED, body=b"", request=HEAD),
    whole("100 unasked", b"HTTP/1.1 100 Continue\r\n\r\n" + OK + HELLO),
    whole("103", b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + OK + HELLO),
    whole("ten interim answers", b"HTTP/1.1 102 Processing\r\n\r\n" * 10 + OK + HELLO),
    whole(
        "two cookies",
        OK + b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n" + HELLO,
        has=(b"set-cookie: a=1", b"set-cookie: b=2"),
    ),
    whole("high bytes in a value", OK + b"X-A: caf\xe9\r\n" + HELLO, has=(b"x-a: caf\xe9",)),
    whole("head of 60 KiB", OK + b"X-A: " + b"b" * 60000 + END + HELLO),
    whole(
        "Connection names a field",
        OK + b"Connection: X-Inner\r\nX-Inner: secret-value\r\n" + HELLO,
        lacks=(b"secret-value",),
    ),
    whole("Connection names Content-Length", OK + b"Connection: Content-Length\r\n" + HELLO),
    whole(
        "hop-by-hop fields",
        OK + b"Keep-Alive: timeout=1234\r\nProxy-Connection: x\r\n" + HELLO,
        lacks=(b"timeout=1234", b"proxy-connection"),
    ),
    whole(
        "upgrade that is only offered",
        OK + b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + HELLO,
        lacks=(b"upgrade: h2c",),
    ),
    whole(
        "websocket",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n",
        status=101,
        body=None,
        request=ASKS_WEBSOCKET,
    ),
    whole(
        "websocket declined",
        b"HTTP/1.1 426 Upgrade Required\r\n" + HELLO,
        status=426,
        request=ASKS_WEBSOCKET,
    ),
    whole(
        "early refusal of a body",
        b"HTTP/1.1 413 Too Large\r\nConnection: close\r\n" + HELLO,
        ends="close",
        status=413,
        request=b"POST {path} HTTP/1.1\r\n" + H + b"Content-Length: 1000\r\n\r\nx",
    ),
)

# Bytes that are nobody's: the visitor gets his response and nothing of what follows it.
SURPLUS_RESPONSES = (
    whole("bytes after a length", OK + HELLO + INJECTED),
    whole("bytes after a length, later", OK + HELLO, INJECTED),
    whole("bytes after a length, then close", OK + HELLO + INJECTED, ends="close"),
    whole("bytes after chunks", CODED + FIVE + INJECTED),
    whole("body of a 204", b"HTTP/1.1 204 No Content\r\n\r\n" + INJECTED, status=204, body=b""),
    whole("body of a 304", b"HTTP/1.1 304 Not Modified\r\n\r\n" + INJECTED, status=304, body=b""),
    whole("body of a HEAD", OK + b"Content-Length: 8\r\n\r\nINJECTED", request=HEAD, body=b""),
    whole("chunks of a HEAD", CODED + b"8\r\nINJECTED\r\n0\r\n\r\n", request=HEAD, body=b""),
    failed(
        "204 with a length",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 8\r\n\r\nINJECTED",
        outcomes=frozenset({(204, True), (502, True)}),
        lacks=(b"content-length: 8",),
    ),
    failed(
        "204 with chunks",
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nINJECTED\r\n0\r\n\r\n",
        outcomes=frozenset({(204, True), (502, True)}),
    ),
    failed(
        "100 with a body",
        b"HTTP/1.1 100 Continue\r\nContent-Length: 8\r\n\r\nINJECTED" + OK + HELLO,
    ),
)

# Heads that must not pass.
BAD_HEADS = (
    failed("nothing, then close", ends="close"),
    failed("nothing, then reset", ends="reset"),
    failed("half a status line", b"HTTP/1.1 2", ends="close"),
    failed("half a head", OK + b"Content-Le", ends="close"),
    failed("half a head, then reset", OK + b"Content-Le", ends="reset"),
    failed("head without its last line", OK + b"Content-Length: 5\r\n", ends="close"),
    failed("interim answer only", b"HTTP/1.1 100 Continue\r\n\r\n", ends="close"),
    failed("garbage", b"\x00\x01\x02\x03\r\n\r\n" + INJECTED),
    failed("SSH", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    *(
        failed(f"status line {name}", line + END + HELLO)
        for name, line in (
            ("of two digits", b"HTTP/1.1 20 OK"),
            ("of four digits", b"HTTP/1.1 2000 OK"),
            ("of letters", b"HTTP/1.1 abc OK"),
            ("negative", b"HTTP/1.1 -20 OK"),
            ("below 100", b"HTTP/1.1 099 OK"),
            ("of 600", b"HTTP/1.1 600 OK"),
            ("of zero", b"HTTP/1.1 000 OK"),
            ("with two spaces", b"HTTP/1.1  200 OK"),
            ("of ICY", b"ICY 200 OK"),
            ("of HTTP/2", b"HTTP/2 200 OK"),
            ("of HTTP/1.2", b"HTTP/1.2 200 OK"),
            ("in lower case", b"http/1.1 200 OK"),
            ("without version", b"200 OK"),
            ("after a space", b" HTTP/1.1 200 OK"),
            ("with NUL", b"HTTP/1.1 200 O\x00K"),
            ("with a bare CR", b"HTTP/1.1 200 O\rK"),
        )
    ),
    failed("no space behind the status", b"HTTP/1.1 200\r\n" + HELLO, outcomes=MENDED),
    *(
        failed(f"response {name}", OK + fields + HELLO)
        for name, fields in (
            ("CL and TE", b"Transfer-Encoding: chunked\r\n"),
            ("two CL that differ", b"Content-Length: 4\r\n"),
            ("two CL that agree", b"Content-Length: 5\r\n"),
            ("NUL in a value", b"X-A: b\x00c\r\n"),
            ("CR in a value", b"X-A: b\rSet-Cookie: evil=1\r\n"),
            ("name empty", b": b\r\n"),
            ("name with a space", b"X A: b\r\n"),
            ("name with high bytes", b"X-\xe9: b\r\n"),
            ("name with NUL", b"X\x00A: b\r\n"),
            ("without colon", b"X-A b\r\n"),
            ("first field folded", b" X-A: b\r\n"),
        )
    ),
    failed(
        "response folded", OK + b"X-A: b\r\n c\r\n" + HELLO, outcomes=MENDED, lacks=(b"\r\n c",)
    ),
    failed(
        "response space before colon",
        OK + b"X-A : b\r\n" + HELLO,
        outcomes=MENDED,
        lacks=(b"x-a :",),
    ),
    failed("response LF ends a field", OK + b"X-A: b\n" + HELLO),
    failed(
        "response LF ends every line", b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", ends="close"
    ),
    *(
        failed(
            f"response CL {name}", OK + b"Content-Length: " + value + b"\r\n\r\nhello", ends="close"
        )
        for name, value in (
            ("list", b"5, 5"),
            ("list that differs", b"5, 6"),
            ("with plus", b"+5"),
            ("negative", b"-5"),
            ("of letters", b"abc"),
            ("hexadecimal", b"0x5"),
            ("with underscore", b"0_5"),
            ("with inner space", b"5 5"),
            ("empty", b""),
            ("of 5,000 digits", b"9" * 5000),
        )
    ),
    *(
        failed(
            f"response TE {name}",
            OK + b"Transfer-Encoding: " + value + END + END + FIVE,
            ends="close",
        )
        for name, value in (
            ("gzip", b"gzip"),
            ("identity", b"identity"),
            ("chunked twice", b"chunked, chunked"),
            ("gzip then chunked", b"gzip, chunked"),
            ("chunked then gzip", b"chunked, gzip"),
            ("with a letter more", b"xchunked"),
            ("with vertical tab", b"\x0bchunked"),
            ("empty", b""),
        )
    ),
    failed("response two TE", OK + b"Transfer-Encoding: chunked\r\n" * 2 + END + FIVE),
    failed(
        "response TE on 1.0",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + FIVE,
        ends="close",
    ),
    failed("head of 70 KiB", OK + b"X-A: " + b"b" * 71680 + END + HELLO),
    failed("head without end", OK + b"X-A: " + b"b" * 200000),
    failed("40 interim answers", b"HTTP/1.1 102 Processing\r\n\r\n" * 40 + OK + HELLO),
    failed("interim answers without end", b"HTTP/1.1 100 Continue\r\n\r\n" * 5000),
    failed(
        "101 unasked",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\n\r\nINJECTED",
    ),
    failed(
        "101 without Upgrade",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\nINJECTED",
        request=ASKS_WEBSOCKET,
    ),
    failed(
        "101 to something else",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nINJECTED",
        request=ASKS_WEBSOCKET,
    ),
)

# Bodies that break off: never a complete-looking 200.
BAD_BODIES = (
    failed(
        "length, cut short", OK + b"Content-Length: 10\r\n\r\nhello", ends="close", outcomes=BROKEN
    ),
    failed("length, reset", OK + b"Content-Length: 10\r\n\r\nhello", ends="reset", outcomes=BROKEN),
    failed(
        "length, no body at all", OK + b"Content-Length: 10\r\n\r\n", ends="close", outcomes=BROKEN
    ),
    failed("chunks, no last one", CODED + b"5\r\nhello\r\n", ends="close", outcomes=BROKEN),
    failed("chunks, cut in a chunk", CODED + b"a\r\nhello", ends="close", outcomes=BROKEN),
    failed("chunks, cut in a size", CODED + b"5\r\nhello\r\n1", ends="close", outcomes=BROKEN),
    failed("chunks, cut in the end", CODED + b"5\r\nhello\r\n0\r\n", ends="close", outcomes=BROKEN),
    failed("chunks, reset", CODED + b"5\r\nhello\r\n", ends="reset", outcomes=BROKEN),
    *(
        failed(f"chunk {name}", CODED + b"5\r\nhello\r\n" + rest, outcomes=BROKEN)
        for name, rest in (
            ("of no number", b"xyz\r\nINJECTED\r\n0\r\n\r\n"),
            ("with plus", b"+8\r\nINJECTED\r\n0\r\n\r\n"),
            ("negative", b"-8\r\nINJECTED\r\n0\r\n\r\n"),
            ("with 0x", b"0x8\r\nINJECTED\r\n0\r\n\r\n"),
            ("after a space", b" 8\r\nINJECTED\r\n0\r\n\r\n"),
            ("with an empty size", b"\r\nINJECTED\r\n0\r\n\r\n"),
            ("with a huge size", b"10000000000000008\r\nINJECTED\r\n0\r\n\r\n"),
            ("whose size ends in LF", b"8\nINJECTED\r\n0\r\n\r\n"),
            ("with a long extension", b"8;" + b"a" * 20000 + b"\r\nINJECTED\r\n0\r\n\r\n"),
        )
    ),
    failed("chunk longer than its size", CODED + b"5\r\nhello!\r\n0\r\n\r\n", outcomes=BROKEN),
    failed("chunk whose data ends in LF", CODED + b"5\r\nhello\n0\r\n\r\n", outcomes=BROKEN),
    failed("bad trailer", CODED + b"5\r\nhello\r\n0\r\nX : INJECTED\r\n\r\n", outcomes=BROKEN),
    failed(
        "trailer with NUL", CODED + b"5\r\nhello\r\n0\r\nX: \x00INJECTED\r\n\r\n", outcomes=BROKEN
    ),
    failed("trailers without end", CODED + b"0\r\nX: " + b"a" * 200000, outcomes=BROKEN),
)

RESPONSES: tuple[Response, ...] = (
    *GOOD_RESPONSES,
    *(
        replace(entry, dropped=entry.outcomes != MENDED)
        for entry in (*SURPLUS_RESPONSES, *BAD_HEADS, *BAD_BODIES)
    ),
)
