"""A visitor's connection: one request after another, and the time limits of each phase.

Pipelined requests wait for their turn. What is no request is answered here;
what a request is about is its :class:`~exposr_tx.ingress.exchange.Exchange`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from twisted.internet.interfaces import IAddress, IPushProducer, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from exposr_tx.addresses import tcp_address, unwrapped
from exposr_tx.arrivals import Accepted
from exposr_tx.deadlines import NEVER
from exposr_tx.direct import close_directly, read_directly, writer_of
from exposr_tx.errors import ExposrError, RemoteProtocolError
from exposr_tx.ingress.answers import code_of, error_answer
from exposr_tx.ingress.exchange import Exchange
from exposr_tx.ingress.stall import Stall
from exposr_tx.ingress.targets import TargetConnection
from exposr_tx.ingress.trust import Visitor, host_text, tls_of
from exposr_tx.interfaces import Origin, Question, VirtualHost
from exposr_tx.wire.http1 import End, Event, Request, RequestParser

if TYPE_CHECKING:
    from exposr_tx.ingress.http import HTTPIngressFactory

__all__ = ["VisitorConnection"]

#: Bytes that may wait behind a request being answered before the connection is read no more.
MAX_PIPELINED: Final = 65536
#: Bytes of a refused request that are read and dropped, so that the answer is not lost to a reset.
MAX_LINGER: Final = 1 << 20
#: Seconds for that, and for the answer to be read: longer only as long as the visitor takes it.
LINGER: Final = 2.0
#: Seconds an idle connection has for one more request while the server drains.
DRAIN_IDLE: Final = 1.0


@implementer(IPushProducer)
class VisitorConnection(Protocol):
    """One visitor's connection.

    :ivar write: writes to the visitor.
    :ivar deadline: when to give up what is being waited for; see Deadlines.
    :ivar asked: the last request that a policy was asked about, where it went, and the question.
    :ivar holding: whether it is not read because there is no room for the request's body.
    :ivar own: the connection on which a target knows this visitor; for nobody else's requests.
    """

    transport: Any
    factory: HTTPIngressFactory
    write: Callable[[bytes], None]
    asked: tuple[Request, VirtualHost, Question] | None = None
    own: TargetConnection | None = None

    def __init__(self, factory: HTTPIngressFactory) -> None:
        self.factory = factory
        self.deadline = NEVER
        self.draining = False
        self._parser = RequestParser(factory.limits, factory.heads)
        self._exchange: Exchange | None = None
        self._handling = False
        self._again = False
        self._waits_for_head = False
        self._reading = True
        self.holding = self._closing = False
        self._lingered = 0
        self._stalled: Stall | None = None
        self._peer: str | None = None  # until it is asked for
        self._visitor: Visitor | None = None
        self._about: tuple[bytes, bytes] | None = None
        self._last: tuple[Request, VirtualHost | None, bytes] | None = None

    def __repr__(self) -> str:
        state = "closing" if self._closing else self._exchange or "idle"
        return f"<VisitorConnection {self._peer} {state}>"

    def connectionMade(self) -> None:
        transport = self.transport
        if isinstance(transport, Accepted):  # which is read in rounds already
            self._peer = unwrapped(transport.peer_host)
        else:
            if hasattr(transport, "setTcpNoDelay"):
                transport.setTcpNoDelay(True)
                transport.setTcpKeepAlive(1)
            read_directly(transport, self.dataReceived)
        transport.registerProducer(self, True)
        self.write = writer_of(transport)
        self.factory.connections.add(self)
        self.factory.deadlines.add(self)
        self._await(self.factory.timeouts.idle)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._forget()
        self._closing = True
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.visitor_lost()
        if self.own is not None:
            self.own.close()

    def _forget(self) -> None:
        self.factory.deadlines.remove(self)
        self.factory.connections.discard(self)

    # -- reading ------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        if self._closing:
            self._linger(len(data))
            return
        parser = self._parser
        try:
            events = parser.receive(data)
        except RemoteProtocolError as error:
            self._refuse_request(error)
            return
        if events:
            self._handle(events)
        if parser.rest:
            self._left_over()

    def _handle(self, events: list[Event]) -> None:
        """Act on what was read, and on what is behind a request that is done. A loop, as pipelined
        requests that are answered at once would otherwise nest without end."""
        self._handling = True
        while events:
            request = events[0]
            if request.__class__ is Request and request.length == 0:  # all of it is there
                self._begin(request)
                events = self._next() if self._again else []
                continue
            for event in events:
                if event.__class__ is Request:
                    self._begin(event)
                elif self._exchange is None:
                    pass  # it was answered already: what still comes of it is dropped
                elif event.__class__ is bytes:
                    self._exchange.request_body(event)
                elif not self._exchange.complete:
                    self._exchange.request_end(cast(End, event).trailers)
            events = self._next() if self._again else []
        self._handling = False

    def _begin(self, request: Request) -> None:
        factory = self.factory
        self._waits_for_head = False
        request_id = factory.next_id()
        visitor = self._visitor if not request.forwarding else None
        if visitor is None:
            visitor = self.believed(request)
        if visitor.request_id:
            request_id = visitor.request_id
        try:
            self._exchange = exchange = factory.exchange(self, request, request_id)
        except ExposrError as error:
            self._exchange = refused = Exchange(self, request, request_id)
            refused.refuse(error)
        else:
            exchange.begin()

    def _next(self) -> list[Event]:
        """Go on to what is behind the request that is done."""
        self._again = False
        if self._closing:
            return []
        try:
            events = self._parser.next_request()
        except RemoteProtocolError as error:
            self._refuse_request(error)
            return []
        if self._parser.rest and not events:
            self._left_over()
        if not self._reading:
            self._update_reading()
        return events

    def _left_over(self) -> None:
        """What came is not read to its end: the next request waits, or is not all there."""
        if self._exchange is not None:
            self._update_reading()
        elif self._parser.begun and not (self._waits_for_head or self._closing):
            # The rest of the head has so long to come, however slowly.
            self._waits_for_head = True
            self._await(self.factory.timeouts.head)

    def _refuse_request(self, error: RemoteProtocolError) -> None:
        exchange = self._exchange
        if exchange is not None:
            self._exchange = None
            answered = exchange.answered
            exchange.visitor_lost(error.http_status)
            if answered:
                self.cut(abort=False)
                return
        self.refuse(error.http_status, str(error), log=exchange is None)

    def refuse(self, status: int, detail: str, *, log: bool = True) -> None:
        """Answer what is no request, and close."""
        self._exchange = None
        factory = self.factory
        request_id = factory.next_id()
        self.write(
            error_answer(status, code_of(status), request_id.decode(), close=True, detail=detail)
        )
        if log and factory.access_log is not None:
            factory.access_log.write(b"-", b"", b"-", status, 0, 0, 0.0, 0.0, b"", request_id)
        self._shut(unread=True)

    # -- what an exchange asks for ------------------------------------------------------

    def believed(self, request: Request) -> Visitor:
        """Who sent the request; found out once for a connection without proxies' fields."""
        peer = self._peer
        if peer is None:  # only now, as with haproxy: it is in the connection's first bytes
            peer = self._peer = host_text(self.transport.getPeer())
        if request.forwarding:
            return self.factory.trust.visitor(peer, request.forwarding)
        if self._visitor is None:
            self._visitor = self.factory.trust.visitor_without_proxy(peer)
        return self._visitor

    def head(self, request: Request, vhost: VirtualHost | None, request_id: bytes) -> bytes:
        """The request's head for the target; ``vhost`` None is our own API."""
        last = self._last
        # A request that comes again is the same object: only its id is another one.
        if last is None or last[0] is not request or last[1] is not vhost:
            head = self.factory.writer.head(request, vhost, self._lines_about(request))
            last = self._last = (request, vhost, head)
        return b"%bX-Request-Id: %b\r\n\r\n" % (last[2], request_id)

    def _lines_about(self, request: Request) -> bytes:
        """The lines for the target that tell of the visitor."""
        if request.forwarding:
            return self.factory.writer.about(self.believed(request), request.authority)
        if self._about is None or self._about[0] != request.authority:
            lines = self.factory.writer.about_peer(self.believed(request), request.authority)
            self._about = (request.authority, lines)
        return self._about[1]

    def origin(self, request: Request, kind: str) -> Origin:
        """Where the request comes from, for whoever carries it."""
        visitor = self.believed(request)
        peer: IAddress = self.transport.getPeer()
        if visitor.ip != self._peer:
            peer = tcp_address(visitor.ip, 0)  # whose port is not known
        scheme = visitor.scheme or ("https" if ISSLTransport.providedBy(self.transport) else "http")
        authority = visitor.asked(request.authority).decode("ascii")
        # What a proxy has terminated is known to that only.
        tls = tls_of(self.transport, told=bool(visitor.scheme)) if scheme == "https" else None
        return Origin(kind, peer, f"{scheme}://{authority}", self.transport.getHost(), tls)

    def await_response(self) -> None:
        """The request is complete: the target has so long to answer."""
        factory = self.factory
        self.deadline = factory.deadlines.now + factory.timeouts.response

    def await_body(self) -> None:
        """The next piece of the request's body has so long to come."""
        self._await(self.factory.timeouts.stall)

    def hold_reading(self) -> None:
        """Read no more for now: there is no room for the body."""
        self.holding = True
        self._update_reading()

    def let_read(self) -> None:
        """There is room again."""
        if self.holding:
            self.holding = False
            self._update_reading()

    def exchange_done(self, *, close: bool, unread: bool) -> None:
        """The exchange is over; the next request may begin.

        :param unread: whether bytes of its request are still to come.
        """
        self._exchange = None
        self.holding = False
        if close:
            self._shut(unread=unread or bool(self._parser.rest))
            return
        factory = self.factory
        self.deadline = factory.deadlines.now + factory.timeouts.idle
        if self.draining:
            # It was not said in the response's head, so another request may be on its way.
            self.drain()
        if self._handling:
            self._again = True
        elif self._parser.rest or not self._reading:
            if events := self._next():
                self._handle(events)
        else:
            self._parser.next_request()  # there is nothing of it yet

    def cut(self, *, abort: bool) -> None:
        """End in the middle of a response, so that the visitor sees that it is not whole."""
        self._exchange = None
        if self._closing:
            return
        self._closing = True
        self.transport.unregisterProducer()
        self._resume()
        if not abort:
            self._watch(LINGER)
            self.transport.loseConnection()
        elif isinstance(self.transport, TLSMemoryBIOProtocol):
            # An abort would lose what was written in this turn: Twisted encrypts it in the next.
            # TLS that ends without saying so is as good a sign of a cut (RFC 9112 section 9.8).
            self._stalled = None
            self._await(LINGER)
            carrier: Any = self.transport.transport
            self.factory.clock.callLater(0, carrier.loseConnection)
        else:
            self.transport.abortConnection()

    def hand_over(self, protocol: Protocol, data: bytes) -> None:
        """Give the connection to another protocol, with ``data`` as the first it receives."""
        self._forget()
        self._exchange = None
        self.transport.unregisterProducer()
        self.holding = False
        if self.own is not None:
            self.own.close()
        rest = self._parser.take_rest()
        self._resume()
        # The transport holds on to this object; what it knows of requests, 3 KB, is not needed.
        del self._parser, self._visitor, self._about, self._last, self.write
        self.dataReceived = protocol.dataReceived  # type: ignore[method-assign]
        self.connectionLost = protocol.connectionLost  # type: ignore[method-assign]
        read_directly(self.transport, protocol.dataReceived)
        protocol.makeConnection(self.transport)
        if data or rest:
            protocol.dataReceived(data + rest)

    # -- ends ---------------------------------------------------------------------------

    def drain(self) -> None:
        """Close after the request that is being answered, or one that comes in a moment."""
        self.draining = True
        if self._exchange is None and not self._parser.begun:
            self.deadline = min(self.deadline, self.factory.deadlines.now + DRAIN_IDLE)

    def _shut(self, *, unread: bool) -> None:
        """Close after what was written; where the visitor is still sending, give it time to read
        the answer: closing with unread bytes would reset the connection and lose it."""
        if self._closing:
            return
        self._closing = True
        self.transport.unregisterProducer()
        self._resume()
        if unread and not ISSLTransport.providedBy(self.transport):
            self._watch(LINGER)
            self.transport.loseWriteConnection()
        elif not close_directly(self.transport):
            self._watch(self.factory.timeouts.stall)
            self.transport.loseConnection()

    def _linger(self, size: int) -> None:
        self._lingered += size
        if self._lingered > MAX_LINGER:
            # A reset would take the answer away from who has not read it yet.
            self.transport.pauseProducing()
            if self._stalled is None or self._stalled.seconds > LINGER:
                self._watch(LINGER)

    # -- time limits --------------------------------------------------------------------

    def _await(self, seconds: float) -> None:
        self.deadline = self.factory.deadlines.now + seconds

    def _watch(self, seconds: float) -> None:
        """Whoever takes nothing of what was written for so long is given up."""
        self._await(seconds)
        self._stalled = Stall(self.transport, self.deadline, seconds)

    def timed_out(self) -> None:
        """What was waited for has not come; called by Deadlines."""
        self.deadline = NEVER
        if self._stalled is not None:
            self._check_stall()
        elif self._closing:
            self.transport.abortConnection()
        elif self._exchange is not None:
            self._exchange.timed_out()
        elif self._parser.begun:
            self.refuse(408, "the request's head did not come in time")
        else:
            self._shut(unread=False)

    def _check_stall(self) -> None:
        """Give up on a visitor that reads nothing: not one byte has left since the last look."""
        assert self._stalled is not None
        stall = self._stalled
        if self.factory.deadlines.now < stall.until:
            self.deadline = stall.until  # what else was waited for comes after what was written
            return
        if stall.is_over(ending=self._closing):
            self._watch(stall.seconds)
            return
        exchange = self._exchange
        if exchange is not None:
            exchange.timed_out()
        else:
            self.transport.abortConnection()

    # -- back pressure ------------------------------------------------------------------

    def pauseProducing(self) -> None:
        if self._stalled is None:
            self._watch(self.factory.timeouts.stall)
        if self._exchange is not None:
            self._exchange.visitor_full()

    def resumeProducing(self) -> None:
        exchange = self._exchange
        if self._stalled is not None:
            self._stalled = None
            # The times of all phases begin anew: which one it was may be over by now.
            if exchange is not None:
                exchange.wait()
            else:
                timeouts = self.factory.timeouts
                self._await(timeouts.head if self._waits_for_head else timeouts.idle)
        if exchange is not None:
            exchange.visitor_drained()

    def stopProducing(self) -> None:
        """The connection is lost; connectionLost follows."""

    def _update_reading(self) -> None:
        reading = not self.holding and len(self._parser.rest) <= MAX_PIPELINED
        if reading != self._reading and not self._closing:
            self._reading = reading
            if reading:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def _resume(self) -> None:
        if not self._reading:
            self._reading = True
            self.transport.resumeProducing()
