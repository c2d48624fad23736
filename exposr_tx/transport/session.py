"""The streams of one message connection: what runs between a websocket and its Streams.

A :class:`Session` drives a multiplex dialect of ``wire`` over one connection that
carries messages, gives each channel a :class:`~exposr_tx.transport.stream.Stream`,
shares a connection that is full fairly among them, and finds out when the peer
is dead. It knows neither autobahn nor HTTP.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from exposr_tx.errors import RemoteProtocolError, StreamLimit, TargetFailed, UpstreamGone
from exposr_tx.transport.stream import Stream
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
    from twisted.internet.interfaces import (
        IAddress,
        IDelayedCall,
        IProtocol,
        IProtocolFactory,
        IReactorTime,
    )

    from exposr_tx.interfaces import Origin

__all__ = [
    "ACK_TIMEOUT",
    "CLOSE_TIMEOUT",
    "LINGER",
    "MAX_STREAMS",
    "PING_INTERVAL",
    "PROBE_TIMEOUT",
    "SERVER_SILENCE",
    "MessageConnection",
    "Session",
]

#: Streams open at once on one session.
MAX_STREAMS: Final = 4096

#: Seconds for the ACK of an OPEN. The client gives it before it connects to the target.
ACK_TIMEOUT: Final = 5.0

#: Seconds after which a CLOSE without ACK is forgotten.
CLOSE_TIMEOUT: Final = 1.0

#: Seconds between pings. Two without any sign of life end the session: at most 18 s.
PING_INTERVAL: Final = 6.0

#: Unanswered pings after which the peer is dead.
MISSES: Final = 2

#: A timer this late, in seconds, means that this process stood still (SIGSTOP,
#: suspend): what the peer sent meanwhile is unread, so nothing may be judged yet.
JUMP: Final = 3.0

#: Seconds between the last miss and the verdict: what lies unread in the socket
#: is read meanwhile.
LAST_LOOK: Final = 0.02

#: Seconds without a ping or a message after which a client gives its server up.
#: Servers ping every 6 s or 10 s; one that merely answers pings may have stopped
#: serving the connection (section D.5).
SERVER_SILENCE: Final = 21.0

#: Seconds in which a probed peer must answer.
PROBE_TIMEOUT: Final = 1.0

#: Seconds between the last data of a stream and its CLOSE: what a peer has not
#: handed on when CLOSE arrives is lost (section C.6).
LINGER: Final = 0.05

#: Bytes of answers that may pile up for a peer that sends but does not read.
MAX_UNREAD_REPLIES: Final = 1024 * 1024

_COUNTER: Final = Struct(">I")


class MessageConnection(Protocol):
    """What carries a session's messages."""

    def send(self, head: bytes, payload: bytes = b"") -> None:
        """Queue one message, in two parts so that a large payload need not be copied."""

    def ping(self, payload: bytes) -> None:
        """Queue a ping; its answer is told by :meth:`Session.pong_received`."""

    def close(self, code: int, reason: str) -> None:
        """Say goodbye and drop the connection, within a second."""

    def abort(self, reason: str) -> None:
        """Drop the connection at once."""

    def register(self, producer: IPushProducer) -> None:
        """Pause the producer while the transport below is full."""

    def get_peer(self) -> IAddress: ...

    def get_host(self) -> IAddress: ...


@dataclass(frozen=True, slots=True)
class _Opening:
    """A stream that waits for its ACK."""

    deadline: float
    factory: IProtocolFactory
    origin: Origin
    opened: Deferred[IProtocol]


