"""TCP ingress: a port of the server's for each tunnel."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.errors import TunnelNotConnected
from exposr_tx.ingress.tcp import TCPIngress
from tests.ingress.visiting import PEER, Lines, Targets, Wire


class TCPIngressTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.targets = Targets()
        self.connected = True
        self.log = Lines()
        self.ingress = TCPIngress(self.reactor, self.choose, self.log)
        self.ingress.publish("demo", 20001)

    def choose(self, tunnel_id: str) -> Any:
        if not self.connected:
            raise TunnelNotConnected(tunnel_id)
        return self.targets

    def visitor(self) -> Wire:
        wire = Wire()
        wire.protocol = self.reactor.tcpServers[-1][1].buildProtocol(PEER)
        wire.protocol.makeConnection(wire)
        return wire

    def test_bytes_pass(self) -> None:
        """A visitor's bytes reach the target and back, and the log has a line."""
        self.assertEqual(self.reactor.tcpServers[0][0], 20001)
        visitor = self.visitor()
        visitor.protocol.dataReceived(b"hello")
        target = self.targets.wires[0]
        self.assertEqual(target.taken(), b"hello")
        target.protocol.dataReceived(b"hi")
        self.assertEqual(visitor.taken(), b"hi")
        self.assertEqual(self.ingress.visitors, 1)
        visitor.end(ConnectionDone())
        self.assertTrue(target.disconnected)
        line = self.log.lines[0]
        self.assertEqual((line["path"], line["in"], line["out"]), (b":20001", 5, 2))

    def test_not_connected(self) -> None:
        """A visitor of a tunnel without a client is reset."""
        self.connected = False
        self.assertTrue(self.visitor().reset)
        self.assertEqual(self.log.lines[0]["status"], 503)

    def test_visitor_leaves_early(self) -> None:
        """Opening a stream for somebody who has left is given up."""
        self.targets.waiting = []
        visitor = self.visitor()
        opening: Deferred[Any] = self.targets.waiting[0][0]
        visitor.end(ConnectionDone())
        self.assertTrue(opening.called)
        self.assertEqual(self.log.lines[0]["status"], 499)

    def test_moving_and_withdrawing(self) -> None:
        """A tunnel listens on one port; withdrawn, its visitors are cut."""
        self.ingress.publish("demo", 20001)
        self.assertEqual(len(self.reactor.tcpServers), 1)
        visitor = self.visitor()
        self.ingress.publish("demo", 20002)
        self.assertTrue(visitor.reset)
        other = self.visitor()
        self.ingress.drain()
        self.assertFalse(other.reset)
        self.ingress.abort()
        self.assertTrue(other.reset)

    def test_port_in_use(self) -> None:
        """A port that somebody else has is said in the log, and nothing else suffers."""

        def taken(*args: Any, **kwargs: Any) -> None:
            raise CannotListenError("::", 20003, OSError(98, "Address already in use"))

        self.reactor.listenTCP = taken
        self.ingress.publish("other", 20003)
        self.ingress.withdraw("other")
        self.assertEqual(self.ingress.visitors, 0)
