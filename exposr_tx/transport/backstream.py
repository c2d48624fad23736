"""Clients that take requests as JSON messages: backstream's Go program, on the server's side.

A :class:`JsonUpstream` is one such client. Its streams carry one HTTP exchange
each: ingress writes a request in HTTP/1.1 as to any target, the stream reads and
gathers it, and what the client answers is written back in HTTP/1.1. So neither
ingress nor routing knows that there is no byte stream behind it.

The client works on one request at a time and reads nothing meanwhile, not even
pings. So the next request waits here, in a queue with a limit, and no silence is
ever taken for death. :class:`Clients` are all clients of one server, native ones too.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol
from uuid import uuid4

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IProducer, IPushProducer, ITransport
from twisted.python.failure import Failure
from zope.interface import implementer

from exposr_tx.errors import (
    RemoteProtocolError,
    StreamLimit,
    TunnelNotConnected,
    UpstreamGone,
)
from exposr_tx.interfaces import IAdmission, IRoutes, IUpstream, Origin, VirtualHost
from exposr_tx.wire.backstream import (
    HOP,
    MAX_REQUEST_BODY,
    RequestMessage,
    Requests,
    ResponseMessage,
)
from exposr_tx.wire.http1 import End, Limits, Request, RequestParser

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IReactorTime

__all__ = ["QUEUE", "TUNNEL", "Clients", "JsonUpstream"]

#: What the one tunnel of a backstream server is called, in logs.
TUNNEL: Final = "backstream"
#: Requests that wait for one client, besides the one that it works on; more are 503.
QUEUE: Final = 32
#: Ingress adds some fields to what it has limited already.
LIMITS: Final = Limits(line=65536, head=131072, fields=1000)
#: Bytes of an answer that are handed on before it is asked whether there is room for more.
PIECE: Final = 65536
#: The websocket close code for what breaks the protocol.
PROTOCOL_ERROR: Final = 1002
SHUTTING_DOWN: Final = "Server shutting down"

_TEXTS: Final = {
    413: f"the body is longer than the {MAX_REQUEST_BODY} bytes that this client can take",
    501: "this client carries no websockets",
}
_REASONS: Final = {int(status): status.phrase for status in HTTPStatus}
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\n".encode("ascii")


class Messages(Protocol):
    """What carries a client's messages."""

    def send_text(self, message: bytes) -> None:
        """Queue one text message."""

    def close(self, code: int, reason: str) -> None:
        """Say goodbye and drop the connection, within a second."""

    def abort(self, reason: str) -> None:
        """Drop the connection at once."""


def remote_of(peer: IAddress) -> str:
    """An address as ``ip:port``."""
    host, port = getattr(peer, "host", ""), getattr(peer, "port", 0)
    if host.startswith("::ffff:") and "." in host:
        host = host[7:]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@implementer(IAdmission, IRoutes)
class Clients:
    """The clients of one server, as who admits them and as who is asked for one of them.

    A client that is free goes before one that is busy; among equals it goes round.
    Limits and conflicts of exposr's tunnels do not concern them.
    """

    def __init__(self) -> None:
        self._upstreams: list[IUpstream] = []
        self._turn = 0
        self._vhost = VirtualHost(TUNNEL, True, None, None, (b"http", b""))

    def __repr__(self) -> str:
        return f"<Clients {len(self)}>"

    def __len__(self) -> int:
        return len(self._upstreams)

    def admit(self, tunnel_id: str, token: str, origin: Origin) -> Deferred[None]:
        """Anybody, as there."""
        return succeed(None)

    def plug(self, upstream: IUpstream) -> Deferred[None]:
        """Take a client into service."""
        self._upstreams.append(upstream)
        return succeed(None)

    def unplug(self, upstream: IUpstream, clean: bool) -> None:
        """The client is gone."""
        if upstream in self._upstreams:
            self._upstreams.remove(upstream)

    def virtual_host(self, host: str) -> VirtualHost:
        """Every host is theirs; whose else it may be is asked before."""
        return self._vhost

    def choose(self, tunnel_id: str) -> IUpstream:
        """The client for a request; raises TunnelNotConnected, or StreamLimit where each has
        as many requests as may wait."""
        count = len(self._upstreams)
        best: IUpstream | None = None
        least = chosen = full = 0
        for step in range(1, count + 1):
            turn = (self._turn + step) % count
            upstream = self._upstreams[turn]
            if not upstream.accepting:
                continue
            load = upstream.load if isinstance(upstream, JsonUpstream) else 0
            if load > QUEUE:
                full += 1
            elif best is None or load < least:
                best, least, chosen = upstream, load, turn
                if not load:
                    break
        if best is not None:
            self._turn = chosen
            return best
        if full:
            raise StreamLimit("every client has as many requests as may wait")
        raise TunnelNotConnected(tunnel_id)


