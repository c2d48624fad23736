"""Several tunnels of a program on one connection, through a whole server in memory."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from exposr_tx.client import Access, Events, PublicEndpoint, PublicPort, SharedConnections
from exposr_tx.client import Tunnel as TunnelJson
from exposr_tx.client.accounts_file import AccountsFile
from exposr_tx.client.sharing import ATTACH_TIMEOUT, _ticket
from exposr_tx.testing import CLIENT, DOMAIN, VISITOR, Tunnel, visiting
from exposr_tx.transport.websocket import ClientConnection, Lost


class Page(Resource):
    """Says its name; ``/slow`` when the test says so."""

    isLeaf = True

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name.encode()
        self.waiting: list[Request] = []

    def render_GET(self, request: Request) -> Any:
        if request.path == b"/slow":
            self.waiting.append(request)
            return NOT_DONE_YET
        return self.name


class Seen(Events):
    """Events in lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def connected(self, tunnel: TunnelJson, number: int, total: int) -> None:
        self.lines.append("connected")

    def lost(self, tunnel: TunnelJson, number: int, lost: Lost) -> None:
        self.lines.append("lost")

    def ended(self, error: Exception | None) -> None:
        self.lines.append(f"ended {error}")


class SharingTests(SynchronousTestCase):
    """Ports with the same SharedConnections."""

    def setUp(self) -> None:
        self.serve(1)

    def serve(self, connections: int) -> None:
        """A server that allows each tunnel so many."""
        self.reactor = MemoryReactorClock()
        site = Site(Page("zero"), reactor=self.reactor)
        # A tunnel for the rest of it: a server, accounts, time.
        self.whole: Any = Tunnel(
            site, reactor=self.reactor, options=[f"--transport-max-connections={connections}"]
        )
        self.addCleanup(self.whole.close)
        self.rest = self.whole.port._own._rest
        self.share = SharedConnections()
        self.pages: dict[str, Page] = {}
        self.events: dict[str, Seen] = {}
        self.treq = visiting(self.reactor, lambda host, port: self.whole._endpoint(VISITOR))

    def publish(self, name: str) -> Deferred[PublicPort]:
        self.pages[name], self.events[name] = Page(name), Seen()
        endpoint = PublicEndpoint(
            self.reactor,
            Access(f"http://{DOMAIN}/", AccountsFile(Path(os.devnull)), number=self.rest.account),
            name,
            events=self.events[name],
            share=self.share,
            random=Random(0),  # noqa: S311
            connector=lambda host, port: self.whole._endpoint(CLIENT),
        )
        return endpoint.publish(Site(self.pages[name], reactor=self.reactor))

    def published(self, *names: str) -> list[PublicPort]:
        publishing = [self.publish(name) for name in names]
        self.whole.flush()
        ports = [self.successResultOf(deferred) for deferred in publishing]
        for port in ports:
            self.addCleanup(self.stop, port)
        return ports

    def stop(self, port: PublicPort) -> None:
        stopped = port.stopListening()
        self.whole.advance(8)
        self.successResultOf(stopped)

    def get(self, name: str, path: str = "/") -> Deferred[Any]:
        async def get() -> Any:
            response = await self.treq.get(f"http://{name}.{DOMAIN}{path}")
            return response.code, await response.text()

        answer = Deferred.fromCoroutine(get())
        self.whole.flush()
        return answer

    def assert_serves(self, *names: str) -> None:
        for name in names:
            self.assertEqual(self.successResultOf(self.get(name)), (200, name))

    @property
    def connections(self) -> int:
        """Connections of these ports to the server."""
        upstreams = self.whole._rooms.draining._transport.upstreams
        return len({upstream._link for upstream in upstreams if upstream.tunnel_id != "testing"})

    def test_one_connection(self) -> None:
        """Tunnels that start at the same time share what the first one opens."""
        self.published("first", "second", "third")
        self.assertEqual(self.connections, 1)
        self.assert_serves("first", "second", "third")
        self.assertIn("first+second+third", repr(self.share))

    def test_unknown(self) -> None:
        """A server that attaches nothing gives each a connection of its own."""

        self.published("first")
        for upstream in self.whole._rooms.draining._transport.upstreams:
            upstream.session._further = upstream.session.native.act
        self.published("second")
        self.assertEqual(self.connections, 2)
        self.assert_serves("first", "second")

    def test_closing_one(self) -> None:
        """The others go on with what they are doing, whichever is closed."""
        one, two, three = self.published("first", "second", "third")
        running = self.get("third", "/slow")
        for port, name in ((one, "first"), (two, "second")):
            self.stop(port)
            self.assertEqual(self.successResultOf(self.get(name))[0], 404)
            self.assertEqual(self.events[name].lines, ["connected", "ended None"])
        self.pages["third"].waiting[0].write(b"done")
        self.pages["third"].waiting[0].finish()
        self.whole.flush()
        self.assertEqual(self.successResultOf(running), (200, "done"))
        self.assertEqual(self.events["third"].lines, ["connected"])
        self.assertEqual(self.connections, 1)
        self.stop(three)
        self.assertEqual((self.connections, repr(self.share).count("0 connections")), (0, 1))

    def test_running_requests_finish(self) -> None:
        """A tunnel that is closed takes no new requests and answers those that it has."""
        one, _ = self.published("first", "second")
        running = self.get("first", "/slow")
        stopped = one.stopListening()
        self.whole.flush()
        self.assertEqual(self.successResultOf(self.get("first"))[0], 503)
        self.assertNoResult(stopped)
        self.pages["first"].waiting[0].finish()
        self.whole.advance(0.2)
        self.assertEqual(self.successResultOf(running)[0], 200)
        self.whole.advance(3)
        self.successResultOf(stopped)
        self.assert_serves("second")

    def assert_deleted(self, deleted: str, kept: str) -> None:
        self.published("first", "second")
        deleting = Deferred.fromCoroutine(self.rest.delete(deleted))
        self.whole.flush()
        self.successResultOf(deleting)
        self.whole.advance(1)
        said = "ended the server has ended the tunnel: deleted"
        self.assertEqual(self.events[deleted].lines, ["connected", said])
        self.assertEqual(self.events[kept].lines, ["connected"])
        self.assert_serves(kept)

    def test_deleted(self) -> None:
        """A tunnel that its owner deletes ends for good; the other does not notice."""
        self.assert_deleted("second", kept="first")

    def test_first_deleted(self) -> None:
        """Also when it is the one that opened the connection."""
        self.assert_deleted("first", kept="second")

    def test_all_come_back(self) -> None:
        """After a lost connection all tunnels are on a new one."""
        self.published("first", "second", "third")
        self.whole.lose_connections()
        self.whole.advance(1)
        self.assertEqual(self.connections, 1)
        for name in ("first", "second", "third"):
            self.assertEqual(self.events[name].lines, ["connected", "lost", "connected"])
        self.assert_serves("first", "second", "third")

    def test_several_slots(self) -> None:
        """Where a tunnel may have two connections two are shared."""
        self.serve(2)
        self.published("first", "second")
        self.whole.flush()
        self.assertEqual(self.connections, 2)
        upstreams = self.whole._rooms.draining._transport.upstreams
        self.assertEqual(len([u for u in upstreams if u.tunnel_id == "second"]), 2)

    def test_no_answer(self) -> None:
        """Where the server does not answer, the tunnel has a connection of its own before long."""
        self.published("first")
        self.patch(ClientConnection, "attach", lambda *_: Deferred())
        publishing = self.publish("second")
        self.whole.flush()
        self.assertNoResult(publishing)
        self.whole.advance(ATTACH_TIMEOUT + 1)
        self.addCleanup(self.stop, self.successResultOf(publishing))
        self.assertEqual(self.successResultOf(self.get("second")), (200, "second"))

    def test_no_ticket(self) -> None:
        """An URL that is none of a tunnel's gets a connection of its own."""
        good = "wss://h:1/base/v1/tunnel/a%2Db/ws-endpoint?t=x%20y"
        self.assertEqual(_ticket(good), ("a-b", "x y"))
        for url in (
            "ws://h/",
            "ws://h/v1/tunnel/a/ws-endpoint",
            "ws://h/v1/other/a/ws-endpoint?t=x",
            "ws://[/",
        ):
            self.assertEqual(_ticket(url), ("", ""))
