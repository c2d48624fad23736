"""What the API must know of the server that it speaks for."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from exposr_tx.addresses import DEFAULT_PORTS, authority

__all__ = ["ApiSettings"]


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """The options that show in the API's answers.

    :ivar ingress_http_url: base of the tunnels' public URLs, ``http://tun.test:8080``.
    :ivar api_url: base of the websocket URLs; empty for the request's own host.
    :ivar ingress: the kinds of ingress that the server runs: ``http``, ``tcp``.
    :ivar transport: the transports that it runs: ``ws``.
    :ivar max_connections: ``--transport-max-connections``.
    :ivar allow_registration: whether anybody may create an account.
    :ivar ws_protocols: what clients may offer as a websocket subprotocol.
    :ivar policies: names of the packages that a tunnel may choose for its visitors; None where the
        server has no policies.
    """

    ingress_http_url: str
    api_url: str = ""
    ingress: frozenset[str] = frozenset({"http"})
    transport: frozenset[str] = frozenset({"ws"})
    max_connections: int = 2
    allow_registration: bool = False
    ws_protocols: tuple[str, ...] = ()
    policies: Callable[[], Collection[str]] | None = None

    def http_url(self, tunnel_id: str) -> str:
        """A tunnel's public URL, with a slash at its end."""
        parts = urlsplit(self.ingress_http_url)
        host = f"{tunnel_id}.{parts.hostname}"
        return f"{parts.scheme}://{authority(parts.scheme, host, parts.port)}/"

    def tcp_url(self, port: int) -> str:
        """The public URL of a TCP port."""
        host = urlsplit(self.ingress_http_url).hostname or "localhost"
        return f"tcp://{authority('tcp', host, port)}"

    def ws_url(self, base_url: str, tunnel_id: str, token: str) -> str:
        """Where a tunnel's client connects.

        :param base_url: ``scheme://host[:port]`` of the request that asks.
        """
        parts = urlsplit(self.api_url or base_url)
        scheme = "wss" if parts.scheme == "https" else "ws"
        host = parts.netloc.rpartition("@")[2].lower()
        host = host.removesuffix(f":{DEFAULT_PORTS.get(parts.scheme)}")
        return f"{scheme}://{host}/v1/tunnel/{tunnel_id}/ws-endpoint?t={token}"
