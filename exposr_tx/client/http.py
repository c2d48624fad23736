"""HTTP as the client makes its REST calls with: by the given reactor, trust and connections.

Twisted's Agent and no more: what a client has loaded it keeps for as long as it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.web.client import URI, Agent
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from exposr_tx.client.named import Named
from exposr_tx.client.trust import Trust

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IProtocol, IProtocolFactory
    from twisted.web.iweb import IAgent

__all__ = ["agent_for"]

#: Seconds for a TCP connection to each of the server's addresses.
CONNECT_TIMEOUT = 5.0


@implementer(IAgentEndpointFactory)
class Endpoints:
    """Where calls go. In other people's programs they leave no lines in the log."""

    def __init__(
        self, trust: Trust, connector: Callable[[str, int], IStreamClientEndpoint]
    ) -> None:
        self._trust = trust
        self._connector = connector

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        host = uri.host.decode("ascii").strip("[]")
        endpoint = self._connector(host, uri.port)
        if uri.scheme == b"https":
            endpoint = self._trust.secured(endpoint, host)
        return Quiet(endpoint)


@implementer(IStreamClientEndpoint)
class Quiet:
    """Connects without "Starting factory" and "Stopping factory"."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        if isinstance(protocolFactory, Factory):
            protocolFactory.noisy = False
        return self._endpoint.connect(protocolFactory)


def agent_for(
    reactor: Any,
    trust: Trust,
    connector: Callable[[str, int], IStreamClientEndpoint] | None = None,
) -> IAgent:
    """What :class:`RestClient` makes its calls with.

    :param connector: makes the endpoint for a host and a port, without TLS;
        the reactor's connections unless given.
    """
    if trust.ca_file is not None:
        trust.roots()  # a bad file is told before the first call

    def by_name(host: str, port: int) -> IStreamClientEndpoint:
        return Named(reactor, host, port, timeout=CONNECT_TIMEOUT)

    return Agent.usingEndpointFactory(reactor, Endpoints(trust, connector or by_name))
