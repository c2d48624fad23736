"""Where backstream's server listens, and how it starts."""

from __future__ import annotations

import signal
import socket

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx import tap
from exposr_tx.backstream import server
from exposr_tx.backstream.options import Address, ServeOptions
from exposr_tx.backstream.server import door
from exposr_tx.errors import PolicyInvalid
from exposr_tx.server_options import Options


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


class StartTests(SynchronousTestCase):
    """While a server starts."""

    def test_hang_up(self) -> None:
        """SIGHUP while policies are loaded, or anything else, does not end either server."""
        self.addCleanup(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP))
        handlers = []

        def loading(*_: object) -> None:
            handlers.append(signal.getsignal(signal.SIGHUP))
            raise PolicyInvalid("policies: no")

        for module, options in ((server, ServeOptions({})), (tap, Options({}))):
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            self.patch(module, "open_policies", loading)
            for name in ("collect_rarely", "keep_freed_memory", "use_monotonic_time"):
                self.patch(module, name, lambda *_: None)  # they are for this process
            options.parseOptions([])
            self.assertRaises(SystemExit, module.makeService, options)
        self.assertEqual(len(handlers), 2)
        self.assertTrue(all(map(callable, handlers)), handlers)
