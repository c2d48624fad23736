"""Many byte streams in the messages of one websocket: the native dialect.

Bytes in, events out; no reactor, clock or transport. One :class:`NativeMux`
stands for one end of one websocket. ``transport.session`` drives it and owns the
timers: it acts on the events, sends each Reply, and tells what its consumers
have taken.

Source: docs/protocols/exposr-tx-1.md; the section is named where a rule is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from exposr_tx.errors import LocalProtocolError, RemoteProtocolError
from exposr_tx.wire.mux.events import Reply
from exposr_tx.wire.native import frames
from exposr_tx.wire.native.attachments import Attachments
from exposr_tx.wire.native.codes import GoAwayCode, ResetCode
from exposr_tx.wire.native.events import (
    Closed,
    Credited,
    Ended,
    Event,
    GoingAway,
    Opened,
    Pinged,
    Ponged,
)
from exposr_tx.wire.native.flow import (
    CONNECTION_WINDOW,
    GROWN_WINDOWS,
    MAX_CREDIT,
    MAX_HELD,
    NEAR,
    STREAM_WINDOW,
    Flow,
)
from exposr_tx.wire.native.frames import DATA_LIMIT
from exposr_tx.wire.native.intake import LOW_ROOM, Intake
from exposr_tx.wire.native.metadata import KINDS, Metadata

__all__ = ["MAX_STREAMS", "NativeMux"]

#: Streams open at once on one connection; further ones of the peer's are reset with LIMIT.
MAX_STREAMS: Final = 4096

_LAST_NUMBER: Final = 2**32 - 1
_pack = frames.pack_head


class NativeMux(Intake):
    """One end.

    :param is_server: which end: the server's streams are odd, the client's even.
    :param max_streams: streams open at once.
    :param max_held: bytes that all streams may hold before the connection's credit is withheld.
    :param both_ways: whether the client may open streams too, which no version says yet.

    :ivar attachments: the tunnels on this connection.
    :ivar delay: seconds to the peer and back, as far as its owner has measured.
    """

    __slots__ = (
        "_accepts",
        "_credit",
        "_going",
        "_grown",
        "_highest",
        "_is_server",
        "_left",
        "_max_streams",
        "_next",
        "_opens",
        "attachments",
        "delay",
    )

    def __init__(
        self,
        is_server: bool,
        max_streams: int = MAX_STREAMS,
        max_held: int = MAX_HELD,
        both_ways: bool = False,
    ) -> None:
        super().__init__(max_held)
        self._is_server = is_server
        self._opens = is_server or both_ways
        self._accepts = not is_server or both_ways
        self._max_streams = max_streams
        self.attachments = Attachments(is_server)
        self.delay = math.inf
        self._next = 1 if is_server else 2
        self._highest = 0  # of the peer's
        self._credit = CONNECTION_WINDOW  # bytes that we may send on all streams
        self._grown = 0  # bytes, of all windows
        self._going = False  # we have said GOAWAY
        self._left = False  # the peer has

    def __repr__(self) -> str:
        role = "server" if self._is_server else "client"
        return f"<NativeMux {role} {len(self._flows)} streams>"

    def __len__(self) -> int:
        """Streams that hold state: open ones, and those whose last bytes were not taken yet."""
        return len(self._flows)

    # Input: what frames say -------------------------------------------------------

    def _check_known(self, channel: int) -> None:
        """A stream that is not there must have been there ("Streams")."""
        ours = channel & 1 == self._is_server
        if not 0 < channel <= (self._next - 2 if ours else self._highest):
            raise RemoteProtocolError(f"stream {channel} was never opened")

    def _whole(self, kind: int, channel: int, payload: bytes, events: list[Event]) -> None:
        act = _ACTS.get(kind)
        if act is None:
            self.attachments.received(kind, channel, payload, events)
        else:
            act(self, channel, payload, events)

    def _opened(self, channel: int, payload: bytes, events: list[Event]) -> None:
        if channel & 1 == self._is_server or channel <= self._highest:
            raise RemoteProtocolError(f"stream {channel} cannot be opened, or not any more")
        self._highest = channel
        metadata = Metadata.from_json(frames.json_object(payload))
        if not self._accepts or metadata.kind not in KINDS:
            code = ResetCode.UNSUPPORTED
        elif self._going or not self.attachments.accepts(metadata.attachment):
            code = ResetCode.GOING_AWAY
        elif len(self._flows) >= self._max_streams:
            code = ResetCode.LIMIT
        else:
            self._flows[channel] = Flow()
            events.append(Opened(channel, metadata))
            return
        events.append(Reply(frames.coded_frame(frames.RESET, channel, code, "")))

    def _ended(self, channel: int, payload: bytes, events: list[Event]) -> None:
        flow = self._flows.get(channel)
        if flow is None:
            self._check_known(channel)
        elif flow.receiving:
            flow.end_receiving()
            self._drop_if_over(channel, flow)
            events.append(Ended(channel))
        elif not flow.gone:
            raise RemoteProtocolError(f"stream {channel} is ended twice")

    def _reset(self, channel: int, payload: bytes, events: list[Event]) -> None:
        flow = self._flows.get(channel)
        if flow is None:
            self._check_known(channel)
        elif not flow.gone:
            flow.end_sending()
            flow.end_receiving()
            self._drop_if_over(channel, flow)
            code, reason = frames.coded(payload)
            events.append(Closed(channel, ResetCode(code), reason))

    def _credited(self, channel: int, payload: bytes, events: list[Event]) -> None:
        size = int.from_bytes(payload, "big")
        if not size:
            raise RemoteProtocolError("CREDIT for no bytes")
        if not channel:
            self._credit = _raised(self._credit, size)
            events.append(Credited(0))
            return
        flow = self._flows.get(channel)
        if flow is None:
            self._check_known(channel)
        elif flow.sending:
            flow.credit = _raised(flow.credit, size)
            events.append(Credited(channel))

    def _pinged(self, channel: int, payload: bytes, events: list[Event]) -> None:
        _check_connection(channel)
        events.append(Pinged(frames.pong(payload)))

    def _ponged(self, channel: int, payload: bytes, events: list[Event]) -> None:
        _check_connection(channel)
        events.append(Ponged(payload))

    def _goaway(self, channel: int, payload: bytes, events: list[Event]) -> None:
        _check_connection(channel)
        self._left = True
        self.attachments.peer_left()
        code, reason = frames.coded(payload)
        events.append(GoingAway(GoAwayCode(code), reason))

    # Output: streams -------------------------------------------------------

    @property
    def used_up(self) -> bool:
        """Whether there is no number left for another stream ("Streams")."""
        return self._next > _LAST_NUMBER

    def open(self, metadata: Metadata) -> tuple[int, bytes]:
        """A new stream's number, and its OPEN; it may be written to at once.

        :raises LocalProtocolError: there may be no more, or none for this tunnel.
        """
        if not self._opens or self._left or len(self._flows) >= self._max_streams:
            raise LocalProtocolError(f"{self!r} may not open a stream")
        if self.used_up:
            raise LocalProtocolError("all stream numbers of this websocket are used up")
        if not self.attachments.accepts(metadata.attachment):
            raise LocalProtocolError(f"attachment {metadata.attachment} is not there")
        channel = self._next
        frame = frames.json_frame(frames.OPEN, channel, metadata.to_json())
        self._next += 2
        self._flows[channel] = Flow()
        return channel, frame

    def sendable(self, channel: int) -> int:
        """Bytes that may be sent on a stream now; 0 when it waits for Credited, or is over."""
        flow = self._flows.get(channel)
        if flow is None:
            return 0
        return flow.credit if flow.credit < self._credit else self._credit

    def data_head(self, channel: int, size: int) -> bytes:
        """The head of a DATA frame; ``size`` bytes of payload follow it in the same message.
        0.35 µs (measured).

        :raises LocalProtocolError: more than :meth:`sendable`, or than a message holds.
        """
        flow = self._flows.get(channel)
        if flow is None or size > flow.credit or size > self._credit or size <= 0:
            raise LocalProtocolError(f"stream {channel} takes no {size} bytes")
        if size > DATA_LIMIT:
            raise LocalProtocolError(f"{size} bytes are more than a message holds")
        flow.credit -= size
        self._credit -= size
        return _pack(size, channel)

    def end(self, channel: int) -> bytes:
        """END: no more DATA from us; the peer's half goes on.

        :raises LocalProtocolError: our half is over already.
        """
        flow = self._flows.get(channel)
        if flow is None or not flow.sending:
            raise LocalProtocolError(f"stream {channel} cannot be ended")
        flow.end_sending()
        self._drop_if_over(channel, flow)
        return _pack(frames.END << 24, channel)

    def reset(self, channel: int, code: ResetCode, reason: str = "") -> bytes:
        """RESET, and what the stream holds is thrown away.

        A stream that is over already only loses what it holds: then there may be
        no bytes to send.
        """
        flow = self._flows.get(channel)
        if flow is None:
            return b""
        frame = b"" if flow.gone else frames.coded_frame(frames.RESET, channel, code, reason)
        self._drop(channel, flow)
        return frame + self._refill() if self._room < LOW_ROOM else frame

    def consumed(self, channel: int, size: int, now: float) -> bytes:
        """The consumer has taken bytes of Data; CREDIT to send, or nothing yet.

        To be told of every byte, also after Ended and Closed, unless the stream
        is reset. Granted when half of the window is missing. 0.3 µs where nothing is
        granted (measured).

        :param now: seconds of any clock.
        """
        flow = self._flows.get(channel)
        if flow is None:  # we have reset it
            return b""
        if size > flow.held:
            raise LocalProtocolError(f"stream {channel} did not hold {size} bytes")
        return self._granted(channel, flow, flow.take(size), now)

    def flow(self, channel: int) -> Flow:
        """What a stream may send and holds. Its consumer may call :meth:`Flow.take` for bytes that
        it took as soon as they were told, and :meth:`grant` when that says so, in place of
        :meth:`consumed`: for a small piece that is most of what receiving costs.

        :raises LocalProtocolError: there is no such stream.
        """
        flow = self._flows.get(channel)
        if flow is None:
            raise LocalProtocolError(f"stream {channel} is not there")
        return flow

    def grant(self, channel: int, now: float) -> bytes:
        """CREDIT for a stream of whose window half is missing, or nothing if it has ended."""
        flow = self._flows.get(channel)
        return b"" if flow is None else self._granted(channel, flow, True, now)

    def _granted(self, channel: int, flow: Flow, due: bool, now: float) -> bytes:
        """What is to be sent now that bytes were taken: also for the connection, whose credit may
        have been withheld because of them."""
        frame = self._grant(channel, flow, now) if due else b""
        return frame + self._refill() if self._room < LOW_ROOM else frame

    def _grant(self, channel: int, flow: Flow, now: float) -> bytes:
        if not flow.receiving:
            self._drop_if_over(channel, flow)
            return b""
        before = flow.window
        size = flow.grant(GROWN_WINDOWS - self._grown, self.delay <= NEAR, now)
        self._grown += flow.window - before
        return frames.credit(channel, size) if size else b""

    def _drop_if_over(self, channel: int, flow: Flow) -> None:
        if not flow.held and flow.gone:
            self._drop(channel, flow)

    def _drop(self, channel: int, flow: Flow) -> None:
        del self._flows[channel]
        self._grown -= flow.window - STREAM_WINDOW

    # Output: the connection ------------------------------------------------

    @staticmethod
    def ping(payload: bytes) -> bytes:
        """PING with eight bytes, which Ponged brings back."""
        if len(payload) != 8:
            raise LocalProtocolError(f"a ping has 8 bytes, not {len(payload)}")
        return frames.ping(payload)

    @staticmethod
    def pong(payload: bytes) -> bytes:
        """The message by which a peer answers that ping, where it has nothing else to say."""
        return frames.pong(payload)

    def goaway(self, code: GoAwayCode, reason: str = "") -> bytes:
        """GOAWAY; streams that the peer opens from now on are reset with GOING_AWAY."""
        self._going = True
        return frames.coded_frame(frames.GOAWAY, 0, code, reason)


def _raised(credit: int, size: int) -> int:
    if credit + size > MAX_CREDIT:
        raise RemoteProtocolError("CREDIT goes beyond 31 bits")
    return credit + size


def _check_connection(channel: int) -> None:
    if channel:
        raise RemoteProtocolError(f"a frame of the connection names stream {channel}")


_ACTS: Final[dict[int, Callable[[NativeMux, int, bytes, list[Event]], None]]] = {
    frames.OPEN: NativeMux._opened,
    frames.END: NativeMux._ended,
    frames.RESET: NativeMux._reset,
    frames.CREDIT: NativeMux._credited,
    frames.PING: NativeMux._pinged,
    frames.PONG: NativeMux._ponged,
    frames.GOAWAY: NativeMux._goaway,
}
