"""REST calls, against a stand-in for the existing exposrd."""

import json
from typing import Any

from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import Agent
from twisted.web.resource import Resource
from twisted.web.server import Request

from exposr_tx.client import rest
from exposr_tx.client.answers import (
    AccountRefused,
    RegistrationClosed,
    ServerRefusal,
    ServerUnreachable,
    TunnelTaken,
)
from exposr_tx.client.rest import RestClient
from tests.client.exposrd import Exposrd


class Fixed(Resource):
    """Answers everything the same."""

    isLeaf = True

    def __init__(self, status: int, body: bytes, **headers: str) -> None:
        super().__init__()
        self.status, self.body, self.fields = status, body, headers
        self.hosts: list[bytes | None] = []

    def render(self, request: Request) -> bytes:
        self.hosts.append(request.getHeader(b"host"))
        request.setResponseCode(self.status)
        for name, value in self.fields.items():
            request.setHeader(name, value)
        return self.body


class RestClientTests(SynchronousTestCase):
    """RestClient."""

    def setUp(self) -> None:
        self.server = Exposrd()
        self.rest = self.server.client()

    def result(self, coroutine: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def failure(self, coroutine: Any, kind: type[Exception]) -> str:
        return str(self.failureResultOf(Deferred.fromCoroutine(coroutine), kind).value)

    def test_a_life(self) -> None:
        """Account, tunnel, change, read, disconnect, delete."""
        shown = self.result(self.rest.create_account())
        self.assertEqual(shown.replace("-", ""), self.rest.account)
        tunnel = self.result(self.rest.create("abcd"))
        self.assertEqual((tunnel.tunnel_id, tunnel.max_connections), ("abcd", 2))
        self.result(self.rest.patch("abcd", {"ingress": {"http": {"enabled": True}}}))
        tunnel = self.result(self.rest.read("abcd"))
        self.assertEqual(tunnel.ingress_urls(), [("HTTP", "http://abcd.tun.test/")])
        self.assertTrue(self.result(self.rest.disconnect("abcd")))
        self.assertFalse(self.result(self.rest.is_ours(tunnel)))
        self.result(self.rest.delete("abcd"))
        said = self.failure(self.rest.read("abcd"), ServerRefusal)
        self.assertIn("TUNNEL_NOT_FOUND", said)

    def test_missing_tunnel(self) -> None:
        """A change of a tunnel that is not there says so, though exposrd answers 500."""
        self.result(self.rest.create_account())
        said = self.failure(self.rest.patch("nope", {}), ServerRefusal)
        self.assertIn("no such tunnel", said)

    def test_wrong_name(self) -> None:
        """A name that no tunnel can have is told with what names look like, not as a pattern."""
        field = '"tunnel_id" with value "app" fails to match the required pattern: /^(?:[a-z0-9]'
        body = json.dumps({"error": "BAD_INPUT", "field": field}).encode()
        said = self.failure(self.fixed(400, body).create_account(), ServerRefusal)
        self.assertEqual(
            said,
            "'app' cannot be a tunnel's name; use 4 to 63 lower-case letters and digits, "
            "or 6 to 65 with dashes between them",
        )

    def test_unknown_account(self) -> None:
        """A wrong account is refused, and the message names the option and not the account."""
        rest = self.server.client("XXXX-SECRET")
        said = self.failure(rest.read("abcd"), AccountRefused)
        self.assertIn("--account", said)
        self.assertNotIn("SECRET", said)

    def test_foreign_tunnel(self) -> None:
        """Somebody else's tunnel is not the account's fault."""
        self.result(self.rest.create_account())
        self.result(self.rest.create("abcd"))
        other = self.server.client()
        self.result(other.create_account())
        self.failure(other.create("abcd"), TunnelTaken)

    def test_registration_closed(self) -> None:
        """A server that registers nobody names who can."""
        said = self.failure(
            Exposrd(registration=False).client().create_account(), RegistrationClosed
        )
        self.assertIn("exposr admin account create --storage-url", said)

    def fixed(self, status: int, body: bytes, **headers: str) -> RestClient:
        http = RequestTraversalAgent(Fixed(status, body, **headers))
        return RestClient("http://x", http, Clock())

    def test_not_the_api(self) -> None:
        """Something else behind the URL is told to be that."""
        said = self.failure(self.fixed(200, b"<html>").create_account(), ServerRefusal)
        self.assertIn("not an exposr server", said)
        self.failure(self.fixed(201, b"[]").create_account(), ServerRefusal)
        self.failure(self.fixed(201, b'{"account_id": 3}').create_account(), ServerRefusal)

    def test_another_host_of_the_server(self) -> None:
        """A server that has its API under another name only is not said to lack a tunnel."""
        for body in (b'{"error":"TUNNEL_NOT_FOUND"}', b"Not Found"):
            client = self.fixed(404, body)
            client.use("CDEF")
            said = self.failure(client.read("abcd"), ServerRefusal)
            self.assertIn("not an exposr server's API; look at --server", said)
        client = self.fixed(404, b'{"error":"TUNNEL_NOT_FOUND"}')
        self.assertIn("look at --server", self.failure(client.create_account(), ServerRefusal))

    def test_endless_answer(self) -> None:
        """An answer that is longer than any of the API's is not read to its end."""
        self.patch(rest, "LONGEST_ANSWER", 1000)
        long = b'{"account_id": "%b", "account_id_hr": "x"}'
        self.result(self.fixed(201, long % (b"A" * 900)).create_account())
        said = self.failure(self.fixed(201, long % (b"A" * 1000)).create_account(), ServerRefusal)
        self.assertIn("not an exposr server", said)

    def test_server_with_a_name_of_its_own(self) -> None:
        """A host that is not written in ASCII is asked by its ASCII form."""
        page = Fixed(201, b"{}")
        client = RestClient("http://b\u00fccher.test", RequestTraversalAgent(page), Clock())
        self.failure(client.create_account(), ServerRefusal)
        self.assertEqual(page.hosts, [b"xn--bcher-kva.test"])

    def test_server_by_an_address_of_ipv6(self) -> None:
        """A server may be given by its address, of IPv6 too."""
        page = Fixed(201, b"{}")
        client = RestClient("http://[::1]:8080", RequestTraversalAgent(page), Clock())
        self.failure(client.create_account(), ServerRefusal)
        self.assertEqual(page.hosts, [b"[::1]:8080"])

    def test_gateway_without_server(self) -> None:
        """A proxy's 502 means that the server is not there."""
        self.failure(self.fixed(502, b"<html>").create_account(), ServerUnreachable)

    def test_redirects_are_not_followed(self) -> None:
        """A token is not carried to where a redirect points; the server it leads to is shown."""
        for location, meant in (
            ("https://x/", "https://x/"),
            ("https://x:8443/y/v1/account", "https://x:8443/y/"),
            ("https://sso.x/login?then=v1/account", "https://sso.x/"),
            ("/y/v1/account", "http://x/y/"),
            ("//y/v1/account", "http://y/"),
        ):
            answer = self.fixed(301, b"", location=location).create_account()
            said = self.failure(answer, ServerRefusal)
            self.assertTrue(said.endswith(f"give --server {meant}"), said)

    def test_timeout(self) -> None:
        """A server that is silent for five seconds is unreachable."""
        reactor = MemoryReactorClock()
        client = RestClient("http://127.0.0.1:1", Agent(reactor), reactor)
        call = Deferred.fromCoroutine(client.create_account())
        reactor.advance(4.9)
        self.assertNoResult(call)
        reactor.advance(0.2)
        self.failureResultOf(call, ServerUnreachable)

    def test_timeout_in_the_middle(self) -> None:
        """A server that stops in the middle of its answer is hung up on."""
        reactor = MemoryReactorClock()
        client = RestClient("http://127.0.0.1:1", Agent(reactor), reactor)
        call = Deferred.fromCoroutine(client.create_account())
        line: Any = reactor.tcpClients[0][2].buildProtocol(None)
        wire = StringTransport()
        line.makeConnection(wire)
        line.dataReceived(b"HTTP/1.1 201 Created\r\nContent-Length: 9\r\n\r\n{")
        reactor.advance(4.9)
        self.assertNoResult(call)
        reactor.advance(0.2)
        self.failureResultOf(call, ServerUnreachable)
        self.assertTrue(wire.disconnecting)
