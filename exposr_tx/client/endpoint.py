"""The client's end of a tunnel, as a Twisted server endpoint.

``listen(factory)`` keeps connections to the server open and runs a protocol
of the factory's on every stream that arrives through them: a target's splice
in the script, any Site or Factory in a program of one's own.

Each connection is a slot: read the tunnel for a token that is good once, open
the websocket, wait until it is lost, wait a little, again. Facts: protocol
page B.2, C.10, C.11, D.5.
"""

from __future__ import annotations

from collections.abc import Awaitable
from random import Random
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    DeferredLock,
    FirstError,
)
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from exposr_tx.client.address import TunnelAddress
from exposr_tx.client.answers import (
    AccountRefused,
    NotTrusted,
    ServerRefusal,
    ServerUnreachable,
    Tunnel,
)
from exposr_tx.client.backoff import Backoff
from exposr_tx.client.events import Events
from exposr_tx.client.gate import GRACE, Gate
from exposr_tx.errors import ExposrError, TunnelNotFound
from exposr_tx.interfaces import CloseCode
from exposr_tx.transport.connection import Lost

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocolFactory, IReactorTime


__all__ = [
    "Carrier",
    "Dial",
    "Source",
    "TunnelEnded",
    "TunnelEndpoint",
    "TunnelPort",
]

T = TypeVar("T")

#: Reasons with which our server says that coming back is pointless.
FINAL_REASONS = frozenset({"disconnected", "deleted", "disabled"})
#: Seconds after any other 1008: the limit of connections may be taken by one of
#: our own that the server has not missed yet.
CROWDED_WAIT = 5.0
#: Seconds until it is asked again whether a server that takes fewer connections than it did, as
#: after a restart with another limit, takes more.
SURPLUS_WAIT = 60.0
#: Seconds that a connection must have lasted for another one to be made at once.
LEAST_SPELL = 1.0
#: Seconds for which an account may be unknown: a memory server that has just
#: restarted, a storage that is being restored.
REFUSAL_PATIENCE = 60.0
#: Connections that we open at most, whatever the server says.
MOST_CONNECTIONS = 64


class Carrier(Protocol):
    """An open connection that carries streams: the websocket transport's ClientConnection.

    :ivar lost: fires once, when it is over.
    :ivar leaving: fires when the server says that it will end it, if it does.
    """

    lost: Deferred[Lost]
    leaving: Deferred[None]

    @property
    def streams(self) -> int:
        """Streams that are open."""

    def leave(self) -> None:
        """Ask the server to open no more streams; those that run go on."""

    def close(self) -> None:
        """End the streams, then the connection; ``lost`` fires within two seconds."""


class Dial(Protocol):
    """Opens a connection; ``native`` says whether the server knows the native dialect."""

    def __call__(
        self, url: str, factory: IProtocolFactory, native: bool = False
    ) -> Awaitable[Carrier]: ...


class Source(Protocol):
    """Where an endpoint has its tunnel from."""

    async def prepare(self) -> Tunnel:
        """See to it that the tunnel is there; may be called again."""

    async def read(self) -> Tunnel:
        """The tunnel with a fresh token."""


class TunnelEnded(ExposrError):
    """The server has ended the tunnel for good: disconnected, deleted or disabled."""


class _Surplus(Exception):
    """The server takes fewer connections by now: there is nothing for this one to do."""


class ConnectionEnded(ServerUnreachable):
    """The connection is lost and is not to be made again."""


