"""The streams of one message connection: what runs between a websocket and its Streams.

A :class:`Session` drives a multiplex dialect of ``wire`` over one connection that
carries messages, and gives each channel a
:class:`~exposr_tx.transport.stream.Stream`. It knows neither autobahn nor HTTP.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from exposr_tx.errors import RemoteProtocolError, StreamLimit, UpstreamGone
from exposr_tx.transport.liveness import Liveness
from exposr_tx.transport.openings import Openings
from exposr_tx.transport.overdue import Overdue
from exposr_tx.transport.stream import Stream
from exposr_tx.transport.turns import Turns
from exposr_tx.wire.mux import (
    Accepted,
    Closed,
    Data,
    Dialect,
    Event,
    Opened,
    Paused,
    Rejected,
    Reply,
    Resumed,
)

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IReactorTime

    from exposr_tx.interfaces import Origin
    from exposr_tx.transport.connection import MessageConnection

__all__ = ["CLOSE_TIMEOUT", "LINGER", "MAX_STREAMS", "MAX_UNREAD_REPLIES", "Session"]

#: Streams open at once on one session.
MAX_STREAMS: Final = 4096

#: Seconds after which a CLOSE without ACK is forgotten.
CLOSE_TIMEOUT: Final = 1.0

#: Seconds between the last data of a stream and its CLOSE: what a peer has not
#: handed on when CLOSE arrives is lost (section C.6).
LINGER: Final = 0.05

#: Bytes of answers that may pile up for a peer that sends but does not read.
MAX_UNREAD_REPLIES: Final = 1024 * 1024


@implementer(IPushProducer)
class Session:
    """One peer's streams.

    :param connection: carries the messages.
    :param mux: the dialect that is spoken on it.
    :param clock: all timers.
    :param factory: builds the protocol for each stream that the peer opens; None
        on the side that opens them.
    :param max_streams: further ones fail with StreamLimit.
    :param watches_server: see :class:`~exposr_tx.transport.liveness.Liveness`.
    :param on_end: called once, with the reason, when the session is over; its
        streams have ended then.
    :param wall_clock: epoch seconds, for ``alive_at``.

    :ivar turns: whether the transport below is full, and which streams wait for it.
    :ivar streams_opened: streams ever opened; ``bytes_in``, ``bytes_out``: payload carried.
    """

    _log = Logger()

    def __init__(
        self,
        connection: MessageConnection,
        mux: Dialect,
        clock: IReactorTime,
        factory: IProtocolFactory | None = None,
        max_streams: int = MAX_STREAMS,
        watches_server: bool = False,
        on_end: Callable[[str], None] | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.connection = connection
        self.turns = Turns()
        self.streams_opened = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self._mux = mux
        self._clock = clock
        self._factory = factory
        self._max_streams = max_streams
        self._on_end = on_end
        self._liveness = Liveness(clock, connection.ping, self.fail, watches_server, wall_clock)
        self._streams: dict[int, Stream] = {}
        self._openings = Openings(clock, mux, connection.send, self._check_idle)
        self._closing: Overdue[int] = Overdue(clock, CLOSE_TIMEOUT, mux.forget)
        self._lingering: Overdue[Stream] = Overdue(clock, LINGER, Stream.close_now)
        self._unread_replies = 0
        self._started = False
        self._over: Failure | None = None
        self._idle: list[Deferred[None]] = []
        # What the connection tells of the peer's life goes straight to who judges it.
        self.heard = self._liveness.heard
        self.ping_received = self._liveness.sign
        self.pong_received = self._liveness.pong
        self.barrier = self._liveness.barrier
        self._dispatch: dict[type, Callable[[Any], None]] = {
            Accepted: self._accepted,
            Closed: self._closed,
            Data: self._data,
            Opened: self._opened,
            Paused: self._peer_paused,
            Rejected: self._rejected,
            Reply: self._reply,
            Resumed: self._peer_resumed,
        }

    def __repr__(self) -> str:
        state = "LOST" if self._over else "OPEN" if self._started else "NEW"
        return f"<Session {state} {len(self._streams)} streams>"

    def __len__(self) -> int:
        """Streams that are open or being opened."""
        return len(self._streams) + len(self._openings)

    @property
    def alive_at(self) -> int:
        """Epoch milliseconds when the peer was last heard."""
        return self._liveness.alive_at

    @property
    def is_open(self) -> bool:
        return self._started and self._over is None

    def get_peer(self) -> IAddress:
        return self.connection.get_peer()

    def get_host(self) -> IAddress:
        return self.connection.get_host()

    def start(self) -> None:
        """The connection is open: begin to ping it."""
        self._started = True
        self.connection.register(self)
        self._liveness.start()

    def probe(self) -> Deferred[bool]:
        """Whether the peer answers a ping, within a second."""
        return self._liveness.probe() if self.is_open else succeed(False)

    # Streams ---------------------------------------------------------------

    def open_stream(self, factory: IProtocolFactory, origin: Origin) -> Deferred[IProtocol]:
        """Open a stream and run a protocol of the factory's on it.

        :return: fires with the protocol when the peer has accepted. Errbacks with
            StreamLimit; TargetFailed when the peer refuses or is silent for 5 s
            (``openings.ACK_TIMEOUT``); UpstreamGone when the connection is lost meanwhile.
        """
        if not self.is_open:
            return fail(UpstreamGone("the client's connection is closed"))
        if len(self) >= self._max_streams:
            return fail(StreamLimit(f"{self._max_streams} streams are open"))
        return self._openings.begin(factory, origin)

    def drained(self) -> Deferred[None]:
        """Fires when no stream is open or being opened, at once if there is none."""
        if not len(self):
            return succeed(None)
        idle: Deferred[None] = Deferred()
        self._idle.append(idle)
        return idle

    def close(self, code: int, reason: str) -> None:
        """Close all streams, then the connection."""
        if self._over is not None:
            return
        for channel in self._streams:
            self.connection.send(self._mux.close(channel))
        self.connection.close(code, reason)
        self._end(reason or f"closed with {code}")

    def lost(self, reason: str) -> None:
        """The connection is gone; the connection's protocol calls it, once or more."""
        self._end(reason)

    def fail(self, reason: str) -> None:
        """Drop the connection because its peer is dead or breaks the protocol."""
        if self._over is None:
            self.connection.abort(reason)
            self._end(reason)

    def _end(self, reason: str) -> None:
        if self._over is not None:
            return
        self._over = Failure(ConnectionLost(reason))
        self.turns.end()
        self._closing.clear()
        self._lingering.clear()
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.session_lost(self._over)
        self._openings.end(reason)
        self._liveness.stop()
        self._check_idle()
        if self._on_end is not None:
            self._on_end(reason)

    def _check_idle(self) -> None:
        if self._idle and not len(self):
            idle, self._idle = self._idle, []
            for waiting in idle:
                waiting.callback(None)

    # What the connection tells ---------------------------------------------

    def message(self, message: bytes) -> None:
        """A whole message."""
        self.ping_received()
        self._act(self._mux.receive, message)

    def message_begin(self) -> None:
        """A message starts that comes in pieces: it is not gathered."""
        self.ping_received()
        self._mux.message_begin()

    def message_data(self, chunk: bytes) -> None:
        """A piece of it."""
        self._act(self._mux.message_data, chunk)

    def message_end(self) -> None:
        """It is complete."""
        self._act(self._mux.message_end)

    def _act(self, receive: Callable[..., Sequence[Event]], *data: bytes) -> None:
        if self._over is not None:
            return
        try:
            events = receive(*data)
        except RemoteProtocolError as error:
            self.fail(str(error))
            return
        for event in events:
            self._dispatch[type(event)](event)

    def _data(self, event: Data) -> None:
        stream = self._streams.get(event.channel)
        if stream is not None:
            self.bytes_in += len(event.data)
            stream.data_received(event.data)

    def _reply(self, event: Reply) -> None:
        if self._over is not None:
            return
        self.connection.send(event.message)
        self.replied(len(event.message))

    def replied(self, size: int) -> None:
        """An answer was queued that the peer can ask for without limit."""
        if self.turns.full:
            self._unread_replies += size
            if self._unread_replies > MAX_UNREAD_REPLIES:
                self.fail("the peer asks for answers that it does not read")

    def _opened(self, event: Opened) -> None:
        stream = Stream(self, event.channel, None)
        protocol = None
        if self._factory is not None and len(self) < self._max_streams:
            try:
                protocol = self._factory.buildProtocol(self.get_peer())
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
            self._check_idle()

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
        self.connection.send(self._mux.data_head(channel, len(data)), data)

    def send_pause(self, channel: int) -> None:
        self.connection.send(self._mux.pause(channel))

    def send_resume(self, channel: int) -> None:
        self.connection.send(self._mux.resume(channel))

    def send_close(self, channel: int) -> None:
        stream = self._streams.pop(channel, None)
        if self._over is not None or stream is None:
            return
        self._lingering.discard(stream)
        self.connection.send(self._mux.close(channel))
        self._closing.add(channel)
        self._check_idle()

    def soon(self, call: Callable[..., object], *args: object) -> None:
        """Call outside of whatever is being called now."""
        self._clock.callLater(0, call, *args)

    def linger(self, stream: Stream) -> None:
        """Have the stream closed in a moment."""
        self._lingering.add(stream)

    # IPushProducer: the transport below ------------------------------------

    def pauseProducing(self) -> None:
        self.turns.pause()

    def resumeProducing(self) -> None:
        if self._over is None:
            self._unread_replies = 0
            self.turns.resume()

    def stopProducing(self) -> None:
        """The transport is lost; its protocol tells so by :meth:`lost`."""
