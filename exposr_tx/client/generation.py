"""Which generation of backstream's Go servers a client speaks with.

Newer ones append a request's query to its decoded path. With older ones there is no query,
and a ``?`` in the path is one that a visitor had encoded: taken for a query it would reach
what a path does not that somebody in front has checked. No request tells the two apart, as
visitors choose what is in it. But a newer server ignores messages with a ``type`` that it
does not know, and an older one closes a connection, without a close frame, at a member of
the wrong kind. So at the first ``?`` the client opens another connection and tries. Stands
beside :mod:`exchanges`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, succeed

from exposr_tx.transport.websocket import JsonConnection

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

__all__ = ["Generation"]

#: Of no known type; and no response, as its id is a number.
PROBE: Final = b'{"type":"exposr","id":0}'
#: Seconds for trying; after that the server counts as an older one.
TIME_LIMIT: Final = 10.0


class _Deaf:
    """Takes no notice: what is asked of all clients is answered by the other connection."""

    def message(self, data: bytes) -> None:
        """A request."""

    def lost(self, reason: str) -> None:
        """The connection is over."""

    def room(self) -> None:
        """What waited to be sent is gone."""


class Generation:
    """What is known of the server of one connection.

    :param connect: opens another connection to it, given what makes its reader.
    """

    def __init__(
        self,
        connect: Callable[[Callable[[JsonConnection], _Deaf]], Deferred[Any]],
        clock: IReactorTime,
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._newer: bool | None = None
        self._waiting: list[Deferred[bool]] = []

    def __repr__(self) -> str:
        return f"<Generation {self._newer}>"

    def is_newer(self) -> Deferred[bool]:
        """Whether the server puts queries into paths; it is tried once. Does not errback."""
        if self._newer is not None:
            return succeed(self._newer)
        waiting: Deferred[bool] = Deferred()
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            trying = Deferred.fromCoroutine(self._try())
            trying.addTimeout(TIME_LIMIT, self._clock)
            trying.addErrback(lambda _: False).addCallback(self._found)
        return waiting

    async def _try(self) -> bool:
        connection = await self._connect(lambda _: _Deaf())
        if isinstance(connection, JsonConnection):
            connection.send_text(PROBE)
        connection.close()
        await connection.lost
        return isinstance(connection, JsonConnection) and connection.said_goodbye

    def _found(self, newer: bool) -> None:
        self._newer = newer
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(newer)
