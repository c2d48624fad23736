"""Connections that several tunnels of a program use together.

Stands between the tunnels' endpoints and the dialler: a tunnel that asks for a
connection is attached to one that another tunnel has opened to the same server,
where both ends speak the native dialect; otherwise it gets one of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from twisted.internet.defer import DeferredLock, TimeoutError

from exposr_tx.client.trust import Trust
from exposr_tx.transport.websocket import (
    AttachFailed,
    Attachment,
    AttachRefused,
    ClientConnection,
    Lost,
)

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocolFactory

__all__ = ["SharedConnections"]

#: Seconds for the server's answer; then the tunnel gets a connection of its own.
ATTACH_TIMEOUT: Final = 5.0


class _Dial(Protocol):
    """Opens a connection."""

    def __call__(
        self, url: str, factory: IProtocolFactory, native: bool = False
    ) -> Awaitable[ClientConnection]: ...


class SharedConnections:
    """What several tunnels are given so that they share connections.

    Tunnels of one server do; those of another server have others. It holds nothing
    while none is connected, and need not be closed.
    """

    def __init__(self) -> None:
        self._servers: dict[tuple[str, Trust], _Server] = {}

    def __repr__(self) -> str:
        servers = ", ".join(f"{url}: {server}" for (url, _), server in self._servers.items())
        return f"<SharedConnections {servers or 'none'}>"

    def dial_for(self, url: str, trust: Trust, clock: Any, dial: _Dial) -> _Sharing:
        """What dials for one tunnel of a server.

        :param url: the server's.
        :param trust: whom its tunnel believes that he is the server.
        :param dial: opens a connection for it.
        """
        server = self._servers.setdefault((url, trust), _Server())
        return _Sharing(server, clock, dial)


class _Server:
    """The connections to one server, and whose tunnels are on each.

    :ivar busy: one asks at a time, so that two that start together share.
    """

    def __init__(self) -> None:
        self.busy = DeferredLock()
        self.tunnels: dict[ClientConnection, set[str]] = {}

    def __repr__(self) -> str:
        names = ["+".join(sorted(tunnels)) for tunnels in self.tunnels.values()]
        return f"{len(names)} connections ({', '.join(names)})"

    def keep(self, attachment: Attachment, tunnel_id: str) -> Attachment:
        """A tunnel is on a connection, until it is lost there."""
        connection = attachment.connection
        self.tunnels.setdefault(connection, set()).add(tunnel_id)

        def lost(how: Lost) -> Lost:
            tunnels = self.tunnels.get(connection, set())
            tunnels.discard(tunnel_id)
            if not tunnels:
                self.tunnels.pop(connection, None)
            return how

        attachment.lost.addCallback(lost)
        return attachment


class _Sharing:
    """Dials for one tunnel."""

    def __init__(self, server: _Server, clock: Any, dial: _Dial) -> None:
        self._server = server
        self._clock = clock
        self._dial = dial

    def __repr__(self) -> str:
        return f"<_Sharing {self._server}>"

    async def dial(self, url: str, factory: IProtocolFactory, native: bool = False) -> Attachment:
        """As the dialler's ``dial``; the tunnel and its token are taken from the URL."""
        server = self._server
        tunnel_id, token = _ticket(url)
        await server.busy.acquire()
        try:
            if native and token:
                attachment = await self._attached(tunnel_id, token, factory)
                if attachment is not None:
                    return server.keep(attachment, tunnel_id)
            connection = await self._dial(url, factory, native)
            return server.keep(connection.first, tunnel_id)
        finally:
            server.busy.release()

    async def _attached(
        self, tunnel_id: str, token: str, factory: IProtocolFactory
    ) -> Attachment | None:
        for connection, tunnels in list(self._server.tunnels.items()):
            if tunnel_id in tunnels:
                continue
            asked = connection.attach(tunnel_id, token, factory)
            try:
                return await asked.addTimeout(ATTACH_TIMEOUT, self._clock)
            except AttachRefused:
                # Asking again would not help. A connection of its own may: this server may
                # attach nothing; and otherwise its answer is the one that everybody knows.
                break
            except (AttachFailed, TimeoutError):
                continue
        return None


def _ticket(url: str) -> tuple[str, str]:
    """Tunnel and token of ``ws://…/v1/tunnel/ID/ws-endpoint?t=TOKEN``; empty in any other URL."""
    try:
        parts = urlsplit(url)
        *_, tunnel, tunnel_id, endpoint = parts.path.rstrip("/").split("/")
        (token,) = parse_qs(parts.query)["t"]
    except (KeyError, ValueError):
        return "", ""
    return (
        (unquote(tunnel_id), token) if (tunnel, endpoint) == ("tunnel", "ws-endpoint") else ("", "")
    )
