"""Listening in public: any Factory behind a tunnel, with the account, the name and the end seen to.

:class:`PublicEndpoint` is what an endpoint string and the library's functions
make. It puts an account, a tunnel and
:class:`~exposr_tx.client.endpoint.TunnelEndpoint` together, tells the log, and
ends in order: no new streams, then those that run, then the connections, then
a tunnel that it has made itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorCore,
    IStreamServerEndpoint,
)
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from exposr_tx.client.access import Access
from exposr_tx.client.address import TunnelAddress
from exposr_tx.client.dialling import Dialler
from exposr_tx.client.endpoint import Dial, TunnelEndpoint, TunnelPort
from exposr_tx.client.events import Events
from exposr_tx.client.gate import GRACE
from exposr_tx.client.http import agent_for
from exposr_tx.client.report import Report
from exposr_tx.client.rest import RestClient
from exposr_tx.client.settings import Change
from exposr_tx.client.sharing import SharedConnections
from exposr_tx.client.target import Target
from exposr_tx.client.tunnel import OwnTunnel
from exposr_tx.errors import BadInput, ExposrError

if TYPE_CHECKING:
    from twisted.internet.interfaces import IStreamClientEndpoint

__all__ = ["KINDS", "PublicEndpoint", "PublicPort"]

#: What a tunnel's target is when it is this program itself. Servers want a URL with a host.
#: Not an ``http`` one: they would put its host into the requests, and the program is to see
#: the public one. The name is one that nobody can have (RFC 6761).
HERE = Target("tcp://listener.invalid:80", "listener", "listener.invalid")
#: The ingress that each kind of traffic needs.
KINDS = {"http": "ingress-http", "tcp": "ingress-tcp"}


@implementer(IListeningPort)
class PublicPort:
    """A tunnel that this program listens at.

    Made and started by :meth:`PublicEndpoint.listen`.

    :param own: the tunnel and its account.
    :param open_tunnel: makes the endpoint that connects it, with these events.
    :param keep: whether the tunnel stays though it was made here.
    :param grace: seconds for streams that run when listening stops.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        factory: IProtocolFactory,
        own: OwnTunnel,
        open_tunnel: Callable[[Events], TunnelEndpoint],
        events: Events,
        keep: bool,
        grace: float,
    ) -> None:
        self._reactor = reactor
        self._factory = factory
        self._own = own
        self._report = Report(self.connected, events)
        self._endpoint = open_tunnel(self._report)
        self._keep = keep
        self._grace = grace
        self._port: TunnelPort | None = None
        self._ready: Deferred[PublicPort] | None = None
        self._waiting: list[Deferred[None]] = []
        self._trigger: Any = None
        self._stopping = False
        self._over = False

    def __repr__(self) -> str:
        state = "closed" if self._over else "closing" if self._stopping else "open"
        return f"<PublicPort {self.tunnel_id} {state} {self.url}>".replace(" >", ">")

    @property
    def tunnel_id(self) -> str:
        """The tunnel's name; empty before one has been invented."""
        return self._own.tunnel_id

    @property
    def urls(self) -> tuple[str, ...]:
        """The public URLs; none before the first connection."""
        return self.getHost().urls

    @property
    def url(self) -> str:
        """The first of them, or an empty string."""
        return self.getHost().url

    # Starting

    def start(self) -> Deferred[PublicPort]:
        """Begin, once the reactor runs; fires when the first connection is open."""

        def stop(_: object) -> None:
            self.stopListening()

        ready: Deferred[PublicPort] = Deferred(stop)
        self._ready = ready
        self.startListening()
        return ready

    def startListening(self) -> None:
        """Begin; :meth:`PublicEndpoint.listen` has called it."""
        if IReactorCore.providedBy(self._reactor):
            # Not every program stops what it listens at: daphne leaves it to the reactor.
            self._trigger = self._reactor.addSystemEventTrigger(
                "before", "shutdown", self._shut_down
            )
            if not self._reactor.running:
                # twistd is still the user who started it, and may fork.
                self._reactor.callWhenRunning(self._begin)
                return
        self._begin()

    def connected(self) -> None:
        """A connection is open: the report's word."""
        ready, self._ready = self._ready, None
        if ready is not None:
            ready.callback(self)

    def _begin(self) -> None:
        if not self._stopping:
            Deferred.fromCoroutine(self._live()).addErrback(self._bug)

    async def _live(self) -> None:
        problem: Exception | None = None
        try:
            self._port = self._endpoint.start(self._factory)
            await self._port.ended
        except Exception as error:
            problem = error
        await self._release()
        self._end(problem)

    async def _release(self) -> None:
        if self._keep:
            return
        try:
            await self._own.release()
        except ExposrError as error:
            self.log.warn(
                "tunnel {tunnel} could not be deleted: {problem}",
                event="delete",
                tunnel=self.tunnel_id,
                problem=str(error),
            )

    def _end(self, problem: Exception | None) -> None:
        self._over = True
        trigger, self._trigger = self._trigger, None
        if trigger is not None:
            self._reactor.removeSystemEventTrigger(trigger)
        ready, self._ready = self._ready, None
        if ready is not None:
            ready.errback(problem or CancelledError())
        else:
            self._report.ended(problem)
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)

    def _bug(self, failure: Failure) -> None:
        self.log.failure("the end of tunnel {tunnel}", failure, tunnel=self.tunnel_id)

    # IListeningPort

    def getHost(self) -> TunnelAddress:
        """The public address."""
        if self._port is None:
            return TunnelAddress(self.tunnel_id, ())
        return self._port.getHost()

    def stopListening(self) -> Deferred[None]:
        """End in order; fires when everything is closed.

        The server is asked to send no new streams. Those that run have the grace period to end.
        Then the connections are closed, and the tunnel is deleted if it was
        made here and is not to be kept. May be called again.
        """
        done: Deferred[None] = Deferred()
        if self._over:
            done.callback(None)
            return done
        self._waiting.append(done)
        if not self._stopping:
            self._stopping = True
            if self._port is None:
                self._end(None)
            else:
                self._port.drain(self._grace).addErrback(self._bug)
        return done

    close = stopListening

    def _shut_down(self) -> Deferred[None]:
        self._trigger = None  # it has fired
        # In a turn of its own: the last answer may have come over TLS, and Twisted's cannot bear
        # that the reactor closes its connection while it is read.
        over = self.stopListening()
        return over.addCallback(lambda _: deferLater(self._reactor, 0, lambda: None))


