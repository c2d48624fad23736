"""backstream's websockets: JSON messages with its Go programs, the native dialect among ourselves.

The client always offers the native dialect; where the other side does not agree,
text messages are gathered and handed to who reads them. Source:
docs/protocols/backstream.md.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from autobahn.twisted.websocket import WebSocketServerFactory
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from exposr_tx.arrivals import keep_alive
from exposr_tx.direct import socket_of
from exposr_tx.errors import Draining, ExposrError, TooManyFailures, TunnelNotFound
from exposr_tx.interfaces import CloseCode, ITakeover, Origin
from exposr_tx.transport.backstream import TUNNEL, Clients, JsonUpstream
from exposr_tx.transport.connection import Lost
from exposr_tx.transport.websocket.client import ClientFactory, ClientProtocol
from exposr_tx.transport.websocket.server import ServerProtocol, WebsocketEndpoint
from exposr_tx.transport.websocket.settings import Silence, Timers, limits
from exposr_tx.wire.backstream import (
    MAX_REQUEST_MESSAGE,
    MAX_RESPONSE_MESSAGE,
    MAX_SKIPPED_MESSAGE,
)
from exposr_tx.wire.native import SUBPROTOCOL, offers_native

if TYPE_CHECKING:
    from twisted.internet.interfaces import (
        IAddress,
        IProtocol,
        IProtocolFactory,
        IReactorTime,
        IStreamClientEndpoint,
    )

__all__ = ["BackstreamEndpoint", "Events", "JsonConnection", "connect_backstream"]

#: Seconds of silence after which the system asks whether the other host is there, seconds
#: between its questions, and how many. It answers for a program that is busy, which a
#: websocket's ping does not: so a host that has vanished is noticed within a minute.
PROBES: Final = (30, 10, 3)
#: Seconds for a server to answer the handshake: one that runs only when it is asked starts first.
HANDSHAKE: Final = 45.0
#: What a frame of a message counts besides its bytes, so that one made of empty frames has an end
#: too. The Go client's have 4 KiB.
FRAME: Final = 256


class Events(Protocol):
    """Who is told of a server's clients: a journal."""

    def connected(self, tunnel_id: str, peer: IAddress, connections: int) -> None: ...

    def lost(
        self, tunnel_id: str, peer: IAddress, connections: int, clean: bool, code: int, reason: str
    ) -> None: ...

    def refused(self, tunnel_id: str, peer: IAddress, error: ExposrError) -> None: ...


class _Texts:
    """What both sides' protocols do with text messages. Mixed into carriers, before them.

    :ivar reader: takes messages; None while there is a session, or nothing yet.
    """

    reader: Any = None
    # Of autobahn and the carrier:
    sendMessage: Callable[..., None]
    sendPong: Callable[[bytes], None]
    transport: Any
    message_data_total_length: int
    _full = False

    def begin(self, reader: Any) -> None:
        """The websocket is open, and carries text."""
        self.reader = reader
        with suppress(AttributeError, OSError):  # a UNIX socket has no such thing
            keep_alive(socket_of(self.transport), PROBES)
        self.register(_Room(self))  # type: ignore[attr-defined]

    @property
    def has_room(self) -> bool:
        """Whether more can be sent without waiting in memory."""
        return not self._full

    def send_text(self, message: bytes) -> None:
        """Queue one text message."""
        self.sendMessage(message, False)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Of either kind: the frame's type means nothing there."""
        if self.reader is not None:
            self.reader.message(payload)

    def onMessageFrameBegin(self, length: int) -> None:
        super().onMessageFrameBegin(length)  # type: ignore[misc]
        self.message_data_total_length += FRAME

    def onPing(self, payload: bytes) -> None:
        if self.reader is None:
            super().onPing(payload)  # type: ignore[misc]
        elif not self._full:  # who does not read needs no answer
            self.sendPong(payload)

    def onCloseFrame(self, code: int | None, reason: bytes | None) -> Any:
        failed = super().onCloseFrame(code, reason)  # type: ignore[misc]
        if self.reader is not None:
            self.reader.lost(f"closed with {code}")
        return failed

    def onClose(self, clean: bool, code: int | None, reason: str | None) -> None:
        super().onClose(clean, code, reason)  # type: ignore[misc]
        if self.reader is not None:
            self.reader.lost(reason or "the connection is lost")


