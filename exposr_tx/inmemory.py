"""Connections in this process: two transports joined, without a network.

Ingress reaches the API's Site by them, and :mod:`exposr_tx.testing` everything.
Bytes arrive in a later turn of the reactor, never inside a ``write``, and
producers are paused as on a socket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableProtocol,
    IProducer,
    IPushProducer,
    ITCPTransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["MemoryTransport", "joined"]

#: Bytes on the way at which a producer is paused; it goes on when all have arrived.
HIGH_WATER: Final = 65536


def joined(
    clock: Any,
    near: Any,
    near_address: IAddress,
    far: Any,
    far_address: IAddress,
    over: Callable[[MemoryTransport], None],
) -> tuple[MemoryTransport, MemoryTransport]:
    """The transports of two protocols, which are still to be told of them.

    :param clock: bytes arrive in its next turn.
    :param near: a protocol; what the transport of ``far`` is given reaches it.
    :param over: called with each of the two when the connection has ended.
    """
    here = MemoryTransport(clock, near, near_address, far_address, over)
    there = MemoryTransport(clock, far, far_address, near_address, over)
    here.other, there.other = there, here
    return here, there


@implementer(ITCPTransport, IConsumer, IPushProducer)
class MemoryTransport:
    """One of the two transports of a connection.

    :ivar other: the one that gets what is written to this one.
    """

    other: MemoryTransport

    def __init__(
        self,
        clock: Any,
        protocol: Any,
        host: IAddress,
        peer: IAddress,
        over: Callable[[MemoryTransport], None],
    ) -> None:
        self.protocol = protocol
        self.connected = True
        self.disconnecting = False
        self._clock = clock
        self._host = host
        self._peer = peer
        self._over = over
        self._sent: list[bytes] = []  # on the way to the other end
        self._sent_bytes = 0
        self._reading = True
        self._half_closed = False  # we have said our last
        self._told = False  # and the other one knows
        self._due = False
        self._producer: Any = None
        self._streaming = False
        self._held = False

    def __repr__(self) -> str:
        state = "closed" if not self.connected else "closing" if self.disconnecting else "open"
        return f"<MemoryTransport {state} {self._sent_bytes} bytes on the way from {self._host}>"

    # ITCPTransport

    def write(self, data: bytes) -> None:
        if not self.connected or self._half_closed or not data:
            return
        self._sent.append(bytes(data))
        self._sent_bytes += len(data)
        if self._streaming and not self._held and self._sent_bytes >= HIGH_WATER:
            self._held = True
            self._producer.pauseProducing()
        self._schedule()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close when all that was written has arrived and no producer is left."""
        if self.connected:
            self.disconnecting = True
            self._schedule()

    def loseWriteConnection(self) -> None:
        self._half_closed = True
        self._schedule()

    def abortConnection(self) -> None:
        """Close in the next turn of the reactor; what is on the way is lost."""
        if self.connected:
            self.disconnecting = True
            self.connected = self.other.connected = False
            self._clock.callLater(0, self._end, ConnectionAborted(), ConnectionLost())

    def getPeer(self) -> Any:
        return self._peer

    def getHost(self) -> Any:
        return self._host

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing to do."""

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Nothing to do."""

    def getTcpKeepAlive(self) -> bool:
        return True

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
        if not self.connected:
            producer.stopProducing()
            return
        self._producer, self._streaming, self._held = producer, streaming, False
        if not streaming:
            self._schedule()

    def unregisterProducer(self) -> None:
        self._producer, self._streaming, self._held = None, False, False
        if self.disconnecting:
            self._schedule()

    # Inside

    def _schedule(self) -> None:
        if not self._due and self.connected:
            self._due = True
            self._clock.callLater(0, self._deliver)

    def _deliver(self) -> None:
        self._due = False
        if not self.connected or (self._sent and not self.other._reading):
            return
        data, self._sent, self._sent_bytes = b"".join(self._sent), [], 0
        if data:
            self.other.protocol.dataReceived(data)
        if self._sent or not self.connected:
            return
        if self._producer is not None and (self._held or not self._streaming):
            self._held = False
            self._producer.resumeProducing()
        if self._sent or self._producer is not None:
            return
        if self.disconnecting:
            self._end(ConnectionDone(), ConnectionDone())
        elif self._half_closed and not self._told:
            self._told = True
            other = IHalfCloseableProtocol(self.other.protocol, None)
            if other is None:
                self._end(ConnectionDone(), ConnectionDone())
            else:
                other.readConnectionLost()

    def _end(self, here: Exception, there: Exception) -> None:
        self.connected = self.other.connected = False
        for end, reason in ((self, here), (self.other, there)):
            producer, end._producer = end._producer, None
            end._sent, end._sent_bytes, end._streaming = [], 0, False
            end._over(end)
            if producer is not None:
                producer.stopProducing()
            end.protocol.connectionLost(Failure(reason))