@implementer(IPushProducer)
class Session:
    """One peer's streams.

    :param connection: carries the messages.
    :param mux: the dialect that is spoken on it.
    :param clock: all timers.
    :param factory: builds the protocol for each stream that the peer opens; None
        on the side that opens them.
    :param max_streams: further ones fail with StreamLimit.
    :param watches_server: whether silence of the peer's *pings* is death
        (the client's side) or silence altogether (the server's).
    :param on_end: called once, with the reason, when the session is over; its
        streams have ended then.
    :param wall_clock: epoch seconds, for ``alive_at``.

    :ivar full: whether the transport below takes no more; streams keep their data then.
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
        self.full = False
        self.streams_opened = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self._mux = mux
        self._clock = clock
        self._factory = factory
        self._max_streams = max_streams
        self._watches_server = watches_server
        self._on_end = on_end
        self._wall_clock = wall_clock
        self._streams: dict[int, Stream] = {}
        self._opening: dict[int, _Opening] = {}
        self._closing: dict[int, float] = {}
        self._lingering: dict[Stream, float] = {}
        self._waiting: deque[Stream] = deque()
        self._flushing = False
        self._unread_replies = 0
        self._started = False
        self._over: Failure | None = None
        self._idle: list[Deferred[None]] = []
        # Signs of life.
        self._pings = 0
        self._pongs = 0
        self._barriers: deque[tuple[int, Callable[[], object]]] = deque()
        self._heard_at = clock.seconds()
        self._sign_at = self._heard_at
        self._heard = False
        self._missed = 0
        self._tick_due = 0.0
        self._tick_call: IDelayedCall | None = None
        self._watch_due = 0.0
        self._watch_call: IDelayedCall | None = None
        self._sweep_call: IDelayedCall | None = None
        self._sweep_at = 0.0
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
        return len(self._streams) + len(self._opening)

    @property
    def alive_at(self) -> int:
        """Epoch milliseconds when the peer was last heard."""
        silent = self._clock.seconds() - self._heard_at
        return int((self._wall_clock() - silent) * 1000)

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
        self.heard()
        self._sign_at = self._heard_at
        self.connection.register(self)
        self._ping()
        self._tick_later()
        if self._watches_server:
            self._watch_later(SERVER_SILENCE)

    # Streams ---------------------------------------------------------------

    def open_stream(self, factory: IProtocolFactory, origin: Origin) -> Deferred[IProtocol]:
        """Open a stream and run a protocol of the factory's on it.

        :return: fires with the protocol when the peer has accepted. Errbacks with
            StreamLimit; TargetFailed when the peer refuses or is silent for
            :data:`ACK_TIMEOUT`; UpstreamGone when the connection is lost meanwhile.
        """
        if not self.is_open:
            return fail(UpstreamGone("the client's connection is closed"))
        if len(self) >= self._max_streams:
            return fail(StreamLimit(f"{self._max_streams} streams are open"))
        channel, message = self._mux.open()

        def cancelled(_: Deferred[IProtocol]) -> None:
            # Its ACK, should it come, is answered with CLOSE by the mux.
            if self._opening.pop(channel, None) is not None:
                self._mux.forget(channel)
                self._check_idle()

        opened: Deferred[IProtocol] = Deferred(cancelled)
        deadline = self._clock.seconds() + ACK_TIMEOUT
        self._opening[channel] = _Opening(deadline, factory, origin, opened)
        self.connection.send(message)
        self._sweep_by(deadline)
        return opened

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
        self.full = True
        for call in (self._tick_call, self._watch_call, self._sweep_call):
            if call is not None and call.active():
                call.cancel()
        streams, self._streams = self._streams, {}
        opening, self._opening = self._opening, {}
        self._closing.clear()
        self._lingering.clear()
        self._waiting.clear()
        barriers, self._barriers = self._barriers, deque()
        for stream in streams.values():
            stream.session_lost(self._over)
        for waiting in opening.values():
            waiting.opened.errback(UpstreamGone(reason))
        for _, callback in barriers:
            callback()
        self._check_idle()
        if self._on_end is not None:
            self._on_end(reason)

    def _check_idle(self) -> None:
        if self._idle and not len(self):
            idle, self._idle = self._idle, []
            for waiting in idle:
                waiting.callback(None)

    # What the connection tells ---------------------------------------------

    def heard(self) -> None:
        """Something was received."""
        self._heard = True
        self._heard_at = self._clock.seconds()

    def ping_received(self) -> None:
        self._sign_at = self._heard_at

    def pong_received(self, payload: bytes) -> None:
        if len(payload) != _COUNTER.size:
            return
        (number,) = _COUNTER.unpack(payload)
        if self._pongs < number <= self._pings:
            self._pongs = number
            while self._barriers and self._barriers[0][0] <= number:
                self._barriers.popleft()[1]()

    def message(self, message: bytes) -> None:
        """A whole message."""
        self._sign_at = self._heard_at
        self._act(self._mux.receive, message)

    def message_begin(self) -> None:
        """A message starts that comes in pieces: it is not gathered."""
        self._sign_at = self._heard_at
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
        if self.full:
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
        opening = self._opening.pop(event.channel, None)
        if opening is None:
            return
        stream = Stream(self, event.channel, opening.origin)
        self._streams[event.channel] = stream
        self.streams_opened += 1
        try:
            protocol = opening.factory.buildProtocol(opening.origin.peer)
        except Exception:
            stream.abortConnection()
            opening.opened.errback()
            return
        if protocol is None:
            stream.abortConnection()
            opening.opened.errback(TargetFailed("nobody wants the stream any more"))
            return
        stream.start(protocol)
        opening.opened.callback(protocol)

    def _rejected(self, event: Rejected) -> None:
        opening = self._opening.pop(event.channel, None)
        if opening is not None:
            opening.opened.errback(TargetFailed(f"the client refuses a stream: {event.reason}"))
            self._check_idle()

    def _closed(self, event: Closed) -> None:
        stream = self._streams.pop(event.channel, None)
        if stream is not None:
            self._lingering.pop(stream, None)
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
        self._lingering.pop(stream, None)
        self.connection.send(self._mux.close(channel))
        deadline = self._clock.seconds() + CLOSE_TIMEOUT
        self._closing[channel] = deadline
        self._sweep_by(deadline)
        self._check_idle()

    def soon(self, call: Callable[..., object], *args: object) -> None:
        """Call outside of whatever is being called now."""
        self._clock.callLater(0, call, *args)

    def barrier(self, callback: Callable[[], object]) -> None:
        """Call when the peer has seen everything sent so far, as its pong tells."""
        if self._over is None:
            self._barriers.append((self._ping(), callback))

    def linger(self, stream: Stream) -> None:
        """Have the stream closed in a moment."""
        self._lingering.pop(stream, None)
        deadline = self._clock.seconds() + LINGER
        self._lingering[stream] = deadline
        self._sweep_by(deadline)

    def wait(self, stream: Stream) -> None:
        """The stream has something to send: give it turns while there is room."""
        self._waiting.append(stream)
        if not self.full:
            self._flush()

    def _flush(self) -> None:
        if self._flushing:
            return
        self._flushing = True
        try:
            waiting = self._waiting
            while waiting and not self.full:
                stream = waiting.popleft()
                if stream.flush():
                    waiting.append(stream)
        finally:
            self._flushing = False

    # IPushProducer: the transport below ------------------------------------

    def pauseProducing(self) -> None:
        # Streams find out when they write next: with thousands of them idle, and a
        # transport that fills a thousand times a second, nobody walks through all.
        self.full = True

    def resumeProducing(self) -> None:
        if self._over is None:
            self.full = False
            self._unread_replies = 0
            self._flush()

    def stopProducing(self) -> None:
        """The transport is lost; its protocol tells so by :meth:`lost`."""

    # Overdue answers -------------------------------------------------------

    def _sweep_by(self, deadline: float) -> None:
        """One timer for all that can be overdue: a stream costs none of its own."""
        call = self._sweep_call
        if call is not None and call.active():
            if self._sweep_at <= deadline:
                return
            call.cancel()
        self._sweep_at = deadline
        delay = max(0.0, deadline - self._clock.seconds())
        self._sweep_call = self._clock.callLater(delay, self._sweep)

    def _sweep(self) -> None:
        now = self._clock.seconds()
        while self._lingering:
            stream, deadline = next(iter(self._lingering.items()))
            if deadline > now:
                self._sweep_by(deadline)
                break
            del self._lingering[stream]
            stream.close_now()
        while self._closing:
            channel, deadline = next(iter(self._closing.items()))
            if deadline > now:
                self._sweep_by(deadline)
                break
            del self._closing[channel]
            self._mux.forget(channel)
        while self._opening:
            channel, opening = next(iter(self._opening.items()))
            if opening.deadline > now:
                self._sweep_by(opening.deadline)
                break
            del self._opening[channel]
            self._mux.forget(channel)
            opening.opened.errback(TargetFailed("the client did not answer in time"))
            self._check_idle()

    # Signs of life ---------------------------------------------------------

    def probe(self) -> Deferred[bool]:
        """Whether the peer answers a ping within :data:`PROBE_TIMEOUT`."""
        if not self.is_open:
            return succeed(False)
        answer: Deferred[bool] = Deferred()

        def decide(alive: bool) -> None:
            if call.active():
                call.cancel()
            if not answer.called:
                answer.callback(alive)

        call = self._clock.callLater(PROBE_TIMEOUT, decide, False)
        self.barrier(lambda: decide(self._over is None))
        return answer

    def _ping(self) -> int:
        self._pings += 1
        self.connection.ping(_COUNTER.pack(self._pings & 0xFFFFFFFF))
        return self._pings

    def _tick_later(self) -> None:
        self._tick_due = self._clock.seconds() + PING_INTERVAL
        self._tick_call = self._clock.callLater(PING_INTERVAL, self._tick)

    def _tick(self) -> None:
        if self._heard or self._clock.seconds() - self._tick_due > JUMP:
            self._missed = 0
        else:
            self._missed += 1
        self._heard = False
        if self._missed < MISSES or self._watches_server:
            self._ping()
            self._tick_later()
        else:
            self._tick_call = self._clock.callLater(LAST_LOOK, self._judge)

    def _judge(self) -> None:
        if self._heard:
            self._missed = 0
            self._ping()
            self._tick_later()
        else:
            self.fail("the peer answers no pings")

    def _watch_later(self, delay: float) -> None:
        self._watch_due = self._clock.seconds() + delay
        self._watch_call = self._clock.callLater(delay, self._watch)

    def _watch(self) -> None:
        now = self._clock.seconds()
        if now - self._watch_due > JUMP:
            self._watch_later(MISSES * PING_INTERVAL)
            return
        silent = now - self._sign_at
        if silent < SERVER_SILENCE:
            self._watch_later(SERVER_SILENCE - silent)
        else:
            self._watch_call = self._clock.callLater(LAST_LOOK, self._judge_server)

    def _judge_server(self) -> None:
        if self._clock.seconds() - self._sign_at < SERVER_SILENCE:
            self._watch_later(PING_INTERVAL)
        else:
            self.fail("the server sends no pings")
