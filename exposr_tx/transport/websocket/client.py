"""The client's side of a websocket: from a URL to a session with the server."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from exposr_tx.errors import ExposrError
from exposr_tx.transport.session import Session
from exposr_tx.transport.websocket.attachment import ClientConnection
from exposr_tx.transport.websocket.carrier import Carrier, Lost
from exposr_tx.transport.websocket.settings import Silence, Timers, limits
from exposr_tx.wire.mux import MuxV2
from exposr_tx.wire.native import MAX_STREAMS, SUBPROTOCOL, NativeMux, is_native

if TYPE_CHECKING:
    from twisted.internet.interfaces import (
        IProtocol,
        IProtocolFactory,
        IReactorTime,
        IStreamClientEndpoint,
    )

__all__ = ["ClientFactory", "ClientProtocol", "ConnectFailed", "UpgradeRefused", "connect"]

#: Bytes of an answer's head, and of the body of a refusal, that a client reads.
MAX_HEAD: Final = 32 * 1024
MAX_REFUSAL: Final = 16 * 1024

_ERROR: Final = re.compile(rb'"error"\s*:\s*"(\w{1,64})"')
_CHOSEN: Final = re.compile(rb"\r\nSec-WebSocket-Protocol:([^\r\n]*)(?=\r\n)", re.IGNORECASE)
_DIALECT: Final = re.compile(rb"\r\nExposr-Dialect:([^\r\n]*)(?=\r\n)", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding:[^\r\n]*\bchunked\b", re.IGNORECASE)
_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"
#: service-identity's errors; without TLS it is not loaded.
_IDENTITY: Final = ("VerificationError", "CertificateError")
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,9})[ \t]*\r\n", re.IGNORECASE)


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


class ClientProtocol(Carrier, WebSocketClientProtocol):  # type: ignore[misc]
    factory: ClientFactory

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
        if self.factory.offers_native:
            fields["Sec-WebSocket-Protocol"] = SUBPROTOCOL
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
        if self.factory.offers_native:
            # An exposrd echoes any subprotocol; the other field says who has understood it.
            chosen = [value.strip() for value in _CHOSEN.findall(head + b"\r\n")]
            dialects = [value.decode("latin-1") for value in _DIALECT.findall(head + b"\r\n")]
            self.native = (
                chosen == [SUBPROTOCOL.encode()] and len(dialects) == 1 and is_native(dialects[0])
            )
            if chosen == [SUBPROTOCOL.encode()]:
                self.data = _CHOSEN.sub(b"", head + b"\r\n")[:-2] + end + body
        try:
            super().processHandshake()
        except Exception as error:
            self.abort(f"the server's answer is no websocket handshake: {error}")

    def _refused(self, status: int, head: bytes, body: bytes) -> None:
        """The body's error code, when all of it, or enough, or the code has arrived."""
        error = _ERROR.search(body)
        length = _LENGTH.search(head)
        self.factory.refusal = UpgradeRefused(status, error[1].decode("ascii") if error else "")
        if _CHUNKED.search(head):
            complete = (b"\r\n" + body).endswith(_LAST_CHUNK)
        else:
            complete = length is not None and len(body) >= int(length[1])
        if error or complete or len(body) > MAX_REFUSAL:
            self.abort("refused")

    def onOpen(self) -> None:
        self.limit_messages()
        connection = self.factory.connection
        self.session = connection.session = self.factory.make_session(self)
        self.session.start()
        self.factory.opened.callback(connection)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if type(reason.value).__name__ in _IDENTITY and self.wasNotCleanReason is None:
            # Autobahn knows OpenSSL's errors, but not these.
            self.wasNotCleanReason = (
                f"the certificate of the server is not for this name ({reason.value})"
            )
        super().connectionLost(reason)

    def onClose(self, clean: bool, code: int | None, reason: str | None) -> None:
        super().onClose(clean, code, reason)
        self.factory.ended(self.ending(code))


class ClientFactory(WebSocketClientFactory):
    """For one connection."""

    log = Silence()
    noisy = False
    protocol = ClientProtocol  # type: ignore[assignment]

    def __init__(
        self,
        url: str,
        streams: IProtocolFactory,
        clock: IReactorTime,
        headers: Mapping[str, str],
        max_streams: int,
        offers_native: bool,
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
        self.websocket: ClientProtocol | None = None
        self.lost: Deferred[Lost] = Deferred()
        self._streams = streams
        self._clock = clock
        self._max_streams = max_streams
        self.offers_native = offers_native
        self._leaving: Deferred[None] = Deferred()
        self.connection = ClientConnection(self.lost, self._leaving)
        self._batched_timer = Timers(clock)
        self.setProtocolOptions(serverConnectionDropTimeout=0, **limits())

    def make_session(self, protocol: ClientProtocol) -> Session:
        return Session(
            protocol,
            NativeMux(is_server=False) if protocol.native else MuxV2(opener=False),
            self._clock,
            self._streams,
            max_streams=self._max_streams,
            watches_server=True,
            on_going=self._going,
            further=self.connection.told,
        )

    def _going(self) -> None:
        if not self._leaving.called:
            self._leaving.callback(None)

    def ended(self, lost: Lost) -> None:
        if not self.opened.called:
            self.opened.errback(self.refusal or ConnectFailed(lost.reason))
        elif not self.lost.called:
            self.lost.callback(lost)

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
    offers_native: bool = False,
) -> Deferred[ClientConnection]:
    """Open a client's websocket to its server.

    :param endpoint: connects to the server, TLS included.
    :param url: what the server gave as ``transport.ws.url``; its target is used verbatim.
    :param factory: builds the protocol for each stream that the server opens.
    :param headers: further fields of the handshake.
    :param offers_native: whether the server lists the native dialect in the tunnel's JSON.
    :return: fires when the websocket is open. Errbacks with what the endpoint fails
        with, with UpgradeRefused, or with ConnectFailed; may be cancelled.
    :raises ValueError: the URL is none of a websocket.
    """
    websocket = ClientFactory(url, factory, clock, headers or {}, max_streams, offers_native)

    def connected(protocol: Any) -> Deferred[ClientConnection]:
        websocket.websocket = protocol
        return websocket.opened

    connecting: Deferred[IProtocol] = endpoint.connect(websocket)
    return connecting.addCallback(connected)
