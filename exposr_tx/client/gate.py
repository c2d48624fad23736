"""Where the streams of a tunnel come in to a program's factory, until listening stops."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.web.http import HTTPChannel
from zope.interface import implementer

from exposr_tx.interfaces import IReusable

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IReactorTime

__all__ = ["GRACE", "LOOK", "Gate"]

#: Seconds that streams get to end by themselves when a tunnel is closed in order.
GRACE: Final = 5.0
#: Seconds between two looks at what is still running.
LOOK: Final = 0.05


@implementer(IProtocolFactory)
class Gate:
    """Stands before a factory, and lets nobody in once it is closed.

    Protocols are given out as the factory made them: some programs exchange a
    transport's protocol, which a wrapper would not survive.
    """

    _log = Logger()

    def __init__(self, factory: IProtocolFactory) -> None:
        self._factory = factory
        self._inside: WeakValueDictionary[int, IProtocol] = WeakValueDictionary()
        self.closed = False

    def __repr__(self) -> str:
        return f"<Gate {'closed' if self.closed else 'open'} to {self._factory!r}>"

    # IProtocolFactory

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:
        if self.closed:
            return None
        protocol = self._factory.buildProtocol(addr)  # type: ignore[arg-type]
        try:
            self._inside[id(protocol)] = protocol  # type: ignore[assignment]
        except TypeError:
            pass  # None, or a class without weak references
        return protocol

    def doStart(self) -> None:
        self._factory.doStart()

    def doStop(self) -> None:
        try:
            self._factory.doStop()
        except Exception:  # what waits for the end would wait for ever
            self._log.failure("{factory!r} failed when it was stopped", factory=self._factory)

    async def emptied(
        self, clock: IReactorTime, running: Callable[[], int], grace: float = GRACE
    ) -> None:
        """Returns when nothing runs any more, or ``grace`` seconds are over.

        :param running: how much does.
        """
        end = clock.seconds() + grace
        while True:
            self._usher_out()
            if not running() or clock.seconds() >= end:
                return
            await deferLater(clock, LOOK, lambda: None)

    def _usher_out(self) -> None:
        """End the streams that are only kept for further use."""
        for protocol in list(self._inside.values()):
            kept = IReusable(protocol, None)
            if kept is not None:
                kept.end_idle()
                continue
            inner: Any = getattr(protocol, "wrappedProtocol", protocol)  # of one that is recorded
            channel: Any = getattr(inner, "_channel", inner)
            idle = isinstance(channel, HTTPChannel) and not channel.requests
            if idle and getattr(channel.transport, "connected", False):
                channel.loseConnection()
