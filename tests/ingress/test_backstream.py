"""Visitors of a backstream server whose clients take JSON, from the socket to the message."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.deadlines import TICK, Deadlines
from exposr_tx.errors import ExposrError
from exposr_tx.ingress.backstream import Backstream, BackstreamIngressFactory
from exposr_tx.ingress.guard import Guard, GuardedTakeover
from exposr_tx.ingress.http import Timeouts
from exposr_tx.ingress.trust import Trust
from exposr_tx.interfaces import Decision, IPolicy, ITakeover
from exposr_tx.policy.clients import ClientGuard
from exposr_tx.transport.backstream import QUEUE, Clients, JsonUpstream, upstream
from exposr_tx.transport.websocket import BackstreamEndpoint
from exposr_tx.wire.backstream import MAX_REQUEST_BODY
from tests.ingress.test_guard import Rule
from tests.ingress.visiting import PEER, Lines, Targets, Wire

GET = b"GET /a%20b?q=1 HTTP/1.1\r\nHost: any.test\r\n\r\n"


class Client:
    """A client's connection: what it was sent, and what it answers."""

    has_room = True

    def __init__(self, server: Server, name: str) -> None:
        self.sent: list[dict[str, Any]] = []
        self.closed: tuple[int, str] | None = None
        self.upstream = JsonUpstream(
            self,
            server.clients,
            server.clock,
            IPv4Address("TCP", "198.51.100.1", 4000),
            lambda _id, _method, _path: None,
            lambda _upstream, _reason: None,
        )
        self.upstream.start()

    def send_text(self, message: bytes) -> None:
        self.sent.append(json.loads(message))

    def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)

    def abort(self, reason: str) -> None:
        self.closed = (1006, reason)

    def answer(self, code: int = 200, body: bytes = b"yes", **header: list[str]) -> None:
        """Answer the last message."""
        answer = {"id": self.sent[-1]["id"], "code": code, "header": header}
        self.say({**answer, "body": b64encode(body).decode()})

    def say(self, members: dict[str, Any]) -> None:
        self.upstream.message(json.dumps(members).encode())


class Entries:
    """A journal of clients that are refused."""

    def __init__(self) -> None:
        self.refusals: list[ExposrError] = []

    def connected(self, *_: Any) -> None:
        """Nobody asks."""

    def lost(self, *_: Any) -> None:
        """Nobody asks."""

    def refused(self, tunnel_id: str, peer: IAddress, error: ExposrError) -> None:
        self.refusals.append(error)


class Server:
    """Ingress for backstream alone, on a clock."""

    def __init__(self, code: int = 503, policy: IPolicy | None = None) -> None:
        self.clock = Clock()
        self.clients = Clients()
        self.log = Lines()
        self.journal = Entries()
        endpoint = BackstreamEndpoint(self.clients, self.clock, 10, self.journal)
        takeover: ITakeover = endpoint
        if policy is not None:
            endpoint.judge = ClientGuard(policy, "backstream").judge
            takeover = GuardedTakeover(endpoint)
        self.factory = BackstreamIngressFactory(
            self.clock,
            Deadlines(self.clock),
            backstream=Backstream(self.clients, takeover, None, code),
            guard=None if policy is None else Guard(policy),
            routes=None,
            api=None,
            takeover=None,
            access_log=self.log,
            trust=Trust(()),
            node_id="node-1",
            timeouts=Timeouts(response=20.0),
        )

    def visit(self, request: bytes = GET, host: IPv4Address | None = None) -> Wire:
        wire = Wire()
        if host is not None:
            wire.hostAddr = host
        wire.protocol = self.factory.buildProtocol(PEER)
        wire.protocol.makeConnection(wire)
        wire.protocol.dataReceived(request)
        self.turn()
        return wire

    def turn(self, seconds: float = 0.0) -> None:
        """Let the reactor turn a few times, then time pass."""
        self.clock.pump([0.0] * 5 + [TICK] * int(seconds / TICK))


