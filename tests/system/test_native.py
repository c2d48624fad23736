"""What our own ends can do with each other: tunnels that share a connection, a server that goes."""

from __future__ import annotations

import signal
import ssl
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.system.certificates import Authority
from tests.system.harness import Process, Server, temporary_folder
from tests.system.programs import PAGES


def strings(port: int, scheme: str = "http") -> list[str]:
    """What the program listens at."""
    server = f"server={scheme}\\://localhost\\:{port}"
    return [f"exposr:{name}:{server}:share=yes" for name in ("green", "blue")]


class SharingTests(SynchronousTestCase):
    """A program with two tunnels on one connection, and a real server."""

    def setUp(self) -> None:
        self.server = Server(self, "--allow-registration", "--transport-max-connections=1")
        self.account = self.server.account()
        self.program = Process(
            self,
            [sys.executable, "-c", PAGES, *strings(self.server.port)],
            {"EXPOSR_ACCOUNT": self.account},
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


class OriginTests(SynchronousTestCase):
    """What a program learns of a visitor."""

    def test_tls(self) -> None:
        """His address, the server's that he reached, and that he came over TLS, and how."""
        authority = Authority(self)
        pem = authority.certificate("localhost", "blue.localhost")
        listen = f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}"
        server = Server(
            self,
            *("--allow-registration", "--listen", listen),
            *("--ingress-http-url", "https://localhost"),
        )
        program = Process(
            self,
            [sys.executable, "-c", PAGES, *strings(server.port, "https")],
            {"EXPOSR_SERVER_CA": authority.path, "HOME": temporary_folder(self)},
        )
        program.wait_for_line(r"public https://blue")
        trusting = ssl.create_default_context(cafile=authority.path)
        with server.visit("blue") as visitor:
            here = visitor.socket.getsockname()[1]
            visitor.host = b"blue.localhost"
            visitor.socket = trusting.wrap_socket(visitor.socket, server_hostname="blue.localhost")
            told = visitor.get(b"/origin").body.decode()
        address = "IPv4Address(type='TCP', host='127.0.0.1', port={})"
        tls = "Tls(sni='blue.localhost', version='TLSv1.3')"
        self.assertEqual(told, f"http {address.format(here)} {address.format(server.port)} {tls}")


class DrainingTests(SynchronousTestCase):
    """A server that stops while another one takes its place."""

    def test_nobody_notices(self) -> None:
        """A download runs to its end through the old server; all else goes by the new one."""
        storage = ("--storage-url", f"sqlite:///{temporary_folder(self)}/db")
        old = Server(self, "--allow-registration", "--grace-period=300", *storage)
        program = Process(
            self,
            [sys.executable, "-c", PAGES, *strings(old.port)],
            {"EXPOSR_ACCOUNT": old.account()},
        )
        program.wait_for_line(r"public http://blue")
        slow = old.visit("green")
        self.addCleanup(slow.close)
        slow.send(b"GET /slow HTTP/1.1\r\nHost: %b\r\n\r\n" % slow.host)
        slow.read_until(b"first")

        old.process.send_signal(signal.SIGTERM)
        old.wait_for_events("draining")
        program.wait_for_line(r"lost its connection 1: the server is going away")
        new = Server(self, "--api-port", str(old.port), *storage)
        for event in new.wait_for_events("client-connected", 4):
            self.assertIn(event["tunnel"], ("green", "blue"))
        program.wait_for_line(r"has its connection 1 again")
        with new.visit("blue") as visitor:
            self.assertEqual(visitor.get(b"/").body, b"blue")
        self.assertTrue(old.running)
        with new.visit("green") as visitor:
            self.assertEqual(visitor.get(b"/go").body, b"green")
        self.assertEqual(slow.read(5), b"after")
        slow.close()
        self.assertEqual(old.wait(), 0, old.report())
        peers = {event["peer"] for event in new.events("client-connected")}
        self.assertEqual(len(peers), 2)
        self.assertNotRegex(program.report(), "Traceback|Unhandled")
