"""Connections to targets, kept alive between requests.

A :class:`TargetConnection` is the protocol that HTTP ingress runs on a stream.
After a clean response it waits in the :class:`Pool` of its upstream for the next
request; it is never shared between tunnels or upstreams, and never used again
after anything odd. One on which the target knows a visitor is kept for him.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from exposr_tx.deadlines import NEVER, Deadlines
from exposr_tx.errors import RemoteProtocolError
from exposr_tx.interfaces import IReusable, IUpstream
from exposr_tx.wire.http1 import Event, Limits, ResponseParser

__all__ = ["Pool", "TargetConnection", "TargetFactory"]

#: Idle connections kept for one upstream; more are closed as they come free.
MAX_IDLE: Final = 512
#: Seconds before the time at which a target has said it will close, to be there first.
KEEP_ALIVE_MARGIN: Final = 1.0


class Exchange(Protocol):
    """What a target connection reports to: the request that it works on."""

    def response_events(self, events: list[Event]) -> None:
        """Parts of the response, in order."""

    def target_lost(self, reason: Failure, *, unheard: bool) -> None:
        """The connection ended before the response did, or spoke nonsense.

        :param unheard: it was used before, and for this request not a byte came.
        """

    def target_full(self) -> None:
        """The stream takes no more for now."""

    def target_drained(self) -> None:
        """The stream takes more again."""


@implementer(IPushProducer, IReusable)
class TargetConnection(TwistedProtocol):
    """One stream to a target, speaking HTTP.

    :ivar requests: how many requests it has been used for.
    :ivar watched: whether Deadlines looks at it.
    :ivar bound: whether the target may know on it who its visitor is, for as long as it lives.
    """

    transport: Any
    bound = False

    def __init__(self, pool: Pool, upstream: IUpstream, limits: Limits) -> None:
        self.parser = ResponseParser(limits)
        self.upstream = upstream
        self.requests = 0
        self.alive = False
        self._heard = False
        self.deadline = NEVER
        self.watched = False
        self.idle_limit = pool.idle_timeout
        self._pool = pool
        self._exchange: Exchange | None = None

    def connectionMade(self) -> None:
        self.alive = True
        self.transport.registerProducer(self, True)

    def begin(self, exchange: Exchange, method: bytes) -> None:
        """Work on a request: what arrives from now on is its response."""
        self.requests += 1
        self._heard = False
        self._exchange = exchange
        self.parser.expect(method)

    def dataReceived(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            # Nobody asked: whatever it is, it must not become somebody's response.
            self.abort()
            return
        try:
            events = self.parser.receive(data)
        except RemoteProtocolError:
            failure = Failure()
            self.abort()
            exchange.target_lost(failure, unheard=False)
            return
        self._heard = True
        if events:
            exchange.response_events(events)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.alive = False
        self._pool.discard(self)
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        try:
            # A broken connection is no end: a body until close would look complete.
            events = self.parser.receive_eof() if reason.check(ConnectionDone) else []
        except RemoteProtocolError:
            events = []
        if events:
            exchange.response_events(events)
        else:
            exchange.target_lost(reason, unheard=self.requests > 1 and not self._heard)

    def release(self, idle_limit: int | None) -> None:
        """The exchange has ended cleanly; keep the connection for another, if it may be.

        :param idle_limit: seconds after which the target has said it closes idle connections.
        """
        self._exchange = None
        if idle_limit is not None:
            self.idle_limit = min(idle_limit - KEEP_ALIVE_MARGIN, self._pool.idle_timeout)
        if not self.alive or self.parser.rest or not self._pool.keep(self):
            self.close()

    def set_aside(self) -> None:
        """The exchange has ended cleanly; whoever has the connection may begin another."""
        self._exchange = None
        if self.parser.rest:
            self.close()

    def serves(self, tunnel_id: str) -> bool:
        """Whether a connection that was set aside still leads to a target of this tunnel."""
        return self.alive and self.upstream.tunnel_id == tunnel_id

    def hand_over(self, protocol: TwistedProtocol) -> None:
        """Give the stream to another protocol, with what came behind the response's head."""
        rest = self.parser.take_rest()
        self._exchange = None
        self.alive = False
        self._pool.discard(self)
        self.transport.unregisterProducer()
        self.dataReceived = protocol.dataReceived  # type: ignore[method-assign]
        self.connectionLost = protocol.connectionLost  # type: ignore[method-assign]
        protocol.makeConnection(self.transport)
        if rest:
            protocol.dataReceived(rest)

    def close(self) -> None:
        """Close after what was written."""
        self._exchange = None
        if self.alive:
            self.alive = False
            self._pool.discard(self)
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def abort(self) -> None:
        """Close at once: the visitor has gone, or nothing here can be trusted."""
        self._exchange = None
        if self.alive:
            self.alive = False
            self._pool.discard(self)
            self.transport.unregisterProducer()
            self.transport.abortConnection()

    def timed_out(self) -> None:
        """Idle for too long; called by Deadlines."""
        self.close()

    def end_idle(self) -> None:
        """See IReusable."""
        if self._exchange is None:
            self.close()

    def pauseProducing(self) -> None:
        if self._exchange is not None:
            self._exchange.target_full()

    def resumeProducing(self) -> None:
        if self._exchange is not None:
            self._exchange.target_drained()

    def stopProducing(self) -> None:
        """The stream is lost; connectionLost follows."""


class TargetFactory(Factory):
    """Builds the protocol for one upstream's streams."""

    noisy = False

    def __init__(self, pool: Pool, upstream: IUpstream, limits: Limits) -> None:
        self._build: Callable[[], TargetConnection] = lambda: TargetConnection(
            pool, upstream, limits
        )

    def buildProtocol(self, addr: object) -> TargetConnection:
        return self._build()


class Pool:
    """Idle target connections, by upstream; the one used last is used first.

    :param idle_timeout: seconds after which an idle connection is closed.
    """

    def __init__(self, deadlines: Deadlines, idle_timeout: float) -> None:
        self.idle_timeout = idle_timeout
        self._deadlines = deadlines
        self._closed = False
        self._idle: dict[IUpstream, list[TargetConnection]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._idle.values()))

    def take(self, upstream: IUpstream) -> TargetConnection | None:
        """An idle connection of this upstream, if there is one."""
        idle = self._idle.get(upstream)
        if not idle:
            return None
        connection = idle.pop()
        connection.deadline = NEVER
        return connection

    def keep(self, connection: TargetConnection) -> bool:
        """Keep a connection until it is taken or has been idle for too long."""
        limit, upstream = connection.idle_limit, connection.upstream
        if limit <= 0 or self._closed or not upstream.accepting:
            return False
        idle = self._idle.get(upstream)
        if idle is None:
            idle = self._idle[upstream] = []
        elif len(idle) >= MAX_IDLE:
            return False
        if not connection.watched:
            # Once: to come and go with every request would cost a microsecond each time.
            connection.watched = True
            self._deadlines.add(connection)
        connection.deadline = self._deadlines.now + limit
        idle.append(connection)
        return True

    def discard(self, connection: TargetConnection) -> None:
        """Forget a connection that has ended."""
        if connection.watched:
            connection.watched = False
            self._deadlines.remove(connection)
        idle = self._idle.get(connection.upstream)
        if idle and connection in idle:
            idle.remove(connection)
        if not idle:
            self._idle.pop(connection.upstream, None)

    def close(self) -> None:
        """Close what is idle, and keep nothing from now on."""
        self._closed = True
        for idle in list(self._idle.values()):
            for connection in list(idle):
                connection.timed_out()