@implementer(IUpstream)
class JsonUpstream:
    """One client that takes JSON messages.

    :param messages: carries them.
    :param clients: where it is in service.
    :param clock: for the turns of the reactor.
    :param peer: the client's address.
    :param on_message: told of every request that is sent: id, method and path.
    :param on_gone: called once when it is over, with why.

    :ivar accepting: False once it drains or is gone.
    """

    tunnel_id = TUNNEL

    def __init__(
        self,
        messages: Messages,
        clients: Clients,
        clock: IReactorTime,
        peer: IAddress,
        on_message: Callable[[str, str, str], object],
        on_gone: Callable[[JsonUpstream, str], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.peer = peer
        self.accepting = True
        self.alive_at = int(now() * 1000)
        self._messages = messages
        self._clients = clients
        self._clock = clock
        self._on_message = on_message
        self._on_gone = on_gone
        self._now = now
        self._requests = Requests()
        self._asked: _Exchange | None = None  # None too when its visitor has left
        self._waiting: deque[_Exchange] = deque()
        self._streams: set[_Exchange] = set()
        self._gone = False
        self._drained: list[Deferred[None]] = []

    def __repr__(self) -> str:
        state = "gone" if self._gone else "busy" if self._requests.pending else "idle"
        return f"<JsonUpstream {remote_of(self.peer)} {state}, {len(self._waiting)} waiting>"

    @property
    def load(self) -> int:
        """Requests that are worked on, wait, or are being read; and one whose visitor has left,
        for the client does not know."""
        abandoned = bool(self._requests.pending) and self._asked is None
        return len(self._streams) + abandoned

    def start(self) -> None:
        """Enter service."""
        self._clients.plug(self)

    # IUpstream

    def connect(self, factory: IProtocolFactory, origin: Origin) -> Deferred[IProtocol]:
        """A stream for one HTTP exchange; errbacks with StreamLimit or UpstreamGone."""
        if self._gone or not self.accepting:
            return fail(UpstreamGone("the client's connection is closed"))
        if self.load > QUEUE:
            return fail(StreamLimit(f"{QUEUE} requests wait for the client"))
        protocol = factory.buildProtocol(self.peer)
        if protocol is None:
            return fail(UpstreamGone("nobody wants the stream"))
        stream = _Exchange(self, protocol, origin, self._clock)
        self._streams.add(stream)
        protocol.makeConnection(stream)
        return succeed(protocol)

    def probe(self) -> Deferred[bool]:
        """Whether it is connected: a busy client answers nothing, so it is not asked."""
        return succeed(not self._gone)

    def close(self, code: int, reason: str) -> None:
        """End the connection, and with 502 the requests that are on it."""
        if not self._gone:
            self._messages.close(code, reason)
            self.lost(reason or f"closed with {code}")

    def go_away(self) -> None:
        """There is no such message."""

    def drain(self) -> Deferred[None]:
        """Take no more requests; close after the last one."""
        self.accepting = False
        if self._gone:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._drained.append(done)
        self._check_drained()
        return done

    def _check_drained(self) -> None:
        if self._drained and not self._streams and not self._gone:
            self.close(1001, SHUTTING_DOWN)

    # What streams ask for

    def ready(self, stream: _Exchange) -> None:
        """A stream's request is complete."""
        self._waiting.append(stream)
        self._next()

    def discard(self, stream: _Exchange) -> None:
        """A stream has ended; its request is not sent if it was not."""
        self._streams.discard(stream)
        if stream in self._waiting:
            self._waiting.remove(stream)
        if self._asked is stream:
            self._asked = None
        self._check_drained()

    def _next(self) -> None:
        if self._gone or self._requests.pending or not self._waiting:
            return
        self._asked = self._waiting.popleft()
        message = self._asked.message()
        self._messages.send_text(self._requests.ask(message))
        self._on_message(message.id, message.method, message.path)

    # What the connection tells

    def message(self, data: bytes) -> None:
        """A message of the client's."""
        if self._gone:
            return
        self.alive_at = int(self._now() * 1000)
        try:
            response = self._requests.receive(data)
        except RemoteProtocolError as error:
            self.violated(str(error))
            return
        asked, self._asked = self._asked, None
        if asked is not None and response.is_answer and response.is_writable:
            asked.answered(response)
        elif asked is not None:
            asked.broken()
        if not response.is_answer:
            self.violated(f"an answer has the code {response.code}")
            return
        self._next()

    def violated(self, reason: str, code: int = PROTOCOL_ERROR) -> None:
        """The client breaks the protocol: nobody but it loses anything that was not lost."""
        if not self._gone:
            self._messages.close(code, reason)
            self.lost(reason)

    def lost(self, reason: str) -> None:
        """The connection is over."""
        if self._gone:
            return
        self._gone = True
        self.accepting = False
        self._clients.unplug(self, clean=False)
        waiting, self._waiting = set(self._waiting), deque()
        asked, self._asked = self._asked, None
        for stream in list(self._streams):
            if stream is asked:
                stream.broken()
            elif stream in waiting or not stream.done:
                stream.not_asked()
        drained, self._drained = self._drained, []
        for done in drained:
            done.callback(None)
        self._on_gone(self, reason)


@implementer(ITransport, IConsumer, IPushProducer)
class _Exchange:
    """A stream that carries one request and its response.

    :ivar done: whether the response has come, or is made here.
    :ivar disconnected: whether the protocol has been told of the end.
    """

    disconnecting = False

    def __init__(
        self, upstream: JsonUpstream, protocol: IProtocol, origin: Origin, clock: IReactorTime
    ) -> None:
        self.done = False
        self.disconnected = False
        self._upstream = upstream
        self._protocol = protocol
        self._origin = origin
        self._clock = clock
        self._parser: RequestParser | None = RequestParser(LIMITS)
        self._request: Request | None = None
        self._body: list[bytes] = []
        self._size = 0
        self._out = memoryview(b"")
        self._paused = False
        self._delivering = False

    def __repr__(self) -> str:
        state = "over" if self.disconnected else "answered" if self.done else "open"
        return f"<exchange with {self._upstream!r} {state}>"

    # ITransport

    def write(self, data: bytes) -> None:
        if self.done or self.disconnected or self._parser is None:
            return
        try:
            events = self._parser.receive(data)
        except RemoteProtocolError as error:
            self._reply(error.http_status)
            return
        for event in events:
            if isinstance(event, Request):
                self._begin(event)
            elif isinstance(event, bytes):
                self._size += len(event)
                if self._size > MAX_REQUEST_BODY:
                    self._reply(413)
                self._body.append(event)
            elif isinstance(event, End):
                self._parser = None
                self._upstream.ready(self)
            if self.done:
                self._body.clear()
                return

    def _begin(self, request: Request) -> None:
        self._request = request
        if request.websocket:
            self._reply(501)  # a 101 would keep the Go client from everything else
        elif (request.length or 0) > MAX_REQUEST_BODY:
            self._reply(413)
        elif request.expect_continue:
            self._later(_CONTINUE)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        for piece in data:
            self.write(piece)

    def loseConnection(self) -> None:
        self.abortConnection()

    def abortConnection(self) -> None:
        """The visitor has gone, or all is said."""
        if not self.disconnected:
            self._end(ConnectionDone() if self.done else ConnectionAborted())

    def getPeer(self) -> IAddress:
        return self._upstream.peer

    def getHost(self) -> IAddress:
        return self._upstream.peer

    # IConsumer: the request's body is gathered, up to its limit, so nobody is ever paused.

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        if self.disconnected:
            producer.stopProducing()

    def unregisterProducer(self) -> None:
        """Nothing is kept of it."""

    # IPushProducer: the response.

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._later(b"")

    def stopProducing(self) -> None:
        self.abortConnection()

    # What the upstream asks and tells

    def message(self) -> RequestMessage:
        """The request."""
        request = self._request
        assert request is not None
        body, self._body = b"".join(self._body), []
        # Those of proxies and of our own, which tell of the visitor, go along.
        fields = list(request.fields)
        for name, values in request.forwarding.items():
            fields += [(name, value) for value in values]
        remote = remote_of(self._origin.peer)
        return RequestMessage.of(str(uuid4()), request.method, request.target, fields, body, remote)

    def answered(self, response: ResponseMessage) -> None:
        """The client has answered."""
        request = self._request
        assert request is not None
        self.done = True
        lines = [_status_line(response.code)]
        declared = b""
        for name, value in response.fields:
            if name.lower() == "content-length":
                declared = value.strip().encode("ascii", "replace")
            if name.lower() not in HOP:
                lines.append(b"%b: %b\r\n" % (name.encode(), value.encode("utf-8", "replace")))
        body = response.body
        if request.method == b"HEAD" or response.code in (204, 304):
            body = b""
            if declared.isdigit() and response.code != 204:
                lines.append(b"Content-Length: %b\r\n" % declared)
        else:
            lines.append(b"Content-Length: %d\r\n" % len(body))
        lines.append(b"Connection: close\r\n\r\n")
        self._later(b"".join([*lines, body]))

    def broken(self) -> None:
        """The client has the request, and will not answer it: a visitor's 502."""
        self._end(ConnectionLost())

    def not_asked(self) -> None:
        """The client has not got it. Ingress asks another one, unless there is a body, which
        is not kept."""
        if self._size:
            self.broken()
        else:
            self._end(UpstreamGone("the client left before the request was sent"))

    # Inside

    def _reply(self, status: int) -> None:
        """Answer it here, and close."""
        self.done = True
        self._parser = None
        text = _TEXTS.get(status, "the request is not understood").encode() + b"\n"
        if self._request is not None and self._request.method == b"HEAD":
            text = b""
        head = b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n" % len(text)
        self._later(_status_line(status) + head + b"Connection: close\r\n\r\n" + text)

    def _later(self, data: bytes) -> None:
        """Hand bytes over in the reactor's next turn, never inside a call of the receiver's."""
        self._out = memoryview(bytes(self._out) + data) if self._out else memoryview(data)
        if not self._delivering:
            self._delivering = True
            self._clock.callLater(0, self._deliver)

    def _deliver(self) -> None:
        self._delivering = False
        while self._out and not (self._paused or self.disconnected):
            piece, self._out = self._out[:PIECE], self._out[PIECE:]
            self._protocol.dataReceived(bytes(piece))
        if self.done and not self._out and not self._paused:
            self._end(ConnectionDone())

    def _end(self, reason: Exception) -> None:
        if not self.disconnected:
            self.disconnected = True
            self._parser = None
            self._out = memoryview(b"")
            self._body.clear()
            self._upstream.discard(self)
            self._protocol.connectionLost(Failure(reason))
