"""What users notice when something breaks: rows of shared/reliability.md, with real processes."""

from __future__ import annotations

import os
import resource
import signal
import socket
import struct
import time
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from tests.system.harness import (
    LONG,
    Answer,
    Client,
    Server,
    Target,
    Visitor,
    temporary_folder,
    wait_until,
)
from tests.system.line import Line
from tests.system.measures import MB, Flat, descriptors, many_descriptors, processor_seconds
from tests.system.targets import Gate, Meter, read_request, respond, send_body, site
from tests.system.websockets import frame, open_websocket

NAME = "faulty"
#: How often a fault is repeated where only its sum would show a leak.
ROUNDS = 1000 if LONG else 100
#: Clients that come back at once.
CLIENTS = 30 if LONG else 6


def reset(visitor: Visitor) -> None:
    """End a connection by an RST."""
    visitor.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    visitor.close()


def wait_count(things: list[bytes], count: int) -> None:
    """Until there are so many of them at the target."""
    wait_until(lambda: len(things) >= count, f"{count} of them at the target")


class FaultTests(SynchronousTestCase):
    """A server, an account that outlives its clients, and visitors."""

    server: Server

    def start(self, *options: str) -> None:
        """Start the server."""
        self.server = Server(self, "--allow-registration", *options)
        self.account = self.server.account()

    def connect(self, target: Target, *options: str, connections: int = 2) -> Client:
        """A client of the account, once it is connected."""
        words = ("tunnel", "connect", NAME, target.url, "--keep", "-a", self.account)
        client = Client(self, self.server, *words, *options)
        client.wait_connected(connections)
        return client

    def visit(self) -> Visitor:
        visitor = self.server.visit(NAME)
        self.addCleanup(visitor.close)
        return visitor

    def ask(self, path: bytes = b"/free") -> Visitor:
        """A visitor who has sent a request."""
        visitor = self.visit()
        visitor.send(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (path, visitor.host))
        return visitor

    def status(self, path: bytes = b"/free") -> int:
        with self.visit() as visitor:
            return visitor.get(path).status

    def wait_status(self, status: int) -> None:
        wait_until(lambda: self.status() == status, f"status {status}")

    def assert_cut(self, visitor: Visitor, head: Answer, sent: int) -> None:
        """The rest of a response shows that it is not all of it."""
        rest = visitor.read_rest()
        if b"content-length" in head.fields:
            self.assertLess(len(rest), int(head.fields[b"content-length"]))
        else:
            self.assertEqual(head.fields[b"transfer-encoding"], b"chunked")
            self.assertFalse(rest.endswith(b"0\r\n\r\n"))
        self.assertLessEqual(len(rest), sent)


class ClientFaultTests(FaultTests):
    """The client dies, freezes or loses its line."""

    def test_killed(self) -> None:
        """A client that is killed leaves a 503 behind, and its name to the next (F1)."""
        self.start()
        target = Target(self, site)
        for _ in range(2):
            client = self.connect(target)
            self.assertEqual(self.status(), 200)
            client.kill()
            self.wait_status(503)
        self.connect(target)
        self.assertEqual(self.status(), 200)

    def test_killed_during_a_download(self) -> None:
        """A download whose client is killed is visibly cut, with a length and in chunks (F2)."""
        self.start()
        target = Target(self, site)
        flat = Flat(self.server)
        for path in (b"/down/%d", b"/down-chunked/%d") * (10 if LONG else 1):
            client = self.connect(target)
            visitor = self.ask(path % (100 * MB))
            head = visitor.head()
            self.assertEqual(head.status, 200)
            visitor.read(MB)
            client.kill()
            self.assert_cut(visitor, head, 101 * MB)
        self.wait_status(503)
        flat.check()

    def test_one_line_cut(self) -> None:
        """When one of a client's two connections breaks, the other one serves, and it is
        connected again (F3)."""
        self.start()
        line = Line(self, self.server.port)
        client = self.connect(Target(self, site), "-s", line.url)
        visitors = [self.visit() for _ in range(4)]
        for _ in range(2):
            before = self._times_connected(client)
            # The youngest is a websocket; others may be the client's API requests.
            self.assertGreaterEqual(line.order("reset -1"), 2)
            # One that is on its way while it breaks may be lost.
            self.status()
            for visitor in visitors * 25:
                self.assertEqual(visitor.get().status, 200)
            self._wait_times_connected(client, before + 1)
            self.server.wait_connections(self.account, NAME, 2)

    def _times_connected(self, client: Client) -> int:
        return sum(line.endswith(" connected") for line in client.out)

    def _wait_times_connected(self, client: Client, count: int) -> None:
        wait_until(lambda: self._times_connected(client) >= count, "connected again")

    def test_half_open(self) -> None:
        """A client whose line is dead without a sign is replaced at once by the next one (F9)."""
        self.start()
        gone, here = Target(self, site), Target(self, site)
        line = Line(self, self.server.port)
        self.connect(gone, "-s", line.url)
        self.assertEqual(self.status(), 200)
        line.order("stall")
        self.connect(here, connections=1)
        before = len(gone.requests)
        for _ in range(50):
            self.assertEqual(self.status(), 200)
        self.assertEqual(len(gone.requests), before)
        self.assertEqual(len(here.requests), 50)
        self.server.wait_connections(self.account, NAME, 2)

    def test_wrong_account(self) -> None:
        """A client with an account nobody knows gives up in the end, with exit status 3."""
        if not LONG:
            self.skipTest("takes a minute: bin/test --long")
        self.start()
        words = ("tunnel", "connect", NAME, "http://localhost:1", "-a", "CDEF-CDEF-CDEF-CDEF")
        client = Client(self, self.server, *words)
        client.wait_for_line("trying again")
        self.assertEqual(client.wait(120), 3, client.report())


