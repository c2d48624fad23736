"""A program's factory as the target of replays, for as long as its tunnel is open."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocolFactory
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IProtocol

    from exposr_tx.inspector.service import Inspector

__all__ = ["Replayable", "connector_of"]


def connector_of(reactor: Any, program: IProtocolFactory) -> Callable[[Any], Deferred[Any]]:
    """Connects to a program's own factory, as an endpoint's ``connect`` does.

    By a pair of sockets within the process: the program sees a peer without a name.
    """

    def connect(factory: Any) -> Deferred[Any]:
        for end, made in zip(socket.socketpair(), (program, factory), strict=True):
            with end:  # the reactor takes a duplicate
                end.setblocking(False)
                reactor.adoptStreamConnection(end.fileno(), end.family, made)
        return succeed(None)

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
