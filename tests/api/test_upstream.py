"""The in-memory way to a Site: bytes in order, back pressure, and ends."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IConsumer, IPushProducer, ITransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface.verify import verifyObject

from exposr_tx.api import SiteUpstream
from exposr_tx.errors import UpstreamGone
from exposr_tx.interfaces import IUpstream, Origin
from tests.api.rig import VISITOR, Visitor, read

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
ORIGIN = Origin("api", VISITOR, "http://x")


class _Page(Resource):
    """Answers when it is told to."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Request] = []
        self.ended: list[Deferred[None]] = []

    def render_GET(self, request: Request) -> int:
        self.requests.append(request)
        self.ended.append(request.notifyFinish())
        return NOT_DONE_YET

    render_POST = render_GET


class _Flood:
    """A push producer that counts its pauses."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


class _Pull(_Flood):
    """A pull producer of ten pieces."""

    consumer: Request

    def resumeProducing(self) -> None:
        super().resumeProducing()
        if len(self.calls) > 10:
            self.consumer.unregisterProducer()
            self.consumer.finish()
        else:
            self.consumer.write(b"%d" % (len(self.calls) - 1))


class UpstreamTests(SynchronousTestCase):
    """Streams to a Site."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.page = _Page()
        site = Site(self.page, reactor=self.clock, timeout=60)
        self.upstream = SiteUpstream(site, self.clock, lambda: 1000.5)

    def connect(self) -> tuple[Visitor, ITransport]:
        connecting = self.upstream.connect(Factory.forProtocol(Visitor), ORIGIN)
        visitor = self.successResultOf(connecting)
        assert isinstance(visitor, Visitor) and visitor.transport is not None
        return visitor, visitor.transport

    def turn(self) -> None:
        for _ in range(30):
            self.clock.advance(0)

    def test_interface(self) -> None:
        """It is an upstream like any other, whose streams are transports."""
        verifyObject(IUpstream, self.upstream)
        visitor, transport = self.connect()
        for interface in (ITransport, IConsumer, IPushProducer):
            self.assertTrue(interface.providedBy(transport))
        self.assertTrue(self.successResultOf(self.upstream.probe()))
        self.assertEqual(self.upstream.alive_at, 1_000_500)

    def test_request(self) -> None:
        """A request reaches the Site, which knows the visitor, and its answer comes back."""
        visitor, transport = self.connect()
        transport.write(GET)
        self.assertEqual([], self.page.requests, "delivered inside write()")
        self.turn()
        (request,) = self.page.requests
        self.assertEqual(VISITOR, request.getClientAddress())
        self.assertIs(ORIGIN, cast(Any, request.transport).origin)
        request.write(b"hello")
        request.finish()
        self.assertEqual(b"", visitor.received, "delivered inside write()")
        self.turn()
        self.assertEqual(b"hello", read("GET", visitor.received).body)

    def test_keep_alive(self) -> None:
        """A stream carries one request after another."""
        visitor, transport = self.connect()
        for number in range(3):
            transport.write(GET)
            self.turn()
            self.page.requests[number].finish()
            self.turn()
        self.assertEqual(3, visitor.received.count(b"HTTP/1.1 200 OK"))

    def test_large_head(self) -> None:
        """A head as large as ingress lets through is no trouble for the Site."""
        visitor, transport = self.connect()
        transport.write(GET[:-2] + b"X: " + b"x" * 32768 + b"\r\n\r\n")
        self.turn()
        self.assertEqual(1, len(self.page.requests))

    def test_no_timeouts(self) -> None:
        """The Site does not hang up by itself: ingress has the deadlines."""
        visitor, transport = self.connect()
        self.clock.advance(1000)
        transport.write(GET)
        self.turn()
        self.assertEqual(1, len(self.page.requests))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_visitor_leaves(self) -> None:
        """A visitor who leaves ends the request that is being answered."""
        for leave in ("loseConnection", "abortConnection"):
            visitor, transport = self.connect()
            transport.write(GET)
            self.turn()
            getattr(transport, leave)()
            self.turn()
            reason = ConnectionDone if leave == "loseConnection" else ConnectionAborted
            assert visitor.lost is not None
            self.assertTrue(visitor.lost.check(reason))
            self.failureResultOf(self.page.ended[-1])
        self.assertEqual("<SiteUpstream 0 streams>", repr(self.upstream))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_site_closes(self) -> None:
        """What the Site wrote before it closed arrives before the end."""
        visitor, transport = self.connect()
        transport.write(GET[:-2] + b"Connection: close\r\n\r\n")
        self.turn()
        self.page.requests[0].write(b"x" * 200_000)
        self.page.requests[0].finish()
        self.turn()
        self.assertEqual(200_000, len(read("GET", visitor.received).body))
        assert visitor.lost is not None
        self.assertTrue(visitor.lost.check(ConnectionDone))
        transport.write(b"too late")
        transport.loseConnection()
        self.turn()

    def test_back_pressure(self) -> None:
        """Who writes faster than the visitor reads is paused until all has arrived."""
        visitor, transport = self.connect()
        transport.write(GET)
        self.turn()
        (request,) = self.page.requests
        flood = _Flood()
        request.registerProducer(flood, True)
        assert IPushProducer.providedBy(transport)
        transport.pauseProducing()
        request.write(b"x" * 100_000)
        self.turn()
        self.assertEqual((["pause"], b""), (flood.calls, visitor.received))
        transport.resumeProducing()
        self.turn()
        self.assertEqual(["pause", "resume"], flood.calls)
        self.assertGreater(len(visitor.received), 100_000)

    def test_pull(self) -> None:
        """A pull producer is asked again and again."""
        visitor, transport = self.connect()
        transport.write(GET)
        self.turn()
        pull = _Pull()
        pull.consumer = self.page.requests[0]
        # twisted.web turns pull producers into push producers on the global
        # reactor, so this one is registered with the stream itself.
        server: Any = pull.consumer.transport
        server.unregisterProducer()
        server.registerProducer(pull, False)
        self.patch(pull.consumer, "unregisterProducer", server.unregisterProducer)
        self.turn()
        self.assertEqual(b"0123456789", read("GET", visitor.received).body)

    def test_close(self) -> None:
        """A closed upstream ends its streams and opens no more."""
        visitor, _ = self.connect()
        self.upstream.close(1001, "shutting down")
        self.turn()
        self.assertIsNotNone(visitor.lost)
        connecting = self.upstream.connect(Factory.forProtocol(Protocol), ORIGIN)
        self.failureResultOf(connecting, UpstreamGone)
        self.assertFalse(self.upstream.accepting)
