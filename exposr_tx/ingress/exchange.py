"""One request and its response: from a visitor's connection to a target and back.

An :class:`Exchange` finds the tunnel, gets a connection to its target, writes
the request's head anew and passes body pieces on in both directions as they
come. It ends when both messages have ended, or when either side is lost; then
it is one line in the access log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from exposr_tx.deadlines import NEVER
from exposr_tx.errors import (
    ExposrError,
    IngressDisabled,
    NoToken,
    PermissionDenied,
    RemoteProtocolError,
    RequestLoop,
    StreamLimit,
    TargetFailed,
    TargetRefused,
    TargetTimeout,
    TunnelNotFound,
    UpstreamGone,
)
from exposr_tx.ingress.answers import CONTINUE, error_answer
from exposr_tx.ingress.forwarding import response_head
from exposr_tx.ingress.targets import TargetConnection, TargetFactory
from exposr_tx.interfaces import IUpstream, VirtualHost
from exposr_tx.splice import Side, Splice
from exposr_tx.wire.http1 import Event, Request, Response, chunk, last_chunk

if TYPE_CHECKING:
    from exposr_tx.ingress.http import HTTPIngressFactory, VisitorConnection

__all__ = ["API_BODY", "Exchange"]

#: How much of an API request's body is gathered. One byte more than the API takes: it refuses
#: what is longer by itself.
API_BODY: Final = 65536 + 1
#: Seconds to wait for a target's ``100 Continue`` before the visitor gets ours.
CONTINUE_WAIT: Final = 1.0
#: What the access log shows for a visitor that left before the answer (nginx's convention).
LEFT: Final = 499

_log = Logger()


class Exchange:
    """A request that is being answered.

    :ivar answered: whether the response's head has been written.
    :ivar complete: whether the whole request has been read.
    """

    __slots__ = (
        "_about",
        "_api",
        "_body",
        "_bytes_in",
        "_bytes_out",
        "_chunked",
        "_close",
        "_connecting",
        "_continued",
        "_expecting",
        "_factory",
        "_first_byte",
        "_gone",
        "_held",
        "_id",
        "_response",
        "_response_done",
        "_retried",
        "_started",
        "_status",
        "_target",
        "_target_paused",
        "_trailers",
        "_upstream",
        "_vhost",
        "_visitor",
        "answered",
        "complete",
        "request",
    )

    def __init__(self, visitor: VisitorConnection, request: Request, request_id: bytes) -> None:
        self.request = request
        self.answered = False
        self._visitor = visitor
        self._factory: HTTPIngressFactory = visitor.factory
        self._id = request_id
        self._about = b""
        self._api = False
        self._body = 0
        self._held: list[bytes] = []
        self._trailers: tuple[tuple[bytes, bytes], ...] = ()
        self._vhost: VirtualHost | None = None
        self._upstream: IUpstream | None = None
        self._target: TargetConnection | None = None
        self._target_paused = False
        self._connecting: Deferred[Any] | None = None
        self._expecting: IDelayedCall | None = None
        self._continued = False
        self.complete = request.length == 0
        self._response: Response | None = None
        self._response_done = False
        self._retried = False
        self._gone = False
        self._chunked = False
        self._close = False
        self._status = 0
        self._bytes_in = 0
        self._bytes_out = 0
        self._started = self._factory.clock.seconds()
        self._first_byte = 0.0

    def __repr__(self) -> str:
        return f"<Exchange {self._id.decode()} {self._status or 'open'}>"

    # -- finding the target -------------------------------------------------------------

    def begin(self) -> None:
        """Find out who answers."""
        routes = self._factory.routes
        try:
            found = None if routes is None else routes.virtual_host(self.request.host.decode())
        except ExposrError as error:
            self.refuse(error)
            return
        if isinstance(found, Deferred):
            self._connecting = cast("Deferred[Any]", found)
            found.addCallbacks(self._routed, self._failed)
            found.addErrback(self._failed)
        else:
            self._routed(found)

    def _routed(self, vhost: VirtualHost | None) -> None:
        self._connecting = None
        if vhost is None:
            self._route_to_api()
            return
        self._vhost = vhost
        try:
            assert self._factory.routes is not None
            upstream = self._factory.routes.choose(vhost.tunnel_id)
            if not vhost.enabled:
                raise IngressDisabled(vhost.tunnel_id)
            visitor = self._visitor.believed(self.request)
            if self._factory.writer.looped(visitor):
                raise RequestLoop(vhost.tunnel_id)
        except ExposrError as error:
            self.refuse(error)
            return
        self._about = self._visitor.about(self.request)
        self._connect(upstream)

    def _route_to_api(self) -> None:
        factory, request = self._factory, self.request
        takeover = factory.takeover
        if factory.api is None:
            self.refuse(TunnelNotFound(""))
        elif self._for_takeover() and takeover is not None:
            admitting = self._connecting = takeover.admit(
                request.target,
                [(name.lower(), value) for name, value in request.fields],
                self._visitor.origin(request, "api"),
            )
            admitting.addCallbacks(self._admitted, self._failed)
            admitting.addErrback(self._failed)
        else:
            self._api = True
            self._about = self._visitor.about(request)
            request.websocket = False
            if request.expect_continue:
                request.expect_continue = False
                self._visitor.write(CONTINUE)
            if self.complete:
                self._connect(factory.api)

    def _for_takeover(self) -> bool:
        """Whether it asks for the transport's websocket, on a host of the API's."""
        takeover = self._factory.takeover
        return (
            self.request.websocket
            and self._vhost is None
            and takeover is not None
            and takeover.claims(self.request.target.partition(b"?")[0])
        )

    def _admitted(self, protocol: Any) -> None:
        self._connecting = None
        request = self.request
        self._status = 101
        head = b"".join(
            [b"GET %b HTTP/1.1\r\nHost: %b\r\n" % (request.target, request.authority)]
            + [b"%b: %b\r\n" % pair for pair in request.fields]
            + [b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n"]
        )
        self._first_byte = self._factory.clock.seconds()
        self._write_log()
        self._visitor.hand_over(protocol, head)

    def _connect(self, upstream: IUpstream) -> None:
        self._upstream = upstream
        request, factory = self.request, self._factory
        if not self._api and not request.websocket:
            connection = factory.pool.take(upstream)
            if connection is not None:
                self._connected(connection)
                return
        connecting = self._connecting = upstream.connect(
            TargetFactory(factory.pool, upstream, factory.response_limits),
            self._visitor.origin(request, "api" if self._api else "http"),
        )
        connecting.addCallbacks(self._connected, self._not_connected)
        connecting.addErrback(self._failed)

    def _not_connected(self, failure: Failure) -> None:
        # The client went away before a byte was sent: another one of the tunnel may serve.
        if failure.check(UpstreamGone) and not self._retried and self._vhost is not None:
            self._retried = True
            assert self._factory.routes is not None
            self._connecting = None
            self._connect(self._factory.routes.choose(self._vhost.tunnel_id))
        else:
            self._failed(failure)

    def _failed(self, failure: Failure) -> None:
        self._connecting = None
        if failure.check(CancelledError):
            return
        if failure.check(ExposrError):
            self.refuse(cast(ExposrError, failure.value))
            return
        _log.failure("A request could not be routed", failure, request_id=self._id.decode())
        self.refuse(ExposrError())

    # -- the request --------------------------------------------------------------------

    def _connected(self, connection: TargetConnection) -> None:
        self._connecting = None
        request = self.request
        if self._gone:
            connection.abort()
            return
        self._target = connection
        connection.begin(self, request.method)
        if self._api:
            request.length = self._body
            request.has_length = request.has_length or bool(self._body)
        head = self._factory.writer.head(request, self._vhost, self._about, self._id)
        if self._held:
            held, self._held = self._held, []
            if request.length is None:
                held = [chunk(piece) for piece in held]
            connection.transport.writeSequence([head, *held])
            self._visitor.let_read()
        else:
            connection.transport.write(head)
        if request.length is None and self.complete:
            connection.transport.write(last_chunk(self._trailers))
        if request.expect_continue:
            self._expecting = self._factory.clock.callLater(CONTINUE_WAIT, self._no_continue)
        self._wait()

    def _wait(self) -> None:
        """Set the time limit for what comes next."""
        if self._response is not None and self.complete:
            self._visitor.deadline = NEVER
        elif self.complete:
            self._visitor.await_response()
        else:
            self._visitor.await_body()

    def request_body(self, data: bytes) -> None:
        """A piece of the request's body has come."""
        self._bytes_in += len(data)
        target = self._target
        if self._api:
            self._gather(data)
        elif target is None:
            if not self._response_done:
                self._held.append(data)
                self._visitor.hold_reading()
        elif target.alive:
            self._visitor.await_body()
            target.transport.write(chunk(data) if self.request.length is None else data)

    def _gather(self, data: bytes) -> None:
        """The API gets its body whole, and not more of it than it reads."""
        room = API_BODY - self._body
        if room <= 0:
            return
        self._held.append(data[:room])
        self._body += min(room, len(data))
        if self._body == API_BODY:
            self._close = True
            assert self._factory.api is not None
            self._connect(self._factory.api)

    def request_end(self, trailers: tuple[tuple[bytes, bytes], ...]) -> None:
        """The request is complete."""
        self.complete = True
        self._trailers = trailers
        if self._api:
            if self._target is None and self._upstream is None:
                assert self._factory.api is not None
                self._connect(self._factory.api)
            return
        target = self._target
        if target is None:
            return
        if self.request.length is None and target.alive:
            target.transport.write(last_chunk(trailers))
        if self._response_done:
            self._finish(close=self._close)
        else:
            self._wait()

    def _no_continue(self) -> None:
        self._expecting = None
        self._continue()

    def _continue(self) -> None:
        if not self._continued and not self.answered:
            self._continued = True
            self._visitor.write(CONTINUE)

    def _stop_expecting(self) -> None:
        if self._expecting is not None:
            self._expecting.cancel()
            self._expecting = None

    # -- the response -------------------------------------------------------------------

    def response_events(self, events: list[Event]) -> None:
        """Parts of the response have come."""
        out: list[bytes] = []
        for event in events:
            if event.__class__ is bytes:
                self._bytes_out += len(event)
                out.append(chunk(event) if self._chunked else event)
            elif event.__class__ is Response:
                if event.status >= 200:
                    out.append(self._begin_response(event))
                elif event.status == 101:
                    self._switch(event)
                    return
                else:
                    self._interim(event, out)
            else:
                if self._chunked:
                    out.append(last_chunk(event.trailers))  # type: ignore[union-attr]
                self._response_done = True
        if out:
            self._visitor.write(out[0] if len(out) == 1 else b"".join(out))
        if self._response_done:
            self._response_finished()

    def _interim(self, response: Response, out: list[bytes]) -> None:
        if response.status == 100:
            self._stop_expecting()
            if self._continued or not self.request.expect_continue:
                return
            self._continued = True
        if self.request.minor:
            out.append(response_head(response, self._vhost, chunked=False, close=False))

    def _begin_response(self, response: Response) -> bytes:
        request = self.request
        self._response = response
        self._status = response.status
        self.answered = True
        self._first_byte = self._factory.clock.seconds()
        if self._expecting is not None:
            self._stop_expecting()
        self._chunked = response.chunked and bool(request.minor)
        delimited = response.until_close or (response.chunked and not request.minor)
        # A final answer in place of 100 Continue: the visitor may send its body or not.
        undecided = request.expect_continue and not self._continued and not self.complete
        self._close = (
            self._close
            or not request.keep_alive
            or delimited
            or undecided
            or self._visitor.draining
            or (not self.complete and not response.keep_alive)
        )
        self._wait()
        return response_head(response, self._vhost, chunked=self._chunked, close=self._close)

    def _response_finished(self) -> None:
        if self.complete or self._close:
            self._finish(close=self._close)
        # Otherwise the rest of the request goes to the target first.

    def _switch(self, response: Response) -> None:
        """The target has agreed to speak websocket: bytes pass unread from here on."""
        target, visitor = self._target, self._visitor
        assert target is not None
        if not self.request.websocket or response.upgrade.lower() != b"websocket":
            self._target = None
            target.abort()
            self.refuse(TargetFailed("the target switched protocols unasked"))
            return
        self._status = 101
        self.answered = True
        self._first_byte = self._factory.clock.seconds()
        visitor.write(response_head(response, self._vhost, chunked=False, close=False))
        rest = target.parser.take_rest()
        target.detach()
        inner, outer = Side(), Side()
        target.dataReceived = inner.dataReceived  # type: ignore[method-assign]
        target.connectionLost = inner.connectionLost  # type: ignore[method-assign]
        inner.makeConnection(target.transport)  # type: ignore[no-untyped-call]
        if rest:
            inner.dataReceived(rest)
        visitor.hand_over(outer, b"")

        def ended() -> None:
            self._bytes_in, self._bytes_out = outer.received, inner.received
            self._write_log()

        Splice(outer, inner, ended).start()

    # -- ends ---------------------------------------------------------------------------

    def refuse(self, error: ExposrError) -> None:
        """Answer with an error, if nothing was answered before."""
        self._stop_expecting()
        if self._response_done:
            return
        status = error.status
        if isinstance(error, (PermissionDenied, NoToken, TunnelNotFound)) and self._for_takeover():
            status = 401
        self._status = status
        self.answered = True
        self._response_done = True
        self._close = self._close or not self.request.keep_alive or not self.complete
        self._close = self._close or self._visitor.draining
        self._first_byte = self._factory.clock.seconds()
        body = self.request.method != b"HEAD"
        answer = error_answer(status, error.code, self._id.decode(), close=self._close, body=body)
        self._visitor.write(answer)
        self._finish(close=self._close)

    def target_lost(self, reason: Failure) -> None:
        """The target's connection ended before the response did."""
        self._target = None
        if self.answered:
            response = self._response
            delimited = response is not None and (
                response.until_close or (response.chunked and not self.request.minor)
            )
            self._write_log()
            # Where only the end of the connection tells the end of the body, a clean end would
            # make a cut look complete.
            self._visitor.cut(abort=delimited)
        elif reason.check(RemoteProtocolError):
            self.refuse(TargetFailed("the target's response does not parse"))
        elif reason.check(StreamLimit):
            self.refuse(StreamLimit())
        else:
            self.refuse(TargetRefused("the target closed the connection before it answered"))

    def visitor_lost(self, status: int = LEFT) -> None:
        """The visitor has gone, or breaks the protocol: stop the target's work."""
        self._give_up()
        self._write_log(self._status or status)

    def _give_up(self) -> None:
        """Let go of the target, in whatever state it is."""
        self._gone = True
        self._stop_expecting()
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        target, self._target = self._target, None
        if target is not None:
            target.abort()

    def timed_out(self) -> None:
        """The target has not answered in time, or the visitor does not go on."""
        self._give_up()
        if self.answered:
            self._write_log()
            self._visitor.cut(abort=True)
        elif self.complete or self._visitor.holding:
            self.refuse(TargetTimeout("the target did not answer in time"))
        else:
            self._write_log(408)
            self._visitor.refuse(408, "the request's body did not come in time", log=False)

    def _finish(self, *, close: bool) -> None:
        target, self._target = self._target, None
        if target is not None:
            if self._target_paused and target.alive:
                target.transport.resumeProducing()
            response = self._response
            target.release(
                not self._api
                and self.complete
                and response is not None
                and response.keep_alive
                and not response.until_close,
                response.idle_limit if response is not None else None,
            )
        self._write_log()
        self._visitor.exchange_done(close=close, unread=not self.complete)

    def _write_log(self, status: int = 0) -> None:
        factory, request = self._factory, self.request
        if factory.access_log is None:
            return
        now = factory.clock.seconds()
        path = request.target.partition(b"?")[0]
        factory.access_log.write(
            request.method,
            request.host,
            factory.api_path(path) if self._vhost is None else path,
            status or self._status,
            self._bytes_in,
            self._bytes_out,
            ((self._first_byte or now) - self._started) * 1000,
            (now - self._started) * 1000,
            self._vhost.tunnel_id if self._vhost is not None else "",
            self._id.decode(),
        )

    # -- back pressure ------------------------------------------------------------------

    def visitor_full(self) -> None:
        """The visitor takes no more for now."""
        if self._target is not None and self._target.alive:
            self._target_paused = True
            self._target.transport.pauseProducing()

    def visitor_drained(self) -> None:
        """The visitor takes more again."""
        if self._target_paused:
            self._target_paused = False
            if self._target is not None and self._target.alive:
                self._target.transport.resumeProducing()

    def target_full(self) -> None:
        """The stream takes no more for now: read no more of the body."""
        self._visitor.hold_reading()

    def target_drained(self) -> None:
        """The stream takes more again."""
        self._visitor.let_read()
