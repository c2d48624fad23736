"""Timers by a clock that nobody sets.

Twisted's reactors count their timers by the wall clock. When that is set back
by an hour (an operator, a virtual machine that wakes up), every timer comes an
hour late: no pings, no timeouts, no accepted OPEN. Whoever needs the time of
day asks ``time.time`` itself.
"""

from __future__ import annotations

import time
from typing import Any

__all__ = ["use_monotonic_time"]


def use_monotonic_time(reactor: Any) -> None:
    """Let a reactor count by the monotonic clock.

    Where it has timers already, which have been set by the other clock, all
    stays as it is: in a program of somebody else's that starts us late.
    """
    if not reactor.getDelayedCalls():
        reactor.seconds = time.monotonic
