"""One request and its response: between a visitor's connection and a target's.

An :class:`Exchange` passes body pieces on in both directions as they come, and
ends when both messages have ended, or when either side is lost; then it is one
line in the access log. Where a request goes is told by its two kinds:
:mod:`~exposr_tx.ingress.tunnelled` and :mod:`~exposr_tx.ingress.local`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from exposr_tx.deadlines import NEVER
from exposr_tx.direct import write_last
from exposr_tx.errors import (
    ExposrError,
    RemoteProtocolError,
    StreamLimit,
    TargetFailed,
    TargetRefused,
    TargetTimeout,
)
from exposr_tx.ingress.answers import CONTINUE, error_answer
from exposr_tx.ingress.forwarding import response_head
from exposr_tx.ingress.targets import TargetConnection, TargetFactory
from exposr_tx.interfaces import IUpstream, VirtualHost
from exposr_tx.wire.http1 import End, Event, Request, Response, chunk, last_chunk

if TYPE_CHECKING:
    from exposr_tx.ingress.http import HTTPIngressFactory
    from exposr_tx.ingress.visitor import VisitorConnection

__all__ = ["Exchange", "Trailers"]

Trailers = tuple[tuple[bytes, bytes], ...]

#: What the access log shows for a visitor that left before the answer (nginx's convention).
LEFT: Final = 499

_log = Logger()


class Exchange:
    """A request that is being answered.

    :ivar answered: whether the response's head has been written.
    :ivar complete: whether the whole request has been read.
    """

    #: Of the origin that upstreams are told.
    kind: ClassVar[str] = "http"
    #: Whether the connection to the target may serve another visitor.
    pooled: ClassVar[bool] = True

    # Most requests change few of these: to set them all for each costs 2 µs.
    answered = False
    _vhost: VirtualHost | None = None
    _target: TargetConnection | None = None
    _target_paused = False
    _connecting: Deferred[Any] | None = None
    _expecting: IDelayedCall | None = None
    _continued = False
    _early = False
    _response: Response | None = None
    _response_done = False
    _gone = False
    _chunked = False
    _status = 0
    _bytes_in = 0
    _bytes_out = 0
    _first_byte = 0.0

    def __init__(self, visitor: VisitorConnection, request: Request, request_id: bytes) -> None:
        self.request = request
        self.complete = request.length == 0
        self._visitor = visitor
        self._factory: HTTPIngressFactory = visitor.factory
        self._id = request_id
        self._close = False
        seconds = self._factory.seconds
        self._started = seconds()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._id.decode()} {self._status or 'open'}>"

    # -- the request: for one that is refused there is nothing to do --------------------

    def request_body(self, data: bytes) -> None:
        """A piece of the request's body has come."""

    def request_end(self, trailers: Trailers) -> None:
        """The request is complete."""
        self.complete = True

    def _connected(self, connection: TargetConnection) -> None:
        """The target is reached: send it what there is of the request."""
        connection.abort()

    # -- the way to the target ----------------------------------------------------------

    def _connect(self, upstream: IUpstream) -> None:
        """Open a stream."""
        factory = self._factory
        connecting = self._connecting = upstream.connect(
            TargetFactory(factory.pool, upstream, factory.response_limits),
            self._visitor.origin(self.request, self.kind),
        )
        connecting.addCallbacks(self._opened, self._not_connected)
        connecting.addErrback(self._failed)

    def _opened(self, connection: TargetConnection) -> None:
        self._connecting = None
        if self._gone:
            connection.abort()
        else:
            self._connected(connection)

    def _not_connected(self, failure: Failure) -> None:
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

    def wait(self) -> None:
        """Set the time limit for what comes next."""
        if self._response is not None and self.complete:
            self._visitor.deadline = NEVER
        elif self.complete:
            self._visitor.await_response()
        else:
            self._visitor.await_body()

    def _continue(self) -> None:
        """Tell the visitor to send its body."""
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
        if self._response is None and len(events) == 3 and events[0].length:  # type: ignore[union-attr]
            self._respond_at_once(*events)  # type: ignore[arg-type]
            return
        out: list[bytes] = []
        chunked = self._chunked
        for event in events:
            kind = event.__class__
            if kind is bytes:
                self._bytes_out += len(event)  # type: ignore[arg-type]
                out.append(chunk(event) if chunked else event)  # type: ignore[arg-type]
            elif kind is Response:
                status = event.status  # type: ignore[union-attr]
                if status >= 200:
                    out.append(self._begin_response(event))  # type: ignore[arg-type]
                    chunked = self._chunked
                elif status == 101:
                    self._switch(event)  # type: ignore[arg-type]
                    return
                else:
                    self._interim(event, out)  # type: ignore[arg-type]
            else:
                if chunked:
                    out.append(last_chunk(event.trailers))  # type: ignore[union-attr]
                self._response_done = True
        if out:
            self._visitor.write(out[0] if len(out) == 1 else b"".join(out))
        if self._response_done and (self.complete or self._close):
            # Otherwise the rest of the request goes to the target first.
            self._finish()

    def _respond_at_once(self, response: Response, body: bytes, _: End) -> None:
        """All of a response whose length is told has come: what most responses are."""
        visitor = self._visitor
        data = self._begin_response(response) + body
        if self._close and self.complete:
            write_last(visitor.transport, data)
        else:
            visitor.write(data)
        self._bytes_out = len(body)
        self._response_done = True
        if self.complete or self._close:
            self._finish()

    def _interim(self, response: Response, out: list[bytes]) -> None:
        if response.status == 100:
            self._stop_expecting()
            self._early = False
            if self._continued or not self.request.expect_continue:
                return
            self._continued = True
        if self.request.minor:
            out.append(
                response_head(response, self.request, self._vhost, chunked=False, close=False)
            )

    def _begin_response(self, response: Response) -> bytes:
        request = self.request
        self._response = response
        self._status = response.status
        self.answered = True
        seconds = self._factory.seconds
        self._first_byte = seconds()
        if self._expecting is not None:
            self._stop_expecting()
        if response.chunked and request.minor:
            self._chunked = True
        visitor = self._visitor
        if not request.keep_alive or visitor.draining or self._ends_by_close(response):
            self._close = True
        if self.complete:
            visitor.deadline = NEVER
        else:
            # A final answer in place of 100 Continue: the visitor may send its body or not.
            self._early = True
            undecided = request.expect_continue and not self._continued
            self._close = self._close or undecided or not response.keep_alive
            visitor.await_body()
        return response_head(
            response, request, self._vhost, chunked=self._chunked, close=self._close
        )

    def _ends_by_close(self, response: Response) -> bool:
        """Whether only the end of the connection tells the visitor where the body ends."""
        return response.until_close or (response.chunked and not self.request.minor)

    def _switch(self, response: Response) -> None:
        """A 101; only a tunnel's target may be asked for one, for a websocket."""
        self._drop_target()
        self.refuse(TargetFailed("the target switched protocols unasked"))

    # -- ends ---------------------------------------------------------------------------

    def refuse(self, error: ExposrError) -> None:
        """Answer with an error, if nothing was answered before."""
        if not self._may_answer(self._status_of(error)):
            return
        body = self.request.method != b"HEAD"
        self._visitor.write(
            error_answer(
                self._status,
                error.code,
                self._id.decode(),
                close=self._close,
                body=body,
                detail=error.detail,
                retry_after=error.retry_after,
                fields=error.fields,
            )
        )
        self._finish()

    def _may_answer(self, status: int) -> bool:
        """Make an answer of ours the response; False where there is one already."""
        self._stop_expecting()
        if self._response_done:
            return False
        self._status = status
        self.answered = True
        self._response_done = True
        self._close = (
            self._close
            or not self.request.keep_alive
            or not self.complete
            or self._visitor.draining
        )
        self._first_byte = self._factory.seconds()
        return True

    def _status_of(self, error: ExposrError) -> int:
        return error.status

    def target_lost(self, reason: Failure, *, unheard: bool) -> None:
        """The target's connection ended before the response did.

        :param unheard: it was idle before this request, and has not answered a byte.
        """
        self._target = None
        if self.answered:
            self._write_log()
            # Where only the end of the connection tells the end of the body, a clean end would
            # make a cut look complete.
            self._visitor.cut(
                abort=self._response is not None and self._ends_by_close(self._response)
            )
        elif reason.check(RemoteProtocolError):
            self.refuse(TargetFailed("the target's response does not parse"))
        elif reason.check(StreamLimit):
            self.refuse(StreamLimit())
        elif reason.check(TargetFailed):
            self.refuse(TargetFailed())
        else:
            self.refuse(TargetRefused("the target closed the connection before it answered"))

    def visitor_lost(self, status: int = LEFT) -> None:
        """The visitor has gone, or breaks the protocol: stop the target's work."""
        self._give_up()
        self._write_log(self._status or status)

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

    def _give_up(self) -> None:
        """Let go of the target, in whatever state it is."""
        self._gone = True
        self._stop_expecting()
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        self._drop_target()

    def _drop_target(self) -> None:
        target, self._target = self._target, None
        if target is not None:
            target.abort()

    def _finish(self) -> None:
        """Both messages have ended, or what is left of the request is not wanted."""
        target, self._target = self._target, None
        if target is not None:
            if self._target_paused and target.alive:
                target.transport.resumeProducing()
            response = self._response
            if response is not None and response.keep_alive and self.complete and self.pooled:
                if target.bound or response.binds or self.request.binds:
                    self._keep(target)
                elif self._early or (self._status >= 400 and self.request.length != 0):
                    # It may not have read the body: that would begin the next visitor's request.
                    target.close()
                else:
                    target.release(response.idle_limit)
            else:
                target.close()
        self._write_log()
        self._visitor.exchange_done(close=self._close, unread=not self.complete)

    def _keep(self, target: TargetConnection) -> None:
        """Keep a connection on which the target knows its visitor, for his next requests. Not
        where he came by a proxy, whose next request may be somebody else's."""
        target.bound = True
        visitor = self._visitor
        if visitor.own is not target:
            if visitor.own is not None:
                visitor.own.close()
            visitor.own = target
        request = self.request
        if request.forwarding or self._factory.trust.trusts(visitor.believed(request).peer):
            target.close()
        else:
            target.set_aside()

    def _log_path(self) -> bytes:
        return self.request.target.partition(b"?")[0]

    def _write_log(self, status: int = 0) -> None:
        factory, request = self._factory, self.request
        if factory.access_log is None:
            return
        seconds = factory.seconds
        now, started = seconds(), self._started
        vhost = self._vhost
        factory.access_log.write(
            request.method,
            request.host,
            self._log_path(),
            status or self._status,
            self._bytes_in,
            self._bytes_out,
            ((self._first_byte or now) - started) * 1000,
            (now - started) * 1000,
            vhost.tunnel_id.encode() if vhost is not None else b"",
            self._id,
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
