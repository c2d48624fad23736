"""A visitor's websocket, whose messages go to the client one by one.

The client has a websocket to the target, this one is the visitor's end: the two have
nothing in common but messages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol

from exposr_tx.interfaces import CloseCode
from exposr_tx.transport.websocket.settings import MAX_MESSAGE, Silence, Timers, limits
from exposr_tx.wire.backstream import (
    BINARY,
    NO_STATUS,
    TEXT,
    Closing,
    Payload,
    UpgradeAnswer,
    is_field,
)

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from exposr_tx.wire.http1 import Request

__all__ = ["VisitorWebsocket", "visitor_websocket"]

#: What of a visitor's handshake concerns this end of its websocket. No extension is agreed on.
_TOLD: Final = (b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-protocol")


class Wire(Protocol):
    """The bytes to the visitor."""

    def write(self, data: bytes) -> None: ...

    def loseConnection(self) -> None: ...

    def abortConnection(self) -> None: ...


class VisitorWebsocket(WebSocketServerProtocol):
    """The visitor's end.

    :param answer: the client's.
    :param say: told of each message of the visitor's, and once of the end.
    """

    log = Silence()
    # Of autobahn, which has no types for them:
    makeConnection: Callable[[Wire], None]
    sendMessage: Callable[..., Any]

    def __init__(self, answer: UpgradeAnswer, say: Callable[[Payload | Closing], object]) -> None:
        super().__init__()
        self._answer = answer
        self._say = say
        self._over = False

    def connectionMade(self) -> None:
        self.peer = ""
        self._connectionMade()

    def unregisterProducer(self) -> None:
        """There is none; autobahn asks whenever it drops a connection."""

    def onConnect(self, request: Any) -> Any:
        """The target's choice of a subprotocol, and the fields of its answer."""
        chosen = None
        fields: dict[str, list[str]] = {}
        for name, value in self._answer.fields:
            if not is_field(name, value):
                continue
            if name.lower() != "sec-websocket-protocol":
                fields.setdefault(name, []).append(value)
            elif value in request.protocols:
                chosen = value
        return chosen, fields

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self._say(Payload(self._answer.id, BINARY if isBinary else TEXT, payload))

    def onClose(self, clean: bool, code: int | None, reason: str | None) -> None:
        if not self._over:
            self._over = True
            without = NO_STATUS if clean else CloseCode.ABNORMAL
            closing = Closing(self._answer.id, code or without, reason or "")
            for message in closing.messages:
                self._say(message)

    @property
    def _is_open(self) -> bool:
        return bool(self.state == self.STATE_OPEN)

    def said(self, message: Payload | Closing) -> None:
        """The client tells what the target says."""
        closing = message.closing
        if closing is not None:
            self._over = True
            if closing.meant is None or not self._is_open:
                self.dropConnection(abort=False)  # what was said before has yet to arrive
            else:
                self.sendCloseFrame(*closing.meant.parts)
        elif isinstance(message, Payload) and message.kind in (TEXT, BINARY) and self._is_open:
            self.sendMessage(message.data, message.kind == BINARY)


def visitor_websocket(
    request: Request,
    answer: UpgradeAnswer,
    wire: Wire,
    say: Callable[[Payload | Closing], object],
    clock: IReactorTime,
) -> VisitorWebsocket:
    """Open the visitor's end, once the client has its own; what is no handshake is refused.

    :param request: the visitor's.
    :param wire: takes bytes for the visitor.
    """
    factory = WebSocketServerFactory(server="", reactor=clock)
    factory.log = Silence()
    factory._batched_timer = Timers(clock)
    options = limits(MAX_MESSAGE) | {"failByDrop": False}
    factory.setProtocolOptions(versions=[13], webStatus=False, allowNullOrigin=True, **options)
    websocket = VisitorWebsocket(answer, say)
    websocket.factory = factory
    websocket.makeConnection(wire)
    told = [b"%b: %b" % pair for pair in request.fields if pair[0].lower() in _TOLD]
    head = [b"GET / HTTP/1.1", b"Host: visitor", b"Upgrade: websocket", b"Connection: Upgrade"]
    websocket.dataReceived(b"\r\n".join([*head, *told, b"", b""]))
    return websocket
