"""The channels of one v2 connection: each an open stream, or one on its way.

Between a :class:`~exposr_tx.transport.session.Session`, which hands over the
events of its messages, and the :class:`~exposr_tx.transport.v2_stream.V2Stream` of
each channel, whose calls become messages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred, fail

from exposr_tx.errors import StreamLimit
from exposr_tx.transport.openings import Openings
from exposr_tx.transport.overdue import Overdue
from exposr_tx.transport.streams import Streams
from exposr_tx.transport.v2_stream import V2Stream
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
    from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTime

    from exposr_tx.interfaces import Origin
    from exposr_tx.transport.connection import MessageConnection

__all__ = ["CLOSE_TIMEOUT", "LINGER", "Channels"]

#: Seconds after which a CLOSE without ACK is forgotten.
CLOSE_TIMEOUT: Final = 1.0

#: Seconds between the last data of a stream and its CLOSE: what a peer has not
#: handed on when CLOSE arrives is lost (section C.6).
LINGER: Final = 0.05


class Channels(Streams):
    """The streams of a session that speaks version 2.

    :param mux: numbers the channels and makes their messages.
    :param barrier: calls back when the peer has seen everything sent so far.
    """

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
        super().__init__(connection, clock, factory, max_streams, fewer)
        self.barrier = barrier
        self._mux = mux
        self._streams: dict[int, V2Stream] = {}
        self._openings = Openings(clock, mux, connection.send, fewer)
        self._closing: Overdue[int] = Overdue(clock, CLOSE_TIMEOUT, mux.forget)
        self._lingering: Overdue[V2Stream] = Overdue(clock, LINGER, V2Stream.close_now)

    def __len__(self) -> int:
        """Streams that are open or being opened."""
        return len(self._streams) + len(self._openings.waiting)

    def open(
        self, factory: IProtocolFactory, origin: Origin, attachment: int = 0
    ) -> Deferred[IProtocol]:
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
        self._closing.clear()
        self._lingering.clear()
        streams, self._streams = self._streams, {}
        self._end_streams(streams, reason)
        self._openings.end(reason)

    # What the peer says ----------------------------------------------------

    def _data(self, event: Data) -> None:
        stream = self._streams.get(event.channel)
        if stream is not None:
            stream.data_received(event.data)

    def _opened(self, event: Opened) -> None:
        stream = V2Stream(self, event.channel, None)
        crowded = len(self) >= self._max_streams
        self._streams[event.channel] = stream
        if crowded or not self._run(stream, self._factory, self._connection.get_peer()):
            stream.abortConnection()

    def _accepted(self, event: Accepted) -> None:
        opening = self._openings.pop(event.channel)
        if opening is not None:
            stream = V2Stream(self, event.channel, opening.origin)
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

    def linger(self, stream: V2Stream) -> None:
        """Have the stream closed in a moment."""
        self._lingering.add(stream)


Channels.acts = {
    Accepted: Channels._accepted,
    Closed: Channels._closed,
    Data: Channels._data,
    Opened: Channels._opened,
    Paused: Channels._peer_paused,
    Rejected: Channels._rejected,
    Resumed: Channels._peer_resumed,
}
