"""Bodies of a Twisted Agent's calls: sent at once, and read up to a limit.

Beside the data path: for the client's REST calls, and for an Open Policy Agent that is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.internet.interfaces import IConsumer
    from twisted.web.iweb import IResponse

__all__ = ["Body", "body_of"]


@implementer(IBodyProducer)
class Body:
    """A small body, sent at once. Twisted's own takes turns of the installed reactor."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """It is sent."""

    def resumeProducing(self) -> None:
        """It is sent."""

    def stopProducing(self) -> None:
        """It is sent."""


def body_of(response: IResponse, limit: int, measured: bool = False) -> Deferred[bytes]:
    """The body of a response, or so many bytes of it; then it hangs up, and when cancelled.

    :param limit: bytes.
    :param measured: whether it must have a length or chunks: of any other nobody knows that it is
        whole.
    :return: errbacks with what has cut it short.
    """
    ends = (ResponseDone,) if measured else (ResponseDone, PotentialDataLoss)
    gathering = _Gathering(limit, ends)
    response.deliverBody(gathering)
    return gathering.done


class _Gathering(Protocol):
    """A body that is wanted whole, but not beyond a limit."""

    transport: Any

    def __init__(self, limit: int, ends: tuple[type[Exception], ...]) -> None:
        self._limit = limit
        self._ends = ends
        self._pieces: list[bytes] = []
        # An Agent's transport has no abortConnection.
        self.done: Deferred[bytes] = Deferred(lambda _: self.transport.loseConnection())

    def dataReceived(self, data: bytes) -> None:
        self._pieces.append(data[: self._limit])
        self._limit -= len(self._pieces[-1])
        if not self._limit:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if reason.check(*self._ends) or not self._limit:
            self.done.callback(b"".join(self._pieces))
        else:
            self.done.errback(reason)
