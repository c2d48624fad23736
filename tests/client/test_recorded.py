"""Programs behind a tunnel that are recorded, through a whole tunnel in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Site

from exposr_tx.client.recorded import RecordedFactory
from exposr_tx.inspection.recorder import Recorder
from exposr_tx.testing import VISITOR, Tunnel
from tests.client.test_listening import Pages
from tests.inspection.test_recorder import Watching


class RecordedTests(SynchronousTestCase):
    """A Site."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.pages = Pages()
        self.watching = Watching()
        recorder = Recorder([self.watching], seconds=self.reactor.seconds)
        factory = RecordedFactory(
            Site(self.pages, reactor=self.reactor),
            lambda visitor: recorder.recording("testing", "", visitor),
        )
        self.tunnel = Tunnel(factory, reactor=self.reactor)
        self.addCleanup(self.tunnel.close)

    def test_exchange(self) -> None:
        """What passes is what it was without, and is recorded."""
        answer = self.successResultOf(self.tunnel.get("/x"))
        self.assertEqual(self.successResultOf(answer.text()), "testing.tunnels.test")
        (exchange,) = self.watching.ends
        self.assertEqual(exchange.url, "http://testing.tunnels.test/x")
        self.assertEqual(exchange.response_body.data, b"testing.tunnels.test")
        self.assertEqual((exchange.visitor, exchange.state), (VISITOR.host, "complete"))

    def test_origin(self) -> None:
        """The program still sees who its visitor is."""
        self.tunnel.get("/slow")
        (request,) = self.pages.waiting
        stream: Any = request.transport
        self.assertEqual(stream.origin.peer, VISITOR)
        self.assertEqual(request.getClientAddress(), VISITOR)

    def test_program_breaks_off(self) -> None:
        """A program that breaks its connection off is told as the reason."""
        failing = self.tunnel.get("/slow")
        (request,) = self.pages.waiting
        transport: Any = request.transport
        transport.abortConnection()
        self.tunnel.advance(1)
        self.assertEqual(self.successResultOf(failing).code, 502)
        self.assertIn("the program broke", self.watching.ends[0].error)

    def test_closing(self) -> None:
        """Idle connections do not hold up the end."""
        self.tunnel.get("/")
        closing = self.tunnel.port.stopListening()
        self.tunnel.advance(1)
        self.successResultOf(closing)
        self.assertEqual(len(self.watching.ends), 1)
