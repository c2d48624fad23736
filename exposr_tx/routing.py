"""From a visitor's host to a tunnel, and from a tunnel to a connected client.

:class:`VirtualHosts` knows which tunnel a host names. :class:`Switchboard` knows
which upstreams each tunnel has, gives them out in turn, and decides what happens
when a tunnel has more connections than it may. :class:`Routes` is both, as HTTP
ingress sees them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from exposr_tx.addresses import DEFAULT_PORTS, authority
from exposr_tx.errors import TooManyConnections, TunnelNotConnected, TunnelNotFound
from exposr_tx.interfaces import CloseCode, Connection, IRoutes, IUpstream, VirtualHost
from exposr_tx.tunnels import Tunnel, Tunnels

__all__ = ["Conflict", "Routes", "Switchboard", "VirtualHosts"]

Conflict: TypeAlias = Literal["share", "replace", "refuse"]

#: Seconds that a disconnect waits for the connections to be gone.
DISCONNECT_WAIT: Final = 0.5

#: Virtual hosts kept ready; beyond it they are worked out anew.
MAX_KNOWN: Final = 65536


def _authority(scheme: str, host: str, port: int | None) -> bytes:
    """``host[:port]`` in lower case, as it stands in a head."""
    shown = authority(scheme, host, port).lower()
    return shown.encode("ascii" if shown.isascii() else "idna")


class VirtualHosts:
    """Hosts of HTTP ingress: ``<tunnel-id>.<host of the ingress URL>``.

    :param ingress_url: ``scheme://host[:port]`` of ``--ingress-http-url``.
    :param guarded: whether policies are asked about visitors. Where they are not, a tunnel that
        has one is closed rather than open to everybody.
    """

    def __init__(self, tunnels: Tunnels, ingress_url: str, guarded: bool = False) -> None:
        self._tunnels = tunnels
        self._guarded = guarded
        parts = urlsplit(ingress_url)
        self._scheme = parts.scheme
        self._port = parts.port
        self._suffix = parts.hostname or ""
        self._known: dict[str, tuple[Tunnel, VirtualHost]] = {}
        tunnels.watch(lambda tunnel_id, old, new: self._forget(tunnel_id))

    def find(self, host: str) -> VirtualHost | Deferred[VirtualHost] | None:
        """The tunnel that a host names; None where the host is not ours.

        Errbacks with TunnelNotFound.
        """
        known = self._known.get(host)
        # Tunnels are frozen: the same object is the same tunnel, unchanged.
        if known is not None and self._tunnels.peek(known[0].id) is known[0]:
            return known[1]
        name, dot, suffix = host.partition(".")
        if suffix != self._suffix or not dot:
            return None
        tunnel = self._tunnels.peek(name)
        if tunnel is None:
            return Deferred.fromCoroutine(self._seek(name))
        return self._remember(tunnel)

    async def _seek(self, name: str) -> VirtualHost:
        return self._remember(await self._tunnels.get(name))

    def _remember(self, tunnel: Tunnel) -> VirtualHost:
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        vhost = self.of(tunnel)
        self._known[self._host(tunnel.id)] = (tunnel, vhost)
        return vhost

    def _forget(self, tunnel_id: str) -> None:
        self._known.pop(self._host(tunnel_id), None)

    def _host(self, tunnel_id: str) -> str:
        return f"{tunnel_id}.{self._suffix}"

    def of(self, tunnel: Tunnel) -> VirtualHost:
        """What ingress must know of a tunnel."""
        target: tuple[bytes, bytes] | None = None
        try:
            parts = urlsplit(tunnel.target_url or "")
            if parts.scheme in DEFAULT_PORTS and parts.hostname:
                there = _authority(parts.scheme, parts.hostname, parts.port)
                target = (parts.scheme.encode(), there)
        except (ValueError, UnicodeError):
            pass
        mode = tunnel.http.host_header
        if mode == "target":
            header = target[1] if target is not None else None
        else:
            header = None if mode == "preserve" else mode.encode("ascii", "replace")
        public = _authority(self._scheme, self._host(tunnel.id), self._port)
        return VirtualHost(
            tunnel.id,
            tunnel.http.enabled and (self._guarded or not tunnel.policy),
            header,
            target,
            (self._scheme.encode(), public),
            tunnel.policy,
            tunnel.account,
        )


class _Live:
    """The live state of one tunnel."""

    __slots__ = ("connected_at", "disconnected_at", "doubted", "turn", "upstreams")

    def __init__(self) -> None:
        self.upstreams: list[IUpstream] = []
        self.doubted: set[IUpstream] = set()
        self.turn = 0
        self.connected_at: int | None = None
        self.disconnected_at: int | None = None


class Switchboard:
    """The connected clients of every tunnel.

    :param now: epoch seconds; the clock's own may be any.
    :param max_connections: how many live connections a tunnel may have.
    :param conflict: what becomes of one more when all others are alive: it is taken too
        (``share``), takes the place of the oldest (``replace``), or is refused.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        now: Callable[[], float],
        max_connections: int,
        conflict: Conflict,
    ) -> None:
        self._clock = clock
        self._now = now
        self._max = max_connections
        self._conflict = conflict
        self._live: dict[str, _Live] = {}
        self._waiting: dict[str, list[Callable[[], None]]] = {}

    def __len__(self) -> int:
        return sum(len(live.upstreams) for live in self._live.values())

    @property
    def upstreams(self) -> list[IUpstream]:
        """Every connected upstream."""
        return [upstream for live in self._live.values() for upstream in live.upstreams]

    def _milliseconds(self) -> int:
        return int(self._now() * 1000)

    async def _drop_ghosts(self, live: _Live, newest: IUpstream) -> None:
        """Drop every older connection that does not answer; none is chosen meanwhile."""
        old = [upstream for upstream in live.upstreams if upstream is not newest]
        live.doubted.update(old)
        try:
            alive = await gatherResults([upstream.probe() for upstream in old])
        finally:
            live.doubted.difference_update(old)
        for upstream, answers in zip(old, alive, strict=True):
            if not answers:
                upstream.close(CloseCode.GOING_AWAY, "no sign of life")
                self.unplug(upstream, clean=False)

    async def plug(self, upstream: IUpstream) -> None:
        """Take an upstream into service; raises TooManyConnections.

        A tunnel at its limit is given a second to find out which of its connections are ghosts;
        the new one serves meanwhile.
        """
        live = self._live.setdefault(upstream.tunnel_id, _Live())
        live.upstreams.append(upstream)
        if live.connected_at is None or len(live.upstreams) == 1:
            live.connected_at = self._milliseconds()
        if len(live.upstreams) <= self._max or self._conflict == "share":
            return
        await self._drop_ghosts(live, upstream)
        if len(live.upstreams) <= self._max or upstream not in live.upstreams:
            return
        if self._conflict == "replace":
            live.upstreams[0].close(CloseCode.GOING_AWAY, "replaced by a newer connection")
            return
        self.unplug(upstream, clean=True)
        raise TooManyConnections(upstream.tunnel_id)

    def unplug(self, upstream: IUpstream, clean: bool) -> None:
        """The upstream is gone; harmless when it was never plugged."""
        live = self._live.get(upstream.tunnel_id)
        if live is None or upstream not in live.upstreams:
            return
        live.upstreams.remove(upstream)
        if live.upstreams:
            return
        live.disconnected_at = self._milliseconds()
        for wake in self._waiting.pop(upstream.tunnel_id, []):
            wake()

    def choose(self, tunnel_id: str) -> IUpstream:
        """The upstream for a new stream, in turn; raises TunnelNotConnected."""
        live = self._live.get(tunnel_id)
        if live is not None:
            upstreams, doubted = live.upstreams, live.doubted
            for _ in upstreams:
                live.turn = turn = (live.turn + 1) % len(upstreams)
                chosen = upstreams[turn]
                if chosen.accepting and not (doubted and chosen in doubted):
                    return chosen
        raise TunnelNotConnected(tunnel_id)

    def state(self, tunnel_id: str) -> Connection:
        """How a tunnel is connected now, or was last."""
        live = self._live.get(tunnel_id)
        if live is None:
            return Connection()
        alive = max((u.alive_at for u in live.upstreams), default=live.disconnected_at)
        return Connection(len(live.upstreams), live.connected_at, live.disconnected_at, alive)

    def disconnect(self, tunnel_id: str, reason: str) -> Deferred[bool]:
        """Close a tunnel's connections for good; fires with whether they are gone."""
        done: Deferred[bool] = Deferred()
        live = self._live.get(tunnel_id)
        if live is None or not live.upstreams:
            done.callback(True)
            return done

        def gone() -> None:
            late.cancel()
            done.callback(True)

        def too_late() -> None:
            self._waiting[tunnel_id].remove(gone)
            done.callback(tunnel_id not in self._live or not live.upstreams)

        late = self._clock.callLater(DISCONNECT_WAIT, too_late)
        self._waiting.setdefault(tunnel_id, []).append(gone)
        for upstream in list(live.upstreams):
            upstream.close(CloseCode.POLICY_VIOLATION, reason)
        return done

    def forget(self, tunnel_id: str) -> None:
        """A tunnel is deleted: nothing of it is remembered."""
        live = self._live.get(tunnel_id)
        if live is not None and not live.upstreams:
            del self._live[tunnel_id]


@implementer(IRoutes)
class Routes:
    """What HTTP ingress asks.

    :param api_host: the host of ``--api-url``, which goes to the API before ingress is asked;
        then hosts that nobody claims are not found. None: they go to the API.
    """

    def __init__(
        self, hosts: VirtualHosts | None, switchboard: Switchboard, api_host: str | None = None
    ) -> None:
        self._hosts = hosts
        self._api_host = api_host
        self.choose = switchboard.choose
        if hosts is not None and api_host is None:
            self.virtual_host = hosts.find  # type: ignore[method-assign]

    def virtual_host(self, host: str) -> VirtualHost | Deferred[VirtualHost] | None:
        """See IRoutes."""
        if host == self._api_host:
            return None
        found = self._hosts.find(host) if self._hosts is not None else None
        if found is None and self._api_host is not None:
            raise TunnelNotFound(host)
        return found
