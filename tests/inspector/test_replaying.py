"""Requests sent again."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.errors import TargetFailed
from exposr_tx.inspection.exchanges import Exchange, State
from exposr_tx.inspection.recorder import Recorder
from exposr_tx.inspection.replays import Edit, NotReplayable, not_replayable
from exposr_tx.inspection.ring import Ring
from exposr_tx.inspector.replaying import TIME_LIMIT, Replayer
from tests.inspector.visits import request, response

SENT = request("POST /hook", b"body", "X-oDD:  1")


class ReplayerTests(SynchronousTestCase):
    """Replayer."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.ring = Ring()
        self.recorder = Recorder([self.ring], seconds=self.clock.seconds)
        self.replayer = Replayer(self.recorder, self.clock)
        self.refused = False
        self.transport = StringTransport()
        self.remove = self.replayer.add(lambda: "my-tunnel", self.connect)
        self.original = self.recorded(SENT)

    def connect(self, factory: Any) -> Deferred[Any]:
        if self.refused:
            return fail(ConnectionRefusedError())
        self.protocol = factory.buildProtocol(None)
        waiting: Deferred[Any] = Deferred()
        self.transport = StringTransport()
        self.protocol.makeConnection(self.transport)
        waiting.callback(self.protocol)
        return waiting

    def recorded(self, data: bytes) -> Exchange:
        recording = self.recorder.recording("my-tunnel", "http://localhost:3000/")
        recording.connected()
        recording.sent(data)
        return list(self.ring)[-1]

    def replay(self, edit: Edit | None = None) -> Deferred[Exchange]:
        return Deferred.fromCoroutine(self.replayer.replay(self.original, edit))

    def test_exact(self) -> None:
        """The target gets the same bytes; the new exchange says what it repeats."""
        made = self.successResultOf(self.replay())
        self.assertEqual(self.transport.value(), SENT)
        self.assertEqual((made.replay_of, made.tunnel), (self.original.id, "my-tunnel"))
        self.assertIs(made.state, State.RUNNING)
        self.assertEqual([exchange.id for exchange in self.ring], [self.original.id, made.id])

    def test_answered(self) -> None:
        """When the response has ended, the connection is closed and the exchange complete."""
        made = self.successResultOf(self.replay())
        self.protocol.dataReceived(response(b"hello")[:-1])
        self.assertFalse(self.transport.disconnecting)
        self.protocol.dataReceived(b"o")
        self.assertTrue(self.transport.disconnecting)
        self.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((made.state, made.response_body.data), (State.COMPLETE, b"hello"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nonsense(self) -> None:
        """A target that speaks no HTTP ends it; the exchange tells."""
        made = self.successResultOf(self.replay())
        self.protocol.dataReceived(b"nonsense\r\n\r\n")
        self.assertTrue(self.transport.disconnecting)
        self.assertIs(made.state, State.FAILED)
        self.assertIn("does not parse", made.error)

    def test_endless(self) -> None:
        """A response without an end is left after a time."""
        made = self.successResultOf(self.replay())
        self.clock.advance(TIME_LIMIT - 1)
        self.assertFalse(self.transport.disconnected)
        self.clock.advance(1)
        self.assertTrue(self.transport.disconnected)
        self.assertIn("within 300 s", made.error)

    def test_what_does_not_parse(self) -> None:
        """What was made of a request may be nonsense: it is sent, and the exchange tells so."""
        edit = Edit(fields=((b"Host", b"a"), (b"Host", b"b")))
        made = self.successResultOf(self.replay(edit))
        self.assertIn(b"Host: b\r\n", self.transport.value())
        self.assertIs(made.state, State.FAILED)
        self.assertIn("exactly one Host", made.error)

    def test_unreachable(self) -> None:
        """A target that cannot be connected is an error, and shown among the exchanges."""
        self.refused = True
        self.failureResultOf(self.replay(), TargetFailed)
        failed = list(self.ring)[-1]
        self.assertIs(failed.state, State.FAILED)
        self.assertIn("cannot connect to the target", failed.error)
        # It can be seen what was to be sent, and sent again.
        self.assertEqual(failed.request.raw + failed.request_body.data, SENT)
        self.assertEqual(not_replayable(failed), "")

    def test_closed_tunnel(self) -> None:
        """Of a tunnel that is closed nothing is sent any more."""
        self.remove()
        failure = self.failureResultOf(self.replay(), TargetFailed)
        self.assertIn("my-tunnel is closed", str(failure.value))

    def test_refused(self) -> None:
        """What cannot be repeated is refused before anything is connected."""
        self.original = self.recorded(SENT[:-1])
        self.failureResultOf(self.replay(), NotReplayable)
        self.assertEqual(self.transport.value(), b"")
