"""Coarse time limits for very many connections.

A ``callLater`` per request costs more than parsing the request. Here a
connection carries its time limit as a plain attribute, and one timer looks at
all of them twice a second; limits are seconds to minutes, so half a second
more is nobody's loss.
"""

from __future__ import annotations

import math
from typing import Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["NEVER", "TICK", "Deadlines", "Timed"]

#: Seconds between two looks.
TICK: Final = 0.5
#: A time limit that never comes.
NEVER: Final = math.inf


class Timed(Protocol):
    """Something with a time limit."""

    deadline: float

    def timed_out(self) -> None:
        """The deadline has passed. Called once a tick until the deadline is moved."""


class Deadlines:
    """Watches over the deadlines of its members.

    :ivar now: the time of the last look, on the clock's scale; members set
        ``deadline = deadlines.now + seconds``.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._members: set[Timed] = set()
        self._call: IDelayedCall | None = None
        self.now = clock.seconds()

    def add(self, member: Timed) -> None:
        """Watch a member from now on."""
        self._members.add(member)
        if self._call is None:
            self.now = self._clock.seconds()
            self._call = self._clock.callLater(TICK, self._look)

    def remove(self, member: Timed) -> None:
        """Forget a member; the timer rests when there is none left."""
        self._members.discard(member)
        if not self._members and self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        self._call = self._clock.callLater(TICK, self._look)
        now = self.now = self._clock.seconds()
        for member in [m for m in self._members if m.deadline <= now]:
            member.timed_out()
