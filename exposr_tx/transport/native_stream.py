"""A stream of the native dialect: credit, ends that are told from cuts, and error codes.

Facts: docs/protocols/exposr-tx-1.md, "Streams" and "Credit".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.error import ConnectionAborted, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from exposr_tx.errors import (
    ExposrError,
    LocalProtocolError,
    StreamLimit,
    TargetFailed,
    TargetRefused,
    TargetReset,
    UpstreamGone,
)
from exposr_tx.transport.stream import QUANTUM, Stream, as_bytes
from exposr_tx.wire.native import ResetCode

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProducer

    from exposr_tx.interfaces import Origin
    from exposr_tx.transport.native_channels import NativeChannels

__all__ = ["NativeStream"]

#: What a code means to who waits for the stream; others are a lost connection. The first that an
#: error is an instance of is its code, so a kind stands before what it is a kind of: TargetReset
#: before TargetRefused, UpstreamGone before TargetFailed.
_ERRORS: dict[ResetCode, type[ExposrError]] = {
    ResetCode.TARGET_RESET: TargetReset,
    ResetCode.TARGET_REFUSED: TargetRefused,
    ResetCode.LIMIT: StreamLimit,
    ResetCode.GOING_AWAY: UpstreamGone,
    ResetCode.TARGET_FAILED: TargetFailed,
    ResetCode.UNSUPPORTED: TargetFailed,
}


class NativeStream(Stream):
    """One stream.

    :ivar attachment: which of the connection's tunnels it belongs to.
    :ivar code: of our RESET, should there be one; ``reason``: its text.

    While its protocol has paused it, what arrives is kept and no credit is given:
    so it is never more than the window.
    """

    __slots__ = ("_ended", "_eof", "_flow", "_half", "attachment", "code", "reason")

    _channels: NativeChannels

    def __init__(
        self,
        channels: NativeChannels,
        channel: int,
        origin: Origin | None,
        attachment: int = 0,
    ) -> None:
        super().__init__(channels, channel, origin)
        self.attachment = attachment
        self._flow = channels.flow(channel)
        self.code = ResetCode.NO_ERROR
        self.reason = ""
        self._ended = False  # END is sent, or will be after what waits
        self._eof = False  # the peer has sent END
        self._half = False  # the protocol knows of it, and goes on

    # Sending ---------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if not data or not self._open or self._ended:
            return
        if self.disconnecting and self._producer is None:
            return
        if data.__class__ is not bytes:
            data = as_bytes(data)
        size = len(data)
        channels = self._channels
        if self._unsent or size > QUANTUM or channels.turns.full:
            self._keep(data)
            return
        data_head, send = channels.data_head, channels.send
        try:
            head = data_head(self._channel, size)
        except LocalProtocolError:  # there is not so much credit
            self._keep(data)
            return
        send(head, data)
        self._sent += size
        if self._producer is not None and not self._streaming:
            self._pull()

    def flush(self) -> bool:
        if self._open and self._unsent:
            room = self._channels.sendable(self._channel)
            if room <= 0:
                self._held = True  # until credited
                self._waiting = False
                return False
            data = self._take(min(room, QUANTUM))
            self._sent += len(data)
            self._channels.send_data(self._channel, data)
            if self._unsent or (self._channels.turns.full and self._open):
                return True
        self._waiting = False
        if self._open:
            self._go_on()
        return False

    def _take(self, size: int) -> bytes:
        """Up to ``size`` bytes of those that wait; credit may come in any amount, so what is
        left of a large write is a view and not another copy."""
        parts: list[bytes] = []
        missing = size
        while missing and self._unsent:
            piece = self._unsent.popleft()
            if len(piece) > missing:
                view = memoryview(piece)
                self._unsent.appendleft(view[missing:])  # type: ignore[arg-type]
                piece = view[:missing]  # type: ignore[assignment]
            parts.append(piece)
            missing -= len(piece)
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self._unsent_size -= len(data)
        return bytes(data)

    def _go_on(self) -> None:
        if self._ended:
            if not self.disconnecting:
                self._end_half()
                return
            self._finish()
            return
        super()._go_on()

    def credited(self) -> None:
        """The peer takes more, on this stream or on all together."""
        if self._held:
            self._held = False
            self._wait()

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        if self._ending is None:
            super().registerProducer(producer, streaming)
        # Otherwise the peer has gone, and what it sent before is still to be delivered: a producer
        # that is stopped now, as the other side of a splice, would not take that any more.

    # Closing ---------------------------------------------------------------

    def loseWriteConnection(self) -> None:
        """End our half after everything written; the peer's goes on."""
        if self._ended or self.disconnecting or not self._open:
            return
        self._ended = True
        self._producer = None
        if not self._unsent:
            self._end_half()

    def _end_half(self) -> None:
        self._channels.send_end(self._channel)
        protocol = self.protocol
        if self._half:  # the peer's is over too
            self._open = False
            self._channels.send_close(self._channel)
            self._end_soon(connectionDone)
        elif IHalfCloseableProtocol.providedBy(protocol):
            self._channels.soon(protocol.writeConnectionLost)

    def _finish(self) -> None:
        """END says that what was written is complete: nothing needs to be waited for."""
        if self._open:
            self._open = False
            self._channels.send_end(self._channel)
            self._channels.send_close(self._channel)
            self._discard()
            self._end_soon(connectionDone)

    def fail(self, error: ExposrError) -> None:
        self.code = ResetCode.INTERNAL
        self.reason = str(error)
        for code, kind in _ERRORS.items():
            if isinstance(error, kind):
                self.code = code
                break
        self.abortConnection()

    def _discard(self) -> None:
        size = self._received_size
        super()._discard()
        if size:
            self._channels.thrown_away(self._channel, size)

    def _abort(self, error: Exception) -> None:
        if not isinstance(error, ConnectionAborted):
            self.code, self.reason = ResetCode.INTERNAL, "the stream's protocol failed"
        super()._abort(error)

    # Receiving -------------------------------------------------------------

    def _taken(self, size: int) -> None:
        self._channels.consumed(self._channel, size)

    def _all_delivered(self) -> None:
        if self._eof and not self._half and self._open and self.protocol is not None:
            self._at_end()

    def data_received(self, data: bytes) -> None:
        if not self._open:
            return
        if self._paused or self._delivering or self._received:
            self._received.append(data)
            self._received_size += len(data)
            return
        try:
            self.protocol.dataReceived(data)  # type: ignore[union-attr]
        except Exception as error:
            self._failed(error)
        if self._flow.take(len(data)):
            self._channels.grant(self._channel)

    def peer_ended(self) -> None:
        """The peer sends no more: told when the protocol has everything before it."""
        self._eof = True
        if self._open and not (self._received or self._delivering):
            self._at_end()

    def _at_end(self) -> None:
        protocol = self.protocol
        if IHalfCloseableProtocol.providedBy(protocol):
            self._half = True
            try:
                protocol.readConnectionLost()
            except Exception as error:
                self._log.failure("a protocol failed when {stream!r} ended", stream=self)
                self._abort(error)
                return
            if self._ended and not self._unsent and self._open:
                self._open = False
                self._channels.send_close(self._channel)
                self._end_soon(connectionDone)
            return
        # As a TCP connection does on a FIN: nobody is there any more to send.
        self._open = False
        complete = not self._unsent
        self._stop_sending()
        if complete:
            self._channels.send_end(self._channel)
        self._channels.send_close(self._channel)
        self._end(connectionDone)

    def peer_reset(self, code: ResetCode, reason: str) -> None:
        """The peer has closed both halves; what came before its END is complete."""
        error = _ERRORS.get(code)
        failure = Failure(
            ConnectionLost(reason or code.name) if error is None else error(reason or code.name)
        )
        if self._eof and (
            code is ResetCode.NO_ERROR or not IHalfCloseableProtocol.providedBy(self.protocol)
        ):
            failure = connectionDone
        self._open = False
        self._stop_sending()
        if self._lost:
            return
        if self._received and not self.disconnecting:
            self._ending = failure
        else:
            self._discard()
            self._end(failure)
