"""The server's side of websockets: where clients connect."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet.defer import Deferred
from zope.interface import implementer

from exposr_tx.errors import (
    Draining,
    ExposrError,
    NoToken,
    TooManyFailures,
    TunnelNotFound,
)
from exposr_tx.interfaces import CloseCode, IAdmission, ITakeover, Origin
from exposr_tx.transport.connection import SHUTTING_DOWN
from exposr_tx.transport.journal import Journal
from exposr_tx.transport.websocket.carrier import Carrier
from exposr_tx.transport.websocket.settings import Silence, Timers, limits
from exposr_tx.transport.websocket.upstream import Link, Upstream
from exposr_tx.wire.native import (
    DIALECT,
    DIALECT_FIELD,
    MAX_STREAMS,
    SUBPROTOCOL,
    offers_native,
)

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocol, IReactorTime

__all__ = ["ServerProtocol", "WebsocketEndpoint"]

_PATH: Final = re.compile(rb"/v1/tunnel/([^/?]+)/ws-endpoint/?", re.IGNORECASE)

#: What of a client's handshake is declined by not looking at it: no extension and
#: no subprotocol is autobahn's to choose, and browsers' origins mean nothing here.
_DECLINED: Final = re.compile(
    rb"\r\n(?:Origin|Sec-WebSocket-(?:Extensions|Protocol)):[^\r\n]*", re.IGNORECASE
)


class ServerProtocol(Carrier, WebSocketServerProtocol):  # type: ignore[misc]
    """A client's connection on the server."""

    peer_masks = True
    factory: _ServerFactory

    def __init__(self, tunnel_id: str, origin: Origin, native: bool) -> None:
        super().__init__()
        self.tunnel_id = tunnel_id
        self.origin = origin
        self.native = native

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
        kind, body = self.refusal(reason)
        lines = [f"HTTP/1.1 {code} {HTTPStatus(code).phrase}", f"Content-Type: {kind}"]
        lines += [f"{name}: {value}" for name, value in responseHeaders or ()]
        lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
        self.transport.write("\r\n".join(lines).encode("latin-1") + body)

    def refusal(self, reason: str) -> tuple[str, bytes]:
        """What a client is told whose handshake is none: its media type and the body, without
        which existing clients wait for ever."""
        return "application/json", json.dumps({"error": "BAD_INPUT", "field": reason}).encode()

    def onOpen(self) -> None:
        self.limit_messages()
        link = Link(self, self.factory.endpoint)
        self.session = link.session
        link.start()


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
        options = {name: getattr(self, name) for name in ServerProtocol.CONFIG_ATTRS}
        self.build: type[ServerProtocol] = type(
            "ServerProtocol", (ServerProtocol,), {**options, "CONFIG_ATTRS": ()}
        )


@implementer(ITakeover)
class WebsocketEndpoint:
    """Where clients connect: ``/v1/tunnel/<id>/ws-endpoint?t=<token>``.

    :param admission: checks tokens and takes connections into service.
    :param clock: all timers.
    :param max_streams: streams open at once on all connections of one tunnel.

    :ivar upstreams: the connections that are open, one for each of their tunnels.
    """

    def __init__(
        self, admission: IAdmission, clock: IReactorTime, max_streams: int = MAX_STREAMS
    ) -> None:
        self.admission = admission
        self.clock = clock
        self.max_streams = max_streams
        self.draining = False
        self.journal = Journal(clock)
        self.upstreams: set[Upstream] = set()
        self._of_tunnel: dict[str, set[Upstream]] = {}
        self._factory = _ServerFactory(self, clock)

    def __repr__(self) -> str:
        state = "DRAINING" if self.draining else "OPEN"
        return f"<WebsocketEndpoint {state} {len(self.upstreams)} connections>"

    def add(self, upstream: Upstream) -> None:
        """A tunnel has a connection more."""
        self.upstreams.add(upstream)
        self._of_tunnel.setdefault(upstream.tunnel_id, set()).add(upstream)

    def remove(self, upstream: Upstream) -> None:
        """A tunnel has a connection less."""
        self.upstreams.discard(upstream)
        of_tunnel = self._of_tunnel.get(upstream.tunnel_id)
        if of_tunnel is not None:
            of_tunnel.discard(upstream)
            if not of_tunnel:
                del self._of_tunnel[upstream.tunnel_id]

    def upstreams_of(self, tunnel_id: str) -> Collection[Upstream]:
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
        tunnel_id = match[1].decode("latin-1")
        tokens = parse_qs(query.decode("latin-1")).get("t", [""])
        await self.admit_tunnel(tunnel_id, tokens[0], origin)
        protocol = self._factory.build(tunnel_id, origin, offers_native(fields))
        protocol.factory = self._factory
        return protocol

    def admit_tunnel(self, tunnel_id: str, token: str, origin: Origin) -> Deferred[None]:
        """Whether a client may connect a tunnel, by a connection or on one that it has.

        Errbacks with an ExposrError, whose code the client is told.
        """
        return Deferred.fromCoroutine(self._admit_tunnel(tunnel_id, token, origin))

    async def _admit_tunnel(self, tunnel_id: str, token: str, origin: Origin) -> None:
        if self.draining:
            raise Draining("the server is shutting down")
        try:
            if not token:
                raise NoToken("no token was shown")
            await self.admission.admit(tunnel_id, token, origin)
        except (Draining, TooManyFailures):
            # A server that ends says so itself, an address that is shut out was told of once.
            raise
        except ExposrError as error:
            self.journal.refused(tunnel_id, origin.peer, error)
            raise

    def go_away(self) -> None:
        """Tell all native clients that the server is about to go; the connections go on."""
        for upstream in list(self.upstreams):
            upstream.go_away()

    def close(self, code: int = CloseCode.GOING_AWAY, reason: str = SHUTTING_DOWN) -> None:
        """End all connections now, with their streams."""
        self.draining = True
        for upstream in list(self.upstreams):
            upstream.close(code, reason)
