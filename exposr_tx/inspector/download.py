"""All exchanges as one HAR file, sent as fast as it is read.

The file may be larger than all that is kept, and what passes through the tunnel does not
wait for it: an entry is made whenever the ones before have gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from exposr_tx.inspection.exchanges import Exchange
from exposr_tx.inspection.har import envelope, written
from exposr_tx.inspection.redaction import Redaction

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime
    from twisted.web.server import Request

__all__ = ["Download"]


@implementer(IPushProducer)
class Download:
    """Sends exchanges as a HAR file, one in each turn of the reactor; the request's head is made.

    :ivar over: fires when all is sent, or nobody wants the rest.
    """

    def __init__(
        self,
        request: Request,
        exchanges: Iterable[Exchange],
        redaction: Redaction,
        clock: IReactorTime,
    ) -> None:
        self._request = request
        self._exchanges = iter(exchanges)
        self._redaction = redaction
        self._clock = clock
        self._call: IDelayedCall | None = None
        head, self._end = envelope()
        self._comma = b""
        self.over: Deferred[None] = Deferred()
        request.notifyFinish().addErrback(lambda _: self.stopProducing())
        request.registerProducer(self, True)
        request.write(head)
        self.resumeProducing()

    def __repr__(self) -> str:
        return f"<Download {'over' if self.over.called else 'running'}>"

    def _next(self) -> None:
        self._call = None
        exchange = next(self._exchanges, None)
        if exchange is None:
            self._request.unregisterProducer()
            self._request.write(self._end)
            self.over.callback(None)
            return
        self.resumeProducing()
        self._request.write(self._comma + written(exchange, self._redaction))
        self._comma = b","

    def pauseProducing(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def resumeProducing(self) -> None:
        if self._call is None and not self.over.called:
            self._call = self._clock.callLater(0, self._next)

    def stopProducing(self) -> None:
        self.pauseProducing()
        if not self.over.called:
            self.over.callback(None)
