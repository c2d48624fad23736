"""HTTP ingress: what visitors and targets see of each other."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IProtocol, ISSLTransport
from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactor
from twisted.protocols.haproxy import proxyEndpoint
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides, implementer

from exposr_tx.errors import (
    PermissionDenied,
    StreamLimit,
    TargetFailed,
    TargetReset,
    TooManyFailures,
    UpstreamGone,
)
from exposr_tx.ingress import stall
from exposr_tx.interfaces import ITakeover, Origin
from exposr_tx.wire.http1 import Limits
from tests.ingress.visiting import PEER, Targets, Visit, Wire

GET = b"GET /a?b HTTP/1.1\r\nHost: demo.test\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 1\r\n\r\nx"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: %b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def request_lines(data: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """A head that reached the target: request line, fields by lower-case name, what follows."""
    head, _, rest = data.partition(b"\r\n\r\n")
    line, *lines = head.split(b"\r\n")
    return line, {n.lower(): v for n, _, v in (f.partition(b": ") for f in lines)}, rest


class ForwardingTests(SynchronousTestCase):
    """A request goes to the target, and its response comes back."""

    def setUp(self) -> None:
        self.visit = Visit()
        self.wire = self.visit.visitor()

    def send(self, data: bytes) -> None:
        self.wire.protocol.dataReceived(data)

    def answer(self, data: bytes) -> bytes:
        self.visit.target.protocol.dataReceived(data)
        return self.wire.taken()

    def test_get(self) -> None:
        """The target gets the request with its own host and what it should know of the visitor."""
        self.send(GET)
        line, fields, rest = request_lines(self.visit.target.taken())
        self.assertEqual((line, rest), (b"GET /a?b HTTP/1.1", b""))
        self.assertEqual(fields[b"host"], b"target:3000")
        self.assertEqual(fields[b"x-forwarded-for"], b"203.0.113.9")
        self.assertEqual(fields[b"x-real-ip"], b"203.0.113.9")
        self.assertEqual(fields[b"x-forwarded-host"], b"demo.test")
        self.assertEqual(fields[b"x-forwarded-proto"], b"http")
        self.assertEqual(
            fields[b"forwarded"], b"by=_exposr;for=203.0.113.9;host=demo.test;proto=http"
        )
        self.assertEqual(fields[b"exposr-via"], b"node-1")
        self.assertEqual(self.answer(OK), OK)
        self.assertEqual(
            self.visit.log.lines,
            [
                {
                    "method": b"GET",
                    "path": b"/a",
                    "status": 200,
                    "in": 0,
                    "out": 2,
                    "tunnel": b"demo",
                }
            ],
        )

    def test_what_the_visitor_claims_of_itself_is_replaced(self) -> None:
        """Forwarded, X-Forwarded-* and their underscore twins of an unknown peer do not count."""
        self.send(
            b"GET / HTTP/1.1\r\nHost: demo.test\r\nX-Forwarded-For: 10.0.0.1\r\n"
            b"Forwarded: for=10.0.0.1\r\nX_Forwarded_For: 10.0.0.1\r\nX-Real-IP: 10.0.0.1\r\n\r\n"
        )
        received = self.visit.target.taken()
        self.assertNotIn(b"10.0.0.1", received)
        self.flushLoggedErrors()

    def test_trusted_proxy(self) -> None:
        """A trusted proxy's word counts, and is added to."""
        self.visit = Visit(trusted=("203.0.113.0/24",))
        self.wire = self.visit.visitor()
        self.send(
            b"GET / HTTP/1.1\r\nHost: demo.test\r\nX-Forwarded-For: 6.6.6.6, 198.51.100.1\r\n"
            b"X-Forwarded-Proto: https\r\nX-Forwarded-Host: www.test\r\nX-Request-Id: mine\r\n\r\n"
        )
        _, fields, _ = request_lines(self.visit.target.taken())
        self.assertEqual(fields[b"x-forwarded-for"], b"6.6.6.6, 198.51.100.1, 203.0.113.9")
        self.assertEqual(fields[b"x-real-ip"], b"198.51.100.1")
        self.assertEqual(fields[b"x-forwarded-proto"], b"https")
        self.assertEqual(fields[b"x-forwarded-host"], b"www.test")
        self.assertEqual(fields[b"x-request-id"], b"mine")

    def test_address_in_a_proxy_line(self) -> None:
        """Behind a haproxy: endpoint the visitor is whom the PROXY line names, to trust as well."""
        self.visit = Visit(trusted=("203.0.113.9",))
        reactor = MemoryReactor()
        proxyEndpoint(TCP4ServerEndpoint(reactor, 80)).listen(self.visit.factory)
        self.wire = Wire()
        self.wire.protocol = reactor.tcpServers[0][1].buildProtocol(PEER)
        self.wire.protocol.makeConnection(self.wire)
        self.send(
            b"PROXY TCP6 2001:db8::7 ::1 40112 80\r\n"
            b"GET / HTTP/1.1\r\nHost: demo.test\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"
        )
        _, fields, _ = request_lines(self.visit.target.taken())
        self.assertEqual(fields[b"x-forwarded-for"], b"2001:db8::7")
        self.assertIn("2001:db8::7", str(self.visit.targets.origins[-1].peer))
        self.flushLoggedErrors()

    def test_no_address(self) -> None:
        """Who comes by a UNIX socket has none; what a proxy there says is passed on as it is."""
        self.visit = Visit(trusted=("unix",))
        self.wire = Wire()
        self.wire.peerAddr = UNIXAddress(None)
        self.wire.protocol = self.visit.factory.buildProtocol(self.wire.peerAddr)
        self.wire.protocol.makeConnection(self.wire)
        self.send(GET)
        _, fields, _ = request_lines(self.visit.target.taken())
        self.assertNotIn(b"x-forwarded-for", fields)
        self.assertNotIn(b"x-real-ip", fields)
        self.answer(OK)
        self.send(GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 198.51.100.1\r\n\r\n"))
        _, fields, _ = request_lines(self.visit.target.taken())
        self.assertEqual(fields[b"x-forwarded-for"], b"198.51.100.1")
        self.assertEqual(fields[b"x-real-ip"], b"198.51.100.1")

    def test_names_of_the_target_are_mapped_both_ways(self) -> None:
        """Origin and Referer name the target to it; Location and cookies the public host."""
        self.send(
            b"GET / HTTP/1.1\r\nHost: demo.test\r\nOrigin: http://demo.test\r\n"
            b"Referer: http://other.test/x\r\n\r\n"
        )
        _, fields, _ = request_lines(self.visit.target.taken())
        self.assertEqual(fields[b"origin"], b"http://target:3000")
        self.assertEqual(fields[b"referer"], b"http://other.test/x")
        answer = self.answer(
            b"HTTP/1.1 302 Found\r\nLocation: http://Target:3000/b?c\r\n"
            b"Content-Location: http://target:3001/b\r\n"
            b"Set-Cookie: a=b; Domain=.target; Path=/\r\nSet-Cookie: c=d; domain=else\r\n"
            b"Content-Length: 0\r\n\r\n"
        )
        self.assertIn(b"Location: https://demo.test/b?c\r\n", answer)
        self.assertIn(b"Content-Location: http://target:3001/b\r\n", answer)
        self.assertIn(b"Set-Cookie: a=b; Domain=demo.test; Path=/\r\n", answer)
        self.assertIn(b"Set-Cookie: c=d; domain=else\r\n", answer)

    def show(self, host: bytes | None) -> None:
        """From here on the target gets this Host; None: the visitor's."""
        self.visit.routes.vhost = replace(self.visit.routes.vhost, host_header=host)

    def sent_to(self, location: bytes) -> bytes:
        """Where the visitor is sent who asked for /a?b, and whose target sends him to a URL."""
        self.send(GET)
        answer = self.answer(
            b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: %b\r\n\r\n" % location
        )
        return answer.partition(b"Location: ")[2].partition(b"\r\n")[0]

    def test_target_that_believes_in_tls(self) -> None:
        """A target that takes its scheme from X-Forwarded-Proto sends visitors to the tunnel, too;
        one that wants TLS for the same page is not in the way of where it does so."""
        self.assertEqual(self.sent_to(b"https://target:3000/b"), b"https://demo.test/b")
        self.assertEqual(self.sent_to(b"https://target:3000/a?b"), b"https://target:3000/a?b")
        self.assertEqual(self.sent_to(b"http://target:3000/a?b"), b"https://demo.test/a?b")

    def test_target_of_another_name(self) -> None:
        """A target that gets a Host of its own, as one of several on a machine, is known by it."""
        self.show(b"shop.internal")
        self.assertEqual(self.sent_to(b"http://shop.internal/b"), b"https://demo.test/b")
        self.assertEqual(self.sent_to(b"http://shop.internal:3000/b"), b"https://demo.test/b")
        self.assertEqual(self.sent_to(b"http://target:3000/b"), b"http://target:3000/b")
        self.visit.target.taken()
        self.send(GET[:-2] + b"Origin: https://demo.test\r\n\r\n")
        _, fields, _ = request_lines(self.visit.target.taken())
        self.assertEqual(fields[b"host"], b"shop.internal")
        self.assertEqual(fields[b"origin"], b"http://shop.internal")

    def test_target_on_loopback(self) -> None:
        """Whether a target calls itself localhost or by an address, at its port it is meant."""
        vhost = replace(self.visit.routes.vhost, target=(b"http", b"localhost:3000"))
        self.visit.routes.vhost = replace(vhost, host_header=b"localhost:3000")
        for name in (b"localhost", b"127.0.0.1", b"[::1]"):
            self.assertEqual(self.sent_to(b"http://%b:3000/b" % name), b"https://demo.test/b")
            self.assertEqual(self.sent_to(b"http://%b:9/b" % name), b"http://%b:9/b" % name)
        self.assertEqual(self.sent_to(b"http://127.0.0.2:3000/"), b"http://127.0.0.2:3000/")

    def test_target_that_gets_the_visitors_host(self) -> None:
        """It need not know of TLS, nor that its port is not the tunnel's."""
        self.show(None)
        self.assertEqual(self.sent_to(b"http://demo.test/b"), b"https://demo.test/b")
        self.assertEqual(self.sent_to(b"http://demo.test:3000/b"), b"https://demo.test/b")
        self.assertEqual(self.sent_to(b"http://else.test/b"), b"http://else.test/b")
        self.visit.target.taken()
        self.send(GET[:-2] + b"Origin: https://demo.test\r\n\r\n")
        self.assertIn(b"Origin: https://demo.test\r\n", self.visit.target.taken())

    def test_destination(self) -> None:
        """WebDAV's MOVE names another URL of the same target, whatever Host that gets."""
        move = (
            b"MOVE /a HTTP/1.1\r\nHost: demo.test\r\nDestination: https://demo.test/b%20c\r\n\r\n"
        )
        for host, named in ((b"target:3000", b"target:3000"), (None, b"demo.test")):
            self.show(host)
            self.send(move)
            _, fields, _ = request_lines(self.visit.target.taken())
            self.assertEqual(fields[b"destination"], b"http://%b/b%%20c" % named)
            self.answer(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

    def test_stream_is_used_again(self) -> None:
        """Requests of any visitor go over one stream after another's response has ended."""
        self.send(GET)
        self.answer(OK)
        other = self.visit.visitor()
        other.protocol.dataReceived(GET)
        self.assertEqual(len(self.visit.targets.wires), 1)
        self.assertEqual(self.answer(OK), b"")
        self.assertEqual(other.taken(), OK)

    def challenge(self, wire: Wire, *fields: bytes) -> bytes:
        """Send a request whose target wants to know who is at the other end of its connection."""
        head = b"".join(b"%b\r\n" % field for field in fields)
        wire.protocol.dataReceived(GET[:-2] + head + b"\r\n")
        self.visit.target.protocol.dataReceived(
            b"HTTP/1.1 401 Who\r\nWWW-Authenticate: Basic realm=x, NTLM abc\r\n"
            b"Content-Length: 0\r\n\r\n"
        )
        return wire.taken()

    def test_target_that_knows_its_visitor(self) -> None:
        """NTLM and Negotiate tell a target who is at the other end of a connection: nobody else's
        requests go over that one, and the visitor's own do."""
        self.assertIn(b"401 Who", self.challenge(self.wire))
        known = self.visit.target
        other = self.visit.visitor()
        other.protocol.dataReceived(GET)
        self.assertIsNot(self.visit.target, known)
        self.visit.target.protocol.dataReceived(OK)
        self.assertEqual(other.taken(), OK)
        self.send(GET[:-2] + b"Authorization: NTLM def\r\n\r\n")
        self.assertIn(b"Authorization: NTLM def\r\n", known.taken())
        known.protocol.dataReceived(OK)
        self.assertEqual(self.wire.taken(), OK)
        self.assertFalse(known.disconnecting)
        self.wire.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertTrue(known.disconnecting)

    def test_known_without_being_asked(self) -> None:
        """A visitor who says at once who he is is known by his request."""
        self.send(GET[:-2] + b"Authorization: negotiate abc=\r\n\r\n")
        self.assertEqual(self.answer(OK), OK)
        self.visit.visitor().protocol.dataReceived(GET)
        self.assertEqual(len(self.visit.targets.wires), 2)

    def test_known_behind_a_proxy(self) -> None:
        """A proxy's connection is many visitors': what is known on one is forgotten."""
        self.challenge(self.wire, b"X-Forwarded-For: 192.0.2.1")
        self.assertTrue(self.visit.target.disconnecting)
        self.visit = Visit(trusted=("203.0.113.0/24",))
        self.challenge(self.visit.visitor())
        self.assertTrue(self.visit.target.disconnecting)

    def test_known_and_then_a_websocket(self) -> None:
        """Who goes on with a websocket makes no more requests: his target's connection ends."""
        self.challenge(self.wire)
        known = self.visit.target
        self.send(UPGRADE % b"demo.test")
        self.visit.target.protocol.dataReceived(WebsocketTests.ACCEPT)
        self.assertIn(b" 101 ", self.wire.taken())
        self.assertTrue(known.disconnecting)
        self.assertFalse(self.visit.target.disconnecting)

    def test_credentials_of_a_request(self) -> None:
        """Other schemes say who has sent one request, and leave the connection to all."""
        self.send(GET[:-2] + b"Authorization: Basic ntlm\r\n\r\n")
        self.assertEqual(self.answer(OK), OK)
        self.visit.visitor().protocol.dataReceived(GET)
        self.assertEqual(len(self.visit.targets.wires), 1)

    def test_stream_is_not_used_after_anything_odd(self) -> None:
        """Bytes behind a response, a close, or an idle minute end the stream."""
        for oddity in (OK + b"x", OK.replace(b"Con", b"Connection: close\r\nCon")):
            self.send(GET)
            self.answer(oddity)
            self.assertTrue(self.visit.target.disconnecting)
        self.send(GET)
        self.answer(OK)
        self.visit.target.protocol.dataReceived(b"HTTP/1.1 200 Unasked\r\n\r\n")
        self.assertTrue(self.visit.target.disconnected)
        self.send(GET)
        self.answer(OK)
        self.visit.pass_time(61)
        self.assertTrue(self.visit.target.disconnecting)
        self.assertEqual(len(self.visit.targets.wires), 4)

    def test_keep_alive_hint(self) -> None:
        """A target that closes idle connections after five seconds gets a new one in time."""
        self.send(GET)
        self.answer(OK.replace(b"Con", b"Keep-Alive: timeout=5\r\nCon"))
        self.visit.pass_time(4.5)
        self.assertTrue(self.visit.target.disconnecting)

    def test_pipelined_requests_are_answered_in_order(self) -> None:
        """The second request reaches the target when the first is answered."""
        self.send(GET + GET.replace(b"/a", b"/second") + GET.replace(b"demo", b"nobody") + GET)
        self.assertNotIn(b"/second", self.visit.target.taken())
        self.assertEqual(self.answer(OK), OK)
        self.assertIn(b"/second", self.visit.target.taken())
        answer = self.answer(OK)
        self.assertTrue(answer.startswith(OK + b"HTTP/1.1 404 "))
        self.assertIn(b"/a?b", self.visit.target.taken())

    def test_a_thousand_pipelined_refusals(self) -> None:
        """Many requests answered at once do not nest."""
        self.send(GET.replace(b"demo", b"none") * 1500)
        self.assertEqual(self.wire.taken().count(b"HTTP/1.1 404 "), 1500)

    def test_too_much_pipelined_is_not_read(self) -> None:
        """What waits behind a slow request is bounded."""
        self.send(GET)
        for _ in range(2):
            self.send(GET * 1000)
        self.assertEqual(self.wire.producerState, "paused")
        while self.visit.target.taken():
            self.answer(OK)
        self.assertEqual(self.wire.producerState, "producing")

    def test_body_is_streamed(self) -> None:
        """A request's body reaches the target as it comes, framed as it was announced."""
        self.send(b"POST / HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 6\r\n\r\nabc")
        self.assertTrue(self.visit.target.taken().endswith(b"\r\n\r\nabc"))
        self.send(b"def")
        self.assertEqual(self.visit.target.taken(), b"def")
        self.answer(OK)
        self.send(
            b"POST / HTTP/1.1\r\nHost: demo.test\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nab"
        )
        self.assertTrue(self.visit.target.taken().endswith(b"\r\n\r\n2\r\nab\r\n"))
        self.send(b"c\r\n0\r\nSum: 1\r\n\r\n")
        self.assertEqual(self.visit.target.taken(), b"1\r\nc\r\n0\r\nSum: 1\r\n\r\n")

    def test_response_is_streamed(self) -> None:
        """Chunks, lengths and trailers of a response reach the visitor as they come."""
        self.send(GET)
        start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.assertEqual(self.answer(start + b"3\r\nabc\r\n"), start + b"3\r\nabc\r\n")
        self.assertEqual(self.answer(b"1\r\nd"), b"1\r\nd\r\n")
        self.assertEqual(self.answer(b"\r\n0\r\nSum: 1\r\n\r\n"), b"0\r\nSum: 1\r\n\r\n")

    def test_until_close(self) -> None:
        """A body that ends with its connection ends the visitor's connection."""
        self.send(GET)
        answer = self.answer(b"HTTP/1.1 200 OK\r\n\r\nabc")
        self.assertEqual(answer, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc")
        self.visit.target.end(ConnectionDone())
        self.assertTrue(self.wire.disconnected)
        self.assertFalse(self.wire.reset)

    def test_http_1_0(self) -> None:
        """An HTTP/1.0 visitor gets no chunks and no interim answers, and is closed."""
        self.send(b"GET / HTTP/1.0\r\nHost: demo.test\r\nConnection: keep-alive\r\n\r\n")
        answer = self.answer(
            b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        )
        self.assertEqual(answer, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc")
        self.assertTrue(self.wire.disconnected)

    def test_head_and_not_modified(self) -> None:
        """Responses without a body keep the length that they tell of."""
        self.send(GET.replace(b"GET", b"HEAD"))
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"
        self.assertEqual(self.answer(head), head)
        self.send(GET)
        head = b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"
        self.assertEqual(self.answer(head), head)
        self.assertEqual(len(self.visit.targets.wires), 1)

    def test_interim(self) -> None:
        """Interim answers pass; hop-by-hop fields do not."""
        self.send(GET)
        answer = self.answer(
            b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nConnection: a\r\nA: b\r\n\r\n"
        )
        self.assertEqual(answer, b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        self.assertEqual(self.answer(OK), OK)

    def test_connection_close(self) -> None:
        """A visitor who asks for it is closed after the response."""
        self.send(GET.replace(b"Host", b"Connection: close\r\nHost"))
        self.assertIn(b"Connection: close\r\n", self.answer(OK))
        self.assertTrue(self.wire.disconnected)
        self.assertFalse(self.visit.target.disconnecting)


class ExpectTests(SynchronousTestCase):
    """``Expect: 100-continue``."""

    HEAD = (
        b"POST / HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    )

    def setUp(self) -> None:
        self.visit = Visit()
        self.wire = self.visit.visitor()
        self.wire.protocol.dataReceived(self.HEAD)

    def test_the_target_decides(self) -> None:
        """The target's 100 reaches the visitor, then the body the target."""
        self.assertIn(b"Expect: 100-continue\r\n", self.visit.target.taken())
        self.assertEqual(self.wire.taken(), b"")
        self.visit.target.protocol.dataReceived(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertEqual(self.wire.taken(), b"HTTP/1.1 100 Continue\r\n\r\n")
        self.wire.protocol.dataReceived(b"hi")
        self.assertEqual(self.visit.target.taken(), b"hi")
        self.visit.target.protocol.dataReceived(OK)
        self.assertEqual(self.wire.taken(), OK)

    def test_a_target_that_says_nothing(self) -> None:
        """After a second the visitor is told to go on; a later 100 is not repeated."""
        self.visit.pass_time(1.5)
        self.assertEqual(self.wire.taken(), b"HTTP/1.1 100 Continue\r\n\r\n")
        self.visit.target.protocol.dataReceived(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertEqual(self.wire.taken(), b"")

    def test_a_target_that_refuses(self) -> None:
        """A final answer instead ends the connection, as a body may follow or not."""
        self.visit.target.protocol.dataReceived(OK.replace(b"200 OK", b"403 No"))
        self.assertIn(b"Connection: close\r\n", self.wire.taken())
        self.assertTrue(self.wire.half_closed)

    def test_a_target_that_may_not_have_read(self) -> None:
        """A target that answers before it has asked for the body, or all of it was sent, may take
        the rest for a request: none of another visitor's goes there. After its 100 one does."""
        for head in (self.HEAD, self.HEAD.replace(b"Expect", b"X-Expect")):
            for answers, streams in (
                ([b"hi", OK], 2 if b"X-" not in head else 1),
                ([OK.replace(b"200 OK", b"403 No"), b"hi"], 2),
                ([b"HTTP/1.1 100 Continue\r\n\r\n", b"hi", OK], 1),
            ):
                visit = Visit()
                wire = visit.visitor()
                wire.protocol.dataReceived(head)
                for data in answers:
                    (wire if data == b"hi" else visit.target).protocol.dataReceived(data)
                visit.visitor().protocol.dataReceived(GET)
                self.assertEqual(len(visit.targets.wires), streams, (head, answers))

    def test_a_target_that_takes_no_bodies(self) -> None:
        """One that refuses a request with a body may have left that where it was, all of it though
        it had come; one that refuses a request without serves the next visitor."""
        refused = OK.replace(b"200 OK", b"501 No")
        post = GET.replace(b"GET", b"POST")[:-2] + b"Content-Length: 2\r\n\r\nhi"
        for request, answer, streams in (
            (post, refused, 2),
            (post, OK, 1),
            (GET, refused, 1),
        ):
            visit = Visit()
            visit.visitor().protocol.dataReceived(request)
            visit.target.protocol.dataReceived(answer)
            visit.visitor().protocol.dataReceived(GET)
            self.assertEqual(len(visit.targets.wires), streams, (request, answer))


class RefusalTests(SynchronousTestCase):
    """Requests that no target gets, and targets that do not answer."""

    def setUp(self) -> None:
        self.visit = Visit()
        self.wire = self.visit.visitor()

    def answered(self, data: bytes) -> tuple[int, dict[str, Any], bytes]:
        self.wire.protocol.dataReceived(data)
        return self.last()

    def last(self) -> tuple[int, dict[str, Any], bytes]:
        head, _, body = self.wire.taken().partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body) if body else {}, head

    def test_statuses(self) -> None:
        """Each refusal has its status and its code, and the connection goes on."""
        status, error, _ = self.answered(GET.replace(b"demo", b"none"))
        self.assertEqual((status, error["error"]), (404, "TUNNEL_NOT_FOUND"))
        self.visit.routes.upstream = None
        status, error, head = self.answered(GET)
        self.assertEqual((status, error["error"]), (503, "TUNNEL_NOT_CONNECTED"))
        self.assertIn(b"Retry-After: ", head)
        self.visit.routes.upstream = self.visit.targets
        vhost = self.visit.routes.vhost
        self.visit.routes.vhost = type(vhost)("demo", False, None, None, vhost.public)
        status, error, _ = self.answered(GET)
        self.assertEqual((status, error["error"]), (403, "TUNNEL_HTTP_INGRESS_DISABLED"))
        self.visit.routes.vhost = vhost
        status, error, _ = self.answered(GET.replace(b"Host", b"Exposr-Via: x,node-1\r\nHost"))
        self.assertEqual((status, error["error"]), (508, "HTTP_INGRESS_REQUEST_LOOP"))
        self.visit.targets.fault = TargetFailed("no")
        status, error, _ = self.answered(GET)
        self.assertEqual((status, error["error"]), (502, "TUNNEL_TARGET_CON_FAILED"))
        status, error, _ = self.answered(GET.replace(b"GET", b"HEAD"))
        self.assertEqual((status, error), (502, {}))
        self.assertFalse(self.wire.disconnecting)
        self.assertEqual(self.visit.targets.wires, [])

    def test_late_route(self) -> None:
        """A tunnel that must be looked up first is served the same way."""
        self.wire.protocol.dataReceived(GET.replace(b"demo", b"late"))
        self.assertIn(b"GET /a?b ", self.visit.target.taken())

    def test_malformed(self) -> None:
        """What is no request is answered with an error, and the connection ends gently."""
        status, error, head = self.answered(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n")
        self.assertEqual((status, error["error"]), (400, "BAD_REQUEST"))
        self.assertIn(b"Connection: close", head)
        self.assertTrue(self.wire.half_closed)
        self.wire.protocol.dataReceived(GET)
        self.assertEqual(self.wire.taken(), b"")
        self.visit.pass_time(3)
        self.assertTrue(self.wire.disconnected)

    def test_malformed_body(self) -> None:
        """A body that breaks its framing ends the stream to the target, too."""
        start = (
            b"POST / HTTP/1.1\r\nHost: demo.test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"
        )
        self.wire.protocol.dataReceived(start)
        self.assertEqual(self.answered(b"zz\r\n")[0], 400)
        self.assertTrue(self.visit.target.reset)
        self.assertEqual([line["status"] for line in self.visit.log.lines], [400])

    def test_body_too_long(self) -> None:
        """A body over the limit is refused before the target hears of it."""
        self.visit = Visit(limits=Limits(body=4))
        self.wire = self.visit.visitor()
        request = b"POST / HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 5\r\n\r\n"
        self.assertEqual(self.answered(request)[0], 413)
        self.assertEqual(self.visit.targets.wires, [])

    def test_much_too_long(self) -> None:
        """Who sends on and on has two seconds to see the refusal: a reset would take it away."""
        for tls in (False, True):
            self.visit = Visit(limits=Limits(body=4))
            self.wire = self.visit.visitor()
            if tls:
                alsoProvides(self.wire, ISSLTransport)
                # It waits for the visitor's own goodbye.
                self.wire.loseConnection = lambda: None  # type: ignore[method-assign]
            request = b"POST / HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 9999999\r\n\r\n"
            self.assertEqual(self.answered(request)[0], 413)
            for _ in range(3):
                self.wire.protocol.dataReceived(bytes(500_000))
            self.assertEqual((self.wire.reset, self.wire.producerState), (False, "paused"))
            self.visit.pass_time(3)
            self.assertTrue(self.wire.reset)

    def test_answered_early(self) -> None:
        """A response that comes before the request's end is there for its visitor for as long as
        he takes it, however slowly."""
        left = 900
        self.patch(stall, "_unacknowledged", lambda _: left)
        for reads_all in (True, False):
            self.wire = self.visit.visitor()
            self.wire.protocol.dataReceived(POST[:-1])
            answer = OK.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
            self.visit.target.protocol.dataReceived(answer)
            self.assertTrue(self.wire.half_closed)
            for _ in range(8):
                left -= 50
                self.visit.pass_time(2)
            self.assertFalse(self.wire.reset)
            left = 0 if reads_all else left
            self.visit.pass_time(3)
            self.assertTrue(self.wire.reset)

    def test_target_closes_before_it_answers(self) -> None:
        """A target that hangs up is a 502; half a head, too."""
        for part in (b"", OK[:20]):
            self.wire.protocol.dataReceived(GET)
            if part:
                self.visit.target.protocol.dataReceived(part)
            self.visit.target.end(ConnectionDone())
            status, error, _ = self.last()
            self.assertEqual((status, error["error"]), (502, "TUNNEL_TARGET_CON_RESET"))

    def test_idle_stream_that_is_dead(self) -> None:
        """A request that finds its idle stream dead is sent once more, on a fresh one; not one
        with a body, and not a second time."""
        for request, streams in ((GET, 2), (POST, 1)):
            self.visit = Visit()
            self.wire = self.visit.visitor()
            self.wire.protocol.dataReceived(GET)
            self.visit.target.protocol.dataReceived(OK)
            self.wire.taken()
            self.wire.protocol.dataReceived(request)
            self.visit.target.end(ConnectionDone())
            self.assertEqual(len(self.visit.targets.wires), streams)
            if streams == 2:
                self.assertEqual(self.wire.taken(), b"")
                self.assertIn(b"GET /a?b ", self.visit.target.taken())
                self.visit.target.end(ConnectionDone())
            self.assertEqual(self.last()[0], 502)
            self.assertEqual(len(self.visit.targets.wires), streams)

    def test_idle_stream_of_a_client_that_is_gone(self) -> None:
        """It is sent once more by another client of the tunnel."""
        self.wire.protocol.dataReceived(GET)
        self.visit.target.protocol.dataReceived(OK)
        self.wire.taken()
        self.wire.protocol.dataReceived(GET)
        first, other = self.visit.targets, Targets()
        first.fault = UpstreamGone("gone")
        self.visit.routes.upstream = other
        self.visit.target.end(ConnectionLost())
        self.assertIn(b"GET /a?b ", other.wires[0].taken())
        other.wires[0].protocol.dataReceived(OK)
        self.assertEqual(self.wire.taken(), OK)

    def test_not_begun_with(self) -> None:
        """What a client has not begun with is tried on another connection, once, if the whole
        request can be sent again."""
        for error in (StreamLimit, UpstreamGone):
            for request, tried in ((GET, True), (POST[:-1], True), (POST, False)):
                self.visit = Visit()
                self.wire = self.visit.visitor()
                self.wire.protocol.dataReceived(request)
                other = self.visit.routes.upstream = Targets()
                self.visit.target.end(error())
                self.assertEqual(len(other.wires), int(tried), request)
                if tried:
                    self.assertIn(request.partition(b" ")[0], other.wires[0].taken())
                    other.wires[0].end(error())
                self.assertEqual(len(other.wires), int(tried))
                self.assertEqual(self.last()[0], 503)

    def test_nobody_else(self) -> None:
        """Without another connection the visitor hears that he may come again."""
        for error, code in (
            (StreamLimit, "TUNNEL_TRANSPORT_REQUEST_LIMIT"),
            (UpstreamGone, "TUNNEL_NOT_CONNECTED"),
        ):
            self.wire = self.visit.visitor()
            self.wire.protocol.dataReceived(GET)
            self.visit.target.end(error())
            status, answer, _ = self.last()
            self.assertEqual((status, answer["error"]), (503, code))
        self.assertEqual(len(self.visit.targets.wires), 2)
        self.wire = self.visit.visitor()
        self.wire.protocol.dataReceived(GET)
        self.visit.routes.upstream = None
        self.visit.target.end(UpstreamGone())
        self.assertEqual(self.last()[0], 503)

    def test_target_resets(self) -> None:
        """A target that resets is a 502 before its response, and a cut in the middle of it."""
        self.wire.protocol.dataReceived(GET)
        self.visit.target.end(TargetReset("reset"))
        status, error, _ = self.last()
        self.assertEqual((status, error["error"]), (502, "TUNNEL_TARGET_CON_RESET"))
        self.wire = self.visit.visitor()
        self.wire.protocol.dataReceived(GET)
        self.visit.target.protocol.dataReceived(b"HTTP/1.1 200 OK\r\n\r\nabc")
        self.visit.target.end(TargetReset("reset"))
        self.assertTrue(self.wire.reset)

    def test_target_speaks_nonsense(self) -> None:
        """A response that can be read in two ways is a 502, and its stream is cut."""
        for answer in (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"SSH-2.0-OpenSSH\r\n\r\n",
            b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        ):
            self.wire.protocol.dataReceived(GET)
            self.visit.target.protocol.dataReceived(answer)
            status, error, _ = self.last()
            self.assertEqual((status, error["error"]), (502, "TUNNEL_TARGET_CON_FAILED"))
            self.assertTrue(self.visit.target.reset)

    def test_a_response_cut_short_looks_cut_short(self) -> None:
        """The visitor is closed before the length, or without a last chunk, or reset."""
        for answer, reset in (
            (OK[:-1], False),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", False),
            (b"HTTP/1.1 200 OK\r\n\r\nabc", True),
        ):
            self.wire = self.visit.visitor()
            self.wire.protocol.dataReceived(GET)
            self.visit.target.protocol.dataReceived(answer)
            self.visit.target.end(ConnectionLost())
            self.assertTrue(self.wire.disconnected)
            self.assertEqual(self.wire.reset, reset)
            self.assertNotIn(b"0\r\n\r\n", self.wire.taken()[-5:])

    def test_bad_chunk_in_the_middle(self) -> None:
        """A response whose chunks break ends the visitor's connection without a last chunk."""
        self.wire.protocol.dataReceived(GET)
        self.visit.target.protocol.dataReceived(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"
        )
        self.visit.target.protocol.dataReceived(b"xyz\r\n")
        self.assertTrue(self.wire.taken().endswith(b"1\r\na\r\n"))
        self.assertTrue(self.wire.disconnected)

    def test_client_leaves_while_the_stream_opens(self) -> None:
        """Another connection of the tunnel is tried, once."""
        self.visit.targets.fault = UpstreamGone("gone")
        self.wire.protocol.dataReceived(GET)
        self.assertEqual(len(self.visit.targets.origins), 2)
        self.assertEqual(self.last()[0], 502)

    def test_visitor_leaves(self) -> None:
        """The target's work is stopped when the visitor has gone."""
        self.wire.protocol.dataReceived(GET)
        self.wire.end(ConnectionDone())
        self.assertTrue(self.visit.target.reset)
        self.assertEqual(self.visit.log.lines[0]["status"], 499)

    def test_visitor_leaves_while_the_stream_opens(self) -> None:
        """A stream that opens for nobody is closed."""
        self.visit.targets.waiting = []
        self.wire.protocol.dataReceived(GET)
        self.wire.end(ConnectionDone())
        self.visit.pass_time(1)
        self.assertEqual(self.visit.log.lines[0]["status"], 499)


class TimeTests(SynchronousTestCase):
    """How long each phase may last."""

    def setUp(self) -> None:
        self.visit = Visit()
        self.wire = self.visit.visitor()

    def test_slow_head(self) -> None:
        """Ten seconds for a head, from its first byte, however often one more comes."""
        for byte in GET[:12]:
            self.wire.protocol.dataReceived(bytes([byte]))
            self.visit.pass_time(1)
        self.assertTrue(self.wire.taken().startswith(b"HTTP/1.1 408 "))
        self.assertTrue(self.wire.half_closed)

    def test_idle(self) -> None:
        """An idle connection is closed after 75 seconds, without a word."""
        self.visit.pass_time(70)
        self.assertFalse(self.wire.disconnected)
        self.visit.pass_time(6)
        self.assertTrue(self.wire.disconnected)
        self.assertEqual(self.wire.taken(), b"")

    def test_slow_target(self) -> None:
        """A target that does not answer is a 504; one that has begun has all the time."""
        self.wire.protocol.dataReceived(GET)
        self.visit.pass_time(299)
        self.assertEqual(self.wire.taken(), b"")
        self.visit.pass_time(2)
        self.assertTrue(self.wire.taken().startswith(b"HTTP/1.1 504 "))
        self.assertTrue(self.visit.target.reset)
        self.wire.protocol.dataReceived(GET)
        self.visit.target.protocol.dataReceived(OK[:-1])
        self.visit.pass_time(1000)
        self.visit.target.protocol.dataReceived(OK[-1:])
        self.assertEqual(self.wire.taken(), OK)

    def test_slow_body(self) -> None:
        """A body that stops coming is a 408; one that trickles is not."""
        self.wire.protocol.dataReceived(
            b"POST / HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 6\r\n\r\n"
        )
        for _ in range(3):
            self.visit.pass_time(250)
            self.wire.protocol.dataReceived(b"x")
        self.assertEqual(self.wire.taken(), b"")
        self.visit.pass_time(301)
        self.assertTrue(self.wire.taken().startswith(b"HTTP/1.1 408 "))

    def test_a_visitor_that_reads_nothing(self) -> None:
        """After 300 seconds without a byte leaving, the connection is cut."""
        self.wire.protocol.dataReceived(GET)
        self.visit.target.protocol.dataReceived(OK[:-1])
        self.wire.protocol.pauseProducing()
        self.visit.pass_time(302)
        self.assertTrue(self.wire.reset)
        self.assertTrue(self.visit.target.reset)

    def test_idle_after_a_slow_visitor(self) -> None:
        """Who was slow to take the end of a response is idle once he has it, like anybody; and has
        his next request answered in time, or refused."""
        for ending, answer in ((b"", b""), (GET, b"HTTP/1.1 504 ")):
            self.visit = Visit()
            self.wire = self.visit.visitor()
            self.wire.protocol.dataReceived(GET)
            self.visit.target.protocol.dataReceived(OK[:-1])
            self.wire.protocol.pauseProducing()
            self.visit.target.protocol.dataReceived(OK[-1:])
            self.wire.protocol.dataReceived(ending)
            self.wire.protocol.resumeProducing()
            self.wire.clear()
            self.visit.pass_time(60)
            self.assertFalse(self.wire.disconnected)
            self.visit.pass_time(302)
            self.assertTrue(self.wire.taken().startswith(answer))
            self.visit.pass_time(76)
            self.assertTrue(self.wire.disconnected)


class PressureTests(SynchronousTestCase):
    """Whoever cannot take more stops the other side."""

    def setUp(self) -> None:
        self.visit = Visit()
        self.wire = self.visit.visitor()

    def test_slow_visitor(self) -> None:
        """A full visitor pauses the target's stream, until it has room again."""
        self.wire.protocol.dataReceived(GET)
        self.visit.target.protocol.dataReceived(OK[:-1])
        self.wire.protocol.pauseProducing()
        self.assertEqual(self.visit.target.producerState, "paused")
        self.wire.protocol.resumeProducing()
        self.assertEqual(self.visit.target.producerState, "producing")

    def test_slow_visitor_at_the_end(self) -> None:
        """A stream is not left paused for the next visitor."""
        self.wire.protocol.dataReceived(GET)
        self.visit.target.protocol.dataReceived(OK[:-1])
        self.wire.protocol.pauseProducing()
        self.visit.target.protocol.dataReceived(OK[-1:])
        self.assertEqual(self.visit.target.producerState, "producing")

    def test_slow_target(self) -> None:
        """A full stream pauses the visitor."""
        self.wire.protocol.dataReceived(
            b"POST / HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 99\r\n\r\nabc"
        )
        self.visit.target.protocol.pauseProducing()
        self.assertEqual(self.wire.producerState, "paused")
        self.visit.target.protocol.resumeProducing()
        self.assertEqual(self.wire.producerState, "producing")

    def test_no_stream_yet(self) -> None:
        """A body that comes before its stream is open waits in the visitor's socket."""
        self.visit.targets.waiting = []
        self.wire.protocol.dataReceived(
            b"POST / HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 6\r\n\r\nabc"
        )
        self.assertEqual(self.wire.producerState, "paused")
        opening, factory = self.visit.targets.waiting[0]
        opening.callback(self.visit.targets.open(factory))
        self.assertTrue(self.visit.target.taken().endswith(b"\r\n\r\nabc"))
        self.assertEqual(self.wire.producerState, "producing")


class WebsocketTests(SynchronousTestCase):
    """Upgrades to websocket."""

    ACCEPT = b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nS: x\r\n\r\n"

    def setUp(self) -> None:
        self.visit = Visit()
        self.wire = self.visit.visitor()

    def test_upgrade(self) -> None:
        """The target agrees, then bytes pass both ways; what came early is not lost."""
        self.wire.protocol.dataReceived(UPGRADE % b"demo.test" + b"early")
        line, fields, rest = request_lines(self.visit.target.taken())
        self.assertEqual((line, rest), (b"GET /ws HTTP/1.1", b""))
        self.assertEqual(fields[b"host"], b"target:3000")
        self.assertEqual(fields[b"upgrade"], b"websocket")
        self.assertEqual(fields[b"x-forwarded-for"], b"203.0.113.9")
        self.visit.target.protocol.dataReceived(self.ACCEPT + b"soon")
        answer = self.wire.taken()
        self.assertTrue(answer.startswith(b"HTTP/1.1 101 "))
        self.assertTrue(answer.endswith(b"\r\n\r\nsoon"))
        self.assertEqual(self.visit.target.taken(), b"early")
        self.wire.protocol.dataReceived(b"ping")
        self.visit.target.protocol.dataReceived(b"pong")
        self.assertEqual((self.visit.target.taken(), self.wire.taken()), (b"ping", b"pong"))
        self.wire.end(ConnectionDone())
        self.assertTrue(self.visit.target.disconnected)
        logged = self.visit.log.lines[0]
        self.assertEqual((logged["status"], logged["in"], logged["out"]), (101, 9, 8))

    def test_refused_by_the_target(self) -> None:
        """Another answer is an answer like any other."""
        self.wire.protocol.dataReceived(UPGRADE % b"demo.test")
        self.visit.target.protocol.dataReceived(OK)
        self.assertEqual(self.wire.taken(), OK)
        self.assertFalse(self.wire.disconnected)

    def test_other_protocols_are_not_passed_on(self) -> None:
        """A request for h2c is a plain request to the target."""
        self.wire.protocol.dataReceived(
            (UPGRADE % b"demo.test").replace(b"Upgrade: websocket", b"Upgrade: h2c")
        )
        _, fields, _ = request_lines(self.visit.target.taken())
        self.assertNotIn(b"upgrade", fields)
        self.assertNotIn(b"connection", fields)


class Recorder(Protocol):
    """Keeps what it receives."""

    received = b""

    def dataReceived(self, data: bytes) -> None:
        self.received += data


@implementer(ITakeover)
class Endpoint:
    """Takes /ws, when it is told to."""

    def __init__(self, answer: Deferred[IProtocol]) -> None:
        self.answer = answer

    def claims(self, path: bytes) -> bool:
        return path == b"/ws"

    def admit(
        self, target: bytes, fields: list[tuple[bytes, bytes]], origin: Origin
    ) -> Deferred[IProtocol]:
        self.origin = origin
        return self.answer


class APITests(SynchronousTestCase):
    """Requests for the API on the shared port."""

    def test_api_and_tunnel_on_one_connection(self) -> None:
        """A balancer's connection may carry both, in turn; the API gets small bodies whole."""
        api = Targets()
        visit = Visit(api=api)
        wire = visit.visitor()
        wire.protocol.dataReceived(
            b"PUT /v1 HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        self.assertEqual(wire.taken(), b"HTTP/1.1 100 Continue\r\n\r\n")
        wire.protocol.dataReceived(b"1\r\n{\r\n")
        self.assertEqual(api.wires, [])
        wire.protocol.dataReceived(b"1\r\n}\r\n0\r\n\r\n" + GET)
        received = api.wires[0].taken()
        self.assertIn(b"Content-Length: 2\r\n", received)
        self.assertTrue(received.endswith(b"\r\n\r\n{}"))
        self.assertEqual(api.origins[0].base_url, "http://api.test")
        api.wires[0].protocol.dataReceived(OK)
        self.assertEqual(wire.taken(), OK)
        self.assertIn(b"GET /a?b ", visit.target.taken())

    def test_port_of_a_proxy(self) -> None:
        """A proxy that passes on a Host without its port tells the API which one it is."""
        api = Targets()
        wire = Visit(api=api, trusted=("203.0.113.0/24",)).visitor()
        wire.protocol.dataReceived(
            b"GET /v1 HTTP/1.1\r\nHost: api.test\r\nX-Forwarded-Proto: https\r\n"
            b"X-Forwarded-Port: 8443\r\n\r\n"
        )
        self.assertEqual(api.origins[0].base_url, "https://api.test:8443")

    def test_chunks_for_the_api_again(self) -> None:
        """The same head may come again, with chunks of another length."""
        api = Targets()
        wire = Visit(api=api).visitor()
        for body in (b"{}", b"[1]", b""):
            chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
            wire.protocol.dataReceived(
                b"PUT /v1 HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
            )
            received = api.wires[-1].taken()
            self.assertIn(b"Content-Length: %d\r\n" % len(body), received)
            self.assertTrue(received.endswith(b"\r\n\r\n" + body))
            api.wires[-1].protocol.dataReceived(OK)
            self.assertEqual(wire.taken(), OK)

    def test_too_large_for_the_api(self) -> None:
        """Of a huge body the API gets just enough to refuse it."""
        api = Targets()
        visit = Visit(api=api)
        wire = visit.visitor()
        wire.protocol.dataReceived(
            b"PUT /v1 HTTP/1.1\r\nHost: api.test\r\nContent-Length: 9999999\r\n\r\n"
        )
        for _ in range(3):
            wire.protocol.dataReceived(b"x" * 30000)
        received = api.wires[0].taken()
        self.assertIn(b"Content-Length: 65537\r\n", received)
        self.assertTrue(received.endswith(b"\r\n\r\n" + b"x" * 65537))
        api.wires[0].protocol.dataReceived(OK)
        self.assertIn(b"Connection: close\r\n", wire.taken())
        self.assertTrue(wire.half_closed)

    def test_transport_endpoint(self) -> None:
        """The websocket endpoint gets the connection, with the head and what follows it."""
        recorder = Recorder()
        endpoint = Endpoint(succeed(recorder))
        visit = Visit(api=Targets(), takeover=endpoint)
        wire: Wire = visit.visitor()
        wire.protocol.dataReceived(UPGRADE % b"api.test" + b"more")
        self.assertTrue(recorder.received.startswith(b"GET /ws HTTP/1.1\r\nHost: api.test\r\n"))
        self.assertTrue(recorder.received.endswith(b"\r\n\r\nmore"))
        wire.protocol.dataReceived(b"x")
        self.assertTrue(recorder.received.endswith(b"morex"))

    def test_transport_endpoint_refuses(self) -> None:
        """Bad credentials are a 401 with JSON, as clients hang on an empty one."""
        endpoint = Endpoint(fail(PermissionDenied("")))
        visit = Visit(api=Targets(), takeover=endpoint)
        wire = visit.visitor()
        wire.protocol.dataReceived(UPGRADE % b"api.test")
        head, _, body = wire.taken().partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 401 "))
        self.assertEqual(json.loads(body)["error"], "PERMISSION_DENIED")

    def test_transport_endpoint_shuts_out(self) -> None:
        """Whose credentials were wrong too often is told when to come back."""
        visit = Visit(api=Targets(), takeover=Endpoint(fail(TooManyFailures(42))))
        wire = visit.visitor()
        wire.protocol.dataReceived(UPGRADE % b"api.test")
        head, _, body = wire.taken().partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 429 "))
        self.assertIn(b"\r\nRetry-After: 42", head)
        self.assertEqual(json.loads(body)["error"], "PERMISSION_DENIED")


class DrainTests(SynchronousTestCase):
    """A server that is stopping."""

    def test_drain(self) -> None:
        """Running requests end with Connection: close; idle connections get a second."""
        visit = Visit()
        idle, busy, last = visit.visitor(), visit.visitor(), visit.visitor()
        busy.protocol.dataReceived(GET)
        visit.factory.drain()
        last.protocol.dataReceived(GET)
        visit.pass_time(2)
        self.assertTrue(idle.disconnected)
        for wire, target in ((busy, visit.targets.wires[0]), (last, visit.targets.wires[1])):
            self.assertFalse(wire.disconnected)
            target.protocol.dataReceived(OK)
            self.assertIn(b"Connection: close\r\n", wire.taken())
            self.assertTrue(wire.disconnected)

    def test_drain_in_a_response(self) -> None:
        """Who was promised that the connection goes on has a second for one more request."""
        visit = Visit()
        first, idle = visit.visitor(), visit.visitor()
        for number, wire in enumerate((first, idle)):
            wire.protocol.dataReceived(GET)
            visit.targets.wires[number].protocol.dataReceived(OK[:-1])
        visit.factory.drain()
        for number in (0, 1):
            visit.targets.wires[number].protocol.dataReceived(OK[-1:])
        self.assertNotIn(b"Connection: close", first.taken())
        first.protocol.dataReceived(GET)
        visit.targets.wires[-1].protocol.dataReceived(OK)
        self.assertIn(b"Connection: close\r\n", first.taken())
        visit.pass_time(2)
        self.assertTrue(first.disconnected and idle.disconnected)
