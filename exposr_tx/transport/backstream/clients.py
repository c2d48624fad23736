"""All clients of one backstream server: who gets the next request."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from exposr_tx.errors import StreamLimit, TunnelNotConnected
from exposr_tx.interfaces import IAdmission, IRoutes, IUpstream, Origin, VirtualHost
from exposr_tx.transport.backstream.exchange import Exchange
from exposr_tx.transport.backstream.upstream import QUEUE, TUNNEL, JsonUpstream
from exposr_tx.wire.backstream import MAX_REQUEST_BODY

__all__ = ["Clients"]


@implementer(IAdmission, IRoutes)
class Clients:
    """The clients of one server, as who admits them and as who is asked for one of them.

    A client that is free goes before one that is busy; among equals it goes round.
    Limits and conflicts of exposr's tunnels do not concern them.

    :ivar waiting: requests for clients that take messages, the oldest first.
    """

    def __init__(self) -> None:
        self._upstreams: list[IUpstream] = []
        self._turn = 0
        self.waiting: deque[Exchange] = deque()
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

    def hand_out(self) -> None:
        """Let clients that are free take what waits; where there are none that could, say so."""
        takers = [each for each in self._upstreams if isinstance(each, JsonUpstream)]
        for upstream in takers:
            if not self.waiting:
                return
            upstream.next()
        while self.waiting and not takers:
            self.waiting.popleft().not_asked()
        if all(upstream.has_websockets is False for upstream in takers):
            for stream in [each for each in self.waiting if each.is_websocket]:
                self.waiting.remove(stream)
                stream.not_upgraded(501)

    def virtual_host(self, host: str) -> VirtualHost:
        """Every host is theirs; whose else it may be is asked before."""
        return self._vhost

    def able(self, websocket: bool, length: int) -> IRoutes:
        """These clients as one is chosen for a request that not every one of them can carry.

        :param websocket: whether it asks for a websocket.
        :param length: bytes of its body, as far as is known.
        """
        if length > MAX_REQUEST_BODY:
            return _Able(self, lambda client: not isinstance(client, JsonUpstream))
        if websocket:
            return _Able(self, _has_websockets)
        return self

    def choose(self, tunnel_id: str) -> IUpstream:
        """The client for a request; raises TunnelNotConnected, or StreamLimit where each has
        as many requests as may wait."""
        return self.choose_of(lambda _: True)

    def choose_of(self, able: Callable[[IUpstream], bool]) -> IUpstream:
        """The same of those that can carry it."""
        count = len(self._upstreams)
        best: IUpstream | None = None
        least = chosen = full = 0
        for step in range(1, count + 1):
            turn = (self._turn + step) % count
            upstream = self._upstreams[turn]
            if not upstream.accepting or not able(upstream):
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
        raise TunnelNotConnected(TUNNEL)


def _has_websockets(client: IUpstream) -> bool:
    """Whether a client carries websockets, as far as is known; those of ours do."""
    return not isinstance(client, JsonUpstream) or client.has_websockets is not False


@implementer(IRoutes)
class _Able:
    """Clients, of which those are chosen that can carry a request, while there are any."""

    def __init__(self, clients: Clients, able: Callable[[IUpstream], bool]) -> None:
        self._clients = clients
        self._able = able

    def virtual_host(self, host: str) -> VirtualHost:
        return self._clients.virtual_host(host)

    def choose(self, tunnel_id: str) -> IUpstream:
        try:
            return self._clients.choose_of(self._able)
        except TunnelNotConnected:
            return self._clients.choose(tunnel_id)
