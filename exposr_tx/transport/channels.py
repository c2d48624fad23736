"""The channels of one connection: each an open stream, or one on its way.

Between a :class:`~exposr_tx.transport.session.Session`, which hands over the
events of its messages, and the :class:`~exposr_tx.transport.stream.Stream` of
each channel, whose calls become messages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionLost
from twisted.logger import Logger
from twisted.python.failure import Failure

from exposr_tx.errors import StreamLimit
from exposr_tx.transport.openings import Openings
from exposr_tx.transport.overdue import Overdue
from exposr_tx.transport.stream import Stream
from exposr_tx.transport.turns import Turns
from exposr_tx.wire.mux import (
    Accepted,
    Closed,
    Data,
    Dialect,
    Opened,
    Paused,
    Rejected,
    Resumed,
)

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IReactorTime

    from exposr_tx.interfaces import Origin
    from exposr_tx.transport.connection import MessageConnection

__all__ = ["CLOSE_TIMEOUT", "LINGER", "Channels"]

#: Seconds after which a CLOSE without ACK is forgotten.
CLOSE_TIMEOUT: Final = 1.0

#: Seconds between the last data of a stream and its CLOSE: what a peer has not
#: handed on when CLOSE arrives is lost (section C.6).
LINGER: Final = 0.05


class Channels:
    """The streams of a session.

    :param connection: carries the messages.
    :param mux: numbers the channels and makes their messages.
    :param factory: builds the protocol for each stream that the peer opens; None
        on the side that opens them.
    :param max_streams: further ones fail with StreamLimit.
    :param barrier: calls back when the peer has seen everything sent so far.
    :param fewer: called whenever there is a stream less.

    :ivar turns: whether the transport below is full, and which streams wait for it.
    :ivar streams_opened: streams ever opened; ``bytes_in``, ``bytes_out``: payload carried.
    :ivar dispatch: what is to be called with an event, by its class.
    """

    _log = Logger()

    def __init__(
        self,
        connection: MessageConnection,
        mux: Dialect,
        clock: IReactorTime,
        factory: IProtocolFactory | None,
        max_streams: int,
        barrier: Callable[[Callable[[], object]], None],
        fewer: Callable[[], None],
    ) -> None:
        self.turns = Turns()
        self.barrier = barrier
        self.streams_opened = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self._connection = connection
        self._mux = mux
        self._clock = clock
        self._factory = factory
        self._max_streams = max_streams
        self._fewer = fewer
        self._over = False
        self._streams: dict[int, Stream] = {}
        self._openings = Openings(clock, mux, connection.send, fewer)
        self._closing: Overdue[int] = Overdue(clock, CLOSE_TIMEOUT, mux.forget)
        self._lingering: Overdue[Stream] = Overdue(clock, LINGER, Stream.close_now)
        self.dispatch: dict[type, Callable[[Any], None]] = {
            Accepted: self._accepted,
            Closed: self._closed,
            Data: self._data,
            Opened: self._opened,
            Paused: self._peer_paused,
            Rejected: self._rejected,
            Resumed: self._peer_resumed,
        }

    def __repr__(self) -> str:
        return f"<Channels {'LOST' if self._over else 'OPEN'} {len(self._streams)} streams>"

    def __len__(self) -> int:
        """Streams that are open or being opened."""
        return len(self._streams) + len(self._openings.waiting)

    def open(self, factory: IProtocolFactory, origin: Origin) -> Deferred[IProtocol]:
        """Ask the peer for a stream; see ``Session.open_stream``."""
        if len(self) >= self._max_streams:
            return fail(StreamLimit(f"{self._max_streams} streams are open"))
        return self._openings.begin(factory, origin)

    def close_all(self) -> None:
        """Send the CLOSE of every stream; :meth:`end` follows."""
        for channel in self._streams:
            self._connection.send(self._mux.close(channel))

    def end(self, reason: str) -> None:
        """The connection is over, and every stream with it."""
        self._over = True
        self.turns.end()
        self._closing.clear()
        self._lingering.clear()
        failure = Failure(ConnectionLost(reason))
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.session_lost(failure)
        self._openings.end(reason)

    # What the peer says ----------------------------------------------------

    def _data(self, event: Data) -> None:
        stream = self._streams.get(event.channel)
        if stream is not None:
            self.bytes_in += len(event.data)
            stream.data_received(event.data)

    def _opened(self, event: Opened) -> None:
        stream = Stream(self, event.channel, None)
        protocol = None
        if self._factory is not None and len(self) < self._max_streams:
            try:
                protocol = self._factory.buildProtocol(self._connection.get_peer())
            except Exception:
                self._log.failure("no protocol for a stream that the peer has opened")
        self._streams[event.channel] = stream
        if protocol is None:
            stream.abortConnection()
        else:
            self.streams_opened += 1
            stream.start(protocol)

    def _accepted(self, event: Accepted) -> None:
        opening = self._openings.pop(event.channel)
        if opening is not None:
            stream = Stream(self, event.channel, opening.origin)
            self._streams[event.channel] = stream
            self.streams_opened += 1
            opening.accepted(stream)

    def _rejected(self, event: Rejected) -> None:
        self._openings.rejected(event.channel, event.reason)

    def _closed(self, event: Closed) -> None:
        stream = self._streams.pop(event.channel, None)
        if stream is not None:
            self._lingering.discard(stream)
            stream.peer_closed(event.reason)
            self._fewer()

    def _peer_paused(self, event: Paused) -> None:
        stream = self._streams.get(event.channel)
        if stream is not None:
            stream.peer_paused()

    def _peer_resumed(self, event: Resumed) -> None:
        stream = self._streams.get(event.channel)
        if stream is not None:
            stream.peer_resumed()

    # What streams ask for --------------------------------------------------

    def send_data(self, channel: int, data: bytes) -> None:
        self.bytes_out += len(data)
        self._connection.send(self._mux.data_head(channel, len(data)), data)

    def send_pause(self, channel: int) -> None:
        self._connection.send(self._mux.pause(channel))

    def send_resume(self, channel: int) -> None:
        self._connection.send(self._mux.resume(channel))

    def send_close(self, channel: int) -> None:
        stream = self._streams.pop(channel, None)
        if self._over or stream is None:
            return
        self._lingering.discard(stream)
        self._connection.send(self._mux.close(channel))
        self._closing.add(channel)
        self._fewer()

    def soon(self, call: Callable[..., object], *args: object) -> None:
        """Call outside of whatever is being called now."""
        self._clock.callLater(0, call, *args)

    def linger(self, stream: Stream) -> None:
        """Have the stream closed in a moment."""
        self._lingering.add(stream)

    def get_peer(self) -> IAddress:
        return self._connection.get_peer()

    def get_host(self) -> IAddress:
        return self._connection.get_host()
