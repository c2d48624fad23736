"""A twisted.web Site in this process as an upstream: where ingress sends the API's requests.

Each stream is a pair of in-memory transports, one for ingress's protocol and
one for the Site's. Bytes arrive in a later turn of the reactor, never inside a
``write``, and producers are paused as on a socket. A stream has one visitor
(its Origin), so it is not to be kept for another one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IProducer,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    ITransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from exposr_tx.errors import UpstreamGone
from exposr_tx.interfaces import IUpstream, Origin

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime
    from twisted.web.server import Site

__all__ = ["SiteUpstream"]

#: Bytes on the way at which a producer is paused; it goes on when all have arrived.
HIGH_WATER = 65536
#: Bytes of a request's head that the Site takes; ingress has its own, smaller limit.
HEAD_LIMIT = 131072

#: What both ends call their own end of the stream.
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
        self._ends: set[_End] = set()

    def __repr__(self) -> str:
        return f"<SiteUpstream {len(self._ends)} streams>"

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

        visitor = _End(protocol, _HERE, origin, self._reactor, self._ends.discard)
        server = _End(channel, origin.peer, origin, self._reactor, self._ends.discard)
        visitor.other, server.other = server, visitor
        self._ends.add(visitor)
        channel.makeConnection(server)
        protocol.makeConnection(visitor)
        return succeed(protocol)

    def probe(self) -> Deferred[bool]:
        return succeed(self.accepting)

    def close(self, code: int, reason: str) -> None:
        """Take no new streams and end those that there are."""
        self.accepting = False
        for end in list(self._ends):
            end.abortConnection()


@implementer(ITransport, IConsumer, IPushProducer)
class _End:
    """One of the two transports of a stream.

    :ivar other: the end that gets what is written to this one.
    :ivar origin: whose stream it is.
    """

    other: _End
    disconnecting = False
    disconnected = False

    def __init__(
        self,
        protocol: IProtocol,
        peer: IAddress,
        origin: Origin,
        reactor: IReactorTime,
        ended: Callable[[_End], None],
    ) -> None:
        self.origin = origin
        self._protocol = protocol
        self._peer = peer
        self._reactor = reactor
        self._ended = ended
        self._sent: list[bytes] = []  # on the way to the other end
        self._sent_bytes = 0
        self._reading = True
        self._scheduled = False
        self._producer: Any = None
        self._streaming = False
        self._producer_paused = False

    def __repr__(self) -> str:
        state = "closed" if self.disconnected else "closing" if self.disconnecting else "open"
        return f"<SiteUpstream stream {state} {self._sent_bytes} bytes on the way>"

    # ITransport

    def write(self, data: bytes) -> None:
        if self.disconnected or self.disconnecting or not data:
            return
        self._sent.append(bytes(data))
        self._sent_bytes += len(data)
        if self._streaming and not self._producer_paused and self._sent_bytes >= HIGH_WATER:
            self._producer_paused = True
            self._producer.pauseProducing()
        self._schedule()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close when all that was written has arrived and no producer is left."""
        if not self.disconnected:
            self.disconnecting = True
            self._schedule()

    def abortConnection(self) -> None:
        """Close now, in the next turn of the reactor; what is on the way is lost."""
        if not self.disconnected:
            self.disconnecting = self.disconnected = True
            self.other.disconnected = True
            self._reactor.callLater(0, self._end, ConnectionAborted(), ConnectionLost())

    def getPeer(self) -> IAddress:
        return self._peer

    def getHost(self) -> IAddress:
        return _HERE

    # IPushProducer: what this end's protocol thinks of what it is given.

    def pauseProducing(self) -> None:
        self._reading = False

    def resumeProducing(self) -> None:
        self._reading = True
        self.other._schedule()

    def stopProducing(self) -> None:
        self.loseConnection()

    # IConsumer: who fills this end.

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        if self._producer is not None:
            raise RuntimeError("a producer is registered already")
        if self.disconnected:
            producer.stopProducing()
            return
        self._producer, self._streaming, self._producer_paused = producer, streaming, False
        if not streaming:
            self._schedule()

    def unregisterProducer(self) -> None:
        self._producer, self._streaming, self._producer_paused = None, False, False
        if self.disconnecting:
            self._schedule()

    # Inside

    def _schedule(self) -> None:
        if not self._scheduled and not self.disconnected:
            self._scheduled = True
            self._reactor.callLater(0, self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False
        if self.disconnected or (self._sent and not self.other._reading):
            return
        data, self._sent, self._sent_bytes = b"".join(self._sent), [], 0
        if data:
            self.other._protocol.dataReceived(data)
        if self._sent or self.disconnected:
            return
        if self._producer is not None and (self._producer_paused or not self._streaming):
            self._producer_paused = False
            self._producer.resumeProducing()
        if self.disconnecting and not self._sent and self._producer is None:
            self._end(ConnectionDone(), ConnectionDone())

    def _end(self, here: Exception, there: Exception) -> None:
        self.disconnected = self.other.disconnected = True
        for end, reason in ((self, here), (self.other, there)):
            producer, end._producer = end._producer, None
            end._sent, end._streaming = [], False
            end._ended(end)
            if producer is not None:
                producer.stopProducing()
            end._protocol.connectionLost(Failure(reason))
