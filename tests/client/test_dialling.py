"""Opening a websocket to the server, from the client's side."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.client.answers import ServerUnreachable
from exposr_tx.client.dialling import Dialler
from exposr_tx.client.trust import Trust
from tests.client.test_target import Silent


class Endpoint:
    """Connects to somebody who says nothing."""

    protocol: Any = None

    def connect(self, factory: Any) -> Deferred[Any]:
        self.protocol = factory.buildProtocol(None)
        transport: Any = StringTransport()
        transport.setTcpNoDelay = lambda enabled: None
        self.protocol.makeConnection(transport)
        return succeed(self.protocol)


class DiallerTests(SynchronousTestCase):
    def test_lost_during_the_handshake(self) -> None:
        """A server that ends before it has answered is one that cannot be reached now, which a
        client tries again."""
        endpoint = Endpoint()
        dialler = Dialler(
            MemoryReactorClock(),
            Trust(None, True),
            "http://server.test",
            self.fail,
            lambda host, port: endpoint,  # type: ignore[arg-type, return-value]
        )
        url = "ws://server.test/v1/tunnel/name/ws-endpoint?t=secret"
        dialling = Deferred.fromCoroutine(dialler.dial(url, Factory.forProtocol(Protocol)))
        self.assertNoResult(dialling)
        endpoint.protocol.connectionLost(Failure(ConnectionLost()))
        failure = self.failureResultOf(dialling, ServerUnreachable)
        self.assertIn("ws://server.test opens no websocket", str(failure.value))
        self.assertNotIn("secret", str(failure.value))

    def test_look_up_without_end(self) -> None:
        """A server's name whose look-up never ends is one that cannot be reached now."""
        reactor = MemoryReactorClock()
        reactor.installNameResolver(Silent())
        dialler = Dialler(reactor, Trust(None, True), "http://server.test", self.fail)
        url = "ws://server.test/v1/tunnel/name/ws-endpoint?t=secret"
        dialling = Deferred.fromCoroutine(dialler.dial(url, Factory.forProtocol(Protocol)))
        reactor.advance(29)
        self.assertNoResult(dialling)
        reactor.advance(1)
        self.failureResultOf(dialling, ServerUnreachable)
