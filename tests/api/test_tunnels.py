"""The API's tunnels: every endpoint, every status, every error text."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail

from exposr_tx.api import ApiSettings
from exposr_tx.api.validation import check_change
from exposr_tx.errors import BadInput, StorageUnavailable
from exposr_tx.interfaces import Connection
from exposr_tx.tunnels import Change
from tests.api.rig import ApiCase, Response

PATH = "/v1/tunnel/my-tunnel"
ALL = frozenset({"http", "tcp"})
KEYS = [
    *("ingress", "http", "sni", "tcp", "target", "url", "transport", "ws", "ssh"),
    *("enabled", "port", "alt_names", "host_header", "foo"),
]


class TunnelCase(ApiCase):
    settings = ApiSettings("http://tun.test:8080", ingress=ALL)

    def assert_error(self, answer: Response, status: int, error: str, **more: str) -> None:
        self.assertEqual((status, {"error": error, **more}), (answer.status, answer.json))
        self.assertEqual("no-store", answer.fields["cache-control"])

    def assert_bad(self, body: Any, field: str, **more: Any) -> None:
        for method in ("PUT", "PATCH"):
            answer = self.mine(method, PATH, body, **more)
            self.assert_error(answer, 400, "BAD_INPUT", field=field)


class EndpointTests(TunnelCase):
    """What each endpoint answers."""

    def test_new_tunnel(self) -> None:
        """A new tunnel's JSON: what is not there is left out."""
        answer = self.mine("PUT", PATH, {})
        self.assertEqual(200, answer.status)
        token = self.tunnels.token("my-tunnel")
        self.assertEqual(
            {
                "id": "my-tunnel",
                "connection": {"connected": False, "connections": 0},
                "transport": {
                    "max_connections": 2,
                    "ws": {
                        "enabled": False,
                        "url": f"ws://tun.test:8080/v1/tunnel/my-tunnel/ws-endpoint?t={token}",
                    },
                },
                "ingress": {"http": {}, "sni": {}, "tcp": {}},
                "target": {},
                "created_at": "2023-11-14T22:13:20.000Z",
            },
            answer.json,
        )
        self.assertEqual(answer.body, self.mine("GET", PATH).body)

    def test_all_of_it(self) -> None:
        """A tunnel with everything, connected."""
        body = {
            "ingress": {
                "http": {"enabled": True, "alt_names": None, "host_header": "preserve"},
                "sni": {"enabled": False},
                "tcp": {"enabled": "true", "port": 20001},
            },
            "target": {"url": "http://localhost:3000/"},
            "transport": {"ws": {"enabled": True}, "ssh": {"enabled": "TRUE"}},
        }
        self.connections.states["my-tunnel"] = Connection(2, 1707560000123, 1, 1707560050456)
        shown = self.mine("PUT", PATH, body).json
        self.assertEqual(
            {
                "http": {
                    "enabled": True,
                    "url": "http://my-tunnel.tun.test:8080/",
                    "urls": ["http://my-tunnel.tun.test:8080/"],
                    "alt_names": [],
                    "host_header": "preserve",
                },
                "sni": {},
                "tcp": {
                    "enabled": True,
                    "port": 20001,
                    "url": "tcp://tun.test:20001",
                    "urls": ["tcp://tun.test:20001"],
                },
            },
            shown["ingress"],
        )
        self.assertEqual({"url": "http://localhost:3000/"}, shown["target"])
        self.assertTrue(shown["transport"]["ws"]["enabled"])
        self.assertEqual(
            {
                "connected": True,
                "connections": 2,
                "connected_at": 1707560000123,
                "disconnected_at": 1,
                "alive_at": 1707560050456,
            },
            shown["connection"],
        )

    def test_merge(self) -> None:
        """PUT and PATCH change what is mentioned, and null clears."""
        self.mine("PUT", PATH, {"target": {"url": "tcp://localhost:22"}})
        self.mine("PUT", PATH, {"ingress": {"http": {"enabled": True, "host_header": "a:80"}}})
        shown = self.mine("PATCH", PATH, {"transport": {"ws": {"enabled": True}}}).json
        self.assertEqual("tcp://localhost:22", shown["target"]["url"])
        self.assertEqual("a:80", shown["ingress"]["http"]["host_header"])
        shown = self.mine(
            "PATCH", PATH, {"target": {"url": None}, "ingress": {"http": {"host_header": None}}}
        ).json
        self.assertEqual({}, shown["target"])
        self.assertEqual("target", shown["ingress"]["http"]["host_header"])

    def test_missing(self) -> None:
        """What is not there is 404 for all but PUT."""
        for method, path, body in (
            ("GET", PATH, None),
            ("PATCH", PATH, {}),
            ("DELETE", PATH, None),
            ("POST", f"{PATH}/disconnect", {}),
        ):
            self.assert_error(self.mine(method, path, body), 404, "TUNNEL_NOT_FOUND")

    def test_foreign(self) -> None:
        """Somebody else's tunnel is as good as missing; PUT is told that the id is taken."""
        self.mine("PUT", PATH, {})
        for method, path, body in (
            ("GET", PATH, None),
            ("PATCH", PATH, {}),
            ("DELETE", PATH, None),
            ("POST", f"{PATH}/disconnect", {}),
        ):
            answer = self.request(method, path, body, self.bob)
            self.assert_error(answer, 404, "TUNNEL_NOT_FOUND")
        self.assert_error(self.request("PUT", PATH, {}, self.bob), 403, "PERMISSION_DENIED")
        self.assertEqual([], self.connections.asked)

    def test_delete(self) -> None:
        """A removed tunnel's connections are closed, and its id is free once they are gone."""
        self.mine("PUT", PATH, {})
        self.connections.waiting = Deferred()
        visitor = self.connect()
        head = f"DELETE {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
        token = self.request("GET", f"/v1/account/{self.alice.id}/token").json["token"]
        self.send(visitor, f"{head}{token}\r\n\r\n".encode())
        self.assertEqual([("my-tunnel", "deleted")], self.connections.asked)
        self.assertEqual(403, self.request("PUT", PATH, {}, self.bob).status)
        self.assertEqual(b"", visitor.received)
        self.connections.waiting.callback(True)
        self.turn()
        self.assertTrue(visitor.received.startswith(b"HTTP/1.1 204 No Content\r\n"))
        self.assertTrue(visitor.received.endswith(b"\r\n\r\n"))
        self.assertEqual(200, self.request("PUT", PATH, {}, self.bob).status)

    def test_disconnect(self) -> None:
        """Disconnecting tells whether the connections are gone, and keeps the token."""
        self.mine("PUT", PATH, {})
        token = self.tunnels.token("my-tunnel")
        bodies: tuple[Any, ...] = (None, {}, b"junk")
        for body in bodies:
            answer = self.mine("POST", f"{PATH}/disconnect", body)
            self.assertEqual((200, {"result": True}), (answer.status, answer.json))
        self.assertEqual(("my-tunnel", "disconnected"), self.connections.asked[0])
        self.assertEqual(token, self.tunnels.token("my-tunnel"))

    def test_list(self) -> None:
        """The list comes in pages, in the form of single tunnels."""
        self.assertEqual({"tunnels": [], "cursor": None}, self.mine("GET", "/v1/tunnel").json)
        for n in range(30):
            self.mine("PUT", f"/v1/tunnel/tunnel{n:02}", {})
        page = self.mine("GET", "/v1/tunnel").json
        self.assertEqual((25, "tunnel24"), (len(page["tunnels"]), page["cursor"]))
        self.assertEqual(self.mine("GET", "/v1/tunnel/tunnel00").json, page["tunnels"][0])
        page = self.mine("GET", "/v1/tunnel?count=3&cursor=tunnel27").json
        self.assertEqual(["tunnel28", "tunnel29"], [item["id"] for item in page["tunnels"]])
        self.assertIsNone(page["cursor"])
        self.assertEqual([], self.request("GET", "/v1/tunnel", account=self.bob).json["tunnels"])

    def test_bad_page(self) -> None:
        """A count or cursor that cannot be is named."""
        for query, name in (
            ("count=0", "count"),
            ("count=101", "count"),
            ("count=x", "count"),
            ("count=", "count"),
            ("cursor=../x", "cursor"),
            ("cursor=%FF", "cursor"),
        ):
            answer = self.mine("GET", f"/v1/tunnel?{query}")
            self.assertEqual((400, "BAD_INPUT"), (answer.status, answer.json["error"]))
            self.assertTrue(answer.json["field"].startswith(f'"{name}"'))

    def test_head(self) -> None:
        """HEAD works wherever GET does, with the same fields and no body."""
        self.mine("PUT", PATH, {})
        for path in ("/v1/tunnel", PATH, "/v1/tunnel/other", "/nowhere"):
            get, head = self.mine("GET", path), self.mine("HEAD", path)
            self.assertEqual((get.status, b""), (head.status, head.body))
            for fields in (get.fields, head.fields):
                fields.pop("date")
            self.assertEqual(get.fields, head.fields)

    def test_storage_down(self) -> None:
        """Without storage a write is 503; where the disk is stays in the log."""

        def put(*arguments: Any) -> Deferred[int]:
            return fail(StorageUnavailable("/secret/path: no space is left"))

        self.patch(self.storage, "put", put)
        answer = self.mine("PUT", PATH, {})
        self.assert_error(answer, 503, "UNKNOWN_ERROR", detailed="storage_unavailable")

    def test_crash(self) -> None:
        """A fault of ours is 500 without a word about it, and a traceback in the log."""
        self.patch(self.connections, "state", lambda tunnel_id: 1 / 0)
        answer = self.mine("PUT", PATH, {})
        self.assertEqual((500, b"Internal Server Error"), (answer.status, answer.body))
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))


