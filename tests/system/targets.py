"""What stands behind the tunnel in the traffic and fault tests: targets that do one thing each.

Every function here is a ``serve`` of :class:`tests.system.harness.Target`: it
gets a connection and returns when it is done with it. Classes are targets with
a memory, whose ``serve`` is given to ``Target`` in the same way.
"""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.system.harness import Target, Visitor
from tests.system.websockets import accept

#: What bodies are written and read in: not a multiple of anything of ours.
PIECE = 100_003
#: The same bytes for everybody; where a body is cut or shifted, the hash differs.
NOISE = bytes((i * i + (i >> 8)) & 255 for i in range(PIECE))
PAGE = b"<h1>hello</h1>"


def pieces(size: int) -> Iterator[bytes]:
    """A body of so many bytes."""
    whole, rest = divmod(size, PIECE)
    for _ in range(whole):
        yield NOISE
    if rest:
        yield NOISE[:rest]


def digest_of(size: int) -> str:
    """The hash of the body of so many bytes."""
    digest = hashlib.sha256()
    for piece in pieces(size):
        digest.update(piece)
    return digest.hexdigest()


def send_body(connection: Visitor, size: int, chunked: bool) -> None:
    """Write the body of so many bytes."""
    for piece in pieces(size):
        connection.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
    if chunked:
        connection.send(b"0\r\n\r\n")


def read_body(connection: Visitor, fields: dict[bytes, bytes]) -> Iterator[bytes]:
    """The pieces of a body as they come, by the fields that tell its length."""
    if fields.get(b"transfer-encoding") == b"chunked":
        while size := int(connection.read_until(b"\r\n"), 16):
            yield connection.read(size)
            assert connection.read(2) == b"\r\n"
        assert connection.read(2) == b"\r\n"
        return
    left = int(fields.get(b"content-length", b"0"))
    while left:
        piece = connection.read(min(left, 1 << 17))
        left -= len(piece)
        yield piece


@dataclass(slots=True)
class Request:
    """A request's head as the target got it: field names in lower case."""

    method: bytes
    path: bytes
    head: bytes
    fields: dict[bytes, bytes] = field(default_factory=dict)


def read_request(connection: Visitor) -> Request:
    """The next request's head."""
    head = connection.read_until(b"\r\n\r\n")
    line, *lines = head[:-4].split(b"\r\n")
    method, path, _ = line.split(b" ")
    pairs = (line.partition(b":") for line in lines)
    return Request(method, path, head, {name.lower(): value.strip() for name, _, value in pairs})


def respond(connection: Visitor, body: bytes, status: bytes = b"200 OK", *fields: bytes) -> None:
    """A whole response of known length."""
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *fields, b"", body]
    connection.send(b"\r\n".join(lines))


def site(connection: Visitor, target: Target) -> None:
    """Many small things by their paths, on connections that stay open; see :func:`answer`."""
    connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while answer(connection, target, read_request(connection)):
        pass


def answer(connection: Visitor, target: Target, request: Request) -> bool:
    """One answer of :func:`site`; whether the connection goes on.

    ``/down/SIZE`` and ``/down-chunked/SIZE`` give a body, ``/up`` the hash of
    the one that came, ``/status/CODE`` a response without a body, ``/page`` a
    page, ``/moved`` a redirect to the target's own name, ``/ws`` echoes over a
    websocket, everything else is answered with its own head.
    """
    target.requests.append((request.head, b""))
    _, kind, argument = [*request.path.split(b"/"), b"", b""][:3]
    if kind in (b"down", b"down-chunked"):
        size, chunked = int(argument), kind == b"down-chunked"
        how = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
        connection.send(b"HTTP/1.1 200 OK\r\n" + how + b"\r\n\r\n")
        send_body(connection, size, chunked)
        return True
    if kind == b"ws":
        accept(connection, request.fields)
        echo(connection, target)
        return False
    digest = hashlib.sha256()
    for piece in read_body(connection, request.fields):
        digest.update(piece)
    if kind == b"up":
        respond(connection, digest.hexdigest().encode())
    elif kind == b"status":
        connection.send(b"HTTP/1.1 %b Whatever\r\nETag: x\r\n\r\n" % argument)
    elif kind == b"page" and request.method == b"HEAD":
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(PAGE))
    elif kind == b"page":
        respond(connection, PAGE)
    elif kind == b"moved":
        where = b"Location: http://127.0.0.1:%d/page" % target.port
        respond(connection, b"", b"302 Found", where, b"Set-Cookie: a=b; Domain=127.0.0.1")
    else:
        respond(connection, request.head)
    return True


