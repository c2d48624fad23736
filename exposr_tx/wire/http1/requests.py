"""Reading requests: a visitor's connection."""

from __future__ import annotations

import re
from typing import Final

from exposr_tx.errors import LocalProtocolError, RemoteProtocolError
from exposr_tx.wire.http1.fields import (
    CODING,
    CONNECTION,
    EXPECT,
    FORWARDING,
    HOST_FIELD,
    KNOWING,
    LENGTH,
    LOCATING,
    NEVER_HOP,
    ORDINARY,
    REFERRING,
    SPELLINGS,
    TE,
    UPGRADE,
    Fields,
    binds,
    kind_of,
    referring,
    tokens,
    without_named,
)
from exposr_tx.wire.http1.framing import DONE, HEAD, Parser, check_chunked, content_length
from exposr_tx.wire.http1.messages import END, Event, Request
from exposr_tx.wire.http1.syntax import (
    ABSOLUTE,
    FIELD,
    HIGH,
    HOST,
    REQUEST_HEAD,
    REQUEST_LINE,
    SLASH,
    Limits,
    tidied,
)

#: Heads that are remembered for all connections together: of clients that come again and again,
#: with a connection for each request.
MAX_HEADS: Final = 256
#: Bytes of such a head.
MAX_HEAD: Final = 1024
#: What is not kept longer than its connection lasts, as it may be somebody's secret.
SECRET: Final = re.compile(rb"\?|\n[^:]*(?:cookie|auth|key|token|secret)", re.IGNORECASE)


