"""Signals that ask a client to end: in good order, and at once when it is asked again.

Stands between the process and its script, ``exposr`` or ``backstream client``.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any, Final

__all__ = ["Interruption"]

#: Seconds in which a second signal is the first one over again: coreutils' ``timeout`` signals its
#: child and then its process group, npm passes a Ctrl-C on that its child had from the terminal.
#: Nobody has changed his mind by then.
SAME: Final = 0.05


class Interruption:
    """What the first SIGINT or SIGTERM starts, and a second one cuts short.

    :param stop: called by the reactor, once.
    :param leave: ends the process with a status.
    :param set_signal: ``signal.signal``.
    :ivar asked: whether a signal has come.
    """

    def __init__(
        self,
        reactor: Any,
        stop: Callable[[], object],
        leave: Callable[[int], object] = os._exit,
        set_signal: Callable[[int, Callable[[int, Any], None]], object] = signal.signal,
    ) -> None:
        self._reactor = reactor
        self._stop = stop
        self._leave = leave
        self._set_signal = set_signal
        self._since = 0.0
        self.asked = False

    def catch(self, *numbers: int) -> None:
        """Mind these signals; after the reactor has installed its own handlers."""
        for number in numbers:
            self._set_signal(number, self._signalled)

    def _signalled(self, _number: int, _frame: Any) -> None:
        now = self._reactor.seconds()
        if self.asked:
            if now - self._since >= SAME:
                self._leave(0)
            return
        self.asked, self._since = True, now
        self._reactor.callFromThread(self._stop)
