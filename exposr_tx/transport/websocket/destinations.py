"""Visitors' websockets that a newer server of backstream tells of in messages.

The server has a websocket with the visitor, this one is with the destination: what comes
by one goes as a message to the other. Source: docs/protocols/backstream.md.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from contextlib import suppress
from http.client import parse_headers
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, Protocol

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol

from exposr_tx.interfaces import CloseCode
from exposr_tx.transport.websocket.settings import (
    CLOSE_TIMEOUT,
    MAX_MESSAGE,
    Silence,
    Timers,
    limits,
)
from exposr_tx.wire.backstream import (
    BINARY,
    NO_STATUS,
    TEXT,
    Closing,
    Payload,
    Upgrade,
    UpgradeAnswer,
)

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

__all__ = ["DestinationWebsocket", "DestinationWebsockets"]

#: Seconds for the destination's answer: newer servers wait as long.
HANDSHAKE: Final = 10.0
#: Bytes that wait for a destination; one that reads more slowly loses its websocket, as the server
#: cannot be told to wait with this one alone.
MAX_UNREAD: Final = 4 * 1024 * 1024


class Recording(Protocol):
    """Who is told of all bytes."""

    def connected(self) -> None: ...

    def sent(self, data: bytes) -> object: ...

    def received(self, data: bytes) -> object: ...

    def ended(self, error: str = "") -> object: ...


class DestinationWebsocket(WebSocketClientProtocol):
    """The destination's end of one."""

    log = Silence()
    factory: DestinationWebsockets
    transport: Any

    def __init__(self) -> None:
        super().__init__()
        self._opened = self._over = self._full = False
        self._unread = 0

    def connectionMade(self) -> None:
        self.peer = ""
        with suppress(AttributeError, OSError):  # a UNIX socket has no such thing
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(_Room(self), True)
        if self.factory.recording is not None:
            self.factory.recording.connected()
        self._connectionMade()

    def _actuallyStartHandshake(self, request_options: Any) -> None:
        # Ours, because autobahn's writes fields of its own choice.
        self.websocket_key = base64.b64encode(os.urandom(16))
        self.sendData(self.factory.head(self.websocket_key.decode("ascii")))

    def sendData(self, data: bytes, *options: Any) -> None:
        if self.factory.recording is not None:
            self.factory.recording.sent(data)
        self.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        if self.factory.recording is not None:
            self.factory.recording.received(data)
        super().dataReceived(data)

    def onOpen(self) -> None:
        self._opened = True
        head = BytesIO(self.http_response_data.partition(b"\r\n")[2])
        fields = tuple(parse_headers(head).items())
        self.factory.say(self, UpgradeAnswer(self.factory.id, True, fields))

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.factory.say(self, Payload(self.factory.id, BINARY if isBinary else TEXT, payload))

    def onCloseFrame(self, code: Any, reason: Any) -> Any:
        failed = super().onCloseFrame(code, reason)
        self._ended(NO_STATUS if code is None else code, self.remoteCloseReason)
        # The destination is to drop TCP, and may be slow to.
        self.factory.reactor.callLater(CLOSE_TIMEOUT, self.transport.abortConnection)
        return failed

    def onClose(self, clean: bool, code: int | None, reason: str | None) -> None:
        if self.factory.recording is not None:
            self.factory.recording.ended("" if clean else reason or "the connection is lost")
        if not self._opened:
            self.factory.failed(reason or "the destination does not answer", self)
        else:
            self._ended(code, reason)

    def _ended(self, code: int | None, reason: str | None) -> None:
        if not self._over:
            self._over = True
            closing = Closing(self.factory.id, code or CloseCode.ABNORMAL, reason or "")
            for message in closing.messages:
                self.factory.say(self, message)

    def said(self, message: Payload | Closing) -> None:
        """The server tells what the visitor says."""
        closing = message.closing
        if self._over:
            return
        if closing is not None:
            self.close(closing.meant or Closing(self.factory.id, CloseCode.GOING_AWAY))
        elif not self._opened:
            return  # of another client's websocket: the server tells all
        elif isinstance(message, Payload) and message.kind in (TEXT, BINARY):
            self._unread += len(message.data) * self._full
            if self._unread > MAX_UNREAD:
                self.dropConnection(abort=True)
            else:
                self.sendMessage(message.data, message.kind == BINARY)

    def close(self, closing: Closing) -> None:
        """Nobody is at the other end any more."""
        self._over = True
        if self._opened:
            self.sendCloseFrame(*closing.parts)
        else:
            self.dropConnection(abort=True)

    def pause(self) -> None:
        """Read no more for now."""
        self.transport.pauseProducing()

    def resume(self) -> None:
        """Read again."""
        self.transport.resumeProducing()


class _Room:
    """Whether the destination takes more."""

    def __init__(self, websocket: DestinationWebsocket) -> None:
        self._websocket = websocket

    def pauseProducing(self) -> None:
        self._websocket._full = True

    def resumeProducing(self) -> None:
        self._websocket._full = False
        self._websocket._unread = 0

    def stopProducing(self) -> None:
        """The connection is lost."""


class DestinationWebsockets(WebSocketClientFactory):
    """For one websocket.

    :param head: the request's bytes, for a key.
    :param say: takes what is to be told to the server.
    :param failed: told why there is no websocket, and which it would have been.
    """

    log = Silence()
    noisy = False
    protocol = DestinationWebsocket  # type: ignore[assignment]

    def __init__(
        self,
        upgrade: Upgrade,
        head: Callable[[str], bytes],
        say: Callable[[DestinationWebsocket, UpgradeAnswer | Payload | Closing], object],
        failed: Callable[[str, DestinationWebsocket], object],
        recording: Recording | None,
        clock: IReactorTime,
    ) -> None:
        offered = [
            protocol.strip()
            for name, value in upgrade.fields
            if name.lower() == "sec-websocket-protocol"
            for protocol in value.split(",")
        ]
        super().__init__(protocols=offered, reactor=clock)
        self.id = upgrade.id
        self.head = head
        self.say = say
        self.failed = failed
        self.recording = recording
        self._batched_timer = Timers(clock)
        options = limits(MAX_MESSAGE, HANDSHAKE) | {"failByDrop": False}
        self.setProtocolOptions(serverConnectionDropTimeout=0, **options)
