"""Listening in public, through a whole tunnel in memory."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface.verify import verifyObject

from exposr_tx.client import Access, Events, PublicEndpoint
from exposr_tx.client import Tunnel as TunnelJson
from exposr_tx.client.accounts_file import AccountsFile
from exposr_tx.client.answers import AccountRefused
from exposr_tx.client.listening import HERE
from exposr_tx.client.settings import Change
from exposr_tx.client.tunnel import OwnTunnel
from exposr_tx.testing import VISITOR, Tunnel
from exposr_tx.transport.websocket import Lost
from tests.client.exposrd import Exposrd


class Pages(Resource):
    """``/`` answers with the Host; ``/slow`` when the test says so."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Request] = []

    def render_GET(self, request: Request) -> Any:
        if request.path == b"/slow":
            self.waiting.append(request)
            return NOT_DONE_YET
        return (request.getHeader("host") or "").encode()


class Echo(Protocol):
    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


class Answering(Protocol):
    """HTTP as a target behind the script speaks it: nobody here knows where a request ends."""

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")


class Seen(Events):
    """Events in lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def url(self, url: str) -> None:
        self.lines.append(f"url {url}")

    def connected(self, tunnel: TunnelJson, number: int, total: int) -> None:
        self.lines.append(f"connected {number}/{total}")

    def lost(self, tunnel: TunnelJson, number: int, lost: Lost) -> None:
        self.lines.append(f"lost {number}")

    def waiting(self, error: Exception, seconds: float) -> None:
        self.lines.append("waiting")

    def ended(self, error: Exception | None) -> None:
        self.lines.append(f"ended {error}")


class ListeningTests(SynchronousTestCase):
    """PublicEndpoint and PublicPort."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.pages = Pages()
        self.site = Site(self.pages, reactor=self.reactor)
        self.events = Seen()

    def tunnel(self, **more: Any) -> Tunnel:
        tunnel = Tunnel(self.site, reactor=self.reactor, events=self.events, **more)
        self.addCleanup(tunnel.close)
        return tunnel

    def test_address(self) -> None:
        """The port's address is the public one, also for who knows host and port only."""
        port = self.tunnel().port
        self.assertTrue(verifyObject(IListeningPort, port))
        address = port.getHost()
        self.assertEqual(str(address), "http://testing.tunnels.test/")
        self.assertEqual((address.host, address.port), ("testing.tunnels.test", 80))
        self.assertIn("http://testing.tunnels.test/", repr(address))
        self.assertIn("http://testing.tunnels.test/", repr(port))

    def test_log(self) -> None:
        """One line of the log says where; none holds the account's number."""
        lines: list[LogEvent] = []
        observer = cast(ILogObserver, lines.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.tunnel()
        public = [line for line in lines if line.get("event") == "public"]
        self.assertEqual([line["url"] for line in public], ["http://testing.tunnels.test/"])

    def test_public_host(self) -> None:
        """The program sees the host that its visitor wrote."""
        answer = self.successResultOf(self.tunnel().get("/"))
        self.assertEqual(self.successResultOf(answer.text()), "testing.tunnels.test")

    def test_origin(self) -> None:
        """A program can see who its visitor is, and which address of the server he came to."""
        tunnel = self.tunnel()
        tunnel.get("/slow")
        (request,) = self.pages.waiting
        stream: Any = request.transport
        origin = stream.origin
        self.assertEqual((origin.kind, origin.peer, origin.tls), ("http", VISITOR, None))
        self.assertEqual((origin.host.host, origin.host.port), ("192.0.2.1", 80))

    def test_tcp(self) -> None:
        """Any protocol runs behind a public port."""
        tunnel = Tunnel(Factory.forProtocol(Echo), "tcp")
        self.addCleanup(tunnel.close)
        self.assertEqual(tunnel.url, "tcp://tunnels.test:20000")
        self.assertEqual(tunnel.port.getHost().port, 20000)
        visitor = tunnel.visitor()
        visitor.send(b"hello")
        self.assertEqual(visitor.received, b"hello")

    def test_events(self) -> None:
        """A program is told of URL, connections, losses and the end."""
        tunnel = self.tunnel()
        url = "url http://testing.tunnels.test/"
        self.assertEqual(self.events.lines, [url, "connected 1/2", "connected 2/2"])
        tunnel.lose_connections()
        tunnel.advance(1)
        lines = self.events.lines[3:]
        self.assertEqual(lines.count("lost 1") + lines.count("lost 2"), 2)
        self.assertEqual(len([line for line in lines if line.startswith("connected")]), 2)
        tunnel.close()
        self.assertEqual(self.events.lines[-1], "ended None")

    def test_ended_by_the_server(self) -> None:
        """What the server ends for good is told and logged, and does not come back."""
        tunnel = self.tunnel()
        tunnel._rooms._switchboard.disconnect("testing", "disconnected")
        tunnel.advance(3)
        self.assertEqual(
            self.events.lines[-1], "ended the server has ended the tunnel: disconnected"
        )
        self.successResultOf(tunnel.port.close())

    def test_bad_listener(self) -> None:
        """What a listener raises is logged, and the tunnel goes on."""

        def broken(*_: object) -> None:
            raise ZeroDivisionError

        self.events.connected = broken  # type: ignore[assignment,method-assign]
        tunnel = self.tunnel()
        self.assertEqual(self.successResultOf(tunnel.get("/")).code, 200)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_reconnects(self) -> None:
        """A lost network comes back by itself."""
        tunnel = self.tunnel()
        tunnel.lose_connections()
        tunnel.advance(1)
        self.assertEqual(self.successResultOf(tunnel.get("/")).code, 200)

    def test_running_request_ends(self) -> None:
        """Closing waits for a request that runs, then deletes the tunnel that was made."""
        tunnel = self.tunnel()
        answer = tunnel.get("/slow")
        tunnel.get("/")  # leaves a connection behind that waits for the next request
        closing = tunnel.port.stopListening()
        tunnel.advance(1)
        self.assertNoResult(closing)
        self.pages.waiting[0].write(b"at last")
        self.pages.waiting[0].finish()
        tunnel.advance(0.2)
        self.assertEqual(self.successResultOf(answer).code, 200)
        tunnel.advance(1)
        self.successResultOf(closing)
        self.assertEqual(self.successResultOf(tunnel.get("/")).code, 404)

    def test_no_new_streams(self) -> None:
        """While it closes, nobody else comes in."""
        tunnel = self.tunnel()
        tunnel.get("/slow")
        tunnel.port.stopListening()
        self.assertEqual(self.successResultOf(tunnel.get("/")).code, 503)
        self.assertEqual(len(self.pages.waiting), 1)

    def test_kept_streams_end(self) -> None:
        """A stream that the server keeps for further requests holds nobody up."""
        tunnel = Tunnel(Factory.forProtocol(Answering))
        self.addCleanup(tunnel.close)
        self.assertEqual(self.successResultOf(tunnel.get("/")).code, 200)
        closing = tunnel.port.stopListening()
        tunnel.advance(0.2)
        self.successResultOf(closing)

    def test_one_connection_is_full(self) -> None:
        """What one connection takes no more streams for goes by another."""
        tunnel = self.tunnel()
        port: Any = tunnel.port._port
        connections = list(port._carriers)
        connections[0].session.native._max_streams = 0
        for _ in range(4):
            tunnel.get("/slow")
        self.assertEqual(len(self.pages.waiting), 4)
        connections[1].session.native._max_streams = 0
        self.assertEqual(self.successResultOf(tunnel.get("/slow")).code, 503)

    def test_one_tcp_connection_is_full(self) -> None:
        """The same holds for a TCP port's visitors, who may have sent something already."""
        tunnel = Tunnel(Factory.forProtocol(Echo), "tcp")
        self.addCleanup(tunnel.close)
        port: Any = tunnel.port._port
        connections = list(port._carriers)
        connections[0].session.native._max_streams = 0
        for _ in range(4):
            visitor = tunnel.visitor()
            visitor.send(b"hello")
            self.assertEqual(visitor.received, b"hello")
        connections[1].session.native._max_streams = 0
        visitor = tunnel.visitor()
        visitor.send(b"hello")
        self.assertTrue(visitor.closed)

    def test_bounded(self) -> None:
        """A request that does not end is cut when the grace period is over."""
        tunnel = self.tunnel(grace=3.0)
        answer = tunnel.get("/slow")
        closing = tunnel.port.stopListening()
        tunnel.advance(2.9)
        self.assertNoResult(closing)
        tunnel.advance(0.3)
        self.successResultOf(closing)
        self.assertIn(self.successResultOf(answer).code, (502, 503))

    def test_stopped_twice(self) -> None:
        """Each who stops it is told when it is over."""
        tunnel = self.tunnel()
        first, second = tunnel.port.stopListening(), tunnel.port.stopListening()
        tunnel.advance(0.2)
        self.successResultOf(first)
        self.successResultOf(second)
        self.successResultOf(tunnel.port.stopListening())

    def test_a_factory_that_does_not_start(self) -> None:
        """Who listens with it is told why it cannot be."""
        self.patch(self.site, "doStart", lambda: 1 / 0)
        self.assertRaises(ZeroDivisionError, Tunnel, self.site, reactor=self.reactor)

    def test_a_factory_that_does_not_stop(self) -> None:
        """Listening is over all the same, and the log has what happened."""
        tunnel = self.tunnel()
        self.patch(self.site, "doStop", lambda: 1 / 0)
        stopped = tunnel.port.stopListening()
        tunnel.advance(0.2)
        self.successResultOf(stopped)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_programs_that_do_not_stop(self) -> None:
        """When the reactor ends, the tunnel is closed in order for programs that forget it."""
        tunnel = self.tunnel()
        ((stop, _, _),) = self.reactor.triggers["before"]["shutdown"]
        closing = stop()
        order: list[str] = []
        closing.addCallback(lambda _: order.append("the reactor goes on"))
        tunnel.port.stopListening().addCallback(lambda _: order.append("the last answer is read"))
        tunnel.advance(0.2)
        self.successResultOf(closing)
        # The other way round it would close a connection that is just being read.
        self.assertEqual(order, ["the last answer is read", "the reactor goes on"])


class ExposrdTests(SynchronousTestCase):
    """In front of an existing exposrd."""

    def test_calls(self) -> None:
        """It is sent nothing that it does not know; the visitor's host is left alone by it."""
        server = Exposrd()
        own = OwnTunnel(
            server.client(),
            AccountsFile(Path(self.mktemp())),
            lambda line: None,
            Random(1),
            "mine",
            HERE,
            [Change("ingress-http", True, "on")],
            automatic=True,
        )
        self.successResultOf(Deferred.fromCoroutine(own.prepare()))
        tunnel = server.tunnels["mine"]
        self.assertTrue(tunnel["ingress"]["http"]["enabled"])
        # exposrd rewrites Host for targets whose scheme starts with http, and wants a URI.
        self.assertRegex(tunnel["target"]["url"], r"^tcp://[a-z.]+:\d+$")


class FailingTests(SynchronousTestCase):
    """What makes listening impossible."""

    def endpoint(self, reactor: Any, number: str) -> PublicEndpoint:
        tunnel = Tunnel(Factory.forProtocol(Echo), name="another", reactor=MemoryReactorClock())
        self.addCleanup(tunnel.close)
        self.server = tunnel
        access = Access("http://tunnels.test/", AccountsFile(Path(os.devnull)), number=number)
        return PublicEndpoint(
            reactor,
            access,
            "mine",
            connector=lambda host, port: tunnel._endpoint(IPv4Address("TCP", "192.0.2.9", 1)),
        )

    def test_before_the_reactor_runs(self) -> None:
        """Nothing is sent before the reactor runs; then it begins."""
        reactor = MemoryReactorClock()
        endpoint = self.endpoint(reactor, "NOBODY")
        self.assertTrue(verifyObject(IStreamServerEndpoint, endpoint))
        listening = endpoint.listen(Factory.forProtocol(Echo))
        self.assertEqual(reactor.getDelayedCalls(), [])
        self.assertEqual(len(reactor.whenRunningHooks), 1)
        listening.cancel()
        self.failureResultOf(listening, CancelledError)
        ((begin, _, _),) = reactor.whenRunningHooks
        begin()  # too late
        self.assertEqual(reactor.getDelayedCalls(), [])

    def test_unknown_account(self) -> None:
        """An account that the server does not know ends listening with its name for it."""
        reactor = MemoryReactorClock()
        reactor.running = True
        listening = self.endpoint(reactor, "NOBODY").listen(Factory.forProtocol(Echo))
        for _ in range(1200):
            self.server.flush()
            reactor.advance(0.1)
        failure = self.failureResultOf(listening, AccountRefused)
        self.assertIn("does not know the account", str(failure.value))
        self.assertEqual(reactor.getDelayedCalls(), [])
