"""Frames gathered into messages: what a round makes goes out together at its end.

Stands between the native dialect's streams and the connection. One message costs a
head, a mask and a system call, whether it holds one frame or fifty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from exposr_tx.wire.native import MESSAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from exposr_tx.transport.connection import MessageConnection

__all__ = ["LARGE", "Batch"]

#: Payloads from this size on are not copied into a batch: they are a message of their own.
LARGE: Final = 16 * 1024


class Batch:
    """The frames that wait for the end of the round.

    Under load a round makes dozens of them. One that is alone waits for nothing, as its round
    has nothing else to do.

    :param at_end: calls later, when the round is over.
    :ivar size: bytes that wait.
    """

    __slots__ = ("_at_end", "_connection", "_parts", "size")

    def __init__(
        self, connection: MessageConnection, at_end: Callable[[Callable[[], object]], None]
    ) -> None:
        self._connection = connection
        self._at_end = at_end
        self._parts: list[bytes] = []
        self.size = 0

    def __repr__(self) -> str:
        return f"<Batch {self.size} bytes>"

    def send(self, head: bytes, payload: bytes = b"") -> None:
        """A frame, in two parts so that a large payload need not be copied."""
        size = len(payload)
        if size >= LARGE:
            self.flush()
            self._connection.send(head, payload)
            return
        size += len(head)
        if self.size + size > MESSAGE_SIZE:
            self.flush()
        if not self.size:
            self._at_end(self.flush)
        self.size += size
        self._parts += (head, payload)

    def flush(self) -> None:
        """Send what has been gathered."""
        if self._parts:
            message = b"".join(self._parts)
            self._parts.clear()
            self.size = 0
            self._connection.send_now(message)

    def drop(self) -> None:
        """The connection is over."""
        self._parts.clear()
        self.size = 0
