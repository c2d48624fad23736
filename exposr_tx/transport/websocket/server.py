"""The server's side of websockets: where clients connect, and what they are for routing."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet.defer import Deferred, DeferredList, fail
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from exposr_tx.errors import (
    Draining,
    ExposrError,
    NoToken,
    StreamLimit,
    TooManyConnections,
    TooManyFailures,
    TunnelNotFound,
)
from exposr_tx.interfaces import IAdmission, ITakeover, IUpstream, Origin
from exposr_tx.transport.journal import Journal
from exposr_tx.transport.session import MAX_STREAMS, Session
from exposr_tx.transport.websocket.carrier import Carrier
from exposr_tx.transport.websocket.settings import Silence, Timers, limits
from exposr_tx.wire.mux import MuxV2
from exposr_tx.wire.native import (
    DIALECT,
    DIALECT_FIELD,
    SUBPROTOCOL,
    NativeMux,
    offers_native,
)

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTime

__all__ = ["WebsocketEndpoint", "WebsocketUpstream"]

_PATH: Final = re.compile(rb"/v1/tunnel/([^/?]+)/ws-endpoint/?", re.IGNORECASE)

#: What of a client's handshake is declined by not looking at it: no extension and
#: no subprotocol is autobahn's to choose, and browsers' origins mean nothing here.
_DECLINED: Final = re.compile(
    rb"\r\n(?:Origin|Sec-WebSocket-(?:Extensions|Protocol)):[^\r\n]*", re.IGNORECASE
)


class _ServerProtocol(Carrier, WebSocketServerProtocol):  # type: ignore[misc]
    """A client's connection on the server."""

    peer_masks = True
    factory: _ServerFactory

    def __init__(self, tunnel_id: str, origin: Origin, native: bool) -> None:
        super().__init__()
        self.tunnel_id = tunnel_id
        self.origin = origin
        self.native = native
        self.upstream: WebsocketUpstream | None = None

    def processHandshake(self) -> None:
        head, end, rest = self.data.partition(b"\r\n\r\n")
        if end:
            self.data = _DECLINED.sub(b"", head) + end + rest
        super().processHandshake()

    def onConnect(self, request: Any) -> tuple[None, dict[str, str]]:
        """Any request will do: the endpoint has admitted it."""
        agreed = {"Sec-WebSocket-Protocol": SUBPROTOCOL, DIALECT_FIELD: DIALECT}
        return None, agreed if self.native else {}

    def sendHttpErrorResponse(self, code: int, reason: str, responseHeaders: Any = None) -> None:
        # A refusal without a body leaves existing clients waiting for ever.
        body = b'{"error":"BAD_INPUT"}'
        lines = [f"HTTP/1.1 {code} Bad Request", "Content-Type: application/json"]
        lines += [f"{name}: {value}" for name, value in responseHeaders or ()]
        lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
        self.transport.write("\r\n".join(lines).encode("latin-1") + body)

    def onOpen(self) -> None:
        self.limit_messages()
        upstream = WebsocketUpstream(self, self.factory.endpoint)
        self.upstream = upstream
        self.session = upstream.session
        upstream.start()


class _ServerFactory(WebSocketServerFactory):
    log = Silence()

    def __init__(self, endpoint: WebsocketEndpoint, clock: IReactorTime) -> None:
        super().__init__(server="", reactor=clock)
        self.endpoint = endpoint
        self._batched_timer = Timers(clock)
        self.setProtocolOptions(
            webStatus=False, requireMaskedClientFrames=True, allowNullOrigin=True, **limits()
        )
        # Autobahn gives each protocol a copy of every option, and prints them all for a log that
        # nobody reads: 2 KB and a fifth of the time that it takes to accept a client.
        options = {name: getattr(self, name) for name in _ServerProtocol.CONFIG_ATTRS}
        self.build: type[_ServerProtocol] = type(
            "ServerProtocol", (_ServerProtocol,), {**options, "CONFIG_ATTRS": ()}
        )


