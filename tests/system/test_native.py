"""What our own ends can do with each other: tunnels that share a connection, a server that goes."""

from __future__ import annotations

import signal
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.system.harness import Process, Server
from tests.system.programs import PAGES


class SharingTests(SynchronousTestCase):
    """A program with two tunnels on one connection, and a real server."""

    def setUp(self) -> None:
        self.server = Server(self, "--allow-registration", "--transport-max-connections=1")
        self.account = self.server.account()
        strings = [
            f"exposr:{name}:server=http\\://localhost\\:{self.server.port}:share=yes"
            for name in ("green", "blue")
        ]
        self.program = Process(
            self, [sys.executable, "-c", PAGES, *strings], {"EXPOSR_ACCOUNT": self.account}
        )
        self.program.wait_for_line(r"public http://green")
        self.program.wait_for_line(r"public http://blue")

    def assert_serves(self, *names: str) -> None:
        for name in names:
            with self.server.visit(name) as visitor:
                self.assertEqual(visitor.get(b"/").body, name.encode(), self.program.report())

    def test_one_connection(self) -> None:
        """Both are public by the same connection; SIGTERM takes both away."""
        self.assert_serves("green", "blue")
        connected = self.server.wait_for_events("client-connected", 2)
        self.assertEqual({event["tunnel"] for event in connected}, {"green", "blue"})
        self.assertEqual(len({event["peer"] for event in connected}), 1)
        self.assertIn(self.program.stop(signal.SIGTERM), (0, -signal.SIGTERM))
        self.assertNotRegex(self.program.report(), "Traceback|Unhandled")
        for name in ("green", "blue"):
            with self.server.visit(name) as visitor:
                self.assertEqual(visitor.get(b"/").status, 404)

    def test_one_is_deleted(self) -> None:
        """It ends for good; the other's running download and new requests do not notice."""
        slow = self.server.visit("blue")
        self.addCleanup(slow.close)
        slow.send(b"GET /slow HTTP/1.1\r\nHost: %b\r\n\r\n" % slow.host)
        slow.read_until(b"first")
        status, _ = self.server.rest("DELETE", "/v1/tunnel/green", self.account)
        self.assertEqual(status, 204)
        self.program.wait_for_line("has ended the tunnel: deleted")
        with self.server.visit("green") as visitor:
            self.assertEqual(visitor.get(b"/").status, 404)
        self.assert_serves("blue")
        with self.server.visit("blue") as visitor:
            visitor.get(b"/go")
        self.assertEqual(slow.read(5), b"after")
        (lost,) = self.server.wait_for_events("client-lost")
        self.assertEqual((lost["tunnel"], lost["reason"]), ("green", "deleted"))
