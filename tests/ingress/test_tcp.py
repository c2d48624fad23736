"""TCP ingress: a port of the server's for each tunnel."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.errors import StreamLimit, TunnelNotConnected, UpstreamGone
from exposr_tx.ingress.tcp import EARLY, TCPIngress
from tests.ingress.visiting import PEER, Lines, Targets, Wire


class TCPIngressTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.targets = Targets()
        self.connected = True
        self.log = Lines()
        self.turns: list[Targets] = []  # who is chosen before ``targets``
        self.ingress = TCPIngress(self.reactor, self.choose, self.log)
        self.ingress.publish("demo", 20001)

    def choose(self, tunnel_id: str) -> Any:
        if not self.connected:
            raise TunnelNotConnected(tunnel_id)
        return self.turns.pop(0) if self.turns else self.targets

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

    def test_client_does_not_begin(self) -> None:
        """A client that has no room, or is about to go, has passed nothing on: another one of the
        tunnel gets all that the visitor has sent."""
        for why in (StreamLimit(), UpstreamGone("it goes")):
            other = Targets()
            self.turns = [self.targets, other]
            self.ingress.publish("other", 20002)
            visitor = self.visitor()
            visitor.protocol.dataReceived(b"hello ")
            visitor.protocol.dataReceived(b"there")
            self.targets.wires[-1].end(why)
            (target,) = other.wires
            self.assertEqual(target.taken(), b"hello there")
            visitor.protocol.dataReceived(b", you")
            target.protocol.dataReceived(b"hi")
            self.assertEqual((target.taken(), visitor.taken()), (b", you", b"hi"))
            target.end(ConnectionDone())
            self.assertTrue(visitor.disconnected)
            line = self.log.lines.pop()
            self.assertEqual((line["status"], line["in"], line["out"]), (200, 16, 2))
            self.assertEqual(self.log.lines, [])

    def test_nobody_else(self) -> None:
        """A visitor is reset where there is no other client, where the other one has no room
        either, where too much has been sent, and where the target has answered."""
        for others, sent, answer, status in (
            ([], b"x", b"", 503),
            ([Targets()], b"x", b"", 503),
            ([Targets()], b"x" * (EARLY + 1), b"", 503),
            ([Targets()], b"x", b"y", 200),
        ):
            self.turns = [self.targets, *others]
            self.ingress.publish("other", 20002)
            visitor = self.visitor()
            visitor.protocol.dataReceived(sent)
            first = self.targets.wires[-1]
            if answer:
                first.protocol.dataReceived(answer)
            first.end(StreamLimit())
            for other in others:
                for wire in other.wires:
                    wire.end(StreamLimit())
            self.assertTrue(visitor.reset)
            self.assertEqual([line["status"] for line in self.log.lines], [status])
            self.log.lines.clear()
            self.ingress.withdraw("other")

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
