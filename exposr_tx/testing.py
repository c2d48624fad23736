"""A whole tunnel in memory, for tests of what runs behind it.

Server, client and everything between are the real classes; only the network is
not: connections are joined in memory, and time is a Clock's. So a test needs no
sockets, no ports and no waiting::

    class PageTests(SynchronousTestCase):
        def test_page(self) -> None:
            reactor = MemoryReactorClock()
            tunnel = Tunnel(Site(Page(), reactor=reactor), reactor=reactor)
            self.addCleanup(tunnel.close)
            answer = self.successResultOf(tunnel.get("/"))
            self.assertEqual(answer.code, 200)
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any, Final

from treq.client import HTTPClient
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from zope.interface import implementer

from exposr_tx.accounts import Accounts
from exposr_tx.bodies import Body
from exposr_tx.client.access import Access
from exposr_tx.client.accounts_file import AccountsFile
from exposr_tx.client.events import Events
from exposr_tx.client.gate import GRACE
from exposr_tx.client.http import agent_for
from exposr_tx.client.listening import PublicEndpoint, PublicPort
from exposr_tx.client.trust import Trust
from exposr_tx.inmemory import MemoryTransport, joined
from exposr_tx.policy.inline import Inline
from exposr_tx.policy.policies import Policies
from exposr_tx.server_options import Options
from exposr_tx.service import Door
from exposr_tx.storage import MemoryStorage
from exposr_tx.tap import Rooms

__all__ = ["MemoryEndpoint", "Tunnel", "Visitor"]

#: The server's host; a tunnel's is one label longer. Nobody can have it (RFC 6761).
DOMAIN: Final = "tunnels.test"
TCP_PORT: Final = 20000
ROLES: Final = ("api", "ingress")
VISITOR: Final = IPv4Address("TCP", "203.0.113.9", 40000)
CLIENT: Final = IPv4Address("TCP", "198.51.100.7", 40001)
SERVER: Final = IPv4Address("TCP", "192.0.2.1", 80)
#: Seconds in which a connection in memory is closed, and in how many steps they pass.
CLOSING, STEPS = 2.0, 40


def visiting(reactor: Any, connector: Callable[[str, int], IStreamClientEndpoint]) -> HTTPClient:
    """A treq client for visitors.

    :param connector: makes the endpoint for a host and a port.
    """
    agent: Any = agent_for(reactor, Trust(), connector)
    # Twisted's own producers of bodies take turns of the installed reactor.
    return HTTPClient(
        agent,
        data_to_body_producer=lambda data: Body(data) if isinstance(data, bytes) else data,
    )


class Tunnel:
    """A server, a tunnel on it, and a factory that listens at its public end.

    All is connected when the constructor returns.

    :param factory: builds the protocol for each visitor's stream. A Site takes
        the same reactor, as ``Site(root, reactor=reactor)``.
    :param kind: ``"http"`` or ``"tcp"``.
    :param name: the tunnel's.
    :param events: told what happens.
    :param reactor: what everything runs on; one of its own unless given.
    :param options: of the server, as on its command line.
    :ivar port: the :class:`~exposr_tx.client.PublicPort`.
    """

    def __init__(
        self,
        factory: IProtocolFactory,
        kind: str = "http",
        name: str = "testing",
        *,
        events: Events | None = None,
        reactor: MemoryReactorClock | None = None,
        options: Iterable[str] = (),
        grace: float = GRACE,
    ) -> None:
        self.reactor: Any = reactor or MemoryReactorClock()
        self.reactor.running = True
        self._kind = kind
        self._ends: set[MemoryTransport] = set()
        self._pumping = False
        self._rooms, account = self._serve(options)
        access = Access(f"http://{DOMAIN}/", AccountsFile(Path(os.devnull)), number=account)
        endpoint = PublicEndpoint(
            self.reactor,
            access,
            name,
            kind,
            events=events,
            grace=grace,
            random=Random(0),  # noqa: S311
            connector=lambda host, port: self._endpoint(CLIENT),
        )
        self._treq = visiting(self.reactor, lambda host, port: self._endpoint(VISITOR))
        self.port: PublicPort = self._now(endpoint.publish(factory))

    def __repr__(self) -> str:
        return f"<Tunnel {self.port!r} in memory>"

    @property
    def url(self) -> str:
        """The public URL."""
        return self.port.url

    # Visitors

    def visitor(self, address: IAddress = VISITOR) -> Visitor:
        """A visitor's connection to the server, for bytes of one's own."""
        connecting = self._endpoint(address, self._public()).connect(Factory.forProtocol(_Keep))
        return Visitor(self, self._now(connecting))

    def request(self, method: str, path: str = "/", **more: Any) -> Deferred[Any]:
        """An HTTP request to the tunnel's host, made by treq.

        :param more: what ``treq.request`` takes: ``headers``, ``params``, ``data``,
            ``json``, ``cookies`` …
        :return: fires with treq's response when its body is complete, so that
            its ``content()``, ``text()`` and ``json()`` have fired as well. Where the
            program answers later, :meth:`flush` carries on what it then writes.
        """
        answer = Deferred.fromCoroutine(self._request(method, path, more))
        self.flush()
        return answer

    async def _request(self, method: str, path: str, more: dict[str, Any]) -> Any:
        response = await self._treq.request(
            method, self.url.rstrip("/") + path, reactor=self.reactor, **more
        )
        await response.content()
        return response

    def get(self, path: str = "/", **more: Any) -> Deferred[Any]:
        """``request("GET", …)``"""
        return self.request("GET", path, **more)

    def post(self, path: str = "/", **more: Any) -> Deferred[Any]:
        """``request("POST", …)``"""
        return self.request("POST", path, **more)

    # Time

    def flush(self) -> None:
        """Carry everything that is on its way; no time passes."""
        if not self._pumping:
            self._pumping = True
            try:
                self.reactor.advance(0)
            finally:
                self._pumping = False

    def advance(self, seconds: float) -> None:
        """Let time pass, in steps small enough for everything to happen in its order."""
        step = CLOSING / STEPS
        for _ in range(int(seconds / step)):
            self.reactor.advance(step)
        self.reactor.advance(seconds % step)

    # The network's faults, and the end

    def lose_connections(self) -> None:
        """Cut the client's connections to the server, as a network does. It comes back."""
        for end in list(self._ends):
            if end.getPeer() == CLIENT:
                end.abortConnection()
        self.flush()

    def close(self) -> None:
        """Stop listening, and the server; nothing stays on the reactor."""
        done = self.port.stopListening()
        self.advance(CLOSING)
        if not done.called:
            self.advance(GRACE)
        self._rooms.draining.cut()
        for end in list(self._ends):
            end.abortConnection()
        closing = Deferred.fromCoroutine(self._rooms.close())
        self.advance(CLOSING)
        self._now(closing)

    # Inside

    def _serve(self, options: Iterable[str]) -> tuple[Rooms, str]:
        parsed = Options({})
        parsed.parseOptions(
            ["--ingress=http,tcp", f"--ingress-tcp-ports={TCP_PORT}-{TCP_PORT}", *options]
        )
        storage = MemoryStorage()
        url = f"http://{DOMAIN}"
        rooms = Rooms(
            parsed,
            self.reactor,
            storage,
            None,
            [Door(ROLES, ())],
            url,
            "::",
            self._policies(parsed),
        )
        self._now(Deferred.fromCoroutine(rooms.open()))
        accounts = Accounts(storage, time.time)
        return rooms, self._now(Deferred.fromCoroutine(accounts.create())).id

    def _policies(self, parsed: Options) -> Policies | None:
        paths = parsed["policy"]
        if not paths:
            return None
        return Policies(paths, lambda paths: maybeDeferred(Inline, paths), self.reactor, time.time)

    def _endpoint(
        self, address: IAddress, public: IProtocolFactory | None = None
    ) -> IStreamClientEndpoint:
        return MemoryEndpoint(
            self.reactor, public or self._rooms.room(ROLES), address, SERVER, self._ends
        )

    def _public(self) -> IProtocolFactory:
        """What answers to visitors."""
        if self._kind == "http":
            return self._rooms.room(ROLES)
        factory: IProtocolFactory = self.reactor.tcpServers[-1][1]
        return factory

    def _now(self, deferred: Deferred[Any]) -> Any:
        """What a Deferred gives; all is in memory, so that it does so at once."""
        results: list[Any] = []
        deferred.addBoth(results.append)
        self.flush()
        if not results:
            raise AssertionError(f"{deferred!r} has not fired")
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]


