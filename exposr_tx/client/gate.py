"""Where the streams of a tunnel come in to a program's factory, until listening stops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.web.http import HTTPChannel
from zope.interface import implementer

from exposr_tx.interfaces import IReusable

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

__all__ = ["Gate"]


@implementer(IProtocolFactory)
class Gate:
    """Stands before a factory, and lets nobody in once it is closed.

    Protocols are given out as the factory made them: some programs exchange a
    transport's protocol, which a wrapper would not survive.
    """

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
        self._factory.doStop()

    def usher_out(self) -> None:
        """End the streams that are only kept for further use. To be called until all have ended."""
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
