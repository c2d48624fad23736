"""How the client reaches its server's websocket endpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from exposr_tx.client.answers import ServerUnreachable, unreachable
from exposr_tx.client.named import Named
from exposr_tx.client.trust import Trust
from exposr_tx.transport.websocket import ClientConnection, ConnectFailed, UpgradeRefused, connect

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint

__all__ = ["Dialler"]

#: Seconds for a TCP connection to each of the server's addresses.
CONNECT_TIMEOUT = 10.0

#: What a refusal without a body means; existing servers send none.
_REFUSALS: Final = {
    401: "the tunnel's token is not valid; a new one is asked for",
    403: "this client may not connect",
    404: "it has no websocket there; is a proxy in between?",
    503: "it is starting or shutting down",
}


class Dialler:
    """Opens connections to websocket URLs; names are looked up each time.

    :param trust: what ``wss:`` is verified by.
    :param server: the API's URL.
    :param warn: told once when the API is encrypted and the websocket is not.
    :param connector: makes the endpoint for a host and a port, before TLS; the
        reactor's connections unless given.
    """

    def __init__(
        self,
        reactor: Any,
        trust: Trust,
        server: str,
        warn: Callable[[str], object],
        connector: Callable[[str, int], IStreamClientEndpoint] | None = None,
    ) -> None:
        self._reactor = reactor
        self._trust = trust
        self._server = server
        self._warn = warn
        self._connector = connector or self._hostname
        self._warned = False

    def __repr__(self) -> str:
        return f"<Dialler for {self._server}>"

    async def dial(
        self, url: str, factory: IProtocolFactory, native: bool = False
    ) -> ClientConnection:
        """A connection whose streams go to the factory's protocols.

        :param native: whether the server knows the native dialect.
        Raises ServerUnreachable; the URL, which holds a token, is in no message.
        """
        try:
            parts = urlsplit(url)
            secure, host = parts.scheme == "wss", parts.hostname or ""
            port = parts.port or (443 if secure else 80)
            if not host:
                raise ValueError
        except ValueError:
            raise ServerUnreachable("the server gave a websocket URL that is not valid") from None
        if not secure and self._server.startswith("https:") and not self._warned:
            self._warned = True
            self._warn(
                "the server's websocket URL is not encrypted though its API is; its operator "
                "should give it --api-url https://…, or --trusted-proxy for the proxy in front"
            )
        endpoint: Any = self._connector(host, port)
        if secure:
            endpoint = self._trust.secured(endpoint, host)
        try:
            return await connect(endpoint, url, factory, self._reactor, offers_native=native)
        except UpgradeRefused as refused:
            why = refused.error or _REFUSALS.get(refused.http_status, "without a reason")
            raise ServerUnreachable(
                f"the server refuses the connection ({refused.http_status}: {why})"
            ) from None
        except ConnectFailed as failed:
            # A server that ends, or a proxy that does, while it answers: it may be back soon.
            raise ServerUnreachable(
                f"the server {parts.scheme}://{parts.netloc} opens no websocket: {failed}"
            ) from None
        except Exception as error:
            raise unreachable(f"{parts.scheme}://{parts.netloc}", error) from None

    def _hostname(self, host: str, port: int) -> IStreamClientEndpoint:
        return Named(self._reactor, host, port, timeout=CONNECT_TIMEOUT)
