"""Changes of the ring as server-sent events, for as long as somebody listens.

Source: the HTML standard, section 9.2 (server-sent events).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from exposr_tx.inspection.exchanges import Exchange
from exposr_tx.inspection.ring import Ring

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime
    from twisted.web.server import Request

__all__ = ["Feed"]

#: Seconds in which changes gather before they are sent: a busy tunnel has thousands a second,
#: and nobody can look at more than a few lists in that time.
GATHER: Final = 0.1
#: Seconds after which a comment shows that the connection lives.
QUIET: Final = 15.0


@implementer(IPushProducer)
class Feed:
    """One listener. First he gets all that is there, then what changes.

    Each event is a JSON object: ``exchanges`` (the oldest first), ``missed`` (how many
    came and went before they could be told), ``cleared`` (whether to forget all others).
    While he does not read, only what has changed is remembered.
    """

    def __init__(
        self,
        request: Request,
        ring: Ring,
        clock: IReactorTime,
        shown: Callable[[Exchange], dict[str, Any]],
    ) -> None:
        self._request = request
        self._clock = clock
        self._shown = shown
        self._subscription = ring.subscribe(self._wake)
        self._call: IDelayedCall | None = None
        self._paused = False
        self.over: Deferred[None] = Deferred()
        request.setHeader(b"content-type", b"text/event-stream; charset=utf-8")
        request.notifyFinish().addBoth(self._gone)
        request.registerProducer(self, True)
        self._send(list(ring), 0, True)

    def __repr__(self) -> str:
        return f"<Feed {'paused' if self._paused else 'open'}>"

    def close(self) -> None:
        """End it from this side."""
        if not self.over.called:
            self._request.loseConnection()

    def _gone(self, _: object) -> None:
        self._subscription.close()
        self._cancel()
        self.over.callback(None)

    def _wake(self) -> None:
        if not self._paused:
            self._again(GATHER)

    def _again(self, seconds: float) -> None:
        self._cancel()
        self._call = self._clock.callLater(seconds, self._due)

    def _cancel(self) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def _due(self) -> None:
        exchanges, missed, cleared = self._subscription.take()
        if exchanges or missed or cleared:
            self._send(exchanges, missed, cleared)
        else:
            self._request.write(b":\n\n")
            self._again(QUIET)

    def _send(self, exchanges: list[Exchange], missed: int, cleared: bool) -> None:
        shown = [self._shown(exchange) for exchange in exchanges]
        event = {"exchanges": shown, "missed": missed, "cleared": cleared}
        self._again(QUIET)
        self._request.write(b"data: " + json.dumps(event).encode("ascii") + b"\n\n")

    def pauseProducing(self) -> None:
        self._paused = True
        self._cancel()

    def resumeProducing(self) -> None:
        self._paused = False
        self._again(GATHER)

    def stopProducing(self) -> None:
        self._cancel()
