"""The tunnel in memory that users test with: it behaves as a real one."""

from __future__ import annotations

import unittest
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface import implementer

from exposr_tx.testing import Tunnel


class Mirror(Resource):
    """Answers a POST with its body, a GET when the test says so."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.ready: Deferred[bytes] = Deferred()

    def render_POST(self, request: Request) -> Any:
        assert request.content is not None
        request.setHeader(b"content-type", b"application/json")
        return request.content.read()

    def render_GET(self, request: Request) -> Any:
        def answer(text: bytes) -> None:
            request.write(text)
            request.finish()

        self.ready.addCallback(answer)
        return NOT_DONE_YET


@implementer(IPushProducer)
class Flood(Protocol):
    """Writes a lot when it is asked to, and remembers its end."""

    size = 4 * 1024 * 1024

    def __init__(self) -> None:
        self.paused = False
        self.sent = 0
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        IConsumer(self.transport).registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self.paused = False
        assert self.transport is not None
        while not self.paused and self.sent < self.size:
            self.transport.write(b"x" * 4096)
            self.sent += 4096

    def pauseProducing(self) -> None:
        self.paused = True

    def stopProducing(self) -> None:
        self.paused = True

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True


class Floods(Factory):
    def buildProtocol(self, addr: object) -> Flood:
        self.last = Flood()
        return self.last


class TunnelTests(SynchronousTestCase):
    """exposr_tx.testing.Tunnel."""

    def site(self) -> Tunnel:
        reactor = MemoryReactorClock()
        self.mirror = Mirror()
        tunnel = Tunnel(Site(self.mirror, reactor=reactor), reactor=reactor)
        self.addCleanup(tunnel.close)
        return tunnel

    def flood(self) -> Tunnel:
        self.floods = Floods()
        tunnel = Tunnel(self.floods, "tcp")
        self.addCleanup(tunnel.close)
        return tunnel

    def test_request(self) -> None:
        """A request is treq's, and so is its answer, which is complete."""
        answer = self.successResultOf(self.site().post("/", json={"a": ["b"] * 10000}))
        self.assertEqual(answer.code, 200)
        self.assertEqual(self.successResultOf(answer.json()), {"a": ["b"] * 10000})

    def test_late_answer(self) -> None:
        """A program that answers later is carried on by flush."""
        tunnel = self.site()
        answering = tunnel.get("/")
        self.assertNoResult(answering)
        self.mirror.ready.callback(b"late")
        tunnel.flush()
        answer = self.successResultOf(answering)
        self.assertEqual(self.successResultOf(answer.content()), b"late")

    def test_bytes(self) -> None:
        """A visitor sends and gets bytes as they are, in as many pieces as one likes."""
        tunnel = self.site()
        visitor = tunnel.visitor()
        for (
            letter
        ) in b"POST / HTTP/1.1\r\nHost: testing.tunnels.test\r\nContent-Length: 2\r\n\r\nhi":
            visitor.send(bytes([letter]))
        self.assertTrue(visitor.take().endswith(b"\r\n\r\nhi"))
        self.assertEqual(visitor.received, b"")
        self.assertFalse(visitor.closed)

    def test_other_host(self) -> None:
        """What is not the tunnel's is the server's to answer."""
        visitor = self.site().visitor()
        visitor.send(b"GET / HTTP/1.1\r\nHost: nobody.tunnels.test\r\n\r\n")
        self.assertTrue(visitor.received.startswith(b"HTTP/1.1 404"))

    def test_back_pressure(self) -> None:
        """A visitor who does not read pauses the protocol behind the tunnel."""
        tunnel = self.flood()
        visitor = tunnel.visitor()
        visitor.pause()
        visitor.send(b"go")
        self.assertTrue(self.floods.last.paused)
        self.assertLess(self.floods.last.sent, Flood.size)
        visitor.resume()
        tunnel.advance(1)
        self.assertEqual(len(visitor.received), Flood.size)

    def test_visitor_leaves(self) -> None:
        """The protocol behind the tunnel is told when its visitor hangs up."""
        tunnel = self.flood()
        visitor = tunnel.visitor()
        visitor.close()
        tunnel.advance(0.5)
        self.assertTrue(self.floods.last.lost)
        self.assertTrue(visitor.closed)

    def test_options(self) -> None:
        """The server takes its options, here a limit of its own."""
        reactor = MemoryReactorClock()
        site = Site(Mirror(), reactor=reactor)
        tunnel = Tunnel(site, reactor=reactor, options=["--limit-request-body=99"])
        self.addCleanup(tunnel.close)
        self.assertEqual(self.successResultOf(tunnel.post("/", data=b"x" * 100)).code, 413)

    def test_repr(self) -> None:
        """It says what it is."""
        self.assertIn("testing open http://testing.tunnels.test/", repr(self.site()))


class DocumentationTests(SynchronousTestCase):
    """docs/howto/testing.md."""

    def test_example(self) -> None:
        """The page's test case passes as it stands there."""
        page = (Path(__file__).resolve().parents[1] / "docs" / "howto" / "testing.md").read_text()
        names: dict[str, Any] = {"__name__": "example"}
        exec(page.split("```python\n")[1].split("```")[0], names)
        result = unittest.TestResult()
        unittest.TestLoader().loadTestsFromTestCase(names["PageTests"]).run(result)
        self.assertEqual((result.testsRun, result.errors, result.failures), (3, [], []))
