"""Two sessions joined in memory: what the session and stream tests stand on."""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from exposr_tx.interfaces import IReusable, Origin
from exposr_tx.transport.session import Session
from exposr_tx.transport.websocket import WebsocketEndpoint
from exposr_tx.wire.mux import MuxV2

ORIGIN = Origin("tcp", IPv4Address("TCP", "192.0.2.7", 4711))


def drain(endpoint: WebsocketEndpoint) -> Deferred[Any]:
    """What ``draining`` does with clients' connections; fires when all have ended."""
    endpoint.draining = True
    endpoint.go_away()
    return gatherResults([upstream.drain() for upstream in list(endpoint.upstreams)])


class Recorder(Protocol):
    """A protocol that writes down what happens to it."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.reasons: list[type[BaseException] | None] = []
        self.on_data: Any = None

    @property
    def received(self) -> bytes:
        """All of it; put together when asked for, as there may be many megabytes."""
        return b"".join(self._pieces)

    def dataReceived(self, data: bytes) -> None:
        self._pieces.append(data)
        if self.on_data is not None:
            self.on_data(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reasons.append(reason.type)

    @property
    def stream(self) -> Any:
        return self.transport


@implementer(IReusable)
class Kept(Recorder):
    """A stream's protocol on which nothing runs."""

    def end_idle(self) -> None:
        self.stream.loseConnection()


class Recorders(Factory):
    """Builds recorders, and keeps them."""

    protocol: type[Recorder] = Recorder

    def __init__(self) -> None:
        self.built: list[Recorder] = []

    def buildProtocol(self, addr: IAddress | None) -> Recorder:
        self.built.append(self.protocol())
        return self.built[-1]


class Producer:
    """A push producer that knows whether it is paused."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.paused = False

    def pauseProducing(self) -> None:
        self.calls.append("pause")
        self.paused = True

    def resumeProducing(self) -> None:
        self.calls.append("resume")
        self.paused = False

    def stopProducing(self) -> None:
        self.calls.append("stop")


class Broken(Producer):
    """A producer that fails when it is called."""

    def __init__(self, call: str) -> None:
        super().__init__()
        setattr(self, call, self._fail)

    def _fail(self) -> None:
        raise ZeroDivisionError


class Link:
    """One side's message connection; :meth:`Pair.pump` carries what it holds."""

    def __init__(self) -> None:
        self.outbox: deque[tuple[str, bytes]] = deque()
        self.sent: list[bytes] = []
        self.peer: Link
        self.session: Session
        self.producer: IPushProducer | None = None
        self.closed: tuple[int, str] | None = None
        self.aborted: str | None = None
        self.answers_pings = True

    def send(self, head: bytes, payload: bytes = b"") -> None:
        message = head + payload
        self.sent.append(message)
        self.outbox.append(("message", message))

    def send_now(self, message: bytes) -> None:
        self.send(message)

    def send_same(self, message: bytes) -> None:
        self.send(message)

    def ping(self, payload: bytes) -> None:
        self.outbox.append(("ping", payload))

    def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)
        self.outbox.append(("close", reason.encode()))

    def abort(self, reason: str) -> None:
        self.aborted = reason

    def register(self, producer: IPushProducer) -> None:
        self.producer = producer

    def get_peer(self) -> IAddress:
        return IPv4Address("TCP", "198.51.100.1", 443)

    def get_host(self) -> IAddress:
        return IPv4Address("TCP", "198.51.100.2", 50000)

    def types(self) -> list[int]:
        """The types of the messages sent: 1 DATA, 2 OPEN, 3 ACK, 4 CLOSE, 5 PAUSE, 6 RESUME."""
        return [message[3] for message in self.sent]

    def take(self, kind: str, data: bytes) -> None:
        session = self.session
        session.heard()
        if kind == "message":
            session.message(data)
        elif kind == "ping":
            session.ping_received()
            if self.answers_pings:
                self.outbox.append(("pong", data))
        elif kind == "pong":
            session.pong_received(data)
        else:
            session.lost(data.decode())


class Pair:
    """A server's session and a client's, on one clock."""

    def __init__(self, max_streams: int = 100, **server: Any) -> None:
        self.clock = Clock()
        self.targets = Recorders()
        self.visitors = Recorders()
        self.here, self.there = Link(), Link()
        self.here.peer, self.there.peer = self.there, self.here
        self.server = Session(
            self.here, MuxV2(opener=True), self.clock, max_streams=max_streams, **server
        )
        self.client = Session(
            self.there, MuxV2(opener=False), self.clock, self.targets, watches_server=True
        )
        self.here.session, self.there.session = self.server, self.client
        self.server.start()
        self.client.start()
        self.pump()

    def pump(self) -> None:
        """Carry messages until both sides are silent."""
        while self.here.outbox or self.there.outbox:
            for link in (self.here, self.there):
                while link.outbox:
                    link.peer.take(*link.outbox.popleft())

    def advance(self, seconds: float) -> None:
        """Let time pass in small steps, with everything carried."""
        for _ in range(round(seconds * 20)):
            self.clock.advance(0.05)
            self.pump()

    def dial(self) -> Deferred[Any]:
        return self.server.open_stream(self.visitors, ORIGIN)

    def open(self) -> tuple[Recorder, Recorder]:
        """A new stream's visitor and target."""
        self.dial()
        self.pump()
        return self.visitors.built[-1], self.targets.built[-1]
