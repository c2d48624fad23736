"""The streams of one message connection: what runs between a websocket and its Streams.

A :class:`Session` drives a multiplex dialect of ``wire`` over one connection that
carries messages, from its start to its end; its streams are the affair of
:class:`~exposr_tx.transport.channels.Channels`. It knows neither autobahn nor HTTP.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from exposr_tx.errors import RemoteProtocolError, UpstreamGone
from exposr_tx.transport.channels import Channels
from exposr_tx.transport.liveness import Liveness
from exposr_tx.wire.mux import Dialect, Event, Reply

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTime

    from exposr_tx.interfaces import Origin
    from exposr_tx.transport.connection import MessageConnection

__all__ = ["MAX_STREAMS", "MAX_UNREAD_REPLIES", "Session"]

#: Streams open at once on one session.
MAX_STREAMS: Final = 4096

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
    """

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
        self._mux = mux
        self._on_end = on_end
        self._liveness = Liveness(clock, connection.ping, self.fail, watches_server, wall_clock)
        self._channels = Channels(
            connection,
            mux,
            clock,
            factory,
            max_streams,
            self._liveness.barrier,
            self._check_idle,
        )
        self._turns = self._channels.turns
        self._dispatch: dict[type, Callable[[Any], None]] = {
            **self._channels.dispatch,
            Reply: self._reply,
        }
        self._unread_replies = 0
        self._started = False
        self._over = False
        self._idle: list[Deferred[None]] = []
        # What the connection tells of the peer's life goes straight to who judges it.
        self.heard = self._liveness.heard
        self.ping_received = self._liveness.sign
        self.pong_received = self._liveness.pong

    def __repr__(self) -> str:
        state = "LOST" if self._over else "OPEN" if self._started else "NEW"
        return f"<Session {state} {len(self)} streams>"

    def __len__(self) -> int:
        """Streams that are open or being opened."""
        return len(self._channels)

    @property
    def alive_at(self) -> int:
        """Epoch milliseconds when the peer was last heard."""
        return self._liveness.alive_at

    @property
    def is_open(self) -> bool:
        return self._started and not self._over

    @property
    def streams_opened(self) -> int:
        """Streams ever opened."""
        return self._channels.streams_opened

    @property
    def bytes_in(self) -> int:
        """Payload received."""
        return self._channels.bytes_in

    @property
    def bytes_out(self) -> int:
        """Payload sent."""
        return self._channels.bytes_out

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
        return self._channels.open(factory, origin)

    def drained(self) -> Deferred[None]:
        """Fires when no stream is open or being opened, at once if there is none."""
        if not len(self):
            return succeed(None)
        idle: Deferred[None] = Deferred()
        self._idle.append(idle)
        return idle

    def close(self, code: int, reason: str) -> None:
        """Close all streams, then the connection."""
        if not self._over:
            self._channels.close_all()
            self.connection.close(code, reason)
            self._end(reason or f"closed with {code}")

    def lost(self, reason: str) -> None:
        """The connection is gone; the connection's protocol calls it, once or more."""
        self._end(reason)

    def fail(self, reason: str) -> None:
        """Drop the connection because its peer is dead or breaks the protocol."""
        if not self._over:
            self.connection.abort(reason)
            self._end(reason)

    def _end(self, reason: str) -> None:
        if self._over:
            return
        self._over = True
        self._channels.end(reason)
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
        if self._over:
            return
        try:
            events = receive(*data)
        except RemoteProtocolError as error:
            self.fail(str(error))
            return
        for event in events:
            self._dispatch[type(event)](event)

    def _reply(self, event: Reply) -> None:
        if self._over:
            return
        self.connection.send(event.message)
        self.replied(len(event.message))

    def replied(self, size: int) -> None:
        """An answer was queued that the peer can ask for without limit."""
        if self._turns.full:
            self._unread_replies += size
            if self._unread_replies > MAX_UNREAD_REPLIES:
                self.fail("the peer asks for answers that it does not read")

    # IPushProducer: the transport below ------------------------------------

    def pauseProducing(self) -> None:
        self._turns.pause()

    def resumeProducing(self) -> None:
        if not self._over:
            self._unread_replies = 0
            self._turns.resume()

    def stopProducing(self) -> None:
        """The transport is lost; its protocol tells so by :meth:`lost`."""