class Visitor:
    """One visitor's connection: bytes out, bytes in.

    :ivar closed: whether the server has closed it, or we.
    """

    def __init__(self, tunnel: Tunnel, kept: _Keep) -> None:
        self._tunnel = tunnel
        self._kept = kept

    def __repr__(self) -> str:
        return f"<Visitor {'closed' if self.closed else 'open'} {len(self.received)} bytes>"

    @property
    def received(self) -> bytes:
        """All that has come so far."""
        return b"".join(self._kept.pieces)

    @property
    def closed(self) -> bool:
        return self._kept.lost

    def send(self, data: bytes) -> None:
        """Send bytes, and carry everything that follows from them."""
        assert self._kept.transport is not None
        self._kept.transport.write(data)
        self._tunnel.flush()

    def take(self) -> bytes:
        """What has come since the last call."""
        taken = self.received
        self._kept.pieces.clear()
        return taken

    def pause(self) -> None:
        """Read no more."""
        self._end.pauseProducing()

    def resume(self) -> None:
        """Read on."""
        self._end.resumeProducing()
        self._tunnel.flush()

    def close(self) -> None:
        """Hang up."""
        self._end.loseConnection()
        self._tunnel.flush()

    @property
    def _end(self) -> MemoryTransport:
        end = self._kept.transport
        assert isinstance(end, MemoryTransport)
        return end


class _Keep(Protocol):
    """Keeps what comes."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.pieces.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True


@implementer(IStreamClientEndpoint)
class MemoryEndpoint:
    """Connects to a factory in this process.

    :param clock: bytes arrive in its next turn, never inside a ``write``.
    :param server: what listens.
    :param ends: keeps the transports that are open.
    """

    def __init__(
        self,
        clock: Any,
        server: IProtocolFactory,
        client_address: IAddress,
        server_address: IAddress,
        ends: set[Any] | None = None,
    ) -> None:
        self._clock = clock
        self._server = server
        self._addresses = client_address, server_address
        self._ends = set() if ends is None else ends

    def __repr__(self) -> str:
        return f"<MemoryEndpoint to {self._server!r}>"

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Errbacks with ConnectionLost where either factory has no protocol to give."""
        mine, yours = self._addresses
        here: Any = protocolFactory.buildProtocol(yours)
        there: Any = self._server.buildProtocol(mine)
        if here is None or there is None:
            return fail(ConnectionLost())
        near, far = joined(self._clock, here, mine, there, yours, self._ends.discard)
        self._ends |= {near, far}
        there.makeConnection(far)
        here.makeConnection(near)
        return succeed(here)