class _Room:
    """Whether the transport takes more."""

    def __init__(self, texts: _Texts) -> None:
        self._texts = texts

    def pauseProducing(self) -> None:
        self._texts._full = True

    def resumeProducing(self) -> None:
        self._texts._full = False
        self._texts.reader.room()

    def stopProducing(self) -> None:
        """The connection is lost."""


# The server's side --------------------------------------------------------------


class _Server(_Texts, ServerProtocol):  # type: ignore[misc]
    """A client's connection on the server."""

    factory: _ServerFactory  # type: ignore[assignment]
    _skipping = False

    def onMessageFrameBegin(self, length: int) -> None:
        total = self.message_data_total_length + length
        if total > MAX_RESPONSE_MESSAGE and self.reader is not None:
            self._skipping = self._skipping or self.reader.too_long()
            if self._skipping and total <= MAX_SKIPPED_MESSAGE:
                self.message_data_total_length = total + FRAME
                self.message_data = self.frame_data = []
                return
        super().onMessageFrameBegin(length)

    def onMessageFrameData(self, payload: bytes) -> None:
        if not self._skipping:
            super().onMessageFrameData(payload)

    def onMessageEnd(self) -> None:
        if self._skipping:
            self._skipping = False
            self.reader.skipped()
        else:
            super().onMessageEnd()

    def onOpen(self) -> None:
        if self.native:
            super().onOpen()
            return
        endpoint = self.factory.endpoint
        upstream = JsonUpstream(
            self,
            endpoint.clients,
            endpoint.clock,
            self.origin.peer,
            endpoint.asked,
            self._over,
        )
        self.begin(upstream)
        endpoint.add(upstream)
        upstream.start()
        endpoint.events.connected(TUNNEL, upstream.peer, len(endpoint.clients))

    def _over(self, upstream: JsonUpstream, reason: str) -> None:
        endpoint = self.factory.endpoint
        endpoint.remove(upstream)
        lost = self.ending()
        endpoint.events.lost(
            TUNNEL, upstream.peer, len(endpoint.clients), lost.clean, lost.code, reason
        )

    def refusal(self, reason: str) -> tuple[str, bytes]:
        body = f"Bad Request\nfailed to upgrade: {reason}\n"
        return "text/plain; charset=utf-8", body.encode("ascii", "replace")


class _ServerFactory(WebSocketServerFactory):
    log = Silence()

    def __init__(self, endpoint: BackstreamEndpoint, clock: IReactorTime) -> None:
        super().__init__(server="", reactor=clock)
        self.endpoint = endpoint
        self._batched_timer = Timers(clock)
        self.setProtocolOptions(
            versions=[13],
            webStatus=False,
            requireMaskedClientFrames=True,
            allowNullOrigin=True,
            **limits(MAX_RESPONSE_MESSAGE),
        )


@implementer(ITakeover)
class BackstreamEndpoint(WebsocketEndpoint):
    """Where backstream's clients connect: any path, by the field that names them.

    :param clients: takes connections into service.
    :param events: told who comes and goes.
    :param asked: told of every JSON message that is sent: id, method and path.
    :ivar judge: errbacks where a client may not connect; lets anybody in unless it is set.
    """

    def __init__(
        self,
        clients: Clients,
        clock: IReactorTime,
        max_streams: int,
        events: Events | None = None,
        asked: Callable[[str, str, str], object] = lambda _id, _method, _path: None,
    ) -> None:
        super().__init__(clients, clock, max_streams)
        self.judge: Callable[[Origin], Deferred[None]] = lambda _: succeed(None)
        self.clients = clients
        self.asked = asked
        self.events: Events = events or self.journal
        self.journal = self.events  # type: ignore[assignment]
        self._json = _ServerFactory(self, clock)

    def claims(self, path: bytes) -> bool:
        return True

    def admit_tunnel(self, tunnel_id: str, token: str, origin: Origin) -> Deferred[None]:
        """A connection carries the one tunnel that there is, and no other."""
        return fail(TunnelNotFound("this server has one tunnel"))

    async def _admit(
        self, target: bytes, fields: list[tuple[bytes, bytes]], origin: Origin
    ) -> IProtocol:
        if self.draining:
            raise Draining("the server is shutting down")
        try:
            await self.judge(origin)
        except TooManyFailures:
            raise  # the address was told of once
        except ExposrError as error:
            self.events.refused(TUNNEL, origin.peer, error)
            raise
        protocol = _Server(TUNNEL, origin, offers_native(fields))
        protocol.factory = self._json
        return protocol


