"""The server's options, and what they are made into."""

from __future__ import annotations

import os
import signal
import sys
from io import StringIO
from typing import Any

from twisted.application.service import Application
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.draining import Draining
from exposr_tx.logs import LogObserver, LogOutput
from exposr_tx.server_options import Options
from exposr_tx.service import Door, ServerService, tcp_door
from exposr_tx.tap import doors_of


def parsed(*words: str, **environ: str) -> Options:
    options = Options(environ)
    options.parseOptions(words)
    return options


class OptionsTests(SynchronousTestCase):
    """What ``twistd exposr`` may be told."""

    def refused(self, *words: str, **environ: str) -> str:
        return str(self.assertRaises(UsageError, parsed, *words, **environ))

    def test_defaults_are_accepted(self) -> None:
        """Every option accepts its own default, also those whose feature is not there."""
        defaults = Options({})
        lists = {name: ",".join(defaults[name]) for name in defaults.lists}
        for name, value in defaults.defaults.items():
            if value is None or isinstance(value, (tuple, bool)) or value == 0:
                continue
            parsed(f"--{name}={lists.get(name, value)}")
        self.assertEqual(parsed().warnings, [])

    def test_not_yet(self) -> None:
        """What this version lacks is refused by name, whatever it is set by."""
        for words, name in (
            (["--ingress=sni"], "--ingress 'sni': this version has no SNI ingress"),
            (["--transport=ws,ssh"], "--transport 'ws,ssh': this version has no SSH transport"),
            (["--ingress-sni-port=1"], "--ingress-sni-port '1': this version has no SNI"),
            (["--ingress-sni-cert=x"], "--ingress-sni-cert 'x': this version has no SNI"),
            (["--transport-ssh-allow-insecure-target"], "-target: this version has no SSH"),
            (["--admin-api-enable"], "--admin-api-enable: this version has no admin API"),
            (["--admin-api-key=x"], "--admin-api-key: this version has no admin API"),
            (["--cluster=udp"], "--cluster 'udp': there is no UDP clustering; use single-node"),
            (["--cluster=redis"], "--cluster 'redis': this version runs on one machine"),
            (["--cluster-udp-port=1"], "--cluster-udp-port '1': there is no UDP clustering"),
            (["--cluster-key=abc"], "--cluster-key: this version has no cluster"),
            (["--cluster-key=secret-signing-key"], "known to everybody; choose another"),
            (["--redis-url=redis://x"], "--redis-url: this version has no Redis"),
            (["--ingress-park-timeout=5"], "--ingress-park-timeout '5': this version does"),
        ):
            self.assertIn(name, self.refused(*words))
        self.assertIn("EXPOSR_CLUSTER 'udp': there", self.refused(EXPOSR_CLUSTER="udp"))

    def test_what_is_not_there_is_not_proposed(self) -> None:
        """The remedy for a word that means nothing names only words that this version takes."""
        for option, remedy in (
            ("cluster", "must be auto or single-node"),
            ("ingress", "must be http or tcp"),
            ("transport", "must be ws"),
        ):
            self.assertEqual(self.refused(f"--{option}=x"), f"--{option} 'x': {remedy}")

    def test_secrets_are_not_shown(self) -> None:
        """An error about a key does not repeat it."""
        self.assertNotIn("hush", self.refused("--admin-api-key=hush"))
        self.assertNotIn("hush", self.refused("--redis-url=redis://:hush@x"))

    def test_without_effect(self) -> None:
        """Hidden options that change nothing are accepted with a warning."""
        options = parsed("--storage-pgsql-connection-pool-size=5")
        self.assertEqual(
            options.warnings,
            ["--storage-pgsql-connection-pool-size has no effect in this server"],
        )

    def test_aliases(self) -> None:
        """Today's names of the ingress URL."""
        for option in (
            parsed("--http-ingress-domain", "http://x:1"),
            parsed("--ingress-http-domain=http://x:1"),
            parsed(EXPOSR_HTTP_INGRESS_DOMAIN="http://x:1"),
            parsed(EXPOSR_INGRESS_HTTP_DOMAIN="http://x:1"),
        ):
            self.assertEqual(option["ingress-http-url"], "http://x:1")

    def test_tcp(self) -> None:
        """TCP ingress needs ports, and ports need TCP ingress."""
        options = parsed("--ingress", "http,tcp", "--ingress-tcp-ports", "20000-20100")
        self.assertEqual(options["ingress-tcp-ports"], (20000, 20100))
        self.assertIn("--ingress-tcp-ports 20000-20100", self.refused("--ingress=tcp"))
        self.assertIn("--ingress http,tcp", self.refused("--ingress-tcp-ports=1-2"))

    def test_backstream(self) -> None:
        """backstream's host is a host, of HTTP ingress, and not the API's."""
        self.assertEqual(parsed("--backstream", "App.test.")["backstream"], "app.test")
        for value in ("http://app.test", "app.test:80", "a b", "é.test", ""):
            self.assertIn("--backstream", self.refused("--backstream", value))
        ports = ("--ingress", "tcp", "--ingress-tcp-ports", "1-2")
        self.assertIn("--ingress http", self.refused("--backstream", "app.test", *ports))
        api = ("--api-url", "http://app.test:8080")
        self.assertIn("--api-url", self.refused("--backstream", "app.test", *api))

    def test_urls(self) -> None:
        """Base URLs are bases: they have no path."""
        self.assertIn(
            "--api-url 'http://x/y': must have no path", self.refused("--api-url=http://x/y")
        )
        self.assertEqual(parsed("--api-url=http://x/")["api-url"], "http://x/")
        self.assertIn("--api-url 'x': must be a URL", self.refused("--api-url=x"))

    def test_numbers(self) -> None:
        """Zero where it makes no sense is refused."""
        for option, remedy in (
            ("transport-max-connections", "1 or more"),
            ("limit-streams", "1 or more"),
            ("limit-request-line", "1 or more"),
            ("limit-request-head", "1 or more"),
            ("limit-request-fields", "1 or more"),
            ("limit-response-head", "1 or more"),
            ("ingress-head-timeout", "more than 0"),
            ("ingress-idle-timeout", "more than 0"),
            ("ingress-write-timeout", "more than 0"),
        ):
            problem = self.refused(f"--{option}=0")
            self.assertTrue(problem.startswith(f"--{option} '0': must be "), problem)
            self.assertTrue(problem.endswith(f", {remedy}"), problem)

    def test_arguments(self) -> None:
        """The server takes no arguments."""
        self.assertIn("'start': the server takes options only", self.refused("start"))


