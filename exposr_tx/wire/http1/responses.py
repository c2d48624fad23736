"""Reading responses: a target's connection."""

from __future__ import annotations

from exposr_tx.errors import LocalProtocolError, RemoteProtocolError
from exposr_tx.wire.http1.fields import (
    CODING,
    CONNECTION,
    HOP,
    KINDS,
    KNOWING,
    LENGTH,
    LOCATING,
    NEVER_HOP,
    ORDINARY,
    SPELLINGS,
    UPGRADE,
    Fields,
    binds,
    kind_of,
    tokens,
    without_named,
)
from exposr_tx.wire.http1.framing import (
    DONE,
    HEAD,
    UNTIL_CLOSE,
    Parser,
    check_chunked,
    content_length,
)
from exposr_tx.wire.http1.messages import END, Event, Response
from exposr_tx.wire.http1.syntax import (
    FIELD,
    KEEP_ALIVE,
    MAX_INTERIM,
    RESPONSE_HEAD,
    RESPONSE_LIMITS,
    SPACE_BEFORE_COLON,
    START,
    Limits,
    tidied,
)


class ResponseParser(Parser):
    """Reads the responses of one target connection, one for each :meth:`expect`."""

    __slots__ = ("_bare", "_interim")

    _first: Response

    def __init__(self, limits: Limits = RESPONSE_LIMITS) -> None:
        super().__init__(limits)
        self._state = DONE
        self._bare = False  # whether the request was HEAD
        self._interim = 0

    def expect(self, method: bytes) -> None:
        """A request was sent: its response comes next."""
        if self._state != DONE or self.rest:
            raise LocalProtocolError("the response before has not ended cleanly")
        bare = method == b"HEAD"
        if bare is not self._bare:
            self._bare = bare
            self._head = b""  # it would be measured in another way now
        self._interim = 0
        self._scanned = 0
        self._state = HEAD

    def receive_eof(self) -> list[Event]:
        """The connection has ended; raises where that cuts a response short."""
        if self._state == UNTIL_CLOSE:
            self._state = DONE
            return [END]
        if self._state != DONE:
            raise RemoteProtocolError("the response is cut short")
        return []

    def _check_partial(self, held: bytes | bytearray) -> None:
        # A target of another protocol may have said all that it has to say.
        if held[: len(START)] != START[: len(held)]:
            raise RemoteProtocolError("the response is no HTTP")
        super()._check_partial(held)

    def _parse_head(self, head: bytes, events: list[Event]) -> None:
        response = self._first = self._read_head(head)
        self._measure(response)
        self._head = head
        final = response.status >= 200
        self._whole = len(head) + response.length if final and response.length is not None else -1
        self._begin(events)

    def _begin(self, events: list[Event]) -> None:
        response = self._first
        events.append(response)
        if response.status < 200:
            self._interim += 1
            if self._interim > MAX_INTERIM:
                raise RemoteProtocolError(f"more than {MAX_INTERIM} interim responses")
            if response.status == 101:
                self._state = DONE
                events.append(END)
        elif response.until_close:
            self._state = UNTIL_CLOSE
        else:
            self._begin_body(response.length, events)

    def _read_head(self, head: bytes) -> Response:
        matched = RESPONSE_HEAD.fullmatch(head)
        if matched is None:
            # Space before a colon is forgiven in responses only (RFC 9112 section 5.1).
            matched = RESPONSE_HEAD.fullmatch(SPACE_BEFORE_COLON.sub(rb"\1:", tidied(head)))
        if matched is None:
            raise RemoteProtocolError("the response's head does not parse")
        minor, status, reason, block = matched.groups()
        response = Response(int(status), reason or b"", 1 if minor == b"1" else 0, [])
        lengths, codings = self._read_fields(response, FIELD.findall(block))
        if codings:
            check_chunked(codings, response.minor, lengths)
            response.chunked = True
        if lengths:
            response.declared = content_length(lengths)
        return response

    def _read_fields(self, response: Response, pairs: Fields) -> tuple[list[bytes], list[bytes]]:
        if len(pairs) > self._limits.fields:
            raise RemoteProtocolError(f"more than {self._limits.fields} header fields")
        fields = response.fields
        lengths: list[bytes] = []
        codings: list[bytes] = []
        connection: list[bytes] = []
        upgrades: list[bytes] = []
        for pair in pairs:
            name = pair[0]
            kind = SPELLINGS.get(name)
            if kind is None:
                kind = kind_of(name)
            if kind == ORDINARY:
                fields.append(pair)
            elif kind == LENGTH:
                lengths.append(pair[1])
            elif kind == CODING:
                codings.append(pair[1])
            elif kind == CONNECTION:
                connection.append(pair[1])
            elif kind == UPGRADE:
                upgrades.append(pair[1])
            elif kind == HOP:
                if timeout := KEEP_ALIVE.search(pair[1]):
                    response.idle_limit = int(timeout[1])
            else:
                if kind == LOCATING:
                    response.locating.append(len(fields))
                elif kind == KNOWING:
                    response.binds = response.binds or binds(pair[1])
                fields.append(pair)
        options = tokens(connection) if connection else set()
        response.keep_alive = (
            b"close" not in options if response.minor else b"keep-alive" in options
        )
        if response.status == 101 and b"upgrade" in options and len(upgrades) == 1:
            response.upgrade = upgrades[0]
        named = options - NEVER_HOP - {b"close", b"keep-alive", b"upgrade"}
        if named:
            response.fields = without_named(fields, named)
            response.locating = [
                index
                for index, (name, _) in enumerate(response.fields)
                if KINDS.get(name.lower()) == LOCATING
            ]
        return lengths, codings

    def _measure(self, response: Response) -> None:
        """How long the body is (RFC 9112 section 6.3)."""
        if self._bare or response.status in (204, 304):
            response.chunked = False
        elif response.status < 200:
            pass
        elif response.chunked:
            response.length = None
        elif response.declared is not None:
            response.length = response.declared
        else:
            response.length = None
            response.until_close = True
            response.keep_alive = False
