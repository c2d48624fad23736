"""Which certificates the client believes."""

from __future__ import annotations

from typing import Any

from service_identity import CertificateError, VerificationError
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test.iosim import connect, makeFakeClient, makeFakeServer
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.client.answers import NotTrusted, unreachable
from exposr_tx.client.trust import Trust
from tests.system.certificates import Authority


class Caller(Protocol):
    """Says something as soon as it may."""

    heard = b""
    reason: Failure | None = None

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"hello")

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason


class TrustTests(SynchronousTestCase):
    """A server that shows a certificate, and a client that expects a name."""

    def setUp(self) -> None:
        self.authority = Authority(self)

    def call(self, host: str, *names: str) -> tuple[Caller, Caller]:
        """The client and a server with a certificate for the names, after their handshake."""
        with open(self.authority.certificate(*names), "rb") as file:
            shown = PrivateCertificate.loadPEM(file.read())
        callers, clock = Factory.forProtocol(Caller), Clock()
        creator = Trust(self.authority.path).connection_creator(host)
        client: Any = TLSMemoryBIOFactory(creator, True, callers, clock).buildProtocol(None)
        server: Any = TLSMemoryBIOFactory(shown.options(), False, callers, clock).buildProtocol(
            None
        )
        both = client.wrappedProtocol, server.wrappedProtocol
        pump = connect(server, makeFakeServer(server), client, makeFakeClient(client))
        for _ in range(5):
            clock.advance(0)
            pump.flush()
        return both

    def test_the_right_name(self) -> None:
        """Names, wildcards for one label, and addresses."""
        for host, name in (
            ("tun.example", "tun.example"),
            ("blog.tun.example", "*.tun.example"),
            ("192.0.2.1", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("bücher.example", "xn--bcher-kva.example"),
        ):
            client, server = self.call(host, "other.example", name)
            self.assertEqual((client.heard, server.heard), (b"hello", b"hello"), host)

    def test_another_name(self) -> None:
        """Whoever has signed it: the server gets nothing, and the client learns why."""
        for host, *names in (
            ("tun.example", "other.example"),
            ("tun.example", "*.tun.example"),
            ("192.0.2.1", "192.0.2.2"),
            ("192.0.2.1", "tun.example"),
        ):
            client, server = self.call(host, *names)
            self.assertEqual((client.heard, server.heard), (b"", b""), host)
            assert client.reason is not None and client.reason.value is not None
            self.assertIsInstance(client.reason.value, VerificationError)
            error = unreachable("https://tun.example", client.reason.value)
            self.assertIsInstance(error, NotTrusted)
            self.assertIn("not for this name", str(error))

    def test_names_that_cannot_be_read(self) -> None:
        """A certificate without any name, or with one that nobody may have, is for no host."""
        for names in ([], ["*.com", "other.example"], ["*.com", "tun.example"]):
            client, server = self.call("tun.example", *names)
            self.assertEqual((client.heard, server.heard), (b"", b""), names)
            assert client.reason is not None and client.reason.value is not None
            self.assertIsInstance(client.reason.value, CertificateError)
            error = unreachable("https://tun.example", client.reason.value)
            self.assertIsInstance(error, NotTrusted)
            self.assertEqual(self.flushLoggedErrors(), [])
