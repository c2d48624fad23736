"""Websockets that carry sessions: the server's endpoint and the client's connection.

The only module that knows autobahn. Autobahn does the handshakes, control
frames and violations; data frames, which are nearly all there is, are read and
written here (:class:`_Carrier`), and their bytes go to the session as they
arrive: no message is gathered.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

from autobahn.twisted.websocket import (
    WebSocketClientFactory,
    WebSocketClientProtocol,
    WebSocketServerFactory,
    WebSocketServerProtocol,
)
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from exposr_tx.direct import read_much, writer_of
from exposr_tx.errors import (
    Draining,
    ExposrError,
    NoToken,
    TooManyConnections,
    TunnelNotFound,
)
from exposr_tx.interfaces import IAdmission, ITakeover, IUpstream, Origin
from exposr_tx.transport.masking import SMALL, Unmasker, mask_from, masked
from exposr_tx.transport.session import MAX_STREAMS, Session
from exposr_tx.wire.mux import MuxV2

if TYPE_CHECKING:
    from twisted.internet.interfaces import (
        IAddress,
        IDelayedCall,
        IProtocol,
        IProtocolFactory,
        IPushProducer,
        IReactorTime,
        IStreamClientEndpoint,
    )

__all__ = [
    "MAX_MESSAGE",
    "ClientConnection",
    "ConnectFailed",
    "Lost",
    "UpgradeRefused",
    "WebsocketEndpoint",
    "WebsocketUpstream",
    "connect",
]

#: Bytes in one message of a v2 peer. Nothing of that size is ever in memory.
MAX_MESSAGE: Final = 16 * 1024 * 1024

#: Seconds for a websocket handshake, and for the answer to a close frame.
HANDSHAKE_TIMEOUT: Final = 5.0
CLOSE_TIMEOUT: Final = 1.0

#: Bytes of an answer's head, and of the body of a refusal, that a client reads.
MAX_HEAD: Final = 32 * 1024
MAX_REFUSAL: Final = 16 * 1024

_PATH: Final = re.compile(rb"/v1/tunnel/([^/?]+)/ws-endpoint/?", re.IGNORECASE)
_ERROR: Final = re.compile(rb'"error"\s*:\s*"(\w{1,64})"')
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,9})[ \t]*\r\n", re.IGNORECASE)

#: What of a client's handshake is declined by not looking at it: no extension and
#: no subprotocol is spoken, and browsers' origins mean nothing here.
_DECLINED: Final = re.compile(
    rb"\r\n(?:Origin|Sec-WebSocket-(?:Extensions|Protocol)):[^\r\n]*", re.IGNORECASE
)

#: Messages from this size on are given to the socket at once, where nothing waits before them:
#: copying them into the transport's buffer costs more than the call. Smaller ones are gathered
#: there until the reactor's next turn and go out together.
LARGE: Final = 16 * 1024
_SHORT: Final = Struct(">BB")
_MEDIUM: Final = Struct(">BBH")
_LONG: Final = Struct(">BBQ")
_U64: Final = Struct(">Q")


class _Silence:
    """In place of autobahn's loggers: they would write handshakes, with their tokens."""

    def debug(self, *_: object, **__: object) -> None: ...

    info = warn = error = failure = trace = debug


