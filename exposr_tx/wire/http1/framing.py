"""Where a message ends: finding its head, measuring its body."""

from __future__ import annotations

from exposr_tx.errors import LocalProtocolError, RemoteProtocolError
from exposr_tx.wire.http1.fields import NO_TRAILER
from exposr_tx.wire.http1.messages import END, End, Event
from exposr_tx.wire.http1.syntax import (
    CHUNK_LINE,
    DIGITS,
    FIELD,
    MAX_CHUNK_LINE,
    MAX_LENGTH,
    MAX_TRAILERS,
    NEVER,
    SPACE_AT_END,
    TRAILER_SECTION,
    Limits,
)


class Chunked:
    """The framing of a chunked body (RFC 9112 section 7.1)."""

    __slots__ = ("_line", "_remaining", "_trailing")

    def __init__(self) -> None:
        self._line = b""
        self._remaining = 0  # of the chunk's data and its CRLF
        self._trailing = False

    def receive(self, data: bytes, events: list[Event]) -> bytes | None:
        """Add what is complete to ``events``; what follows the body's end, or None before it."""
        at, end = 0, len(data)
        while at < end:
            if self._remaining > 2:
                stop = min(at + self._remaining - 2, end)
                events.append(data if stop - at == end else data[at:stop])
                self._remaining -= stop - at
                at = stop
            elif self._remaining:
                stop = min(at + self._remaining, end)
                if data[at:stop] != b"\r\n"[2 - self._remaining :][: stop - at]:
                    raise RemoteProtocolError("a chunk is not as long as its size says")
                self._remaining -= stop - at
                at = stop
            elif self._trailing:
                return self._receive_trailers(data[at:], events)
            else:
                at = self._receive_size(data, at)
        return None

    def _receive_size(self, data: bytes, at: int) -> int:
        found = data.find(b"\n", at)
        line = self._line + data[at : found + 1 or None]
        if len(line) > MAX_CHUNK_LINE + 2:
            raise RemoteProtocolError("a chunk's size line is too long")
        if found < 0:
            self._line = line
            return len(data)
        self._line = b""
        matched = CHUNK_LINE.fullmatch(line, 0, len(line) - 2) if line[-2:] == b"\r\n" else None
        if matched is None:
            raise RemoteProtocolError("a chunk's size does not parse")
        size = int(matched[1], 16)
        if size > MAX_LENGTH:
            raise RemoteProtocolError("a chunk is too long")
        if size:
            self._remaining = size + 2
        else:
            self._trailing = True
        return found + 1

    def _receive_trailers(self, data: bytes, events: list[Event]) -> bytes | None:
        # The line of the last chunk has ended: an empty line ends the message at once.
        held = self._line + data
        if held[:2] == b"\r\n":
            events.append(END)
            return held[2:]
        found = held.find(b"\r\n\r\n")
        if (found if found >= 0 else len(held)) > MAX_TRAILERS:
            raise RemoteProtocolError("the trailers are too long", 431)
        if found < 0:
            if NEVER.search(held):
                raise RemoteProtocolError("the trailers do not parse")
            self._line = held
            return None
        section = SPACE_AT_END.sub(b"\r\n", held[: found + 4])
        if not TRAILER_SECTION.fullmatch(section):
            raise RemoteProtocolError("the trailers do not parse")
        events.append(
            End(tuple(p for p in FIELD.findall(section) if p[0].lower() not in NO_TRAILER))
        )
        return held[found + 4 :]


HEAD, BODY, CHUNKS, UNTIL_CLOSE, DONE = range(5)
CR, LF = b"\r\n"


