"""What both sides' websockets share: an autobahn protocol that carries a session.

Stands between the transport and the session, as the session's
:class:`~exposr_tx.transport.connection.MessageConnection`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from autobahn.websocket.protocol import WebSocketProtocol

from exposr_tx.direct import direct_writer, read_directly
from exposr_tx.interfaces import CloseCode
from exposr_tx.transport.connection import Lost
from exposr_tx.transport.websocket.masking import SMALL, mask_from, masked, unmasked
from exposr_tx.transport.websocket.settings import CLOSE_TIMEOUT, MAX_MESSAGE, Silence
from exposr_tx.wire.frames import FrameReader, frame_head
from exposr_tx.wire.native import MESSAGE_SIZE

if TYPE_CHECKING:
    from twisted.internet.interfaces import (
        IAddress,
        IDelayedCall,
        IPushProducer,
    )

    from exposr_tx.transport.session import Session

__all__ = ["Carrier", "Lost"]

#: Messages from this size on are given to the socket at once, where nothing waits before them:
#: copying them into the transport's buffer costs more than the call. Smaller ones are gathered
#: there until the reactor's next turn and go out together.
LARGE: Final = 16 * 1024

#: What autobahn remembers of the handshake and nobody reads: 1 KB for each of many thousands.
_OF_HANDSHAKE: Final = (
    *("http_headers", "http_request_data", "http_request_host", "http_request_params"),
    *("http_request_path", "http_request_uri", "http_response_data", "http_status_line"),
    *("websocket_extensions", "websocket_key", "websocket_origin", "websocket_protocols"),
)

_OPEN: Final = WebSocketProtocol.STATE_OPEN
_CLOSED: Final = WebSocketProtocol.STATE_CLOSED
_CONNECTING: Final = WebSocketProtocol.STATE_CONNECTING


@lru_cache(maxsize=4)
def _framed(message: bytes) -> bytes:
    return frame_head(len(message), False) + message


class Carrier:
    """A session's connection. Mixed into autobahn's protocol classes, before them.

    :cvar peer_masks: whether the peer masks its frames: clients do, and only they.
    :ivar native: whether the native dialect was agreed on, rather than exposr v2.
    """

    #: What each message needs stands together: in the dictionary of all that autobahn keeps, each
    #: of them lies somewhere else, and of ten thousand idle peers nothing is near. With the same
    #: in Accepted, a twelfth less CPU for a ping, and 0.7 KB less for each peer.
    __slots__ = (
        *("_reader", "_write_directly", "current_frame", "data", "session", "state", "transport"),
    )

    log = Silence()
    peer_masks = False
    native = False

    session: Session | None
    # Of autobahn:
    transport: Any
    factory: Any
    state: int
    data: bytes
    inside_message: bool
    current_frame: Any
    wasNotCleanReason: str | None
    closedByMe: bool
    localCloseCode: int | None
    localCloseReason: bytes | None
    remoteCloseCode: int | None
    remoteCloseReason: str | None

    _reader: FrameReader
    _drop_call: IDelayedCall | None = None
    _write_directly: Callable[[bytes | bytearray], None]
    _registered = False

    def __init__(self) -> None:
        super().__init__()
        self.session = self.transport = self.current_frame = None
        self.state = _CLOSED
        self.data = b""

    def connectionMade(self) -> None:
        # Autobahn's own gathers details of the transport that nobody reads.
        self.peer = str(self.transport.getPeer())
        self._reader = FrameReader(self.peer_masks, MAX_MESSAGE, unmasked)
        write = self.transport.write
        self._write_directly = direct_writer(self.transport) or (lambda data: write(bytes(data)))
        read_directly(self.transport, self.dataReceived)
        set_no_delay = getattr(self.transport, "setTcpNoDelay", None)
        if set_no_delay is not None:
            try:
                set_no_delay(True)
            except OSError:  # a UNIX socket
                pass
        self._connectionMade()  # type: ignore[attr-defined]

    def limit_messages(self) -> None:
        """The websocket is open, and its dialect known: so is how long a message may be."""
        if self.native:
            self._reader = FrameReader(self.peer_masks, MESSAGE_SIZE, unmasked, takes_text=False)
        for name in _OF_HANDSHAKE:
            vars(self).pop(name, None)

    # Receiving -------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        session = self.session
        if session is not None:
            session.heard()
            if not self.data and self.current_frame is None and self.state == _OPEN:
                message = self._reader.whole(data)
                if message is not None:
                    session.message(message)
                    return
        self.data += data
        self.consumeData()

    def consumeData(self) -> None:
        """Take data frames out of the buffer, leave everything else to autobahn."""
        if self.session is None:
            super().consumeData()  # type: ignore[misc]
            return
        more = True
        while more and self.state != _CLOSED:
            if self.current_frame is None:
                self._read_frames(self.session)
                if not self.data or self.state == _CLOSED:
                    return
            more = self.processData()  # type: ignore[attr-defined]

    def _read_frames(self, session: Session) -> None:
        """Data frames, whole or in part, up to one that is remarkable.

        Measured for a message of 300 bytes, from the transport to the stream: 5 µs
        in one frame and 10 µs in two, where autobahn's code for any frame takes 28
        and 43 µs; and the rest of the buffer is not copied for each.
        """
        reader = self._reader
        if reader.too_large or reader.is_text:
            self.data = b""  # nothing more is read from who was told so (RFC 6455, section 7.1.7)
            return
        pieces, used = reader.receive(self.data)
        if used:
            self.data = self.data[used:]
            self.inside_message = reader.inside_message
        for data, first, last in pieces:
            if first and last:
                session.message(data)
                continue
            if first:
                session.message_begin()
            session.message_data(data)
            if last:
                session.message_end()
        if reader.too_large:
            limit = reader.max_message
            session.violated(f"a message of more than {limit} bytes", CloseCode.TOO_BIG)
        elif reader.is_text:
            session.violated("a text message")
        else:
            return
        self.data = b""

    def onPing(self, payload: bytes) -> None:
        if self.session is not None:
            self.session.ping_received()
            self.sendPong(payload)  # type: ignore[attr-defined]
            self.session.replied(len(payload) + 6)

    def onPong(self, payload: bytes) -> None:
        if self.session is not None:
            self.session.pong_received(payload)

    # MessageConnection -----------------------------------------------------

    def send_now(self, message: bytes) -> None:
        """One message, given to the socket where nothing waits before it."""
        self._send(message, b"", 0)

    def send_same(self, message: bytes) -> None:
        """As above; where no mask makes it another one each time, its frame is made once."""
        if not self.peer_masks:
            self.send_now(message)
        elif self.state == _OPEN:
            self._write_directly(_framed(message))

    def send(self, head: bytes, payload: bytes = b"") -> None:
        """One message, in one frame."""
        self._send(head, payload, LARGE)

    def _send(self, head: bytes, payload: bytes, direct_from: int) -> None:
        if self.state != _OPEN:
            return
        size = len(head) + len(payload)
        frame: bytes | bytearray
        if self.peer_masks:  # then we do not
            frame = frame_head(size, False) + head + payload
        else:
            mask = os.urandom(4)
            start = frame_head(size, True) + mask
            if size <= SMALL:
                frame = start + masked(head + payload, mask)
            else:
                frame = bytearray(start + head)
                frame += payload
                mask_from(frame, len(start), mask)
        if size >= direct_from:
            self._write_directly(frame)
        else:
            self.transport.write(bytes(frame))

    def ping(self, payload: bytes) -> None:
        self.sendPing(payload)  # type: ignore[attr-defined]

    def close(self, code: int, reason: str) -> None:
        if self.state == _OPEN:
            text = reason.encode()[:120].decode(errors="ignore").encode()
            self.sendCloseFrame(code, text)  # type: ignore[attr-defined]
        elif self.state == _CONNECTING:
            self.abort(reason)

    def abort(self, reason: str) -> None:
        self.wasNotCleanReason = reason
        self.dropConnection(abort=True)  # type: ignore[attr-defined]

    def register(self, producer: IPushProducer) -> None:
        self._registered = True
        self.transport.registerProducer(producer, True)

    def unregisterProducer(self) -> None:
        # Autobahn calls this whenever it drops a connection.
        if self._registered:
            self._registered = False
            self.transport.unregisterProducer()

    def get_peer(self) -> IAddress:
        peer: IAddress = self.transport.getPeer()
        return peer

    def get_host(self) -> IAddress:
        host: IAddress = self.transport.getHost()
        return host

    # Ending ----------------------------------------------------------------

    def ending(self, code: int | None = None) -> Lost:
        """How the connection ends, as far as it is known.

        :param code: where no close frame tells it.
        """
        if self.remoteCloseCode is not None:
            code = self.remoteCloseCode
        elif self.closedByMe:
            code = self.localCloseCode
        # Why we have closed it says more than how the peer took that.
        ours = (self.localCloseReason or b"").decode() if self.closedByMe else ""
        return Lost(
            CloseCode.ABNORMAL if code is None else code,
            ours or self.remoteCloseReason or self.wasNotCleanReason or "",
            bool(self.closedByMe or self.remoteCloseCode is not None),
        )

    def onCloseFrame(self, code: int | None, reason: bytes | None) -> Any:
        failed = super().onCloseFrame(code, reason)  # type: ignore[misc]
        # Either side may be slow to drop TCP; neither gets more than a moment.
        self._drop_later()
        if self.session is not None:
            self.session.lost((reason or b"").decode(errors="replace") or f"closed with {code}")
        return failed

    def _closeConnection(self, abort: bool = False) -> None:
        if self.session is not None:
            self.session.lost(self.wasNotCleanReason or "the connection is dropped")
        if abort:
            self.transport.abortConnection()
        else:
            self.transport.loseConnection()
            self._drop_later()

    def _drop_later(self) -> None:
        if self._drop_call is None:
            clock = self.factory.reactor
            self._drop_call = clock.callLater(CLOSE_TIMEOUT, self._drop)

    def _drop(self) -> None:
        self.transport.abortConnection()

    def onClose(self, clean: bool, code: int | None, reason: str | None) -> None:
        if self._drop_call is not None and self._drop_call.active():
            self._drop_call.cancel()
        if self.session is not None:
            self.session.lost(reason or "the connection is lost")
