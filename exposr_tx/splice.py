"""Two connections joined: what comes out of one goes into the other.

Used where bytes pass unread: TCP ingress, HTTP after a 101, the client's side
of every stream. Back pressure goes both ways, as each side is the push
producer of the other's transport. When one connection ends cleanly the other
is closed after what was written to it; when one breaks, the other is aborted,
so that a cut is never mistaken for an end. Where both connections can end one
half alone, as TCP's can, that is passed on as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    INegotiated,
    IPushProducer,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer

from exposr_tx.direct import read_directly, writer_of

__all__ = ["Side", "Splice"]


@implementer(IPushProducer)
class Side(Protocol):
    """One end of a splice, as the protocol of its transport.

    It pauses its transport until it is joined, and keeps what arrives all the same.

    :ivar alive: whether its transport is connected.
    :ivar received: bytes that came out of its transport.
    :ivar ended: why its transport ended.
    :ivar silent: whether no more bytes will come out of its transport, which may still take some.
    """

    transport: Any
    alive = False
    silent = False
    received = 0
    ended: Failure = connectionDone
    _write: Callable[[bytes], None]
    _peer: Side | None = None
    _held: bytes = b""
    _on_lost: Callable[[Side], None] | None = None
    _halves = False  # whether a half that ends is passed on

    def connectionMade(self) -> None:
        self.alive = True
        # A head and its body are two writes: Nagle's algorithm would hold the second one back
        # until the target's delayed acknowledgement, 40 ms for every POST.
        if hasattr(self.transport, "setTcpNoDelay"):  # a UNIX socket has none
            self.transport.setTcpNoDelay(True)
        self._write = writer_of(self.transport)
        read_directly(self.transport, self.dataReceived)
        if self._peer is None:
            self.transport.pauseProducing()

    def dataReceived(self, data: bytes) -> None:
        self.received += len(data)
        peer = self._peer
        if peer is None:
            self._held += data
        elif peer.alive:
            peer._write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.alive = False
        self.ended = reason
        vars(self).pop("dataReceived", None)  # it leads to the other side, and that back here
        if self._on_lost is not None:
            self._on_lost(self)

    def join(self, peer: Side, on_lost: Callable[[Side], None], counts: bool) -> None:
        """Send this side's bytes to ``peer`` from now on.

        :param counts: whether ``received`` will be asked for.
        """
        self._peer = peer
        self._on_lost = on_lost
        peer.transport.registerProducer(self, True)
        if self._held:
            held, self._held = self._held, b""
            peer.transport.write(held)
        receive = None if counts else self.straight_to(peer._write)
        if receive is not None:
            # Nothing else is done in between: a tenth of what the client does for a request.
            self.dataReceived = receive  # type: ignore[method-assign, assignment]
            read_directly(self.transport, receive)

    def straight_to(self, write: Callable[[bytes], None]) -> Callable[[bytes], None] | None:
        """What takes this side's bytes from now on, and writes them; None where that is
        :meth:`dataReceived`."""
        return write if type(self).dataReceived is Side.dataReceived else None

    def finish(self, reason: Failure) -> None:
        """The other side has ended: end this one the same way."""
        if not self.alive:
            return
        peer = self._peer
        if peer is not None and not (peer.silent and self._halves):
            self.transport.unregisterProducer()
        # A paused transport would not notice that its peer has gone, or answers TLS's goodbye.
        self.resumeProducing()
        self._held = b""
        if reason.check(ConnectionDone):
            self.transport.loseConnection()
        else:
            self.transport.abortConnection()

    def pauseProducing(self) -> None:
        if self.alive:
            self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        if self.alive and not self.silent:
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        if self.alive:
            self.transport.loseConnection()

    # IHalfCloseableProtocol, where the instance provides it ------------------

    def provide_halves(self) -> None:
        """Have the transport tell when one half of it ends, in place of ending as a whole."""
        directlyProvides(self, IHalfCloseableProtocol)

    def readConnectionLost(self) -> None:
        self.silent = True
        if self._peer is not None:
            self.end_half()

    def writeConnectionLost(self) -> None:
        """The other side has caused it."""

    def end_half(self) -> None:
        """This side is silent: so far as it listened to this one, the other is through."""
        peer = self._peer
        if peer is None or not peer.alive:
            return
        if not self._halves:
            peer.finish(connectionDone)
            return
        peer.transport.unregisterProducer()
        if peer.silent:
            peer.transport.loseConnection()
            self.transport.loseConnection()
        else:
            peer.transport.loseWriteConnection()


def _has_halves(transport: Any) -> bool:
    """TCP has, and streams where the dialect has; TLS only looks like the TCP under it."""
    return hasattr(transport, "loseWriteConnection") and not INegotiated.providedBy(transport)


class Splice:
    """Joins two sides that are connected.

    :param on_end: called once, when both have ended.
    :param counts: whether anybody will ask the sides how much they have received.
    :param halves: whether one half of a side may end alone, and the other half go on.
    """

    def __init__(
        self,
        a: Side,
        b: Side,
        on_end: Callable[[], object] | None = None,
        counts: bool = True,
        halves: bool = False,
    ) -> None:
        self._halves = halves and _has_halves(a.transport) and _has_halves(b.transport)
        self._sides = (a, b)
        self._on_end = on_end
        self._counts = counts

    def start(self) -> None:
        """Let the bytes flow; where one side has ended meanwhile, end the other."""
        a, b = self._sides
        if a.alive and b.alive:
            a.join(b, self._lost, self._counts)
            b.join(a, self._lost, self._counts)
            if self._halves:
                for side in self._sides:
                    side._halves = True
                    if not IHalfCloseableProtocol.providedBy(side):
                        side.provide_halves()
            # Only now: resuming may deliver at once, and end what is being joined.
            silent = [side for side in self._sides if side.silent]
            a.resumeProducing()
            b.resumeProducing()
            for side in silent:
                side.end_half()
        else:
            self._lost(b if a.alive else a)

    def _lost(self, side: Side) -> None:
        a, b = self._sides
        other = b if side is a else a
        other._on_lost = self._last
        if other.alive:
            other.finish(side.ended)
        else:
            self._last(other)

    def _last(self, side: Side) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end()
