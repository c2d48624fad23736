"""The client's end of a tunnel: connections, losses, endings."""

from random import Random
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.client.address import TunnelAddress
from exposr_tx.client.answers import (
    AccountRefused,
    NotTrusted,
    ServerRefusal,
    ServerUnreachable,
    Tunnel,
)
from exposr_tx.client.endpoint import TunnelEnded, TunnelEndpoint, TunnelPort
from exposr_tx.client.events import Events
from exposr_tx.errors import BadInput
from exposr_tx.transport.websocket import Lost


def tunnel(connections: int = 2) -> Tunnel:
    return Tunnel(
        {
            "id": "abcd",
            "transport": {"max_connections": connections, "ws": {"url": "ws://h/?t=x"}},
            "ingress": {"http": {"enabled": True, "url": "http://abcd.h/"}},
        }
    )


class Line:
    """A connection in memory."""

    def __init__(self) -> None:
        self.lost: Deferred[Lost] = Deferred()
        self.leaving: Deferred[None] = Deferred()
        self.streams = 0
        self.left = False

    def leave(self) -> None:
        self.left = True

    def close(self) -> None:
        self.end(1000, "")

    closed = False

    def end(self, code: int, reason: str) -> None:
        self.closed = True
        lost, self.lost = self.lost, Deferred()
        lost.callback(Lost(code, reason, True))


class Server:
    """What is there to prepare, read and dial; answers by a list of errors, then well."""

    def __init__(self, connections: int = 2) -> None:
        self.connections = connections
        self.errors: list[Exception] = []
        self.prepare_errors: list[Exception] = []
        self.hang: Deferred[Any] | None = None
        self.lines: list[Line] = []
        self.dials = 0
        self.busy = 0
        self.prepared = 0
        self.gate: Any = None

    async def prepare(self) -> Tunnel:
        self.prepared += 1
        if self.prepare_errors:
            raise self.prepare_errors.pop(0)
        return tunnel(self.connections)

    async def read(self) -> Tunnel:
        self.busy += 1
        try:
            assert self.busy == 1, "one slot at a time"
            if self.errors:
                raise self.errors.pop(0)
            if self.hang is not None:
                await self.hang
            return tunnel(self.connections)
        finally:
            self.busy -= 1

    async def dial(self, url: str, factory: Any, native: bool = False) -> Line:
        self.dials += 1
        self.gate = factory
        line = Line()
        self.lines.append(line)
        return line


class Log(Events):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def connected(self, tunnel: Tunnel, number: int, total: int) -> None:
        self.lines.append(f"connected {number}/{total}")

    def lost(self, tunnel: Tunnel, number: int, lost: Lost) -> None:
        self.lines.append(f"lost {number} {lost.code}")

    def waiting(self, error: Exception, seconds: float) -> None:
        self.lines.append(f"waiting {error}")


class Half(Random):
    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


