"""HTTP ingress: what listens for visitors, and sends their requests on their ways.

A request for a host that a tunnel claims becomes a
:class:`~exposr_tx.ingress.tunnelled.TunnelExchange`, any other one a
:class:`~exposr_tx.ingress.local.LocalExchange` with the API.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory

from exposr_tx.deadlines import NEVER, Deadlines
from exposr_tx.errors import TunnelNotFound
from exposr_tx.ingress.forwarding import RequestWriter
from exposr_tx.ingress.local import LocalExchange
from exposr_tx.ingress.targets import Pool
from exposr_tx.ingress.trust import Trust
from exposr_tx.ingress.tunnelled import TunnelExchange
from exposr_tx.ingress.visitor import VisitorConnection
from exposr_tx.interfaces import IAccessLog, IRoutes, ITakeover, IUpstream
from exposr_tx.wire.http1 import RESPONSE_LIMITS, Heads, Limits, Request

if TYPE_CHECKING:
    from exposr_tx.ingress.guard import Guard

__all__ = ["HTTPIngressFactory", "Timeouts"]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Time limits of a visitor's connection, in seconds; 0 is never.

    :ivar head: for a request's head, from its first byte.
    :ivar response: from the request's end to the response's head.
    :ivar stall: without any progress of a body, in either direction.
    :ivar idle: between requests.
    """

    head: float = 10.0
    response: float = 300.0
    stall: float = 300.0
    idle: float = 75.0

    def __post_init__(self) -> None:
        for limit in fields(self):
            if not getattr(self, limit.name):
                object.__setattr__(self, limit.name, NEVER)


class HTTPIngressFactory(Factory):
    """Visitors' connections of one listening port.

    :param routes: hosts and tunnels; None where the port is the API's alone.
    :param api: where requests go that no tunnel claims; None where there is no API.
    :param takeover: the websocket transport's endpoint.
    :param node_id: this server's unguessable name, for loop detection.
    :param scheme: the scheme of public URLs.
    :param guard: asks policies about visitors; None where there are none.
    :param api_path: an API path as the access log may show it.
    :ivar requests: how many requests there have been.
    """

    noisy = False

    def __init__(
        self,
        clock: IReactorTime,
        deadlines: Deadlines,
        *,
        routes: IRoutes | None,
        api: IUpstream | None,
        takeover: ITakeover | None,
        access_log: IAccessLog | None,
        trust: Trust,
        node_id: str,
        scheme: str = "http",
        limits: Limits | None = None,
        response_limits: Limits = RESPONSE_LIMITS,
        timeouts: Timeouts | None = None,
        pool_idle: float = 60.0,
        api_path: Callable[[bytes], bytes] = bytes,
        guard: Guard | None = None,
    ) -> None:
        self.clock = clock
        # Functions that are attributes are called by a local name where every request passes:
        # with those CPython 3.11 takes a shortcut, 50 ns each.
        self.seconds = clock.seconds
        self.deadlines = deadlines
        self.routes = routes
        self.api = api
        self.takeover = takeover
        self.access_log = access_log
        self.trust = trust
        self.limits = limits or Limits()
        self.heads = Heads()
        self.response_limits = response_limits
        self.timeouts = timeouts or Timeouts()
        self.api_path = api_path
        self._tunnelled = TunnelExchange if guard is None else guard.exchange
        self.writer = RequestWriter(node_id.encode(), scheme.encode())
        self.pool = Pool(deadlines, pool_idle)
        self.connections: set[VisitorConnection] = set()
        self.requests = 0
        # Letters and digits only, so that nobody needs to look at it before it is quoted.
        self._id_form = os.urandom(6).hex().encode() + b"x%x"
        self._draining = False

    def buildProtocol(self, addr: IAddress | None) -> VisitorConnection:  # type: ignore[override]
        connection = VisitorConnection(self)
        connection.draining = self._draining
        return connection

    def next_id(self) -> bytes:
        """Count a request, and name it."""
        self.requests = number = self.requests + 1
        return self._id_form % number

    def exchange(
        self, visitor: VisitorConnection, request: Request, request_id: bytes
    ) -> TunnelExchange | LocalExchange:
        """What becomes of a request: it is a tunnel's or ours. Raises TunnelNotFound."""
        routes = self.routes
        if routes is not None:
            virtual_host, tunnelled = routes.virtual_host, self._tunnelled
            found = virtual_host(request.host.decode())
            if found is not None:
                return tunnelled(visitor, request, request_id, routes, found)
        if self.api is None:
            raise TunnelNotFound(request.host.decode())
        return LocalExchange(visitor, request, request_id, self.api, self.takeover)

    def drain(self) -> None:
        """Let every connection end after its request; new ones get one request each."""
        self._draining = True
        self.pool.close()
        for connection in list(self.connections):
            connection.drain()

    def abort(self) -> None:
        """Cut what is left."""
        for connection in list(self.connections):
            connection.cut(abort=True)
