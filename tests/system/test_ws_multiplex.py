"""The reference multiplex library (npm) as the peer, on real sockets.

Skipped where node, npm or the npm registry is missing.
"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, TestCase
from zope.interface import implementer

from exposr_tx.errors import PermissionDenied
from exposr_tx.interfaces import IAdmission, IUpstream, Origin
from exposr_tx.transport.websocket import WebsocketEndpoint, connect

reactor: Any = _reactor
SCRIPT = Path(__file__).with_name("ws_multiplex.mjs")
ORIGIN = Origin("tcp", IPv4Address("TCP", "192.0.2.7", 4711))


@functools.cache
def node_modules() -> str:
    """A directory with the library installed, made once."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise SkipTest("node and npm are not installed")
    directory = tempfile.mkdtemp(prefix="exposr-node-")
    command = ["npm", "install", "--no-audit", "--no-fund", "@exposr/ws-multiplex@1.4.0", "ws@8"]
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, timeout=90, check=False)
    except subprocess.TimeoutExpired:
        raise SkipTest("the npm registry does not answer") from None
    if done.returncode:
        raise SkipTest(f"npm install failed: {done.stderr[-300:]!r}")
    return directory


class Node(ProcessProtocol):
    """The script, whose output lines are JSON events."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.ended: Deferred[None] = Deferred()
        self.errors = b""
        self._waiting: list[tuple[Callable[[dict[str, Any]], bool], Deferred[Any]]] = []
        self._line = b""

    def outReceived(self, data: bytes) -> None:
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            event = json.loads(line)
            self.events.append(event)
            for waiting in self._waiting[:]:
                if waiting[0](event):
                    self._waiting.remove(waiting)
                    waiting[1].callback(event)

    def errReceived(self, data: bytes) -> None:
        self.errors += data

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(None)
        for _, waiting in self._waiting:
            waiting.errback(AssertionError(f"node ended: {self.events[-3:]} {self.errors!r}"))

    def said(self, name: str) -> Deferred[Any]:
        for event in self.events:
            if event["event"] == name:
                return succeed(event)
        waiting: Deferred[Any] = Deferred()
        self._waiting.append((lambda event: event["event"] == name, waiting))
        return waiting


@implementer(IAdmission)
class Admission:
    """Admits the token ``good``."""

    def __init__(self) -> None:
        self.plugged: Deferred[IUpstream] = Deferred()
        self.unplugged: Deferred[bool] = Deferred()

    def admit(self, tunnel_id: str, token: str, origin: Origin) -> Deferred[None]:
        if token != "good":
            raise PermissionDenied("wrong token")
        return succeed(None)

    def plug(self, upstream: IUpstream) -> Deferred[None]:
        self.plugged.callback(upstream)
        return succeed(None)

    def unplug(self, upstream: IUpstream, clean: bool) -> None:
        self.unplugged.callback(clean)


class Front(Protocol):
    """What ingress does for the endpoint, in short."""

    def __init__(self, endpoint: WebsocketEndpoint) -> None:
        self._endpoint = endpoint
        self._head = b""
        self._inner: Any = None

    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        self._head += data
        if b"\r\n\r\n" not in self._head:
            return
        transport: Any = self.transport
        origin = Origin("api", transport.getPeer())
        admitted = self._endpoint.admit(self._head.split(b" ")[1], [], origin)
        admitted.addCallbacks(self._take_over, self._refuse)

    def _take_over(self, protocol: Any) -> None:
        self._inner = protocol
        protocol.makeConnection(self.transport)
        protocol.dataReceived(self._head)

    def _refuse(self, reason: Failure) -> None:
        assert self.transport is not None
        self.transport.write(
            b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\n"
            b'Content-Length: 29\r\n\r\n{"error":"PERMISSION_DENIED"}'
        )
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._inner is not None:
            self._inner.connectionLost(reason)


class Visitor(Protocol):
    """Sends a body as a producer does, and reads it back."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.received = bytearray()
        self.pauses = 0
        self.done: Deferred[bytes] = Deferred()
        self.lost: Deferred[Any] = Deferred()
        self._sent = 0
        self._paused = False

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        transport: Any = self.transport
        while not self._paused and self._sent < len(self.body):
            transport.write(self.body[self._sent : self._sent + 50_000])
            self._sent += 50_000
        if self._sent >= len(self.body):
            transport.unregisterProducer()

    def pauseProducing(self) -> None:
        self._paused = True
        self.pauses += 1

    def stopProducing(self) -> None:
        self._paused = True

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if len(self.received) == len(self.body):
            self.done.callback(bytes(self.received))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(reason.type)