class PathTests(TunnelCase):
    """Which paths are ours."""

    def test_spellings(self) -> None:
        """Case and a trailing slash do not matter, but for the id's case."""
        self.mine("PUT", PATH, {})
        for path in ("/V1/Tunnel/my-tunnel", f"{PATH}/", "/v1/TUNNEL", "/v1/tunnel/"):
            self.assertEqual(200, self.mine("GET", path).status, path)
        for path in ("/v1/tunnel/my-tunnel/DISCONNECT", f"{PATH}/disconnect/"):
            self.assertEqual(200, self.mine("POST", path).status, path)
        self.assertEqual(400, self.mine("GET", "/v1/tunnel/My-Tunnel").status)

    def test_unknown(self) -> None:
        """Anything else is 404 in plain text, whatever the method."""
        for method, path in (
            ("GET", "/"),
            ("GET", "/v1"),
            ("GET", "/v2/tunnel"),
            ("GET", "//v1/tunnel"),
            ("GET", "/v1//tunnel"),
            ("GET", "/v1/tunnel//"),
            ("GET", f"{PATH}/disconnect/x"),
            ("GET", f"{PATH}%2Fdisconnect"),
            ("GET", f"{PATH}/disconnect"),
            ("GET", f"{PATH}/ws-endpoint?t=x"),
            ("GET", "/%FF"),
            ("GET", "/../v1/tunnel"),
            ("GET", "*"),
            ("OPTIONS", "*"),
            ("OPTIONS", PATH),
            ("POST", PATH),
            ("PUT", "/v1/tunnel"),
            ("DELETE", "/v1/account"),
            ("BREW", "/v1/tunnel"),
            ("GET", "/v1/account"),
        ):
            answer = self.mine(method, path)
            self.assertEqual((404, b"Not Found"), (answer.status, answer.body), (method, path))
            self.assertEqual("text/plain; charset=utf-8", answer.fields["content-type"])

    def test_any_host(self) -> None:
        """The Host is not the API's affair, however odd: ingress has looked at it."""
        for host in ("a..b", "x" * 70, "[::1]:80", "\u00fc"):
            self.assertEqual(200, self.mine("GET", "/v1/tunnel", fields={"Host": host}).status)

    def test_quiet(self) -> None:
        """Answers do not name the software, and allow no other origin."""
        for path in ("/v1/tunnel", "/nowhere"):
            fields = self.mine("GET", path, fields={"Origin": "http://evil.test"}).fields
            self.assertNotIn("server", fields)
            self.assertFalse([name for name in fields if name.startswith("access-control")])


