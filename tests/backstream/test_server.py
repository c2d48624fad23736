"""Where backstream's server listens."""

from __future__ import annotations

import socket

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.backstream.options import Address
from exposr_tx.backstream.server import door


class DoorTests(SynchronousTestCase):
    """The door at an address."""

    def test_address_of_a_link(self) -> None:
        """An address that means something on one link only is listened at on that link."""
        number, name = socket.if_nameindex()[0]
        try:
            socket.getaddrinfo(f"fe80::1%{name}", 80)
        except OSError:
            self.skipTest("no IPv6")
        (endpoint,) = door(Address(f"[fe80::1%{name}]:80")).endpoints
        self.assertIn(rf"interface=fe80\:\:1%{number}:", endpoint)
