"""Whom to believe about a visitor."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.ingress.trust import Trust, host_text


class TrustTests(SynchronousTestCase):
    def test_nobody(self) -> None:
        """By default nobody is believed."""
        visitor = Trust().visitor("127.0.0.1", {b"x-forwarded-for": [b"6.6.6.6"]})
        self.assertEqual((visitor.ip, visitor.chain, visitor.scheme), ("127.0.0.1", b"", None))

    def test_rightmost_untrusted(self) -> None:
        """Of a chain of addresses, the last one that no proxy of ours has is the visitor's."""
        trust = Trust(["10.0.0.0/8", "2001:db8::/32"])
        for chain, ip in (
            (b"6.6.6.6, 1.2.3.4", "1.2.3.4"),
            (b"1.2.3.4, 10.0.0.9", "1.2.3.4"),
            (b"10.0.0.8, 10.0.0.9", "10.0.0.8"),
            (b"::ffff:1.2.3.4", "1.2.3.4"),
            (b"2001:db9::1", "2001:db9::1"),
            (b"[2001:db9::1]", "2001:db9::1"),
            (b"6.6.6.6, [2001:db9::1]:4711", "2001:db9::1"),
            (b"1.2.3.4:4711, 10.0.0.9:80", "1.2.3.4"),
            (b"[1.2.3.4:80", "10.0.0.1"),
            (b"nonsense", "10.0.0.1"),
            (b"", "10.0.0.1"),
        ):
            self.assertEqual(trust.visitor("10.0.0.1", {b"x-forwarded-for": [chain]}).ip, ip)

    def test_scheme_and_host(self) -> None:
        """Forwarded wins over X-Forwarded-*; nonsense does not count."""
        trust = Trust(["::1"])
        visitor = trust.visitor(
            "::1",
            {
                b"forwarded": [b'for=1.2.3.4, for="[::1]";proto=HTTPS;host="a.b:8"'],
                b"x-forwarded-proto": [b"http"],
                b"x-forwarded-host": [b"c.d"],
            },
        )
        self.assertEqual((visitor.scheme, visitor.authority), ("https", b"a.b:8"))
        visitor = trust.visitor("::1", {b"x-forwarded-proto": [b"ftp"], b"x-scheme": [b"https"]})
        self.assertEqual(visitor.scheme, "https")
        visitor = trust.visitor("::1", {b"x-forwarded-host": [b"a b"], b"x-forwarded-port": [b"x"]})
        self.assertEqual((visitor.authority, visitor.port), (None, None))

    def test_port(self) -> None:
        """A port told apart is that of the host, unless the proxy named one with it."""
        trust = Trust(["::1"])
        for host, port, asked in (
            (b"", b"8443", b"a.test:8443"),
            (b"b.test", b"8443", b"b.test:8443"),
            (b"b.test:99", b"8443", b"b.test:99"),
            (b"[::2]", b"8443", b"[::2]:8443"),
            (b"[::2]:99", b"8443", b"[::2]:99"),
            (b"b.test", b"", b"b.test"),
            (b"", b"0", b"a.test:8080"),
            (b"", b"65536", b"a.test:8080"),
            (b"", b"8" * 5000, b"a.test:8080"),
        ):
            said = {b"x-forwarded-host": [host], b"x-forwarded-port": [port]}
            visitor = trust.visitor("::1", said)
            self.assertEqual(visitor.asked(b"a.test:8080"), asked)

    def test_unix_peers(self) -> None:
        """Peers on a UNIX socket are believed when the word unix is given."""
        self.assertTrue(Trust(["unix"]).trusts(host_text(UNIXAddress(None))))
        self.assertFalse(Trust(["127.0.0.1"]).trusts(""))

    def test_addresses(self) -> None:
        """IPv4 over an IPv6 socket is shown as IPv4."""
        self.assertEqual(host_text(IPv6Address("TCP", "::ffff:1.2.3.4", 1)), "1.2.3.4")
        self.assertEqual(host_text(IPv4Address("TCP", "1.2.3.4", 1)), "1.2.3.4")