class BodyTests(TunnelCase):
    """What a body may be, and the words for what it may not."""

    def test_content_type(self) -> None:
        """A body that is missing, or not called JSON, is refused."""
        for kind in ("-", "text/plain", "application/json-patch", "application/x-json", "json"):
            self.assert_bad({}, "content-type: expected json", fields={"Content-Type": kind})
        self.assert_bad(None, "content-type: expected json")
        self.assert_bad(
            None, "content-type: expected json", fields={"Content-Type": "application/json"}
        )

    def test_accepted(self) -> None:
        """JSON with parameters, and a body of no bytes."""
        for kind in ("application/json;charset=UTF-8", "Application/JSON ; charset=utf-8"):
            answer = self.mine("PUT", PATH, {}, fields={"Content-Type": kind})
            self.assertEqual(200, answer.status)
        self.assertEqual(200, self.mine("PUT", PATH, b"").status)

    def test_byte_order_mark(self) -> None:
        """A file that a Windows editor wrote is JSON, too."""
        answer = self.mine("PUT", PATH, b'\xef\xbb\xbf{"target":{"url":"http://a/"}}')
        self.assertEqual("http://a/", answer.json["target"]["url"])

    def test_encodings(self) -> None:
        """Other charsets and compressed bodies are refused with the reason."""
        for name, value, word in (
            ("Content-Type", "application/json; charset=utf-16", "charset"),
            ("Content-Encoding", "gzip", "encoding"),
        ):
            answer = self.mine("PUT", PATH, {}, fields={name: value})
            self.assertEqual(400, answer.status)
            self.assertTrue(answer.json["field"].startswith("content-type: "))
            self.assertIn(word, answer.json["field"])

    def test_malformed(self) -> None:
        """What is not JSON is refused, however deep or odd it is."""
        for body in (
            b"{",
            b"{]",
            b"\xff{}",
            b'{"a": NaN}',
            b'{"a": Infinity}',
            b'{"a": 1e999999} x',
            "{}".encode("utf-16"),
            b"[" * 65536,
            b'{"a":' * 10000,
            b'{"a":' * 10000 + b"1" + b"}" * 10000,
            b"{" + b"1" * 60000 + b"}",
        ):
            self.assert_bad(body, "content-type: malformed JSON")

    def test_huge_number(self) -> None:
        """A number of sixty thousand digits is no trouble."""
        answer = self.mine("PUT", PATH, b'{"a":' + b"1" * 60000 + b"}")
        self.assertEqual(400, answer.status)

    def test_not_an_object(self) -> None:
        """JSON that is no object is refused."""
        self.assert_bad([], '"value" must be of type object')
        for body in (b"1", b'"text"', b"null", b"true"):
            self.assert_bad(body, "content-type: invalid JSON, only supports object and array")

    def test_size(self) -> None:
        """64 KiB are taken, a byte more is not."""
        body = b'{"target":{"url":"http://localhost/"}}'
        fits = body + b" " * (65536 - len(body))
        self.assertEqual(200, self.mine("PUT", PATH, fits).status)
        self.assert_bad(fits + b" ", "content-type: request entity too large")
        self.assert_bad(fits * 3, "content-type: request entity too large")

    def test_tunnel_id(self) -> None:
        """An id that cannot be is named with its pattern, by every endpoint."""
        pattern = "/^(?:[a-z0-9]{4,63}|[a-z0-9][a-z0-9-]{4,63}[a-z0-9])$/"
        field = f'"tunnel_id" with value "Ab" fails to match the required pattern: {pattern}'
        for method, path, body in (
            ("GET", "/v1/tunnel/Ab", None),
            ("DELETE", "/v1/tunnel/Ab", None),
            ("PUT", "/v1/tunnel/Ab", {}),
            ("PATCH", "/v1/tunnel/Ab", {}),
            ("POST", "/v1/tunnel/Ab/disconnect", None),
        ):
            answer = self.request(method, path, body)
            self.assert_error(answer, 400, "BAD_INPUT", field=field)

    def test_order(self) -> None:
        """The body is looked at first, then the id, then the fields, then who sent them."""
        answers = [
            self.request("PUT", "/v1/tunnel/Ab", b"{"),
            self.request("PUT", "/v1/tunnel/Ab", {"x": 1}),
            self.request("PUT", PATH, {"x": 1}),
            self.request("PUT", PATH, {}),
        ]
        told = [answer.json.get("field", answer.json["error"]) for answer in answers]
        self.assertEqual("content-type: malformed JSON", told[0])
        self.assertIn("tunnel_id", told[1])
        self.assertEqual(['"x" is not allowed', "AUTH_NO_TOKEN"], told[2:])

    def test_fields(self) -> None:
        """Each field's faults have their words."""
        boolean = '"ingress.http.enabled" must be a boolean'
        uri = '"target.url" must be a valid uri'
        host = '"ingress.http.host_header" must be one of [target, preserve] or a host[:port]'
        domain = '"ingress.http.alt_names[1]" must contain a valid domain name'
        http = lambda **fields: {"ingress": {"http": fields}}  # noqa: E731
        url = lambda value: {"target": {"url": value}}  # noqa: E731
        port = lambda value: {"ingress": {"tcp": {"port": value}}}  # noqa: E731
        for body, field in (
            ({"foo": 1}, '"foo" is not allowed'),
            ({"ingress": {"foo": 1}}, '"ingress.foo" is not allowed'),
            (http(foo=1), '"ingress.http.foo" is not allowed'),
            ({"ingress": {"tcp": {"url": "x"}}}, '"ingress.tcp.url" is not allowed'),
            ({"target": {"url": "http://x/", "x": 1}}, '"target.x" is not allowed'),
            ({"transport": {"max_connections": 1}}, '"transport.max_connections" is not allowed'),
            ({"transport": {"ws": {"url": ""}}}, '"transport.ws.url" is not allowed'),
            ({"x": 1, "ingress": {"http": {"enabled": 1}}}, boolean),
            (http(enabled=None), boolean),
            (http(enabled="yes"), boolean),
            (http(enabled=[]), boolean),
            ({"transport": {"ssh": {"enabled": 0}}}, '"transport.ssh.enabled" must be a boolean'),
            ({"ingress": None}, '"ingress" must be of type object'),
            ({"ingress": {"http": []}}, '"ingress.http" must be of type object'),
            ({"target": "http://x/"}, '"target" must be of type object'),
            (url(1), '"target.url" must be a string'),
            (url(""), '"target.url" is not allowed to be empty'),
            (url("localhost"), uri),
            (url("/path"), uri),
            (url("http:"), uri),
            (url("http://a b/"), uri),
            (url("http://x/\r\nX: y"), uri),
            (url("http://\u00fc/"), uri),
            (url("http://x/%zz"), uri),
            (url("http://x/\ud800"), uri),
            (url("http://"), uri),
            (url("http:///path"), uri),
            (url("https:host"), uri),
            (url("http://:3000/"), uri),
            (url("http://host:3000x/"), uri),
            (url("tcp://host:65536"), uri),
            (url("tcp://[::1"), uri),
            (url("tcp://[host]:22"), uri),
            (url("http://" + "x" * 9000), uri),
            (http(host_header=1), '"ingress.http.host_header" must be a string'),
            (http(host_header=""), '"ingress.http.host_header" is not allowed to be empty'),
            (http(host_header="a b"), host),
            (http(host_header="a\r\nX: y"), host),
            (http(host_header="http://a/"), host),
            (port("x"), '"ingress.tcp.port" must be a number'),
            (port(True), '"ingress.tcp.port" must be a number'),
            (port(1.5), '"ingress.tcp.port" must be an integer'),
            (port(0), '"ingress.tcp.port" must be from 1 to 65535'),
            (port(-1), '"ingress.tcp.port" must be from 1 to 65535'),
            (port(65536), '"ingress.tcp.port" must be from 1 to 65535'),
            (http(alt_names="a.com"), '"ingress.http.alt_names" must be an array'),
            (http(alt_names=[1]), '"ingress.http.alt_names[0]" must be a string'),
            (http(alt_names=["a.com", "com"]), domain),
            (http(alt_names=["a.com", "a.test"]), domain),
            (http(alt_names=["a.com", "-a.com"]), domain),
            (http(alt_names=["a.com", "10.0.0.1"]), domain),
            (
                http(alt_names=["a.com"] * 11),
                '"ingress.http.alt_names" must contain less than or equal to 10 items',
            ),
        ):
            self.assert_bad(body, field)

    def test_infinite(self) -> None:
        """A number that is too large for a float is no port."""
        answer = self.mine("PUT", PATH, b'{"ingress":{"tcp":{"port":1e999}}}')
        self.assertEqual(400, answer.status)

    def test_alt_names(self) -> None:
        """Other names are refused honestly; none are accepted."""
        answer = self.mine("PUT", PATH, {"ingress": {"http": {"alt_names": ["Alt.Example.COM"]}}})
        self.assertEqual((400, "BAD_INPUT"), (answer.status, answer.json["error"]))
        self.assertIn('"ingress.http.alt_names"', answer.json["field"])
        self.assertIn("cannot verify", answer.json["field"])
        nothing: tuple[Any, ...] = (None, [])
        for names in nothing:
            answer = self.mine("PUT", PATH, {"ingress": {"http": {"alt_names": names}}})
            self.assertEqual(200, answer.status)

    def test_targets(self) -> None:
        """Absolute URIs of any scheme are targets."""
        for url in (
            "http://localhost:3000/",
            "https://[::1]:8443/a?b=c#d",
            "tcp://host:22",
            "unix:/run/app.sock",
            "unix:///run/app.sock",
            "urn:isbn:0451450523",
            "tcp:host=localhost:port=80",
        ):
            answer = self.mine("PUT", PATH, {"target": {"url": url}})
            self.assertEqual(url, answer.json["target"]["url"])

    def test_not_run(self) -> None:
        """What the server does not run cannot be enabled; what it could run later is stored."""
        answer = self.mine("PUT", PATH, {"ingress": {"sni": {"enabled": True}}})
        detail = "ingress_administratively_disabled"
        self.assert_error(answer, 500, "UNKNOWN_ERROR", detailed=detail)
        off = {"ingress": {"sni": {"enabled": False}}}
        for body in (off, {"transport": {"ssh": {"enabled": True}}}):
            self.assertEqual(200, self.mine("PUT", PATH, body).status)

    def test_reserved(self) -> None:
        """A reserved name cannot be claimed."""
        answer = self.mine("PUT", "/v1/tunnel/reserved", {})
        self.assert_error(
            answer, 400, "BAD_INPUT", field='"tunnel_id" with value "reserved" is reserved'
        )

    def test_port(self) -> None:
        """A TCP port that cannot be had is named, with its range."""
        answer = self.mine("PUT", PATH, {"ingress": {"tcp": {"enabled": True, "port": "80"}}})
        field = '"ingress.tcp.port" with value 80 must be from 20000 to 20002'
        self.assert_error(answer, 400, "BAD_INPUT", field=field)

    @settings(max_examples=200)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(KEYS),
                    inner,
                    max_size=3,
                )
            ),
            max_leaves=12,
        )
    )
    def test_anything(self, body: Any) -> None:
        """Any JSON is either a change or bad input, never anything else."""
        try:
            change = check_change(body)
        except BadInput as error:
            json.dumps(str(error))
        else:
            self.assertIsInstance(change, Change)