class DoorsTests(SynchronousTestCase):
    """Which options listen where."""

    def doors(self, *words: str) -> list[tuple[tuple[str, ...], str]]:
        return [
            (door.roles, door.endpoints[0].replace(":backlog=1024", ""))
            for door in doors_of(parsed(*words))
        ]

    def test_ports(self) -> None:
        """One port moves everything; two listeners only for two different ports."""
        both = ("api", "ingress")
        for words, doors in (
            ([], [(both, r"tcp6:8080:interface=\:\:")]),
            (["--api-port=1"], [(both, r"tcp6:1:interface=\:\:")]),
            (["--ingress-http-port=1"], [(both, r"tcp6:1:interface=\:\:")]),
            (["--api-port=1", "--ingress-http-port=1"], [(both, r"tcp6:1:interface=\:\:")]),
            (
                ["--api-port=1", "--ingress-http-port=2"],
                [(("api",), r"tcp6:1:interface=\:\:"), (("ingress",), r"tcp6:2:interface=\:\:")],
            ),
        ):
            self.assertEqual(self.doors(*words), doors)

    def test_listen(self) -> None:
        """Endpoints replace the default listener."""
        self.assertEqual(
            self.doors("--listen", "tcp:1:interface=127.0.0.1", "--listen=unix:/x"),
            [(("api", "ingress"), "tcp:1:interface=127.0.0.1"), (("api", "ingress"), "unix:/x")],
        )
        options = parsed("--listen=1", "--api-port=2")
        self.assertEqual(options.warnings, ["--api-port has no effect beside --listen"])

    def test_admin(self) -> None:
        """The admin port listens on loopback unless told otherwise."""
        self.assertEqual(
            self.doors("--admin-enable")[1], (("admin",), "tcp:8081:interface=127.0.0.1")
        )
        self.assertEqual(
            self.doors("--admin-enable", "--admin-interface=::1")[1],
            (("admin",), r"tcp6:8081:interface=\:\:1"),
        )

    def test_no_ipv6(self) -> None:
        """Where the machine has no IPv6, the default listener is IPv4's."""

        class OnlyIPv4(MemoryReactorClock):
            def listenTCP(
                self, port: int, factory: Any, backlog: int = 50, interface: str = ""
            ) -> Any:
                if ":" in interface:
                    raise CannotListenError(interface, port, OSError(97, "no IPv6"))
                return super().listenTCP(port, factory, backlog, interface)

        reactor = OnlyIPv4()
        door = tcp_door(("api",), 8080)
        self.successResultOf(Deferred.fromCoroutine(door.open(reactor)))
        self.assertEqual(reactor.tcpServers[0][0], 8080)
        self.assertEqual((reactor.tcpServers[0][2], reactor.tcpServers[0][3]), (1024, "0.0.0.0"))


