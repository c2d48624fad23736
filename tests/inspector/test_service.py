"""Where an inspector listens."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.inspector.address import Address
from exposr_tx.inspector.service import PORT, Inspector, NoPort


class Reactor(MemoryReactorClock):
    """Has some ports taken."""

    def __init__(self, *taken: int) -> None:
        super().__init__()
        self.taken = taken

    def listenTCP(self, port: int, *given: Any, **more: Any) -> Any:
        if port in self.taken:
            raise CannotListenError(more["interface"], port, OSError("in use"))
        listening: Any = super().listenTCP(port, *given, **more)
        address = IPv4Address("TCP", more["interface"], port or 50000)
        listening.getHost = lambda: address
        return listening


class InspectorTests(SynchronousTestCase):
    """Inspector."""

    def started(self, reactor: Reactor, port: int | None, folder: Path | None = None) -> Inspector:
        inspector = Inspector(reactor, port, folder)
        inspector.start()
        return inspector

    def test_port(self) -> None:
        """4040, or the next that is free, or any; on loopback only."""
        for taken, port in (((), 4040), ((4040, 4041), 4042), (range(PORT, PORT + 20), 50000)):
            reactor = Reactor(*taken)
            inspector = self.started(reactor, None)
            self.assertEqual(inspector.address, f"http://127.0.0.1:{port}")
            self.assertEqual(reactor.tcpServers[0][3], "127.0.0.1")

    def test_wanted_port(self) -> None:
        """A port that is asked for is taken or refused, with the option's name."""
        self.assertEqual(self.started(Reactor(4040), 4050).address, "http://127.0.0.1:4050")
        refusal = self.assertRaises(NoPort, self.started, Reactor(4050), 4050)
        self.assertIn("port 4050 cannot be listened on (in use)", str(refusal))

    def test_token(self) -> None:
        """Each run has a token of its own, which no repr shows."""
        first, second = (self.started(Reactor(), None) for _ in range(2))
        token = first.url.partition("?token=")[2]
        self.assertGreaterEqual(len(token), 32)
        self.assertNotEqual(first.url, second.url)
        self.assertNotIn(token, repr(first))

    def test_found(self) -> None:
        """It is found while it listens, and no longer."""
        with tempfile.TemporaryDirectory() as home:
            folder = Path(home, "exposr")
            inspector = self.started(Reactor(), None, folder)
            (found,) = Address.all(folder)
            self.assertEqual(f"{found.url}/?token={found.token}", inspector.url)
            inspector.close()
            self.assertEqual(list(Address.all(folder)), [])
            self.assertEqual(inspector.address, "")

    def test_nowhere_to_be_found(self) -> None:
        """A folder that cannot be made costs the file, not the inspector."""
        with tempfile.NamedTemporaryFile() as file:
            inspector = self.started(Reactor(), None, Path(file.name, "exposr"))
            self.assertEqual(inspector.address, "http://127.0.0.1:4040")
            inspector.close()
