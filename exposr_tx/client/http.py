"""HTTP as the client makes its REST calls with: by the given reactor, trust and connections.

Twisted's Agent and no more: what a client has loaded it keeps for as long as it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer
from zope.interface import implementer

from exposr_tx.client.trust import Trust, https_policy

if TYPE_CHECKING:
    from twisted.internet.interfaces import IConsumer, IProtocol, IProtocolFactory
    from twisted.web.iweb import IAgent, IResponse

__all__ = ["Body", "agent_for", "body_of"]

#: Seconds for a TCP connection to each of the server's addresses.
CONNECT_TIMEOUT = 5.0


@implementer(IBodyProducer)
class Body:
    """A small body, sent at once. Twisted's own takes turns of the installed reactor."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """It is sent."""

    def resumeProducing(self) -> None:
        """It is sent."""

    def stopProducing(self) -> None:
        """It is sent."""


def body_of(response: IResponse, limit: int) -> Deferred[bytes]:
    """The body of a response, or so many bytes of it; cancelling hangs up."""
    gathering = _Gathering(limit)
    response.deliverBody(gathering)
    return gathering.done


class _Gathering(Protocol):
    """A body that is wanted whole, but not beyond a limit."""

    transport: Any

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self.done: Deferred[bytes] = Deferred(lambda _: self.transport.loseConnection())

    def dataReceived(self, data: bytes) -> None:
        self._pieces.append(data[: self._limit])
        self._limit -= len(self._pieces[-1])
        if not self._limit:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss) or not self._limit:
            self.done.callback(b"".join(self._pieces))
        else:
            self.done.errback(reason)


@implementer(IAgentEndpointFactory)
class Endpoints:
    """Where calls go. In other people's programs they leave no lines in the log."""

    def __init__(
        self, trust: Trust, connector: Callable[[str, int], IStreamClientEndpoint]
    ) -> None:
        self._policy = https_policy(trust)
        self._connector = connector

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        endpoint = self._connector(uri.host.decode("ascii").strip("[]"), uri.port)
        if uri.scheme == b"https":
            creator = self._policy.creatorForNetloc(uri.host, uri.port)
            endpoint = wrapClientTLS(creator, endpoint)
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
        return HostnameEndpoint(reactor, host, port, timeout=CONNECT_TIMEOUT)

    return Agent.usingEndpointFactory(reactor, Endpoints(trust, connector or by_name))