class VisitTests(SynchronousTestCase):
    """Requests and their answers."""

    def setUp(self) -> None:
        self.server = Server()
        self.client = Client(self.server, "1")

    def test_get(self) -> None:
        """The message tells method, path, visitor and fields; the answer comes back."""
        visitor = self.server.visit()
        (asked,) = self.client.sent
        self.assertEqual((asked["method"], asked["path"], asked["query"]), ("GET", "/a b", "q=1"))
        self.assertEqual(asked["remote"], "203.0.113.9:51234")
        self.assertNotIn("Host", asked["header"])
        self.client.answer(
            201, b"made", **{"X-A": ["1", "2"], "Connection": ["upgrade", "X-Hop"], "X-Hop": ["1"]}
        )
        self.server.turn()
        head, _, body = visitor.taken().partition(b"\r\n\r\n")
        self.assertNotIn(b"X-Hop", head)
        self.assertTrue(head.startswith(b"HTTP/1.1 201 Created\r\n"), head)
        self.assertEqual(head.count(b"X-A: "), 2)
        self.assertNotIn(b"upgrade", head)
        self.assertEqual(body, b"made")

    def test_without_host(self) -> None:
        """A visitor of HTTP/1.0 may leave out Host, as balancers that ask for a page do."""
        visitor = self.server.visit(b"GET /page HTTP/1.0\r\n\r\n")
        self.assertEqual(self.client.sent[-1]["path"], "/page")
        self.client.answer()
        self.server.turn()
        self.assertIn(b" 200 OK\r\n", visitor.taken())
        self.assertTrue(visitor.disconnected)

    def test_without_host_at_two_addresses(self) -> None:
        """The address by which such a visitor came stands for it, and not that of one before."""
        for host in ("192.0.2.1", "192.0.2.2"):
            address = IPv4Address("TCP", host, 8000)
            self.server.visit(b"GET /page HTTP/1.0\r\n\r\n", address)
            self.assertEqual(self.client.sent[-1]["header"]["X-Forwarded-Host"], f"{host}:8000")
            self.client.answer()
            self.server.turn()

    def test_one_id(self) -> None:
        """Message and log line of a request have the same id; one that is too long is replaced."""
        self.server.visit()
        self.client.answer()
        self.server.turn()
        self.assertEqual(self.client.sent[-1]["id"].encode(), self.server.log.ids[-1])
        self.server.factory.trust = Trust([str(PEER.host)])
        for id, kept in (("mine", True), ("x" * 257, False), ("", False)):
            line = f"X-Request-Id: {id}\r\n\r\n".encode()
            self.server.visit(GET[:-2] + line)
            self.assertEqual(self.client.sent[-1]["id"] == id, kept)
            self.client.answer()
            self.server.turn()

    def test_keep_alive(self) -> None:
        """A visitor's connection goes on with the next request."""
        visitor = self.server.visit()
        self.client.answer()
        self.server.turn()
        self.assertIn(b"200 OK", visitor.taken())
        visitor.protocol.dataReceived(GET)
        self.server.turn()
        self.client.answer(404)
        self.server.turn()
        self.assertIn(b"404 Not Found", visitor.taken())

    def test_body(self) -> None:
        """A body reaches the client, whether its length was told or it came in chunks."""
        post = b"POST / HTTP/1.1\r\nHost: h\r\n"
        self.server.visit(post + b"Content-Length: 5\r\n\r\nhello")
        self.assertEqual(self.client.sent[-1]["body"], "aGVsbG8=")
        self.client.answer()
        self.server.visit(
            post + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
        )
        self.assertEqual(self.client.sent[-1]["body"], "aGVsbG8=")
        self.assertEqual(self.client.sent[-1]["header"]["Content-Length"], "5")

    def test_large_body(self) -> None:
        """A body over the limit is 413, and reaches no client; chunks too."""
        post = b"POST / HTTP/1.1\r\nHost: h\r\n"
        visitor = self.server.visit(post + b"Content-Length: %d\r\n\r\n" % (MAX_REQUEST_BODY + 1))
        self.assertIn(b"HTTP/1.1 413 ", visitor.taken())
        chunk = b"%x\r\n%b\r\n" % (1 << 20, bytes(1 << 20))
        visitor = self.server.visit(post + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range((MAX_REQUEST_BODY >> 20) + 1):
            visitor.protocol.dataReceived(chunk)
        self.server.turn()
        self.assertIn(b"HTTP/1.1 413 ", visitor.taken())
        self.assertEqual(self.client.sent, [])

    def test_expect(self) -> None:
        """Who waits to be told gets 100 Continue at once."""
        visitor = self.server.visit(
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        self.assertEqual(visitor.taken(), b"HTTP/1.1 100 Continue\r\n\r\n")
        visitor.protocol.dataReceived(b"ok")
        self.server.turn()
        self.assertEqual(self.client.sent[-1]["body"], "b2s=")
        self.assertNotIn("Expect", self.client.sent[-1]["header"])

    def test_head(self) -> None:
        """A HEAD is answered without a body, with the length that the target told."""
        visitor = self.server.visit(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
        self.client.answer(200, b"", **{"Content-Length": ["1234"]})
        self.server.turn()
        said = visitor.taken()
        self.assertIn(b"Content-Length: 1234\r\n", said)
        self.assertTrue(said.endswith(b"\r\n\r\n"))

    def test_redirect(self) -> None:
        """A redirect is the visitor's affair."""
        visitor = self.server.visit()
        self.client.answer(302, b"", Location=["http://localhost:3000/x"])
        self.server.turn()
        self.assertIn(b"Location: http://localhost:3000/x\r\n", visitor.taken())

    def test_slow_reader(self) -> None:
        """An answer is handed on only as fast as the visitor reads it."""
        visitor = self.server.visit()
        visitor.protocol.pauseProducing()
        self.client.answer(200, bytes(1_000_000))
        self.server.turn()
        self.assertLess(len(visitor.value()), 200_000)
        self.assertEqual(self.client.upstream.load, 0, "the client is free meanwhile")
        visitor.protocol.resumeProducing()
        self.server.turn()
        self.assertGreater(len(visitor.value()), 1_000_000)
        self.assertEqual(self.client.upstream.held, 0)

    def test_memory(self) -> None:
        """Bodies that wait for one client are bounded together: more of them are 503."""
        self.patch(upstream, "MAX_HELD", 100_000)
        post = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 60000\r\n\r\n" + bytes(60000)
        first, second, third = (self.server.visit(post) for _ in range(3))
        self.assertIn(b"HTTP/1.1 503 ", third.taken())
        self.client.answer()
        self.server.turn()
        self.client.answer()
        self.server.turn()
        self.assertIn(b"HTTP/1.1 200 ", first.taken())
        self.assertIn(b"HTTP/1.1 200 ", second.taken())
        self.assertEqual(self.client.upstream.held, 0)

    def test_answers_that_nobody_reads(self) -> None:
        """While answers wait for slow visitors beyond the limit, nothing more is asked."""
        self.patch(upstream, "MAX_HELD", 100_000)
        slow = self.server.visit()
        slow.protocol.pauseProducing()
        other = self.server.visit()
        self.client.answer(200, bytes(400_000))
        self.server.turn()
        self.assertEqual(len(self.client.sent), 1)
        slow.protocol.resumeProducing()
        self.server.turn()
        self.assertEqual(len(self.client.sent), 2)
        self.client.answer()
        self.server.turn()
        self.assertIn(b"HTTP/1.1 200 ", other.taken())


class ClientTests(SynchronousTestCase):
    """Which client gets a request, and what becomes of it when the client fails."""

    def setUp(self) -> None:
        self.server = Server()

    def test_one_gets_it(self) -> None:
        """Each request goes to one client, to one after another."""
        clients = [Client(self.server, name) for name in "abc"]
        for _ in range(6):
            self.server.visit()
            for client in clients:
                if client.upstream.load:
                    client.answer()
            self.server.turn()
        self.assertEqual([len(client.sent) for client in clients], [2, 2, 2])

    def test_drains_while_others_take(self) -> None:
        """A client that is to end, and whose last request another one takes, ends; nobody who waits
        is lost by it."""
        stuck = Client(self.server, "a")
        visitors = [self.server.visit() for _ in range(3)]
        visitors[0].loseConnection()
        stuck.upstream.drain()
        other = Client(self.server, "b")
        visitors.append(self.server.visit())
        for _ in range(3):
            other.answer()
            self.server.turn()
        self.assertIsNotNone(stuck.closed)
        self.assertEqual([b" 200 OK" in visitor.value() for visitor in visitors[1:]], [True] * 3)

    def test_free_before_busy(self) -> None:
        """A client that is stuck gets nothing while another one is free."""
        stuck, free = Client(self.server, "a"), Client(self.server, "b")
        first = [self.server.visit(), self.server.visit()]
        self.assertEqual((len(stuck.sent), len(free.sent)), (1, 1))
        for _ in range(5):
            free.answer()
            self.server.turn()
            self.server.visit()
        self.assertEqual((len(stuck.sent), len(free.sent)), (1, 6))
        self.assertEqual(len(first), 2)

    def test_streams_before_busy(self) -> None:
        """A client of ours, which takes any number, goes before one that would let it wait."""
        client = Client(self.server, "a")
        self.server.visit()
        native = Targets()
        self.server.clients.plug(native)
        for _ in range(3):
            self.server.visit()
        self.assertEqual((len(client.sent), len(native.wires)), (1, 3))

    def test_one_at_a_time(self) -> None:
        """The next request waits until the client has answered."""
        client = Client(self.server, "a")
        visitors = [self.server.visit(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % n) for n in (1, 2)]
        self.assertEqual([m["path"] for m in client.sent], ["/1"])
        client.answer(200, b"one")
        self.server.turn()
        self.assertEqual([m["path"] for m in client.sent], ["/1", "/2"])
        client.answer(200, b"two")
        self.server.turn()
        self.assertTrue(visitors[0].value().endswith(b"one"))
        self.assertTrue(visitors[1].value().endswith(b"two"))

    def test_queue_has_a_limit(self) -> None:
        """What may not wait is 503 at once, told when to try again."""
        Client(self.server, "a")
        waiting = [self.server.visit() for _ in range(QUEUE + 1)]
        self.assertEqual([wire.value() for wire in waiting], [b""] * (QUEUE + 1))
        said = self.server.visit().taken()
        self.assertIn(b"HTTP/1.1 503 ", said)
        self.assertIn(b"Retry-After: ", said)

    def test_no_client(self) -> None:
        """Without a client: 503 and the words of there, or the status that was asked for."""
        said = self.server.visit().taken()
        self.assertTrue(said.startswith(b"HTTP/1.1 503 Service Unavailable\r\n"), said)
        self.assertTrue(said.endswith(b"\r\n\r\nno WebSocket client connected\n"), said)
        said = Server(404).visit().taken()
        self.assertTrue(said.startswith(b"HTTP/1.1 404 Not Found\r\n"), said)
        said = Server(200).visit().taken()
        self.assertTrue(said.endswith(b"\r\n\r\nno WebSocket client connected"), said)
        said = Server(204).visit().taken()
        self.assertTrue(said.endswith(b"\r\n\r\n"), said)

    def test_timeout(self) -> None:
        """A client that does not answer in time is a 504; its late answer harms nobody."""
        client = Client(self.server, "a")
        visitor = self.server.visit()
        self.server.turn(30)
        self.assertIn(b"HTTP/1.1 504 ", visitor.taken())
        late = client.sent[-1]
        self.server.visit(b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertEqual(len(client.sent), 1, "the client is still busy")
        client.say({"id": late["id"], "code": 200})
        self.assertEqual(client.sent[-1]["path"], "/next")
        self.assertIsNone(client.closed)

    def test_client_leaves(self) -> None:
        """A request that the client has is 502 at once; those that wait go to another client."""
        post = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx"
        gone = Client(self.server, "a")
        lost = self.server.visit()
        other = Client(self.server, "b")
        kept, *waiting = (self.server.visit(each) for each in (GET, GET, post, post))
        gone.upstream.lost("gone")
        self.server.turn()
        self.assertIn(b"HTTP/1.1 502 ", lost.taken())
        for visitor in (kept, *waiting):
            self.assertEqual(visitor.value(), b"")
            other.answer()
            self.server.turn()
            self.assertIn(b"HTTP/1.1 200 ", visitor.taken())
        self.assertEqual((other.upstream.load, other.upstream.held), (0, 0))

    def test_last_client_leaves(self) -> None:
        """With the last one go those that wait: without a client 503, or 502 where there was a
        body."""
        client = Client(self.server, "a")
        self.server.visit()
        waits = self.server.visit()
        with_body = self.server.visit(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx")
        client.upstream.lost("gone")
        self.server.turn()
        self.assertIn(b"HTTP/1.1 503 ", waits.taken())
        self.assertIn(b"HTTP/1.1 502 ", with_body.taken())

    def test_stuck_client(self) -> None:
        """A client that is stuck keeps the request that it has, and no other."""
        stuck, other = Client(self.server, "a"), Client(self.server, "b")
        visitors = [self.server.visit() for _ in range(20)]
        for _ in range(19):
            other.answer()
            self.server.turn()
        self.assertEqual((len(stuck.sent), len(other.sent)), (1, 19))
        self.assertEqual(sum(b" 200 OK" in visitor.value() for visitor in visitors), 19)
        late = self.server.visit(), self.server.visit()
        newcomer = Client(self.server, "c")
        newcomer.answer()
        other.answer()
        self.server.turn()
        self.assertEqual([b" 200 OK" in visitor.value() for visitor in late], [True, True])

    def test_visitor_leaves(self) -> None:
        """A visitor that leaves before its turn is not asked for; after, its answer is dropped."""
        client = Client(self.server, "a")
        first, second, third = (
            self.server.visit(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % n) for n in (1, 2, 3)
        )
        first.loseConnection()
        second.loseConnection()
        client.answer()
        self.server.turn()
        self.assertEqual([m["path"] for m in client.sent], ["/1", "/3"])
        client.answer()
        self.server.turn()
        self.assertIn(b"HTTP/1.1 200 ", third.taken())
        self.assertEqual(first.value(), b"")

    def test_lying_clients(self) -> None:
        """Wrong ids, codes and base64 end that client, with 502 for what it was asked; others
        and their requests go on."""
        lies: list[dict[str, Any]] = [
            {"id": "wrong", "code": 200},
            {"code": 200},
            {"id": None, "code": 200, "body": "!"},
            {"id": None, "code": 0},
            {"id": None, "code": 99},
            {"id": None, "code": 101},
            {"id": None, "code": "200"},
        ]
        for lie in lies:
            liar, honest = Client(self.server, "a"), Client(self.server, "b")
            visitors = [self.server.visit(), self.server.visit()]
            if "id" in lie and lie["id"] is None:
                lie = {**lie, "id": liar.sent[-1]["id"]}
            liar.say(lie)
            honest.answer()
            self.server.turn()
            said = sorted(visitor.taken()[:12] for visitor in visitors)
            self.assertEqual(said, [b"HTTP/1.1 200", b"HTTP/1.1 502"], lie)
            assert liar.closed is not None
            self.assertEqual(liar.closed[0], 1002)
            self.assertIsNone(honest.closed)
            honest.upstream.lost("the end")

    def test_answers_twice(self) -> None:
        """The second answer to one request ends the client, and nobody else's request."""
        client = Client(self.server, "a")
        visitor = self.server.visit()
        client.answer()
        client.answer(500)
        self.server.turn()
        self.assertIn(b"HTTP/1.1 200 ", visitor.taken())
        self.assertIsNotNone(client.closed)

    def test_fields_of_a_target(self) -> None:
        """A field that cannot be written is that request's 502; the client stays."""
        client = Client(self.server, "a")
        visitor = self.server.visit()
        client.answer(200, b"", **{"X-A": ["a\r\nSet-Cookie: evil"]})
        self.server.turn()
        said = visitor.taken()
        self.assertIn(b"HTTP/1.1 502 ", said)
        self.assertNotIn(b"evil", said)
        self.assertIsNone(client.closed)

    def test_draining(self) -> None:
        """A client that drains answers what it has, gets nothing more, and is told goodbye."""
        client = Client(self.server, "a")
        visitor = self.server.visit()
        drained = client.upstream.drain()
        self.assertNoResult(drained)
        self.assertIn(b"HTTP/1.1 503 ", self.server.visit().taken())
        client.answer()
        self.server.turn()
        self.assertIn(b"HTTP/1.1 200 ", visitor.taken())
        self.successResultOf(drained)
        assert client.closed is not None
        self.assertEqual(client.closed[0], 1001)


class JoinTests(SynchronousTestCase):
    """Requests with Backstream-Client that are no websocket."""

    def test_not_a_websocket(self) -> None:
        """They are told so, in the words of there, and never reach a client."""
        server = Server()
        client = Client(server, "a")
        said = server.visit(b"GET /x HTTP/1.1\r\nHost: h\r\nBackstream-Client: a\r\n\r\n").taken()
        self.assertTrue(said.startswith(b"HTTP/1.1 400 Bad Request\r\n"), said)
        self.assertIn(b"Bad Request\nfailed to upgrade: ", said)
        said = server.visit(
            b"POST /x HTTP/1.1\r\nHost: h\r\nbackstream-client: a\r\nContent-Length: 2\r\n\r\nhi"
        ).taken()
        self.assertTrue(said.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n"), said)
        self.assertEqual(client.sent, [])

    def test_other_websockets(self) -> None:
        """A websocket's handshake of another version than 13 is refused."""
        fields = b"Connection: Upgrade\r\nUpgrade: websocket\r\nBackstream-Client: a\r\n"
        key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        server = Server()
        for version, status in ((b"13", b"101"), (b"8", b"400")):
            field = b"Sec-WebSocket-Version: %b\r\n" % version
            said = server.visit(b"GET /x HTTP/1.1\r\nHost: h\r\n" + fields + key + field + b"\r\n")
            self.assertTrue(said.taken().startswith(b"HTTP/1.1 %b " % status))

    def test_empty_field(self) -> None:
        """An empty Backstream-Client is a visitor's."""
        server = Server()
        client = Client(server, "a")
        server.visit(b"GET /x HTTP/1.1\r\nHost: h\r\nBackstream-Client:\r\n\r\n")
        self.assertEqual(len(client.sent), 1)


JOIN = (
    b"GET /x?y HTTP/1.1\r\nHost: h\r\nBackstream-Client: default\r\nAuthorization: Bearer t\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
DENIED = b"\r\n\r\nauth policy denied\n"
FAILED = b"\r\n\r\nfailed auth policy evaluation\n"


class PolicyTests(SynchronousTestCase):
    """Visitors and clients of a server with policies."""

    def test_table(self) -> None:
        """Each row of the decision table, for a client and for a visitor; a denied visitor's
        request reaches no client."""
        for outcome, (join, words) in {
            "allowed": (b"101 ", b"\r\n\r\n"),
            "denied": (b"403 ", DENIED),
            "undefined": (b"500 ", FAILED),
            "error": (b"500 ", FAILED),
            "timeout": (b"500 ", FAILED),
        }.items():
            server = Server(policy=Rule(Decision(outcome)))
            client = Client(server, "a")
            visitor, joined = server.visit().taken(), server.visit(JOIN).taken()
            self.assertTrue(joined.startswith(b"HTTP/1.1 " + join), joined)
            self.assertTrue(joined.endswith(words), joined)
            refused = outcome != "allowed"
            self.assertEqual(len(server.journal.refusals), refused)
            self.assertEqual(visitor.startswith(b"HTTP/1.1 403 "), refused, visitor)
            self.assertEqual(visitor.endswith(DENIED), refused, visitor)
            self.assertEqual((len(client.sent), len(server.clients)), (not refused, 2 - refused))

    def test_questions(self) -> None:
        """A policy is asked about the client's handshake without its query, and about the
        visitor's request."""
        rule = Rule(Decision("denied"))
        server = Server(policy=rule)
        server.visit(JOIN)
        server.visit()
        (package, client), (other, visitor) = rule.asked
        self.assertEqual((package, other), ("auth.client", "auth.server"))
        self.assertEqual((client.target, visitor.target), (b"/x", b"/a%20b?q=1"))
        self.assertEqual((client.tunnel, visitor.tunnel), ("backstream", "backstream"))
        self.assertEqual((client.transport, visitor.transport), ("websocket", "http"))
        self.assertIn((b"authorization", b"Bearer t"), list(client.fields))
        self.assertIn((b"backstream-client", b"default"), list(client.fields))

    def test_own_answer(self) -> None:
        """A denial of the policy's own has its status, its fields and its reason."""
        fields = ((b"Location", b"https://login.test/"),)
        server = Server(policy=Rule(Decision("denied", 302, "sign in", fields)))
        for request in (JOIN, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"):
            said = server.visit(request).taken()
            self.assertTrue(said.startswith(b"HTTP/1.1 302 Found\r\n"), said)
            self.assertIn(b"\r\nLocation: https://login.test/\r\n", said)
            self.assertTrue(said.endswith(b"\r\n\r\nsign in\n"), said)

    def test_denied_before_what_is_wrong(self) -> None:
        """Who is denied is not told that his request is no upgrade."""
        plain = b"POST / HTTP/1.1\r\nHost: h\r\nBackstream-Client: a\r\nContent-Length: 1\r\n\r\nx"
        said = Server(policy=Rule(Decision("denied"))).visit(plain).taken()
        self.assertTrue(said.startswith(b"HTTP/1.1 403 "), said)
        said = Server(policy=Rule(Decision("allowed"))).visit(plain).taken()
        self.assertTrue(said.startswith(b"HTTP/1.1 405 "), said)

    def test_nobody_is_connected(self) -> None:
        """That no client is connected is told to those only whom the policy allows."""
        said = Server(policy=Rule(Decision("allowed"))).visit().taken()
        self.assertTrue(said.endswith(b"no WebSocket client connected\n"), said)
        said = Server(policy=Rule(Decision("denied"))).visit().taken()
        self.assertTrue(said.endswith(DENIED), said)

    def test_body_waits(self) -> None:
        """The body of a request that is being decided on goes to nobody before it is allowed."""
        rule = Rule(None)
        server = Server(policy=rule)
        client = Client(server, "a")
        visitor = server.visit(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
        self.assertEqual((client.sent, visitor.value()), ([], b""))
        rule.waiting[0].callback(Decision("allowed"))
        server.turn()
        self.assertEqual(client.sent[0]["body"], b64encode(b"abc").decode())
