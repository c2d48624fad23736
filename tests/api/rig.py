"""The whole API in memory: a visitor's bytes go through SiteUpstream to the real Site."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import h11
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.accounts import Account, Accounts, encode_token
from exposr_tx.api import Api, ApiSettings, FailedCredentials, SiteUpstream
from exposr_tx.interfaces import Connection, Origin
from exposr_tx.storage import MemoryStorage
from exposr_tx.tunnels import Tunnels

VISITOR = IPv4Address("TCP", "203.0.113.9", 40000)


@dataclass
class Response:
    """An answer, read by h11."""

    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class LiveConnections:
    """Stands for the Switchboard: which tunnels are connected, and what was asked of it."""

    states: dict[str, Connection] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    waiting: Deferred[bool] | None = None

    def state(self, tunnel_id: str) -> Connection:
        return self.states.get(tunnel_id, Connection())

    def disconnect(self, tunnel_id: str, reason: str) -> Deferred[bool]:
        self.asked.append((tunnel_id, reason))
        return succeed(True) if self.waiting is None else self.waiting


class Visitor(Protocol):
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = Failure(ConnectionError())) -> None:  # noqa: B008
        self.lost = reason


class ApiCase(SynchronousTestCase):
    """A server's API with one account."""

    settings = ApiSettings("http://tun.test:8080", allow_registration=True)
    loopback = False

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.storage = MemoryStorage()
        self.accounts = Accounts(self.storage, self.clock.seconds)
        self.tunnels = Tunnels(
            self.storage,
            self.clock.seconds,
            self.accounts.is_active,
            reserved=["reserved"],
            tcp_ports=(20000, 20002),
        )
        self.connections = LiveConnections()
        failures = FailedCredentials(self.clock.seconds, loopback=self.loopback)
        api = Api(self.accounts, self.tunnels, self.connections, self.settings, failures)
        self.upstream = SiteUpstream(api.site(self.clock), self.clock)
        self.alice = self.account()
        self.bob = self.account()

    def account(self) -> Account:
        return self.successResultOf(Deferred.fromCoroutine(self.accounts.create()))

    def connect(self, peer: IAddress = VISITOR, base_url: str = "http://tun.test:8080") -> Visitor:
        connecting = self.upstream.connect(
            Factory.forProtocol(Visitor), Origin("api", peer, base_url)
        )
        visitor = self.successResultOf(connecting)
        assert isinstance(visitor, Visitor)
        return visitor

    def send(self, visitor: Visitor, data: bytes) -> None:
        assert visitor.transport is not None
        visitor.transport.write(data)
        self.turn()

    def turn(self) -> None:
        for _ in range(10):
            self.clock.advance(0)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        account: Account | None = None,
        fields: dict[str, str] | None = None,
        **origin: Any,
    ) -> Response:
        """The answer to a request; ``body`` is JSON unless it is bytes."""
        lines = {"Host": "tun.test:8080"}
        data = b""
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            lines |= {"Content-Type": "application/json", "Content-Length": str(len(data))}
        if account is not None:
            lines["Authorization"] = f"Bearer {encode_token(account.id)}"
        lines |= fields or {}
        head = f"{method} {path} HTTP/1.1\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value != "-")
        visitor = self.connect(**origin)
        self.send(visitor, head.encode("utf-8", "surrogateescape") + b"\r\n" + data)
        return read(method, visitor.received)

    def mine(self, method: str, path: str, body: Any = None, **more: Any) -> Response:
        """The same, as Alice."""
        return self.request(method, path, body, self.alice, **more)


def read(method: str, data: bytes) -> Response:
    """One response, by another implementation than ours."""
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(data)
    head = reader.next_event()
    assert isinstance(head, h11.Response), (head, data)
    body = b""
    while isinstance(event := reader.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage), event
    names = [name.decode().lower() for name, _ in head.headers]
    assert len(set(names)) == len(names), names
    fields = {name.decode().lower(): value.decode() for name, value in head.headers}
    return Response(head.status_code, fields, body)