class _Timers:
    """Autobahn's timers on our clock."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock

    def call_later(self, delay: float, function: Any) -> _Timer:
        return _Timer(self._clock.callLater(delay, function))


class _Timer:
    def __init__(self, call: IDelayedCall) -> None:
        self._call = call

    def cancel(self) -> None:
        if self._call.active():
            self._call.cancel()


class _Carrier:
    """What both sides' websocket protocols share: a MessageConnection of a session.

    Mixed into autobahn's protocol classes, before them.
    """

    log = _Silence()
    session: Session | None = None
    transport: Any
    factory: Any
    state: int
    data: bytes
    inside_message: bool
    current_frame: Any
    wasNotCleanReason: str | None

    # The mask bit that data frames of the peer must have: 0x80 from a client.
    _mask_bit = 0
    # A data frame that has not arrived completely: bytes to come, whether it is
    # the last of its message, and what unmasks it.
    _rest = 0
    _final = False
    _masker: Any = None
    _message_size = 0
    _drop_call: IDelayedCall | None = None
    _write_directly: Callable[[bytes | bytearray], None]
    _registered = False

    def connectionMade(self) -> None:
        # Autobahn's own gathers details of the transport that nobody reads.
        self.peer = str(self.transport.getPeer())
        self._write_directly = writer_of(self.transport)
        read_much(self.transport)
        set_no_delay = getattr(self.transport, "setTcpNoDelay", None)
        if set_no_delay is not None:
            try:
                set_no_delay(True)
            except OSError:  # a UNIX socket
                pass
        self._connectionMade()  # type: ignore[attr-defined]

    # Receiving -------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        if self.session is not None:
            self.session.heard()
        self.data += data
        self.consumeData()

    def consumeData(self) -> None:
        """Take data frames out of the buffer, leave everything else to autobahn."""
        if self.session is None:
            super().consumeData()  # type: ignore[misc]
            return
        more = True
        while more and self.state != WebSocketServerProtocol.STATE_CLOSED:
            if self.current_frame is None:
                self._consume_frames(self.session)
                if not self.data or self.state == WebSocketServerProtocol.STATE_CLOSED:
                    return
            more = self.processData()  # type: ignore[attr-defined]

    def _consume_frames(self, session: Session) -> None:
        """Data frames, whole or in part, up to one that is remarkable.

        Measured for a message of 300 bytes, from the transport to the stream: 5 µs
        in one frame and 10 µs in two, where autobahn's code for any frame takes 28
        and 43 µs; and the rest of the buffer is not copied for each.
        """
        data = self.data
        view = memoryview(data)
        end = len(data)
        pos = 0
        while pos < end and self.state != WebSocketServerProtocol.STATE_CLOSED:
            if self._rest:
                size = min(self._rest, end - pos)
                self._rest -= size
                pos += size
                session.message_data(self._masker.process(view[pos - size : pos]))
                if not self._rest and self._final:
                    self._end_message(session)
                continue
            start = pos + 2
            if start > end:
                break
            opcode = data[pos] & 0x7F
            length = data[pos + 1] ^ self._mask_bit
            # A control frame, reserved bits, a wrong mask bit, fragments out of order.
            if opcode > 2 or (opcode == 0) is not self.inside_message or length > 127:
                break
            if length == 126:
                start += 2
                if start > end:
                    break
                length = data[start - 2] << 8 | data[start - 1]
                if length < 126:
                    break
            elif length == 127:
                start += 8
                if start > end:
                    break
                (length,) = _U64.unpack_from(data, start - 8)
                if not 65535 < length < 1 << 63:
                    break
            mask = b""
            if self._mask_bit:
                start += 4
                if start > end:
                    break
                mask = data[start - 4 : start]
            self._message_size += length
            if self._message_size > MAX_MESSAGE:
                session.fail(f"a message of more than {MAX_MESSAGE} bytes")
                break
            final = data[pos] & 0x80 != 0
            stop = start + length
            if stop <= end:
                payload = Unmasker(mask).process(view[start:stop]) if mask else data[start:stop]
                pos = stop
                if opcode and final:
                    self._message_size = 0
                    session.message(payload)
                    continue
                if opcode:
                    self._begin_message(session)
                session.message_data(payload)
                if final:
                    self._end_message(session)
                continue
            if opcode:
                self._begin_message(session)
            self._rest = length
            self._final = final
            self._masker = Unmasker(mask)
            pos = start
        if pos:
            self.data = data[pos:]

    def _begin_message(self, session: Session) -> None:
        self.inside_message = True
        session.message_begin()

    def _end_message(self, session: Session) -> None:
        self.inside_message = False
        self._message_size = 0
        session.message_end()

    def onPing(self, payload: bytes) -> None:
        if self.session is not None:
            self.session.ping_received()
            self.sendPong(payload)  # type: ignore[attr-defined]
            self.session.replied(len(payload) + 6)

    def onPong(self, payload: bytes) -> None:
        if self.session is not None:
            self.session.pong_received(payload)

    # MessageConnection -----------------------------------------------------

    def send(self, head: bytes, payload: bytes = b"") -> None:
        """One message, in one frame."""
        if self.state != WebSocketServerProtocol.STATE_OPEN:
            return
        size = len(head) + len(payload)
        bit = 0x80 ^ self._mask_bit  # who gets masked frames sends unmasked ones
        if size < 126:
            start = _SHORT.pack(0x82, size | bit)
        elif size < 65536:
            start = _MEDIUM.pack(0x82, 126 | bit, size)
        else:
            start = _LONG.pack(0x82, 127 | bit, size)
        frame: bytes | bytearray
        if not bit:
            frame = start + head + payload
        elif size <= SMALL:
            mask = os.urandom(4)
            frame = start + mask + masked(head + payload, mask)
        else:
            mask = os.urandom(4)
            frame = bytearray(start + mask + head)
            frame += payload
            mask_from(frame, len(start) + 4, mask)
        if size >= LARGE:
            self._write_directly(frame)
        else:
            self.transport.write(bytes(frame))

    def ping(self, payload: bytes) -> None:
        self.sendPing(payload)  # type: ignore[attr-defined]

    def close(self, code: int, reason: str) -> None:
        if self.state == WebSocketServerProtocol.STATE_OPEN:
            text = reason.encode()[:120].decode(errors="ignore").encode()
            self.sendCloseFrame(code, text)  # type: ignore[attr-defined]
        elif self.state == WebSocketServerProtocol.STATE_CONNECTING:
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


# The server's side ---------------------------------------------------------


class _ServerProtocol(_Carrier, WebSocketServerProtocol):  # type: ignore[misc]
    """A client's connection on the server."""

    _mask_bit = 0x80
    factory: _ServerFactory

    def __init__(self, tunnel_id: str, origin: Origin) -> None:
        super().__init__()
        self.tunnel_id = tunnel_id
        self.origin = origin
        self.upstream: WebsocketUpstream | None = None

    def processHandshake(self) -> None:
        head, end, rest = self.data.partition(b"\r\n\r\n")
        if end:
            self.data = _DECLINED.sub(b"", head) + end + rest
        super().processHandshake()

    def onConnect(self, request: Any) -> None:
        """Any request will do: the endpoint has admitted it."""

    def sendHttpErrorResponse(self, code: int, reason: str, responseHeaders: Any = None) -> None:
        # A refusal without a body leaves existing clients waiting for ever.
        body = b'{"error":"BAD_INPUT"}'
        lines = [f"HTTP/1.1 {code} Bad Request", "Content-Type: application/json"]
        lines += [f"{name}: {value}" for name, value in responseHeaders or ()]
        lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
        self.transport.write("\r\n".join(lines).encode("latin-1") + body)

    def onOpen(self) -> None:
        upstream = WebsocketUpstream(self, self.factory.endpoint)
        self.upstream = upstream
        self.session = upstream.session
        upstream.start()

    @property
    def said_goodbye(self) -> bool:
        return bool(self.closedByMe or self.remoteCloseCode is not None)


