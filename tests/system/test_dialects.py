"""Old and new clients at the same time on one server, each with a tunnel of its own.

The native dialect's client is ours; a client of exposr v2 is ours as it is with a
server that does not offer the other one, and the reference library from npm.
"""

from __future__ import annotations

import hashlib
import signal
from concurrent.futures import ThreadPoolExecutor

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.system.harness import Client, Process, Server, Target, Visitor, wait_until
from tests.system.measures import MB
from tests.system.targets import Gate, digest_of, read_body, send_body, site
from tests.system.test_ws_multiplex import SCRIPT, node_modules
from tests.system.websockets import frame, open_websocket

RUN = "from exposr_tx.scripts import exposr; exposr()\n"
#: What neither client has, so that each can only speak the dialect it is there for.
WITHOUT = "import exposr_tx.transport.websocket.client as dialects; dialects.{} = None\n"
SIZE = 20 * MB + 1
REQUESTS = 50


class NativeClient(Client):
    """The script ``exposr``, which would fail if it were to speak v2."""

    script = WITHOUT.format("MuxV2") + RUN


class V2Client(Client):
    """The script ``exposr`` as it is with a server that does not offer the native dialect."""

    script = (
        WITHOUT.format("NativeMux")
        + "from exposr_tx.client.answers import Tunnel\n"
        + "Tunnel.speaks_native = property(lambda tunnel: False)\n"
        + RUN
    )


class StoppingTests(SynchronousTestCase):
    """A client that is stopped while something runs through it."""

    def setUp(self) -> None:
        self.server = Server(self, "--allow-registration")
        self.gate = Gate()
        self.addCleanup(self.gate.opened.set)
        self.addCleanup(self.gate.events.set)
        self.target = Target(self, self.gate.serve)

    def connect(self, kind: type[Client]) -> Client:
        client = kind(self, self.server, "tunnel", self.target.url, "mine")
        client.wait_connected(2)
        return client

    def visit(self) -> Visitor:
        visitor = self.server.visit("mine")
        self.addCleanup(visitor.close)
        return visitor

    def ask(self, path: bytes) -> Visitor:
        visitor = self.visit()
        visitor.send(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (path, visitor.host))
        return visitor

    def test_a_running_request_ends(self) -> None:
        """Ctrl-C lets a request finish; the next visitor gets 503 at once; the status is 0."""
        client = self.connect(NativeClient)
        self.assertEqual(self.visit().get(b"/free").status, 200)
        waiting = self.ask(b"/slow")
        wait_until(lambda: self.gate.waiting == 1, "it is at the target")
        client.process.send_signal(signal.SIGINT)
        client.wait_for_line("Finishing what runs, for up to 5 s")
        self.assertEqual(self.visit().get(b"/free").status, 503)
        self.gate.opened.set()
        answer = waiting.answer()
        self.assertEqual((answer.status, answer.body), (200, b"/slow"))
        self.assertEqual(client.wait(), 0, client.report())
        self.assertNotRegex(client.report(), "Traceback|Unhandled|reconnect")

    def test_a_second_signal(self) -> None:
        """It ends the client at once."""
        client = self.connect(NativeClient)
        events = self.ask(b"/events")
        events.read_until(b"first")
        client.process.send_signal(signal.SIGINT)
        client.wait_for_line("Finishing what runs")

        def ended() -> bool:
            # What comes within a moment of the first one is that over again.
            client.process.send_signal(signal.SIGINT)
            return not client.running

        wait_until(ended, "the client's end")
        self.assertEqual(client.wait(), 0, client.report())
        self.assertNotRegex(client.report(), "disconnected")

    def test_v2(self) -> None:
        """A server that speaks v2 cannot be told, but a running response is finished as well."""
        client = self.connect(V2Client)
        events = self.ask(b"/events")
        events.read_until(b"first")
        client.process.send_signal(signal.SIGINT)
        client.wait_for_line("Finishing what runs")
        self.gate.events.set()
        self.assertIn(b"second", events.read_rest())
        self.assertEqual(client.wait(), 0, client.report())


class DialectTests(SynchronousTestCase):
    """One server, and all kinds of clients."""

    def setUp(self) -> None:
        self.server = Server(self, "--allow-registration")

    def visit(self, name: str) -> Visitor:
        visitor = self.server.visit(name)
        self.addCleanup(visitor.close)
        return visitor

    def connect(self, kind: type[Client], name: str) -> None:
        target = Target(self, site)
        kind(self, self.server, "tunnel", target.url, name).wait_connected(2)

    def connect_reference(self, name: str) -> None:
        """A tunnel whose client is the reference library."""
        target = Target(self, site)
        account = self.server.account()
        wanted = {
            "target": {"url": target.url},
            "transport": {"ws": {"enabled": True}},
            "ingress": {"http": {"enabled": True}},
        }
        status, tunnel = self.server.rest("PUT", f"/v1/tunnel/{name}", account, wanted)
        self.assertEqual(status, 200, tunnel)
        where = tunnel["transport"]["ws"]["url"]
        command = ["node", str(SCRIPT), "forward", where, str(target.port)]
        Process(self, command, cwd=node_modules()).wait_for_line('"open"')

    def assert_traffic(self, name: str) -> None:
        """Bodies both ways, many small requests, and a websocket, at the same time."""
        expected = digest_of(SIZE)

        def down() -> None:
            visitor = self.visit(name)
            visitor.send(b"GET /down/%d HTTP/1.1\r\nHost: %b\r\n\r\n" % (SIZE, visitor.host))
            digest = hashlib.sha256()
            for piece in read_body(visitor, visitor.head().fields):
                digest.update(piece)
            self.assertEqual(digest.hexdigest(), expected, name)

        def up() -> None:
            visitor = self.visit(name)
            head = b"POST /up HTTP/1.1\r\nHost: %b\r\nContent-Length: %d\r\n\r\n"
            visitor.send(head % (visitor.host, SIZE))
            send_body(visitor, SIZE, chunked=False)
            self.assertEqual(visitor.answer().body.decode(), expected, name)

        def small() -> None:
            visitor = self.visit(name)
            for number in range(REQUESTS):
                path = f"/{name}/{number}".encode()
                self.assertEqual(visitor.get(path).body.split(b" ")[1], path)

        def websocket() -> None:
            visitor = self.visit(name)
            open_websocket(visitor, b"/ws")
            for number in range(REQUESTS):
                message = frame(f"{name} {number} ".encode() * (number * 10 + 1))
                visitor.send(message)
                self.assertEqual(visitor.read(len(message)), message)

        with ThreadPoolExecutor(4) as pool:
            for work in [pool.submit(work) for work in (down, up, small, websocket)]:
                work.result()

    def test_all_at_once(self) -> None:
        """Native, v2 of ours and the reference library: each tunnel carries its own traffic, all
        at the same time."""
        names = ["native-client", "v2-client"]
        self.connect(NativeClient, names[0])
        self.connect(V2Client, names[1])
        try:
            self.connect_reference("reference-client")
            names.append("reference-client")
        except SkipTest as problem:
            print(f"without the reference library: {problem}")
        with ThreadPoolExecutor(len(names)) as pool:
            for work in [pool.submit(self.assert_traffic, name) for name in names]:
                work.result()
