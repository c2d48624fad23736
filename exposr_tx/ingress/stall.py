"""Whether a visitor still takes what was written to him.

Beside the data path: a :class:`~exposr_tx.ingress.visitor.VisitorConnection` that is full, or is
being closed, looks now and then.
"""

from __future__ import annotations

import fcntl
import struct
import termios
from typing import Any, cast

from exposr_tx.direct import socket_of

__all__ = ["Stall"]


class Stall:
    """What a visitor has not acknowledged, and when that is to be looked at again.

    :param until: seconds of any clock; ``seconds`` after now.
    """

    __slots__ = ("_queued", "_transport", "seconds", "until")

    def __init__(self, transport: Any, until: float, seconds: float) -> None:
        self._transport = transport
        self._queued = _unacknowledged(transport)
        self.until = until
        self.seconds = seconds

    def __repr__(self) -> str:
        return f"<Stall at {self._queued} bytes>"

    def is_over(self, ending: bool) -> bool:
        """Whether something has been taken meanwhile.

        :param ending: whether that is all: nobody needs to wait for a visitor who has everything.
        """
        queued = _unacknowledged(self._transport)
        return queued != self._queued and not (ending and not queued)


def _unacknowledged(transport: Any) -> int:
    """Bytes in the socket's send queue, below TLS or not; 0 where nobody knows."""
    try:
        told = fcntl.ioctl(socket_of(transport).fileno(), termios.TIOCOUTQ, bytes(4))
    except (AttributeError, OSError):
        return 0
    return cast(int, struct.unpack("i", told)[0])