class _ServerFactory(WebSocketServerFactory):
    log = _Silence()

    def __init__(self, endpoint: WebsocketEndpoint, clock: IReactorTime) -> None:
        super().__init__(server="", reactor=clock)
        self.endpoint = endpoint
        self._batched_timer = _Timers(clock)
        self.setProtocolOptions(
            webStatus=False,
            utf8validateIncoming=False,
            requireMaskedClientFrames=True,
            maxFramePayloadSize=MAX_MESSAGE,
            maxMessagePayloadSize=MAX_MESSAGE,
            failByDrop=True,
            openHandshakeTimeout=HANDSHAKE_TIMEOUT,
            closeHandshakeTimeout=CLOSE_TIMEOUT,
            allowNullOrigin=True,
        )


@implementer(IUpstream)
class WebsocketUpstream:
    """A connected client as a way to its tunnel's target.

    :ivar accepting: False while draining, and once the connection is over.
    """

    _log = Logger()

    def __init__(self, protocol: _ServerProtocol, endpoint: WebsocketEndpoint) -> None:
        self.tunnel_id = protocol.tunnel_id
        self.peer = protocol.origin.peer
        self.accepting = True
        self.session = Session(
            protocol,
            MuxV2(opener=True),
            endpoint.clock,
            max_streams=endpoint.max_streams,
            on_end=self._ended,
        )
        self._protocol = protocol
        self._endpoint = endpoint
        self._plugged = False
        self._gone = False

    def __repr__(self) -> str:
        return f"<WebsocketUpstream {self.tunnel_id} {self.session!r}>"

    @property
    def alive_at(self) -> int:
        return self.session.alive_at

    def start(self) -> None:
        """The websocket is open: ask to be taken into service."""
        self._endpoint.upstreams.add(self)
        self.session.start()
        plugged = self._endpoint.admission.plug(self)
        plugged.addCallbacks(self._in_service, self._refused)
        plugged.addErrback(self._broken)

    def _in_service(self, _: object) -> None:
        self._plugged = True
        if self._gone:
            self._unplug()

    def _refused(self, reason: Failure) -> None:
        if reason.check(TooManyConnections):
            self.close(1008, "unable to establish tunnel")
        elif reason.check(Draining):
            self.close(1001, "Server shutting down")
        else:
            self._broken(reason)

    def _broken(self, reason: Failure) -> None:
        self._log.failure(
            "cannot serve a connection of tunnel {tunnel}", reason, tunnel=self.tunnel_id
        )
        self.close(1011, "internal error")

    def _ended(self, reason: str) -> None:
        self.accepting = False
        self._gone = True
        self._endpoint.upstreams.discard(self)
        if self._plugged:
            self._unplug()

    def _unplug(self) -> None:
        self._plugged = False
        self._endpoint.admission.unplug(self, self._protocol.said_goodbye)

    def connect(self, factory: IProtocolFactory, origin: Origin) -> Deferred[IProtocol]:
        return self.session.open_stream(factory, origin)

    def probe(self) -> Deferred[bool]:
        return self.session.probe()

    def close(self, code: int, reason: str) -> None:
        self.accepting = False
        self.session.close(code, reason)

    def drain(self) -> Deferred[None]:
        """Take no new streams; say goodbye (1001) when the last one has ended.

        :return: fires then; :meth:`close` makes it fire at once.
        """
        self.accepting = False
        drained = self.session.drained()
        drained.addCallback(lambda _: self.close(1001, "Server shutting down"))
        return drained


