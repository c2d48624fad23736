"""Whose turn it is: streams that have something to send while their connection is full.

One stream with much to send must not hold up the others: each sends a limited
amount, then stands last in line.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exposr_tx.transport.stream import Stream

__all__ = ["Turns"]


class Turns:
    """The line of streams that wait.

    :ivar full: whether the transport below takes no more. Streams look at it when
        they write: with thousands of them idle, and a transport that fills a
        thousand times a second, nobody walks through all to tell them.
    """

    __slots__ = ("_flushing", "_waiting", "full")

    def __init__(self) -> None:
        self.full = False
        # None waits, mostly; and an empty deque has 600 bytes, for each of many thousand clients.
        self._waiting: deque[Stream] | None = None
        self._flushing = False

    def __repr__(self) -> str:
        return f"<Turns {'FULL' if self.full else 'FREE'} {len(self._waiting or ())} waiting>"

    def wait(self, stream: Stream) -> None:
        """The stream has something to send; until it has had its turn it waits once."""
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(stream)
        if not self.full:
            self._flush()

    def pause(self) -> None:
        """The transport is full."""
        self.full = True

    def resume(self) -> None:
        """There is room again."""
        self.full = False
        self._flush()

    def end(self) -> None:
        """Nobody has a turn any more."""
        self.full = True
        if self._waiting is not None:
            self._waiting.clear()

    def _flush(self) -> None:
        waiting = self._waiting
        if self._flushing or waiting is None:
            return
        self._flushing = True
        try:
            while waiting and not self.full:
                stream = waiting.popleft()
                if stream.flush():
                    waiting.append(stream)
        finally:
            self._flushing = False
