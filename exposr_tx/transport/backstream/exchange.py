"""A stream that carries one request to a client that takes JSON, and its answer; or a websocket.

An in-memory transport: what ingress writes to it is HTTP/1.1, and so is what it hands
back; in between both are messages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol
from uuid import uuid4

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IProducer, IPushProducer, ITransport
from twisted.python.failure import Failure
from zope.interface import implementer

from exposr_tx.addresses import host_port
from exposr_tx.errors import RemoteProtocolError, UpstreamGone
from exposr_tx.interfaces import Origin
from exposr_tx.transport.websocket.visitors import VisitorWebsocket, visitor_websocket
from exposr_tx.wire.backstream import (
    HOP,
    MAX_ID,
    MAX_REQUEST_BODY,
    Closing,
    Payload,
    RequestMessage,
    ResponseMessage,
    UpgradeAnswer,
)
from exposr_tx.wire.http1 import End, Limits, Request, RequestParser

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IProtocol, IReactorTime

__all__ = ["Exchange"]

#: Ingress adds some fields to what it has limited already.
LIMITS: Final = Limits(line=65536, head=131072, fields=1000)
#: Bytes of an answer that are handed on before it is asked whether there is room for more.
PIECE: Final = 65536
#: Bytes of a websocket's messages that wait for its visitor; one that reads more slowly loses it,
#: as the client cannot be told to wait with this one alone.
MAX_UNREAD: Final = 4 * 1024 * 1024

_TEXTS: Final = {
    413: f"the body is longer than the {MAX_REQUEST_BODY} bytes that this client can take",
    501: "this client carries no websockets",
    502: "the target takes no websocket",
    503: "too many bodies wait for this client",
}
_REASONS: Final = {int(status): status.phrase for status in HTTPStatus}
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\n".encode("ascii")


class Upstream(Protocol):
    """The client that an exchange is with.

    :ivar held: bytes of bodies that are held.
    """

    peer: IAddress
    held: int

    @property
    def full(self) -> bool: ...

    def ready(self, stream: Exchange) -> None: ...

    def answered(self, stream: Exchange) -> None: ...

    def discard(self, stream: Exchange) -> None: ...

    def let_go(self, stream: Exchange) -> None: ...

    def say(self, message: Payload | Closing) -> bool:
        """Tell the client of a websocket; returns whether there is room for more."""


@implementer(ITransport, IConsumer, IPushProducer)
class Exchange:
    """A stream that carries one request and its response.

    :ivar done: whether the response has come, or is made here, or the websocket is over.
    :ivar is_websocket: whether the visitor wants one.
    :ivar disconnected: whether the protocol has been told of the end.
    """

    disconnecting = False

    def __init__(
        self, upstream: Upstream, protocol: IProtocol, origin: Origin, clock: IReactorTime
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
        self._held = 0
        self._out: deque[memoryview] = deque()
        self._unread = 0
        self.is_websocket = False
        self._websocket: VisitorWebsocket | None = None
        self._producer: IPushProducer | None = None
        self._paused = False
        self._delivering = False

    def __repr__(self) -> str:
        state = "over" if self.disconnected else "answered" if self.done else "open"
        return f"<exchange with {self._upstream!r} {state}>"

    # ITransport

    def write(self, data: bytes) -> None:
        if self._websocket is not None:
            self._websocket.dataReceived(data)
            return
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
                self._hold(len(event))
                if self._size > MAX_REQUEST_BODY:
                    self._reply(413)
                elif self._upstream.full:
                    self._reply(503)
                self._body.append(event)
            elif isinstance(event, End):
                self._parser = None
                self._upstream.ready(self)
            if self.done:
                self._body.clear()
                return

    def _begin(self, request: Request) -> None:
        self._request = request
        self.is_websocket = request.websocket
        if (request.length or 0) > MAX_REQUEST_BODY:
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

    # IConsumer: the request's body is gathered, up to its limit, so only a websocket is paused.

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        if self.disconnected:
            producer.stopProducing()
        elif streaming:
            self._producer = producer  # type: ignore[assignment]

    def unregisterProducer(self) -> None:
        self._producer = None

    # IPushProducer: the response.

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._later(b"")

    def stopProducing(self) -> None:
        self.abortConnection()

    # What the upstream asks and tells

    def move(self, upstream: Upstream) -> None:
        """The request, whose message is made, goes to this client, whichever it was for."""
        if upstream is not self._upstream:
            before, self._upstream = self._upstream, upstream
            before.let_go(self)

    def message(self) -> RequestMessage:
        """The request."""
        request = self._request
        assert request is not None
        body, self._body = b"".join(self._body), []
        self._hold(-self._held)
        # Those of proxies and of our own, which tell of the visitor, go along.
        fields = list(request.fields)
        for name, values in request.forwarding.items():
            fields += [(name, value) for value in values]
        # As there, the lines of one request have one id, and the client's lines too.
        id = request.forwarding.get(b"x-request-id", [b""])[0].decode("latin-1")
        if self.is_websocket or not 0 < len(id) <= MAX_ID:  # one that is told again and again
            id = str(uuid4())
        remote = host_port(self._origin.peer)
        return RequestMessage.of(id, request.method, request.target, fields, body, remote)

    def answered(self, response: ResponseMessage) -> None:
        """The client has answered."""
        request = self._request
        assert request is not None
        self.done = True
        self._upstream.answered(self)
        lines = [_status_line(response.code)]
        declared = b""
        options = ["close"]  # and those of the target's: ingress removes the fields that they name
        for name, value in response.fields:
            if name.lower() == "content-length":
                declared = value.strip().encode("ascii", "replace")
            elif name.lower() == "connection":
                options.append(value)
            if name.lower() not in HOP:
                lines.append(b"%b: %b\r\n" % (name.encode(), value.encode("utf-8", "replace")))
        body = response.body
        self._hold(len(body))
        if request.method == b"HEAD" or response.code in (204, 304):
            body = b""
            if declared.isdigit() and response.code != 204:
                lines.append(b"Content-Length: %b\r\n" % declared)
        else:
            lines.append(b"Content-Length: %d\r\n" % len(body))
        lines.append(b"Connection: %b\r\n\r\n" % ", ".join(options).encode("utf-8", "replace"))
        self._later(b"".join([*lines, body]))

    def upgraded(self, answer: UpgradeAnswer) -> None:
        """The client has its end of a websocket."""
        assert self._request is not None
        self._upstream.answered(self)
        wire = _Wire(self)
        self._websocket = visitor_websocket(self._request, answer, wire, self._say, self._clock)

    def not_upgraded(self, status: int) -> None:
        """There is no websocket.

        :param status: 502 where the target takes none, 501 where no client carries any: to one
            that does not a 101 would be the end of everything else.
        """
        self._reply(status)

    def told(self, message: Payload | Closing) -> None:
        """What the target says to the websocket."""
        if self._websocket is not None:
            self._websocket.said(message)

    def room(self) -> None:
        """There is room for what the visitor says."""
        if self._producer is not None:
            self._producer.resumeProducing()

    def _say(self, message: Payload | Closing) -> None:
        if not self._upstream.say(message) and self._producer is not None:
            self._producer.pauseProducing()

    def send(self, data: bytes) -> None:
        """Bytes of the websocket's for the visitor."""
        self._later(data)
        if self._paused and self._unread > MAX_UNREAD:
            self.abortConnection()

    def finish(self) -> None:
        """The websocket is over; what was said goes to the visitor."""
        self.done = True
        self._later(b"")

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

    def _hold(self, size: int) -> None:
        """Count bytes that are held, or let go of."""
        self._held += size
        self._upstream.held += size

    def _reply(self, status: int) -> None:
        """Answer it here, and close."""
        self.done = True
        self._parser = None
        self._upstream.answered(self)
        text = _TEXTS.get(status, "the request is not understood").encode() + b"\n"
        if self._request is not None and self._request.method == b"HEAD":
            text = b""
        head = b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n" % len(text)
        self._later(_status_line(status) + head + b"Connection: close\r\n\r\n" + text)

    def _later(self, data: bytes) -> None:
        """Hand bytes over in the reactor's next turn, never inside a call of the receiver's."""
        if data:
            self._out.append(memoryview(data))
            self._unread += len(data)
        if not self._delivering:
            self._delivering = True
            self._clock.callLater(0, self._deliver)

    def _deliver(self) -> None:
        self._delivering = False
        while self._out and not (self._paused or self.disconnected):
            data = self._out.popleft()
            if len(data) > PIECE:
                self._out.appendleft(data[PIECE:])
                data = data[:PIECE]
            self._unread -= len(data)
            self._protocol.dataReceived(bytes(data))
        if self.done and not self._out and not self._paused:
            self._end(ConnectionDone())

    def _end(self, reason: Exception) -> None:
        if not self.disconnected:
            self.disconnected = True
            self._parser = None
            self._out.clear()
            self._body.clear()
            self._producer = None
            self._hold(-self._held)
            websocket, self._websocket = self._websocket, None
            if websocket is not None:
                websocket.connectionLost(Failure(reason))
            self._upstream.discard(self)
            self._protocol.connectionLost(Failure(reason))


class _Wire:
    """What a websocket writes to."""

    def __init__(self, exchange: Exchange) -> None:
        self.write = exchange.send
        self.loseConnection = exchange.finish
        self.abortConnection = exchange.abortConnection
