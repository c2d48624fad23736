"""How long the client waits before it tries again."""

from __future__ import annotations

from random import Random

__all__ = ["Backoff"]

#: Bounds of the wait, in seconds. A lost connection comes back at once for its
#: user; a server that is away for long is asked four times a minute at most.
SHORTEST = 0.1
LONGEST = 15.0
#: A connection that lasted this many seconds counts as a success.
STABLE = 10.0


class Backoff:
    """Exponential waits with full jitter.

    Each wait is drawn from zero to a bound that doubles from 100 ms to 15 s, so
    that a thousand clients that lost their server together come back spread out.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._bound = SHORTEST

    def __repr__(self) -> str:
        return f"<Backoff up to {self._bound:g} s>"

    def next(self) -> float:
        """Seconds to wait before the next attempt."""
        wait = self._random.uniform(0, self._bound)
        self._bound = min(self._bound * 2, LONGEST)
        return wait

    def lasted(self, seconds: float) -> None:
        """A connection has ended that long after it was made."""
        if seconds >= STABLE:
            self._bound = SHORTEST
