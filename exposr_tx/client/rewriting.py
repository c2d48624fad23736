"""Requests rewritten on their way from a stream to the target.

Our own server brings Host, Origin and Referer to the target's name itself. In
front of an existing exposrd, or with ``--http-mode``, the client does it: heads
are parsed and written anew, bodies pass. Facts: protocol pages C.10, E.3, H.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from exposr_tx.errors import BadInput
from exposr_tx.wire.http1 import End, Limits, Request, RequestParser, chunk, last_chunk

__all__ = ["RequestRewriter", "Rules", "replacements"]

#: A server may have added a few fields to a head that was within its limits.
LIMITS = Limits(line=16384, head=65536, fields=300)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")
_NEXT = re.compile(r",\s*(?=[!#$%&'*+.^_`|~0-9A-Za-z-]+:(?!//))")
_URL = re.compile(rb"(https?)://([^/?#]*)", re.IGNORECASE)
#: What servers of ours end a head with.
_ID = b"\r\nX-Request-Id: "
_ID_END = re.compile(_ID + rb"[!-~]{1,200}\r\n\r\n")
#: Fields that say where a message ends; they are written anew and not to be set.
FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"te"})


def replacements(text: str) -> tuple[tuple[bytes, bytes], ...]:
    """``Name: value`` between commas; BadInput names the one that is wrong."""
    found = []
    for part in _NEXT.split(text) if text.strip() else ():
        name, colon, value = part.strip().partition(":")
        if not colon or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise BadInput(f"--http-header-replace {part!r}: must be like 'Name: value'")
        if name.lower().encode() in FRAMING:
            raise BadInput(f"--http-header-replace {part!r}: this field cannot be replaced")
        found.append((name.encode("ascii"), value.strip().encode("ascii")))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Rules:
    """What to change in requests.

    :ivar scheme: the target's.
    :ivar authority: the target's ``host[:port]``; empty where it has none.
    :ivar host_header: ``target``, ``preserve``, a host, or empty for what ``rewrite`` says.
    :ivar replace: fields to set; an empty value removes.
    :ivar rewrite: lower-case names of fields in which the visitor's host becomes the target's.
    :ivar query: for requests that have none.
    """

    scheme: bytes
    authority: bytes
    host_header: bytes = b""
    replace: tuple[tuple[bytes, bytes], ...] = ()
    rewrite: frozenset[bytes] = field(default_factory=frozenset)
    query: bytes = b""

    def host(self, request: Request) -> bytes:
        """The Host that the target gets, before ``replace``."""
        if self.host_header == b"preserve":
            # What an exposrd has put in its place is in a field of its own.
            said = request.forwarding.get(b"x-forwarded-host", [b""])[-1]
            return request.authority if said in (b"", b"undefined") else said
        if self.host_header and self.host_header != b"target":
            return self.host_header
        if self.authority and (self.host_header or b"host" in self.rewrite):
            return self.authority
        return request.authority

    def rewritten(self, value: bytes, visited: Iterable[bytes]) -> bytes:
        """A URL that names the visited host, brought to the target."""
        matched = _URL.match(value)
        if matched is None or not self.authority or matched[2].lower() not in visited:
            return value
        scheme = b"https" if self.scheme in (b"https", b"wss") else b"http"
        return b"%b://%b%b" % (scheme, self.authority, value[matched.end() :])


class RequestRewriter:
    """One stream's requests: bytes in, bytes out.

    After an upgrade to websocket bytes pass as they are. Raises
    RemoteProtocolError for what is no HTTP request.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._parser = RequestParser(LIMITS)
        self._chunked = False
        self._raw = False
        self._between = True  # two requests
        # The last one without a body: what came before its id; what went before and behind it.
        self._came, self._went = b"", (b"", b"")

    def receive(self, data: bytes) -> bytes:
        if self._raw:
            return data
        at = data.rfind(_ID) if self._between else -1
        if at > 0 and data[:at] == self._came and _ID_END.fullmatch(data, at):
            # It comes again but for its id: 3 µs in place of 35.
            before, behind = self._went
            return b"%b%b%b" % (before, data[at + len(_ID) : -2], behind)
        out: list[bytes] = []
        events = self._parser.receive(data)
        again = at > 0 and len(events) == 2 and not self._parser.rest
        ended = False
        while events:
            ended = False
            for event in events:
                if isinstance(event, Request):
                    self._chunked, self._raw = event.length is None, event.websocket
                    out.append(self._head(event))
                elif isinstance(event, bytes):
                    out.append(chunk(event) if self._chunked else event)
                elif isinstance(event, End):
                    ended = True
                    if self._chunked:
                        out.append(last_chunk(event.trailers))
            if self._raw:
                out.append(self._parser.take_rest())
                break
            events = self._parser.next_request() if ended else []
        self._between = ended and not self._parser.rest
        if again and self._between and len(out) == 1:
            self._keep(data, at, out[0])
        return b"".join(out)

    def _keep(self, came: bytes, at: int, went: bytes) -> None:
        id = came[at + len(_ID) : -2]
        before, name, behind = went.partition(b"\r\nx-request-id: ")
        if behind.startswith(id):
            self._came = came[:at]
            self._went = (before + name, behind.removeprefix(id))

    def _head(self, request: Request) -> bytes:
        rules = self._rules
        fields: list[tuple[bytes, bytes]] = [(b"Host", rules.host(request))]
        visited = {request.authority.lower()}
        visited |= {value.lower() for value in request.forwarding.get(b"x-forwarded-host", ())}
        for name, value in request.fields:
            wanted = name.lower() in rules.rewrite
            fields.append((name, rules.rewritten(value, visited) if wanted else value))
        for name, values in request.forwarding.items():
            fields += [(name, value) for value in values]
        for name, value in rules.replace:
            lower = name.lower()
            fields = [pair for pair in fields if pair[0].lower() != lower]
            if value:
                fields.append((name, value))
        if not any(name.lower() == b"host" for name, _value in fields):
            fields.insert(0, (b"Host", request.authority))  # HTTP/1.1 cannot do without
        fields += self._framing(request)
        target = request.target
        if rules.query and b"?" not in target and target != b"*":
            target = b"%b?%b" % (target, rules.query)
        lines = [b"%b %b HTTP/1.1" % (request.method, target)]
        lines += [b"%b: %b" % pair for pair in fields]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    @staticmethod
    def _framing(request: Request) -> list[tuple[bytes, bytes]]:
        fields = []
        if request.length is None:
            fields.append((b"Transfer-Encoding", b"chunked"))
        elif request.has_length:
            fields.append((b"Content-Length", b"%d" % request.length))
        if request.expect_continue:
            fields.append((b"Expect", b"100-continue"))
        if request.websocket:
            fields += [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
        elif not request.keep_alive:
            fields.append((b"Connection", b"close"))
        elif request.trailers_wanted:
            fields += [(b"Connection", b"TE"), (b"TE", b"trailers")]
        return fields
