"""Frames gathered into messages: what a reactor turn makes goes out together at its end.

Stands between the native dialect's streams and the connection. One message costs a
head, a mask and a system call, whether it holds one frame or fifty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from exposr_tx.wire.native import MESSAGE_SIZE

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from exposr_tx.transport.connection import MessageConnection

__all__ = ["LARGE", "Batch"]

#: Payloads from this size on are not copied into a batch: they are a message of their own.
LARGE: Final = 16 * 1024
#: Seconds since the frame before after which one is taken to be alone, and sent at once. Under
#: load a turn makes one every 50 to 100 µs; a lone request's frames are three times as far apart.
ALONE: Final = 0.0002


class Batch:
    """The frames that wait for the end of the turn.

    A frame that comes a while after the one before is alone: it goes out at once, and no end of
    a turn is waited for, as the timer alone would cost it a tenth of a millisecond. Under load
    everything is gathered. (To send the first one of a turn at once always cost a third of the
    throughput and gained nothing, measured.)
    """

    __slots__ = ("_call", "_clock", "_connection", "_last", "_parts", "_size")

    def __init__(self, connection: MessageConnection, clock: IReactorTime) -> None:
        self._connection = connection
        self._clock = clock
        self._parts: list[bytes] = []
        self._size = 0
        self._last = -ALONE  # when the frame before came
        self._call = False  # the end of the turn is waited for

    def __repr__(self) -> str:
        return f"<Batch {self._size} bytes>"

    def send(self, head: bytes, payload: bytes = b"") -> None:
        """A frame, in two parts so that a large payload need not be copied."""
        now = self._clock.seconds()
        alone = not self._parts and now - self._last >= ALONE
        self._last = now
        if len(payload) >= LARGE:
            self.flush()
            self._connection.send(head, payload)
        elif alone:
            self._connection.send_now(head + payload)
        else:
            self.add(head, payload)

    def add(self, head: bytes, payload: bytes = b"") -> None:
        """A frame that others follow, or that nobody waits for: it is never sent at once."""
        if not self._call:
            self._call = True
            self._clock.callLater(0, self._end_of_turn)
        size = len(head) + len(payload)
        if self._size + size > MESSAGE_SIZE:
            self.flush()
        self._parts.append(head)
        if payload:
            self._parts.append(payload)
        self._size += size

    def flush(self) -> None:
        """Send what has been gathered."""
        if self._parts:
            parts, self._parts = self._parts, []
            self._size = 0
            self._connection.send_now(b"".join(parts))

    def drop(self) -> None:
        """The connection is over."""
        self._parts.clear()
        self._size = 0

    def _end_of_turn(self) -> None:
        self._call = False
        self.flush()
