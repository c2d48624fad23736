"""A relay in a process of its own that does what a test asks of it while it runs.

:mod:`tests.system.relay` relays; this starts it and passes orders on::

    line = Line(self, server.port)
    client = Client(self, server, ..., "-s", line.url)
    line.order("stall")     # both sockets stay, nothing passes any more
    line.order("reset 0")   # the first connection that is open breaks off
"""

from __future__ import annotations

import socket
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineOnlyReceiver
from twisted.trial.unittest import SynchronousTestCase

from tests.system.harness import PATIENCE, ROOT, Process
from tests.system.relay import PASS, Relay, Way

STALLED = Way(stalled=True)


class Orders(LineOnlyReceiver):
    """Takes one order a line, and answers with how many connections are open."""

    delimiter = b"\n"
    relay: Relay

    def lineReceived(self, line: bytes) -> None:
        word, *numbers = line.decode().split()
        alive = [c for c in self.relay.connections if not (c.near.lost and c.far.lost)]
        if word == "stall":
            # Only what is open: connections to come pass.
            for relayed in alive:
                relayed.up.change(STALLED)
                relayed.down.change(STALLED)
        elif word == "pass":
            self.relay.change(up=PASS, down=PASS)
        elif word == "reset":
            for number in numbers:
                alive[int(number)].reset()
        self.sendLine(b"%d" % len(alive))


class Line(Process):
    """A relay to a port of this machine.

    :ivar url: of the relay, as a server URL.
    """

    def __init__(self, test: SynchronousTestCase, to: int) -> None:
        command = [sys.executable, "-m", "tests.system.line", str(to)]
        super().__init__(test, command, cwd=str(ROOT))
        ports = self.wait_for_line(r"^(\d+) (\d+)$")
        self.port = int(ports[1])
        self.url = f"http://localhost:{self.port}"
        self._orders = socket.create_connection(("127.0.0.1", int(ports[2])), PATIENCE)
        test.addCleanup(self._orders.close)

    def order(self, words: str) -> int:
        """Have it do something; how many connections were open before."""
        self._orders.sendall(words.encode() + b"\n")
        return int(self._orders.recv(64))


def main() -> None:
    """Relay to the port on the command line until stopped."""
    from twisted.internet import reactor

    relay = Relay(reactor, TCP4ClientEndpoint(reactor, "127.0.0.1", int(sys.argv[1])))
    Orders.relay = relay

    async def start() -> None:
        number = await relay.listen()
        orders = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        listening: Any = await orders.listen(Factory.forProtocol(Orders))
        print(number, listening.getHost().port, flush=True)

    Deferred.fromCoroutine(start()).addErrback(lambda failure: failure.printTraceback())
    reactor.run()


if __name__ == "__main__":
    main()
