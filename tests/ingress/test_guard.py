"""Policies at ingress: nothing of a request reaches a client before it is allowed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from exposr_tx.ingress.guard import Guard, GuardedTakeover, unclear_path
from exposr_tx.interfaces import Decision, IPolicy, ITakeover, Origin, Question
from tests.ingress.visiting import PEER, Visit, Wire

GET = b"GET /a?b=c HTTP/1.1\r\nHost: demo.test\r\nX-Role: user\r\n\r\n"


@implementer(IPolicy)
class Rule:
    """Answers what it is told to, now or later."""

    packages = ()

    def __init__(self, answer: Decision | None) -> None:
        self.answer = answer
        self.asked: list[tuple[str, Question]] = []
        self.waiting: list[Deferred[Decision]] = []

    def decide(self, package: str, question: Question) -> Decision | Deferred[Decision]:
        self.asked.append((package, question))
        if self.answer is not None:
            return self.answer
        self.waiting.append(Deferred())
        return self.waiting[-1]


class GuardTests(SynchronousTestCase):
    """A visitor's request and a policy."""

    def visit(self, answer: Decision | None, **options: Any) -> None:
        self.rule = Rule(answer)
        self.place = Visit(guard=Guard(self.rule, **options))

    def send(self, data: bytes = GET) -> Wire:
        visitor = self.place.visitor()
        visitor.protocol.dataReceived(data)
        return visitor

    def test_allowed(self) -> None:
        """An allowed request goes on as it came."""
        self.visit(Decision("allowed"))
        self.send()
        self.assertIn(b"GET /a?b=c HTTP/1.1\r\n", self.place.target.taken())

    def test_question(self) -> None:
        """A policy is asked about the whole head, the tunnel, and who sends it."""
        self.visit(Decision("denied"))
        vhost = replace(self.place.routes.vhost, account="12345")
        self.place.routes.vhost = vhost
        self.send(GET.replace(b"demo.test", b"DEMO.test.:80"))
        ((package, asked),) = self.rule.asked
        self.assertEqual(
            (package, asked.method, asked.target, asked.fields, asked.host, asked.transport),
            ("auth.server", "GET", b"/a?b=c", [(b"X-Role", b"user")], "demo.test", "http"),
        )
        self.assertEqual(
            (asked.remote_ip, asked.remote_port, asked.scheme, asked.tunnel, asked.account),
            (PEER.host, PEER.port, "http", "demo", "12345"),
        )
        self.place.routes.vhost = replace(vhost, policy="office")
        self.send()
        self.assertEqual(self.rule.asked[-1][0], "office")

    def test_asked_each_time(self) -> None:
        """A request that comes again on its connection is judged again, and by what its tunnel has
        become; another one by what it is."""
        self.visit(Decision("denied"))
        visitor = self.send()
        other = self.place.visitor()
        for data in (GET, GET.replace(b"/a", b"/b"), GET):
            visitor.protocol.dataReceived(data)
        self.place.routes.vhost = replace(self.place.routes.vhost, account="2")
        visitor.protocol.dataReceived(GET)
        other.protocol.dataReceived(GET)
        asked = [(question.target, question.account) for _, question in self.rule.asked]
        account = asked[0][1]
        a, b = (b"/a?b=c", account), (b"/b?b=c", account)
        self.assertEqual(asked, [a, a, b, a, (a[0], "2"), (a[0], "2")])

    def test_denied(self) -> None:
        """A denied request opens no stream; the visitor gets 403 and may go on."""
        self.visit(Decision("denied", reason="no"))
        visitor = self.send()
        answer = visitor.taken()
        self.assertTrue(answer.startswith(b"HTTP/1.1 403 Forbidden\r\n"), answer)
        self.assertIn(b'"error":"POLICY_DENIED"', answer)
        self.assertIn(b'"field":"no"', answer)
        self.assertEqual(self.place.targets.wires, [])
        self.assertFalse(visitor.disconnecting)
        self.assertEqual(self.place.log.lines[0]["status"], 403)
        self.assertEqual(self.place.log.lines[0]["tunnel"], b"demo")
        self.rule.answer = Decision("allowed")
        visitor.protocol.dataReceived(GET)
        self.assertEqual(len(self.place.targets.wires), 1)

    def test_denied_in_its_own_way(self) -> None:
        """A policy may choose the status and header fields of a denial."""
        self.visit(Decision("denied", 302, headers=((b"Location", b"https://login.test/"),)))
        answer = self.send().taken()
        self.assertTrue(answer.startswith(b"HTTP/1.1 302 "), answer)
        self.assertIn(b"\r\nLocation: https://login.test/\r\n", answer)

    def test_body_waits(self) -> None:
        """Until there is a decision the body is not read on, and no 100 Continue is sent; then it
        goes on whole."""
        self.visit(None)
        head = b"POST / HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 6\r\n"
        visitor = self.send(head + b"Expect: 100-continue\r\n\r\nabc")
        self.assertEqual((visitor.taken(), self.place.targets.wires), (b"", []))
        self.assertEqual(visitor.producerState, "paused")
        self.place.pass_time(2)
        self.assertEqual(visitor.taken(), b"")
        self.rule.waiting[0].callback(Decision("allowed"))
        self.assertTrue(self.place.target.taken().endswith(b"\r\n\r\nabc"))
        self.assertEqual(visitor.producerState, "producing")
        visitor.protocol.dataReceived(b"def")
        self.assertEqual(self.place.target.taken(), b"def")

    def test_denied_body(self) -> None:
        """The body of a denied request goes nowhere, and the connection ends."""
        self.visit(None)
        head = b"POST / HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 6\r\n\r\nabc"
        visitor = self.send(head)
        self.rule.waiting[0].callback(Decision("denied"))
        self.assertIn(b"403", visitor.taken())
        visitor.protocol.dataReceived(b"def" + GET)
        self.assertEqual(self.place.targets.wires, [])
        self.assertTrue(visitor.half_closed or visitor.disconnecting)

    def test_pipelined(self) -> None:
        """Requests behind one that is being decided on wait for their own decisions."""
        self.visit(None)
        visitor = self.send(GET * 2)
        self.assertEqual(len(self.rule.asked), 1)
        self.rule.waiting[0].callback(Decision("denied"))
        self.assertEqual(len(self.rule.asked), 2)
        self.rule.waiting[1].callback(Decision("denied"))
        self.assertEqual(visitor.taken().count(b"HTTP/1.1 403"), 2)
        self.assertEqual(self.place.targets.wires, [])

    def test_visitor_leaves(self) -> None:
        """Who leaves before the decision is not sent on by it."""
        self.visit(None)
        visitor = self.send()
        visitor.abortConnection()
        if not self.rule.waiting[0].called:
            self.rule.waiting[0].callback(Decision("allowed"))
        self.assertEqual(self.place.targets.wires, [])
        self.assertEqual(self.place.log.lines[0]["status"], 499)

    def test_upgrade(self) -> None:
        """An upgrade is asked about like any other request."""
        self.visit(Decision("denied"))
        self.send(GET[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        asked = self.rule.asked[0][1]
        self.assertEqual(asked.transport, "websocket")
        self.assertIn((b"Upgrade", b"websocket"), asked.fields)
        self.assertEqual(self.place.targets.wires, [])

    def test_set_request_headers(self) -> None:
        """What the policy sets replaces what the visitor sent, for this request alone."""
        self.visit(Decision("allowed", set_request_headers=((b"X-Role", b"admin"),)))
        visitor = self.send(GET.replace(b"X-Role: user", b"x-role: user\r\nA: b\r\nX-ROLE: root"))
        head = self.place.target.taken()
        self.assertEqual(head.lower().count(b"x-role: "), 1)
        self.assertIn(b"X-Role: admin\r\n", head)
        self.assertIn(b"A: b\r\n", head)
        self.place.target.protocol.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.rule.answer = Decision("allowed")
        visitor.protocol.dataReceived(GET)
        self.assertIn(b"X-Role: user\r\n", self.place.target.taken())

    def test_set_for_all_spellings(self) -> None:
        """Nor does what the visitor sends by another spelling, or behind the body, reach a target
        that would take it for the policy's; a list without members takes away."""
        fields = ((b"X-Role", b"admin"),)
        self.visit(Decision("allowed", 403, "", (), fields, (b"X-Groups",)))
        self.send(
            GET.replace(b"GET", b"POST").replace(
                b"X-Role: user\r\n",
                b"X_Role: root\r\nx-groups: root\r\nX_GROUPS: root\r\nA: b\r\n"
                b"Transfer-Encoding: chunked\r\n",
            )
            + b"0\r\nX-Role: root\r\nX_Groups: root\r\nB: c\r\n\r\n"
        )
        sent = self.place.target.taken()
        self.assertNotIn(b"root", sent)
        self.assertIn(b"A: b\r\n", sent)
        self.assertTrue(sent.endswith(b"0\r\nB: c\r\n\r\n"), sent)

    def test_paths(self) -> None:
        """A path that a target may read as another one gets 400, and is not even asked about;
        with raw_paths it is."""
        unclear = (
            *(b"/a/../b", b"/./a", b"/a/..", b"/.", b"//a", b"/a//b", b"/a%2Fb", b"/a%2fb"),
            *(b"/%2e%2e/a", b"/.%2E", b"/a/%2e/b", b"/a\\b", b"/a%5Cb", b"/a/..;x/b", b"/%00"),
            *(b"/%zz", b"/%", b"/%c0%afa", b"/%E0%80%afa", b"/%f0%80%80%afa", b"/a%2", b"/..%3bx"),
            *(b"/;/a", b"/a/;b=c/d", b"/%3Bx/a", b"/%0aa", b"/a%0D", b"/%09a", b"/%1f", b"/a%7F"),
        )
        plain = (
            b"/",
            b"/a",
            b"/a/b/",
            b"/.well-known/x",
            b"/a..b",
            b"/...",
            b"/%20%C3%A4",
            b"*",
            b"/a;b=c/d",
        )
        for path in unclear:
            self.assertNotEqual(unclear_path(path), "", path)
            self.visit(Decision("allowed"))
            answer = self.send(b"GET %b?x=//.. HTTP/1.1\r\nHost: demo.test\r\n\r\n" % path).taken()
            self.assertTrue(answer.startswith(b"HTTP/1.1 400 "), path)
            self.assertEqual((self.rule.asked, self.place.targets.wires), ([], []))
            self.visit(Decision("allowed"), raw_paths=True)
            self.send(b"GET %b HTTP/1.1\r\nHost: demo.test\r\n\r\n" % path)
            self.assertIn(b"GET %b " % path, self.place.target.taken())
        for path in plain:
            self.assertEqual(unclear_path(path), "", path)

    def test_disabled(self) -> None:
        """A tunnel that takes no HTTP says so, policy or not."""
        self.visit(Decision("allowed"))
        self.place.routes.vhost = replace(self.place.routes.vhost, enabled=False)
        self.assertIn(b"TUNNEL_HTTP_INGRESS_DISABLED", self.send().taken())
        self.assertEqual(self.rule.asked, [])


@implementer(ITakeover)
class Transport:
    """Keeps what a client asked."""

    def claims(self, path: bytes) -> bool:
        return path == b"/ws"

    def admit(self, target: bytes, fields: list[tuple[bytes, bytes]], origin: Origin) -> Any:
        self.target, self.origin = target, origin
        return Deferred()


class TakeoverTests(SynchronousTestCase):
    """A client's request to connect."""

    def test_question(self) -> None:
        """The transport gets the request with what a policy is asked; the token is not in that."""
        inner = Transport()
        guarded = GuardedTakeover(inner)
        self.assertTrue(guarded.claims(b"/ws"))
        origin = Origin("api", IPv4Address("TCP", "192.0.2.1", 99), "https://Tun.test.:8080")
        guarded.admit(b"/ws?t=secret", [(b"authorization", b"Bearer x")], origin)
        self.assertEqual(inner.target, b"/ws?t=secret")
        asked = inner.origin.asked
        assert asked is not None
        self.assertEqual(
            (asked.method, asked.target, asked.host, asked.remote_ip, asked.remote_port),
            ("GET", b"/ws", "tun.test", "192.0.2.1", 99),
        )
        self.assertEqual((asked.scheme, asked.transport), ("https", "websocket"))
        self.assertIn((b"authorization", b"Bearer x"), list(asked.fields))