@implementer(IUpstream)
class WebsocketUpstream:
    """A connected client as a way to its tunnel's target.

    :ivar accepting: False while draining, and once the connection is over.
    """

    _log = Logger()

    def __init__(self, protocol: _ServerProtocol, endpoint: WebsocketEndpoint) -> None:
        self.tunnel_id = protocol.tunnel_id
        self.peer = protocol.origin.peer
        self.accepting = True
        self.session = Session(
            protocol,
            NativeMux(is_server=True) if protocol.native else MuxV2(opener=True),
            endpoint.clock,
            max_streams=endpoint.max_streams,
            on_end=self._ended,
            on_going=self._going,
        )
        self._protocol = protocol
        self._endpoint = endpoint
        self._plugged = False
        self._gone = False

    def __repr__(self) -> str:
        return f"<WebsocketUpstream {self.tunnel_id} {self.session!r}>"

    @property
    def alive_at(self) -> int:
        return self.session.alive_at

    def start(self) -> None:
        """The websocket is open: ask to be taken into service."""
        self._endpoint.add(self)
        self.session.start()
        plugged = self._endpoint.admission.plug(self)
        plugged.addCallbacks(self._in_service, self._refused)
        plugged.addErrback(self._broken)

    def _in_service(self, _: object) -> None:
        self._plugged = True
        self._endpoint.journal.connected(
            self.tunnel_id, self.peer, len(self._endpoint.upstreams_of(self.tunnel_id))
        )
        if self._gone:
            self._unplug("")

    def _refused(self, reason: Failure) -> None:
        if isinstance(reason.value, TooManyConnections):
            self._endpoint.journal.refused(self.tunnel_id, self.peer, reason.value)
            self.close(1008, "unable to establish tunnel")
        elif reason.check(Draining):
            self.close(1001, "Server shutting down")
        else:
            self._broken(reason)

    def _broken(self, reason: Failure) -> None:
        self._log.failure(
            "cannot serve a connection of tunnel {tunnel}", reason, tunnel=self.tunnel_id
        )
        self.close(1011, "internal error")

    def _going(self) -> None:
        self.accepting = False

    def _ended(self, reason: str) -> None:
        self.accepting = False
        self._gone = True
        self._endpoint.remove(self)
        if self._plugged:
            self._unplug(reason)

    def _unplug(self, reason: str) -> None:
        self._plugged = False
        lost = self._protocol.ending()
        self._endpoint.journal.lost(
            self.tunnel_id,
            self.peer,
            len(self._endpoint.upstreams_of(self.tunnel_id)),
            lost.clean,
            lost.code,
            lost.reason or ("" if self._protocol.remoteCloseCode is not None else reason),
        )
        self._endpoint.admission.unplug(self, lost.clean)

    def connect(self, factory: IProtocolFactory, origin: Origin) -> Deferred[IProtocol]:
        """Open a stream; see IUpstream. The limit holds for all connections of the tunnel."""
        endpoint = self._endpoint
        streams = 0
        for upstream in endpoint.upstreams_of(self.tunnel_id):
            streams += len(upstream.session)
        if streams >= endpoint.max_streams:
            return fail(StreamLimit(f"the tunnel has {streams} streams"))
        return self.session.open_stream(factory, origin)

    def probe(self) -> Deferred[bool]:
        return self.session.probe()

    def close(self, code: int, reason: str) -> None:
        self.accepting = False
        self.session.close(code, reason)

    def drain(self) -> Deferred[None]:
        """Take no new streams; say goodbye (1001) when the last one has ended.

        A native client is told at once, so that it can be connected elsewhere by then.

        :return: fires then; :meth:`close` makes it fire at once.
        """
        self.accepting = False
        self.session.go_away("Server shutting down")
        drained = self.session.drained()
        drained.addCallback(lambda _: self.close(1001, "Server shutting down"))
        return drained


@implementer(ITakeover)
class WebsocketEndpoint:
    """Where clients connect: ``/v1/tunnel/<id>/ws-endpoint?t=<token>``.

    :param admission: checks tokens and takes connections into service.
    :param clock: all timers.
    :param max_streams: streams open at once on all connections of one tunnel.

    :ivar upstreams: the connections that are open.
    """

    def __init__(
        self, admission: IAdmission, clock: IReactorTime, max_streams: int = MAX_STREAMS
    ) -> None:
        self.admission = admission
        self.clock = clock
        self.max_streams = max_streams
        self.draining = False
        self.journal = Journal(clock)
        self.upstreams: set[WebsocketUpstream] = set()
        self._of_tunnel: dict[str, set[WebsocketUpstream]] = {}
        self._factory = _ServerFactory(self, clock)

    def __repr__(self) -> str:
        state = "DRAINING" if self.draining else "OPEN"
        return f"<WebsocketEndpoint {state} {len(self.upstreams)} connections>"

    def add(self, upstream: WebsocketUpstream) -> None:
        """A connection is open."""
        self.upstreams.add(upstream)
        self._of_tunnel.setdefault(upstream.tunnel_id, set()).add(upstream)

    def remove(self, upstream: WebsocketUpstream) -> None:
        """A connection is over."""
        self.upstreams.discard(upstream)
        of_tunnel = self._of_tunnel.get(upstream.tunnel_id)
        if of_tunnel is not None:
            of_tunnel.discard(upstream)
            if not of_tunnel:
                del self._of_tunnel[upstream.tunnel_id]

    def upstreams_of(self, tunnel_id: str) -> Collection[WebsocketUpstream]:
        """A tunnel's connections that are open."""
        return self._of_tunnel.get(tunnel_id, ())

    def claims(self, path: bytes) -> bool:
        return _PATH.fullmatch(path) is not None

    def admit(
        self, target: bytes, fields: list[tuple[bytes, bytes]], origin: Origin
    ) -> Deferred[IProtocol]:
        return Deferred.fromCoroutine(self._admit(target, fields, origin))

    async def _admit(
        self, target: bytes, fields: list[tuple[bytes, bytes]], origin: Origin
    ) -> IProtocol:
        path, _, query = target.partition(b"?")
        match = _PATH.search(path)
        if match is None:
            raise TunnelNotFound("this is not a tunnel's websocket endpoint")
        if self.draining:
            raise Draining("the server is shutting down")
        tunnel_id = match[1].decode("latin-1")
        tokens = parse_qs(query.decode("latin-1")).get("t")
        try:
            if not tokens:
                raise NoToken("the query has no t=<token>")
            await self.admission.admit(tunnel_id, tokens[0], origin)
        except (Draining, TooManyFailures):
            # A server that ends says so itself, an address that is shut out was told of once.
            raise
        except ExposrError as error:
            self.journal.refused(tunnel_id, origin.peer, error)
            raise
        protocol = self._factory.build(tunnel_id, origin, offers_native(fields))
        protocol.factory = self._factory
        return protocol

    def drain(self) -> Deferred[None]:
        """Refuse new connections, end each open one with its last stream.

        :return: fires when all have ended; :meth:`close` hurries them.
        """
        self.draining = True
        drains = DeferredList([upstream.drain() for upstream in list(self.upstreams)])
        return drains.addCallback(lambda _: None)

    def close(self, code: int = 1001, reason: str = "Server shutting down") -> None:
        """End all connections now, with their streams."""
        self.draining = True
        for upstream in list(self.upstreams):
            upstream.close(code, reason)
