"""One channel of a multiplexed connection, as a Twisted transport.

A :class:`Stream` stands between a Protocol (ingress's, a splice, anybody's) and
the :class:`~exposr_tx.transport.streams.Streams` of the connection that carries it.
It owns the flow control of its channel, in both directions; nothing here waits
for anything but its own peer and its connection's transport.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IAddress, IConsumer, IPushProducer, ITransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProducer, IProtocol, IPullProducer

    from exposr_tx.errors import ExposrError
    from exposr_tx.interfaces import Origin
    from exposr_tx.transport.streams import Streams

__all__ = ["HIGH_WATER", "QUANTUM", "RECEIVE_LIMIT", "SEND_LIMIT", "Stream", "as_bytes"]

#: Bytes kept for a protocol that has paused us before the peer is asked to pause.
HIGH_WATER: Final = 64 * 1024

#: Bytes kept for it at most: a peer that ignores PAUSE loses the stream.
RECEIVE_LIMIT: Final = 16 * 1024 * 1024

#: Bytes that may wait to be sent. Who writes that much without being a producer
#: that can be paused loses the stream.
SEND_LIMIT: Final = 64 * 1024 * 1024

#: Bytes of one DATA, and so those sent in one turn of a connection that was full: several streams
#: that wait take turns, and none waits long behind another's; heads are noise beside it.
QUANTUM: Final = 256 * 1024


def as_bytes(data: object) -> bytes:
    """What a protocol writes that is no ``bytes`` itself.

    Text and the like are refused here, where the one who wrote them hears of it: among the frames
    of other streams they would end the connection.
    """
    return bytes(memoryview(data))  # type: ignore[arg-type]


@implementer(ITransport, IPushProducer, IConsumer)
class Stream:
    """One channel; what its dialect decides is in a subclass.

    :ivar origin: where the stream comes from, as its opener said.
    :ivar disconnecting: whether loseConnection was called.
    """

    _log = Logger()

    __slots__ = (
        "__weakref__",
        "_channel",
        "_channels",
        "_delivering",
        "_ending",
        "_held",
        "_lost",
        "_open",
        "_paused",
        "_producer",
        "_producer_paused",
        "_pulling",
        "_received",
        "_received_size",
        "_sent",
        "_streaming",
        "_unsent",
        "_unsent_size",
        "_waiting",
        "disconnecting",
        "origin",
        "protocol",
    )

    def __init__(self, channels: Streams, channel: int, origin: Origin | None) -> None:
        self._channels = channels
        self._channel = channel
        self.origin = origin
        self.protocol: IProtocol | None = None
        self.disconnecting = False
        self._open = True  # neither side has closed
        self._lost = False  # the protocol knows, or is about to
        # Sending.
        self._unsent: deque[bytes] = deque()
        self._unsent_size = 0
        self._held = False  # the peer has paused us
        self._waiting = False  # in the line of streams that want to send
        self._sent = 0  # bytes that the peer may not have consumed
        self._producer: IProducer | None = None
        self._streaming = False
        self._producer_paused = False
        self._pulling = False
        # Receiving.
        self._received: deque[bytes] = deque()
        self._received_size = 0
        self._paused = False  # our protocol has paused us
        self._delivering = False
        self._ending: Failure | None = None  # connectionLost waits for received bytes

    def __repr__(self) -> str:
        state = "OPEN" if self._open else "CLOSED"
        return f"<Stream {self._channel} {state} of {self._channels!r}>"

    def start(self, protocol: IProtocol) -> None:
        """Connect the protocol; called when the channel is open."""
        self.protocol = protocol
        try:
            protocol.makeConnection(self)
        except Exception as error:
            self._failed(error)

    # ITransport: sending ---------------------------------------------------

    @property
    def connected(self) -> bool:
        return self._open

    def write(self, data: bytes) -> None:
        if not data or not self._open or (self.disconnecting and self._producer is None):
            return
        if data.__class__ is not bytes:
            data = as_bytes(data)
        channels = self._channels
        if self._unsent or self._held or channels.turns.full:
            self._keep(data)
            return
        if len(data) <= QUANTUM:
            self._sent += len(data)
            channels.send_data(self._channel, data)
        else:
            self._keep(data)
        if self._producer is not None and not self._streaming:
            self._pull()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def _keep(self, data: bytes) -> None:
        self._unsent.append(data)
        self._unsent_size += len(data)
        if self._unsent_size > SEND_LIMIT:
            self._log.warn("a stream is ended: {size} bytes wait for its peer", size=SEND_LIMIT)
            self.abortConnection()
            return
        if not self._held:
            self._wait()
        if self._unsent:
            self._pause_producer()

    def _wait(self) -> None:
        if not self._waiting:
            self._waiting = True
            self._channels.turns.wait(self)

    def flush(self) -> bool:
        """Send some of what waits; called in turns.

        :return: whether the stream wants another turn.
        """
        if not self._open or self._held:
            self._waiting = False
            return False
        if self._unsent:
            data = self._take(QUANTUM)
            self._sent += len(data)
            self._channels.send_data(self._channel, data)
            if self._unsent or (self._channels.turns.full and self._open):
                return True
        self._waiting = False
        self._go_on()
        return False

    def _take(self, size: int) -> bytes:
        """Up to ``size`` of the bytes that wait, small writes in one piece."""
        first = self._unsent.popleft()
        if len(first) < size and self._unsent:
            parts = [first]
            total = len(first)
            while self._unsent and total + len(self._unsent[0]) <= size:
                parts.append(self._unsent.popleft())
                total += len(parts[-1])
            first = b"".join(parts)
        elif len(first) > size:
            # A view, so that a large write is not copied again for each turn.
            view = memoryview(first)
            self._unsent.extendleft(
                bytes(view[i : i + size]) for i in range((len(first) - 1) // size * size, 0, -size)
            )
            first = bytes(view[:size])
        self._unsent_size -= len(first)
        return first

    def _go_on(self) -> None:
        """Nothing waits and the way is free: let the producer go on, or end."""
        if self._producer is None:
            if self.disconnecting:
                self._finish()
            return
        try:
            if self._streaming:
                self._resume_producer()
            else:
                self._pull()
        except Exception as error:
            self._failed(error)

    # ITransport: the rest --------------------------------------------------

    def loseConnection(self) -> None:
        """Close, after everything written (and a registered producer) has been sent."""
        if self.disconnecting:
            return
        self.disconnecting = True
        if not self._open:
            if self._ending is not None:
                self._discard()
                self._end_soon(self._ending)
        elif not self._unsent and not self._held and self._producer is None:
            self._finish()

    def abortConnection(self) -> None:
        """Close at once; what waits in either direction is lost."""
        self.disconnecting = True
        self._abort(ConnectionAborted())

    def getPeer(self) -> IAddress:
        """The visitor on the server; on the client the server's address."""
        return self._channels.get_peer() if self.origin is None else self.origin.peer

    def getHost(self) -> IAddress:
        return self._channels.get_host()

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing to do: frames go out as they are made."""

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Nothing to do: the session looks after its connection."""

    def getTcpKeepAlive(self) -> bool:
        return True

    def fail(self, error: ExposrError) -> None:
        """Close at once, and tell the peer why where the dialect can."""
        self.abortConnection()

    def _finish(self) -> None:
        """Everything is written: close, when that cannot hurt what was written."""
        raise NotImplementedError

    def _abort(self, error: Exception) -> None:
        if self._open:
            self._open = False
            self._channels.send_close(self._channel)
        elif self._ending is None:
            return
        self._discard()
        self._end_soon(Failure(error))

    # IConsumer -------------------------------------------------------------

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        if self._producer is not None:
            raise RuntimeError(f"{self!r} already has a producer: {self._producer!r}")
        if not self._open:
            producer.stopProducing()
            return
        self._producer = producer
        self._streaming = streaming
        self._producer_paused = False
        if not streaming:
            self._pull()
        elif self._unsent or self._held:
            self._pause_producer()

    def unregisterProducer(self) -> None:
        self._producer = None
        if self._open and self.disconnecting and not self._unsent and not self._held:
            self._finish()

    def _pause_producer(self) -> None:
        if self._producer is not None and self._streaming and not self._producer_paused:
            self._producer_paused = True
            producer: IPushProducer = self._producer  # type: ignore[assignment]
            producer.pauseProducing()

    def _resume_producer(self) -> None:
        if self._producer_paused:
            self._producer_paused = False
            producer: IPushProducer = self._producer  # type: ignore[assignment]
            producer.resumeProducing()

    def _pull(self) -> None:
        """Ask a pull producer for more until it is through, silent, or the way is blocked."""
        if self._pulling:
            return
        self._pulling = True
        try:
            while self._producer is not None and self._open:
                if self._unsent or self._held:
                    break
                if self._channels.turns.full:
                    self._wait()
                    break
                before = self._sent
                producer: IPullProducer = self._producer  # type: ignore[assignment]
                producer.resumeProducing()
                if self._sent == before:
                    break
        finally:
            self._pulling = False

    # IPushProducer: receiving ----------------------------------------------

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        if not self._delivering:
            self._deliver()

    def stopProducing(self) -> None:
        self.loseConnection()

    def _deliver(self) -> None:
        self._delivering = True
        try:
            while self._received and not self._paused:
                data = self._received.popleft()
                self._received_size -= len(data)
                self._give(data)
                self._taken(len(data))
        finally:
            self._delivering = False
        if self._received or self._paused:
            return
        if self._ending is not None:
            self._end(self._ending)
        else:
            self._all_delivered()

    def _give(self, data: bytes) -> None:
        assert self.protocol is not None
        try:
            self.protocol.dataReceived(data)
        except Exception as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        """The protocol or its producer has: as with TCP that ends the stream, and nothing else."""
        self._log.failure("the protocol of {stream!r} failed", stream=self)
        self._abort(error)

    def _taken(self, size: int) -> None:
        """The protocol has taken bytes that were kept for it."""

    def _all_delivered(self) -> None:
        """The protocol has taken everything, and wants more."""

    # What the channels tell ------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes of the peer's; they are kept while the protocol has paused us."""
        raise NotImplementedError

    def session_lost(self, reason: Failure) -> None:
        """The connection that carried the channel is gone."""
        self._open = False
        self._stop_sending()
        self._discard()
        self._end(reason)

    # Ending ----------------------------------------------------------------

    def _discard(self) -> None:
        self._received.clear()
        self._received_size = 0
        self._stop_sending()

    def _stop_sending(self) -> None:
        self._unsent.clear()
        self._unsent_size = 0
        producer, self._producer = self._producer, None
        if producer is not None:
            try:
                producer.stopProducing()
            except Exception:
                self._log.failure("the producer of {stream!r} failed when stopped", stream=self)

    def _end_soon(self, reason: Failure) -> None:
        # Never from inside the protocol's own call, as with any transport.
        if not self._lost:
            self._lost = True
            self._channels.soon(self._connection_lost, reason)

    def _end(self, reason: Failure) -> None:
        if not self._lost:
            self._lost = True
            self._connection_lost(reason)

    def _connection_lost(self, reason: Failure) -> None:
        self._ending = None
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            try:
                protocol.connectionLost(reason)
            except Exception:
                self._log.failure("a protocol failed when {stream!r} ended", stream=self)
