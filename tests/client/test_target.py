"""Targets as users write them."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IHostnameResolver
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from exposr_tx.client.target import Target, looks_like_target, parse_target
from exposr_tx.client.trust import Trust
from exposr_tx.errors import BadInput


class ParseTargetTests(SynchronousTestCase):
    """parse_target."""

    def parsed(self, text: str) -> tuple[str, str, int]:
        target = parse_target(text)
        return target.scheme, target.host, target.port

    def test_urls(self) -> None:
        """URLs name scheme, host and port; known schemes have a port of their own."""
        self.assertEqual(self.parsed("http://example.com"), ("http", "example.com", 80))
        self.assertEqual(self.parsed("https://Example.com/x"), ("https", "example.com", 443))
        self.assertEqual(self.parsed("tcp://10.0.0.1:22"), ("tcp", "10.0.0.1", 22))
        self.assertEqual(self.parsed("ssh://host"), ("ssh", "host", 22))
        self.assertEqual(self.parsed("tls://host:8883"), ("tls", "host", 8883))

    def test_short(self) -> None:
        """A port, and a host with a port, are an HTTP server."""
        self.assertEqual(self.parsed("3000"), ("http", "localhost", 3000))
        self.assertEqual(self.parsed("box:8000"), ("http", "box", 8000))
        self.assertEqual(self.parsed("[::1]:8000"), ("http", "::1", 8000))

    def test_ipv6(self) -> None:
        """Addresses in brackets work in URLs."""
        target = parse_target("https://[2001:db8::1]/")
        self.assertEqual((target.host, target.port), ("2001:db8::1", 443))
        self.assertEqual(target.url, "https://[2001:db8::1]/")

    def test_normal_form(self) -> None:
        """The server is told the URL as the existing client tells it."""
        self.assertEqual(parse_target("HTTP://Host:80").url, "http://host/")
        self.assertEqual(parse_target("3000").url, "http://localhost:3000/")
        self.assertEqual(parse_target("tcp://host:22").url, "tcp://host:22")
        self.assertEqual(parse_target("http://h/a b?c=d e").url, "http://h/a%20b?c=d%20e")

    def test_unix_and_endpoint_strings(self) -> None:
        """A socket's path and any Twisted endpoint are targets; the server is told a URI."""
        self.assertEqual(self.parsed("unix:/run/app.sock"), ("unix", "/run/app.sock", 0))
        target = parse_target(r"tcp:host=a\:b:port=80")
        self.assertEqual((target.scheme, target.host), ("endpoint", r"tcp:host=a\:b:port=80"))
        self.assertEqual(parse_target(target.url, from_server=True), target)

    def test_ingress(self) -> None:
        """HTTP servers, sockets and endpoint strings get HTTP ingress, other schemes do not."""
        for text in ("3000", "http://h", "https://h", "unix:/x", "tcp:h:80"):
            self.assertTrue(parse_target(text).is_http, text)
        for text in ("tcp://h:1", "tls://h:1", "ssh://h"):
            self.assertFalse(parse_target(text).is_http, text)

    def test_errors_name_the_remedy(self) -> None:
        """What is wrong says what to write."""
        for text, remedy in (
            ("tcp://host", "needs a port; write it like tcp://host:3000"),
            ("gopher://host", "unknown scheme 'gopher'"),
            ("http:host", "http://localhost:3000"),
            ("http:8080", "slashes"),
            ("host", "http://localhost:3000"),
            ("70000", "1 to 65535"),
            ("0", "1 to 65535"),
            ("http://h:0/", "1 to 65535"),
            ("http://h:99999/", "not a valid URL"),
            ("http://", "names no valid host"),
            ("http://[::1/", "not a valid URL"),
        ):
            error = self.assertRaises(BadInput, parse_target, text)
            self.assertIn(remedy, str(error))
            self.assertIn(repr(text), str(error))

    def test_server_names_plain_targets_only(self) -> None:
        """A server cannot make the client run an endpoint plug-in."""
        self.assertRaises(BadInput, parse_target, "haproxy:tcp%3Ax%3A1", True)
        self.assertEqual(parse_target("unix:/x", True).scheme, "unix")
        self.assertEqual(parse_target("http://h/", True).host, "h")

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """Any text is a target or a BadInput, and its URL is a URI."""
        try:
            target = parse_target(text)
        except BadInput:
            return
        self.assertTrue(target.url.isascii() and " " not in target.url)
        try:
            target.endpoint(MemoryReactorClock(), Trust())
        except BadInput:
            pass

    @given(st.text(min_size=1))
    def test_any_host(self, host: str) -> None:
        """The same for anything in the place of a host."""
        try:
            target = parse_target(f"https://{host}:1/")
            target.endpoint(MemoryReactorClock(), Trust())
        except BadInput:
            return
        self.assertEqual(parse_target(target.url).port, target.port)

    def test_looks_like_target(self) -> None:
        """A word with a colon and a number are no tunnel ids."""
        self.assertTrue(looks_like_target("unix:/x") and looks_like_target("3000"))
        self.assertFalse(looks_like_target("my-tunnel"))


@implementer(IHostnameResolver)
class Silent:
    """Finds nothing, and does not say so.

    :ivar asked: the names that were to be found.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []

    def resolveHostName(
        self, resolutionReceiver: Any, hostName: str, *more: Any, **other: Any
    ) -> Any:
        self.asked.append(hostName)
        return resolutionReceiver


class EndpointTests(SynchronousTestCase):
    """Target.endpoint."""

    def endpoint(self, text: str, trust: Trust | None = None) -> object:
        return parse_target(text).endpoint(MemoryReactorClock(), trust or Trust())

    def test_kinds(self) -> None:
        """Each kind of target has its endpoint."""
        self.assertIsInstance(self.endpoint("http://h"), HostnameEndpoint)
        self.assertIsInstance(self.endpoint("unix:/x"), UNIXClientEndpoint)
        self.assertIsNotNone(self.endpoint("https://h"))
        self.assertIsNotNone(self.endpoint("https://h", Trust(verify=False)))
        self.assertIsNotNone(self.endpoint("tcp:h:80"))

    def test_look_up_without_end(self) -> None:
        """A name whose look-up never ends is given up."""
        reactor = MemoryReactorClock()
        reactor.installNameResolver(Silent())
        connecting = parse_target("http://h").endpoint(reactor, Trust()).connect(Factory())
        reactor.advance(29)
        self.assertNoResult(connecting)
        reactor.advance(1)
        self.failureResultOf(connecting, TimeoutError)

    def test_unknown_endpoint(self) -> None:
        """An endpoint that Twisted does not know is named."""
        error = self.assertRaises(BadInput, self.endpoint, "nonsense:x")
        self.assertIn("nonsense", str(error))

    def test_bad_ca(self) -> None:
        """A file that is no certificate is named with its option."""
        path = self.mktemp()
        error = self.assertRaises(BadInput, self.endpoint, "https://h", Trust(path, True, "--ca"))
        self.assertIn("--ca", str(error))
        with open(path, "w") as stream:
            stream.write("no certificate")
        self.assertRaises(BadInput, self.endpoint, "https://h", Trust(path))

    def test_authority(self) -> None:
        """The Host of a target leaves out the scheme's own port."""
        self.assertEqual(parse_target("http://[::1]:80").authority, "[::1]")
        self.assertEqual(parse_target("3000").authority, "localhost:3000")
        self.assertEqual(Target("unix:/x", "unix", "/x").authority, "")
