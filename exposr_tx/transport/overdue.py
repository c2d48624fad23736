"""Answers that do not come: time limits for many things with one timer.

A session waits for the ACK of each OPEN and of each CLOSE, and a moment after
each stream's last data. All of one kind have the same time, so the oldest is
the next, and a stream costs no timer of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from math import inf
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["Overdue"]

T = TypeVar("T")


class Overdue(Generic[T]):
    """Things of one kind that must not take too long.

    :param seconds: how long each may take.
    :param expired: called with each one that has taken longer.
    """

    __slots__ = ("_call", "_clock", "_deadlines", "_expired", "_seconds")

    def __init__(self, clock: IReactorTime, seconds: float, expired: Callable[[T], object]) -> None:
        self._clock = clock
        self._seconds = seconds
        self._expired = expired
        self._deadlines: dict[T, float] = {}  # the oldest first
        self._call: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._deadlines)

    def add(self, thing: T) -> None:
        """Its time begins, anew if it had begun."""
        self._deadlines.pop(thing, None)
        self._deadlines[thing] = self._clock.seconds() + self._seconds
        if self._call is None:
            self._call = self._clock.callLater(self._seconds, self._sweep)

    def discard(self, thing: T) -> None:
        """It was in time."""
        self._deadlines.pop(thing, None)

    def clear(self) -> None:
        """Nothing is waited for any more."""
        self._deadlines.clear()
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _sweep(self) -> None:
        self._call = None
        now = self._clock.seconds()
        late = list(takewhile(lambda item: item[1] <= now, self._deadlines.items()))
        for thing, _ in late:
            if self._deadlines.get(thing, inf) <= now:  # not discarded meanwhile, or begun anew
                del self._deadlines[thing]
                self._expired(thing)
        if self._deadlines and self._call is None:
            left = next(iter(self._deadlines.values())) - now
            self._call = self._clock.callLater(max(0.0, left), self._sweep)
