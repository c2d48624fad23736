"""A program's factory as the target of replays, for as long as its tunnel is open."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IProtocolFactory
from zope.interface import implementer

from exposr_tx.inmemory import joined

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IProtocol

    from exposr_tx.inspector.service import Inspector

__all__ = ["Replayable", "connector_of"]

#: Who visits, as the program sees it, and what he visits.
HERE = IPv4Address("TCP", "127.0.0.1", 0)


def connector_of(reactor: Any, program: IProtocolFactory) -> Callable[[Any], Deferred[Any]]:
    """Connects to a program's own factory within the process, as an endpoint does."""

    def connect(factory: Any) -> Deferred[Any]:
        near, far = factory.buildProtocol(HERE), program.buildProtocol(HERE)
        if far is None:
            return fail(ConnectionRefusedError())
        ours, theirs = joined(reactor, near, HERE, far, HERE, lambda end: None)
        far.makeConnection(theirs)
        near.makeConnection(ours)
        return succeed(near)

    return connect


@implementer(IProtocolFactory)
class Replayable:
    """A factory that an inspector knows while a tunnel serves it.

    :param connect: where replays of its requests go.
    :param tunnel: gives the tunnel's name.
    """

    def __init__(
        self,
        factory: IProtocolFactory,
        inspector: Inspector,
        tunnel: Callable[[], str],
        connect: Callable[[Any], Deferred[Any]],
    ) -> None:
        self._factory = factory
        self._inspector = inspector
        self._tunnel = tunnel
        self._connect = connect
        self._forget: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        return f"<Replayable {self._factory!r}>"

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:
        return self._factory.buildProtocol(addr)  # type: ignore[arg-type]

    def doStart(self) -> None:
        self._factory.doStart()
        self._forget = self._inspector.add(self._tunnel, self._connect)

    def doStop(self) -> None:
        self._forget()
        self._factory.doStop()
