"""A twisted.web Site in this process as an upstream: where ingress sends the API's requests.

Each stream is a connection in memory (:mod:`~exposr_tx.inmemory`) between ingress's protocol
and one of the Site's. It has one visitor (its Origin), so it is not to be kept for another one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from exposr_tx.errors import UpstreamGone
from exposr_tx.inmemory import MemoryTransport, joined
from exposr_tx.interfaces import IUpstream, Origin

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTime
    from twisted.web.server import Site

__all__ = ["SiteUpstream"]

#: Bytes of a request's head that the Site takes; ingress has its own, smaller limit.
HEAD_LIMIT = 131072

#: Where the Site is, for those who ask.
_HERE = IPv4Address("TCP", "127.0.0.1", 0)


@implementer(IUpstream)
class SiteUpstream:
    """Streams to a Site.

    :param site: gets a connection per stream, without its timeouts.
    :param reactor: for the turns of the reactor.
    :param now: epoch seconds.
    """

    tunnel_id = ""
    accepting = True

    def __init__(
        self, site: Site, reactor: IReactorTime, now: Callable[[], float] = time.time
    ) -> None:
        self._site = site
        self._reactor = reactor
        self._now = now
        self._streams: set[MemoryTransport] = set()

    def __repr__(self) -> str:
        return f"<SiteUpstream {len(self._streams)} streams>"

    @property
    def alive_at(self) -> int:
        """Epoch milliseconds; a Site in this process is always alive."""
        return int(self._now() * 1000)

    def connect(self, factory: IProtocolFactory, origin: Origin) -> Deferred[IProtocol]:
        """A protocol of the factory's, joined with a new channel of the Site's.

        The Site's end has ``transport.origin``, and the visitor as ``getPeer()``.
        Errbacks with UpstreamGone after :meth:`close`.
        """
        protocol = factory.buildProtocol(_HERE)
        channel = self._site.buildProtocol(origin.peer)
        if not self.accepting or protocol is None or channel is None:
            return fail(UpstreamGone("the API is closed"))
        # Ingress has deadlines and limits of its own, and writes its answers to
        # their violation; twisted.web would hang up without one.
        untyped = cast(Any, channel)
        untyped.timeOut = None
        http = getattr(untyped, "_channel", untyped)
        http.MAX_LENGTH = http.totalHeadersSize = HEAD_LIMIT

        visitor, server = joined(
            self._reactor, protocol, origin.peer, channel, _HERE, self._streams.discard
        )
        cast(Any, server).origin = origin
        self._streams.add(visitor)
        channel.makeConnection(server)
        protocol.makeConnection(visitor)
        return succeed(protocol)

    def probe(self) -> Deferred[bool]:
        return succeed(self.accepting)

    def close(self, code: int, reason: str) -> None:
        """Take no new streams and end those that there are."""
        self.accepting = False
        for end in list(self._streams):
            end.abortConnection()