@implementer(IStreamServerEndpoint)
class TunnelEndpoint:
    """Listens at the public end of a tunnel.

    :param clock: times waits.
    :param source: prepares and reads the tunnel.
    :param dial: opens a connection to a websocket URL and gives streams to a factory.
    :param random: the jitter's.
    :param retry: False ends with the first failure.
    """

    def __init__(
        self,
        clock: IReactorTime,
        source: Source,
        dial: Dial,
        random: Random,
        events: Events | None = None,
        retry: bool = True,
    ) -> None:
        self._clock = clock
        self._source = source
        self._dial = dial
        self._random = random
        self._events = events or Events()
        self._retry = retry

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Start; fires with a :class:`TunnelPort` once a connection is open.

        Errbacks with what makes that impossible; cancelling stops.
        """
        port = self._port(protocolFactory)

        def stop(_: object) -> None:
            port.stopListening()

        port.ready = Deferred(stop)
        ready = port.ready
        port.startListening()
        return ready

    def start(self, factory: IProtocolFactory) -> TunnelPort:
        """Start, for a caller that wants to stop or watch it before it is connected."""
        port = self._port(factory)
        port.startListening()
        return port

    def _port(self, factory: IProtocolFactory) -> TunnelPort:
        return TunnelPort(
            self._clock, self._source, self._dial, self._random, self._events, self._retry, factory
        )


@implementer(IListeningPort)
class TunnelPort:
    """A listening tunnel.

    :ivar ready: what ``listen`` waits for, until it fires.
    :ivar ended: fires once, when all connections are closed: with None after
        ``stopListening``, or with the failure that made it impossible to go on.
    """

    ready: Deferred[IListeningPort] | None = None

    def __init__(
        self,
        clock: IReactorTime,
        source: Source,
        dial: Dial,
        random: Random,
        events: Events,
        retry: bool,
        factory: IProtocolFactory,
    ) -> None:
        self._clock = clock
        self._source = source
        self._dial = dial
        self._random = random
        self._events = events
        self._retry = retry
        self._gate = Gate(factory)
        self.ended: Deferred[None] = Deferred()
        self._tunnel = Tunnel({})
        self._total = 0
        self._prepared = False
        self._asked = False
        self._stopping = False
        self._one_at_a_time = DeferredLock()
        self._carriers: set[Carrier] = set()
        self._waits: set[Deferred[Any]] = set()
        self._refused_since: float | None = None

    def __repr__(self) -> str:
        state = "stopping" if self._stopping else f"{len(self._carriers)}/{self._total}"
        return f"<TunnelPort {self._tunnel.tunnel_id} {state}>"

    # IListeningPort

    def startListening(self) -> None:
        self._gate.doStart()
        Deferred.fromCoroutine(self._run()).addBoth(self._finish)

    def getHost(self) -> TunnelAddress:
        urls = tuple(url for _kind, url in self._tunnel.ingress_urls())
        return TunnelAddress(self._tunnel.tunnel_id, urls)

    def stopListening(self) -> Deferred[None]:
        """Close streams and connections; fires when they are closed."""
        done: Deferred[None] = Deferred()

        def ended(result: Any) -> Any:
            done.callback(None)
            return result

        self.ended.addBoth(ended)
        self._asked = True
        self._stop()
        return done

    @property
    def streams(self) -> int:
        """Streams that are open."""
        return sum(carrier.streams for carrier in self._carriers)

    def drain(self, grace: float = GRACE) -> Deferred[None]:
        """Stop listening in order; fires when everything is closed.

        The server is asked to open no more streams. Those that run have ``grace`` seconds to
        end; then the connections are closed.
        """
        self._gate.closed = True
        for carrier in list(self._carriers):
            carrier.leave()
        return Deferred.fromCoroutine(self._drain(grace))

    async def _drain(self, grace: float) -> None:
        try:
            await self._gate.emptied(self._clock, self._running, grace)
        finally:
            await self.stopListening()

    def _running(self) -> int:
        return 0 if self._stopping else self.streams

    # The whole

    async def _run(self) -> None:
        backoff = Backoff(self._random)
        while not self._prepared:
            try:
                self._tunnel = await self._wait(Deferred.fromCoroutine(self._source.prepare()))
                self._prepared = True
            except Exception as error:
                await self._retry_after(error, backoff)
        self._refused_since = None
        self._total = min(self._tunnel.max_connections, MOST_CONNECTIONS)
        slots = [Deferred.fromCoroutine(self._slot(at + 1)) for at in range(self._total)]
        try:
            await DeferredList(slots, fireOnOneErrback=True, consumeErrors=True)
        except FirstError as first:
            self._stop()
            await DeferredList(slots, consumeErrors=True)
            first.subFailure.raiseException()

    def _finish(self, result: object) -> None:
        self._gate.doStop()
        failure = result if isinstance(result, Failure) and not self._asked else None
        ready, self.ready = self.ready, None
        if ready is not None:
            ready.errback(failure or Failure(CancelledError()))
            failure = None
        if failure is None:
            self.ended.callback(None)
        else:
            self.ended.errback(failure)

    def _stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        for carrier in list(self._carriers):
            carrier.close()
        for wait in list(self._waits):
            wait.cancel()

    # One connection

    async def _slot(self, number: int) -> None:
        backoff = Backoff(self._random)
        left: list[Deferred[None]] = []  # connections that are being drained
        while not (self._stopping or self._gate.closed):
            try:
                carrier = await self._connect(number)
            except _Surplus:
                await self._sleep(SURPLUS_WAIT)
                continue
            except Exception as error:
                await self._retry_after(error, backoff)
                continue
            since = self._clock.seconds()
            over, gone = self._over(carrier)
            lost = await over
            left = [waiting for waiting in (*left, gone) if not waiting.called]
            if self._stopping or self._gate.closed:
                break
            if lost.code == CloseCode.POLICY_VIOLATION and lost.reason in FINAL_REASONS:
                raise TunnelEnded(f"the server has ended the tunnel: {lost.reason}")
            self._events.lost(self._tunnel, number, lost)
            if not self._retry:
                raise ConnectionEnded(f"lost the connection to the server ({lost.reason})")
            lasted = self._clock.seconds() - since
            backoff.lasted(lasted)
            if carrier in self._carriers and lasted > LEAST_SPELL:
                continue  # it is leaving: its streams go on while there is another
            crowded = lost.code == CloseCode.POLICY_VIOLATION
            await self._sleep(CROWDED_WAIT if crowded else backoff.next())
        if left:
            await DeferredList(left)

    def _over(self, carrier: Carrier) -> tuple[Deferred[Lost], Deferred[None]]:
        """The first fires when the connection is lost, or the server says that it will be; the
        second when it is lost."""
        over: Deferred[Lost] = Deferred()
        gone: Deferred[None] = Deferred()

        def ended(lost: Lost) -> Lost:
            self._carriers.discard(carrier)
            gone.callback(None)
            if not over.called:
                over.callback(lost)
            return lost

        def leaving(_: None) -> None:
            if self._retry and not over.called:
                over.callback(Lost(CloseCode.GOING_AWAY, "the server is going away", True))

        carrier.lost.addCallback(ended)
        carrier.leaving.addCallback(leaving)
        return over, gone

    async def _connect(self, number: int) -> Carrier:
        """Token, tunnel and websocket, one slot at a time (protocol page B.2, step 5)."""
        await self._wait(self._one_at_a_time.acquire())
        try:
            self._tunnel = await self._wait(Deferred.fromCoroutine(self._source.read()))
            total = min(self._tunnel.max_connections, self._total)
            if number > total:
                raise _Surplus
            url = self._tunnel.websocket_url
            if not url:
                raise ServerUnreachable("the server offers no websocket transport for the tunnel")
            native = self._tunnel.speaks_native
            carrier = await self._wait(Deferred.fromCoroutine(self._dialled(url, native)))
            self._refused_since = None
            self._carriers.add(carrier)
            self._events.connected(self._tunnel, number, total)
        finally:
            self._one_at_a_time.release()
        if self.ready is not None:
            ready, self.ready = self.ready, None
            ready.callback(self)
        return carrier

    async def _dialled(self, url: str, native: bool) -> Carrier:
        carrier = await self._dial(url, self._gate, native)
        if self._stopping:
            carrier.close()
        elif self._gate.closed:
            carrier.leave()
        return carrier

    # Waiting

    async def _wait(self, deferred: Deferred[T]) -> T:
        """Await something that stopping cancels."""
        if self._stopping:
            deferred.cancel()
        self._waits.add(deferred)
        try:
            result = await deferred
        finally:
            self._waits.discard(deferred)
        if self._stopping:
            raise CancelledError
        return result

    async def _sleep(self, seconds: float) -> None:
        await self._wait(deferLater(self._clock, seconds, lambda: None))

    async def _retry_after(self, error: Exception, backoff: Backoff) -> None:
        """Wait before the next attempt; raises the error where there is none."""
        if self._stopping or not self._retry or not self._may_pass(error):
            raise error
        wait = backoff.next()
        self._events.waiting(error, wait)
        await self._sleep(wait)

    def _may_pass(self, error: Exception) -> bool:
        """Whether an attempt may succeed later."""
        if isinstance(error, AccountRefused):
            now = self._clock.seconds()
            if self._refused_since is None:
                self._refused_since = now
            return now - self._refused_since < REFUSAL_PATIENCE
        if not self._prepared:
            return isinstance(error, ServerUnreachable) and not isinstance(error, NotTrusted)
        if isinstance(error, ServerRefusal):
            return error.error_code != TunnelNotFound.code
        return isinstance(error, ServerUnreachable)