class BareTests(ApiCase):
    """A server without TCP, behind a proxy that does TLS."""

    settings = ApiSettings("https://tun.example:443", api_url="https://api.tun.example/")

    def test_protocols(self) -> None:
        """The dialects that clients may offer are listed, where there are any."""
        self.assertNotIn("protocols", self.mine("PUT", PATH, {}).json["transport"]["ws"])
        self.settings = replace(self.settings, ws_protocols=("exposr-tx.1",))
        self.setUp()
        shown = self.mine("PUT", PATH, {}).json
        self.assertEqual(shown["transport"]["ws"]["protocols"], ["exposr-tx.1"])

    def test_urls(self) -> None:
        """URLs carry the options' hosts, without default ports."""
        shown = self.mine("PUT", PATH, {"ingress": {"http": {"enabled": True}}}, base_url="").json
        self.assertEqual("https://my-tunnel.tun.example/", shown["ingress"]["http"]["url"])
        self.assertTrue(
            shown["transport"]["ws"]["url"].startswith(
                "wss://api.tun.example/v1/tunnel/my-tunnel/ws-endpoint?t="
            )
        )
        self.assertNotIn("tcp", shown["ingress"])

    def test_no_tcp(self) -> None:
        """TCP cannot be enabled where the server does not run it."""
        for tcp in ({"enabled": True}, {"port": 20000}):
            answer = self.mine("PUT", PATH, {"ingress": {"tcp": tcp}})
            self.assertEqual(500, answer.status)
            self.assertEqual("ingress_administratively_disabled", answer.json["detailed"])


class BaseUrlTests(TunnelCase):
    """Without --api-url the websocket's URL is the request's own."""

    def test_websocket_url(self) -> None:
        """Scheme, host and port are those under which the visitor came."""
        for base_url, expected in (
            ("http://tun.test:8080", "ws://tun.test:8080/"),
            ("http://localhost", "ws://localhost/"),
            ("http://localhost:80", "ws://localhost/"),
            ("https://tun.test", "wss://tun.test/"),
            ("https://tun.test:8443", "wss://tun.test:8443/"),
            ("http://[::1]:8080", "ws://[::1]:8080/"),
        ):
            shown = self.mine("PUT", PATH, {}, base_url=base_url).json
            self.assertTrue(shown["transport"]["ws"]["url"].startswith(expected + "v1/"), base_url)

    def test_no_host(self) -> None:
        """A request without a host has no URL to tell."""
        self.assertEqual(400, self.mine("PUT", PATH, {}, base_url="").status)