@implementer(ITakeover)
class WebsocketEndpoint:
    """Where clients connect: ``/v1/tunnel/<id>/ws-endpoint?t=<token>``.

    :param admission: checks tokens and takes connections into service.
    :param clock: all timers.
    :param max_streams: streams open at once on one connection.

    :ivar upstreams: the connections that are open.
    """

    def __init__(
        self, admission: IAdmission, clock: IReactorTime, max_streams: int = MAX_STREAMS
    ) -> None:
        self.admission = admission
        self.clock = clock
        self.max_streams = max_streams
        self.draining = False
        self.upstreams: set[WebsocketUpstream] = set()
        self._factory = _ServerFactory(self, clock)

    def claims(self, path: bytes) -> bool:
        return _PATH.fullmatch(path) is not None

    def admit(
        self, target: bytes, fields: list[tuple[bytes, bytes]], origin: Origin
    ) -> Deferred[IProtocol]:
        return Deferred.fromCoroutine(self._admit(target, origin))

    async def _admit(self, target: bytes, origin: Origin) -> IProtocol:
        path, _, query = target.partition(b"?")
        match = _PATH.search(path)
        if match is None:
            raise TunnelNotFound("this is not a tunnel's websocket endpoint")
        if self.draining:
            raise Draining("the server is shutting down")
        tunnel_id = match[1].decode("latin-1")
        tokens = parse_qs(query.decode("latin-1")).get("t")
        if not tokens:
            raise NoToken("the query has no t=<token>")
        await self.admission.admit(tunnel_id, tokens[0])
        protocol = _ServerProtocol(tunnel_id, origin)
        protocol.factory = self._factory
        return protocol

    def drain(self) -> Deferred[None]:
        """Refuse new connections, end each open one with its last stream.

        :return: fires when all have ended; :meth:`close` hurries them.
        """
        self.draining = True
        drains = DeferredList([upstream.drain() for upstream in list(self.upstreams)])
        return drains.addCallback(lambda _: None)

    def close(self, code: int = 1001, reason: str = "Server shutting down") -> None:
        """End all connections now, with their streams."""
        self.draining = True
        for upstream in list(self.upstreams):
            upstream.close(code, reason)


