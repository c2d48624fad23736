"""Why a stream was reset, and why a connection goes: numbers as they stand on the wire."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["GoAwayCode", "ResetCode"]


class ResetCode(IntEnum):
    """Codes of RESET ("Reset codes")."""

    #: Abandoned: nobody waits for it any more.
    NO_ERROR = 0
    #: A fault of the sender's; every unknown code counts as this.
    INTERNAL = 1
    #: The target refused the connection.
    TARGET_REFUSED = 2
    #: The target cannot be reached, or its name or certificate is wrong.
    TARGET_FAILED = 3
    #: The target's connection broke in the middle.
    TARGET_RESET = 4
    #: Too many streams; nothing was done.
    LIMIT = 5
    #: The connection is being drained, or the tunnel detached; nothing was done.
    GOING_AWAY = 6
    #: A time limit of the sender's.
    TIMEOUT = 7
    #: The acceptor does not serve streams of this kind; nothing was done.
    UNSUPPORTED = 8

    @classmethod
    def _missing_(cls, value: object) -> ResetCode:
        return cls.INTERNAL


class GoAwayCode(IntEnum):
    """Codes of GOAWAY ("Going away")."""

    #: The sender stops; every unknown code counts as this.
    DRAINING = 0
    #: A newer connection has taken the place.
    REPLACED = 1

    @classmethod
    def _missing_(cls, value: object) -> GoAwayCode:
        return cls.DRAINING
