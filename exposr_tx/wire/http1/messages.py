"""What the parsers tell: heads and ends of messages; and how bodies are written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from exposr_tx.wire.http1.fields import Fields


@dataclass(slots=True)
class Request:
    """A request's head, without the fields that concern this hop only.

    :ivar target: origin-form or ``*``.
    :ivar minor: 0 or 1, of HTTP/1.x.
    :ivar fields: end-to-end fields in their order and spelling; not Host, not
        framing, not ``forwarding``.
    :ivar host: the host asked for: lower-case, no port, no trailing dot; empty
        for an HTTP/1.0 request without one.
    :ivar authority: the host with its port, as it was written.
    :ivar length: the body's length; 0 without one; None for chunks.
    :ivar has_length: whether a Content-Length was there.
    :ivar forwarding: what proxies before us say (``X-Forwarded-For`` …), by lower-case name.
    :ivar referring: where in ``fields`` Origin and Referer stand.
    :ivar written: what :meth:`lines` has made; a changed request needs one of its own.
    :ivar websocket: whether it asks for an upgrade to websocket.
    :ivar trailers_wanted: ``TE: trailers``.
    """

    method: bytes
    target: bytes
    minor: int
    fields: Fields
    host: bytes = b""
    authority: bytes = b""
    length: int | None = 0
    has_length: bool = False
    keep_alive: bool = True
    expect_continue: bool = False
    websocket: bool = False
    trailers_wanted: bool = False
    forwarding: dict[bytes, list[bytes]] = field(default_factory=dict)
    referring: list[int] = field(default_factory=list)
    written: list[bytes] = field(default_factory=list)

    def with_line(self, method: bytes, target: bytes) -> Request:
        """Another request with the same fields; its lists are this one's."""
        return Request(
            method,
            target,
            self.minor,
            self.fields,
            self.host,
            self.authority,
            self.length,
            self.has_length,
            self.keep_alive,
            self.expect_continue,
            False,
            self.trailers_wanted,
            self.forwarding,
            self.referring,
            self.written,
        )

    def lines(self) -> bytes:
        """The fields as they are written; made once for all requests that share them."""
        return _lines(self.fields, self.written)


@dataclass(slots=True)
class Response:
    """A response's head, without the fields that concern this hop only.

    :ivar length: the body's length; 0 where none may be; None where it is not
        known beforehand (chunks, or until close).
    :ivar chunked: whether the body comes in chunks.
    :ivar until_close: whether the end of the connection ends the body.
    :ivar declared: the Content-Length that stands in the head, also where no
        body follows (HEAD, 304).
    :ivar upgrade: the token of a 101.
    :ivar idle_limit: seconds of idleness after which the target says it closes.
    :ivar locating: where in ``fields`` Location, Content-Location and Set-Cookie stand.
    """

    status: int
    reason: bytes
    minor: int
    fields: Fields
    length: int | None = 0
    chunked: bool = False
    until_close: bool = False
    declared: int | None = None
    keep_alive: bool = True
    upgrade: bytes = b""
    idle_limit: int | None = None
    locating: list[int] = field(default_factory=list)
    written: list[bytes] = field(default_factory=list)

    def again(self) -> Response:
        """The same head once more; its lists are this one's."""
        return Response(
            self.status,
            self.reason,
            self.minor,
            self.fields,
            self.length,
            self.chunked,
            self.until_close,
            self.declared,
            self.keep_alive,
            self.upgrade,
            self.idle_limit,
            self.locating,
            self.written,
        )

    def lines(self) -> bytes:
        """The fields as they are written; made once for all responses that share them."""
        return _lines(self.fields, self.written)


def _lines(fields: Fields, written: list[bytes]) -> bytes:
    if not written:
        written.append(b"".join([b"%b: %b\r\n" % pair for pair in fields]))
    return written[0]


@dataclass(frozen=True, slots=True)
class End:
    """The message is complete."""

    trailers: tuple[tuple[bytes, bytes], ...] = ()


END: Final = End()

Event: TypeAlias = Request | Response | bytes | End

LAST_CHUNK: Final = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One piece of a chunked body; ``data`` is not empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """The end of a chunked body."""
    if not trailers:
        return LAST_CHUNK
    return b"0\r\n" + b"".join([b"%b: %b\r\n" % pair for pair in trailers]) + b"\r\n"
