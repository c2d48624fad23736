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
from exposr_tx.interfaces import CloseCode
from exposr_tx.rounds import rounds_of
from exposr_tx.transport.batch import Batch
from exposr_tx.transport.channels import Channels
from exposr_tx.transport.liveness import Liveness
from exposr_tx.transport.native_channels import NativeChannels
from exposr_tx.transport.streams import Streams
from exposr_tx.wire.mux import Dialect, Reply
from exposr_tx.wire.native import MAX_STREAMS, GoAwayCode, NativeMux, Pinged, Ponged

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTime

    from exposr_tx.interfaces import Origin
    from exposr_tx.transport.connection import MessageConnection

__all__ = ["MAX_UNREAD_REPLIES", "Session"]

#: Bytes of answers that may pile up for a peer that sends but does not read.
MAX_UNREAD_REPLIES: Final = 1024 * 1024

#: What our pings begin with: the dialect's have eight bytes, a counter has four.
_PING_START: Final = bytes(4)


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
    :param on_going: called when the peer says that it will go: no more streams can be opened.
    :param further: called with what the peer says about further tunnels on the connection;
        without it there are none.
    :param wall_clock: epoch seconds, for ``alive_at``.
    """

    def __init__(
        self,
        connection: MessageConnection,
        mux: Dialect | NativeMux,
        clock: IReactorTime,
        factory: IProtocolFactory | None = None,
        max_streams: int = MAX_STREAMS,
        watches_server: bool = False,
        on_end: Callable[[str], None] | None = None,
        on_going: Callable[[], None] | None = None,
        further: Callable[[Any], None] | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.connection = connection
        self._mux = mux
        self._on_end = on_end
        self._on_going = on_going
        self._batch = (
            Batch(connection, rounds_of(clock).at_end) if isinstance(mux, NativeMux) else None
        )
        self._send = connection.send if self._batch is None else self._batch.send
        ping = connection.ping if self._batch is None else self._ping
        self._liveness = Liveness(
            clock,
            ping,
            self.fail,
            watches_server,
            wall_clock,
            # A native server pings: ours to it would double what an idle tunnel costs.
            regular=self._batch is None or not watches_server,
            measures=self._batch is not None,
        )
        self._channels: Streams
        if isinstance(mux, NativeMux):
            assert self._batch is not None
            self._channels = NativeChannels(
                connection,
                mux,
                self._batch,
                clock,
                factory,
                max_streams,
                self._check_drained,
                self._peer_goes,
            )
        else:
            self._channels = Channels(
                connection,
                mux,
                clock,
                factory,
                max_streams,
                self._liveness.barrier,
                self._check_drained,
            )
        self._turns = self._channels.turns
        # By the class and not by each session: that was 1.2 KB of every idle tunnel.
        self._acts = self._channels.acts
        self._further = self._channels.act if further is None else further
        self._unread_replies = 0
        self._awaited: bytes | None = None  # what answers the ping sent last, if a beat's
        self._started = False
        self._over = False
        self._draining: list[tuple[int | None, Deferred[None]]] = []
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
    def delay(self) -> float:
        """Seconds to the peer and back, the least measured so far; infinite before the first."""
        return self._liveness.delay

    @property
    def is_open(self) -> bool:
        return self._started and not self._over

    @property
    def used_up(self) -> bool:
        """Whether there can never be another stream: the numbers have run out."""
        return self._mux.used_up

    @property
    def streams_opened(self) -> int:
        """Streams ever opened."""
        return self._channels.streams_opened

    @property
    def native(self) -> NativeChannels | None:
        """The streams, where the dialect is native and there may be several tunnels."""
        return self._channels if isinstance(self._channels, NativeChannels) else None

    def streams_of(self, attachment: int) -> int:
        """Streams of one of the connection's tunnels that are open or being opened."""
        native = self.native
        return len(self) if native is None else native.count(attachment)

    def start(self) -> None:
        """The connection is open: begin to ping it."""
        self._started = True
        self.connection.register(self)
        self._liveness.start()

    def probe(self) -> Deferred[bool]:
        """Whether the peer answers a ping, within a second."""
        return self._liveness.probe() if self.is_open else succeed(False)

    # Streams ---------------------------------------------------------------

    def open_stream(
        self, factory: IProtocolFactory, origin: Origin, attachment: int = 0
    ) -> Deferred[IProtocol]:
        """Open a stream and run a protocol of the factory's on it.

        :param attachment: which of the connection's tunnels it is for.
        :return: fires with the protocol when the peer has accepted. Errbacks with
            StreamLimit; TargetFailed when the peer refuses or is silent for 5 s
            (``openings.ACK_TIMEOUT``); UpstreamGone when the connection is lost meanwhile.
        """
        if not self.is_open:
            return fail(UpstreamGone("the client's connection is closed"))
        return self._channels.open(factory, origin, attachment)

    def drained(self, attachment: int | None = None) -> Deferred[None]:
        """Fires when no stream is open or being opened, at once if there is none.

        :param attachment: which of the connection's tunnels is meant, where not all are.
        """
        if not self._running(attachment):
            return succeed(None)
        drained: Deferred[None] = Deferred()
        self._draining.append((attachment, drained))
        return drained

    def end_idle(self, attachment: int) -> None:
        """End the streams of one of the connection's tunnels that are only kept for further use."""
        self._channels.end_idle(attachment)

    def go_away(self, reason: str) -> None:
        """Tell the peer that the connection will be closed, where the dialect can say so."""
        if isinstance(self._mux, NativeMux) and self.is_open:
            self._send(self._mux.goaway(GoAwayCode.DRAINING, reason))

    def close(self, code: int, reason: str) -> None:
        """Close all streams, then the connection."""
        if not self._over:
            self._channels.close_all()
            if self._batch is not None:
                self._batch.flush()
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

    def violated(self, reason: str, code: int = CloseCode.PROTOCOL_ERROR) -> None:
        """The peer breaks the protocol, and is told so."""
        if not self._over:
            self.connection.close(code, reason)
            self._end(reason)

    def _end(self, reason: str) -> None:
        if self._over:
            return
        self._over = True
        if self._batch is not None:
            self._batch.drop()
        self._channels.end(reason)
        self._liveness.stop()
        self._check_drained()
        if self._on_end is not None:
            self._on_end(reason)

    def _running(self, attachment: int | None) -> int:
        return len(self) if attachment is None else self.streams_of(attachment)

    def _check_drained(self) -> None:
        if self._draining:
            over = [waiting for waiting in self._draining if not self._running(waiting[0])]
            self._draining = [waiting for waiting in self._draining if waiting not in over]
            for _, drained in over:
                drained.callback(None)

    # What the connection tells ---------------------------------------------

    def message(self, message: bytes) -> None:
        """A whole message."""
        self.ping_received()
        if message == self._awaited:  # what the idle say: 2 µs less for a ping
            self._answered()
            return
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

    def _act(self, receive: Callable[..., Sequence[object]], *data: bytes) -> None:
        if self._over:
            return
        try:
            events = receive(*data)
        except RemoteProtocolError as error:
            self.violated(str(error))
            return
        acts, channels = self._acts, self._channels
        for event in events:
            act = acts.get(event.__class__)
            if act is not None:
                act(channels, event)
            else:
                self._act_ourselves(event)

    def _act_ourselves(self, event: object) -> None:
        act = _ACTS.get(event.__class__)
        if act is not None:
            act(self, event)
        else:
            self._further(event)

    def _reply(self, event: Reply) -> None:
        if self._over:
            return
        self._send(event.message)
        self.replied(len(event.message))

    def _pinged(self, event: Pinged) -> None:
        if not self._over:
            # What waits for the end of the round has no bearing on it, and would count as delay.
            self.connection.send_now(event.message)
            self.replied(len(event.message))

    def _ping(self, payload: bytes) -> None:
        assert self._batch is not None
        regular = len(payload) == 8
        frame = NativeMux.ping(payload if regular else _PING_START + payload)
        self._awaited = NativeMux.pong(payload) if regular else None
        if self._batch.size:  # what was sent before goes before
            self._batch.send(frame)
        else:
            self.connection.send_same(frame)

    def _ponged(self, event: Ponged) -> None:
        payload = event.payload
        counted = payload.startswith(_PING_START)
        self.pong_received(payload[len(_PING_START) :] if counted else payload)
        assert isinstance(self._mux, NativeMux)
        self._mux.delay = self._liveness.delay

    def _answered(self) -> None:
        """As above, for the ping of a beat, which nobody else waits for."""
        self._awaited = None
        assert isinstance(self._mux, NativeMux)
        self._mux.delay = self._liveness.answered()

    def _peer_goes(self) -> None:
        if self._on_going is not None:
            self._on_going()

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


_ACTS: Final[dict[type, Callable[[Session, Any], None]]] = {
    Pinged: Session._pinged,
    Ponged: Session._ponged,
    Reply: Session._reply,
}