class Slots:
    """A transport with clients' connections that end when they are told to."""

    def __init__(self) -> None:
        self.draining = False
        self.upstreams: list[Any] = []
        self.closed = False
        self.told: list[int] = []

    def add(self, tunnel_id: str) -> Any:
        transport = self

        class Slot:
            accepting = True

            def __init__(self) -> None:
                self.tunnel_id = tunnel_id
                self.ending: Deferred[None] = Deferred()

            def drain(self) -> Deferred[None]:
                self.accepting = False
                return self.ending

            def end(self) -> None:
                transport.upstreams.remove(self)
                self.ending.callback(None)

        self.upstreams.append(slot := Slot())
        return slot

    def go_away(self) -> None:
        self.told.append(len(self.upstreams))

    def close(self) -> None:
        self.closed = True
        self.upstreams.clear()


class Ingress:
    """An ingress with a number of visitors."""

    def __init__(self) -> None:
        self.visitors = 0
        self.told: list[str] = []

    def drain(self) -> None:
        self.told.append("drain")

    def abort(self) -> None:
        self.told.append("abort")
        self.visitors = 0


class DrainingTests(SynchronousTestCase):
    """The order of things after SIGTERM."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.slots, self.ingress, self.order = Slots(), Ingress(), list[str]()

    def drain(self, delay: float = 0.0, grace: float = 30.0) -> Deferred[None]:
        def close() -> Deferred[None]:
            self.order.append("doors")
            return succeed(None)

        draining = Draining(
            self.clock,
            red=lambda: self.order.append("red"),
            close_doors=close,
            ingresses=[self.ingress],
            visitors=lambda: self.ingress.visitors,
            transport=self.slots,
            delay=delay,
            grace=grace,
        )
        return Deferred.fromCoroutine(draining.run())

    def test_nothing_in_flight(self) -> None:
        """Without visitors and clients the end comes at once."""
        self.successResultOf(self.drain())
        self.assertEqual(self.order, ["red", "doors"])
        self.assertTrue(self.slots.draining)

    def test_delay(self) -> None:
        """Doors stay open for --drain-delay after health has turned red."""
        done = self.drain(delay=5)
        self.assertEqual(self.order, ["red"])
        self.assertFalse(self.slots.draining)
        self.clock.advance(5)
        self.assertEqual(self.order, ["red", "doors"])
        self.successResultOf(done)

    def test_slot_by_slot(self) -> None:
        """While there are visitors a tunnel keeps one slot for their next requests; each slot
        goes with its last stream."""
        self.ingress.visitors = 1
        first, second, other = (self.slots.add(t) for t in ("a", "a", "b"))
        done = self.drain()
        self.assertTrue(first.accepting and second.accepting and other.accepting)
        self.assertEqual(self.slots.told, [3])
        self.clock.pump([0.1] * 20)
        self.assertEqual((first.accepting, second.accepting, other.accepting), (True, False, True))
        second.end()
        self.ingress.visitors = 0
        self.clock.pump([0.1] * 2)
        self.assertEqual((first.accepting, other.accepting), (False, False))
        self.assertNoResult(done)
        first.end()
        other.end()
        self.clock.pump([0.1] * 4)
        self.successResultOf(done)

    def test_grace(self) -> None:
        """What is there at the end of the grace period is cut."""
        self.ingress.visitors = 2
        self.slots.add("a")
        done = self.drain(grace=3)
        self.clock.pump([0.1] * 28)
        self.assertNotIn("abort", self.ingress.told)
        self.clock.pump([0.1] * 5)
        self.assertIn("abort", self.ingress.told)
        self.assertTrue(self.slots.closed)
        self.successResultOf(done)


class Rooms:
    """Rooms of a server that has only one."""

    def __init__(self, draining: Any) -> None:
        self.draining = draining
        self.told: list[str] = []

    def room(self, roles: tuple[str, ...]) -> Any:
        return Factory()

    async def open(self) -> None:
        self.told.append("open")

    def reload(self) -> None:
        self.told.append("reload")

    async def close(self) -> None:
        self.told.append("close")


class ServiceTests(SynchronousTestCase):
    """The server as a service."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.handlers: dict[int, Any] = {}
        self.output = LogOutput(os.devnull)
        self.observer = LogObserver(self.output.write, "off", text=False)
        self.rooms = Rooms(
            Draining(
                self.reactor,
                red=lambda: None,
                close_doors=lambda: succeed(None),
                ingresses=[],
                visitors=lambda: 0,
                transport=Slots(),
                delay=60,
                grace=1,
            )
        )
        self.service = ServerService(
            self.reactor,
            [Door(("api", "ingress"), ("tcp:8080",))],
            lambda doors: self.rooms,
            self.output,
            self.observer,
            set_signal=self.handlers.__setitem__,
        )

    def test_log_is_ours(self) -> None:
        """Under twistd the service's observer makes the lines."""
        application = Application("test")
        self.service.setServiceParent(application)
        self.assertIs(application.getComponent(ILogObserver), self.observer)

    def test_doors_open_before_privileges_go(self) -> None:
        """Listening comes first, so that low ports can be had; rooms open in the reactor."""
        self.service.privilegedStartService()
        self.assertEqual(self.reactor.tcpServers[0][0], 8080)
        self.assertEqual(self.rooms.told, [])
        self.service.startService()
        self.reactor.run()
        self.assertEqual(self.rooms.told, ["open"])
        self.successResultOf(self.service.stopService())
        self.assertEqual(self.rooms.told, ["open", "close"])

    def test_signals(self) -> None:
        """Stopping and hanging up have handlers of our own."""
        self.service.privilegedStartService()
        self.assertEqual(set(self.handlers), {signal.SIGHUP})
        self.service.startService()
        self.reactor.run()
        self.assertEqual(set(self.handlers), {signal.SIGHUP, signal.SIGTERM, signal.SIGINT})
        self.successResultOf(self.service.stopService())

    def test_stopped_before_it_is_open(self) -> None:
        """A server that is told to stop while it starts gives that up, and ends as any other."""
        opening: Deferred[None] = Deferred()

        async def wait() -> None:
            await opening
            self.rooms.told.append("ready")

        self.patch(self.rooms, "open", wait)
        errors = StringIO()
        self.patch(sys, "__stderr__", errors)
        self.service.privilegedStartService()
        self.service.startService()
        self.reactor.run()
        reactor: Any = self.reactor
        reactor.running, reactor.callFromThread = True, lambda call: call()
        self.handlers[signal.SIGTERM](signal.SIGTERM, None)
        self.assertTrue(opening.called)
        self.successResultOf(self.service.stopService())
        opening.callback(None)
        self.assertEqual(self.rooms.told, ["close"])
        self.assertEqual(errors.getvalue(), "")