# The client's side --------------------------------------------------------------


class Reader(Protocol):
    """What takes the messages of a server that speaks JSON."""

    def message(self, data: bytes) -> None:
        """A message has come."""

    def lost(self, reason: str) -> None:
        """The connection is over; may be called again."""

    def room(self) -> None:
        """What waited to be sent is gone."""


class JsonConnection:
    """A connection to a server that speaks JSON.

    :ivar lost: fires once, with :class:`Lost`, when it is over.
    :ivar leaving: never fires: such a server does not tell.
    """

    def __init__(self, protocol: Any, lost: Deferred[Lost]) -> None:
        self._protocol = protocol
        self.lost = lost
        self.leaving: Deferred[None] = Deferred()

    @property
    def said_goodbye(self) -> bool:
        """Whether the server has sent a close frame, first or in answer."""
        return self._protocol.remoteCloseCode is not None

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Say goodbye; ``lost`` fires within two seconds."""
        self._protocol.close(code, reason)

    @property
    def has_room(self) -> bool:
        """Whether more can be sent without waiting in memory."""
        return bool(self._protocol.has_room)

    def send_text(self, message: bytes) -> None:
        """Queue one text message."""
        self._protocol.send_text(message)

    def pause(self) -> None:
        """Read no more for now."""
        self._protocol.transport.pauseProducing()

    def resume(self) -> None:
        """Read again."""
        self._protocol.transport.resumeProducing()


class _Client(_Texts, ClientProtocol):  # type: ignore[misc]
    factory: _ClientFactory

    def _actuallyStartHandshake(self, request_options: Any) -> None:
        self.websocket_key = base64.b64encode(os.urandom(16))
        given = self.factory.given
        hosts = [value for name, value in given if name.lower() == "host"]
        fields = [
            ("Host", hosts[-1] if hosts else self.factory.authority),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", self.websocket_key.decode("ascii")),
            ("Sec-WebSocket-Protocol", SUBPROTOCOL),
            ("Backstream-Client", "default"),
            *(pair for pair in given if pair[0].lower() != "host"),
        ]
        head = "".join(f"{name}: {value}\r\n" for name, value in fields)
        self.transport.write(f"GET {self.factory.target} HTTP/1.1\r\n{head}\r\n".encode())

    def onOpen(self) -> None:
        if self.native:
            super().onOpen()
            return
        connection = JsonConnection(self, self.factory.lost)
        self.begin(self.factory.make_reader(connection))
        self.factory.json.callback(connection)


class _ClientFactory(ClientFactory):
    """For one connection."""

    protocol = _Client

    def __init__(
        self,
        url: str,
        streams: IProtocolFactory,
        clock: IReactorTime,
        given: Sequence[tuple[str, str]],
        max_streams: int,
        make_reader: Callable[[JsonConnection], Reader],
    ) -> None:
        super().__init__(url, streams, clock, {}, max_streams, True)
        self.given = given
        self.make_reader = make_reader
        self.json: Deferred[Any] = self.opened
        options = limits(MAX_REQUEST_MESSAGE, HANDSHAKE)
        self.setProtocolOptions(serverConnectionDropTimeout=0, **options)


def connect_backstream(
    endpoint: IStreamClientEndpoint,
    url: str,
    streams: IProtocolFactory,
    make_reader: Callable[[JsonConnection], Reader],
    clock: IReactorTime,
    headers: Sequence[tuple[str, str]],
    max_streams: int,
) -> Deferred[Any]:
    """Open a client's websocket to a backstream server, of whichever kind.

    :param endpoint: connects to the server, TLS included.
    :param url: ``ws:`` or ``wss:``; any path.
    :param streams: builds the protocol for each stream, where the server is ours.
    :param make_reader: makes what takes the messages, where it speaks JSON.
    :param headers: further fields of the handshake; ``Host`` replaces the URL's.
    :return: fires with a ClientConnection or a JsonConnection. Errbacks with what the
        endpoint fails with, with UpgradeRefused, or with ConnectFailed; may be cancelled.
    """
    websocket = _ClientFactory(url, streams, clock, headers, max_streams, make_reader)

    def connected(protocol: Any) -> Deferred[Any]:
        websocket.websocket = protocol
        return websocket.opened

    connecting: Deferred[IProtocol] = endpoint.connect(websocket)
    return connecting.addCallback(connected)
