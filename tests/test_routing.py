"""Hosts to tunnels, tunnels to clients."""

from __future__ import annotations

import gc
import time
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from exposr_tx.errors import TooManyConnections, TunnelNotConnected, TunnelNotFound
from exposr_tx.interfaces import IUpstream, Origin, VirtualHost
from exposr_tx.routing import Routes, Switchboard, VirtualHosts
from exposr_tx.storage.memory import MemoryStorage
from exposr_tx.tunnels import Change, Tunnels


async def active(account: str) -> bool:
    return True


@implementer(IUpstream)
class Client:
    """A connected client."""

    def __init__(self, tunnel_id: str = "demo", alive: bool = True, alive_at: int = 1) -> None:
        self.tunnel_id = tunnel_id
        self.alive_at = alive_at
        self.accepting = True
        self.closed: list[tuple[int, str]] = []
        self.answer: Deferred[bool] = succeed(alive)

    def connect(self, factory: IProtocolFactory, origin: Origin) -> Deferred[IProtocol]:
        return Deferred()

    def probe(self) -> Deferred[bool]:
        return self.answer

    def close(self, code: int, reason: str) -> None:
        self.closed.append((code, reason))


class VirtualHostsTests(SynchronousTestCase):
    """Which tunnel a host names."""

    def setUp(self) -> None:
        self.tunnels = Tunnels(MemoryStorage(), lambda: 1000.0, active)
        self.hosts = VirtualHosts(self.tunnels, "https://Tun.Example:8443")
        self.switchboard = Switchboard(Clock(), time.time, 2, "refuse")

    def made(self, **change: Any) -> None:
        making = self.tunnels.put("demo", "ACCOUNT", Change(**change))
        self.successResultOf(Deferred.fromCoroutine(making))

    def find(self, host: str) -> Any:
        found = self.hosts.find(host)
        return self.successResultOf(found) if isinstance(found, Deferred) else found

    def test_hosts(self) -> None:
        """One label before the ingress host is a tunnel's; everything else is not."""
        self.made(http_enabled=True, target_url="http://LocalHost:3000/x")
        vhost = self.find("demo.tun.example")
        self.assertEqual(vhost.tunnel_id, "demo")
        self.assertTrue(vhost.enabled)
        self.assertEqual(vhost.target, (b"http", b"localhost:3000"))
        self.assertEqual(vhost.host_header, b"localhost:3000")
        self.assertEqual(vhost.public, (b"https", b"demo.tun.example:8443"))
        for host in (
            "tun.example",
            "a.demo.tun.example",
            "demo.tun.example.x",
            "demo",
            "",
            "[::1]",
        ):
            self.assertIsNone(self.hosts.find(host))
        missing = self.hosts.find("none.tun.example")
        assert isinstance(missing, Deferred)
        self.failureResultOf(missing, TunnelNotFound)

    def test_changes_count_at_once(self) -> None:
        """A change of the tunnel is seen by the next request."""
        self.made(http_enabled=True, target_url="https://a.test:443/")
        self.assertEqual(self.find("demo.tun.example").target, (b"https", b"a.test"))
        self.made(host_header="preserve")
        self.assertIsNone(self.find("demo.tun.example").host_header)
        self.made(host_header="other.test", target_url="tcp://a.test:1")
        vhost = self.find("demo.tun.example")
        self.assertEqual((vhost.host_header, vhost.target), (b"other.test", None))

    def test_removed(self) -> None:
        """Nothing is kept of a tunnel that is gone, however many come and go."""
        making = self.tunnels.put("fleeting", "ACCOUNT", Change(http_enabled=True))
        self.successResultOf(Deferred.fromCoroutine(making))

        def kept() -> int:
            found = (o for o in gc.get_objects() if isinstance(o, VirtualHost))
            return sum(vhost.tunnel_id == "fleeting" for vhost in found)

        self.assertTrue(self.find("fleeting.tun.example").enabled)
        self.assertEqual(kept(), 1)
        self.successResultOf(Deferred.fromCoroutine(self.tunnels.delete("fleeting", "ACCOUNT")))
        self.assertEqual(kept(), 0)

    def test_api_host(self) -> None:
        """The API's own host goes to the API; with it, unknown hosts are nobody's."""
        self.made(http_enabled=True)
        open_routes = Routes(self.hosts, self.switchboard)
        self.assertIsNone(open_routes.virtual_host("anything"))
        routes = Routes(self.hosts, self.switchboard, "demo.tun.example")
        self.assertIsNone(routes.virtual_host("demo.tun.example"))
        with self.assertRaises(TunnelNotFound):
            routes.virtual_host("anything")


