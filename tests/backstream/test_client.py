"""The client of backstream's command line, as one run."""

from __future__ import annotations

from random import Random

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.backstream.client import BackstreamClient
from exposr_tx.backstream.log import Log
from exposr_tx.backstream.options import ClientOptions, command_line
from tests.client.test_target import Silent


class ClientTestCase(SynchronousTestCase):
    """One run, whose clock and connections are the test's."""

    def setUp(self) -> None:
        self.lines: list[bytes] = []
        self.reactor = MemoryReactorClock()

    def start(self, src: str) -> tuple[BackstreamClient, Deferred[int]]:
        """A client that has begun."""
        options = command_line(["client", "--src", src, "--dst", "http://localhost:3000"], {})
        assert isinstance(options, ClientOptions)
        log = Log(self.lines.append, "info", True)
        client = BackstreamClient(self.reactor, options, log, Random(1))
        return client, client.start()


class StopTests(ClientTestCase):
    """SIGINT and SIGTERM."""

    def test_while_connecting(self) -> None:
        """Asked to end before it is connected it ends at once, and tells of no failure."""
        client, status = self.start("http://127.0.0.1:1")
        self.reactor.advance(1)
        self.assertEqual(len(self.reactor.tcpClients), 1)
        client.stop()
        self.assertEqual(self.successResultOf(status), 0)
        self.assertEqual(len(self.lines), 1)
        self.assertIn(b"Quit signal received", self.lines[0])


class ConnectTests(ClientTestCase):
    """How it reaches its server."""

    def test_look_up_without_end(self) -> None:
        """A server's name whose look-up never ends is given up, told of, and looked up again."""
        self.reactor.installNameResolver(resolver := Silent())
        client, status = self.start("http://server.test")
        self.reactor.advance(30)
        self.assertEqual(len(self.lines), 1)
        self.assertIn(b"failed to connect to server, trying again", self.lines[0])
        self.reactor.advance(15)
        self.assertEqual(resolver.asked, ["server.test"] * 2)
        client.stop()
        self.assertEqual(self.successResultOf(status), 0)

    def test_odd_letters(self) -> None:
        """A name beyond ASCII, and letters that no request may have, reach the server escaped."""
        for src, line, host in (
            ("http://127.0.0.1/a b?x=\u00fc y", b"GET /a%20b?x=%C3%BC%20y ", b"127.0.0.1"),
            ("http://127.0.0.1:80/%2F\x01?%zz=|", b"GET /%2F%01?%zz=| ", b"127.0.0.1:80"),
            ("http://b\u00fccher.test:80/x", b"GET /x ", b"xn--bcher-kva.test:80"),
            ("http://127.0.0.1/x\r\nX: y#z", b"GET /xX:%20y ", b"127.0.0.1"),
            ("http://127.0.0.1?q", b"GET /?q ", b"127.0.0.1"),
        ):
            self.start(src)
            self.reactor.advance(1)
            transport = StringTransport()
            transport.setTcpNoDelay = lambda enabled: None  # type: ignore[attr-defined]
            factory = self.reactor.tcpClients[-1][2]
            protocol = factory.buildProtocol(None)
            assert protocol is not None
            protocol.makeConnection(transport)
            head = transport.value().split(b"\r\n")
            self.assertEqual(head[:2], [line + b"HTTP/1.1", b"Host: " + host])

    def test_no_host(self) -> None:
        """A URL whose host can be none, or whose port, is refused before anything is tried."""
        for src in ("http://.", "http://a b", f"http://{'x' * 64}.test", "http://h:0"):
            error = self.assertRaises(UsageError, self.start, src)
            self.assertIn(f"--src {src!r}: must have", str(error))
