"""A request for a tunnel: its way to the target, and its body as it comes.

The stream to the target is an idle one of the same upstream where there is one.
After a 101 the visitor's connection and the stream are spliced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from exposr_tx.errors import (
    ExposrError,
    IngressDisabled,
    RemoteProtocolError,
    RequestLoop,
    StreamLimit,
    TunnelNotConnected,
    UpstreamGone,
)
from exposr_tx.ingress.exchange import Exchange, Trailers
from exposr_tx.ingress.forwarding import response_head
from exposr_tx.ingress.targets import TargetConnection
from exposr_tx.interfaces import IRoutes, IUpstream, VirtualHost
from exposr_tx.splice import Side, Splice
from exposr_tx.wire.http1 import Request, Response, chunk, last_chunk

if TYPE_CHECKING:
    from exposr_tx.ingress.visitor import VisitorConnection

__all__ = ["TunnelExchange"]

#: Seconds to wait for a target's ``100 Continue`` before the visitor gets ours.
CONTINUE_WAIT: Final = 1.0
#: Methods that may be sent once more when an idle stream turns out to be dead.
SAFE: Final = frozenset([b"GET", b"HEAD", b"OPTIONS"])


class TunnelExchange(Exchange):
    """A request whose host names a tunnel.

    :param vhost: the tunnel, or what will be it.
    """

    _held: list[bytes] | None = None
    _retried = False
    _moved = False
    _trailers: Trailers = ()
    _upstream: IUpstream | None = None

    def __init__(
        self,
        visitor: VisitorConnection,
        request: Request,
        request_id: bytes,
        routes: IRoutes,
        found: VirtualHost | Deferred[VirtualHost],
    ) -> None:
        Exchange.__init__(self, visitor, request, request_id)
        self._routes = routes
        self._found = found

    # -- finding the target -------------------------------------------------------------

    def begin(self) -> None:
        """Find the tunnel, and a connection to its target."""
        found = self._found
        if found.__class__ is VirtualHost:
            self._routed(found)
            return
        seeking = cast("Deferred[VirtualHost]", found)
        self._connecting = seeking
        seeking.addCallbacks(self._routed, self._failed)
        seeking.addErrback(self._failed)

    def _routed(self, vhost: VirtualHost) -> None:
        self._connecting = None
        self._vhost = vhost
        request, factory = self.request, self._factory
        choose = self._routes.choose
        try:
            upstream = choose(vhost.tunnel_id)
            if not vhost.enabled:
                raise IngressDisabled(vhost.tunnel_id)
            if request.forwarding and factory.writer.looped(self._visitor.believed(request)):
                raise RequestLoop(vhost.tunnel_id)
        except ExposrError as error:
            self.refuse(error)
            return
        self._upstream = upstream
        if not request.websocket:
            connection = self._visitor.own
            if connection is None or not connection.serves(vhost.tunnel_id):
                connection = factory.pool.take(upstream)
            if connection is not None:
                self._upstream = connection.upstream
                self._connected(connection)
                return
        self._connect(upstream)

    def _not_connected(self, failure: Failure) -> None:
        # The client went away before a byte was sent: another one of the tunnel may serve.
        if failure.check(UpstreamGone) and not self._moved and self._vhost is not None:
            self._retried = self._moved = True
            self._connecting = None
            self._upstream = self._routes.choose(self._vhost.tunnel_id)
            self._connect(self._upstream)
        else:
            self._failed(failure)

    def target_lost(self, reason: Failure, *, unheard: bool) -> None:
        """As for any exchange; but an idle stream may have been closed by its target just now,
        before the news came here. Then a request without a body that changes nothing is sent
        once more, on a fresh stream (RFC 9112 section 9.3.1, RFC 9110 section 9.2.2).

        A client that has not even begun with a stream says so: then any request may be tried on
        another connection, unless some of its body is gone."""
        fresh = self._target is not None and self._target.requests == 1
        if reason.check(StreamLimit, UpstreamGone) and fresh and self._response is None:
            self._target = None
            self._refused_by_client(reason)
        elif (
            unheard
            and not self._retried
            and self.request.method in SAFE
            and self.request.length == 0
            and self._upstream is not None
            and not reason.check(RemoteProtocolError)
        ):
            self._retried = True
            self._target = None
            self._connect(self._upstream)
        else:
            super().target_lost(reason, unheard=unheard)

    def _refused_by_client(self, reason: Failure) -> None:
        upstream, vhost = self._upstream, self._vhost
        if not (self._retried or self._bytes_in or vhost is None):
            self._retried = True
            try:
                upstream = self._routes.choose(vhost.tunnel_id)
            except ExposrError as error:
                self.refuse(error)
                return
        if upstream is not None and upstream is not self._upstream:
            self._upstream = upstream
            self._connect(upstream)
        elif reason.check(StreamLimit):
            self.refuse(StreamLimit())
        else:
            self.refuse(TunnelNotConnected())

    # -- the request --------------------------------------------------------------------

    def _connected(self, connection: TargetConnection) -> None:
        request = self.request
        self._target = connection
        connection.begin(self, request.method)
        head = self._visitor.head(request, self._vhost, self._id)
        if self._held:
            held, self._held = self._held, None
            if request.length is None:
                held = [chunk(piece) for piece in held]
            connection.transport.writeSequence([head, *held])
            self._visitor.let_read()
        else:
            connection.transport.write(head)
        if request.length is None and self.complete:
            connection.transport.write(last_chunk(self._trailers))
        if request.expect_continue:
            self._early = True  # unless it says 100
            self._expecting = self._factory.clock.callLater(CONTINUE_WAIT, self._no_continue)
        if self.complete:
            self._visitor.await_response()
        else:
            self._visitor.await_body()

    def _no_continue(self) -> None:
        self._expecting = None
        self._continue()

    def request_body(self, data: bytes) -> None:
        self._bytes_in += len(data)
        target = self._target
        if target is None:
            if not self._response_done:
                if self._held is None:
                    self._held = []
                self._held.append(data)
                self._visitor.hold_reading()
        elif target.alive:
            self._visitor.await_body()
            target.transport.write(chunk(data) if self.request.length is None else data)

    def request_end(self, trailers: Trailers) -> None:
        self.complete = True
        self._trailers = trailers
        target = self._target
        if target is None:
            return
        if self.request.length is None and target.alive:
            target.transport.write(last_chunk(trailers))
        if self._response_done:
            self._finish()
        else:
            self.wait()

    # -- after a 101 --------------------------------------------------------------------

    def _switch(self, response: Response) -> None:
        """The target has agreed to speak websocket: bytes pass unread from here on."""
        if not self.request.websocket or response.upgrade.lower() != b"websocket":
            super()._switch(response)
            return
        target, visitor = self._target, self._visitor
        assert target is not None
        self._status = 101
        self.answered = True
        self._first_byte = self._factory.seconds()
        head = response_head(response, self.request, self._vhost, chunked=False, close=False)
        visitor.write(head)
        inner, outer = Side(), Side()
        target.hand_over(inner)
        visitor.hand_over(outer, b"")

        def ended() -> None:
            self._bytes_in, self._bytes_out = outer.received, inner.received
            self._write_log()

        Splice(outer, inner, ended).start()
