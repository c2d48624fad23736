"""A visitor and a target around HTTP ingress, in memory: the bytes each of them sees."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from exposr_tx.deadlines import TICK, Deadlines
from exposr_tx.errors import ExposrError, TunnelNotConnected, TunnelNotFound
from exposr_tx.ingress.http import HTTPIngressFactory, Timeouts
from exposr_tx.ingress.trust import Trust
from exposr_tx.interfaces import IAccessLog, IRoutes, IUpstream, Origin, VirtualHost
from exposr_tx.wire.http1 import Limits

PEER = IPv4Address("TCP", "203.0.113.9", 51234)


class Wire(StringTransport):
    """A transport that tells its protocol when it is closed, and how it was."""

    protocol: Any = None
    half_closed = False
    reset = False

    def __init__(self) -> None:
        super().__init__(peerAddress=PEER)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """As a TCP transport has it."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """As a TCP transport has it."""

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def loseConnection(self) -> None:
        if not self.disconnected:
            self.end(ConnectionDone())

    def abortConnection(self) -> None:
        if not self.disconnected:
            self.reset = True
            self.end(ConnectionLost())

    def end(self, why: Exception) -> None:
        """The connection is lost."""
        self.disconnecting = self.disconnected = True
        self.protocol.connectionLost(Failure(why))

    def pauseProducing(self) -> None:
        self.producerState = "paused"

    def resumeProducing(self) -> None:
        self.producerState = "producing"

    def taken(self) -> bytes:
        """What was written since the last call."""
        data: bytes = self.value()
        self.clear()
        return data


@implementer(IUpstream)
class Targets:
    """An upstream whose streams end here.

    :ivar wires: one for each stream that was opened.
    """

    tunnel_id = "demo"
    alive_at = 0
    accepting = True

    def __init__(self) -> None:
        self.wires: list[Wire] = []
        self.origins: list[Origin] = []
        self.fault: ExposrError | None = None
        self.waiting: list[tuple[Deferred[IProtocol], IProtocolFactory]] | None = None

    def connect(self, factory: IProtocolFactory, origin: Origin) -> Deferred[IProtocol]:
        self.origins.append(origin)
        if self.fault is not None:
            failed: Deferred[IProtocol] = Deferred()
            failed.errback(self.fault)
            return failed
        if self.waiting is not None:
            opening: Deferred[IProtocol] = Deferred()
            self.waiting.append((opening, factory))
            return opening
        return succeed(self.open(factory))

    def open(self, factory: IProtocolFactory) -> Any:
        protocol: Any = factory.buildProtocol(PEER)
        wire = Wire()
        wire.protocol = protocol
        self.wires.append(wire)
        protocol.makeConnection(wire)
        return protocol

    def probe(self) -> Deferred[bool]:
        return succeed(True)

    def close(self, code: int, reason: str) -> None:
        """Nothing to close."""


@implementer(IRoutes)
class OneTunnel:
    """Routes to one tunnel, ``demo.test``; ``api.test`` is the API."""

    def __init__(self, upstream: Targets) -> None:
        self.upstream: Targets | None = upstream
        self.vhost = VirtualHost(
            "demo", True, b"target:3000", (b"http", b"target:3000"), (b"https", b"demo.test")
        )

    def virtual_host(self, host: str) -> VirtualHost | Deferred[VirtualHost] | None:
        if host == "api.test":
            return None
        if host == "late.test":
            return succeed(self.vhost)
        if host != "demo.test":
            raise TunnelNotFound(host)
        return self.vhost

    def choose(self, tunnel_id: str) -> IUpstream:
        if self.upstream is None:
            raise TunnelNotConnected(tunnel_id)
        return self.upstream


@implementer(IAccessLog)
class Lines:
    """An access log to read."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.ids: list[bytes] = []

    def write(
        self,
        method: bytes,
        host: bytes,
        path: bytes,
        status: int,
        bytes_in: int,
        bytes_out: int,
        first_byte_ms: float,
        last_byte_ms: float,
        tunnel: bytes,
        request_id: bytes,
    ) -> None:
        self.ids.append(request_id)
        self.lines.append(
            {
                "method": method,
                "path": path,
                "status": status,
                "in": bytes_in,
                "out": bytes_out,
                "tunnel": tunnel,
            }
        )


class Visit:
    """HTTP ingress with one tunnel; visitors come by :meth:`visitor`."""

    def __init__(
        self,
        *,
        trusted: tuple[str, ...] = (),
        limits: Limits | None = None,
        timeouts: Timeouts | None = None,
        api: Targets | None = None,
        takeover: Any = None,
        guard: Any = None,
    ) -> None:
        self.clock = Clock()
        self.targets = Targets()
        self.routes = OneTunnel(self.targets)
        self.log = Lines()
        self.factory = HTTPIngressFactory(
            self.clock,
            Deadlines(self.clock),
            routes=self.routes,
            api=api,
            takeover=takeover,
            access_log=self.log,
            trust=Trust(trusted),
            node_id="node-1",
            limits=limits,
            timeouts=timeouts,
            guard=guard,
        )

    def visitor(self) -> Wire:
        """Connect; what the visitor sends goes to ``wire.protocol.dataReceived``."""
        wire = Wire()
        wire.protocol = self.factory.buildProtocol(PEER)
        wire.protocol.makeConnection(wire)
        return wire

    def pass_time(self, seconds: float) -> None:
        """Let time pass, tick by tick."""
        self.clock.pump([TICK] * int(seconds / TICK))

    @property
    def target(self) -> Wire:
        """The stream opened last."""
        return self.targets.wires[-1]