# The client's side ---------------------------------------------------------


class ConnectFailed(ExposrError):
    """The websocket to the server could not be opened."""


class UpgradeRefused(ConnectFailed):
    """The server refuses the websocket.

    :ivar http_status: the answer's status.
    :ivar error: the ``error`` code of its JSON body, or an empty string.
    """

    def __init__(self, http_status: int, error: str) -> None:
        super().__init__(f"the server refuses the websocket: {http_status} {error}".rstrip())
        self.http_status = http_status
        self.error = error


@dataclass(frozen=True, slots=True)
class Lost:
    """How a connection ended.

    :ivar code: the close code; 1006 without a close frame.
    :ivar clean: whether one of the sides said goodbye.
    """

    code: int
    reason: str
    clean: bool


class ClientConnection:
    """A client's connection to its server.

    :ivar session: its streams and counters.
    :ivar lost: fires once, with :class:`Lost`, when the connection is over.
    """

    def __init__(self, session: Session, lost: Deferred[Lost]) -> None:
        self.session = session
        self.lost = lost

    def __repr__(self) -> str:
        return f"<ClientConnection {self.session!r}>"

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close all streams and say goodbye; :attr:`lost` fires within two seconds."""
        self.session.close(code, reason)


class _ClientProtocol(_Carrier, WebSocketClientProtocol):  # type: ignore[misc]
    factory: _ClientFactory

    def _actuallyStartHandshake(self, request_options: Any) -> None:
        # Ours, because autobahn's writes Host with a default port and IPv6 without brackets.
        self.websocket_key = base64.b64encode(os.urandom(16))
        fields = {
            "Host": self.factory.authority,
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": self.websocket_key.decode("ascii"),
            **self.factory.fields,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.transport.write(f"GET {self.factory.target} HTTP/1.1\r\n{head}\r\n".encode("latin-1"))

    def processHandshake(self) -> None:
        head, end, body = self.data.partition(b"\r\n\r\n")
        if not end:
            if len(self.data) > MAX_HEAD:
                self.abort("the server's answer has no end")
            return
        status = re.match(rb"HTTP/1\.[01] (\d{3})(?: |$)", head.partition(b"\r\n")[0])
        if status is not None and status[1] != b"101":
            self._refused(int(status[1]), head + b"\r\n", body)
            return
        try:
            super().processHandshake()
        except Exception as error:
            self.abort(f"the server's answer is no websocket handshake: {error}")

    def _refused(self, status: int, head: bytes, body: bytes) -> None:
        """The body's error code, when all of it, or enough, or the code has arrived."""
        error = _ERROR.search(body)
        length = _LENGTH.search(head)
        self.factory.refusal = UpgradeRefused(status, error[1].decode("ascii") if error else "")
        complete = length is not None and len(body) >= int(length[1])
        if error or complete or len(body) > MAX_REFUSAL:
            self.abort("refused")

    def onOpen(self) -> None:
        self.session = self.factory.make_session(self)
        self.session.start()
        self.factory.succeeded(self.session)

    def onClose(self, clean: bool, code: int | None, reason: str | None) -> None:
        super().onClose(clean, code, reason)
        if self.remoteCloseCode is not None:
            code = self.remoteCloseCode
        elif self.closedByMe:
            code = self.localCloseCode
        lost = Lost(
            1006 if code is None else code,
            self.remoteCloseReason or self.wasNotCleanReason or "",
            bool(self.closedByMe or self.remoteCloseCode is not None),
        )
        self.factory.ended(lost)


