"""A request for this server itself: the API, or the transport's websocket.

The API is one more upstream, in this process; its bodies are small and reach
it whole. A client's websocket gets the visitor's connection with all that
follows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Final

from exposr_tx.errors import ExposrError, NoToken, PermissionDenied, TunnelNotFound
from exposr_tx.ingress.exchange import Exchange, Trailers
from exposr_tx.ingress.targets import TargetConnection
from exposr_tx.interfaces import ITakeover, IUpstream
from exposr_tx.wire.http1 import Request

if TYPE_CHECKING:
    from exposr_tx.ingress.visitor import VisitorConnection

__all__ = ["API_BODY", "LocalExchange"]

#: How much of an API request's body is gathered. One byte more than the API takes: it refuses
#: what is longer by itself.
API_BODY: Final = 65536 + 1


class LocalExchange(Exchange):
    """A request that no tunnel claims."""

    kind: ClassVar[str] = "api"
    pooled: ClassVar[bool] = False  # the API's end knows whose it is

    def __init__(
        self,
        visitor: VisitorConnection,
        request: Request,
        request_id: bytes,
        api: IUpstream,
        takeover: ITakeover | None,
    ) -> None:
        super().__init__(visitor, request, request_id)
        self._api = api
        self._held: list[bytes] = []
        self._size = 0
        self._takeover: ITakeover | None = None
        if request.websocket and takeover is not None:
            self._takeover = takeover if takeover.claims(request.path) else None

    def begin(self) -> None:
        """Find out who answers."""
        request = self.request
        if self._takeover is not None:
            admitting = self._connecting = self._takeover.admit(
                request.target,
                [(name.lower(), value) for name, value in request.fields],
                self._visitor.origin(request, self.kind),
            )
            admitting.addCallbacks(self._admitted, self._failed)
            admitting.addErrback(self._failed)
            return
        if request.websocket or request.expect_continue:
            # Of the API neither is asked; and requests are not to be changed.
            self.request = replace(request, websocket=False, expect_continue=False, written=[])
        if request.expect_continue:
            self._continue()
        if self.complete:
            self._connect(self._api)

    def _admitted(self, protocol: Any) -> None:
        self._connecting = None
        request = self.request
        self._status = 101
        head = b"".join(
            [b"GET %b HTTP/1.1\r\nHost: %b\r\n" % (request.target, request.authority)]
            + [b"%b: %b\r\n" % pair for pair in request.fields]
            + [b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n"]
        )
        self._first_byte = self._factory.seconds()
        self._write_log()
        self._visitor.hand_over(protocol, head)

    def _status_of(self, error: ExposrError) -> int:
        # Whatever is wrong with a client's credentials, it is told the same.
        if self._takeover is not None and isinstance(
            error, (PermissionDenied, NoToken, TunnelNotFound)
        ):
            return NoToken.status
        return super()._status_of(error)

    def request_body(self, data: bytes) -> None:
        self._bytes_in += len(data)
        room = API_BODY - self._size
        if room <= 0:
            return
        self._held.append(data[:room])
        self._size += min(room, len(data))
        if self._size == API_BODY:
            self._close = True
            self._connect(self._api)

    def request_end(self, trailers: Trailers) -> None:
        self.complete = True
        if self._size < API_BODY:
            self._connect(self._api)

    def _connected(self, connection: TargetConnection) -> None:
        request = self.request
        if request.length != self._size:  # chunks, which are all here; what was read stays as it is
            request = self.request = replace(
                request, has_length=True, length=self._size, written=[]
            )
        self._target = connection
        connection.begin(self, request.method)
        head = self._visitor.head(request, None, self._id)
        connection.transport.writeSequence([head, *self._held])
        self.wait()

    def _log_path(self) -> bytes:
        return self._factory.api_path(self.request.path)