def echo(connection: Visitor, _target: Target) -> None:
    """What comes goes back as it is; after a 101 that makes a websocket of frames that return."""
    early, connection._buffer = connection._buffer, b""
    while early or (early := connection.socket.recv(65536)):
        connection.send(early)
        early = b""


class Gate:
    """Requests wait in the target until the test lets them go on.

    A path of ``/free`` passes at once. ``/events`` gets its head and a first
    event before it waits, and a second one afterwards.

    :ivar opened: set to let the requests go on.
    :ivar events: set to let the event streams go on.
    :ivar waiting: how many are waiting now.
    """

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.events = threading.Event()
        self.waiting = 0
        self._lock = threading.Lock()

    def serve(self, connection: Visitor, _target: Target) -> None:
        while True:
            request = read_request(connection)
            for _ in read_body(connection, request.fields):
                pass
            if request.path == b"/events":
                self._tell(connection)
                return
            if request.path != b"/free":
                self._wait()
            respond(connection, request.path)

    def _tell(self, connection: Visitor) -> None:
        connection.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: first\n\n"
        )
        self.events.wait(120)
        connection.send(b"data: second\n\n")
        if isinstance(connection.socket, ssl.SSLSocket):
            # Only TLS's own goodbye tells an end from a cut.
            connection.socket = connection.socket.unwrap()

    def _wait(self) -> None:
        with self._lock:
            self.waiting += 1
        self.opened.wait(120)
        with self._lock:
            self.waiting -= 1


class Stage(Gate):
    """All of :func:`site`, and two paths of :class:`Gate`: ``/events``, and ``/wait``.

    ``/broken`` gives a body that breaks off.
    """

    def serve(self, connection: Visitor, target: Target) -> None:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            request = read_request(connection)
            if request.path == b"/events":
                self._tell(connection)
                return
            if request.path == b"/broken":
                connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf")
                return
            if request.path == b"/wait":
                self._wait()
                respond(connection, request.path)
            elif not answer(connection, target, request):
                return


class Meter:
    """A body of one path goes as fast as it can, and what has gone is counted.

    ``/endless`` gives a body without end, ``/down/SIZE`` one of a size;
    ``/up`` is read to the end only when ``reading`` is set, ``/up-at-once``
    without that; both are answered with their hash. Others are answered at once.

    :param middle: bytes of ``/up`` that are read before.
    :ivar arrived: how many of ``/up`` are waited in.
    :ivar sent: bytes of bodies that have been written.
    :ivar closed: how many connections ended in the middle of a body.
    """

    def __init__(self, middle: int = 0) -> None:
        self._middle = middle
        self.sent = 0
        self.closed = 0
        self.arrived = 0
        self.reading = threading.Event()
        self._lock = threading.Lock()

    def serve(self, connection: Visitor, _target: Target) -> None:
        try:
            while True:
                request = read_request(connection)
                self._answer(connection, request)
        except (EOFError, OSError):
            # A connection that ends between two requests is nobody's fault.
            if connection.host == b"busy":
                with self._lock:
                    self.closed += 1

    def _answer(self, connection: Visitor, request: Request) -> None:
        connection.host = b"busy"
        if request.path == b"/endless":
            connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            self._pour(connection, 1 << 40, chunked=True)
        elif found := re.fullmatch(rb"/down/(\d+)", request.path):
            size = int(found[1])
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            self._pour(connection, size, chunked=False)
        elif request.path in (b"/up", b"/up-at-once"):
            stops = request.path == b"/up"
            if stops and not self._middle:
                self._stop()
            digest, read = hashlib.sha256(), 0
            for piece in read_body(connection, request.fields):
                digest.update(piece)
                if stops and read < self._middle <= read + len(piece):
                    self._stop()
                read += len(piece)
            respond(connection, digest.hexdigest().encode())
        else:
            respond(connection, b"other")
        connection.host = b""

    def _stop(self) -> None:
        with self._lock:
            self.arrived += 1
        self.reading.wait(120)

    def _pour(self, connection: Visitor, size: int, chunked: bool) -> None:
        for piece in pieces(size):
            connection.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            self.sent += len(piece)
