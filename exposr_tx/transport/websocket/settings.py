"""What autobahn is told on both sides: limits, whose clock it uses, and to keep silent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["CLOSE_TIMEOUT", "HANDSHAKE_TIMEOUT", "MAX_MESSAGE", "Silence", "Timers", "limits"]

#: Bytes in one message of a v2 peer. Nothing of that size is ever in memory.
MAX_MESSAGE: Final = 16 * 1024 * 1024

#: Seconds for a websocket handshake, and for the answer to a close frame.
HANDSHAKE_TIMEOUT: Final = 5.0
CLOSE_TIMEOUT: Final = 1.0


class Silence:
    """In place of autobahn's loggers: they would write handshakes, with their tokens."""

    def debug(self, *_: object, **__: object) -> None: ...

    info = warn = error = failure = trace = debug


class Timers:
    """Autobahn's timers on our clock."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock

    def call_later(self, delay: float, function: Any) -> _Timer:
        return _Timer(self._clock.callLater(delay, function))


class _Timer:
    def __init__(self, call: IDelayedCall) -> None:
        self._call = call

    def cancel(self) -> None:
        if self._call.active():
            self._call.cancel()


def limits(max_message: int = MAX_MESSAGE, handshake: float = HANDSHAKE_TIMEOUT) -> dict[str, Any]:
    """Autobahn's options that are the same on both sides.

    :param max_message: bytes in one message of the peer's.
    :param handshake: seconds for it.
    """
    return {
        "utf8validateIncoming": False,
        "maxFramePayloadSize": max_message,
        "maxMessagePayloadSize": max_message,
        "failByDrop": True,
        "openHandshakeTimeout": handshake,
        "closeHandshakeTimeout": CLOSE_TIMEOUT,
    }