class _ClientFactory(WebSocketClientFactory):
    """For one connection."""

    log = _Silence()
    noisy = False
    protocol = _ClientProtocol  # type: ignore[assignment]

    def __init__(
        self,
        url: str,
        streams: IProtocolFactory,
        clock: IReactorTime,
        headers: Mapping[str, str],
        max_streams: int,
    ) -> None:
        super().__init__(reactor=clock)
        parts = urlsplit(url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise ValueError(f"not a websocket URL: {url.partition('?')[0]!r}")
        after = url.split("://", 1)[1]
        self.authority = parts.netloc.rpartition("@")[2]
        target = after[len(parts.netloc) :].partition("#")[0]
        self.target = target if target.startswith("/") else "/" + target
        self.fields = headers
        self.refusal: UpgradeRefused | None = None
        self.opened: Deferred[ClientConnection] = Deferred(self._cancelled)
        self.websocket: _ClientProtocol | None = None
        self._lost: Deferred[Lost] = Deferred()
        self._streams = streams
        self._clock = clock
        self._max_streams = max_streams
        self._batched_timer = _Timers(clock)
        self.setProtocolOptions(
            utf8validateIncoming=False,
            maxFramePayloadSize=MAX_MESSAGE,
            maxMessagePayloadSize=MAX_MESSAGE,
            failByDrop=True,
            serverConnectionDropTimeout=0,
            openHandshakeTimeout=HANDSHAKE_TIMEOUT,
            closeHandshakeTimeout=CLOSE_TIMEOUT,
        )

    def make_session(self, protocol: _ClientProtocol) -> Session:
        return Session(
            protocol,
            MuxV2(opener=False),
            self._clock,
            self._streams,
            max_streams=self._max_streams,
            watches_server=True,
        )

    def succeeded(self, session: Session) -> None:
        self.opened.callback(ClientConnection(session, self._lost))

    def ended(self, lost: Lost) -> None:
        if not self.opened.called:
            self.opened.errback(self.refusal or ConnectFailed(lost.reason))
        elif not self._lost.called:
            self._lost.callback(lost)

    def _cancelled(self, _: object) -> None:
        if self.websocket is not None:
            self.websocket.abort("cancelled")


def connect(
    endpoint: IStreamClientEndpoint,
    url: str,
    factory: IProtocolFactory,
    clock: IReactorTime,
    headers: Mapping[str, str] | None = None,
    max_streams: int = MAX_STREAMS,
) -> Deferred[ClientConnection]:
    """Open a client's websocket to its server.

    :param endpoint: connects to the server, TLS included.
    :param url: what the server gave as ``transport.ws.url``; its target is used verbatim.
    :param factory: builds the protocol for each stream that the server opens.
    :param headers: further fields of the handshake.
    :return: fires when the websocket is open. Errbacks with what the endpoint fails
        with, with UpgradeRefused, or with ConnectFailed; may be cancelled.
    :raises ValueError: the URL is none of a websocket.
    """
    websocket = _ClientFactory(url, factory, clock, headers or {}, max_streams)

    def connected(protocol: Any) -> Deferred[ClientConnection]:
        websocket.websocket = protocol
        return websocket.opened

    connecting: Deferred[IProtocol] = endpoint.connect(websocket)
    return connecting.addCallback(connected)