class ServerFaultTests(FaultTests):
    """The server dies, freezes or stops."""

    def test_killed(self) -> None:
        """After a killed server has been started again, all tunnels are back as they were (F4)."""
        storage = ("--storage-url", f"sqlite:///{temporary_folder(self)}/db")
        self.start(*storage)
        target = Target(self, site)
        names = [f"tunnel-{number}" for number in range(CLIENTS)]
        clients = [
            Client(self, self.server, "tunnel", "connect", name, target.url, "-a", self.account)
            for name in names
        ]
        for client in clients:
            client.wait_connected(2)

        def stored() -> dict[str, object]:
            found: dict[str, object] = {}
            for name in names:
                status, tunnel = self.server.rest("GET", f"/v1/tunnel/{name}", self.account)
                self.assertEqual(status, 200)
                found[name] = {key: tunnel[key] for key in ("target", "ingress")}
            return found

        before = stored()
        self.server.kill()
        options = ("--allow-registration", "--api-port", str(self.server.port), *storage)
        self.server = Server(self, *options)
        for name in names:
            self.server.wait_connections(self.account, name, 2)
            with self.server.visit(name) as visitor:
                self.assertEqual(visitor.get().status, 200)
        self.assertEqual(stored(), before)

    def test_frozen(self) -> None:
        """A server that stood still for ten seconds goes on with all its clients (F28)."""
        if not LONG:
            self.skipTest("takes half a minute: bin/test --long")
        self.start()
        client = self.connect(Target(self, site))
        os.kill(self.server.pid, signal.SIGSTOP)
        time.sleep(10)
        os.kill(self.server.pid, signal.SIGCONT)
        time.sleep(25)
        self.assertEqual(self.status(), 200)
        self.assertEqual([line for line in client.out if "Lost" in line], [])

    def test_stopped_under_load(self) -> None:
        """SIGTERM lets requests finish, cuts what has no end at the end of the grace period, and
        the client is back when a new server is (F19)."""
        self.start("--grace-period", "3")
        gate = Gate()
        self.addCleanup(gate.opened.set)
        self.addCleanup(gate.events.set)
        client = self.connect(Target(self, gate.serve))
        waiting = [self.ask(b"/%d" % number) for number in range(20)]
        wait_until(lambda: gate.waiting == 20, "all are at the target")
        idle = self.visit()
        self.assertEqual(idle.get(b"/free").status, 200)
        endless = self.ask(b"/events")
        self.assertIn(b"first", endless.read_until(b"first"))
        os.kill(self.server.pid, signal.SIGTERM)
        wait_until(lambda: self.server.events("draining"), "the server drains")
        wait_until(self._refused, "the doors are closed")
        # Somebody who is connected already gets one more request.
        self.assertEqual(idle.get(b"/free").status, 200)
        gate.opened.set()
        for number, visitor in enumerate(waiting):
            answer = visitor.answer()
            self.assertEqual((answer.status, answer.body), (200, b"/%d" % number))
            self.assertEqual(answer.fields.get(b"connection"), b"close")
        self.assertNotIn(b"second", endless.read_rest())
        self.assertEqual(self.server.wait(), 0, self.server.report())
        self.assertTrue(client.running)

    def _refused(self) -> bool:
        try:
            self.visit().close()
        except ConnectionRefusedError:
            return True
        return False

    def test_stopped_with_a_websocket(self) -> None:
        """A visitor's websocket lives until the end of the grace period, and then ends (F19)."""
        self.start("--grace-period", "2")
        self.connect(Target(self, site))
        visitor = self.visit()
        open_websocket(visitor, b"/ws")
        os.kill(self.server.pid, signal.SIGTERM)
        wait_until(self._refused, "the doors are closed")
        visitor.send(frame(b"still there"))
        self.assertEqual(visitor.read(17), frame(b"still there"))
        self.assertEqual(visitor.read_rest(), b"")
        self.assertEqual(self.server.wait(), 0, self.server.report())

    def test_out_of_descriptors(self) -> None:
        """With no descriptor left the server neither dies nor spins, and goes on when there are
        some again (F24)."""
        many_descriptors(self, 2048)
        self.start()
        self.connect(Target(self, site))
        known = self.visit()
        self.assertEqual(known.get().status, 200)
        resource.prlimit(self.server.pid, resource.RLIMIT_NOFILE, (256, 256))
        crowd = [self.visit() for _ in range(400)]
        wait_until(lambda: descriptors(self.server) >= 250, "the server is full")
        lines, used = len(self.server.out), processor_seconds(self.server)
        began = time.monotonic()
        for _ in range(20):
            self.assertEqual(known.get().status, 200)
            time.sleep(0.05)
        share = (processor_seconds(self.server) - used) / (time.monotonic() - began)
        print(f"{share:.0%} of a core while full; {len(self.server.out) - lines} lines of log")
        self.assertLess(share, 0.5)
        self.assertTrue(self.server.running)
        for visitor in crowd:
            visitor.close()
        self.wait_status(200)
        self.assertEqual(known.get().status, 200)