class SwitchboardTests(SynchronousTestCase):
    """The connected clients of a tunnel."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.now = 5.0
        self.board = Switchboard(self.clock, self.wall_clock, 2, "refuse")

    def wall_clock(self) -> float:
        return self.now

    def plug(self, client: Client) -> Deferred[None]:
        return Deferred.fromCoroutine(self.board.plug(client))

    def test_in_turn(self) -> None:
        """Streams go to a tunnel's clients in turn, passing over those that take none."""
        clients = [Client(), Client()]
        for client in clients:
            self.successResultOf(self.plug(client))
        chosen = [self.board.choose("demo") for _ in range(4)]
        self.assertEqual(chosen[:2], chosen[2:])
        self.assertEqual(set(map(id, chosen)), set(map(id, clients)))
        clients[0].accepting = False
        self.assertEqual({self.board.choose("demo") for _ in range(3)}, {clients[1]})
        clients[1].accepting = False
        with self.assertRaises(TunnelNotConnected):
            self.board.choose("demo")
        with self.assertRaises(TunnelNotConnected):
            self.board.choose("other")

    def test_state(self) -> None:
        """Since when a tunnel is connected, or was last, is known."""
        client = Client(alive_at=7000)
        self.assertFalse(self.board.state("demo").connected)
        self.successResultOf(self.plug(client))
        state = self.board.state("demo")
        self.assertEqual((state.connections, state.connected_at, state.alive_at), (1, 5000, 7000))
        self.now += 5
        self.board.unplug(client, clean=True)
        self.board.unplug(client, clean=True)
        state = self.board.state("demo")
        self.assertEqual((state.connections, state.disconnected_at), (0, 10000))

    def test_ghosts_make_room(self) -> None:
        """A new connection takes the place of old ones that do not answer, and serves at once."""
        ghosts = [Client(), Client()]
        for ghost in ghosts:
            ghost.answer = Deferred()
            self.successResultOf(self.plug(ghost))
        newest = Client()
        plugging = self.plug(newest)
        self.assertEqual({self.board.choose("demo") for _ in range(5)}, {newest})
        ghosts[0].answer.callback(False)
        ghosts[1].answer.callback(True)
        self.successResultOf(plugging)
        self.assertEqual(len(ghosts[0].closed), 1)
        self.assertEqual(ghosts[1].closed, [])
        self.assertEqual({self.board.choose("demo") for _ in range(5)}, {newest, ghosts[1]})

    def test_too_many(self) -> None:
        """When all are alive the newcomer is refused, or shares, or replaces, as configured."""
        for conflict, count in (("refuse", 2), ("share", 3), ("replace", 3)):
            self.board = Switchboard(self.clock, self.wall_clock, 2, conflict)  # type: ignore[arg-type]
            old = [Client(), Client()]
            for client in old:
                self.successResultOf(self.plug(client))
            plugging = self.plug(Client())
            if conflict == "refuse":
                self.failureResultOf(plugging, TooManyConnections)
            else:
                self.successResultOf(plugging)
            self.assertEqual(len(old[0].closed), 1 if conflict == "replace" else 0)
            self.assertEqual(self.board.state("demo").connections, count)

    def test_disconnect(self) -> None:
        """Clients are told not to come back; the answer says whether they are gone."""
        client = Client()
        self.assertTrue(self.successResultOf(self.board.disconnect("demo", "disconnected")))
        self.successResultOf(self.plug(client))
        going = self.board.disconnect("demo", "disconnected")
        self.assertEqual(client.closed, [(1008, "disconnected")])
        self.board.unplug(client, clean=True)
        self.assertTrue(self.successResultOf(going))
        self.successResultOf(self.plug(client))
        staying = self.board.disconnect("demo", "deleted")
        self.clock.advance(1)
        self.assertFalse(self.successResultOf(staying))
        self.assertEqual(self.clock.getDelayedCalls(), [])
