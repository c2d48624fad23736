"""What one side of a websocket says, read off the bytes that pass.

Unlike ``wire.frames``, which is for the end that a websocket belongs to, this
reads control frames as well, judges little and keeps only the beginning of what
is long. Source: RFC 6455, section 5.2.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from exposr_tx.errors import RemoteProtocolError
from exposr_tx.inspection.exchanges import MAX_FRAME, Body
from exposr_tx.wire.frames import masked

__all__ = ["Message", "MessageReader"]

CONTROL: Final = 8
#: The reserved bit that says "compressed" (RFC 7692, section 6).
RSV1: Final = 0x40


class Message(NamedTuple):
    """A whole message, or a control frame.

    :ivar data: its beginning, unmasked.
    :ivar size: bytes of payload that passed.
    """

    opcode: int
    data: bytes
    size: int
    compressed: bool


class _Gathered:
    """A message of which parts have come."""

    __slots__ = ("body", "compressed", "opcode")

    def __init__(self, opcode: int, compressed: bool) -> None:
        self.opcode = opcode
        self.compressed = compressed
        self.body = Body(MAX_FRAME)

    def whole(self) -> Message:
        return Message(self.opcode, self.body.data, self.body.size, self.compressed)


class MessageReader:
    """Reads the messages of one side. Raises RemoteProtocolError for what are no frames."""

    __slots__ = ("_control", "_final", "_head", "_mask", "_message", "_missing", "_now")

    def __init__(self) -> None:
        self._head = b""  # the beginning of a frame's head
        self._message: _Gathered | None = None
        self._control: _Gathered | None = None
        # The frame whose payload is passing: bytes to come, its mask turned to the next
        # of them, and whether its message ends with it.
        self._now: _Gathered | None = None
        self._missing = 0
        self._mask = b""
        self._final = False

    def receive(self, data: bytes) -> list[Message]:
        """Read on; the messages that are complete now."""
        if self._head:
            data, self._head = self._head + data, b""
        found: list[Message] = []
        view = memoryview(data)
        at, end = 0, len(data)
        while True:
            if self._now is not None:
                size = min(self._missing, end - at)
                self._take(view[at : at + size])
                at += size
                if self._missing:
                    return found
                self._finish(found)
            start = self._begin(data, at)
            if start < 0:
                self._head = data[at:]
                return found
            at = start

    def _begin(self, data: bytes, at: int) -> int:
        """Read a frame's head at a place; where its payload begins, or -1 if it is not all here."""
        if len(data) < at + 2:
            return -1
        first, length = data[at], data[at + 1] & 0x7F
        has_mask = data[at + 1] >= 0x80
        extended = {126: 2, 127: 8}.get(length, 0)
        start = at + 2 + extended + (4 if has_mask else 0)
        if len(data) < start:
            return -1
        if extended:
            length = int.from_bytes(data[at + 2 : at + 2 + extended], "big")
        opcode = first & 0x0F
        compressed = bool(first & RSV1)
        if opcode >= CONTROL:
            if length > 125 or first < 0x80:
                raise RemoteProtocolError("a control frame of a websocket is too long or in parts")
            self._now = self._control = _Gathered(opcode, compressed)
        elif opcode:
            if self._message is not None:
                raise RemoteProtocolError("a websocket's message begins inside another")
            self._now = self._message = _Gathered(opcode, compressed)
        else:
            if self._message is None:
                raise RemoteProtocolError("a websocket's message has no beginning")
            self._now = self._message
        self._missing = length
        self._mask = data[start - 4 : start] if has_mask else b""
        self._final = first >= 0x80
        return start

    def _take(self, piece: memoryview) -> None:
        """The next bytes of a frame's payload."""
        assert self._now is not None
        body = self._now.body
        size = len(piece)
        self._missing -= size
        # What is behind the part that is kept need not be unmasked.
        room = max(0, MAX_FRAME - body.size)
        if self._mask:
            body.add(masked(piece[:room], self._mask))
            turned = size % 4
            self._mask = self._mask[turned:] + self._mask[:turned]
        else:
            body.add(bytes(piece[:room]))
        body.size += max(0, size - room)

    def _finish(self, found: list[Message]) -> None:
        """A frame's payload has come whole."""
        assert self._now is not None
        if self._now is self._control:
            found.append(self._control.whole())
            self._control = None
        elif self._final:
            found.append(self._now.whole())
            self._message = None
        self._now = None
