"""The client of backstream's command line, as one run."""

from __future__ import annotations

from random import Random

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.backstream.client import BackstreamClient
from exposr_tx.backstream.log import Log
from exposr_tx.backstream.options import ClientOptions, command_line


class StopTests(SynchronousTestCase):
    """SIGINT and SIGTERM."""

    def test_while_connecting(self) -> None:
        """Asked to end before it is connected it ends at once, and tells of no failure."""
        lines: list[bytes] = []
        reactor = MemoryReactorClock()
        line = ["client", "--src", "http://127.0.0.1:1", "--dst", "http://localhost:3000"]
        options = command_line(line, {})
        assert isinstance(options, ClientOptions)
        log = Log(lines.append, "info", True)
        client = BackstreamClient(reactor, options, log, Random(1))
        status = client.start()
        reactor.advance(1)
        self.assertEqual(len(reactor.tcpClients), 1)
        client.stop()
        self.assertEqual(self.successResultOf(status), 0)
        self.assertEqual(len(lines), 1)
        self.assertIn(b"Quit signal received", lines[0])
