"""Timers that may as well fire together: one of the reactor's for all that fall into a moment.

Ten thousand idle peers are pinged 1,700 times a second. A timer of its own for each
costs a search in a heap of ten thousand with comparisons in Python, and half a kilobyte.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from twisted.logger import Logger

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["TOGETHER", "Beats", "beats_of"]

#: Seconds between two beats: so much earlier than asked for may somebody be called. Ten thousand
#: idle peers do not wake this process as often each second as there are pings, which would cost
#: 150 µs a ping.
TOGETHER: Final = 0.0625

_log = Logger()


class Beats:
    """The moments at which somebody is to be called; those without anybody cost nothing."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[IDelayedCall, set[Callable[[], object]]]] = {}

    def __repr__(self) -> str:
        return f"<Beats {sum(len(calls) for _, calls in self._waiting.values())} waiting>"

    def add(self, clock: IReactorTime, now: float, delay: float, call: Callable[[], object]) -> int:
        """Call once, at the last beat before ``delay`` seconds are over; gives the beat.

        :param now: the clock's seconds.
        """
        beat = int((now + delay) / TOGETHER)
        waiting = self._waiting.get(beat)
        if waiting is None:
            timer = clock.callLater(max(0.0, beat * TOGETHER - now), self._sound, beat)
            self._waiting[beat] = timer, {call}
        else:
            waiting[1].add(call)
        return beat

    def remove(self, beat: int, call: Callable[[], object]) -> None:
        """Do not call; but who is removed by somebody called at the same beat may be."""
        waiting = self._waiting.get(beat)
        if waiting is not None:
            timer, calls = waiting
            calls.discard(call)
            if not calls:
                timer.cancel()
                del self._waiting[beat]

    def _sound(self, beat: int) -> None:
        _, calls = self._waiting.pop(beat)
        for call in calls:
            try:
                call()
            except Exception:
                _log.failure("a call at a beat failed")


_beats: WeakKeyDictionary[Any, Beats] = WeakKeyDictionary()


def beats_of(clock: Any) -> Beats:
    """The beats of a clock. It has one, as whoever counts by it is to be called together."""
    beats = _beats.get(clock)
    if beats is None:
        beats = _beats[clock] = Beats()
    return beats