class TunnelPortTests(SynchronousTestCase):
    """TunnelEndpoint and TunnelPort."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.server = Server()
        self.log = Log()

    def start(self, retry: bool = True) -> TunnelPort:
        self.endpoint = TunnelEndpoint(
            self.clock, self.server, self.server.dial, Half(0), self.log, retry
        )
        return self.endpoint.start(Factory.forProtocol(Protocol))

    def test_opens_all_slots(self) -> None:
        """As many connections are opened as the server allows, one after another."""
        hang: Deferred[None] = Deferred()
        self.server.hang = hang
        self.start()
        self.assertEqual(self.server.dials, 0)
        self.server.hang = None
        hang.callback(None)
        self.assertEqual(self.log.lines, ["connected 1/2", "connected 2/2"])

    def test_going_away(self) -> None:
        """A server that says it will go keeps its connection until another one is open."""
        port = self.start()
        self.clock.advance(5)
        old = self.server.lines[0]
        old.leaving.callback(None)
        self.assertEqual(self.server.dials, 3)
        self.assertEqual(self.log.lines[2:], ["lost 1 1001", "connected 1/2"])
        stopped = maybeDeferred(port.stopListening)
        self.successResultOf(stopped)
        self.assertTrue(old.closed)

    def test_going_away_at_once(self) -> None:
        """One that says so again and again is not asked again and again."""
        self.start()
        self.server.lines[0].leaving.callback(None)
        self.assertEqual(self.server.dials, 2)

    def test_native(self) -> None:
        """The native dialect is offered where the tunnel lists it."""
        self.assertFalse(tunnel().speaks_native)
        for protocols, native in ((["exposr-tx.1"], True), (["x"], False), ("exposr-tx.1", False)):
            listed = Tunnel({"transport": {"ws": {"protocols": protocols}}})
            self.assertIs(listed.speaks_native, native)

    def test_listen(self) -> None:
        """listen fires with a port that knows the public URL."""
        endpoint = TunnelEndpoint(self.clock, self.server, self.server.dial, Half(0))
        port = self.successResultOf(endpoint.listen(Factory.forProtocol(Protocol)))
        self.assertEqual(port.getHost(), TunnelAddress("abcd", ("http://abcd.h/",)))
        self.successResultOf(maybeDeferred(port.stopListening))

    def test_listen_fails(self) -> None:
        """listen errbacks with what makes it impossible."""
        self.server.prepare_errors = [BadInput("no")]
        endpoint = TunnelEndpoint(self.clock, self.server, self.server.dial, Half(0))
        self.failureResultOf(endpoint.listen(Factory.forProtocol(Protocol)), BadInput)

    def test_listen_cancelled(self) -> None:
        """A cancelled listen leaves nothing behind."""
        self.server.prepare_errors = [ServerUnreachable("x")] * 9
        endpoint = TunnelEndpoint(self.clock, self.server, self.server.dial, Half(0))
        listening = endpoint.listen(Factory.forProtocol(Protocol))
        listening.cancel()
        self.failureResultOf(listening)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_reconnects(self) -> None:
        """A lost connection comes back within a moment, only that one."""
        self.start()
        self.server.lines[0].end(1006, "gone")
        self.assertEqual(self.server.dials, 2)
        self.clock.advance(0.1)
        self.assertEqual(self.server.dials, 3)
        self.assertEqual(self.log.lines[2:], ["lost 1 1006", "connected 1/2"])

    def test_backs_off(self) -> None:
        """A server that is away is asked rarer and rarer."""
        self.start()
        self.server.errors = [ServerUnreachable("away")] * 4
        self.server.lines[0].end(1001, "")
        for wait in (0.05, 0.1, 0.2, 0.4):
            self.clock.advance(wait * 0.99)
            left = len(self.server.errors)
            self.clock.advance(wait * 0.02)
            self.assertEqual(len(self.server.errors), left - 1)
        self.clock.advance(0.8)
        self.assertEqual(self.log.lines[-1], "connected 1/2")

    def test_final_goodbyes(self) -> None:
        """Disconnected, deleted and disabled end the tunnel for good."""
        for reason in ("disconnected", "deleted", "disabled"):
            self.server = Server()
            port = self.start()
            self.server.lines[1].end(1008, reason)
            failure = self.failureResultOf(port.ended, TunnelEnded)
            self.assertIn(reason, str(failure.value))
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_crowded(self) -> None:
        """A connection over the limit is tried again after five seconds."""
        self.start()
        self.server.lines[1].end(1008, "unable to establish tunnel")
        self.clock.advance(4.9)
        self.assertEqual(self.server.dials, 2)
        self.clock.advance(0.2)
        self.assertEqual(self.server.dials, 3)

    def test_fewer_connections(self) -> None:
        """A server that comes back with a lower limit is not asked for more than it takes; when it
        takes more again, it has them within a minute."""
        self.start()
        self.server.connections = 1
        for line in self.server.lines[:2]:
            line.end(1001, "")
        self.clock.advance(30)
        self.assertEqual(self.server.dials, 3)
        told = ["connected 1/2", "connected 2/2", "lost 1 1001", "lost 2 1001", "connected 1/1"]
        self.assertEqual(self.log.lines, told)
        self.server.connections = 2
        self.clock.pump([15] * 4)
        self.assertEqual(self.log.lines, [*told, "connected 2/2"])

    def test_first_contact_is_retried(self) -> None:
        """A client that starts before its server waits for it."""
        self.server.prepare_errors = [ServerUnreachable("away")] * 3
        self.start()
        self.clock.pump([0.1] * 10)
        self.assertEqual(self.log.lines[-1], "connected 2/2")

    def test_a_server_that_is_not_trusted(self) -> None:
        """It will not be trusted the next time either: that is the end, and not tried again."""
        self.server.prepare_errors = [NotTrusted("its certificate has expired")]
        self.failureResultOf(self.start().ended, NotTrusted)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_retry(self) -> None:
        """Without retrying, the first failure and the first loss are the end."""
        self.server.prepare_errors = [ServerUnreachable("away")]
        self.failureResultOf(self.start(retry=False).ended, ServerUnreachable)
        port = self.start(retry=False)
        self.server.lines[0].end(1006, "")
        self.failureResultOf(port.ended, ServerUnreachable)

    def test_unknown_account_for_a_minute(self) -> None:
        """An account that the server does not know is given up after a minute."""
        port = self.start()
        self.server.errors = [AccountRefused("who?")] * 1000
        self.server.lines[0].end(1006, "")
        self.clock.pump([0.05] * 1180)
        self.assertNoResult(port.ended)
        self.clock.pump([1] * 30)
        self.failureResultOf(port.ended, AccountRefused)

    def test_account_known_again(self) -> None:
        """The minute begins anew when the account has been known in between."""
        port = self.start()
        for _ in range(3):
            self.server.errors = [AccountRefused("who?")] * 8
            self.server.lines[-1].end(1006, "")
            self.clock.pump([0.1] * 1000)
        self.assertNoResult(port.ended)

    def test_deleted_meanwhile(self) -> None:
        """A tunnel that is gone when we come back ends the run."""
        port = self.start()
        self.server.errors = [ServerRefusal("gone", "TUNNEL_NOT_FOUND", 404, "")]
        self.server.lines[0].end(1006, "")
        self.clock.advance(1)
        self.failureResultOf(port.ended, ServerRefusal)

    def test_server_errors_are_retried(self) -> None:
        """A server that stumbles while we come back does not end the run."""
        port = self.start()
        self.server.errors = [ServerRefusal("oops", "UNKNOWN_ERROR", 500, "")]
        self.server.lines[0].end(1006, "")
        self.clock.pump([0.1] * 10)
        self.assertNoResult(port.ended)
        self.assertEqual(self.log.lines[-1], "connected 1/2")

    def test_stop(self) -> None:
        """Stopping closes all connections, and nothing is left running."""
        port = self.start()
        self.server.lines[0].end(1006, "")  # one is waiting
        self.successResultOf(port.stopListening())
        self.successResultOf(port.ended)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_waits(self) -> None:
        """It is over when every connection is closed, also one that the server is leaving."""
        port = self.start()
        self.clock.advance(5)
        old = self.server.lines[0]
        old.leaving.callback(None)
        old.close = lambda: None  # type: ignore[method-assign] # which takes a moment
        stopped = port.stopListening()
        self.assertNoResult(stopped)
        old.end(1000, "")
        self.successResultOf(stopped)

    def test_nobody_new(self) -> None:
        """What an existing exposrd, which cannot be asked, still sends is turned away."""
        port = self.start()
        gate = self.server.gate
        self.assertIsNotNone(gate.buildProtocol(None))
        self.server.lines[0].streams = 1
        port.drain(3.0)
        self.assertIsNone(gate.buildProtocol(None))

    def test_drain(self) -> None:
        """Every connection is left at once, and closed with its last stream or when time is up."""
        for ends, seconds in ((True, 1.0), (False, 3.0)):
            self.setUp()
            port = self.start()
            first, second = self.server.lines
            first.streams = second.streams = 1
            drained = port.drain(3.0)
            self.assertTrue(first.left and second.left)
            self.clock.pump([0.05] * 19)
            first.streams = second.streams = 0 if ends else 1
            self.assertEqual((port.streams, first.closed), (0 if ends else 2, False))
            self.assertNoResult(drained)
            self.clock.pump([0.05] * int((seconds - 0.9) / 0.05))
            self.successResultOf(drained)
            self.successResultOf(port.ended)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lost_while_draining(self) -> None:
        """A connection that is lost then is not made again; one that comes late is left too."""
        hang: Deferred[None] = Deferred()
        port = self.start()
        first, second = self.server.lines
        first.streams = 1
        second.end(1006, "")
        self.server.hang = hang
        self.clock.advance(10)
        drained = port.drain()
        hang.callback(None)
        third = self.server.lines[-1]
        self.assertTrue(third.left)
        third.end(1001, "going")
        self.clock.advance(1)
        self.assertEqual(self.server.dials, 3)
        first.streams = 0
        self.clock.advance(1)
        self.successResultOf(drained)

    def test_stop_while_preparing(self) -> None:
        """Stopping does not wait for a server that does not answer."""
        self.server.hang = Deferred()
        port = self.start()
        self.successResultOf(port.stopListening())

    def test_bugs_are_not_retried(self) -> None:
        """What nobody expected ends the run with its own error."""
        port = self.start()
        self.server.errors = [ZeroDivisionError()]
        self.server.lines[0].end(1006, "")
        self.clock.advance(1)
        self.failureResultOf(port.ended, ZeroDivisionError)
