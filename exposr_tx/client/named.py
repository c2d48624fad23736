"""A host by its name, as the client connects to it: a server, or a target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import TimeoutError
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IProtocol, IProtocolFactory

__all__ = ["Named"]

#: Seconds for a connection, look-up included; Twisted's for each address.
CONNECT_TIMEOUT: Final = 30.0


class Named(HostnameEndpoint):
    """A host by its name, with a limit to the look-up too. Twisted's own has none, and never ends
    where getaddrinfo fails with an OSError, as it does when no file descriptor is left."""

    def __init__(self, reactor: Any, host: str, port: int, **more: Any) -> None:
        super().__init__(reactor, host, port, **more)
        self._timer = reactor

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        connecting = super().connect(protocolFactory)
        return connecting.addTimeout(CONNECT_TIMEOUT, self._timer, _late)


def _late(result: IProtocol | Failure, seconds: float) -> IProtocol:
    if isinstance(result, Failure):
        raise TimeoutError(f"not within {seconds:.0f} s")
    return result