class Echo(Protocol):
    """A target that echoes, with back pressure; asked to, it sends 1 MB and closes."""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.registerProducer(transport, True)

    def dataReceived(self, data: bytes) -> None:
        transport: Any = self.transport
        if data == b"send and close":
            transport.unregisterProducer()
            transport.write(b"e" * 1_000_000)
            transport.loseConnection()
        else:
            transport.write(data)


class ReferencePeer(TestCase):
    timeout = 120

    def spawn(self, *arguments: str) -> Node:
        node = Node()
        command = ["node", str(SCRIPT), *arguments]
        process = reactor.spawnProcess(node, command[0], command, None, node_modules())

        def end() -> Deferred[None]:
            if process.pid is not None:
                process.signalProcess("KILL")
            return node.ended

        self.addCleanup(end)
        return node

    async def listen(self) -> tuple[Admission, str]:
        admission = Admission()
        endpoint = WebsocketEndpoint(admission, reactor)
        factory: Any = Factory()
        factory.buildProtocol = lambda _: Front(endpoint)
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.addCleanup(port.stopListening)
        return admission, f"ws://127.0.0.1:{port.getHost().port}/v1/tunnel/test/ws-endpoint"

    async def test_client(self) -> None:
        """The reference library, as a client, carries small and large streams of ours."""
        node_modules()
        admission, url = await self.listen()
        node = self.spawn("client", url + "?t=good")
        upstream = await admission.plugged
        big = Visitor(bytes(range(256)) * (20 * 4096))
        visitors = [big] + [Visitor(b"%d " % i * (i + 1)) for i in range(200)]

        def open_stream(visitor: Visitor) -> Deferred[Any]:
            factory: Any = Factory()
            factory.buildProtocol = lambda _: visitor
            return upstream.connect(factory, ORIGIN)

        await gatherResults([open_stream(visitor) for visitor in visitors])
        for visitor in visitors:
            self.assertEqual(await visitor.done, visitor.body)
        self.assertGreater(big.pauses, 0)
        self.assertTrue(await upstream.probe())

        assert visitors[1].transport is not None
        visitors[1].transport.write(b"quit")
        await visitors[1].lost
        for visitor in [big, *visitors[2:]]:
            assert visitor.transport is not None
            visitor.transport.loseConnection()
        await gatherResults([visitor.lost for visitor in [big, *visitors[2:]]])
        upstream.close(1008, "deleted")
        gone = await node.said("gone")
        self.assertEqual((gone["code"], gone["reason"]), (1008, "deleted"))
        self.assertTrue(await admission.unplugged)
        closed = [event for event in node.events if event["event"] == "closed"]
        self.assertEqual(len(closed), len(visitors))
        self.assertEqual([event for event in node.events if event["event"] == "error"], [])

    async def test_refused(self) -> None:
        """A client with a wrong token is told so, with a body, and does not wait."""
        node_modules()
        _, url = await self.listen()
        node = self.spawn("client", url + "?t=bad")
        refused = await node.said("refused")
        self.assertEqual(refused["status"], 401)
        self.assertEqual(json.loads(refused["body"]), {"error": "PERMISSION_DENIED"})

    async def test_server(self) -> None:
        """Our client answers the streams of the reference library as a server."""
        node_modules()
        node = self.spawn("server")
        port = (await node.said("listening"))["port"]
        connection = await connect(
            TCP4ClientEndpoint(reactor, "127.0.0.1", port),
            f"ws://127.0.0.1:{port}/any?t=x",
            Factory.forProtocol(Echo),
            reactor,
        )
        done = await node.said("done")
        self.assertEqual(
            done, {"event": "done", "small": 100, "big": 20 * 1024 * 1024, "ended": 1_000_000}
        )
        lost = await connection.lost
        self.assertEqual((lost.code, lost.reason, lost.clean), (1008, "enough", True))
        self.assertEqual(len(connection.session), 0)
