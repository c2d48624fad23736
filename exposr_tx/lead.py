"""One poll for everything: where a process is all ours, the rounds wait and the reactor follows.

Elsewhere the reactor waits, and tells the :mod:`~exposr_tx.rounds` by one descriptor of
theirs: a poll, a dispatch, a second poll, and a turn of the reactor's loop for whatever
comes. Here its own poll is one descriptor among those of the rounds, and it has its turn
when that or a timer asks for it.

Measured with one kept-alive connection: a request takes 173 µs instead of 238, and a third
less CPU. With 64, where a round has many connections, a fiftieth.
"""

from __future__ import annotations

import select
from typing import Any, Final

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from exposr_tx.rounds import rounds_of

__all__ = ["lead"]

#: What is used of the epoll reactor beside its interface. Where a version of Twisted's has it
#: no more, the reactor leads as ever.
INSIDE: Final = ("_justStopped", "_newTimedCalls", "_pendingTimedCalls")
#: No wait is longer, in seconds: the kernel counts milliseconds, in 31 bits.
LONGEST: Final = 3600.0


def lead(reactor: Any) -> bool:
    """Let the rounds of a reactor poll for it, from its next turn on.

    :return: False where it is not the epoll reactor: nothing has changed.
    """
    poller = getattr(reactor, "_poller", None)
    if not hasattr(select, "epoll") or not isinstance(poller, select.epoll):
        return False
    if not all(hasattr(reactor, name) for name in INSIDE):
        return False
    rounds = rounds_of(reactor)
    of_reactor = reactor.doIteration
    its_turn = False

    def others() -> None:
        nonlocal its_turn
        its_turn = True
        of_reactor(0)

    def iterate(delay: float | None) -> None:
        nonlocal its_turn
        its_turn = False
        timeout = LONGEST if delay is None else min(delay, LONGEST)
        # What is read may stop the reactor, set a timer or move one: then, and when one is
        # due, the reactor's loop goes on.
        while rounds.round(timeout) and not (
            its_turn or reactor._newTimedCalls or reactor._justStopped or not reactor.running
        ):
            calls = reactor._pendingTimedCalls
            timeout = min(calls[0].time - reactor.seconds(), LONGEST) if calls else LONGEST
            if timeout <= 0:
                break

    rounds.lead(poller.fileno(), others)
    reactor.doIteration = iterate
    # The reactor ends what it watches; ours it does not know.
    reactor.addSystemEventTrigger(
        "during", "shutdown", rounds.connectionLost, Failure(ConnectionDone())
    )
    return True