class Heads:
    """Requests that were read, by the bytes of their heads; for parsers with the same limits."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[bytes, Request] = {}

    def get(self, head: bytes) -> Request | None:
        return self._known.get(head)

    def add(self, head: bytes, request: Request) -> None:
        """Remember a request, if it is one of those that may come again from somebody else."""
        if len(head) > MAX_HEAD or request.length != 0 or SECRET.search(head):
            return
        if len(self._known) >= MAX_HEADS:
            self._known.clear()
        self._known[head] = request


class RequestParser(Parser):
    """Reads requests, one after another, of one visitor's connection.

    It stops behind each request's :class:`End`; :meth:`next_request` reads on.

    :param heads: what other connections have read.
    """

    __slots__ = ("_block", "_empty_lines", "_heads", "_last")

    _first: Request

    def __init__(self, limits: Limits, heads: Heads | None = None) -> None:
        super().__init__(limits)
        self._heads = heads
        self._empty_lines = 0
        self._block = b""  # fields worth remembering
        self._last: Request | None = None

    def next_request(self) -> list[Event]:
        """Read on behind a request that is done with."""
        if self._state != DONE:
            raise LocalProtocolError("the request has not ended")
        self._state = HEAD
        self._scanned = 0
        self._empty_lines = 0
        return self.receive(self.take_rest()) if self.rest else []

    def _skip_empty_line(self, data: bytes) -> bytes:
        # One empty line before a request is forgiven (RFC 9112 section 2.2).
        self._empty_lines += 1
        if self._empty_lines > 1:
            raise RemoteProtocolError("the request begins with empty lines")
        return data[2:]

    def _too_long(self, head: bytes) -> RemoteProtocolError:
        if head.find(b"\r\n", 0, self._limits.line + 2) < 0:
            return RemoteProtocolError(
                f"the request line is longer than {self._limits.line} bytes", 414
            )
        return super()._too_long(head)

    def _parse_head(self, head: bytes, events: list[Event]) -> None:
        heads = self._heads
        request = heads.get(head) if heads is not None else None
        if request is None:
            request = self._read(head)
            if heads is not None:
                heads.add(head, request)
        self._first = request
        self._head = head
        self._whole = -1 if request.length is None else len(head) + request.length
        self._begin(events)

    def _begin(self, events: list[Event]) -> None:
        request = self._first
        events.append(request)
        if request.length == 0:
            self._state = DONE
            events.append(END)
        else:
            self._begin_body(request.length, events)

    def _read(self, head: bytes) -> Request:
        # A connection's requests mostly differ in their first line only. Where the rest is the
        # same, byte for byte, what was read from it still holds: a third of the time.
        at = head.find(b"\r\n") + 2
        block = head[at:]
        last = self._last if block == self._block else None
        if last is not None and (line := REQUEST_LINE.fullmatch(head, 0, at)):
            request = last.with_line(*line.groups())
        else:
            request = self._read_head(head)
            if request.minor and not request.websocket:
                self._block, self._last = block, request
        if len(request.method) + len(request.target) + 10 > self._limits.line:
            raise RemoteProtocolError(
                f"the request line is longer than {self._limits.line} bytes", 414
            )
        if not request.target.isascii():
            request.target = HIGH.sub(lambda byte: b"%%%02X" % ord(byte[0]), request.target)
        if request.target[0] != SLASH or request.method == b"CONNECT":
            self._check_target(request)
        if self._limits.body and (request.length or 0) > self._limits.body:
            raise RemoteProtocolError(f"the body is longer than {self._limits.body} bytes", 413)
        return request

    def _read_head(self, head: bytes) -> Request:
        matched = REQUEST_HEAD.fullmatch(head) or REQUEST_HEAD.fullmatch(tidied(head))
        if matched is None:
            raise self._diagnosed(head)
        method, target, minor, block = matched.groups()
        request = Request(method, target, 1 if minor == b"1" else 0, [])
        self._read_fields(request, FIELD.findall(block))
        if request.authority or request.minor:
            self._read_authority(request)
        return request

    def _read_fields(self, request: Request, pairs: Fields) -> None:
        if len(pairs) > self._limits.fields:
            raise RemoteProtocolError(f"more than {self._limits.fields} header fields", 431)
        fields = request.fields
        hosts: list[bytes] = []
        special: dict[int, list[bytes]] = {}
        for pair in pairs:
            name = pair[0]
            kind = SPELLINGS.get(name)
            if kind is None:
                kind = kind_of(name)
            if kind in (ORDINARY, LOCATING):
                fields.append(pair)
            elif kind == HOST_FIELD:
                hosts.append(pair[1])
            elif kind == FORWARDING:
                request.forwarding.setdefault(name.lower().replace(b"_", b"-"), []).append(pair[1])
            elif kind == REFERRING:
                request.referring.append(len(fields))
                fields.append(pair)
            elif kind == KNOWING:
                request.binds = request.binds or binds(pair[1])
                fields.append(pair)
            else:
                special.setdefault(kind, []).append(pair[1])
        if len(hosts) == 1:
            request.authority = hosts[0]
        elif hosts or request.minor:
            raise RemoteProtocolError("there must be exactly one Host")
        if special:
            self._read_special(request, special)
        elif not request.minor:
            request.keep_alive = False

    def _read_special(self, request: Request, special: dict[int, list[bytes]]) -> None:
        lengths = special.get(LENGTH, [])
        if CODING in special:
            check_chunked(special[CODING], request.minor, lengths)
            request.length = None
        elif lengths:
            request.length = content_length(lengths)
            request.has_length = True
        options = tokens(special[CONNECTION]) if CONNECTION in special else set()
        # HTTP/1.0 is answered and closed, whatever it asks for.
        request.keep_alive = bool(request.minor) and b"close" not in options
        if EXPECT in special and request.minor:
            if [value.lower() for value in special[EXPECT]] != [b"100-continue"]:
                raise RemoteProtocolError("the expectation is not understood", 417)
            request.expect_continue = request.length != 0
        if TE in special:
            request.trailers_wanted = b"trailers" in tokens(special[TE])
        if UPGRADE in special and b"upgrade" in options:
            request.websocket = (
                [value.lower() for value in special[UPGRADE]] == [b"websocket"]
                and request.method == b"GET"
                and request.minor == 1
                and request.length == 0
            )
        named = options - NEVER_HOP - {b"close", b"keep-alive", b"upgrade"}
        if named:
            self._remove_named(request, named)

    @staticmethod
    def _remove_named(request: Request, named: set[bytes]) -> None:
        for name in named:
            request.forwarding.pop(name, None)
        request.fields = without_named(request.fields, named)
        request.referring = referring(request.fields)

    def _check_target(self, request: Request) -> None:
        """Bring the target to origin-form and find out the host (RFC 9112 section 3.2)."""
        target = request.target
        if request.method == b"CONNECT":
            raise RemoteProtocolError("CONNECT is not served", 501)
        if target == b"*" and request.method == b"OPTIONS":
            return
        matched = ABSOLUTE.fullmatch(target)
        if matched is None:
            raise RemoteProtocolError("the request target is in no form that is served")
        request.authority = matched[1]
        self._read_authority(request)
        path = matched[2] or (b"*" if request.method == b"OPTIONS" else b"/")
        request.target = b"/" + path if path[:1] == b"?" else path

    @staticmethod
    def _read_authority(request: Request) -> None:
        matched = HOST.fullmatch(request.authority)
        if matched is None or int(matched[2] or b"0") > 65535:
            raise RemoteProtocolError("the host is not valid")
        host = matched[1].lower()
        request.host = host[:-1] if host[-1] == 0x2E and len(host) > 1 else host

    def _diagnosed(self, head: bytes) -> RemoteProtocolError:
        """Why a head is not one."""
        line = head.partition(b"\r\n")[0]
        if len(line) > self._limits.line:
            return self._too_long(head)
        version = re.fullmatch(rb"[^ ]+ [^ ]+ HTTP/([0-9]\.[0-9])", line)
        if version and version[1] not in (b"1.0", b"1.1"):
            return RemoteProtocolError("this version of HTTP is not served", 505)
        if not version:
            return RemoteProtocolError("the request line does not parse")
        return RemoteProtocolError("the head does not parse")