class Parser:
    """What requests and responses have in common: finding the head, measuring the body."""

    #: What has come and is not read: the beginning of a head, or what is behind the message's end.
    rest: bytes | bytearray

    __slots__ = (
        "_chunked",
        "_first",
        "_head",
        "_limits",
        "_passed",
        "_remaining",
        "_scanned",
        "_state",
        "_whole",
        "rest",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._state = HEAD
        self._head = b""  # of the message before, if it may serve again
        self._first: Event = END  # what that head says
        self._whole = -1  # bytes of it and of a body of that length, where it tells the length
        self.rest = b""
        self._scanned = 0
        self._remaining = 0
        self._passed = 0
        self._chunked: Chunked | None = None

    @property
    def begun(self) -> bool:
        """Whether bytes of a head are here that is not complete."""
        return self._state == HEAD and bool(self.rest)

    @property
    def head(self) -> bytes:
        """The head read last, as it came."""
        return self._head

    def take_rest(self) -> bytes:
        """The bytes behind the message's end; they are no longer the parser's."""
        rest, self.rest = bytes(self.rest), b""
        return rest

    def receive(self, data: bytes) -> list[Event]:
        """Read on; the events that are complete now."""
        head = self._head
        # What comes again to the byte, as from a client that polls, says the same: it costs a
        # comparison in place of 5 µs. With all of its body in one piece it is most of what
        # small messages are.
        again = head and self._state == HEAD and not self.rest and data.startswith(head)
        if again and len(data) == self._whole:
            self._state = DONE
            at = len(head)
            return [self._first, data[at:], END] if len(data) > at else [self._first, END]
        events: list[Event] = []
        rest: bytes | None = data
        if again:
            self._begin(events)
            rest = None if len(data) == len(head) else data[len(head) :]
        while rest:
            state = self._state
            if state == HEAD:
                rest = self._receive_head(rest, events)
            elif state == BODY:
                rest = self._receive_body(rest, events)
            elif state == CHUNKS:
                rest = self._receive_chunks(rest, events)
            elif state == UNTIL_CLOSE:
                events.append(rest)
                rest = None
            else:
                self.rest = bytes(self.rest) + rest if self.rest else rest
                rest = None
        return events

    def _receive_head(self, data: bytes, events: list[Event]) -> bytes | None:
        if self.rest:
            # Pieces gather in a bytearray and are searched once: a head that comes
            # byte by byte costs no more than its length.
            if not isinstance(self.rest, bytearray):
                self.rest = bytearray(self.rest)
            self.rest += data
            if self.rest.find(b"\r\n\r\n", max(0, self._scanned - 3)) < 0:
                self._check_partial(self.rest)
                return None
            data = bytes(self.rest)
            self.rest = b""
            self._scanned = 0
        end = data.find(b"\r\n\r\n") + 4
        if end == 3:
            self.rest = data
            self._check_partial(data)
            return None
        if data[0] == CR and data[1] == LF:
            return self._skip_empty_line(data)
        if end > self._limits.head:
            raise self._too_long(data)
        if end == len(data):
            self._parse_head(data, events)
            return None
        self._parse_head(data[:end], events)
        return data[end:]

    def _skip_empty_line(self, data: bytes) -> bytes:
        raise RemoteProtocolError("the head does not parse")

    def _check_partial(self, held: bytes | bytearray) -> None:
        """Refuse what cannot become a head, or is too long already."""
        if len(held) > self._limits.head:
            raise self._too_long(bytes(held))
        if NEVER.search(held, max(0, self._scanned - 1)):
            raise RemoteProtocolError("the head has a control character or a bare line end")
        if len(held) > self._limits.line and held.find(b"\r\n", 0, self._limits.line + 2) < 0:
            raise self._too_long(bytes(held))
        self._scanned = len(held)

    def _too_long(self, head: bytes) -> RemoteProtocolError:
        return RemoteProtocolError(f"the head is longer than {self._limits.head} bytes", 431)

    def _parse_head(self, head: bytes, events: list[Event]) -> None:
        """Read a head, remember it, and :meth:`_begin`."""
        raise LocalProtocolError("a parser is of requests or of responses")

    def _begin(self, events: list[Event]) -> None:
        """Tell the message whose head was read last, and go on to its body."""
        raise LocalProtocolError("a parser is of requests or of responses")

    def _receive_body(self, data: bytes, events: list[Event]) -> bytes | None:
        size, remaining = len(data), self._remaining
        if size < remaining:
            self._remaining = remaining - size
            events.append(data)
            return None
        self._remaining = 0
        self._state = DONE
        if size == remaining:
            events.append(data)
            events.append(END)
            return None
        events.append(data[:remaining])
        events.append(END)
        return data[remaining:]

    def _receive_chunks(self, data: bytes, events: list[Event]) -> bytes | None:
        assert self._chunked is not None
        before = len(events)
        rest = self._chunked.receive(data, events)
        if self._limits.body:
            self._passed += sum(len(e) for e in events[before:] if type(e) is bytes)
            if self._passed > self._limits.body:
                raise RemoteProtocolError("the body is too long", 413)
        if rest is not None:
            self._state = DONE
            self._chunked = None
        return rest

    def _begin_body(self, length: int | None, events: list[Event]) -> None:
        """Set the state for a body of ``length`` bytes, or of chunks for None."""
        if length is None:
            self._state = CHUNKS
            self._chunked = Chunked()
            self._passed = 0
        elif length:
            self._state = BODY
            self._remaining = length
        else:
            self._state = DONE
            events.append(END)


def content_length(values: list[bytes]) -> int:
    """The one Content-Length there may be."""
    if len(values) != 1 or not DIGITS.fullmatch(values[0]):
        raise RemoteProtocolError("Content-Length is not one number")
    length = int(values[0])
    if length > MAX_LENGTH:
        raise RemoteProtocolError("Content-Length is too large", 413)
    return length


def check_chunked(values: list[bytes], minor: int, lengths: list[bytes]) -> None:
    """Transfer-Encoding must be ``chunked`` and nothing else (RFC 9112 sections 6.1 and 6.3)."""
    if lengths:
        raise RemoteProtocolError("Content-Length and Transfer-Encoding stand together")
    if minor == 0:
        raise RemoteProtocolError("Transfer-Encoding in HTTP/1.0")
    if len(values) == 1 and values[0].lower() == b"chunked":
        return
    codings = [coding.strip(b" \t").lower() for coding in b",".join(values).split(b",")]
    if codings[-1] != b"chunked" or codings.count(b"chunked") != 1 or len(values) != 1:
        raise RemoteProtocolError("Transfer-Encoding is not chunked")
    raise RemoteProtocolError("this transfer coding is not understood", 501)
