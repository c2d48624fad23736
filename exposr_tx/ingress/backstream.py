"""HTTP ingress for backstream: one port for visitors and clients, told apart by a header field.

Where the host is backstream's (any host, unless one is named), a request with
``Backstream-Client`` is a client that joins, on whatever path, and any other one
a visitor's. All other hosts go where they always went.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from exposr_tx.errors import ExposrError, TunnelNotConnected
from exposr_tx.ingress.exchange import Exchange
from exposr_tx.ingress.http import HTTPIngressFactory
from exposr_tx.ingress.local import LocalExchange
from exposr_tx.ingress.tunnelled import TunnelExchange
from exposr_tx.interfaces import IRoutes, ITakeover, VirtualHost
from exposr_tx.wire.backstream import CLIENT_FIELD
from exposr_tx.wire.http1 import Request

if TYPE_CHECKING:
    from exposr_tx.ingress.visitor import VisitorConnection

__all__ = ["Backstream", "BackstreamIngressFactory"]

_NO_CLIENT = "no WebSocket client connected"


@dataclass(frozen=True, slots=True)
class Backstream:
    """What ingress must know of backstream on its port.

    :ivar routes: its clients.
    :ivar takeover: takes a client's connection over.
    :ivar host: lower-case, without a port; None claims every host.
    :ivar code: the status where no client is connected.
    """

    routes: IRoutes
    takeover: ITakeover
    host: str | None = None
    code: int = 503


def _text_answer(status: int, text: str, *, close: bool, body: bool = True) -> bytes:
    """A whole response as Go's ``http.Error`` writes it."""
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = ""
    bare = status in (204, 304)
    payload = b"" if bare else text.encode()
    lines = [f"HTTP/1.1 {status} {reason}"]
    if not bare:
        lines += ["Content-Type: text/plain; charset=utf-8", f"Content-Length: {len(payload)}"]
    lines += ["X-Content-Type-Options: nosniff"]
    if close:
        lines.append("Connection: close")
    head = "\r\n".join([*lines, "", ""]).encode("ascii")
    return head + payload if body else head


class _Answering(Exchange):
    """An exchange that can be answered in plain text."""

    __slots__ = ()

    def _answer(self, status: int, text: str) -> None:
        """Answer it here, if nothing was answered before."""
        self._stop_expecting()
        if self._response_done:
            return
        self._status = status
        self.answered = True
        self._response_done = True
        self._close = (
            self._close
            or not self.request.keep_alive
            or not self.complete
            or self._visitor.draining
        )
        self._first_byte = self._factory.seconds()
        body = self.request.method != b"HEAD"
        self._visitor.write(_text_answer(status, text, close=self._close, body=body))
        self._finish()


class _Visit(TunnelExchange, _Answering):
    """A visitor's request."""

    __slots__ = ("_code",)

    def __init__(self, code: int, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._code = code

    def refuse(self, error: ExposrError) -> None:
        if isinstance(error, TunnelNotConnected):
            # There a line end follows errors only.
            self._answer(self._code, _NO_CLIENT + ("\n" if self._code >= 400 else ""))
        else:
            super().refuse(error)


class _Join(LocalExchange, _Answering):
    """A client that wants to be connected."""

    __slots__ = ()

    def begin(self) -> None:
        """Only a proper upgrade request is looked at any further."""
        if self.request.websocket:
            super().begin()
        elif self.request.method != b"GET":
            text = "Method Not Allowed\nfailed to upgrade: the request method is not GET\n"
            self._answer(405, text)
        else:
            text = "Bad Request\nfailed to upgrade: the request asks for no websocket\n"
            self._answer(400, text)

    def request_body(self, data: bytes) -> None:
        self._bytes_in += len(data)

    def request_end(self, trailers: tuple[tuple[bytes, bytes], ...]) -> None:
        self.complete = True


def _joins(request: Request) -> bool:
    return any(value and name.lower() == CLIENT_FIELD for name, value in request.fields)


class BackstreamIngressFactory(HTTPIngressFactory):
    """Visitors' and clients' connections of a port that serves backstream too.

    Further parameters are those of the base class.
    """

    def __init__(self, *arguments: Any, backstream: Backstream, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._backstream = backstream
        self._claimed = None if backstream.host is None else backstream.host.encode("ascii")
        self._found: VirtualHost = backstream.routes.virtual_host("")  # type: ignore[assignment]

    def exchange(
        self, visitor: VisitorConnection, request: Request, request_id: bytes
    ) -> TunnelExchange | LocalExchange:
        """See the base class."""
        backstream = self._backstream
        if self._claimed is not None and request.host != self._claimed:
            return super().exchange(visitor, request, request_id)
        if _joins(request):
            nobody: Any = None  # who would answer what is no upgrade; that never gets so far
            return _Join(visitor, request, request_id, nobody, backstream.takeover)
        return _Visit(backstream.code, visitor, request, request_id, backstream.routes, self._found)
