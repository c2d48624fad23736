"""What the parsers tell: heads and ends of messages; and how bodies are written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from exposr_tx.wire.http1.fields import Fields


@dataclass(slots=True)
class Request:
    """A request's head, without the fields that concern this hop only. Not to be changed: one
    object may stand for many requests that came with the same head.

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
    :ivar referring: where in ``fields`` Origin, Referer and Destination stand.
    :ivar binds: whether it tells the target who is at the other end of the connection.
    :ivar written: what :meth:`lines` has made, for all requests that share the fields.
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
    binds: bool = False
    written: list[bytes] = field(default_factory=list, repr=False)

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
            self.binds,
            self.written,
        )

    @property
    def path(self) -> bytes:
        """The target without its query."""
        return self.target.partition(b"?")[0]

    def lines(self) -> bytes:
        """The fields as they are sent on, and those that say where the body ends and what the
        next hop must do."""
        if not self.written:
            self.written.append(field_lines(self.fields) + self.framing())
        return self.written[0]

    def framing(self) -> bytes:
        """The fields that say where the body ends and what the next hop must do."""
        lines = b""
        if self.length is None:
            lines += b"Transfer-Encoding: chunked\r\n"
        elif self.length or self.has_length:
            lines += b"Content-Length: %d\r\n" % self.length
        if self.websocket:
            lines += b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        elif self.trailers_wanted:
            lines += b"Connection: TE\r\nTE: trailers\r\n"
        if self.expect_continue:
            lines += b"Expect: 100-continue\r\n"
        return lines


@dataclass(slots=True)
class Response:
    """A response's head, without the fields that concern this hop only. Not to be changed: one
    object may stand for many responses that came with the same head.

    :ivar length: the body's length; 0 where none may be; None where it is not
        known beforehand (chunks, or until close).
    :ivar chunked: whether the body comes in chunks.
    :ivar until_close: whether the end of the connection ends the body.
    :ivar declared: the Content-Length that stands in the head, also where no
        body follows (HEAD, 304).
    :ivar upgrade: the token of a 101.
    :ivar idle_limit: seconds of idleness after which the target says it closes.
    :ivar locating: where in ``fields`` Location, Content-Location and Set-Cookie stand.
    :ivar binds: whether the target wants to know, or knows, who is at the other end of the
        connection.
    :ivar written: what :meth:`head` has made.
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
    binds: bool = False
    written: dict[tuple[bool, bool], bytes] = field(default_factory=dict, repr=False)

    def head(self, *, chunked: bool, close: bool) -> bytes:
        """The head as it is sent on; made once for all responses that share the object.

        :param chunked: whether the body goes out in chunks.
        :param close: whether the connection ends with this response.
        """
        written = self.written.get((chunked, close))
        if written is None:
            written = self.head_with(self.fields, chunked=chunked, close=close)
            self.written[chunked, close] = written
        return written

    def head_with(self, fields: Fields, *, chunked: bool, close: bool) -> bytes:
        """The head with other fields in place of its own."""
        lines = [b"HTTP/1.1 %d %b\r\n" % (self.status, self.reason), field_lines(fields)]
        if self.status == 101:
            lines.append(b"Connection: Upgrade\r\nUpgrade: websocket\r\n")
        else:
            final = self.status >= 200
            if chunked:
                lines.append(b"Transfer-Encoding: chunked\r\n")
            elif self.declared is not None and final and self.status != 204:
                lines.append(b"Content-Length: %d\r\n" % self.declared)
            if close and final:
                lines.append(b"Connection: close\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)


def field_lines(fields: Fields) -> bytes:
    """Fields as they are written."""
    return b"".join([b"%b: %b\r\n" % pair for pair in fields])


@dataclass(frozen=True, slots=True)
class End:
    """The message is complete."""

    trailers: tuple[tuple[bytes, bytes], ...] = ()


END: Final = End()

Event: TypeAlias = Request | Response | bytes | End

LAST_CHUNK: Final = b"0\r\n\r\n"

#: Methods whose requests have a body, be it an empty one: they tell its length (RFC 9110 section
#: 8.6).
WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


def chunk(data: bytes) -> bytes:
    """One piece of a chunked body; ``data`` is not empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """The end of a chunked body."""
    if not trailers:
        return LAST_CHUNK
    return b"0\r\n" + b"".join([b"%b: %b\r\n" % pair for pair in trailers]) + b"\r\n"
