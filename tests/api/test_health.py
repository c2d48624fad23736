"""The admin port: is the process there, and does it want requests."""

from __future__ import annotations

from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.api import Health, SiteUpstream, admin_site
from exposr_tx.interfaces import Origin
from tests.api.rig import VISITOR, Response, Visitor, read


class HealthTests(SynchronousTestCase):
    """What balancers and container runtimes ask."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.health = Health()
        self.site = admin_site(self.health, self.clock)

    def get(self, path: str, method: str = "GET") -> Response:
        upstream = SiteUpstream(self.site, self.clock)
        connecting = upstream.connect(Factory.forProtocol(Visitor), Origin("api", VISITOR))
        visitor = self.successResultOf(connecting)
        assert isinstance(visitor, Visitor) and visitor.transport is not None
        visitor.transport.write(f"{method} {path} HTTP/1.1\r\nHost: evil.test\r\n\r\n".encode())
        for _ in range(10):
            self.clock.advance(0)
        return read(method, visitor.received)

    def test_ping(self) -> None:
        """/ping is OK as long as the process runs."""
        for change in (lambda: None, self.health.ready, self.health.draining):
            change()
            answer = self.get("/ping")
            self.assertEqual((200, b"OK"), (answer.status, answer.body))

    def test_health(self) -> None:
        """/health is red with a reason while starting and draining."""
        self.assertEqual((503, "starting"), self.state())
        self.health.ready()
        self.assertEqual(200, self.get("/health").status)
        self.health.draining()
        self.assertEqual((503, "draining"), self.state())

    def test_verbose(self) -> None:
        """?verbose adds what an operator wants to know; balancers are not shown it."""
        self.health.details["policies"] = lambda: {"allowed": 2}
        for change, status in ((self.health.ready, 200), (self.health.draining, 503)):
            change()
            answer = self.get("/health?verbose")
            self.assertEqual((answer.status, answer.json["policies"]), (status, {"allowed": 2}))
            self.assertNotIn("policies", self.get("/health").json)

    def test_nothing_else(self) -> None:
        """The port answers nothing else, and names no software."""
        for method, path in (("GET", "/"), ("GET", "/v1/tunnel"), ("POST", "/health")):
            self.assertEqual(404, self.get(path, method).status)
        self.assertNotIn("server", self.get("/ping").fields)
        self.assertEqual(200, self.get("/ping", "HEAD").status)

    def test_no_timer(self) -> None:
        """Listening starts no clock of its own."""
        self.site.doStart()
        self.assertEqual([], self.clock.getDelayedCalls())
        self.site.doStop()

    def state(self) -> tuple[int, str]:
        answer = self.get("/health")
        return answer.status, answer.json["reason"]
