"""HTTP ingress for backstream: one port for visitors and clients, told apart by a header field.

Where the host is backstream's (any host, unless one is named), a request with
``Backstream-Client`` is a client that joins, on whatever path, and any other one
a visitor's. All other hosts go where they always went. With policies both are
asked about first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from exposr_tx.addresses import host_port
from exposr_tx.errors import ExposrError, PolicyDenied, TunnelNotConnected
from exposr_tx.ingress.exchange import Exchange
from exposr_tx.ingress.guard import Guard, GuardedExchange
from exposr_tx.ingress.http import HTTPIngressFactory
from exposr_tx.ingress.local import LocalExchange
from exposr_tx.ingress.tunnelled import TunnelExchange
from exposr_tx.interfaces import IRoutes, ITakeover, IUpstream, VirtualHost
from exposr_tx.wire.backstream import CLIENT_FIELD
from exposr_tx.wire.http1 import Request

if TYPE_CHECKING:
    from exposr_tx.ingress.targets import TargetConnection
    from exposr_tx.ingress.visitor import VisitorConnection

__all__ = ["Backstream", "BackstreamIngressFactory"]

_NO_CLIENT = "no WebSocket client connected"
_DENIED = "auth policy denied"
_NOT_DECIDED = "failed auth policy evaluation"


class Clients(Protocol):
    """The clients of a backstream server."""

    def virtual_host(self, host: str) -> VirtualHost: ...

    def able(self, websocket: bool, length: int) -> IRoutes:
        """They, as one of them is chosen for a request."""


@dataclass(frozen=True, slots=True)
class Backstream:
    """What ingress must know of backstream on its port.

    :ivar routes: its clients.
    :ivar takeover: takes a client's connection over.
    :ivar host: lower-case, without a port; None claims every host.
    :ivar code: the status where no client is connected.
    :ivar on_sent: told of each request that goes to a client: to which one, its id, method, target.
    """

    routes: Clients
    takeover: ITakeover
    host: str | None = None
    code: int = 503
    on_sent: Callable[[IUpstream, bytes, bytes, bytes], object] | None = None


def _text_answer(
    status: int,
    text: str,
    fields: tuple[tuple[bytes, bytes], ...],
    *,
    close: bool,
    body: bool = True,
) -> bytes:
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
    head = [line.encode("ascii") for line in lines] + [b"%b: %b" % pair for pair in fields]
    return b"\r\n".join([*head, b"", payload if body else b""])


class _Answering(Exchange):
    """An exchange that can be answered in plain text."""

    __slots__ = ()

    def _answer(self, status: int, text: str, fields: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        """Answer it here, if nothing was answered before.

        :param fields: more header fields.
        """
        if not self._may_answer(status):
            return
        body = self.request.method != b"HEAD"
        self._visitor.write(_text_answer(status, text, fields, close=self._close, body=body))
        self._finish()

    def refuse(self, error: ExposrError) -> None:
        """As the base class; a policy's denial is told in the words of there."""
        if isinstance(error, PolicyDenied):
            text = error.detail or (_NOT_DECIDED if error.status == 500 else _DENIED)
            self._answer(error.status, f"{text}\n", error.fields)
        else:
            super().refuse(error)


class _Visit(TunnelExchange, _Answering):
    """A visitor's request."""

    def __init__(self, backstream: Backstream, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._backstream = backstream

    def _connected(self, connection: TargetConnection) -> None:
        super()._connected(connection)
        if self._backstream.on_sent is not None and self._upstream is not None:
            request = self.request
            self._backstream.on_sent(self._upstream, self._id, request.method, request.target)

    def refuse(self, error: ExposrError) -> None:
        if isinstance(error, TunnelNotConnected):
            # There a line end follows errors only.
            code = self._backstream.code
            self._answer(code, _NO_CLIENT + ("\n" if code >= 400 else ""))
        else:
            super().refuse(error)


class _GuardedVisit(GuardedExchange, _Visit):
    """A visitor's request that a policy decides on."""


class _Join(_Answering, LocalExchange):
    """A client that wants to be connected."""

    def __init__(
        self,
        visitor: VisitorConnection,
        request: Request,
        request_id: bytes,
        takeover: ITakeover,
    ) -> None:
        nobody: Any = None  # who would answer what is no upgrade; that never gets so far
        super().__init__(visitor, request, request_id, nobody, None)
        # Whether it may connect comes before what is wrong with how it asks.
        self._takeover = takeover

    def _admitted(self, protocol: Any) -> None:
        if self.request.websocket:
            super()._admitted(protocol)
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

    def __init__(
        self, *arguments: Any, backstream: Backstream, guard: Guard | None = None, **more: Any
    ) -> None:
        super().__init__(*arguments, guard=guard, **more)
        self._backstream = backstream
        self._guard = guard
        self._claimed = None if backstream.host is None else backstream.host.encode("ascii")
        self._found = backstream.routes.virtual_host("")
        if self._claimed is None:
            # A UUID, as the Go server's; beside exposr the ids stand in its log, and are its.
            self._id_form = str(uuid4())[:24].encode("ascii") + b"%012x"

    def exchange(
        self, visitor: VisitorConnection, request: Request, request_id: bytes
    ) -> TunnelExchange | LocalExchange:
        """See the base class."""
        backstream = self._backstream
        if self._claimed is not None and request.host != self._claimed:
            return super().exchange(visitor, request, request_id)
        if not request.authority:
            # HTTP/1.0 may do without, as checks of balancers do; what is written anew may not.
            # Not in the request itself: others that come with the same head are the same object.
            authority = host_port(visitor.transport.getHost()).encode("ascii")
            request = replace(request, authority=authority)
        if _joins(request):
            return _Join(visitor, request, request_id, backstream.takeover)
        routes = backstream.routes.able(request.websocket, request.length or 0)
        visit = (backstream, visitor, request, request_id, routes, self._found)
        if self._guard is None:
            return _Visit(*visit)
        guarded = _GuardedVisit(*visit)
        guarded.guard = self._guard
        return guarded
