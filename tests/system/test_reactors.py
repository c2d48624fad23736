"""What every tunnel must do, on each of Twisted's reactors that people run.

A server and a client of each reactor live as long as their class; every test
finds the tunnel connected, also the one after a test that has killed the server.
"""

from __future__ import annotations

import hashlib
import os
import signal
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.system.certificates import Authority
from tests.system.harness import Client, ForClass, Server, Target, Visitor, wait_until
from tests.system.measures import MB, Growth
from tests.system.targets import PAGE, Stage, digest_of, read_body, send_body
from tests.system.websockets import frame, open_websocket

NAME = "core-tests"
#: Bytes of a body that is more than all buffers on its way.
LARGE = 48 * MB


class CoreTests(SynchronousTestCase):
    """One pair of programs for all tests of a class.

    :cvar reactor: what both run on.
    """

    __test__ = False
    reactor: ClassVar[str]
    server: ClassVar[Server]
    client: ClassVar[Client]
    target: ClassVar[Target]
    stage: ClassVar[Stage]
    public_url: ClassVar[str]

    @classmethod
    def setUpClass(cls) -> None:
        cls.stage = Stage()
        cls.target = Target(ForClass(cls), cls.serve)
        cls.server = cls.start_server()
        words = ("tunnel", cls.target_url(), NAME, *cls.client_options())
        cls.client = Client(ForClass(cls), cls.server, *words, reactor=cls.reactor)
        cls.public_url = cls.client.wait_connected(2)

    @classmethod
    def start_server(cls, port: int = 0) -> Server:
        """A server at a port; 0 lets the system choose."""
        options = ("--allow-registration", "--grace-period", "3", *cls.listener(port))
        return Server(ForClass(cls), *options, reactor=cls.reactor)

    @classmethod
    def listener(cls, port: int) -> tuple[str, ...]:
        """The server's options for where it listens."""
        return ("--api-port", str(port))

    @classmethod
    def serve(cls, connection: Visitor, target: Target) -> None:
        """The target's side of a connection."""
        cls.stage.serve(connection, target)

    @classmethod
    def target_url(cls) -> str:
        return cls.target.url

    @classmethod
    def client_options(cls) -> tuple[str, ...]:
        """What the client must be told besides."""
        return ()

    def setUp(self) -> None:
        self.stage.events.clear()
        self.stage.opened.clear()
        self.addCleanup(self.stage.events.set)
        self.addCleanup(self.stage.opened.set)
        self.wait_served()

    def wait_served(self) -> None:
        """Until the tunnel is connected."""

        def served() -> bool:
            with self.connection() as visitor:
                return visitor.get(b"/page").status == 200

        try:
            wait_until(served, "the tunnel is connected")
        except AssertionError as problem:
            raise AssertionError(f"{problem}; the client: {self.client.report()}") from None

    def restart_server(self) -> None:
        """A new server where the last one was, once the client is back."""
        type(self).server = self.start_server(self.server.port)
        self.wait_served()

    def connection(self) -> Visitor:
        """A connection to the server, that knows the tunnel's Host."""
        return self.server.visit(NAME)

    def visit(self) -> Visitor:
        visitor = self.connection()
        self.addCleanup(visitor.close)
        return visitor

    def test_get(self) -> None:
        """Requests on one connection, and on many at a time, get their answers."""
        visitor = self.visit()
        for _ in range(20):
            answer = visitor.get(b"/page")
            self.assertEqual((answer.status, answer.body), (200, PAGE))

        def paths(number: int) -> list[bytes]:
            with self.connection() as visitor:
                return [visitor.get(b"/%d/%d" % (number, i)).body.split(b" ")[1] for i in range(5)]

        with ThreadPoolExecutor(10) as pool:
            for number, found in enumerate(pool.map(paths, range(10))):
                self.assertEqual(found, [b"/%d/%d" % (number, i) for i in range(5)])

    def test_post(self) -> None:
        """A body goes up unchanged, with a length and in chunks."""
        visitor = self.visit()
        size = 5 * MB + 7
        for framing in (b"Content-Length: %d" % size, b"Transfer-Encoding: chunked"):
            visitor.send(b"POST /up HTTP/1.1\r\nHost: %b\r\n%b\r\n\r\n" % (visitor.host, framing))
            send_body(visitor, size, chunked=b"chunked" in framing)
            self.assertEqual(visitor.answer().body.decode(), digest_of(size))

    def test_download(self) -> None:
        """A large body comes down unchanged, with a length and in chunks."""
        visitor = self.visit()
        size = 16 * MB
        for kind in (b"down", b"down-chunked"):
            self.assertEqual(self._hash_of(visitor, b"/%b/%d" % (kind, size)), digest_of(size))

    @staticmethod
    def _hash_of(visitor: Visitor, path: bytes) -> str:
        visitor.send(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (path, visitor.host))
        digest = hashlib.sha256()
        for piece in read_body(visitor, visitor.head().fields):
            digest.update(piece)
        return digest.hexdigest()

    def test_websocket(self) -> None:
        """Small and large messages echo, also one that is sent before the handshake is over."""
        visitor = self.visit()
        early = frame(b"early")
        open_websocket(visitor, b"/ws", early)
        self.assertEqual(visitor.read(len(early)), early)
        for message in (b"small", bytes(range(256)) * 2000):
            visitor.send(frame(message))
            self.assertEqual(visitor.read(len(frame(message))), frame(message))

    def test_event_stream(self) -> None:
        """An event is with the visitor before the target goes on to the next."""
        visitor = self.visit()
        visitor.send(b"GET /events HTTP/1.1\r\nHost: %b\r\n\r\n" % visitor.host)
        self.assertEqual(visitor.head().status, 200)
        self.assertIn(b"data: first\n\n", visitor.read_until(b"\n\n"))
        self.stage.events.set()
        self.assertIn(b"data: second\n\n", visitor.read_rest())

    def test_pipelining(self) -> None:
        """Requests that are sent without waiting are answered in their order."""
        visitor = self.visit()
        bodies = [b"x" * (number * 100) for number in range(20)]
        head = b"POST /%d HTTP/1.1\r\nHost: %b\r\nContent-Length: %d\r\n\r\n%b"
        visitor.send(b"".join(head % (i, visitor.host, len(b), b) for i, b in enumerate(bodies)))
        for number in range(20):
            self.assertIn(b"POST /%d HTTP/1.1" % number, visitor.answer().body)

    def test_connection_close(self) -> None:
        """After "Connection: close" the answer is whole, and the connection ends."""
        visitor = self.visit()
        answer = visitor.get(b"/down/%d" % MB, b"Connection: close")
        self.assertEqual(hashlib.sha256(answer.body).hexdigest(), digest_of(MB))
        self.assertEqual(answer.fields[b"connection"], b"close")
        self.assertEqual(visitor.read_rest(), b"")

    def test_broken_body(self) -> None:
        """A body that breaks off is no complete one, not even where only the connection's end
        tells how long it is; what came of it arrives."""
        visitor = self.visit()
        visitor.send(b"GET /broken HTTP/1.0\r\nHost: %b\r\n\r\n" % visitor.host)
        # Reset, or over TLS an end without its announcement.
        with self.assertRaises(OSError):
            while True:
                visitor._more()
        self.assertTrue(visitor._buffer.endswith(b"\r\n\r\nhalf"), visitor._buffer)

    def test_stopped_reader(self) -> None:
        """While one visitor does not read, others are served, and what it is owed is not kept in
        memory; then it gets the rest."""
        growth = Growth(server=self.server, client=self.client)
        stopped = self.visit()
        stopped.send(b"GET /down/%d HTTP/1.1\r\nHost: %b\r\n\r\n" % (LARGE, stopped.host))
        self.assertEqual(stopped.head().status, 200)
        digest = hashlib.sha256(stopped.read(MB))
        others = self.visit()
        for _ in range(100):
            self.assertEqual(others.get(b"/page").body, PAGE)
        self.assertEqual(self._hash_of(others, b"/down/%d" % (8 * MB)), digest_of(8 * MB))
        growth.check(LARGE // 2)
        for piece in read_body(stopped, {b"content-length": b"%d" % (LARGE - MB)}):
            digest.update(piece)
        self.assertEqual(digest.hexdigest(), digest_of(LARGE))

    def test_drained_and_killed(self) -> None:
        """A server that is stopped finishes what it has begun, one that is killed does not; the
        client is back when there is a new one."""
        waiting = self.visit()
        waiting.send(b"GET /wait HTTP/1.1\r\nHost: %b\r\n\r\n" % waiting.host)
        wait_until(lambda: self.stage.waiting, "the request is at the target")
        os.kill(self.server.pid, signal.SIGTERM)
        wait_until(lambda: self.server.events("draining"), "the server drains")
        self.stage.opened.set()
        answer = waiting.answer()
        self.assertEqual((answer.status, answer.body), (200, b"/wait"))
        self.assertEqual(self.server.wait(), 0, self.server.report())
        self.restart_server()
        self.server.kill()
        self.restart_server()
        self.assertTrue(self.client.running)


class EpollTests(CoreTests):
    """On epoll, which Twisted chooses on Linux."""

    __test__ = True
    reactor = "epoll"


class AsyncioTests(CoreTests):
    """On asyncio's event loop."""

    __test__ = True
    reactor = "asyncio"


class SecureTests(CoreTests):
    """The same where every connection between visitor, server, client and target is TLS.

    All believe the authority of the test and nobody else.
    """

    authority: ClassVar[Authority]
    certificate: ClassVar[str]
    context: ClassVar[ssl.SSLContext]
    target_context: ClassVar[ssl.SSLContext]

    @classmethod
    def setUpClass(cls) -> None:
        cls.authority = Authority(ForClass(cls))
        cls.certificate = cls.authority.certificate("localhost", f"{NAME}.localhost")
        cls.context = ssl.create_default_context(cafile=cls.authority.path)
        cls.context.set_alpn_protocols(["h2", "http/1.1"])  # as browsers and curl do
        cls.target_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        cls.target_context.load_cert_chain(cls.certificate)
        super().setUpClass()

    @classmethod
    def listener(cls, port: int) -> tuple[str, ...]:
        where = f"ssl:{port}:privateKey={cls.certificate}:certKey={cls.certificate}"
        return ("--listen", f"{where}:interface=127.0.0.1")

    @classmethod
    def serve(cls, connection: Visitor, target: Target) -> None:
        connection.socket = cls.target_context.wrap_socket(connection.socket, server_side=True)
        super().serve(connection, target)

    @classmethod
    def target_url(cls) -> str:
        return f"https://localhost:{cls.target.port}"

    @classmethod
    def client_options(cls) -> tuple[str, ...]:
        believed = ("--server-ca", cls.authority.path, "--target-ca", cls.authority.path)
        return ("-s", f"https://localhost:{cls.server.port}", *believed)

    def connection(self) -> Visitor:
        visitor = super().connection()
        name = f"{NAME}.localhost"
        visitor.socket = self.context.wrap_socket(
            visitor.socket, server_hostname=name, suppress_ragged_eofs=False
        )
        return visitor

    def test_urls(self) -> None:
        """The ready file and the public URL say https, and a target hears of it."""
        self.assertTrue(self.server.url.startswith("https://127.0.0.1:"), self.server.url)
        self.assertEqual(self.public_url, f"https://{NAME}.localhost:{self.server.port}/")
        self.assertIn(b"\r\nX-Forwarded-Proto: https\r\n", self.visit().get(b"/any").body)

    def test_protocol(self) -> None:
        """Who offers other protocols than HTTP/1.1 besides is told which one is spoken."""
        visitor = self.connection()
        chosen = visitor.socket.selected_alpn_protocol()  # type: ignore[attr-defined]
        self.assertEqual(chosen, "http/1.1")


class SecureEpollTests(SecureTests):
    """TLS on epoll."""

    __test__ = True
    reactor = "epoll"

    def test_unknown_authority(self) -> None:
        """A client that does not know the server's authority does not speak with it."""
        where = ("-s", f"https://localhost:{self.server.port}")
        client = Client(self, self.server, "tunnel", self.target.url, *where, reactor=self.reactor)
        client.wait_for_line("certificate")
        client.kill()
        self.assertEqual([line for line in client.out if "success" in line], [])


class SecureAsyncioTests(SecureTests):
    """TLS on asyncio's event loop."""

    __test__ = True
    reactor = "asyncio"