class TargetFaultTests(FaultTests):
    """The target dies, refuses, is silent or slow."""

    def test_broken_answers(self) -> None:
        """A target that breaks off in the middle is a visible cut, before its answer a 502, as is
        one that refuses; nothing is left open (F5)."""
        self.start()

        def serve(connection: Visitor, _target: Target) -> None:
            path = read_request(connection).path
            if path == b"/free":
                respond(connection, b"")
            elif path == b"/length":
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
            elif path == b"/chunked":
                connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf")
            elif path == b"/head":
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Le")

        target = Target(self, serve)
        client = self.connect(target)
        self.assertEqual(self.status(), 200)
        flat = Flat(self.server, client)
        for _ in range(ROUNDS // 4):
            for path in (b"/length", b"/chunked"):
                visitor = self.ask(path)
                head = visitor.head()
                self.assertEqual(head.status, 200)
                self.assert_cut(visitor, head, 100)
                visitor.close()
            self.assertEqual(self.status(b"/nothing"), 502)
            self.assertEqual(self.status(b"/head"), 502)
        target.close()
        for _ in range(ROUNDS):
            self.assertEqual(self.status(), 502)
        flat.check()

    def test_silent(self) -> None:
        """A target that takes a request and says nothing is a 504 after --ingress-timeout (F5)."""
        self.start("--ingress-timeout", "1")
        gate = Gate()
        client = self.connect(Target(self, gate.serve))
        self.assertEqual(self.status(), 200)
        flat = Flat(self.server, client)
        visitors = [self.ask(b"/%d" % number) for number in range(20)]
        for visitor in visitors:
            self.assertEqual(visitor.answer().status, 504)
            visitor.close()
        gate.opened.set()
        flat.check()
        self.assertEqual(self.status(), 200)

    def test_slow(self) -> None:
        """A target that answers byte by byte is waited for; so is one that is silent in the
        middle of its body for longer than --ingress-timeout (F6)."""
        self.start("--ingress-timeout", "2")
        whole = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n" + b"x" * 10

        def serve(connection: Visitor, _target: Target) -> None:
            connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            read_request(connection)
            for byte in whole:
                connection.send(bytes([byte]))
                time.sleep(0.005)
            time.sleep(30 if LONG else 4)
            connection.send(b"y" * 10)

        self.connect(Target(self, serve))
        self.assertEqual(self.visit().get().body, b"x" * 10 + b"y" * 10)


class VisitorFaultTests(FaultTests):
    """Visitors leave in the middle."""

    def test_aborts(self) -> None:
        """When a visitor breaks off, the target sees it, down and up; nothing is left open (F8)."""
        self.start()
        meter = Meter()
        client = self.connect(Target(self, meter.serve))
        self.assertEqual(self.status(), 200)
        flat = Flat(self.server, client)
        meter.reading.set()
        for number in range(ROUNDS):
            visitor = self.visit()
            if number % 2:
                visitor.send(b"GET /endless HTTP/1.1\r\nHost: %b\r\n\r\n" % visitor.host)
                visitor.read(100_000)
            else:
                head = b"POST /up HTTP/1.1\r\nHost: %b\r\nContent-Length: %d\r\n\r\n"
                visitor.send(head % (visitor.host, 10 * MB))
                send_body(visitor, MB, chunked=False)
            reset(visitor)
        wait_until(lambda: meter.closed == ROUNDS, "the target has seen them all leave")
        flat.check()
        self.assertEqual(self.status(), 200)

    def test_leaves_while_waiting(self) -> None:
        """A visitor that leaves before the answer takes its request along (F8)."""
        self.start()
        arrived: list[bytes] = []
        closed: list[bytes] = []

        def serve(connection: Visitor, _target: Target) -> None:
            path = read_request(connection).path
            if path == b"/free":
                respond(connection, b"")
                return
            arrived.append(path)
            connection.read_rest()
            closed.append(path)

        client = self.connect(Target(self, serve))
        self.assertEqual(self.status(), 200)
        flat = Flat(self.server, client)
        endings: tuple[Callable[[Visitor], None], ...] = (reset, Visitor.close)
        for number in range(20):
            visitor = self.ask(b"/%d" % number)
            wait_count(arrived, number + 1)
            endings[number % 2](visitor)
        wait_count(closed, 20)
        flat.check()
