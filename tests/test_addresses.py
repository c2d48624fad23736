"""Addresses as they are compared and shown."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.addresses import authority, host_port, unwrapped


class AddressTests(SynchronousTestCase):
    """Addresses of every kind."""

    def test_unwrapped(self) -> None:
        """IPv4 that came by a socket of IPv6 is IPv4; all else stays as it is."""
        for host, shown in (
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("::ffff:1", "::ffff:1"),
            ("2001:db8::1", "2001:db8::1"),
            ("192.0.2.7", "192.0.2.7"),
            ("", ""),
        ):
            self.assertEqual(unwrapped(host), shown)

    def test_host_port(self) -> None:
        """Brackets stand around IPv6 only."""
        for address, shown in (
            (IPv4Address("TCP", "192.0.2.7", 80), "192.0.2.7:80"),
            (IPv6Address("TCP", "2001:db8::1", 80), "[2001:db8::1]:80"),
            (IPv6Address("TCP", "::ffff:192.0.2.7", 80), "192.0.2.7:80"),
            (UNIXAddress(None), ":0"),
        ):
            self.assertEqual(host_port(address), shown)

    def test_authority(self) -> None:
        """The port of the scheme goes without saying."""
        for scheme, host, port, shown in (
            ("http", "a.test", 80, "a.test"),
            ("http", "a.test", 443, "a.test:443"),
            ("https", "2001:db8::1", 443, "[2001:db8::1]"),
            ("tcp", "2001:db8::1", 80, "[2001:db8::1]:80"),
            ("https", "a.test", None, "a.test"),
        ):
            self.assertEqual(authority(scheme, host, port), shown)