@implementer(IStreamServerEndpoint)
class PublicEndpoint:
    """Listens at the public end of a tunnel, found or made by its name.

    :param reactor: times, connects, and tells when the program ends.
    :param access: the server and the account.
    :param tunnel_id: empty when a name is to be invented.
    :param kind: ``"http"``: visitors come by the tunnel's host; ``"tcp"``: by
        a port of the server's.
    :param target: what the server is told that streams go to.
    :param events: told what happens.
    :param grace: seconds for streams that run when listening stops.
    :param share: connections that other tunnels use too; else it has its own.
    :param connector: makes the endpoint for a host and a port; the reactor's
        own TCP connections unless given.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        access: Access,
        tunnel_id: str = "",
        kind: str = "http",
        *,
        target: Target = HERE,
        events: Events | None = None,
        grace: float = GRACE,
        share: SharedConnections | None = None,
        random: Random | None = None,
        connector: Callable[[str, int], IStreamClientEndpoint] | None = None,
    ) -> None:
        if kind not in KINDS:
            raise BadInput(f"kind {kind!r}: must be {' or '.join(KINDS)}")
        self._reactor = reactor
        self._access = access
        self._tunnel_id = tunnel_id
        self._kind = kind
        self._target = target
        self._events = events or Events()
        self._grace = grace
        self._share = share
        self._random = random or SystemRandom()
        self._connector = connector

    def __repr__(self) -> str:
        return f"<PublicEndpoint {self._tunnel_id} {self._kind} by {self._access.server}>"

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """See :meth:`publish`, whose PublicPort this fires with."""
        return cast("Deferred[IListeningPort]", self.publish(protocolFactory))

    def publish(self, factory: IProtocolFactory) -> Deferred[PublicPort]:
        """Listen; fires with a :class:`PublicPort` when the first connection is open.

        While the server cannot be reached it is tried again. Errbacks with what
        makes it impossible: at once for an unusable file, later for what the
        server refuses. Cancelling stops. Nothing is sent before the reactor runs.
        """
        try:
            port = self._port(factory)
        except ExposrError:
            return fail()
        return port.start()

    def _port(self, factory: IProtocolFactory) -> PublicPort:
        access = self._access
        http = agent_for(self._reactor, access.trust, self._connector)
        rest = RestClient(access.server, http, self._reactor)
        account = access.account()
        if account is not None:
            rest.use(account.account)
        own = OwnTunnel(
            rest,
            access.accounts,
            lambda line: None,  # some hold an account's number, which no log may
            self._random,
            self._tunnel_id,
            self._target,
            self._changes(),
            automatic=account is None or account.automatic,
        )
        dialler = Dialler(self._reactor, access.trust, rest.server, self._warn, self._connector)
        dial: Dial = dialler.dial
        if self._share is not None:
            dial = self._share.dial_for(rest.server, access.trust, self._reactor, dialler.dial).dial

        def open_tunnel(events: Events) -> TunnelEndpoint:
            return TunnelEndpoint(self._reactor, own, dial, self._random, events)

        return PublicPort(
            self._reactor,
            factory,
            own,
            open_tunnel,
            self._events,
            access.keep,
            self._grace,
        )

    def _changes(self) -> Sequence[Change]:
        return [Change(KINDS[self._kind], True, "on")]

    def _warn(self, line: str) -> None:
        self.log.warn("{line}", event="warning", line=line)
